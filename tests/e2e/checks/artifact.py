"""Bundles in registries, layouts and archives: what comes back is, to the byte, what was sent."""

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import time

from checks import check
from harness import bundle
from harness.boot import boot
from harness.common import BINARY, HELLO, TOP, build, call, manifest_for, need, need_no_leftovers, same_files, scratch
from harness.images import image
from harness.registry import Site
from layout import INDEX, Layer, Layout, sha256, tagged, zstd_frame
from tarfmt import END, f, header

TITLE = 'org.opencontainers.image.title'
FILE_TYPE = 'application/vnd.rootfs-compile.bundle.file.v1+zstd'


def tool(*args, ok=(0,), cache=None, **env):
    """One run of the compiler, with a cache of its own if one is given."""
    cached = ('--cache-dir', cache) if cache else ()
    return call(BINARY, *args, *cached, ok=ok, env={**os.environ, **env})


def patched(tmp, name, image_of, content):
    """A manifest of the same image with one patch."""
    path = os.path.join(tmp, name + '.yaml')
    with open(path, 'w') as file:
        file.write(
            'image: oci:%s:latest\nplatform: linux/amd64\npatches:\n  - write: { path: /etc/mark, content: "%s" }\n'
            % (image_of, content)
        )
    return path


def uploads(site):
    """How many blobs the plain registry took, by its own account."""
    with open(site.plain.log) as log:
        return sum('"PUT /v2/' in line and '/blobs/uploads/' in line and '" 201 ' in line for line in log)


@check('artifact-registry')
def in_registry():
    """Pushed and pulled; what the registry has is not sent; other tools copy it unharmed; and it boots."""
    with scratch() as tmp, Site(os.path.join(tmp, 'site')) as site:
        at = lambda *names: os.path.join(tmp, *names)
        layout = image('python-slim')
        build(patched(tmp, 'one', layout, 'one'), at('one'), cache=at('cache'))
        build(patched(tmp, 'two', layout, 'two'), at('two'), cache=at('cache'))
        proxy = site.proxy()
        plain = ('--insecure-registry', site.plain.host, '--insecure-registry', proxy.host)
        tool('push', at('one'), site.plain.host + '/bundles/slim:one', *plain, cache=at('cache'))
        first = uploads(site)
        said = tool('push', at('two'), site.plain.host + '/bundles/slim:two', *plain, cache=at('cache')).stderr
        more = uploads(site) - first
        need(
            first == len(os.listdir(at('one', 'layers'))) + 4 and more == 2,
            'the second bundle of the same base sends %d blobs, and not its upper and its index: %s' % (more, said),
        )
        # With no cache, and with the one that has every layer.
        for name, cache in (('pulled', 'empty'), ('cached', 'cache')):
            proxy.forget()
            tool('pull', proxy.host + '/bundles/slim:two', '-o', at(name), *plain, cache=at(cache))
            same_files(at('two'), at(name), name)
            blobs = {r.path for r in proxy.asked('/blobs/sha256') if r.method == 'GET'}
            layers = len(os.listdir(at('two', 'layers')))
            need(
                len(blobs) == (layers + 4 if name == 'pulled' else 4),
                '%s: %d blobs were asked for' % (name, len(blobs)),
            )
        tool('verify', at('pulled'))
        sparse = os.stat(at('pulled', 'upper.ext4'))
        need(sparse.st_blocks * 512 < 4 << 20, 'the pulled upper takes %d bytes' % (sparse.st_blocks * 512))
        other = site.tls
        call(
            'skopeo',
            'copy',
            '--quiet',
            '--src-tls-verify=false',
            '--dest-tls-verify=false',
            'docker://%s/bundles/slim:one' % site.plain.host,
            'docker://%s/copies/slim:one' % other.host,
        )
        tool('pull', other.host + '/copies/slim:one', '-o', at('copied'), '--ca-cert', site.ca, cache=at('other'))
        same_files(at('one'), at('copied'), 'copied by skopeo')
        said = boot(at('copied'), '--engine', 'qemu', '--entrypoint', '/bin/cat', '--', '/etc/mark').stdout
        need(said == 'one', 'the guest says ' + said)


