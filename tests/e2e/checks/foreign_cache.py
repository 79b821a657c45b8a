"""Files of others in a cache, and caches that several users share:
a build neither touches what is not its own nor believes it."""

import contextlib
import json
import os
import pathlib
import random
import shutil

from checks import check
from harness.boot import BOOT
from harness.common import BINARY, HELLO, TOP, call, files, need, same_files
from harness.filesystems import on
from harness.other_users import ALICE, AT_ONCE, BOB, as_user, builds, flip, layer_files, open_scratch, put, tree
from harness.registry_bench import bench, noise
from harness.run import runs


@check('foreign-in-cache')
def in_cache():
    """A link, a fifo, a directory in place of a cache's file: it is not followed, not waited for, and the layer is
    compiled, or it is an error that names it."""
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
                need(
                    pathlib.Path(victim).read_text() == 'precious',
                    '%s as %s: what it leads to was written' % (kind, ending),
                )
                if p.returncode:
                    need(keys[0] + ending.split('.tmp')[0] in p.stderr, '%s as %s: %s' % (kind, ending, p.stderr))
                    need(
                        ending == '.lock' or kind == 'directory',
                        '%s as %s is not a reason to fail: %s' % (kind, ending, p.stderr),
                    )
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
    for name in (
        '15/data',
        'record.json',
        '.rootfs-compile-tmp-deaddead',
        hexes[0] + '/15/data',
        'sha256/' + hexes[1],
        'tags/' + hexes[1],
        hexes[1],
        hexes[1] + '.json',
        'b' * 64 + '.tmp',
    ):
        put(os.path.join(top, name), 'precious')
    return tree(top)


@check('foreign-links-in-cache')
def links_in_cache():
    """A link in place of a directory or a lock of a cache is told, and what it leads to stays as it is; all else is
    checked. The cache itself may be a link."""
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
        for link in (
            other,
            place,
            os.path.dirname(place),
            layers,
            os.path.join(r.cache, 'registry'),
            *(os.path.join(r.cache, 'registry', sub) for sub in ('sha256', 'tags')),
        ):
            aside = os.path.lexists(link) and os.rename(link, at('aside')) is None
            os.symlink(victim, link)
            for args in ((), ('--remove',)):
                p = verify(*args, ok=(1,))
                need(
                    link + ' is a symbolic link' in p.stdout and 'is wrong' not in p.stderr,
                    '%s: %s' % (link, p.stdout + p.stderr),
                )
                need(
                    tree(victim) == before, '%s, %s: what a link leads to was changed: %s' % (link, args, tree(victim))
                )
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
            need(
                [x['file'] for x in found['problems']] == [other if other in lock else lock] and found['good'] >= 5,
                p.stdout,
            )
            os.remove(lock)
        need(tree(victim) == before, 'what a lock leads to was changed')
        verify(ok=(0,))
        os.rename(r.cache, at('elsewhere'))
        os.symlink('elsewhere', r.cache)
        need(r.run(HELLO)[0] == bundle, 'a cache that is a link is not used')
        verify(ok=(0,))


@check('foreign-planted-answer')
def planted_answer():
    """In a cache that others may write to, `run` takes no bundle,
    no record and no directory that is another user's, and removes none."""
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
            need(
                p.returncode == 125 or '5 layers' in p.stderr,
                "%s: another user's answer is taken: %s" % (planted, p.stdout + p.stderr),
            )
            for path in (planted, record, number, bundle):
                if os.path.exists(path):
                    os.chown(path, 0, 0)
            shutil.rmtree(place)
            need(r.run(HELLO, says='5 layers')[0] == bundle, 'another bundle')
        need(
            os.stat(place).st_uid == 0 and not os.stat(place).st_mode & 0o022,
            'others may write to the place of a bundle',
        )
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
    """`run` starts the bundle that it looked at, or made,
    if whoever owns the cache puts his own in its place before the machine has opened it."""
    with runs() as r:
        at = lambda *names: os.path.join(r.tmp, *names)
        planted = put(
            at('planted.yaml'),
            'image: oci:%s:latest\nplatform: linux/amd64\nboot: { hostname: planted }\n'
            % os.path.join(TOP, 'testimages/hello'),
        )
        bundle, _ = r.run(HELLO, says='5 layers')
        place = os.path.dirname(os.path.dirname(bundle))
        os.makedirs(at('theirs/1'))
        builds(at('theirs/1/hello'), cache=at('other'), manifest=planted)
        call('chown', '-R', '%d:%d' % (ALICE, ALICE), at('theirs'))
        put(
            at('bin/rootfs-boot'),
            '#!/bin/sh\nmv %s %s && cp -a %s %s || exit 9\nexec %s --dry-run --engine qemu "$@"\n'
            % (place, at('aside'), at('theirs'), place, BOOT),
        )
        for what in ('known', 'made anew'):
            p = call(r.binary, 'run', '--cache-dir', r.cache, HELLO, env=r.env)
            told = json.loads(p.stdout)
            need(
                told['bundle'] == bundle and told['command']['hostname'] == 'hello',
                '%s: another bundle is started: %s' % (what, p.stdout),
            )
            need(('5 layers' in p.stderr) == (what != 'known'), '%s: %s' % (what, p.stderr))
            shutil.rmtree(place)
            shutil.rmtree(at('aside'))
        # What is not the descriptor of a bundle.
        os.mkdir(at('empty'))
        for fd, words in (('2', 'descriptor 2'), ('9', 'descriptor 9'), ('-1', '-1'), ('x', 'x')):
            p = call(BOOT, '--dry-run', at('empty'), '--bundle-fd=' + fd, ok=(125,), env=r.env)
            need(words in p.stderr and 'panicked' not in p.stderr, p.stderr)


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
    """What one user's build keeps of a registry in a shared cache is of use to the others, whatever the umask; where it
    cannot be read, it is asked for again."""
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

            def pulled(uid, out, *args, name=name, cache=cache):
                argv = (
                    BINARY,
                    'build',
                    proxy.host + '/app:1',
                    '-o',
                    b.at(name + out),
                    '--cache-dir',
                    cache,
                    '--insecure-registry',
                    proxy.host,
                    *args,
                )
                call(*as_user(uid, 'env', 'HOME=' + b.tmp, *argv, umask='077'), timeout=AT_ONCE, cwd='/')
                same_files(b.at(name + '-alice'), b.at(name + out), name + out)

            pulled(ALICE, '-alice')
            pulled(BOB, '-bob')
            pulled(BOB, '-offline', '--offline')
            for at, _, names in os.walk(os.path.join(cache, 'registry')):
                for file in names:
                    os.chmod(os.path.join(at, file), 0o600)
            pulled(BOB, '-again')


