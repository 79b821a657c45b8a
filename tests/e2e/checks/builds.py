"""Builds: the same bytes for the same input, a cache that is damaged or shared, and what the command line refuses."""

import json
import os
import random
import shutil
import subprocess

from checks import check
from harness import bundle, transcode
from harness.common import (
    BINARY,
    HELLO,
    PATIENCE,
    TOP,
    build,
    call,
    files,
    layers_of,
    manifest_for,
    need,
    need_no_leftovers,
    same_files,
    scratch,
)
from harness.daemon import Daemon
from layout import Layer, Layout, tagged
from tarfmt import f


@check('same-bytes')
def same_bytes():
    """Two builds that differ in all that must not matter."""
    with scratch() as tmp:
        first, second, third = (os.path.join(tmp, n) for n in ('first', 'second', 'third'))
        cache = os.path.join(tmp, 'cache')
        build(HELLO, first, '--jobs', '1', cache=cache)
        env = {
            **os.environ,
            'TZ': 'Pacific/Kiritimati',
            'LANG': 'tr_TR.UTF-8',
            'LC_ALL': 'C',
            'HOME': tmp,
            'SOURCE_DATE_EPOCH': '1',
        }
        build(os.path.relpath(HELLO, tmp), second, '--jobs', '7', cwd=tmp, env=env, umask=0o077)
        build(HELLO, third, cache=cache, cwd='/')  # from the cache
        same_files(first, second, 'other jobs, directory, umask, time zone, locale, cache')
        same_files(first, third, 'built and taken from the cache')


@check('force')
def force():
    with scratch() as tmp:
        out = os.path.join(tmp, 'bundle')
        build(HELLO, out)
        before = files(out)
        p = build(HELLO, out, ok=(1, 2))
        need('--force' in p.stderr, 'a second build does not point at --force: ' + p.stderr)
        build(HELLO, out, '--force')
        need(files(out) == before, '--force made another bundle of the same image')
        other = os.path.join(tmp, 'precious')
        os.mkdir(other)
        with open(os.path.join(other, 'file'), 'w') as file:
            file.write('keep me')
        build(HELLO, other, '--force', ok=(1, 2))
        need(os.listdir(other) == ['file'], '--force touched a directory that is not a bundle')