@check('artifact-layout')
def in_layout():
    """Layouts and archives, which other tools read; the disk as one file; and nothing that is there is lost."""
    with scratch() as tmp, Site(os.path.join(tmp, 'site')) as site:
        at = lambda *names: os.path.join(tmp, *names)
        build(HELLO, at('hello'), cache=at('cache'))
        build(patched(tmp, 'other', os.path.join(TOP, 'testimages/hello'), 'x'), at('other'), cache=at('cache'))
        tool('export', at('hello'), '--oci-layout', at('layout'), cache=at('cache'))
        before = len(os.listdir(at('layout/blobs/sha256')))
        tool('export', at('other'), '--oci-layout', at('layout'), '--tag', 'other', cache=at('cache'))
        more = len(os.listdir(at('layout/blobs/sha256'))) - before
        need(
            more == 3,
            'a second bundle of the same base brings %d blobs: its upper, its index and its manifest would be 3' % more,
        )
        for name, tag in (('hello', 'latest'), ('other', 'other')):
            tool('import', 'oci:%s:%s' % (at('layout'), tag), '-o', at('from-' + name), cache=at('empty'))
            same_files(at(name), at('from-' + name), 'from a layout')
        largest = max(
            (os.path.join(top, n) for top, _, names in os.walk(at('cache')) for n in names if n.endswith('.erofs')),
            key=os.path.getsize,
        )

        def rot():
            """Turns a bit of the object, or back. Nothing but its content tells of it."""
            stat = os.stat(largest)
            os.chmod(largest, 0o644)
            with open(largest, 'r+b') as file:
                file.seek(4000)
                byte = file.read(1)
                file.seek(4000)
                file.write(bytes([byte[0] ^ 1]))
            os.chmod(largest, 0o444)
            os.utime(largest, ns=(stat.st_atime_ns, stat.st_mtime_ns))

        rot()
        said = tool('import', 'oci:%s:latest' % at('layout'), '-o', at('from-rotten'), cache=at('cache')).stderr
        rot()
        need('damaged' in said, 'nothing is said of the damaged object: ' + said)
        same_files(at('hello'), at('from-rotten'), 'with a damaged object in the cache')
        tool('export', at('hello'), '--oci-archive', at('a.tar'), '--tag', 'v1', cache=at('cache'))
        tool(
            'export',
            at('hello'),
            '--oci-archive',
            at('b.tar'),
            '--tag',
            'v1',
            cache=at('third'),
            TZ='Pacific/Kiritimati',
        )
        with open(at('a.tar'), 'rb') as a, open(at('b.tar'), 'rb') as b:
            need(a.read() == b.read(), 'two archives of one bundle differ')
        tool('pull', 'oci-archive:%s:v1' % at('a.tar'), '-o', at('from-archive'), cache=at('empty'))
        same_files(at('hello'), at('from-archive'), 'from an archive')
        call(
            'skopeo',
            'copy',
            '--quiet',
            '--dest-tls-verify=false',
            'oci-archive:%s:v1' % at('a.tar'),
            'docker://%s/x/hello:v1' % site.plain.host,
        )
        tool(
            'pull',
            site.plain.host + '/x/hello:v1',
            '-o',
            at('from-skopeo'),
            '--insecure-registry',
            site.plain.host,
            cache=at('empty'),
        )
        same_files(at('hello'), at('from-skopeo'), 'from an archive by skopeo')
        tool('export', at('hello'), '--raw', at('raw'))
        with open(at('raw'), 'rb') as raw:
            need(hashlib.sha256(raw.read()).hexdigest() == whole(at('hello')), 'the flat disk is not fsmeta and layers')
        with bundle.mounted(at('raw'), 'erofs', 'ro,loop') as root:
            need(os.path.exists(os.path.join(root, 'etc/passwd')), 'the flat disk has no /etc/passwd')
        # The directory as a tar: GNU tar and Python read the sparse upper, whose holes count and not the host's.
        tool('export', at('hello'), '--tar', at('bundle.tar'))
        with open(at('hello/upper.ext4'), 'r+b') as upper:
            upper.seek(64 << 20)
            upper.write(bytes(1 << 20))
        tool('export', at('hello'), '--tar', at('again.tar'))
        call('cmp', at('bundle.tar'), at('again.tar'))
        need(os.path.getsize(at('bundle.tar')) < 4 << 20, 'the tar has %d bytes' % os.path.getsize(at('bundle.tar')))
        os.mkdir(at('untarred'))
        call('tar', '-xf', at('bundle.tar'), '-C', at('untarred'))
        same_files(at('hello'), at('untarred'), 'from a tar')
        tool('verify', at('untarred'))
        with tarfile.open(at('bundle.tar')) as archive:
            upper = archive.getmember('upper.ext4')
            need(upper.issparse() and upper.size == 4 << 30, 'Python sees an upper of %d bytes' % upper.size)
        for args in (['--raw', at('raw')], ['--oci-archive', at('a.tar')], ['--oci-layout', at('hello')]):
            p = tool('export', at('hello'), *args, ok=(1,))
            need('stays as it is' in p.stderr, '%s: %s' % (args, p.stderr))
        tool('verify', at('hello'))


