"""Archives as docker of all ages, Jib and skopeo write them: which image is meant, and what is said of what is not one.

Authorities: docker load (moby's image/tarexport: names in normal form, keys in any case, the name of a config is not a
digest), skopeo (docker-archive: asks where a name is missing), and archives as Docker 25 and later write them."""

import io
import json
import os
import socket
import tarfile

from checks import check
from harness.common import BINARY, Failed, build, call, manifest_for, need, read_bundle, scratch
from layout import Layout, named, sha256, tagged
from layout import image_of_file as image
from tarfmt import END, f


def config_of(*layers, **changes):
    doc = {
        'os': 'linux',
        'architecture': 'amd64',
        'config': {},
        'rootfs': {'type': 'layers', 'diff_ids': [sha256(t) for t in layers]},
    }
    return json.dumps({**doc, **changes}).encode()


def tar_of(path, members, mode='w'):
    with tarfile.open(path, mode) as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def layer(name):
    return f(name, '1') + END


def classic(*images, keys=('Config', 'RepoTags', 'Layers'), config_name=None):
    """An archive as docker before 25 writes it; an image is (file, its tags or None)."""
    members, listed = {}, []
    for name, tags in images:
        tar, config = layer(name), config_of(layer(name))
        at = config_name or sha256(config)[7:] + '.json'
        members.update({at: config, name + '/layer.tar': tar})
        listed.append(dict(zip(keys, (at, tags, [name + '/layer.tar']), strict=True)))
    return {**members, 'manifest.json': json.dumps(listed).encode()}


def docker25(out, listed, indexed):
    """A layout with manifest.json beside it, as members of a tar; `listed` and `indexed` are (file, name or None)."""
    entries, saved = {}, []
    for name in dict.fromkeys(n for n, _ in listed + indexed):
        entries[name] = image(out, name)
    for name, full in listed:
        with open(os.path.join(out.blobs, entries[name]['digest'][7:])) as file:
            doc = json.load(file)
        at = lambda d: 'blobs/sha256/' + d['digest'][7:]
        saved.append(
            {
                'Config': at(doc['config']),
                'RepoTags': [full] if full else None,
                'Layers': [at(layer) for layer in doc['layers']],
            }
        )
    out.index(
        *(
            named(entries[name], full='docker.io/library/' + full, ref=full.split(':')[1]) if full else entries[name]
            for name, full in indexed
        )
    )
    members = {}
    for at, _, names in os.walk(out.path):
        for name in names:
            path = os.path.join(at, name)
            with open(path, 'rb') as file:
                members[os.path.relpath(path, out.path)] = file.read()
    members['manifest.json'] = json.dumps(saved).encode()
    return members


class Bench:
    def __init__(self, tmp):
        self.tmp, self.failed, self.count = tmp, [], 0

    def at(self, name):
        return os.path.join(self.tmp, name)

    def try_one(self, what, reference, file=None, says=(), platform='linux/amd64', args=()):
        """Builds; the root must have `file`, or else the build must fail. Both ways the words must be said."""
        self.count += 1
        out = self.at('out%d' % self.count)
        try:
            m = manifest_for(self.at('m.yaml'), json.dumps(reference), platform)
            p = build(m, out, *args, cache=self.at('cache'), ok=(0, 1))
            need((p.returncode == 0) == (file is not None), 'exit %d: %s' % (p.returncode, p.stderr))
            silent = [w for w in says if w not in p.stderr]
            need(not silent, 'the message does not say %s: %s' % (silent, p.stderr))
            need(
                p.stderr.replace('\n', '').isprintable() and len(p.stderr) < 1500,
                'not for a terminal: %r' % p.stderr[:2000],
            )
            if file is not None:
                found = sorted(path for path in read_bundle(out) if path != '/')
                need(found == ['/' + file], 'it holds %s, not %s' % (found, file))
        except (Failed, OSError) as e:
            self.failed.append('%s: %s' % (what, e))

    def done(self):
        need(not self.failed, '%d of %d fail:\n%s' % (len(self.failed), self.count, '\n'.join(self.failed)))
        return '%d archives' % self.count


