"""What others put, hold or own beside a bundle, in a cache and in the way: nothing of theirs is touched, and nothing of theirs is waited for in silence."""
import contextlib
import fcntl
import json
import os
import pty
import random
import select
import shutil
import signal
import subprocess
import time

from checks import check
from checks.boot import BOOT, KRUNFW
from harness.common import BINARY, HELLO, PATIENCE, TOP, build, call, files, need, same_files, scratch
from checks.filesystems import on
from checks.registry import bench, noise
from checks.run import runs

# Users who run nothing else.
ALICE, BOB = 45_701, 45_702
# After so many seconds something that ends at once counts as hung.
AT_ONCE = 300


def as_user(uid, *argv, umask=None):
    """The command line that runs `argv` as the user `uid`, who is in the group of Alice."""
    argv = ('sh', '-c', 'umask %s; exec "$@"' % umask, 'sh', *argv) if umask else argv
    return ('setpriv', '--reuid', str(uid), '--regid', str(uid), '--groups', str(ALICE), *argv)


@contextlib.contextmanager
def open_scratch():
    """A scratch directory that every user can write to, and one way to name what is in it."""
    with scratch() as tmp:
        os.chmod(tmp, 0o777)
        yield lambda *names: os.path.join(tmp, *names)


def builds(out, *args, cache=None, uid=None, umask=None, ok=(0,), manifest=HELLO, **kw):
    argv = (BINARY, 'build', manifest, '-o', out, '--cache-dir', cache or out + '.cache', *args)
    return call(*(as_user(uid, *argv, umask=umask) if uid or umask else argv), ok=ok, **{'timeout': AT_ONCE, **kw})


def stagings(parent):
    return [name for name in os.listdir(parent) if '.rootfs-compile-' in name]


def layer_files(cache, ending):
    return sorted(os.path.join(at, name) for at, _, names in os.walk(cache) for name in names if name.endswith(ending) and len(name) == 64 + len(ending))


def put(path, text=''):
    with open(path, 'w') as file:
        file.write(text)
    return path


def holds_data(directory, why):
    need(os.listdir(directory) == ['data'], '%s: what was in another directory is gone: %s' % (why, os.listdir(directory)))


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
            need(os.path.isdir(os.path.join(place, 'out')) and not os.path.islink(os.path.join(place, 'out')), name + ': the bundle is a link')
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


@contextlib.contextmanager
def open_locked(path):
    """Holds the lock of a file or directory."""
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)


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
            'notes.txt': (lambda: put(os.path.join(out, 'notes.txt')), lambda: os.remove(os.path.join(out, 'notes.txt'))),
            'layers/notes.txt': (lambda: put(os.path.join(layers, 'notes.txt')), lambda: os.remove(os.path.join(layers, 'notes.txt'))),
            'layers/sub': (lambda: os.mkdir(os.path.join(layers, 'sub')), lambda: os.rmdir(os.path.join(layers, 'sub'))),
            'layers/sha256-%s.erofs' % ('0' * 64): (lambda: shutil.copy(os.path.join(layers, own), os.path.join(layers, 'sha256-%s.erofs' % ('0' * 64))),
                                                    lambda: os.remove(os.path.join(layers, 'sha256-%s.erofs' % ('0' * 64)))),
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


def tree(top):
    """What lies in a directory: names, types and bytes."""
    found = {}
    for at, dirs, names in os.walk(top):
        for path in (os.path.join(at, name) for name in dirs + names):
            kind = os.lstat(path).st_mode
            found[os.path.relpath(path, top)] = (kind, open(path, 'rb').read() if os.path.isfile(path) else os.path.islink(path) and os.readlink(path))
    return found


@check('foreign-layout')
def layout():
    """An export writes into a layout that somebody else made, and through none of its links."""
    with open_scratch() as at:
        build(HELLO, at('out'), cache=at('cache'))
        export = lambda to, ok: call(BINARY, 'export', at('out'), '--oci-layout', to, '--cache-dir', at('cache'), ok=ok, timeout=AT_ONCE)
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
            need(tree(at('victim')) == before, '%s: an export wrote through the link: %s' % (name, sorted(tree(at('victim')))))
            need(p.returncode == 0 or name in p.stderr, '%s: %s' % (name, p.stderr))
            shutil.rmtree(place)
        # The layout's own name was given by the user.
        os.mkdir(at('real'))
        os.symlink('real', at('link'))
        export(at('link'), ok=(0,))
        need(sorted(os.listdir(at('real'))) == ['blobs', 'index.json', 'oci-layout'], 'the layout has %s' % os.listdir(at('real')))