@check('foreign-shared-cache')
def shared_cache():
    """Two users on one cache that both may write to, and root on the cache of one of them:
    nobody's bundle is another's file."""
    with open_scratch() as at:
        builds(at('good'))
        for name, mode in (('all', 0o1777), ('group', 0o2775)):
            cache = at(name)
            os.mkdir(cache)
            os.chown(cache, ALICE, ALICE)
            os.chmod(cache, mode)
            first = builds(at(name + '-alice'), cache=cache, uid=ALICE, umask='077')
            second = builds(at(name + '-bob'), cache=cache, uid=BOB, umask='077')
            need(
                '(0 cached)' in first.stderr and '(5 cached)' in second.stderr,
                name + ': ' + first.stderr + second.stderr,
            )
            builds(at(name + '-root'), cache=cache)
            for user, uid in (('alice', ALICE), ('bob', BOB), ('root', 0)):
                out = at('%s-%s' % (name, user))
                same_files(at('good'), out, out)
                for at_dir, _, names in os.walk(out):
                    for file in names:
                        stat = os.stat(os.path.join(at_dir, file))
                        need(
                            stat.st_uid == uid and not stat.st_mode & 0o022,
                            "%s: %s is another user's, or others may write to it" % (out, file),
                        )
            # Bob compiles what Alice did not, and Alice uses it.
            record = layer_files(cache, '.json')[0]
            os.remove(record)
            os.remove(record[:-5] + '.erofs')
            builds(at(name + '-bob2'), cache=cache, uid=BOB, umask='027')
            third = builds(at(name + '-alice2'), cache=cache, uid=ALICE)
            need('(5 cached)' in third.stderr, name + ': ' + third.stderr)
        # In a directory where nobody removes another's files, what is damaged cannot be replaced, and is compiled each
        # time.
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
        patched = put(
            at('patched.yaml'),
            'image: oci:%s:latest\nplatform: linux/amd64\npatches:\n'
            '  - replace: { path: /etc/passwd, find: root, with: toor }\n' % os.path.join(TOP, 'testimages/hello'),
        )
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


@check('foreign-records')
def records():
    """A record with any bit flipped is not believed: its layer is compiled again."""
    with open_scratch() as at:
        builds(at('good'))
        cache, r = at('good.cache'), random.Random(17)
        record = layer_files(cache, '.json')[2]
        whole = pathlib.Path(record).read_bytes()
        tried = 0
        for offset in range(0, len(whole), 3):
            flip(record, offset, r.randrange(8))
            if offset % 24 == 0:
                p = builds(at('out'), cache=cache)
                need('(4 cached)' in p.stderr, 'a flip in byte %d of %r is believed: %s' % (offset, whole, p.stderr))
                same_files(at('good'), at('out'), 'after a flip in byte %d' % offset)
                shutil.rmtree(at('out'))
                whole = pathlib.Path(record).read_bytes()
            else:
                p = call(BINARY, 'cache', 'verify', '--json', '--cache-dir', cache, ok=(1,))
                problems = json.loads(p.stdout)['problems']
                need([os.path.basename(x['file'])[:64] for x in problems] == [os.path.basename(record)[:64]], p.stdout)
                with open(record, 'wb') as file:
                    file.write(whole)
            tried += 1
        # The record of another layer is not believed either.
        other = layer_files(cache, '.json')[1]
        shutil.copy(other, record)
        p = call(BINARY, 'cache', 'verify', '--remove', '--cache-dir', cache, ok=(1,))
        need(os.path.basename(record)[:64] in p.stdout and not os.path.exists(record), p.stdout)
        call(BINARY, 'cache', 'verify', '--cache-dir', cache)
        return '%d flips' % tried


@check('foreign-rot')
def rot():
    """An object that rotted without a trace:
    a copy of it is never published, and `cache verify` finds and removes it."""
    with open_scratch() as at:
        builds(at('good'))
        before = files(at('good'))
        shutil.rmtree(at('good'))  # whose layers are other names of the cache's objects
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
