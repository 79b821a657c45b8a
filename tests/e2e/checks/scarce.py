"""Hosts that are short of threads, open files or disk space: the program ends with an error that says so."""

import contextlib
import os
import random
import resource
import shutil
import subprocess

from checks import check
from harness.common import BINARY, HELLO, PATIENCE, build, call, manifest_for, need, scratch
from layout import Layer, Layout, tagged
from tarfmt import f

BOOT = os.environ.get('ROOTFS_BOOT', os.path.join(os.path.dirname(BINARY), 'rootfs-boot'))
NOBODY = 45_678  # a user who runs nothing else: limits of processes count those of a user


def many_layers(tmp, count):
    out = Layout(os.path.join(tmp, 'many'))
    out.index(tagged(out.image([Layer(f('f%d' % i, 'content %d\n' % i)) for i in range(count)])))
    return manifest_for(os.path.join(tmp, 'many.yaml'), 'oci:%s:latest' % out.path)


@check('scarce-threads')
def threads():
    """With each limit of processes, what works works, and what does not says that a thread is missing."""
    with scratch() as tmp:
        at = lambda name: os.path.join(tmp, name)
        os.chmod(tmp, 0o777)
        big = Layout(at('layout'))
        big.index(
            tagged(
                big.image([Layer(f('big', random.Random(1).randbytes(3 << 20))), Layer(f('other', b'x' * (2 << 20)))])
            )
        )
        with open(at('m.yaml'), 'w') as file:
            file.write(
                'image: oci:%s:latest\nplatform: linux/amd64\npatches:\n  - write: { path: /data, from: %s }\n'
                % (big.path, at('host'))
            )
        with open(at('host'), 'wb') as file:
            file.write(random.Random(2).randbytes(3 << 20))
        os.chmod(at('host'), 0o644)
        build(at('m.yaml'), at('good'))
        commands = {
            'build': lambda out: ('build', at('m.yaml'), '-o', out, '--cache-dir', out + '.cache'),
            'registry': lambda out: ('build', 'localhost:1/none', '-o', out, '--cache-dir', out + '.cache'),
            'verify': lambda out: ('verify', at('good')),
            'export': lambda out: ('export', at('good'), '--oci-archive', out, '--cache-dir', out + '.cache'),
        }
        failed = 0
        for name, args in commands.items():
            for limit in (1, 2, 3, 4, 6):
                out = at('%s%d' % (name, limit))
                p = subprocess.run(
                    [
                        'setpriv',
                        '--reuid',
                        str(NOBODY),
                        '--regid',
                        str(NOBODY),
                        '--clear-groups',
                        'prlimit',
                        '--nproc=%d' % limit,
                        BINARY,
                        *args(out),
                    ],
                    capture_output=True,
                    text=True,
                    timeout=PATIENCE,
                    cwd=tmp,
                )
                what = '%s with %d processes: exit %d: %s' % (name, limit, p.returncode, p.stderr)
                need('panicked' not in p.stderr and p.returncode in (0, 1), what)
                if p.returncode and name != 'registry':
                    need('thread' in p.stdout + p.stderr, what + p.stdout)
                failed += 'thread' in p.stdout + p.stderr
                if p.returncode and name in ('build', 'export'):
                    need(not os.path.exists(out), what + ': it is there all the same')
        need(failed >= 4, 'only %d commands lack a thread: is there no limit?' % failed)
        return '%d commands lack a thread' % failed


@check('scarce-open-files')
def open_files():
    """Layers are more than the soft limit allows: it is raised.
    They are more than the hard one does: that is said, with a file."""
    with scratch() as tmp:
        m = many_layers(tmp, 300)
        out, cache = os.path.join(tmp, 'out'), os.path.join(tmp, 'cache')
        limit = lambda soft, hard: lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        few = {'preexec_fn': limit(256, 4096)}
        build(m, out, cache=cache, **few)
        call(BINARY, 'verify', out, **few)
        call(BINARY, 'export', out, '--raw', os.path.join(tmp, 'raw'), **few)
        call(BOOT, out, '--dry-run', '--engine', 'qemu', '--', 'true', **few)
        build(m, out + '2', cache=cache, **few)
        few = {'preexec_fn': limit(256, 256)}
        for args in (
            ['build', m, '-o', out + '3', '--cache-dir', cache],
            ['build', m, '-o', out + '3', '--cache-dir', cache + '3'],
            ['export', out, '--raw', out + '3'],
        ):
            said = call(BINARY, *args, ok=(1,), **few).stderr
            need('Too many open files' in said and '256' in said and 'ulimit' in said, said)
            need(tmp in said or 'sha256-' in said, 'no file is named: ' + said)
            need(not os.path.exists(out + '3'), 'it is there all the same')


@check('scarce-file-size')
def file_size():
    """A file that must not become as large as it would: an error of writing it, by name, and no signal."""
    with scratch() as tmp:
        big, m = Layout(os.path.join(tmp, 'layout')), os.path.join(tmp, 'm.yaml')
        big.index(tagged(big.image([Layer(f('big', random.Random(1).randbytes(3 << 20)))])))
        manifest_for(m, 'oci:%s:latest' % big.path)
        for limit in (1 << 16, 1 << 20, 2 << 20, 3 << 20, 1 << 30):
            out = os.path.join(tmp, 'out%d' % limit)
            p = build(m, out, ok=(1,), preexec_fn=lambda n=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (n, n)))
            need(
                'File too large' in p.stderr
                and 'ulimit -f' in p.stderr
                and ('.cache/' in p.stderr or 'out%d' % limit in p.stderr),
                p.stderr,
            )
            need(not os.path.exists(out), 'it is there all the same')


