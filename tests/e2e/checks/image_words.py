"""Images named by one word on the command line, without a manifest: which image the word means."""

import os
import shutil
import subprocess

from checks import check
from checks.run import NO_NETWORK
from harness import transcode
from harness.common import BINARY, build, call, files, need, scratch
from harness.registry_bench import HELLO

COMPRESSIONS = {'gzip': 'gz', 'zstd': 'zst', 'xz': 'xz', 'bzip2': 'bz2'}


def archives(tmp):
    """The image of testimages/hello as skopeo writes it: name -> path."""
    gzipped = os.path.join(tmp, 'gzipped')  # a docker-archive takes no zstd
    transcode.copy(HELLO, gzipped)
    made = {'oci-archive': 'oci.tar', 'docker-archive': 'docker.tar', 'dir': 'skopeo'}
    for form, name in made.items():
        tag = '' if form == 'dir' else ':example.com/hello:latest' if form == 'docker-archive' else ':latest'
        call(
            'skopeo',
            'copy',
            '--quiet',
            '--insecure-policy',
            'oci:%s:latest' % gzipped,
            '%s:%s/%s%s' % (form, tmp, name, tag),
        )
    return {form: os.path.join(tmp, name) for form, name in made.items()}


@check('word-files')
def words():
    """A file is what its content says: skopeo's archives, also compressed as a whole by the tools of their formats, are
    the image, whatever they are called."""
    with scratch() as tmp:
        at = lambda *names: os.path.join(tmp, *names)
        made, cache = archives(tmp), at('cache')
        build(HELLO, at('base'), cache=cache, env=NO_NETWORK)
        base = files(at('base'))['fsmeta.erofs']

        def same(word, name, **kw):
            out = at('out.' + name)
            p = build(word, out, cache=cache, env=NO_NETWORK, **kw)
            need(files(out)['fsmeta.erofs'] == base, '%s gives another fsmeta' % word)
            shutil.rmtree(out)
            return p

        same(made['dir'], 'dir')
        for form in ('oci-archive', 'docker-archive'):
            same(made[form], form)
            for tool, ending in COMPRESSIONS.items():
                for name in ('%s.%s' % (form, ending), form + '.yaml'):
                    with open(at(name), 'wb') as file:
                        subprocess.run([tool, '-c', made[form]], stdout=file, check=True)
                    same(at(name), 'word')
                same('%s:%s' % (form, at(form + '.yaml')), 'named')
        # Several streams one behind the other are one file, as each of the tools has it.
        with open(made['oci-archive'], 'rb') as file:
            data = file.read()
        for tool in COMPRESSIONS:
            with open(at('parts'), 'wb') as file:
                for part in (data[:5000], data[5000:]):
                    file.write(subprocess.run([tool, '-c'], input=part, stdout=subprocess.PIPE, check=True).stdout)
            same(at('parts'), 'parts')
        need(not os.listdir(os.path.join(cache, 'registry')), 'spool files are left behind')
        spoiled(tmp, cache)
        call('gzip', '-k', made['oci-archive'])
        p = build(made['oci-archive'] + '.gz', at('small'), '--max-archive-bytes', '500KiB', cache=cache, ok=(1,))
        need('--max-archive-bytes' in p.stderr, p.stderr)
    return '%d forms' % (3 + 2 * len(COMPRESSIONS) * 3 + len(COMPRESSIONS))