@check('foreign-in-cache')
def in_cache():
    """A link, a fifo, a directory in place of a cache's file: it is not followed, not waited for, and the layer is compiled, or it is an error that names it."""
    with open_scratch() as at:
        builds(at('good'))
        victim = put(at('victim'), 'precious')
        keys = [os.path.basename(p)[:64] for p in layer_files(at('good.cache'), '.erofs')]
        version = os.path.basename(os.path.dirname(layer_files(at('good.cache'), '.erofs')[0]))
        kinds = {'link': lambda path: os.symlink(victim, path), 'fifo': os.mkfifo, 'directory': os.mkdir}
        for kind, make in kinds.items():
            for ending in ('.json', '.lock', '.json.tmp', '.tmp', '.erofs'):
                out = at(kind + ending)
                os.makedirs(os.path.join(out + '.cache', version))
                make(os.path.join(out + '.cache', version, keys[0] + ending))
                p = builds(out, ok=(0, 1))
                need(open(victim).read() == 'precious', '%s as %s: what it leads to was written' % (kind, ending))
                if p.returncode:
                    need(keys[0] + ending.split('.tmp')[0] in p.stderr, '%s as %s: %s' % (kind, ending, p.stderr))
                    need(ending == '.lock' or kind == 'directory', '%s as %s is no reason to fail: %s' % (kind, ending, p.stderr))
                else:
                    same_files(at('good'), out, '%s as %s' % (kind, ending))
                    call(BINARY, 'verify', out)
                    shutil.rmtree(out)
                shutil.rmtree(out + '.cache')


def victim_of(top):
    """A directory of somebody else, in which everything is called as in a cache."""
    hexes = '0' * 32, 'a' * 64
    for name in ('15', '16', hexes[0] + '/15', 'sha256', 'tags'):
        os.makedirs(os.path.join(top, name))
    for name in ('15/data', 'record.json', '.rootfs-compile-tmp-deaddead', hexes[0] + '/15/data', 'sha256/' + hexes[1], 'tags/' + hexes[1], hexes[1], hexes[1] + '.json', 'b' * 64 + '.tmp'):
        put(os.path.join(top, name), 'precious')
    return tree(top)


@check('foreign-links-in-cache')
def links_in_cache():
    """A link in place of a directory or a lock of a cache is told, and what it leads to stays as it is; all else is checked. The cache itself may be a link."""
    with runs() as r:
        at = lambda *names: os.path.join(r.tmp, *names)
        victim, before = at('victim'), victim_of(at('victim'))
        bundle, _ = r.run(HELLO, says='5 layers')
        place = os.path.dirname(os.path.dirname(bundle))
        layers = os.path.dirname(layer_files(r.cache, '.erofs')[0])
        os.makedirs(os.path.join(r.cache, 'registry/tags'))
        verify = lambda *args, ok: call(BINARY, 'cache', 'verify', *args, '--cache-dir', r.cache, ok=ok)
        verify(ok=(0,))
        other = os.path.join(os.path.dirname(place), '0' * 32)
        for link in (other, place, os.path.dirname(place), layers, os.path.join(r.cache, 'registry'), *(os.path.join(r.cache, 'registry', sub) for sub in ('sha256', 'tags'))):
            aside = os.path.lexists(link) and os.rename(link, at('aside')) is None
            os.symlink(victim, link)
            for args in ((), ('--remove',)):
                p = verify(*args, ok=(1,))
                need(link + ' is a symbolic link' in p.stdout and 'is wrong' not in p.stderr, '%s: %s' % (link, p.stdout + p.stderr))
                need(tree(victim) == before, '%s, %s: what a link leads to was changed: %s' % (link, args, tree(victim)))
            if link in (place, os.path.dirname(place), layers):
                p = call(r.binary, 'run', '--cache-dir', r.cache, HELLO, ok=(7, 125), env=r.env)
                need((p.returncode == 7) == (link == layers), '%s: exit %d: %s' % (link, p.returncode, p.stderr))
                need(p.returncode == 7 or 'is a symbolic link' in p.stderr, '%s: %s' % (link, p.stderr))
                p = builds(at('out'), cache=r.cache, ok=(0, 1))
                need((p.returncode == 1) == (link == layers), '%s: exit %d: %s' % (link, p.returncode, p.stderr))
                shutil.rmtree(at('out'), ignore_errors=True)
            need(os.readlink(link) == victim and tree(victim) == before, link + ': what a link leads to was changed')
            os.remove(link)
            if aside:
                os.rename(at('aside'), link)
        # One lock that is a link is told, and everything else is checked.
        os.mkdir(other)
        for lock in (os.path.join(other, 'lock'), layer_files(r.cache, '.lock')[0]):
            with contextlib.suppress(FileNotFoundError):
                os.remove(lock)
            os.symlink(at('victim/record.json'), lock)
            p = verify('--json', ok=(1,))
            found = json.loads(p.stdout)
            need([x['file'] for x in found['problems']] == [other if other in lock else lock] and found['good'] >= 5, p.stdout)
            os.remove(lock)
        need(tree(victim) == before, 'what a lock leads to was changed')
        verify(ok=(0,))
        os.rename(r.cache, at('elsewhere'))
        os.symlink('elsewhere', r.cache)
        need(r.run(HELLO)[0] == bundle, 'a cache that is a link is not used')
        verify(ok=(0,))


