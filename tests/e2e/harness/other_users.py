"""Builds by other users, with scratch directories that all of them can write to,
and what checks of foreign files ask of them."""

import contextlib
import fcntl
import os
import pathlib
import select
import subprocess
import time

from harness.common import BINARY, HELLO, PATIENCE, call, need, scratch

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
    return sorted(
        os.path.join(at, name)
        for at, _, names in os.walk(cache)
        for name in names
        if name.endswith(ending) and len(name) == 64 + len(ending)
    )


def put(path, text=''):
    with open(path, 'w') as file:
        file.write(text)
    return path


def holds_data(directory, why):
    need(
        os.listdir(directory) == ['data'],
        '%s: what was in another directory is gone: %s' % (why, os.listdir(directory)),
    )


@contextlib.contextmanager
def open_locked(path):
    """Holds the lock of a file or directory."""
    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)


def tree(top):
    """What lies in a directory: names, types and bytes."""
    found = {}
    for at, dirs, names in os.walk(top):
        for path in (os.path.join(at, name) for name in dirs + names):
            kind = os.lstat(path).st_mode
            found[os.path.relpath(path, top)] = (
                kind,
                pathlib.Path(path).read_bytes() if os.path.isfile(path) else os.path.islink(path) and os.readlink(path),
            )
    return found


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
