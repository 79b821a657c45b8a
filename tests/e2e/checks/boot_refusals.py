"""What rootfs-boot refuses to start, what it checks first, and what it says instead. Nothing here needs a guest."""

import json
import os
import re
import shutil
import signal
import subprocess
import time

from checks import check
from checks.boot_images import bundles
from harness import bundle
from harness.boot import BOOT, boot, no_engine
from harness.common import PATIENCE, TOP, build, call, manifest_for, need, scratch


@check('boot-upper-grown-meanwhile')
def upper_grown_meanwhile():
    """An upper that another machine made larger just before it let go of it keeps that size."""
    with scratch() as tmp:
        env, mark = no_engine(tmp)
        kept = os.path.join(tmp, 'kept.ext4')
        call('cp', '--sparse=always', os.path.join(bundles(), 'hello/upper.ext4'), kept)
        os.chmod(kept, 0o600)
        larger = 2 * os.path.getsize(kept)
        p = subprocess.Popen(
            [
                'strace',
                '-f',
                '--quiet=all',
                '-o',
                '/dev/null',
                '-P',
                kept,
                '-e',
                'inject=flock:delay_enter=4000000',
                BOOT,
                os.path.join(bundles(), 'hello'),
                '--engine',
                'qemu',
                '--upper',
                kept,
            ],
            env=env,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        while p.poll() is None and not any(kept in open_files(pid) for pid in os.listdir('/proc') if pid.isdigit()):
            time.sleep(0.05)
        os.truncate(kept, larger)
        said = p.communicate(timeout=PATIENCE)[1]
        need(os.path.exists(mark), 'nothing was launched: ' + said)
        need(os.path.getsize(kept) == larger, 'the upper has %d bytes, not %d' % (os.path.getsize(kept), larger))


@check('boot-upper-unfinished')
def upper_unfinished():
    """A signal while an upper is copied takes away what there is of it, also where a file cannot be without a name:
    as without /proc."""
    with scratch() as tmp:
        env, mark = no_engine(tmp)
        os.mkdir(os.path.join(tmp, 'place'))
        p = call(
            'unshare',
            '--mount',
            'sh',
            '-c',
            'umount -l /proc; exec "$@"',
            'sh',
            'strace',
            '-f',
            '--quiet=all',
            '-o',
            '/dev/null',
            '-e',
            'inject=fsync:signal=TERM:delay_exit=2000000',
            BOOT,
            os.path.join(bundles(), 'hello'),
            '--engine',
            'qemu',
            '--upper',
            os.path.join(tmp, 'place/kept.ext4'),
            ok=range(-64, 256),
            env=env,
            stdin=subprocess.DEVNULL,
        )
        # A signal that is heard once the copy is whole finds no machine that could start without /proc.
        need(p.returncode in (-signal.SIGTERM, 125), 'it ended by %d: %s' % (p.returncode, p.stderr))
        need(not os.path.exists(mark), 'a machine was started')
        left = os.listdir(os.path.join(tmp, 'place'))
        # The copy may be whole just before the signal is there.
        need(left in ([], ['kept.ext4']), 'it left ' + ', '.join(left))


def open_files(pid):
    """The names of what a process has open."""
    names = set()
    try:
        for fd in os.listdir('/proc/%s/fd' % pid):
            names.add(os.readlink('/proc/%s/fd/%s' % (pid, fd)))
    except OSError:
        pass
    return names


def edit(path, how):
    with open(path, 'rb') as file:
        text = file.read()
    new = how(text)
    need(new != text, 'the edit changes nothing')
    with open(path, 'wb') as file:
        file.write(new)


def flip(path, at):
    os.chmod(path, 0o644)
    with open(path, 'r+b') as file:
        byte = os.pread(file.fileno(), 1, at)[0]
        os.pwrite(file.fileno(), bytes([byte ^ 1]), at)


def hostile():
    """(name, what is done to the bundle, arguments, words of the error)"""
    vmdk = lambda how: lambda d: edit(os.path.join(d, 'bundle.vmdk'), how)
    layer = lambda d: bundle.extents(d)[1][0]
    name = lambda d: os.path.relpath(layer(d), d)

    def replace(make):
        def do(d):
            path = layer(d)
            os.rename(path, os.path.join(os.path.dirname(d), 'aside'))
            make(path, os.path.join(os.path.dirname(d), 'aside'))

        return do

    def cut(d):
        os.chmod(layer(d), 0o644)
        os.truncate(layer(d), os.path.getsize(layer(d)) - 512)

    def move_layers(d):
        os.rename(os.path.join(d, 'layers'), os.path.join(os.path.dirname(d), 'elsewhere'))
        os.symlink('../elsewhere', os.path.join(d, 'layers'))

    def unknown_layer(d):
        other = os.path.join(d, 'layers/other')
        shutil.copy(layer(d), other)
        edit(os.path.join(d, 'bundle.vmdk'), lambda b: b.replace(name(d).encode(), b'layers/other'))

    first = re.compile(rb'RW \d+ FLAT "fsmeta.erofs"')
    yield (
        'absolute path',
        vmdk(lambda b: b.replace(b'"fsmeta.erofs"', b'"/etc/passwd"')),
        [],
        ['bundle.vmdk', 'bytes, not'],
    )
    yield (
        'dot-dot',
        vmdk(lambda b: b.replace(b'"fsmeta.erofs"', b'"../fsmeta.erofs"')),
        [],
        ['bundle.vmdk', 'bytes, not'],
    )
    yield 'protocol', vmdk(lambda b: b.replace(b'"layers/', b'"layers/nbd:', 1)), [], ['bundle.vmdk', 'bytes, not']
    yield 'deeper', vmdk(lambda b: b.replace(b'"layers/', b'"layers/x/', 1)), [], ['bundle.vmdk', 'bytes, not']
    yield 'parent disk', vmdk(lambda b: b + b'parentFileNameHint="/etc/passwd"\n'), [], ['bundle.vmdk', 'bytes, not']
    yield 'other grammar', vmdk(lambda b: b.replace(b'\nRW ', b'\nRDONLY ', 1)), [], ['bundle.vmdk', 'bytes, not']
    yield (
        'one sector too many',
        vmdk(lambda b: first.sub(b'RW 999 FLAT "fsmeta.erofs"', b)),
        [],
        ['bundle.vmdk', 'bytes, not'],
    )
    yield (
        'overflowing size',
        vmdk(lambda b: first.sub(b'RW 99999999999999999 FLAT "fsmeta.erofs"', b)),
        [],
        ['bundle.vmdk', 'bytes, not'],
    )
    yield (
        'overflowing sum',
        vmdk(lambda b: re.sub(rb'RW \d+ ', b'RW 27021597764222976 ', b)),
        [],
        ['bundle.vmdk', 'bytes, not'],
    )
    yield 'three megabytes of descriptor', vmdk(lambda b: b + b'#' * 3000000), [], ['bundle.vmdk', 'bytes, not']
    yield 'no text', vmdk(lambda b: b + b'\xff'), [], ['bundle.vmdk', 'bytes, not']
    yield (
        'a file of the host',
        vmdk(lambda b: b.replace(b'"fsmeta.erofs"', b'"/etc/shadow-"')),
        [],
        ['bundle.vmdk', 'not what a build writes'],
    )
    yield 'symbolic link', replace(lambda path, aside: os.symlink(aside, path)), [], ['layers/', 'symbolic link']
    yield 'layers elsewhere', move_layers, [], ['layers/', 'not a directory of the bundle']
    yield 'fifo', replace(lambda path, aside: os.mkfifo(path)), [], ['layers/', 'not a regular file']
    yield 'missing', lambda d: os.unlink(layer(d)), [], ['layers/', 'it is missing']
    yield 'too short', cut, [], ['layers/', 'bytes, not']
    yield 'unknown layer', unknown_layer, [], ['bundle.vmdk', 'bytes, not']
    yield 'superblock of a layer', lambda d: flip(layer(d), 1024), [], ['layers/', 'superblock']
    yield 'fsmeta', lambda d: flip(os.path.join(d, 'fsmeta.erofs'), 5000), [], ['fsmeta.erofs', 'hash differs']
    yield 'upper', lambda d: flip(os.path.join(d, 'upper.ext4'), 1100), [], ['upper.ext4', 'hash differs']
    yield 'a byte of a layer', lambda d: flip(layer(d), 9000), ['--verify'], ['layers/', 'hash differs']
    yield 'no index', lambda d: os.unlink(os.path.join(d, 'bundle.json')), [], ['bundle.json', 'it is missing']
    yield (
        'another version',
        lambda d: edit(os.path.join(d, 'bundle.json'), lambda b: b.replace(b'"version": 2', b'"version": 7')),
        [],
        ['version 7'],
    )
    yield (
        'another architecture',
        lambda d: edit(
            os.path.join(d, 'bundle.json'), lambda b: bundle.sealed(b.replace(b'linux/amd64', b'linux/riscv64'))
        ),
        [],
        ['riscv64'],
    )
    # The option that the error names is one that this program has.
    limit = ['--verify', '--max-metadata-bytes', '1k']
    yield 'more metadata than is allowed', lambda d: None, limit, ['raise --max-metadata-bytes']


@check('boot-hostile')
def hostile_bundles():
    """Each has its own error, and nothing is launched."""
    said = {}
    with scratch() as tmp:
        env, mark = no_engine(tmp)
        for name, spoil, args, words in hostile():
            directory = os.path.join(tmp, 'bundle')
            shutil.rmtree(directory, ignore_errors=True)
            call('cp', '-a', '--sparse=always', os.path.join(bundles(), 'hello'), directory)
            spoil(directory)
            p = boot(os.path.join(directory, 'bundle.vmdk'), '--engine', 'qemu', *args, ok=range(256), env=env)
            need(p.returncode == 125, '%s: exit %d: %s' % (name, p.returncode, p.stderr))
            need(all(w in p.stderr for w in words), '%s: the error does not say %s: %s' % (name, words, p.stderr))
            need(not os.path.exists(mark), name + ': something was launched')
            said[name] = p.stderr
        # The trap itself: an unspoiled bundle does launch it.
        boot(os.path.join(bundles(), 'hello'), '--engine', 'qemu', ok=(125,), env=env)
        need(os.path.exists(mark), 'an unspoiled bundle launches nothing')
    return '%d cases' % len(said)


@check('boot-swapped')
def swapped():
    """Files that are swapped once they were checked: the machine has those that were checked."""
    with scratch() as tmp:
        directory = os.path.join(tmp, 'bundle')
        call('cp', '-a', '--sparse=always', os.path.join(bundles(), 'hello'), directory)
        path = bundle.extents(directory)[1][0]
        expected = call('sha256sum', path).stdout.split()[0]
        # The engine's process has started when this runs, and opens its disk only now.
        swap = (
            'mv %s.other %s; for a; do case $a in *format=vmdk*) d=${a#*file=}; d=${d%%%%,*};; esac; done\n'
            'sed -n "s/^RW .*FLAT \\"\\(.*\\)\\" 0/\\1/p" $d | sed -n 2p | xargs sha256sum >%s/sum' % (path, path, tmp)
        )
        with open(path + '.other', 'wb') as other:
            other.write(bytes(os.path.getsize(path)))
        env, _ = no_engine(tmp, swap)
        boot(directory, '--engine', 'qemu', ok=(125,), env=env)
        with open(os.path.join(tmp, 'sum')) as file:
            found = file.read().split()[0]
        need(found == expected, 'the machine would have read what was swapped in')
        need(call('sha256sum', path).stdout.split()[0] != expected, 'nothing was swapped')


@check('boot-engine-says')
def engine_says():
    """What an engine that cannot start says itself is shown, to its last line, however late it is read."""
    with scratch() as tmp:
        env, _ = no_engine(
            tmp,
            'for i in $(seq 2000); do echo "line $i" >&2; done\necho "qemu: cannot set up guest memory" >&2\nexit 1',
        )
        p = boot(os.path.join(bundles(), 'hello'), '--engine', 'qemu', ok=(125,), env=env)
        need(
            'did not come up' in p.stderr and p.stderr.endswith('line 2000\n    qemu: cannot set up guest memory\n'),
            p.stderr,
        )


@check('boot-dry-run')
def dry_run():
    """The manifest's defaults travel in the bundle, options win over them, and nothing is started."""
    with scratch() as tmp:
        env, mark = no_engine(tmp)
        m = manifest_for(os.path.join(tmp, 'm.yaml'), 'oci:%s/testimages/hello:latest' % TOP)
        with open(m, 'a') as file:
            file.write(
                'boot:\n  cpus: 3\n  memory: 768MiB\n  env: { A: manifest, B: manifest }\n  user: "42:43"\n'
                '  command: [manifest]\n'
                '  hostname: from-manifest\n  tmpfs: ["/srv:1MiB"]\n  timeout: 50\n  workdir: /srv\n'
            )
        out = os.path.join(tmp, 'bundle')
        build(m, out)
        plan = lambda *args: json.loads(boot(out, '--engine', 'qemu', '--dry-run', *args, env=env).stdout)
        p = plan()
        need((p['cpus'], p['memory_mib'], p['timeout_seconds']) == (3, 768, 50), str(p))
        c = p['command']
        need(
            c['argv'] == ['/bin/sh', '/lib/app/hello', 'manifest'] and c['user'] == '42:43' and c['workdir'] == '/srv',
            str(c),
        )
        need(c['hostname'] == 'from-manifest' and {'A=manifest', 'B=manifest', 'LANG=C.UTF-8'} <= set(c['env']), str(c))
        need(c['stop_signal'] == 2 and p['image_volumes'] == ['/data'], str(p))
        need([t['path'] for t in p['tmpfs']] == ['/tmp', '/run', '/dev/shm', '/srv'], str(p['tmpfs']))
        p = plan(
            '--cpus', '1', '-e', 'B=option', '--user', 'hello', '--timeout', '1.5', '--tmpfs', 'none', '--', 'option'
        )
        c = p['command']
        need((p['cpus'], p['timeout_seconds'], p['tmpfs']) == (1, 1.5, []), str(p))
        need(c['argv'][-1] == 'option' and c['user'] == 'hello' and {'A=manifest', 'B=option'} <= set(c['env']), str(c))
        c = plan('--entrypoint', '/bin/ls', '--', '-l')['command']
        need(c['argv'] == ['/bin/ls', '-l'], str(c))
        # Behind the bundle stands a command; no option of its own is taken for one of rootfs-boot's.
        for words in (['echo', '-n', '--timeout', '5'], ['a', '--', '-m', 'x'], ['--', '-m', 'x']):
            q = plan(*words)
            need(
                q['command']['argv'][2:] == [w for i, w in enumerate(words) if i or w != '--']
                and q['timeout_seconds'] == 50,
                '%s: %s' % (words, q),
            )
        # docker's sizes, Go's durations, and the machine's own file of names.
        q = plan(
            '-m',
            '1.5g',
            '--timeout',
            '1m30s',
            '--tmpfs',
            '/a:size=64k',
            '--stop-signal',
            'USR1',
            '--add-host',
            'a:1.2.3.4',
            '--dns',
            '::1',
        )
        need((q['memory_mib'], q['timeout_seconds'], q['tmpfs'][-1]['bytes']) == (1536, 90, 65536), str(q))
        need(
            (q['command']['stop_signal'], q['command']['add_host'], q['command']['dns'])
            == (10, ['a:1.2.3.4'], ['::1']),
            str(q),
        )
        for size, mib in (
            ('512m', 512),
            ('80M', 80),
            ('2G', 2048),
            ('1048576k', 1024),
            ('536870912', 512),
            ('536870912b', 512),
            ('1GiB', 1024),
            ('1gb', 1024),
        ):
            need(plan('--memory', size)['memory_mib'] == mib, size)
        # The bundle is its directory, however that is named, or its descriptor.
        for name, cwd in (
            (out + '/', '/'),
            ('.', out),
            ('bundle', tmp),
            ('bundle/bundle.vmdk', tmp),
            ('bundle.vmdk', out),
        ):
            q = json.loads(boot(name, '--engine', 'qemu', '--dry-run', env=env, cwd=cwd).stdout)
            need(q['memory_mib'] == 768, str(q))
        disks = p['disks']['rootfs']
        need(
            [(os.path.basename(d['path']), d['bytes']) for d in disks]
            == [(os.path.basename(path), size) for path, size in bundle.extents(out)],
            str(disks),
        )
        need(not os.path.exists(mark), '--dry-run launched something')


@check('boot-usage')
def usage():
    """What makes no sense is said before anything is looked at."""
    here = os.path.join(bundles(), 'hello')
    for args, words in (
        (['--tmpfs', 'x'], '/PATH'),
        (['--publish', '80:'], 'HOST:GUEST'),
        (['--volume', '/a'], 'HOST:GUEST'),
        (['--volume', '/nosuch:/a'], '/nosuch'),
        (['--memory', '1MiB'], '80 MiB'),
        (['--memory', '1x'], 'is not a size'),
        (['--add-host', 'x'], 'NAME:IP'),
        (['--dns', 'x'], 'IP address'),
        (['--stop-signal', 'SIGNOPE'], 'is not a signal'),
        (['--read-only', '--ephemeral'], 'cannot be used with'),
        (['--cpus', '0'], 'cpus'),
        (['--timeout', '0'], 'seconds'),
        (['--timeout', '1e30'], 'seconds'),
        (['--hostname', 'a b'], 'host name'),
        (['--read-only', '--upper', 'x'], 'cannot be used with'),
        (['--engine', 'xen'], 'libkrun'),
        (['--krunfw', '/nosuch'], 'libkrunfw'),
        (['--workdir', 'rel'], 'not absolute'),
        (['--upper', '/dev/null'], 'not a regular file'),
        (['--entrypoint', ''], 'no entrypoint'),
        (['-e', '=x'], 'the name of a variable'),
    ):
        engine = [] if '--engine' in args else ['--engine', 'qemu']
        p = boot(here, *engine, *args, ok=range(256))
        need(
            p.returncode == 125 and words in p.stderr,
            '%s: exit %d, without %r: %s' % (args, p.returncode, words, p.stderr),
        )
    with scratch() as tmp:
        p = boot(os.path.join(tmp, 'none'), ok=(125,))
        need('No such file' in p.stderr, p.stderr)
        precious = os.path.join(tmp, 'precious')
        with open(precious, 'w') as file:
            file.write('x' * 10000)
        p = boot(here, '--engine', 'qemu', '--upper', precious, ok=(125,))
        need('it stays as it is' in p.stderr and os.path.getsize(precious) == 10000, p.stderr)
        with open(precious, 'wb') as file:  # like an ISO, which begins with zeros
            file.write(bytes(32768) + b'\1CD001')
        p = boot(here, '--engine', 'qemu', '--upper', precious, ok=(125,))
        need('it stays as it is' in p.stderr and os.path.getsize(precious) == 32774, p.stderr)
        p = boot(here, '--engine', 'qemu', '--upper', os.path.join(here, 'upper.ext4'), ok=(125,))
        need("the bundle's own" in p.stderr, p.stderr)
        p = boot(here, '--engine', 'qemu', '--krunfw', '/nosuch', ok=(125,))
        need(
            all(w in p.stderr for w in ('Fedora', 'Debian', 'Homebrew', 'PyPI')),
            'the error does not say where libkrunfw is to be had: ' + p.stderr,
        )