@check('foreign-planted-answer')
def planted_answer():
    """In a cache that others may write to, `run` takes no bundle, no record and no directory that is another user's, and removes none."""
    with runs() as r:
        os.chmod(r.tmp, 0o755)
        os.mkdir(r.cache)
        os.chown(r.cache, ALICE, ALICE)
        os.chmod(r.cache, 0o2775)
        bundle, _ = r.run(HELLO, says='5 layers')
        number = os.path.dirname(bundle)
        place = os.path.dirname(number)
        record = os.path.join(place, 'record.json')
        for planted in (record, number, bundle):
            os.chown(planted, ALICE, ALICE)
            p = call(r.binary, 'run', '--cache-dir', r.cache, HELLO, ok=(7, 125), env=r.env)
            need(p.returncode == 125 or '5 layers' in p.stderr, "%s: another user's answer is taken: %s" % (planted, p.stdout + p.stderr))
            for path in (planted, record, number, bundle):
                if os.path.exists(path):
                    os.chown(path, 0, 0)
            shutil.rmtree(place)
            need(r.run(HELLO, says='5 layers')[0] == bundle, 'another bundle')
        need(os.stat(place).st_uid == 0 and not os.stat(place).st_mode & 0o022, 'others may write to the place of a bundle')
        call('chown', '-R', '%d:%d' % (ALICE, ALICE), place)
        before = files(bundle)
        r.run(HELLO, says=place + ' belongs to the user %d' % ALICE, ok=(125,))
        for args in ((), ('--remove',)):
            call(BINARY, 'cache', 'verify', *args, '--cache-dir', r.cache)
        need(files(bundle) == before, "another user's bundle was changed")
        # What root finds damaged in the cache of one user alone stays, too.
        os.chmod(r.cache, 0o755)
        layers = os.path.dirname(layer_files(r.cache, '.erofs')[0])
        os.chmod(layers, 0o755)
        call('chown', '-R', '%d:%d' % (ALICE, ALICE), layers)
        damaged = layer_files(r.cache, '.erofs')[0]
        flip(damaged, 2000)
        p = call(BINARY, 'cache', 'verify', '--remove', '--cache-dir', r.cache, ok=(1,))
        need('belongs to the user %d' % ALICE in p.stdout and os.path.exists(damaged), p.stdout)


@check('foreign-renamed-answer')
def renamed_answer():
    """`run` starts the bundle that it looked at, or made, if whoever owns the cache puts his own in its place before the machine has opened it."""
    with runs() as r:
        at = lambda *names: os.path.join(r.tmp, *names)
        planted = put(at('planted.yaml'), 'image: oci:%s:latest\nplatform: linux/amd64\nboot: { hostname: planted }\n' % os.path.join(TOP, 'testimages/hello'))
        bundle, _ = r.run(HELLO, says='5 layers')
        place = os.path.dirname(os.path.dirname(bundle))
        os.makedirs(at('theirs/1'))
        builds(at('theirs/1/hello'), cache=at('other'), manifest=planted)
        call('chown', '-R', '%d:%d' % (ALICE, ALICE), at('theirs'))
        put(at('bin/rootfs-boot'), '#!/bin/sh\nmv %s %s && cp -a %s %s || exit 9\nexec %s --dry-run --engine qemu "$@"\n' % (place, at('aside'), at('theirs'), place, BOOT))
        for what in ('known', 'made anew'):
            p = call(r.binary, 'run', '--cache-dir', r.cache, HELLO, env=r.env)
            told = json.loads(p.stdout)
            need(told['bundle'] == bundle and told['command']['hostname'] == 'hello', '%s: another bundle is started: %s' % (what, p.stdout))
            need(('5 layers' in p.stderr) == (what != 'known'), '%s: %s' % (what, p.stderr))
            shutil.rmtree(place)
            shutil.rmtree(at('aside'))
        # What is no descriptor of a bundle.
        os.mkdir(at('empty'))
        for fd, words in (('2', 'descriptor 2'), ('9', 'descriptor 9'), ('-1', '-1'), ('x', 'x')):
            p = call(BOOT, '--dry-run', at('empty'), '--bundle-fd=' + fd, ok=(125,), env=r.env)
            need(words in p.stderr and 'panicked' not in p.stderr, p.stderr)


