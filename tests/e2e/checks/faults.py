"""Commands that are cut short.

One system call of a command fails, each in its turn: the command either says so and leaves nothing wrong, or did its
work all the same.

strace makes the calls fail. It counts each thread's calls on their own, so the nth call of a kind fails in every thread
that comes so far.
"""

import collections
import os
import random
import re
import signal
import subprocess
import sys
import time
import zlib

from checks import check
from harness.common import BINARY, HELLO, PATIENCE, TOP, Failed, call, files, need, remove, scratch

# A system call, and the errors that it is made to give. A call that is not here fails with EIO.
ERRORS = {
    'openat': ('EMFILE', 'EACCES', 'EIO'),
    'write': ('ENOSPC', 'EIO'),
    'pwrite64': ('ENOSPC', 'EIO'),
    'pwritev2': ('ENOSPC',),
    'ftruncate': ('EFBIG',),
    'fallocate': ('ENOSPC',),
    'mkdir': ('ENOSPC',),
    'mkdirat': ('ENOSPC',),
    'rename': ('EACCES', 'EIO'),
    'renameat2': ('EINVAL', 'EXDEV', 'EIO'),
    'linkat': ('EXDEV', 'EMLINK', 'EPERM'),
    'flock': ('ENOLCK',),
    'fcntl': ('EINVAL',),
    'ioctl': ('EOPNOTSUPP', 'EIO'),
    'mmap': ('ENOMEM',),
    'mremap': ('ENOMEM',),
    'brk': ('ENOMEM',),
    'clone3': ('EAGAIN',),
    'getrandom': ('ENOSYS',),
    'statx': ('EACCES', 'EIO'),
    'fchmod': ('EPERM',),
    'fchmodat': ('EPERM',),
    'chmod': ('EPERM',),
    'unlink': ('EACCES',),
    'unlinkat': ('EACCES',),
    'prlimit64': ('EPERM',),
    'copy_file_range': ('EIO',),
    'sched_getaffinity': ('EINVAL',),
    'getcwd': ('ENOENT',),
    'lseek': ('EINVAL',),
    'poll': ('EINVAL',),
}
# Calls that cannot fail, those of the program's start, and what a lock, a barrier or a thread's end is made of: made to
# fail, these do what no kernel does (a futex that returns at once makes its caller try for ever).
NEVER = {
    'execve',
    'exit',
    'exit_group',
    'rt_sigreturn',
    'restart_syscall',
    'futex',
    'sched_yield',
    'gettid',
    'getpid',
    'rseq',
    'set_robust_list',
    'set_tid_address',
    'arch_prctl',
    'rt_sigaction',
    'munmap',
    'madvise',
    'rt_sigprocmask',
    'sigaltstack',
    'mprotect',
    'getuid',
    'geteuid',
    'getgid',
    'getegid',
    'membarrier',
    'close',
    'epoll_wait',
    'epoll_pwait',
    'clock_nanosleep',
    'nanosleep',
}
# How a program ends that cannot have memory: Rust's allocator and the C library abort.
WITHOUT_MEMORY = {'mmap', 'brk', 'mremap'}
# Of every so many faults the quick suite tries one.
STRIDE = 20

# Runs of all commands together that are killed.
KILLS = 204

Command = collections.namedtuple('Command', 'name argv before')


def commands(at):
    """What is tried, and what lies there before: a function that puts it there."""
    cache = ('--cache-dir', at('cache'))
    patched = at('patched.yaml')
    with open(patched, 'w') as file:
        file.write(
            'image: oci:%s:latest\nplatform: linux/amd64\npatches:\n  - write: { path: /etc/mark, content: one }\n'
            % os.path.join(TOP, 'testimages/hello')
        )
    older = at('older.yaml')
    with open(older, 'w') as file:
        file.write(
            'image: oci:%s:latest\nplatform: linux/amd64\npatches:\n  - write: { path: /etc/mark, content: older }\n'
            % os.path.join(TOP, 'testimages/hello')
        )
    warm = lambda: call(BINARY, 'build', HELLO, '-o', at('warm'), *cache)
    old = lambda: call(BINARY, 'build', older, '-o', at('out'), *cache)
    made = lambda: call(BINARY, 'build', patched, '-o', at('made'), *cache)
    sent = lambda: (
        made(),
        call(BINARY, 'export', at('made'), '--oci-layout', at('layout'), *cache),
        remove(at('made')),
    )
    quiet = ('--progress', 'plain')
    return [
        Command('build', ('build', HELLO, '-o', at('out'), *cache, *quiet, '--jobs', '1'), lambda: None),
        Command('rebuild', ('build', HELLO, '-o', at('out'), *cache, *quiet), warm),
        Command('patched', ('build', patched, '-o', at('out'), *cache, *quiet), warm),
        Command('force', ('build', HELLO, '-o', at('out'), '--force', *cache, *quiet), old),
        Command('pull', ('pull', 'oci:%s' % at('layout'), '-o', at('out'), *cache), sent),
        Command('export', ('export', at('made'), '--oci-archive', at('out'), *cache), made),
    ]


def traced(command, *options):
    return ['strace', '-f', '--quiet=all', '-o', *options, BINARY, *command.argv]


def calls_of(command, at):
    """Of each system call that the command makes, how many the busiest thread makes of it."""
    log = at('log')
    call(*traced(command, log))
    counts = collections.Counter()
    with open(log, errors='replace') as file:
        for line in file:
            found = re.match(r'(\d+) +([a-z_0-9]+)\(', line)
            if found:
                counts[found.groups()] += 1
    os.remove(log)
    busiest = collections.Counter()
    for (_, name), count in counts.items():
        busiest[name] = max(busiest[name], count)
    return busiest