def spoiled(tmp, cache):
    """Archives that are cut or damaged, and files that are not archives."""
    for tool, ending in COMPRESSIONS.items():
        with open(os.path.join(tmp, 'oci-archive.' + ending), 'rb') as file:
            data = file.read()
        damaged = bytearray(data)
        damaged[len(data) // 2] ^= 0x55
        for what, bad in (('cut', data[: len(data) // 2]), ('damaged', bytes(damaged)), ('one byte', data[:6])):
            path = os.path.join(tmp, 'bad.tar')
            with open(path, 'wb') as file:
                file.write(bad)
            p = build(path, os.path.join(tmp, 'bad'), cache=cache, ok=(1, 2))
            need('panicked' not in p.stderr and 'bad.tar' in p.stderr, '%s, %s: %s' % (tool, what, p.stderr))
    with open(os.path.join(tmp, 'text.gz'), 'wb') as file:
        subprocess.run(['gzip', '-c'], input=b'no tar\n' * 1000, stdout=file, check=True)
    call('tar', '-C', HELLO, '-cf', os.path.join(tmp, 'other.tar'), 'oci-layout')
    for name, words in (('text.gz', 'tar'), ('other.tar', 'manifest.json')):
        p = build(os.path.join(tmp, name), os.path.join(tmp, 'bad'), cache=cache, ok=(1,))
        need(words in p.stderr, p.stderr)


@check('word-names')
def names():
    """Where two readings are possible, it is said which was taken;
    what looks like a file is never asked from a registry."""
    with scratch() as tmp:
        at = lambda *names: os.path.join(tmp, *names)
        os.mkdir(at('here'))
        shutil.copytree(HELLO, at('here/layout'))
        manifest = (
            'image: oci:layout:latest\nplatform: linux/amd64\npatches:\n  - write: { path: /made, from: source }\n'
        )
        for name, text in (
            ('app', manifest),
            ('app.yaml', manifest),
            ('source', 'x'),
            ('script', '#!/bin/sh\n'),
            ('program', '\x7fELF\0'),
            ('oci:layout', ''),
        ):
            with open(at('here', name), 'w') as file:
                file.write(text)

        def tried(*args, ok=(0,), stdin='', output=True):
            out = ('-o', at('out'), '--force') if output else ()
            return call(
                BINARY,
                'build',
                *args,
                *out,
                '--cache-dir',
                at('cache'),
                ok=ok,
                cwd=at('here'),
                input=stdin,
                env=NO_NETWORK,
                timeout=120,
            )

        need('note:' not in tried('app.yaml').stderr, 'a note on what nobody could take for something else')
        base = files(at('out'))
        need('note:' not in tried('./app').stderr, 'a note on what nobody could take for something else')
        p = tried('app')
        need('note: app: ' in p.stderr and 'docker://app' in p.stderr, p.stderr)
        need('note:' not in tried('app', '--quiet').stderr, '--quiet is not quiet')
        p = tried('-', stdin=manifest)
        need(files(at('out')) == base, 'the manifest on standard input gives another bundle')
        p = tried('layout')
        need('note: layout: ' in p.stderr, p.stderr)
        p = tried('oci:layout')
        need('./oci:layout' in p.stderr, p.stderr)
        for text, words in (
            ('image: oci:layout\nupper: { sise: 1 }\n', '<stdin>:2:10: '),
            ('', '<stdin>'),
            ('patches:\n', '<stdin>'),
            ('image: oci:layout\npatches:\n  - mkdir: { path: x }\n', '<stdin>:3: '),
        ):
            p = tried('-', stdin=text, ok=(2,))
            need(words in p.stderr, p.stderr)
        for args, words in (
            (['none.yml'], ['no such file', 'docker://none.yml']),
            (['./none'], ['no such file']),
            (['/none'], ['no such file']),
            (['None'], ['names no image', 'no file']),
            (['none.tar.xz'], ['no such file']),
            (['none.tar:1'], ['archive:FILE:NAME']),
            (['.'], ['directory', 'OCI layout']),
            (['./program'], ['neither a manifest']),
            ([at('out')], ['is a bundle', 'rootfs-boot']),
            (['layout', '--set', 'A=1'], ['--set A', 'only manifests']),
            (['layout', '--lock'], ['--lock', 'manifest']),
            (['-', '--locked'], ['--locked', 'manifest']),
        ):
            p = tried(*args, ok=(2,))
            need(all(w in p.stderr for w in words), '%s: the message does not say %s: %s' % (args, words, p.stderr))
        # These are images in a registry, which cannot be reached here.
        for name, note in (('script', True), ('program', True), ('nothing', False)):
            p = tried(name, ok=(1,))
            need('library/' + name in p.stderr and ('note:' in p.stderr) == note, p.stderr)
        p = call(
            'bash',
            '-c',
            'exec "$0" build <(cat app.yaml | sed s,source,%s/source,) -o %s --force --cache-dir %s'
            % (at('here'), at('out'), at('cache')),
            BINARY,
            ok=(1, 2),
            cwd=at('here'),
        )
        need(
            '/dev/fd' in p.stderr and 'directory' in p.stderr,
            'a pipe is read as a manifest, whose paths begin at /dev/fd: ' + p.stderr,
        )