@check('scarce-system-calls')
def system_calls():
    """Without random numbers, and with directories and files that do not close:
    an error, or a bundle that is right, and no panic."""
    with scratch() as tmp:
        at = lambda *names: os.path.join(tmp, *names)
        os.makedirs(at('tree/sub'))
        with open(at('m.yaml'), 'w') as file:
            file.write(
                'image: oci:%s/../testimages/hello:latest\nplatform: linux/amd64\npatches:\n'
                '  - copy: { from: tree, path: /tree }\n' % os.path.dirname(HELLO)
            )
        build(at('m.yaml'), at('good'))
        number = 0
        for fault in (
            'close:error=EIO:when=10+',
            'getrandom:error=EIO',
            'getrandom:error=ENOSYS',
            'getrandom:error=EIO:when=2+',
            'getrandom:error=EPERM:when=3',
        ):
            for args in (['build', at('m.yaml'), '--force', '-q'], ['verify', at('good')], ['inspect', at('good')]):
                number += 1
                out = at('out%d' % number)
                more = ['-o', out, '--cache-dir', out + '.cache'] if args[0] == 'build' else []
                p = call(
                    'strace', '-f', '-qq', '-o', '/dev/null', '-e', 'inject=' + fault, BINARY, *args, *more, ok=(0, 1)
                )
                # The loader has closed its files by then. What libraries do later with what was there at the start is
                # beyond us; the exit code is right all the same.
                need(
                    'panicked' not in p.stderr or ('getrandom' in fault and 'when=' in fault),
                    '%s, %s: %s' % (fault, args[0], p.stderr),
                )
                need(
                    p.returncode == 0 or p.stderr.strip() or p.stdout.strip(),
                    '%s, %s: exit %d without a word' % (fault, args[0], p.returncode),
                )
                if more and p.returncode == 0:
                    call(BINARY, 'verify', out)
        return '%d runs' % number


@check('full-streams')
def full():
    """What is said of a success does not matter to it; what a command is run for does."""
    with scratch() as tmp:
        at = lambda name: os.path.join(tmp, name)
        build(HELLO, at('out'), cache=at('cache'))
        cached = ('--cache-dir', at('cache'))
        call(BINARY, 'export', at('out'), '--oci-layout', at('layout'), *cached)

        def run(stream, *args):
            with open('/dev/full', 'w') as full:
                streams = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL, 'stdin': subprocess.DEVNULL} | {
                    stream: full
                }
                return subprocess.run(args, timeout=PATIENCE, **streams).returncode

        code = run('stderr', BINARY, 'pull', 'oci:%s:latest' % at('layout'), '-o', at('pulled'), *cached)
        need(code == 0 and os.path.exists(at('pulled/bundle.json')), 'pull 2>/dev/full: exit %d' % code)
        for args in (
            ['build', HELLO, '-o', at('b')],
            ['build', HELLO, '-o', at('c'), '--progress', 'plain'],
            ['build', HELLO, '-o', at('d'), '--progress', 'json'],
        ):
            code = run('stderr', BINARY, *args, *cached)
            need(code == 0, '%s 2>/dev/full: exit %d' % (args, code))
        for args in (
            ['verify', at('out')],
            ['verify', at('out'), '--json'],
            ['inspect', at('out')],
            ['inspect', at('out'), '--json'],
            ['schema'],
            ['build', HELLO, '--dry-run', '--json', *cached],
        ):
            code = run('stdout', BINARY, *args)
            need(code == 1, '%s >/dev/full: exit %d' % (args, code))
        code = run('stdout', BOOT, at('out'), '--dry-run', '--engine', 'qemu')
        need(code == 125, 'rootfs-boot --dry-run >/dev/full: exit %d' % code)


@check('truncated-while-read')
def truncated():
    """Files that become shorter while they are read: an error that names one, whenever it happens, and no signal."""
    with scratch() as tmp:
        at = lambda name: os.path.join(tmp, name)
        big = Layout(at('layout'))
        # Its metadata is read after its content, and takes a while.
        big.index(tagged(big.image([Layer(*(f('d%d/f%d' % (i % 100, i), 'content %d\n' % i) for i in range(30_000)))])))
        build(manifest_for(at('m.yaml'), 'oci:%s:latest' % big.path), at('good'))
        [layer] = os.listdir(at('good/layers'))
        names, codes = ('fsmeta.erofs', 'layers/' + layer), set()
        for i in range(24):
            shutil.rmtree(at('bad'), ignore_errors=True)
            call('cp', '-r', '--sparse=always', at('good'), at('bad'))
            path = at('bad/' + names[i % 2])
            p = subprocess.Popen(
                [BINARY, 'verify', at('bad')], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            with contextlib.suppress(subprocess.TimeoutExpired):
                p.wait(0.004 * i)
            os.truncate(path, 4096)
            out, said = p.communicate(timeout=PATIENCE)
            need(p.returncode in (0, 1), 'exit %d: %s%s' % (p.returncode, out, said))
            need(p.returncode == 0 or names[i % 2] in out + said, 'no file is named: %s%s' % (out, said))
            codes.add(p.returncode)
        need(1 in codes, 'it was never too short')