@check('foreign-modes')
def modes():
    """Who may read a bundle is who the umask says; nobody else ever may write to it."""
    with open_scratch() as at:
        builds(at('good'))
        call(BINARY, 'export', at('good'), '--oci-layout', at('layout'), '--cache-dir', at('good.cache'))
        for umask, directory, file in (('022', 0o755, 0o644), ('077', 0o700, 0o600), ('027', 0o750, 0o640), ('0', 0o755, 0o644)):
            for name, argv in (('build', ('build', HELLO)), ('pull', ('pull', 'oci:' + at('layout')))):
                out = at(name + umask)
                call('sh', '-c', 'umask %s; exec "$@"' % umask, 'sh', BINARY, *argv, '-o', out, '--cache-dir', out + '.cache')
                mode = lambda *names: os.stat(os.path.join(out, *names)).st_mode & 0o777
                need(all(mode(d) == directory for d in ('', 'layers')), '%s, umask %s: the directory has %o, its layers %o' % (name, umask, mode(''), mode('layers')))
                for top in sorted(set(os.listdir(out)) - {'layers'}):
                    need(mode(top) == file, '%s, umask %s: %s has %o' % (name, umask, top, mode(top)))
                # Those may be the cache's own files, which are for all who may enter its directory.
                for layer in os.listdir(os.path.join(out, 'layers')):
                    need(not mode('layers', layer) & 0o022, '%s, umask %s: a layer has %o' % (name, umask, mode('layers', layer)))


@check('foreign-shared-blocks')
def shared_blocks():
    """Where a copy shares the blocks of its source, another user's object is hashed all the same."""
    with open_scratch() as at, on('xfs', at()) as place:
        builds(at('good'))
        os.chmod(place, 0o777)
        cache = os.path.join(place, 'cache')
        os.mkdir(cache)
        os.chmod(cache, 0o1777)
        builds(os.path.join(place, 'alice'), cache=cache, uid=ALICE)
        damaged = max(layer_files(cache, '.erofs'), key=os.path.getsize)
        flip(damaged, 5000)
        for out in ('root', 'again'):
            p = builds(os.path.join(place, out), cache=cache)
            need('(4 cached)' in p.stderr and 'damaged, and is rebuilt' in p.stderr, p.stderr)
            same_files(at('good'), os.path.join(place, out), out)


@check('foreign-umask')
def masked():
    """What one user's build keeps of a registry in a shared cache is of use to the others, whatever the umask; where it cannot be read, it is asked for again."""
    with bench() as b:
        for at in (b.tmp, os.path.dirname(b.tmp)):
            os.chmod(at, 0o777)
        b.site.push(b.layout('one', [noise(1, 'gzip', 9000)]), 'app:1')
        proxy = b.site.proxy()
        for name, mode in (('all', 0o1777), ('group', 0o2775)):
            cache = b.at(name)
            os.mkdir(cache)
            os.chown(cache, ALICE, ALICE)
            os.chmod(cache, mode)

            def pulled(uid, out, *args):
                argv = (BINARY, 'build', proxy.host + '/app:1', '-o', b.at(name + out), '--cache-dir', cache, '--insecure-registry', proxy.host, *args)
                call(*as_user(uid, 'env', 'HOME=' + b.tmp, *argv, umask='077'), timeout=AT_ONCE, cwd='/')
                same_files(b.at(name + '-alice'), b.at(name + out), name + out)
            pulled(ALICE, '-alice')
            pulled(BOB, '-bob')
            pulled(BOB, '-offline', '--offline')
            for at, _, names in os.walk(os.path.join(cache, 'registry')):
                for file in names:
                    os.chmod(os.path.join(at, file), 0o600)
            pulled(BOB, '-again')


def start(*argv, **kw):
    return subprocess.Popen([BINARY, *argv], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **kw)


def read_until(p, word):
    """What the process says until `word` is in it."""
    said, end = '', time.monotonic() + PATIENCE
    while word not in said:
        need(time.monotonic() < end, 'nobody says %r: %s' % (word, said))
        ready, _, _ = select.select([p.stderr], [], [], 1)
        if ready:
            part = os.read(p.stderr.fileno(), 65536).decode(errors='replace')
            need(part, 'it ended without %r: %s' % (word, said))
            said += part
    return said


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


@check('foreign-shared-cache')
def shared_cache():
    """Two users on one cache that both may write to, and root on the cache of one of them: nobody's bundle is another's file."""
    with open_scratch() as at:
        builds(at('good'))
        for name, mode in (('all', 0o1777), ('group', 0o2775)):
            cache = at(name)
            os.mkdir(cache)
            os.chown(cache, ALICE, ALICE)
            os.chmod(cache, mode)
            first = builds(at(name + '-alice'), cache=cache, uid=ALICE, umask='077')
            second = builds(at(name + '-bob'), cache=cache, uid=BOB, umask='077')
            need('(0 cached)' in first.stderr and '(5 cached)' in second.stderr, name + ': ' + first.stderr + second.stderr)
            builds(at(name + '-root'), cache=cache)
            for user, uid in (('alice', ALICE), ('bob', BOB), ('root', 0)):
                out = at('%s-%s' % (name, user))
                same_files(at('good'), out, out)
                for at_dir, _, names in os.walk(out):
                    for file in names:
                        stat = os.stat(os.path.join(at_dir, file))
                        need(stat.st_uid == uid and not stat.st_mode & 0o022, "%s: %s is another user's, or others may write to it" % (out, file))
            # Bob compiles what Alice did not, and Alice uses it.
            record = layer_files(cache, '.json')[0]
            os.remove(record)
            os.remove(record[:-5] + '.erofs')
            builds(at(name + '-bob2'), cache=cache, uid=BOB, umask='027')
            third = builds(at(name + '-alice2'), cache=cache, uid=ALICE)
            need('(5 cached)' in third.stderr, name + ': ' + third.stderr)
        # In a directory where nobody removes another's files, what is damaged cannot be replaced, and is compiled each time.
        record = layer_files(at('all'), '.json')[1]
        flip(record, 100)
        p = builds(at('damaged'), cache=at('all'), uid=BOB)
        need('(4 cached)' in p.stderr and "another user's file" in p.stderr, p.stderr)
        same_files(at('good'), at('damaged'), 'with a damaged record that cannot be replaced')
        private = at('private')
        builds(at('own'), cache=private, uid=ALICE)
        p = builds(at('reads'), cache=private, uid=BOB)
        need('(5 cached)' in p.stderr, "another user's cache that can be read is not used: " + p.stderr)