def whole(directory):
    sha = hashlib.sha256()
    for path, _ in bundle.extents(directory):
        with open(path, 'rb') as file:
            sha.update(file.read())
    return sha.hexdigest()


class Spoiled:
    """A layout of the bundle hello, in which the manifest, the index and blobs can be changed."""

    def __init__(self, layout, directory):
        shutil.copytree(layout, directory)
        self.blobs = os.path.join(directory, 'blobs/sha256')
        self.directory = directory
        with open(os.path.join(directory, 'index.json')) as file:
            self.index = json.load(file)
        self.manifest = json.loads(self.read(self.index['manifests'][0]))
        self.json = json.loads(self.read(self.manifest['config']))

    def read(self, descriptor):
        with open(os.path.join(self.blobs, descriptor['digest'][7:]), 'rb') as file:
            return file.read()

    def put(self, descriptor, data):
        descriptor.update(digest='sha256:' + hashlib.sha256(data).hexdigest(), size=len(data))
        with open(os.path.join(self.blobs, descriptor['digest'][7:]), 'wb') as file:
            file.write(data)

    def save(self):
        """Writes all, with digests that are right: who changes a bundle can do that as well."""
        self.put(self.manifest['config'], bundle.sealed(bundle.written(self.json)))
        self.put(self.index['manifests'][0], json.dumps(self.manifest).encode())
        with open(os.path.join(self.directory, 'index.json'), 'w') as file:
            json.dump(self.index, file)

    def layer(self, title):
        return next(layer for layer in self.manifest['layers'] if layer['annotations'][TITLE] == title)


def hostile():
    """(what, how a layout becomes it, words of the error)"""
    zstd = lambda data: subprocess.run(['zstd', '-q', '-c'], input=data, stdout=subprocess.PIPE, check=True).stdout

    def flip(s):
        path = os.path.join(s.blobs, s.layer('fsmeta.erofs')['digest'][7:])
        with open(path, 'r+b') as file:
            file.seek(-3, os.SEEK_END)
            last = file.read(1)
            file.seek(-3, os.SEEK_END)
            file.write(bytes([last[0] ^ 1]))

    yield 'a damaged blob', flip, 'fsmeta.erofs'
    yield (
        'a blob that is missing',
        lambda s: os.unlink(os.path.join(s.blobs, s.layer('upper.ext4')['digest'][7:])),
        'missing',
    )
    yield (
        'other content',
        lambda s: s.put(s.layer('fsmeta.erofs'), zstd(bytes(s.json['files'][1]['size']))),
        'fsmeta.erofs',
    )
    yield 'more than it should be', lambda s: s.put(s.layer('bundle.vmdk'), zstd(bytes(1 << 30))), 'bytes it should'
    yield 'no zstd', lambda s: s.put(s.layer('bundle.vmdk'), b'plain'), 'bundle.vmdk'
    yield 'no sparse stream', lambda s: s.put(s.layer('upper.ext4'), zstd(b'x' * 5000)), 'upper.ext4'
    yield (
        'a file too many',
        lambda s: s.manifest['layers'].append({**s.layer('bundle.vmdk'), 'annotations': {TITLE: 'more'}}),
        '"more"',
    )
    yield 'a file too few', lambda s: s.manifest['layers'].remove(s.layer('bundle.vmdk')), 'has no bundle.vmdk'
    yield (
        'a path out of the bundle',
        lambda s: (
            s.layer('bundle.vmdk')['annotations'].update({TITLE: '../../escaped'}),
            s.json['files'][0].update(path='../../escaped'),
        ),
        '../../escaped',
    )
    yield 'a media type', lambda s: s.layer('bundle.vmdk').update(mediaType='text/plain'), 'text/plain'
    yield 'an index of the future', lambda s: s.json.update(version=99), '99'
    yield 'another artifact', lambda s: s.manifest.update(artifactType='application/x'), 'not a bundle'
    layer = lambda s: next(layer for layer in s.manifest['layers'] if layer['annotations'][TITLE].startswith('layers/'))
    yield (
        'a layer told by its blocks',
        lambda s: layer(s).update(mediaType=FILE_TYPE.replace('file', 'sparse')),
        'media type',
    )
    yield 'one file twice', lambda s: s.manifest['layers'].append(layer(s)), 'same file'

    def fifo(s):
        path = os.path.join(s.blobs, s.layer('fsmeta.erofs')['digest'][7:])
        os.unlink(path)
        os.mkfifo(path)

    yield 'a fifo', fifo, 'not a regular file'
    yield 'no title', lambda s: s.layer('bundle.vmdk').pop('annotations'), 'title'