@check('archives-names')
def names():
    """Names in normal form, and what is asked where none is given."""
    with scratch() as tmp:
        b = Bench(tmp)
        tar_of(b.at('a.tar'), classic(('x', ['x:latest']), ('y', ['example.com/y:1', 'y:2']), ('none', None)))
        untagged = sha256(config_of(layer('none')))
        for name, file in (
            ('x', 'x'),
            ('x:latest', 'x'),
            ('docker.io/library/x:latest', 'x'),
            ('library/x', 'x'),
            ('index.docker.io/library/x', 'x'),
            ('example.com/y:1', 'y'),
            ('y:2', 'y'),
            ('docker.io/library/y:2', 'y'),
        ):
            b.try_one(name, 'docker-archive:a.tar:' + name, file)
        b.try_one(
            'no name', 'docker-archive:a.tar', says=['more than one', 'x:latest', 'example.com/y:1', '@' + untagged]
        )
        b.try_one('no such name', 'docker-archive:a.tar:x:3', says=['x:3', 'x:latest', 'y:2'])
        b.try_one('by ID', 'docker-archive:a.tar@' + untagged, 'none')
        b.try_one('by a wrong ID', 'docker-archive:a.tar@sha256:' + '0' * 64, says=['0' * 64])
        tar_of(b.at('one.tar'), classic(('x', None)))
        b.try_one('one without a name', 'docker-archive:one.tar', 'x')
        tar_of(b.at('two.tar'), classic(('x', ['x:1']), ('y', None)))
        b.try_one('one tagged, one not', 'docker-archive:two.tar', says=['x:1', '@' + sha256(config_of(layer('y')))])
        tar_of(b.at('same.tar'), classic(('x', ['x:1']), ('x', ['x:2'])))
        b.try_one('one image, two names', 'docker-archive:same.tar', 'x')
        tar_of(b.at('colon:in.name.tar'), classic(('x', ['x:1'])))
        b.try_one('a path with a colon', 'docker-archive:colon:in.name.tar:x:1', 'x')
        return b.done()


@check('archives-docker25')
def docker_25():
    """Layouts with manifest.json beside them: what one of the two lacks, the other has."""
    with scratch() as tmp:
        b = Bench(tmp)
        three = [('alpine', 'alpine:3.18'), ('a', 'a:1'), ('b', 'b:1')]
        tar_of(b.at('d.tar'), docker25(Layout(b.at('d')), three, three))
        for scheme in ('docker-archive', 'oci-archive'):
            for name, file in (
                ('alpine:3.18', 'alpine'),
                ('docker.io/library/alpine:3.18', 'alpine'),
                ('3.18', 'alpine'),
                ('a:1', 'a'),
                ('b:1', 'b'),
            ):
                b.try_one('%s %s' % (scheme, name), '%s:d.tar:%s' % (scheme, name), file)
            b.try_one(
                scheme + ' ambiguous', scheme + ':d.tar:1', says=['docker.io/library/a:1', 'docker.io/library/b:1']
            )
            b.try_one(scheme + ' absent', scheme + ':d.tar:c:1', says=['c:1', 'a:1'])
            b.try_one(scheme + ' no name', scheme + ':d.tar', says=['more than one', 'a:1', 'b:1'])
        # Docker 25.0, docker save ID: the index is empty.
        members = docker25(Layout(b.at('e')), [('x', None)], [])
        tar_of(b.at('e.tar'), members)
        b.try_one('an empty index', 'docker-archive:e.tar', 'x')
        index = json.loads(members['index.json'])
        tar_of(b.at('n.tar'), {**members, 'index.json': json.dumps({**index, 'manifests': None}).encode()})
        b.try_one('an index of null', 'docker-archive:n.tar', 'x')
        # And where one image has a name and another has none, the index has only the former.
        members = docker25(Layout(b.at('t')), [('x', 'x:1'), ('y', None)], [('x', 'x:1')])
        tar_of(b.at('t.tar'), members)
        unnamed = 'sha256:' + json.loads(members['manifest.json'])[1]['Config'].split('/')[-1]
        b.try_one('one tagged, one not', 'docker-archive:t.tar', says=['more than one', 'x:1', '@' + unnamed])
        b.try_one('the tagged one', 'docker-archive:t.tar:x:1', 'x')
        b.try_one('the other by its ID', 'docker-archive:t.tar@' + unnamed, 'y')
        # Newer ones name neither in the index, if neither has a name.
        tar_of(b.at('u.tar'), docker25(Layout(b.at('u')), [('x', None)], [('x', None)]))
        b.try_one('one without a name', 'docker-archive:u.tar', 'x')
        return b.done()


@check('archives-odd')
def odd():
    """manifest.json and configs as other tools write them."""
    with scratch() as tmp:
        b = Bench(tmp)
        tar_of(b.at('jib.tar'), classic(('x', ['x:1']), keys=('config', 'repoTags', 'layers')))
        b.try_one('lower-case keys', 'docker-archive:jib.tar', 'x')
        b.try_one('lower-case keys, by name', 'docker-archive:jib.tar:x:1', 'x')
        tar_of(b.at('name.tar'), classic(('x', ['x:1']), config_name='0' * 64 + '.json'))
        b.try_one('a config of another name', 'docker-archive:name.tar', 'x', says=['warning', '0' * 64])
        tar_of(b.at('plain.tar'), classic(('x', ['x:1']), config_name='config.json'))
        b.try_one('a config called config.json', 'docker-archive:plain.tar', 'x')
        tar_of(b.at('blob.tar'), classic(('x', ['x:1']), config_name='blobs/sha256/' + '0' * 64))
        b.try_one('a config of a layout', 'docker-archive:blob.tar', says=['0' * 64])
        scratched = {
            'c.json': config_of(rootfs={'type': 'layers', 'diff_ids': None}),
            'manifest.json': b'[{"Config":"c.json","RepoTags":null,"Layers":null}]',
        }
        p = build(
            manifest_for(b.at('s.yaml'), 'docker-archive:s.tar') if tar_of(b.at('s.tar'), scratched) else None,
            b.at('s'),
        )
        need('0 layers' in p.stderr, 'FROM scratch: ' + p.stderr)
        for what, members, words in (
            ('no list', {'manifest.json': b'{"schemaVersion":2}'}, ['manifest.json', 'an object', 'not a list']),
            ('nothing', {'manifest.json': b'[]'}, ['no image']),
            ('no config', {'manifest.json': b'[{}]'}, ['config']),
            ('null', {'manifest.json': b'[null]'}, ['null']),
            ('not JSON', {'manifest.json': b'\x1b[2J'}, ['manifest.json']),
            ('absent config', {'manifest.json': b'[{"Config":"c.json"}]'}, ['c.json', 'missing']),
            ('control characters', {'manifest.json': json.dumps([{'Config': '\x1b[2J\x07'}]).encode()}, ['\\u{1b}']),
        ):
            tar_of(b.at('bad.tar'), members)
            b.try_one(what, 'docker-archive:bad.tar', says=words)
        return b.done()