@check('foreign-read-only-cache')
def read_only_cache():
    """A cache that has everything is used as it is where nobody can write to it."""
    with open_scratch() as at:
        builds(at('good'), cache=at('cache'))
        patched = put(at('patched.yaml'), 'image: oci:%s:latest\nplatform: linux/amd64\npatches:\n  - replace: { path: /etc/passwd, find: root, with: toor }\n'
                      % os.path.join(TOP, 'testimages/hello'))
        builds(at('patched'), cache=at('cache'), manifest=patched)
        call(BINARY, 'export', at('good'), '--oci-layout', at('layout'), '--cache-dir', at('cache'))
        call('mount', '--bind', at('cache'), at('cache'))
        try:
            call('mount', '-o', 'remount,bind,ro', at('cache'))
            p = builds(at('again'), cache=at('cache'))
            need('(5 cached)' in p.stderr, p.stderr)
            same_files(at('good'), at('again'), 'from a read-only cache')
            builds(at('patched2'), cache=at('cache'), manifest=patched)
            same_files(at('patched'), at('patched2'), 'patched, from a read-only cache')
            call(BINARY, 'pull', 'oci:' + at('layout'), '-o', at('pulled'), '--cache-dir', at('cache'))
            same_files(at('good'), at('pulled'), 'pulled, with a read-only cache')
            call(BINARY, 'cache', 'verify', '--cache-dir', at('cache'))
        finally:
            call('umount', at('cache'))
        os.remove(layer_files(at('cache'), '.json')[0])
        call('mount', '--bind', at('cache'), at('cache'))
        try:
            call('mount', '-o', 'remount,bind,ro', at('cache'))
            p = builds(at('lacks'), cache=at('cache'), ok=(1,))
            need(at('cache') in p.stderr and 'cannot be written' in p.stderr, p.stderr)
        finally:
            call('umount', at('cache'))


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
                need('cache' in p.stderr and not os.path.exists(out) and sorted(os.listdir(at('cache'))) == before, '%s -o %s --cache-dir %s: %s' % (name, out, cache, p.stderr))


def injected(*injections, argv, ok):
    """Runs a command while strace makes system calls of it fail, or kills it there."""
    return call('strace', '-f', '--quiet=all', '-o', '/dev/null', *(word for i in injections for word in ('-e', 'inject=' + i)), BINARY, *argv, ok=ok)


@check('foreign-no-swap')
def no_swap():
    """Where two names cannot be swapped, an error between the renames brings the old bundle back, and after a kill the next run does."""
    with open_scratch() as at:
        os.mkdir(at('place'))
        out, cache = at('place/out'), ('--cache-dir', at('cache'))
        old, new = (put(at(name + '.yaml'), 'image: oci:%s:latest\nplatform: linux/amd64\npatches:\n  - write: { path: /etc/mark, content: %s }\n'
                        % (os.path.join(TOP, 'testimages/hello'), name)) for name in ('old', 'new'))
        for name in ('old', 'new'):
            call(BINARY, 'build', at(name + '.yaml'), '-o', at('good-' + name), *cache)
        good_old, good_new = files(at('good-old')), files(at('good-new'))
        call(BINARY, 'build', old, '-o', out, *cache)
        force = ('build', new, '-o', out, '--force', *cache)
        for error in ('EINVAL', 'EXDEV', 'ENOSYS'):
            injected('renameat2:error=' + error, argv=force, ok=(0,))
            need(files(out) == good_new and os.listdir(at('place')) == ['out'], '%s: another bundle, or leftovers: %s' % (error, os.listdir(at('place'))))
            call(BINARY, 'build', old, '-o', out, '--force', *cache)
        # The first rename finds the old bundle in its way, the second sets it aside, the third would put the new one in its place.
        p = injected('renameat2:error=EINVAL', 'renameat:error=EIO:when=3', argv=force, ok=(1,))
        need(out in p.stderr and files(out) == good_old and os.listdir(at('place')) == ['out'], 'after an error: %s, %s' % (os.listdir(at('place')), p.stderr))
        for count in (2, 3):
            injected('renameat2:error=EINVAL', 'renameat:signal=KILL:when=%d' % count, argv=force, ok=(-9, 137))
            brought_back(at('place'), new, cache, good_old, 'killed at rename %d' % count)
        # overlayfs cannot rename a directory of its lower layer at all: its files are set aside one by one.
        for count in range(2, 20, 2):
            with overlay(at, 'place', count) as place:
                p = injected('renameat:signal=KILL:when=%d' % count, argv=('build', new, '-o', os.path.join(place, 'out'), '--force', *cache), ok=(0, -9, 137))
                if p.returncode == 0:
                    need(files(os.path.join(place, 'out')) == good_new and os.listdir(place) == ['out'], 'file by file: %s' % os.listdir(place))
                    break
                brought_back(place, new, cache, good_old, 'on overlayfs, killed at rename %d' % count)
        need(count > 8, 'only %d renames' % count)
        return 'killed at %d renames' % count


