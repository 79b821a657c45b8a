"""Files and directories of others in the place of a bundle or beside it, or on the way there: a build neither
touches them nor waits for them in silence."""

import os
import shutil

from checks import check
from harness.common import BINARY, HELLO, PATIENCE, build, call, files, need, same_files
from harness.other_users import (
    ALICE,
    AT_ONCE,
    BOB,
    builds,
    holds_data,
    layer_files,
    open_locked,
    open_scratch,
    put,
    read_until,
    stagings,
    start,
    tree,
)


@check('foreign-staging')
def staging():
    """What lies beside a bundle's place under the name that a build used to take stays as it is, and is not used."""
    with open_scratch() as at:
        build(HELLO, at('good'))
        call(BINARY, 'export', at('good'), '--oci-layout', at('layout'), '--cache-dir', at('good.cache'))
        ways = {'build': ('build', HELLO), 'pull': ('pull', 'oci:' + at('layout'))}
        for name, argv in ways.items():
            place = at(name)
            os.makedirs(os.path.join(place, 'victim'))
            put(os.path.join(place, 'victim/data'), 'x')
            os.symlink(os.path.join(place, 'victim'), os.path.join(place, '.out.rootfs-compile'))
            call(BINARY, *argv, '-o', os.path.join(place, 'out'), '--cache-dir', at(name + '.cache'), timeout=AT_ONCE)
            holds_data(os.path.join(place, 'victim'), name)
            same_files(at('good'), os.path.join(place, 'out'), name)
            need(
                os.path.isdir(os.path.join(place, 'out')) and not os.path.islink(os.path.join(place, 'out')),
                name + ': the bundle is a link',
            )
            planted = at(name + '-planted')
            os.makedirs(os.path.join(planted, '.out.rootfs-compile'))
            os.chown(os.path.join(planted, '.out.rootfs-compile'), ALICE, ALICE)
            call(BINARY, *argv, '-o', os.path.join(planted, 'out'), '--cache-dir', at(name + '.cache'), timeout=AT_ONCE)
            need(os.stat(os.path.join(planted, 'out')).st_uid == 0, name + ": the bundle is another user's directory")


@check('foreign-in-the-way')
def in_the_way():
    """No name beside the bundle's place, no mode and no umask keeps a build for ever."""
    with open_scratch() as at:
        os.symlink('absent', at('.one.rootfs-compile'))
        builds(at('one'))
        os.mkdir(at('.two.rootfs-compile'), 0o700)
        builds(at('two'), uid=BOB)
        builds(at('three'), uid=BOB, umask='777')
        os.mkdir(at('locked'), 0o755)
        p = builds(at('locked/four'), uid=BOB, cache=at('two.cache'), ok=(1,))
        need(at('locked') in p.stderr, 'the message does not name the directory: ' + p.stderr)
        p = builds(at('x' * 250), cache=at('two.cache'))
        os.mkdir(at('order'))
        with open_locked(at('order')):
            builds(at('order/out'), cache=at('two.cache'))


@check('foreign-force')
def force():
    """--force sees a file that no build made at every level, and then nothing goes."""
    with open_scratch() as at:
        out, layers = at('out'), at('out/layers')
        build(HELLO, out)
        before = files(out)
        own = os.listdir(layers)[0]

        def replaced():
            os.rename(os.path.join(out, 'upper.ext4'), at('kept'))
            os.symlink('/dev/null', os.path.join(out, 'upper.ext4'))

        def brought_back():
            os.remove(os.path.join(out, 'upper.ext4'))
            os.rename(at('kept'), os.path.join(out, 'upper.ext4'))

        cases = {
            'notes.txt': (
                lambda: put(os.path.join(out, 'notes.txt')),
                lambda: os.remove(os.path.join(out, 'notes.txt')),
            ),
            'layers/notes.txt': (
                lambda: put(os.path.join(layers, 'notes.txt')),
                lambda: os.remove(os.path.join(layers, 'notes.txt')),
            ),
            'layers/sub': (
                lambda: os.mkdir(os.path.join(layers, 'sub')),
                lambda: os.rmdir(os.path.join(layers, 'sub')),
            ),
            'layers/sha256-%s.erofs' % ('0' * 64): (
                lambda: shutil.copy(os.path.join(layers, own), os.path.join(layers, 'sha256-%s.erofs' % ('0' * 64))),
                lambda: os.remove(os.path.join(layers, 'sha256-%s.erofs' % ('0' * 64))),
            ),
            'upper.ext4': (replaced, brought_back),
        }
        for name, (make, unmake) in cases.items():
            make()
            p = builds(out, '--force', ok=(1,))
            need(name in p.stderr and os.path.lexists(os.path.join(out, name)), '%s: %s' % (name, p.stderr))
            unmake()
            need(files(out) == before, '%s: --force failed, and changed the bundle' % name)
            need(not stagings(at()), 'left behind: %s' % stagings(at()))
        builds(out, '--force')
        need(files(out) == before, 'another bundle')