@check('cache-damage')
def cache_damage():
    """A cut or flipped object is made again, not used."""
    with scratch() as tmp:
        cache, good = os.path.join(tmp, 'cache'), os.path.join(tmp, 'good')
        build(HELLO, good, '--jobs', '1', cache=cache)
        # What a layout says of a blob is compared with the blob, though its layer is in the cache.
        for size, code in ((None, 0), (1, 1), ((1 << 64) - 1, 1)):
            layout = Layout(os.path.join(tmp, 'layout of %s' % size))
            layout.index(tagged(layout.image([Layer(f('a', '1'), size=size)])))
            p = build(
                'oci:' + layout.path,
                os.path.join(tmp, 'out of %s' % size),
                '--platform',
                'linux/amd64',
                cache=cache,
                ok=(code,),
            )
            need(not code or 'the blob has the size' in p.stderr, 'a blob of another size: %s' % p.stderr)
        clean = os.path.join(tmp, 'clean')
        call(
            'cp', '-a', good, clean
        )  # sparse as they are; the objects of `good` may be hard links of those in the cache
        shutil.rmtree(good)
        objects = [
            os.path.join(at, n)
            for at, _, names in os.walk(cache)
            for n in names
            if os.path.getsize(os.path.join(at, n)) >= 4096
        ]
        need(objects, 'the cache holds no objects')
        for path in objects:
            need(os.stat(path).st_mode & 0o777 == 0o444, '%s is not of mode 0444' % path)
        for how in ('flip', 'cut', 'empty'):
            for path in objects:
                if not os.path.exists(path):
                    continue
                os.chmod(path, 0o644)
                size = os.path.getsize(path)
                with open(path, 'r+b') as file:
                    if how == 'flip':
                        file.seek(size - 100)
                        byte = file.read(1)
                        file.seek(size - 100)
                        file.write(bytes([byte[0] ^ 0x10]))
                    else:
                        file.truncate(size // 2 if how == 'cut' else 0)
                os.chmod(path, 0o444)
            out = os.path.join(tmp, how)
            build(HELLO, out, cache=cache)
            same_files(clean, out, 'after objects in the cache were damaged (%s)' % how)
            shutil.rmtree(out)


@check('two-at-once')
def two_at_once():
    with scratch() as tmp:
        cache = os.path.join(tmp, 'cache')
        running = [
            subprocess.Popen(
                [BINARY, 'build', HELLO, '-o', os.path.join(tmp, 'b%d' % i), '--cache-dir', cache],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for i in range(6)
        ]
        for p in running:
            said, _ = p.communicate(timeout=PATIENCE)
            need(p.returncode == 0, 'one of six builds at once: ' + said)
        for i in range(1, 6):
            same_files(os.path.join(tmp, 'b0'), os.path.join(tmp, 'b%d' % i), 'builds at once')


@check('crowd')
def crowd():
    """200 builds at once, of 20 images that share layers, on one cache:
    each layer is compiled once, and every bundle is right."""
    with scratch() as tmp:
        at = lambda *names: os.path.join(tmp, *names)
        layout, rand = Layout(at('images')), random.Random(5)
        shared = [Layer(f('shared%d' % i, rand.randbytes(200000))) for i in range(4)]
        layout.index(
            *(
                tagged(layout.image([shared[i % 4], shared[(i + 1) % 4], Layer(f('own', 'of %d' % i))]), 'i%d' % i)
                for i in range(20)
            )
        )
        for i in range(20):
            manifest_for(at('m%d.yaml' % i), 'oci:%s:i%d' % (at('images'), i))
        running = [
            (
                n,
                subprocess.Popen(
                    [
                        BINARY,
                        'build',
                        at('m%d.yaml' % (n % 20)),
                        '-o',
                        at('b%d' % n),
                        '--cache-dir',
                        at('cache'),
                        '--progress',
                        'json',
                    ],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                ),
            )
            for n in range(200)
        ]
        compiled = 0
        for n, p in running:
            _, said = p.communicate(timeout=PATIENCE)
            need(p.returncode == 0, 'build %d of 200: %s' % (n, said))
            compiled += sum(e['event'] == 'layer' and not e['cached'] for e in map(json.loads, said.splitlines()))
        need(compiled == 24, '%d layers were compiled, and there are 24' % compiled)
        for i in range(20):
            build(at('m%d.yaml' % i), at('alone'), '--force', cache=at('other'))
            for n in range(i, 200, 20):
                same_files(at('alone'), at('b%d' % n), 'build %d of 200' % n)
        call(BINARY, 'verify', at('b199'))


@check('sources')
def sources():
    """The forms of an image: what skopeo and docker write and plain tars of the
    layout give the bundle that the layout gives."""
    with scratch() as tmp:
        layout = os.path.join(TOP, 'testimages/hello')
        gzipped = os.path.join(tmp, 'gzipped')  # a docker-archive takes no zstd
        transcode.copy(layout, gzipped)
        forms = {
            'oci-archive': 'oci-archive:%s/oci.tar:latest',
            'docker-archive': 'docker-archive:%s/docker.tar:example.com/hello:latest',
            'dir': 'dir:%s/skopeo',
        }
        base = os.path.join(tmp, 'layout')
        build(HELLO, base)
        expected = [os.path.basename(p) for p in layers_of(base)]
        for name, form in forms.items():
            call('skopeo', 'copy', '--quiet', '--insecure-policy', 'oci:%s:latest' % gzipped, form % tmp)
            m = os.path.join(tmp, name + '.yaml')
            with open(m, 'w') as file:
                file.write('image: "%s"\nplatform: linux/amd64\n' % (form % tmp))
            out = os.path.join(tmp, name)
            build(m, out)
            need([os.path.basename(p) for p in layers_of(out)] == expected, name + ' gives other layers')
            need(files(out)['fsmeta.erofs'] == files(base)['fsmeta.erofs'], name + ' gives another fsmeta')
        socket, m = os.path.join(tmp, 'docker.sock'), os.path.join(tmp, 'daemon.yaml')
        for name, word in (('example.com/hello:latest', None), ('other', 'no image other')):
            with open(m, 'w') as file:
                file.write('image: docker-daemon:%s\nplatform: linux/amd64\n' % name)
            with Daemon(socket, 'example.com/hello:latest', os.path.join(tmp, 'docker.tar')) as daemon:
                env = {**os.environ, 'DOCKER_HOST': 'unix://' + socket, 'HTTP_PROXY': 'http://127.0.0.1:1'}
                p = build(m, os.path.join(tmp, 'daemon'), '--force', env=env, ok=(1,) if word else (0,))
                daemon.shutdown()
            os.unlink(socket)
            need(not word or word in p.stderr, p.stderr)
        need(
            files(os.path.join(tmp, 'daemon'))['fsmeta.erofs'] == files(base)['fsmeta.erofs'],
            "docker's socket gives another fsmeta",
        )
        p = build(m, os.path.join(tmp, 'daemon'), '--force', env=env, ok=(1,))
        need('is docker running' in p.stderr, p.stderr)
        tarred = os.path.join(tmp, 'plain.tar')
        call('tar', '-C', layout, '-cf', tarred, '.')
        m = os.path.join(tmp, 'plain.yaml')
        with open(m, 'w') as file:
            file.write('image: oci-archive:plain.tar\nplatform: linux/amd64\n')
        build(m, os.path.join(tmp, 'plain'))
        same_layers = [os.path.basename(p) for p in layers_of(os.path.join(tmp, 'plain'))] == expected
        need(same_layers, 'a tar of the layout gives other layers')


@check('usage')
def usage():
    with scratch() as tmp:
        for args in (
            [],
            ['build'],
            ['build', HELLO],
            ['no-such-command'],
            ['build', HELLO, '-o', tmp + '/x', '--no-such-option'],
            ['build', HELLO, '-o', tmp + '/x', '--jobs', 'many'],
            ['build', tmp + '/absent.yaml', '-o', tmp + '/x'],
        ):
            p = call(BINARY, *args, ok=(2,))
            need(p.stderr.strip(), 'nothing said on ' + ' '.join(args))
        for args in (['inspect', tmp], ['verify', tmp], ['inspect', tmp + '/absent'], ['verify', tmp + '/absent']):
            call(BINARY, *args, ok=(1, 2))
        p = build(HELLO, os.path.join(tmp, 'no/such/parent/bundle'), cache=os.path.join(tmp, 'cache'), ok=(0, 1))
        need(p.returncode == 0 or 'no/such/parent' in p.stderr, 'the message does not name the directory: ' + p.stderr)
        q = build(HELLO, os.path.join(tmp, 'quiet'), '-q', cache=os.path.join(tmp, 'cache'))
        need(not q.stdout and not q.stderr, '-q is not quiet: ' + q.stdout + q.stderr)
        need(bundle.extents(os.path.join(tmp, 'quiet')), 'no extents')


@check('nothing-left-behind')
def left_behind():
    with scratch() as tmp:
        os.mkdir(os.path.join(tmp, 'out'))
        build(HELLO, os.path.join(tmp, 'out/bundle'), cache=os.path.join(tmp, 'cache'))
        need_no_leftovers(os.path.join(tmp, 'out'), 'bundle')
        need(
            sorted(os.listdir(os.path.join(tmp, 'out/bundle')))
            == ['bundle.json', 'bundle.vmdk', 'fsmeta.erofs', 'layers', 'upper.ext4'],
            'the bundle holds something else',
        )


@check('one-xattr-of-many')
def shared_xattr():
    """One large xattr that thousands of files have:
    it is there once, and whoever reads the image again takes it for what it is."""
    with scratch() as tmp:
        at = lambda name: os.path.join(tmp, name)
        value = 'v' * 16384
        out = Layout(at('layout'))
        out.index(
            tagged(out.image([Layer(*(f('f%04d' % i, 'same', xattrs={'user.big': value}) for i in range(3000)))]))
        )
        m = manifest_for(at('m.yaml'), 'oci:%s:latest' % out.path)
        build(m, at('out'), cache=at('cache'))
        call(BINARY, 'verify', at('out'))
        again = build(m, at('again'), cache=at('cache'))
        need('(1 cached)' in again.stderr and 'rebuilt' not in again.stderr, 'built again: ' + again.stderr)
        size = sum(os.path.getsize(path) for path, _ in bundle.extents(at('out')))
        need(size < 3000 * 300 + 2 * len(value), 'it takes %d bytes' % size)
        call(BINARY, 'export', at('out'), '--raw', at('disk'))
        with bundle.mounted(at('disk'), 'erofs', 'ro,loop') as root:
            need(os.getxattr(os.path.join(root, 'f2999'), 'user.big') == value.encode(), 'another value')