@check('foreign-meanwhile')
def meanwhile():
    """What comes to the place of a bundle after the last look at it is neither replaced nor removed."""
    with open_scratch() as at:
        for case in ('bundle', 'directory', 'index', 'no-swap', 'file'):
            os.mkdir(at(case))
            out, force = at(case, 'out'), case in ('directory', 'index', 'no-swap')
            argv = (BINARY, 'build', HELLO, '-o', out, '--cache-dir', at('cache'), *(['--force'] if force else []))
            # The last look: whether something is there, and with --force whether it can be removed.
            look = 'faccessat2' if force else 'statx'
            strace = ('strace', '--quiet=all', '-e', 'trace=' + look + ',renameat2', *(() if force else ('-P', out)), *(('-e', 'inject=renameat2:error=EINVAL') if case == 'no-swap' else ()), '-o', at('trace'))
            if force:
                builds(out, cache=at('cache'))
            call(*strace, *argv)
            with open(at('trace')) as file:
                count = sum(line.startswith(look) for line in file)
            if not force:
                shutil.rmtree(out)
            os.remove(at('trace'))
            put(at('trace'))
            running = subprocess.Popen([*strace, '-e', 'inject=%s:signal=STOP:when=%d' % (look, count), *argv], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            pid = stopped_child(running, at('trace'))
            if force:
                os.rename(out, at(case, 'kept'))
            if case == 'file':
                put(out, 'mine')
            elif case == 'bundle':
                builds(at('other'), cache=at('cache'))
                os.rename(at('other'), out)
            else:
                os.mkdir(out)
                put(os.path.join(out, 'upper.ext4'), 'mine')
                if case != 'directory':
                    put(os.path.join(out, 'bundle.json'), '{}')
            before = os.lstat(out).st_ino
            os.kill(pid, signal.SIGCONT)
            said = running.communicate(timeout=AT_ONCE)[1]
            need(os.path.lexists(out) and os.lstat(out).st_ino == before, '%s: it was replaced: %s' % (case, said))
            need(running.returncode == 1 and 'stays as it is' in said, '%s: exit %d: %s' % (case, running.returncode, said))
            need(not stagings(at(case)), '%s: left behind: %s' % (case, stagings(at(case))))


def stopped_child(running, trace):
    """The process that strace runs, once a signal has stopped it, of which `trace` tells."""
    patience = time.monotonic() + AT_ONCE
    while time.monotonic() < patience and running.poll() is None:
        with open(trace) as file:
            if 'stopped by SIGSTOP' in file.read():
                with open('/proc/%d/task/%d/children' % (running.pid, running.pid)) as children:
                    return int(children.read())
        time.sleep(0.05)
    raise AssertionError('the build did not stop')


def brought_back(place, manifest, cache, expected, when):
    """A run brings the old bundle back before anything else, and then there is a bundle already."""
    out = os.path.join(place, 'out')
    p = call(BINARY, 'build', manifest, '-o', out, *cache, ok=(1,))
    need('--force' in p.stderr and files(out) == expected, '%s: %s' % (when, p.stderr))
    need(os.listdir(place) == ['out'], '%s, and left: %s' % (when, os.listdir(place)))


@contextlib.contextmanager
def overlay(at, lower, number):
    """The directory `lower` through an overlay that writes elsewhere."""
    parts = [at('%s-%d' % (part, number)) for part in ('upper', 'work', 'merged')]
    for part in parts:
        os.mkdir(part)
    call('mount', '-t', 'overlay', '-o', 'lowerdir=%s,upperdir=%s,workdir=%s' % (at(lower), *parts[:2]), 'overlay', parts[2])
    try:
        yield parts[2]
    finally:
        call('umount', parts[2])


@check('foreign-signals')
def signals():
    """INT, TERM and HUP end a command by that signal, and what it was making is gone; one that is ignored stays so."""
    with open_scratch() as at:
        builds(at('good'))
        cache = at('good.cache')
        call(BINARY, 'export', at('good'), '--oci-layout', at('layout'), '--cache-dir', cache)
        layer = layer_files(cache, '.lock')[0]
        os.mkdir(at('place'))
        ways = {
            'build': ('build', HELLO, '-o', at('place/out'), '--cache-dir', cache, '--progress', 'plain'),
            'pull': ('pull', 'oci:' + at('layout'), '-o', at('place/out'), '--cache-dir', cache),
            'run': ('run', HELLO, '--cache-dir', cache, '--progress', 'plain'),
        }
        every = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        for name, argv in ways.items():
            for number in every if name == 'build' else every[1:2]:
                with open_locked(layer):
                    p = start(*argv, env={**os.environ, 'ROOTFS_BOOT_KRUNFW': KRUNFW})
                    try:
                        said = read_until(p, 'holds')
                    except Exception:
                        p.kill()
                        raise
                    need(name == 'run' or len(stagings(at('place'))) == 1, 'no staging: %s' % os.listdir(at('place')))
                    p.send_signal(number)
                    _, rest = p.communicate(timeout=PATIENCE)
                need(p.returncode == -number, '%s, %s: exit %d: %s' % (name, number.name, p.returncode, said + rest))
                need(not os.listdir(at('place')), '%s, %s: left behind: %s' % (name, number.name, os.listdir(at('place'))))
                left = [os.path.join(where, n) for where, dirs, names in os.walk(cache) for n in dirs + names if '.rootfs-compile' in n or n.isdigit()]
                need(not left, '%s, %s: left behind in the cache: %s' % (name, number.name, left))
        with open_locked(layer):
            p = start(*ways['build'], preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
            said = read_until(p, 'holds')
            p.send_signal(signal.SIGHUP)
            time.sleep(0.2)
        _, rest = p.communicate(timeout=PATIENCE)
        need(p.returncode == 0 and os.path.isdir(at('place/out')), 'nohup: exit %d: %s' % (p.returncode, said + rest))


@check('foreign-bars')
def bars():
    """^C leaves the terminal's last line empty: no bar stands where the prompt comes."""
    with open_scratch() as at:
        builds(at('good'))
        layer = layer_files(at('good.cache'), '.lock')[0]
        with open_locked(layer):
            master, terminal = pty.openpty()
            p = subprocess.Popen([BINARY, 'build', HELLO, '-o', at('out'), '--cache-dir', at('good.cache')], stdin=terminal, stdout=terminal, stderr=terminal)
            os.close(terminal)
            said, asked = b'', False
            while True:
                ready, _, _ = select.select([master], [], [], PATIENCE)
                need(ready, 'no end: %r' % said)
                try:
                    part = os.read(master, 65536)
                except OSError:         # the other end is closed
                    break
                said += part
                if b'holds' in said and not asked:
                    asked = True
                    said = b''
                    p.send_signal(signal.SIGINT)
            os.close(master)
            need(p.wait() == -signal.SIGINT, 'exit %d' % p.returncode)
        # The lines of the bars are cleared, and nothing is drawn after that.
        last = said.rsplit(b'\x1b[2K', 1)
        need(len(last) == 2 and not last[1].strip(b'\r\n\x1b[0123456789ABCDJK'), 'a bar stands: %r' % said)


@check('foreign-one-place')
def one_place():
    """Of several builds of one bundle at once, one makes it, and the others say why they do not."""
    with open_scratch() as at:
        builds(at('good'))
        os.mkdir(at('place'))
        running = [start('build', HELLO, '-o', at('place/out'), '--cache-dir', at('good.cache'), '--progress', 'none') for _ in range(12)]
        ended = [(p.communicate(timeout=PATIENCE)[1], p.returncode) for p in running]
        need([code for _, code in ended].count(0) == 1, str(ended))
        for said, code in ended:
            need(code == 0 or 'another build is making' in said or 'is a bundle already' in said, said)
        need(os.listdir(at('place')) == ['out'], 'left behind: %s' % os.listdir(at('place')))
        same_files(at('good'), at('place/out'), 'of twelve at once')


@check('foreign-leftovers')
def leftovers():
    """What killed runs left is gone after the next one, and what is not theirs, or still in use, stays."""
    with open_scratch() as at:
        builds(at('good'))
        cache = at('good.cache')
        layer = layer_files(cache, '.lock')[0]
        os.mkdir(at('place'))
        argv = ('build', HELLO, '-o', at('place/out'), '--cache-dir', cache, '--progress', 'plain')
        with open_locked(layer):
            p = start(*argv)
            read_until(p, 'holds')
            # A second build of the same bundle sees the first.
            other = call(BINARY, *argv, ok=(1,))
            need('another build is making this bundle' in other.stderr and str(p.pid) in other.stderr, other.stderr)
            p.kill()
            p.communicate()
        left = stagings(at('place'))
        need(len(left) == 1, 'a killed build leaves %s' % left)
        planted = at('place/.out.rootfs-compile-aaaaaaaa')
        os.mkdir(planted)
        put(os.path.join(planted, 'lock'))
        put(os.path.join(planted, 'data'))
        os.chown(planted, ALICE, ALICE)
        call(BINARY, *argv)
        need(sorted(os.listdir(at('place'))) == ['.out.rootfs-compile-aaaaaaaa', 'out'] and len(os.listdir(planted)) == 2, str(os.listdir(at('place'))))
        # An export that is killed, and one that finds what a killed one left where a file cannot be without a name.
        os.mkdir(at('exports'))
        injected('fsync:signal=KILL:when=1', argv=('export', at('good'), '--tar', at('exports/tar')), ok=(-9, 137))
        dead, live = (put(at('exports', '.rootfs-compile-tmp-' + name)) for name in ('deaddead', 'livelive'))
        with open_locked(live):
            call(BINARY, 'export', at('good'), '--tar', at('exports/tar'))
            need(sorted(os.listdir(at('exports'))) == [os.path.basename(live), 'tar'], str(os.listdir(at('exports'))))
        # In the cache.
        key = layer[:-len('.lock')]
        for ending in ('.tmp', '.json.tmp'):
            put(key + ending)
        put(os.path.join(os.path.dirname(layer), '.rootfs-compile-tmp-deaddead'))
        stranger = put(os.path.join(os.path.dirname(layer), 'notes.txt'))
        p = call(BINARY, 'cache', 'verify', '--cache-dir', cache)
        need('3 files' in p.stdout and stranger in p.stdout and os.path.exists(stranger), p.stdout)
        need(not [n for n in os.listdir(os.path.dirname(layer)) if 'tmp' in n], 'left behind in the cache')


def flip(path, offset, bit=0, keep_times=True):
    stat, mode = os.stat(path), os.stat(path).st_mode
    os.chmod(path, 0o644)
    with open(path, 'r+b') as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))
    os.chmod(path, mode)
    if keep_times:
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@check('foreign-records')
def records():
    """A record with any bit flipped is not believed: its layer is compiled again."""
    with open_scratch() as at:
        builds(at('good'))
        cache, r = at('good.cache'), random.Random(17)
        record = layer_files(cache, '.json')[2]
        whole = open(record, 'rb').read()
        tried = 0
        for offset in range(0, len(whole), 3):
            flip(record, offset, r.randrange(8))
            if offset % 24 == 0:
                p = builds(at('out'), cache=cache)
                need('(4 cached)' in p.stderr, 'a flip in byte %d of %r is believed: %s' % (offset, whole, p.stderr))
                same_files(at('good'), at('out'), 'after a flip in byte %d' % offset)
                shutil.rmtree(at('out'))
                whole = open(record, 'rb').read()
            else:
                p = call(BINARY, 'cache', 'verify', '--json', '--cache-dir', cache, ok=(1,))
                problems = json.loads(p.stdout)['problems']
                need([os.path.basename(x['file'])[:64] for x in problems] == [os.path.basename(record)[:64]], p.stdout)
                with open(record, 'wb') as file:
                    file.write(whole)
            tried += 1
        # The record of another layer is no better.
        other = layer_files(cache, '.json')[1]
        shutil.copy(other, record)
        p = call(BINARY, 'cache', 'verify', '--remove', '--cache-dir', cache, ok=(1,))
        need(os.path.basename(record)[:64] in p.stdout and not os.path.exists(record), p.stdout)
        call(BINARY, 'cache', 'verify', '--cache-dir', cache)
        return '%d flips' % tried