@check('foreign-layout')
def layout():
    """An export writes into a layout that somebody else made, and through none of its links."""
    with open_scratch() as at:
        build(HELLO, at('out'), cache=at('cache'))
        export = lambda to, ok: call(
            BINARY, 'export', at('out'), '--oci-layout', to, '--cache-dir', at('cache'), ok=ok, timeout=AT_ONCE
        )
        for name in ('blobs', 'blobs/sha256', 'index.json', 'oci-layout'):
            os.makedirs(at('victim/sha256'), exist_ok=True)
            put(at('victim/data'), '{"schemaVersion":2,"manifests":[]}')
            before = tree(at('victim'))
            place = at('layout')
            os.makedirs(os.path.join(place, os.path.dirname(name)))
            if name != 'index.json':
                shutil.copy(at('victim/data'), os.path.join(place, 'index.json'))
            os.symlink(at('victim/data' if name.endswith(('.json', 'layout')) else 'victim'), os.path.join(place, name))
            p = export(place, ok=(0,) if name == 'oci-layout' else (1,))
            need(
                tree(at('victim')) == before,
                '%s: an export wrote through the link: %s' % (name, sorted(tree(at('victim')))),
            )
            need(p.returncode == 0 or name in p.stderr, '%s: %s' % (name, p.stderr))
            shutil.rmtree(place)
        # The layout's own name was given by the user.
        os.mkdir(at('real'))
        os.symlink('real', at('link'))
        export(at('link'), ok=(0,))
        need(
            sorted(os.listdir(at('real'))) == ['blobs', 'index.json', 'oci-layout'],
            'the layout has %s' % os.listdir(at('real')),
        )


@check('foreign-modes')
def modes():
    """Who may read a bundle is who the umask says; nobody else ever may write to it."""
    with open_scratch() as at:
        builds(at('good'))
        call(BINARY, 'export', at('good'), '--oci-layout', at('layout'), '--cache-dir', at('good.cache'))
        for umask, directory, file in (
            ('022', 0o755, 0o644),
            ('077', 0o700, 0o600),
            ('027', 0o750, 0o640),
            ('0', 0o755, 0o644),
        ):
            for name, argv in (('build', ('build', HELLO)), ('pull', ('pull', 'oci:' + at('layout')))):
                out = at(name + umask)
                call(
                    'sh',
                    '-c',
                    'umask %s; exec "$@"' % umask,
                    'sh',
                    BINARY,
                    *argv,
                    '-o',
                    out,
                    '--cache-dir',
                    out + '.cache',
                )
                mode = lambda *names, out=out: os.stat(os.path.join(out, *names)).st_mode & 0o777
                need(
                    all(mode(d) == directory for d in ('', 'layers')),
                    '%s, umask %s: the directory has %o, its layers %o' % (name, umask, mode(''), mode('layers')),
                )
                for top in sorted(set(os.listdir(out)) - {'layers'}):
                    need(mode(top) == file, '%s, umask %s: %s has %o' % (name, umask, top, mode(top)))
                # Those may be the cache's own files, which are for all who may enter its directory.
                for layer in os.listdir(os.path.join(out, 'layers')):
                    need(
                        not mode('layers', layer) & 0o022,
                        '%s, umask %s: a layer has %o' % (name, umask, mode('layers', layer)),
                    )


@check('foreign-lock')
def lock():
    """A lock that another process holds is waited for, but not in silence."""
    with open_scratch() as at:
        builds(at('good'))
        cache = at('good.cache')
        layer = layer_files(cache, '.lock')[0]
        call(BINARY, 'export', at('good'), '--oci-layout', at('layout'), '--cache-dir', cache)
        waits = {
            layer: ('build', HELLO, '-o', at('out'), '--cache-dir', cache, '--progress', 'plain'),
            at('layout'): ('export', at('good'), '--oci-layout', at('layout'), '--tag', 'two', '--cache-dir', cache),
        }
        for path, argv in waits.items():
            with open_locked(path):
                p = start(*argv)
                said = read_until(p, 'holds')
            need('process %d' % os.getpid() in said and os.path.basename(path)[:64] in said, said)
            _, rest = p.communicate(timeout=PATIENCE)
            need(p.returncode == 0, said + rest)


@check('foreign-places')
def places():
    """No directory is made on the way to another, and neither bundle nor cache lies in the other."""
    with open_scratch() as at:
        os.mkdir(at('here'))
        call(BINARY, 'build', HELLO, '-o', 'nope/../x', '--cache-dir', at('cache'), cwd=at('here'))
        need(os.listdir(at('here')) == ['x'], '-o nope/../x makes %s' % os.listdir(at('here')))
        call(BINARY, 'export', at('here/x'), '--oci-layout', at('layout'), '--cache-dir', at('cache'))
        before = sorted(os.listdir(at('cache')))
        for name, argv in (('build', ('build', HELLO)), ('pull', ('pull', 'oci:' + at('layout')))):
            for out, cache in ((at('out'), at('out')), (at('out'), at('out/cache')), (at('cache/out'), at('cache'))):
                p = call(BINARY, *argv, '-o', out, '--cache-dir', cache, ok=(2,))
                need(
                    'cache' in p.stderr and not os.path.exists(out) and sorted(os.listdir(at('cache'))) == before,
                    '%s -o %s --cache-dir %s: %s' % (name, out, cache, p.stderr),
                )
