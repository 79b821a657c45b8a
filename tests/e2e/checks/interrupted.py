"""Builds that are interrupted, or overtaken by others, between their last look at a place and their bundle there."""

import contextlib
import os
import pty
import select
import shutil
import signal
import subprocess
import time

from checks import check
from harness.boot import KRUNFW
from harness.common import BINARY, HELLO, PATIENCE, TOP, call, files, need, same_files
from harness.other_users import (
    ALICE,
    AT_ONCE,
    builds,
    layer_files,
    open_locked,
    open_scratch,
    put,
    read_until,
    stagings,
    start,
)


def injected(*injections, argv, ok):
    """Runs a command while strace makes system calls of it fail, or kills it there."""
    return call(
        'strace',
        '-f',
        '--quiet=all',
        '-o',
        '/dev/null',
        *(word for i in injections for word in ('-e', 'inject=' + i)),
        BINARY,
        *argv,
        ok=ok,
    )


@check('foreign-no-swap')
def no_swap():
    """Where two names cannot be swapped, an error between the renames brings the old bundle back,
    and after a kill the next run does."""
    with open_scratch() as at:
        os.mkdir(at('place'))
        out, cache = at('place/out'), ('--cache-dir', at('cache'))
        old, new = (
            put(
                at(name + '.yaml'),
                'image: oci:%s:latest\nplatform: linux/amd64\npatches:\n  - write: { path: /etc/mark, content: %s }\n'
                % (os.path.join(TOP, 'testimages/hello'), name),
            )
            for name in ('old', 'new')
        )
        for name in ('old', 'new'):
            call(BINARY, 'build', at(name + '.yaml'), '-o', at('good-' + name), *cache)
        good_old, good_new = files(at('good-old')), files(at('good-new'))
        call(BINARY, 'build', old, '-o', out, *cache)
        force = ('build', new, '-o', out, '--force', *cache)
        for error in ('EINVAL', 'EXDEV', 'ENOSYS'):
            injected('renameat2:error=' + error, argv=force, ok=(0,))
            need(
                files(out) == good_new and os.listdir(at('place')) == ['out'],
                '%s: another bundle, or leftovers: %s' % (error, os.listdir(at('place'))),
            )
            call(BINARY, 'build', old, '-o', out, '--force', *cache)
        # The first rename finds the old bundle in its way, the second sets it aside, the third would put the new one in
        # its place.
        p = injected('renameat2:error=EINVAL', 'renameat:error=EIO:when=3', argv=force, ok=(1,))
        need(
            out in p.stderr and files(out) == good_old and os.listdir(at('place')) == ['out'],
            'after an error: %s, %s' % (os.listdir(at('place')), p.stderr),
        )
        for count in (2, 3):
            injected('renameat2:error=EINVAL', 'renameat:signal=KILL:when=%d' % count, argv=force, ok=(-9, 137))
            brought_back(at('place'), new, cache, good_old, 'killed at rename %d' % count)
        # overlayfs cannot rename a directory of its lower layer at all: its files are set aside one by one.
        for count in range(2, 20, 2):
            with overlay(at, 'place', count) as place:
                p = injected(
                    'renameat:signal=KILL:when=%d' % count,
                    argv=('build', new, '-o', os.path.join(place, 'out'), '--force', *cache),
                    ok=(0, -9, 137),
                )
                if p.returncode == 0:
                    need(
                        files(os.path.join(place, 'out')) == good_new and os.listdir(place) == ['out'],
                        'file by file: %s' % os.listdir(place),
                    )
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
            strace = (
                'strace',
                '--quiet=all',
                '-e',
                'trace=' + look + ',renameat2',
                *(() if force else ('-P', out)),
                *(('-e', 'inject=renameat2:error=EINVAL') if case == 'no-swap' else ()),
                '-o',
                at('trace'),
            )
            if force:
                builds(out, cache=at('cache'))
            call(*strace, *argv)
            with open(at('trace')) as file:
                count = sum(line.startswith(look) for line in file)
            if not force:
                shutil.rmtree(out)
            os.remove(at('trace'))
            put(at('trace'))
            running = subprocess.Popen(
                [*strace, '-e', 'inject=%s:signal=STOP:when=%d' % (look, count), *argv],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
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
            need(
                running.returncode == 1 and 'stays as it is' in said,
                '%s: exit %d: %s' % (case, running.returncode, said),
            )
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
    call(
        'mount',
        '-t',
        'overlay',
        '-o',
        'lowerdir=%s,upperdir=%s,workdir=%s' % (at(lower), *parts[:2]),
        'overlay',
        parts[2],
    )
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
                need(
                    not os.listdir(at('place')),
                    '%s, %s: left behind: %s' % (name, number.name, os.listdir(at('place'))),
                )
                left = [
                    os.path.join(where, n)
                    for where, dirs, names in os.walk(cache)
                    for n in dirs + names
                    if '.rootfs-compile' in n or n.isdigit()
                ]
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
            p = subprocess.Popen(
                [BINARY, 'build', HELLO, '-o', at('out'), '--cache-dir', at('good.cache')],
                stdin=terminal,
                stdout=terminal,
                stderr=terminal,
            )
            os.close(terminal)
            said, asked = b'', False
            while True:
                ready, _, _ = select.select([master], [], [], PATIENCE)
                need(ready, 'no end: %r' % said)
                try:
                    part = os.read(master, 65536)
                except OSError:  # the other end is closed
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
        running = [
            start('build', HELLO, '-o', at('place/out'), '--cache-dir', at('good.cache'), '--progress', 'none')
            for _ in range(12)
        ]
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
        need(
            sorted(os.listdir(at('place'))) == ['.out.rootfs-compile-aaaaaaaa', 'out']
            and len(os.listdir(planted)) == 2,
            str(os.listdir(at('place'))),
        )
        # An export that is killed, and one that finds what a killed one left where a file cannot be without a name.
        os.mkdir(at('exports'))
        injected('fsync:signal=KILL:when=1', argv=('export', at('good'), '--tar', at('exports/tar')), ok=(-9, 137))
        put(at('exports', '.rootfs-compile-tmp-deaddead'))
        live = put(at('exports', '.rootfs-compile-tmp-livelive'))
        with open_locked(live):
            call(BINARY, 'export', at('good'), '--tar', at('exports/tar'))
            need(sorted(os.listdir(at('exports'))) == [os.path.basename(live), 'tar'], str(os.listdir(at('exports'))))
        # In the cache.
        key = layer[: -len('.lock')]
        for ending in ('.tmp', '.json.tmp'):
            put(key + ending)
        put(os.path.join(os.path.dirname(layer), '.rootfs-compile-tmp-deaddead'))
        stranger = put(os.path.join(os.path.dirname(layer), 'notes.txt'))
        p = call(BINARY, 'cache', 'verify', '--cache-dir', cache)
        need('3 files' in p.stdout and stranger in p.stdout and os.path.exists(stranger), p.stdout)
        need(not [n for n in os.listdir(os.path.dirname(layer)) if 'tmp' in n], 'left behind in the cache')