@check('artifact-hostile')
def spoiled():
    """What somebody else may have changed: an error, and nothing appears."""
    count = 0
    with scratch() as tmp:
        at = lambda *names: os.path.join(tmp, *names)
        build(HELLO, at('hello'), cache=at('cache'))
        tool('export', at('hello'), '--oci-layout', at('layout'), cache=at('cache'))
        for what, spoil, word in hostile():
            shutil.rmtree(at('spoiled'), ignore_errors=True)
            s = Spoiled(at('layout'), at('spoiled'))
            spoil(s)
            s.save()
            os.makedirs(at('place'), exist_ok=True)
            p = tool('pull', 'oci:%s:latest' % at('spoiled'), '-o', at('place/out'), ok=(1,), cache=at('empty'))
            need(word in p.stderr, '%s: the error does not say %r: %s' % (what, word, p.stderr))
            need_no_leftovers(at('place'))
            need(not os.path.exists(at('escaped')), what + ': something was written outside')
            count += 1
        p = tool(
            'pull',
            'oci:%s:latest@sha256:%s' % (at('layout'), '0' * 64),
            '-o',
            at('place/out'),
            ok=(1,),
            cache=at('empty'),
        )
        need('not a bundle' in p.stderr, 'another digest than the pinned one: ' + p.stderr)
        # Indexes that name each other sixty times over, five deep: as many manifests as no machine has time for.
        out = Layout(at('bomb'))
        descriptor = out.image([Layer(f('a', '1'))])
        for _ in range(5):
            descriptor = out.json({'schemaVersion': 2, 'mediaType': INDEX, 'manifests': [descriptor] * 60}, INDEX)
        out.index(tagged(descriptor))
        build(manifest_for(at('bomb.yaml'), 'oci:%s:latest' % at('bomb')), at('place/out'))
        shutil.rmtree(at('place'))
        os.makedirs(at('place'))
        p = tool('pull', 'oci:%s/testimages/hello:latest' % TOP, '-o', at('place/out'), ok=(1,), cache=at('empty'))
        need('not a bundle' in p.stderr, 'an image: ' + p.stderr)
        # A bundle that is there stays, unless it is to be replaced.
        p = tool('pull', 'oci:%s:latest' % at('layout'), '-o', at('hello'), ok=(1,), cache=at('empty'))
        need('--force' in p.stderr, p.stderr)
        tool('pull', 'oci:%s:latest' % at('layout'), '-o', at('hello'), '--force', cache=at('empty'))
        tool('verify', at('hello'))
    return '%d cases' % count