@check('archives-said')
def said():
    """What is at the path, and which form reads it."""
    with scratch() as tmp:
        b = Bench(tmp)
        out = Layout(b.at('layout'))
        out.index(tagged(image(out, 'x')))
        tar_of(b.at('docker.tar'), classic(('x', ['x:1'])))
        call('tar', '-C', b.at('layout'), '-cf', b.at('oci.tar'), '.')
        call(
            'skopeo', 'copy', '--quiet', '--insecure-policy', 'oci:%s:latest' % b.at('layout'), 'dir:' + b.at('skopeo')
        )
        os.mkdir(b.at('empty'))
        os.mkfifo(b.at('fifo'))
        socket.socket(socket.AF_UNIX).bind(b.at('socket'))
        tar_of(b.at('export.tar'), {'etc/passwd': b'', 'bin/sh': b''})
        tar_of(b.at('other.tar'), {'README': b'x'})
        tar_of(b.at('old.tar'), {'repositories': b'{}', 'abc/json': b'{}'})
        for name, data in (
            ('text', b'no archive, ' * 99),
            ('noise', bytes(range(256)) * 40),
            ('none', b''),
            ('zeros', bytes(10240)),
            ('few', b'\xfd'),
        ):
            with open(b.at(name), 'wb') as file:
                file.write(data)
        with open(b.at('docker.tar'), 'rb') as file, open(b.at('cut.tar'), 'wb') as cut:
            whole = file.read()
            cut.write(whole[:600])
        with open(b.at('damaged.tar'), 'wb') as file:
            file.write(whole[:1024] + bytes(b ^ 0xA5 for b in whole[1024:1536]) + whole[1536:])
        b.try_one('it works', 'oci:layout', 'x')
        for reference, words in (
            ('docker-archive:layout', ['directory', 'oci:DIR']),
            ('oci-archive:layout', ['directory', 'oci:DIR']),
            ('dir:layout', ['oci:DIR']),
            ('oci:skopeo', ['dir:DIR']),
            ('docker-archive:skopeo', ['dir:DIR']),
            ('oci:empty', ['neither']),
            ('dir:empty', ['neither']),
            ('oci-archive:empty', ['directory']),
            ('oci:oci.tar', ['oci-archive:FILE']),
            ('docker-archive:oci.tar', ['oci-archive:FILE']),
            ('dir:oci.tar', ['oci-archive:FILE']),
            ('oci:docker.tar', ['docker-archive:FILE']),
            ('oci-archive:docker.tar', ['docker-archive:FILE']),
            ('docker-archive:export.tar', ['docker export']),
            ('oci-archive:export.tar', ['docker export']),
            ('oci:text', ['file']),
            ('docker-archive:other.tar', ['manifest.json', 'index.json']),
            ('docker-archive:old.tar', ['1.10']),
            ('docker-archive:text', ['tar']),
            ('docker-archive:noise', ['tar']),
            ('docker-archive:few', ['tar']),
            ('docker-archive:none', ['tar']),
            ('docker-archive:zeros', ['tar']),
            ('docker-archive:cut.tar', ['cut']),
            ('docker-archive:damaged.tar', ['damaged']),
            ('docker-archive:fifo', ['regular file']),
            ('docker-archive:/dev/null', ['regular file']),
            ('docker-archive:absent.tar', ['no such file']),
            ('oci:absent', ['no such directory']),
        ):
            b.try_one(reference, reference, says=words)
        b.try_one('socket', 'docker-archive:socket', says=['socket'])
        for reference, words in (
            ('oci:absent:1', ['no such directory']),
            ('docker-archive:docker.tar', ['bundles']),
            ('oci-archive:docker.tar', ['docker-archive']),
        ):
            p = call(BINARY, 'pull', reference, '-o', 'pulled', '--cache-dir', 'cache', cwd=tmp, ok=(1,))
            need(all(w in p.stderr for w in words), p.stderr)
        return b.done()