def state(path):
    """What lies at the place of the command's product."""
    if not os.path.lexists(path):
        return None
    if os.path.isdir(path):
        return files(path)
    return files(os.path.dirname(path)).get(os.path.basename(path))


def clean(at, command):
    for name in os.listdir(at()):
        if not name.endswith('.yaml'):
            path = at(name)
            remove(path) if os.path.isdir(path) and not os.path.islink(path) else os.remove(path)
    command.before()


def one_fault(command, at, good, before, name, error, n):
    clean(at, command)
    # Beside the program's own output nothing is said that would hide what it says.
    p = subprocess.run(
        traced(command, '/dev/null', '-e', 'trace=' + name, '-e', 'inject=%s:error=%s:when=%d' % (name, error, n)),
        capture_output=True,
        text=True,
        errors='replace',
        timeout=PATIENCE,
    )
    what = '%s, %s number %d gives %s: exit %d\n%s' % (command.name, name, n, error, p.returncode, p.stderr[-1000:])
    # A thread that gets no memory for its stack of signals is given up by Rust's runtime, before any code of the
    # program runs in it.
    need('panicked' not in p.stderr or (name in WITHOUT_MEMORY and 'stack_overflow' in p.stderr), 'a panic: ' + what)
    aborted = p.returncode in (-6, 134) or p.returncode < 0
    need(not aborted or name in WITHOUT_MEMORY, 'killed by a signal: ' + what)
    found = state(at('out'))
    if p.returncode == 0:
        need(found == good, 'success, and the product is not what it should be: ' + what)
    else:
        # An error that comes after the product is in its place leaves it there, whole.
        need(
            found in (before, good),
            'an error, and what lies there is neither what lay there nor what was to be made: ' + what,
        )
        need(p.stderr.strip() or name in ('write', *WITHOUT_MEMORY), 'an error without a word: ' + what)
    if found is not None and command.name != 'export':
        call(BINARY, 'verify', at('out'))
    # The next run is right, whatever the failed one left.
    next_run(command, at, good, what)
    return p.returncode != 0


def next_run(command, at, good, what):
    """The next run makes what it should, and takes away what the one before left."""
    argv = command.argv
    if os.path.lexists(at('out')):
        if command.name == 'export':
            os.remove(at('out'))
        elif '--force' not in argv:
            argv = [*argv, '--force']
    again = call(BINARY, *argv, ok=(0, 1))
    need(again.returncode == 0, 'the next run fails: %s\nafter %s' % (again.stderr, what))
    need(state(at('out')) == good, 'the next run makes something else: ' + what)
    left = [
        os.path.join(d, n)
        for d, dirs, names in os.walk(at())
        for n in dirs + names
        if n.startswith('.') or n.endswith('.tmp')
    ]
    need(not left, 'after the next run there is still %s: %s' % (left, what))


def run(stride):
    tried = failed = 0
    found = []
    with scratch() as tmp:
        at = lambda *names: os.path.join(tmp, *names)
        for command in commands(at):
            clean(at, command)
            before = state(at('out'))
            counts = calls_of(command, at)
            good = state(at('out'))
            need(good is not None and good != before, '%s makes nothing' % command.name)
            for name in sorted(counts.keys() - NEVER):
                for error in ERRORS.get(name, ('EIO',)):
                    for n in range(1, counts[name] + 1):
                        # Which faults the quick suite tries is the same in each run, and spread over all of them.
                        if zlib.crc32(('%s %s %s %d' % (command.name, name, error, n)).encode()) % stride:
                            continue
                        tried += 1
                        try:
                            failed += one_fault(command, at, good, before, name, error, n)
                        except Failed as e:
                            found.append(str(e))
                            print('  ' + found[-1], file=sys.stderr, flush=True)
    need(not found, '%d of %d faults are not borne:\n%s' % (len(found), tried, '\n'.join(found)))
    return '%d faults, of which %d made the command fail' % (tried, failed)


def one_kill(command, at, good, before, sign, seconds):
    clean(at, command)
    p = subprocess.Popen([BINARY, *command.argv], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    time.sleep(seconds)
    p.send_signal(sign)
    _, said = p.communicate(timeout=PATIENCE)
    what = '%s, %s after %.3f s: exit %d\n%s' % (command.name, sign.name, seconds, p.returncode, said[-1000:])
    need(p.returncode in (0, -sign), 'neither done nor killed by the signal: ' + what)
    found = state(at('out'))
    need(found in (before, good), 'what lies there is neither what lay there nor what was to be made: ' + what)
    if sign != signal.SIGKILL:
        hidden = [n for n in os.listdir(at()) if n.startswith('.')]
        need(not hidden, 'left behind: %s: %s' % (hidden, what))
    next_run(command, at, good, what)
    return p.returncode != 0


@check('kills')
def kills():
    """Two hundred kills over all commands, by each of the signals that end a program, at times spread over its run."""
    signals, hit, rand = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP), 0, random.Random(200)
    with scratch() as tmp:
        at = lambda *names: os.path.join(tmp, *names)
        all_commands = commands(at)
        for command in all_commands:
            clean(at, command)
            before, start = state(at('out')), time.monotonic()
            call(BINARY, *command.argv)
            whole, good = time.monotonic() - start, state(at('out'))
            for n in range(KILLS // len(all_commands)):
                hit += one_kill(command, at, good, before, signals[n % len(signals)], rand.uniform(0, whole))
    return '%d of %d runs were killed before they ended' % (hit, KILLS // len(all_commands) * len(all_commands))


check('system-calls')(lambda: run(STRIDE))