@check('artifact-shared-layers')
def shared():
    """Two machines and one registry: what the first compiled, the second does not inflate;
    and what is wrong there is compiled anew."""
    with scratch() as tmp, Site(os.path.join(tmp, 'site')) as site:
        at = lambda *names: os.path.join(tmp, *names)
        layout = image('python-slim')
        site.push(layout, 'slim:1')
        proxy = site.proxy()
        plain = ('--insecure-registry', site.plain.host, '--insecure-registry', proxy.host)
        shelf = site.plain.host + '/shelf/layers'
        with open(at('m.yaml'), 'w') as file:
            file.write('image: %s/slim:1\nplatform: linux/amd64\n' % proxy.host)

        def machine(name, *args, manifest='m.yaml'):
            proxy.forget()
            start = time.monotonic()
            p = build(at(manifest), at(name), *plain, *args, cache=at(name + '.cache'))
            return (
                p.stderr,
                time.monotonic() - start,
                {r.path for r in proxy.asked('/v2/slim/blobs/sha256') if r.method == 'GET'},
            )

        said, cold, blobs = machine('first', '--cache-to', shelf, '--cache-from', shelf)
        layers = len(os.listdir(at('first', 'layers')))
        need(
            len(blobs) == layers + 1 and 'warning' not in said,
            'the first machine asks for %d blobs: %s' % (len(blobs), said),
        )
        said, warm, blobs = machine('second', '--cache-from', shelf)
        same_files(at('first'), at('second'), 'from shared layers')
        need(
            len(blobs) == 1 and '(%d cached)' % layers in said,
            'the second machine asks for %d blobs, and not for the config alone: %s' % (len(blobs), said),
        )
        # A bundle beside its image says which one that is.
        with open(at('beside.yaml'), 'w') as file:
            file.write('image: %s/slim:1\nplatform: linux/amd64\n' % site.plain.host)
        build(at('beside.yaml'), at('beside'), *plain, cache=at('first.cache'))
        tool('push', at('beside'), site.plain.host + '/slim:bundle', *plain, cache=at('first.cache'))
        tool('push', at('beside'), site.plain.host + '/elsewhere:bundle', *plain, cache=at('first.cache'))
        raw = lambda name: json.loads(
            call('skopeo', 'inspect', '--raw', '--tls-verify=false', 'docker://%s/%s' % (site.plain.host, name)).stdout
        )
        need(
            raw('slim:bundle')['subject']['digest'] == site.digest('slim:1')
            and 'subject' not in raw('elsewhere:bundle'),
            'the subject is %s' % raw('slim:bundle').get('subject'),
        )
        # What is there already is not sent again, and a repository that is not there counts as empty.
        before = uploads(site)
        said, _, _ = machine(
            'third', '--cache-from', site.plain.host + '/none/here', '--cache-from', shelf, '--cache-to', shelf
        )
        need(
            uploads(site) == before and 'warning' not in said,
            'the third machine sends %d blobs: %s' % (uploads(site) - before, said),
        )
        # A shelf on which every object lies under another's name, and one that nobody answers for.
        names = json.loads(call('skopeo', 'list-tags', '--tls-verify=false', 'docker://' + shelf).stdout)['Tags']
        wrong = site.plain.host + '/wrong/layers'
        for name, other in zip(names, names[1:] + names[:1], strict=True):
            call(
                'skopeo',
                'copy',
                '--quiet',
                '--src-tls-verify=false',
                '--dest-tls-verify=false',
                'docker://%s:%s' % (shelf, other),
                'docker://%s:%s' % (wrong, name),
            )
        for name, bad, word in (('lying', wrong, 'another layer'), ('silent', '127.0.0.1:1/shelf', 'no answer')):
            said, _, blobs = machine(name, '--cache-from', bad, '--insecure-registry', '127.0.0.1:1')
            need(
                word in said and len(blobs) == layers + 1, '%s: %d blobs were asked for: %s' % (name, len(blobs), said)
            )
            same_files(at('first'), at(name), name)
    return 'cold %.1f s, with shared layers %.1f s' % (cold, warm)


@check('artifact-greedy-layers')
def greedy_layers():
    """Shared layers whose records claim more than all layers together may expand to:
    what is compiled instead lacks nothing of that."""
    with scratch() as tmp, Site(os.path.join(tmp, 'site')) as site:
        at, plain = lambda *names: os.path.join(tmp, *names), ('--insecure-registry', site.plain.host)
        out, greedy = Layout(at('zeros')), site.plain.host + '/greedy/layers'
        size, head = 4 << 30, header('zeros', b'0', 4 << 30)
        plain_bytes = hashlib.sha256(head)
        for _ in range(size >> 20):
            plain_bytes.update(bytes(1 << 20))
        plain_bytes.update(END)
        blob = zstd_frame(head) + zstd_frame(None, size + len(END))
        out.index(
            tagged(out.image([Layer(blob=blob, tar=b'', form='zstd', diff_id='sha256:' + plain_bytes.hexdigest())]))
        )
        build(manifest_for(at('zeros.yaml'), 'oci:%s:latest' % out.path), at('first'), *plain, '--cache-to', greedy)
        [name] = json.loads(call('skopeo', 'list-tags', '--tls-verify=false', 'docker://' + greedy).stdout)['Tags']
        call(
            'skopeo',
            'copy',
            '--quiet',
            '--src-tls-verify=false',
            'docker://%s:%s' % (greedy, name),
            'dir:' + at('greedy'),
        )
        with open(at('greedy/manifest.json')) as file:
            doc = json.load(file)
        with open(at('greedy', doc['config']['digest'].split(':')[1])) as file:
            record = json.dumps(json.load(file) | {'size': 1 << 50}).encode()
        doc['config'] |= {'digest': sha256(record), 'size': len(record)}
        for path, data in (
            (doc['config']['digest'].split(':')[1], record),
            ('manifest.json', json.dumps(doc).encode()),
        ):
            with open(at('greedy', path), 'wb') as file:
                file.write(data)
        call(
            'skopeo',
            'copy',
            '--quiet',
            '--dest-tls-verify=false',
            'dir:' + at('greedy'),
            'docker://%s:%s' % (greedy, name),
        )
        said = build(at('zeros.yaml'), at('second'), *plain, '--cache-from', greedy).stderr
        need('gives no layer' in said and '--max-expansion-bytes' in said, said)
        same_files(at('first'), at('second'), 'beside a shelf that claims too much')