@check('foreign-rot')
def rot():
    """An object that rotted without a trace: a copy of it is never published, and `cache verify` finds and removes it."""
    with open_scratch() as at:
        builds(at('good'))
        before = files(at('good'))
        shutil.rmtree(at('good'))                # whose layers are other names of the cache's objects
        os.mkdir(at('elsewhere'))
        call('mount', '-t', 'tmpfs', 'tmpfs', at('elsewhere'))
        try:
            for path in layer_files(at('good.cache'), '.erofs'):
                flip(path, os.path.getsize(path) // 2)
            # Across file systems there is no second name, only a copy.
            p = builds(at('elsewhere/out'), cache=at('good.cache'))
            need(files(at('elsewhere/out')) == before, 'a rotten layer is published: ' + p.stderr)
            call(BINARY, 'verify', at('elsewhere/out'))
            for path in layer_files(at('good.cache'), '.erofs')[:2]:
                flip(path, os.path.getsize(path) // 2)
            p = call(BINARY, 'cache', 'verify', '--cache-dir', at('good.cache'), ok=(1,))
            need(len([line for line in p.stdout.splitlines() if 'BLAKE3' in line]) == 2, p.stdout)
            call(BINARY, 'cache', 'verify', '--remove', '--cache-dir', at('good.cache'), ok=(1,))
            p = call(BINARY, 'cache', 'verify', '--cache-dir', at('good.cache'))
            need('3 layers' in p.stdout, p.stdout)
            p = builds(at('out'), cache=at('good.cache'))
            need('(3 cached)' in p.stderr and files(at('out')) == before, p.stderr)
        finally:
            call('umount', at('elsewhere'))
