"""A machine with KVM, on any machine: qemu emulates an AMD processor with SVM in software, and a kernel in it offers
/dev/kvm.

    python3 -m harness.nest [--file GUEST=HOST]... [--libraries-of PATH]... [--out DIR]
                             [--timeout S] [--memory MIB] [--smp N] COMMAND

runs COMMAND in it, by busybox's sh as root in /data, which holds the files given (HOST may be a directory). What
COMMAND prints is printed, its exit code is the exit code, and what it leaves in /data/out comes to DIR. PATH is /bin,
busybox's programs. Needs qemu-system-x86_64, busybox-static, e2fsprogs, .tools/guest (ci/tools), and root where --out
is given. Times in there say nothing.
"""

import argparse
import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys
import tempfile

from harness import TOP, WORK, bundle

GUEST = os.path.join(TOP, '.tools/guest')
PATH = os.environ.get('PATH', '') + ':/usr/sbin:/sbin'
PATIENCE = 3600  # seconds after which the machine counts as hung, however busy this one is
DIMM = 128 << 20  # the kernel takes memory in sections of this size
FREE = 2 << 30  # what /data has besides the files; a hole until it is written

# Ports: 1 is what the command prints, 2 how it ended, on which a machine that dies says nothing.
INIT = r"""#!/bin/sh
export PATH=/bin HOME=/tmp TERM=dumb
fail() { echo "nest: $*" >&2; [ ! -c /dev/vport0p2 ] || echo "$*" >/dev/vport0p2; poweroff -f; }
busybox mount -t proc proc /proc
busybox --install -s /bin
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs -o mode=1777 tmpfs /tmp
ln -s /proc/self/fd /dev/fd
ln -s fd/0 /dev/stdin
ln -s fd/1 /dev/stdout
ln -s fd/2 /dev/stderr
# One that fails says so on the console, and what it should have brought is missed below.
for m in $(cat /modules/order); do insmod /modules/$m; done
ip link set lo up
# The ports and the disk come by messages that nothing waits for.
until [ -e /dev/vport0p1 ] && [ -e /dev/vport0p2 ] && { [ -e /dev/vda ] || [ -e /dev/pmem0 ]; }; do sleep 0.02; done
disk=/dev/vda; [ -e $disk ] || disk=/dev/pmem0
[ -e /dev/kvm ] || fail 'no /dev/kvm after its modules were loaded'
mount -t ext4 -o noinit_itable $disk /data || fail 'the disk of /data does not mount'
cd /data
echo "nest: command after $(cut -d' ' -f1 /proc/uptime) s" >/dev/ttyS0

# The port can be opened once only, so programs get a pipe, whose end (as /dev/stderr) can be opened again.
mkfifo /output
cat </output >/dev/vport0p1 &
printed=$!
(exec setsid sh /command </dev/null >/output 2>&1)
code=$?
# Whatever the command left running goes, all at once, so that cat sees the end of what was printed and /data is free.
kill -STOP -1
for p in /proc/[0-9]*; do case ${p#/proc/} in 1|$printed) ;; *) kill -KILL ${p#/proc/} 2>/dev/null ;; esac; done
kill -CONT $printed 2>/dev/null
wait $printed
cd /
for i in $(seq 600); do umount /data 2>/dev/null && break; sleep 0.1; done
! grep -q ' /data ' /proc/mounts || fail "exit $code, but /data is still in use"
echo "exit $code" >/dev/vport0p2
poweroff -f
"""


class NestError(Exception):
    pass


def with_libraries(path):
    """The shared libraries of a program or library, the dynamic loader among them, as ldd names them.
    None for a static one."""
    p = subprocess.run(['ldd', path], capture_output=True, text=True, errors='replace')
    if 'not found' in p.stdout:
        raise NestError(
            '%s: %s' % (path, ', '.join(line.strip() for line in p.stdout.splitlines() if 'not found' in line))
        )
    if p.returncode and 'not a dynamic executable' not in p.stdout + p.stderr:
        raise NestError('ldd %s: %s' % (path, p.stderr.strip()))
    return [m[1] for m in re.finditer(r'(?:^\s*|=> )(/\S+) \(0x', p.stdout, re.M)]


def cpio(entries):
    """A newc archive of {path: (mode, bytes)}, with the directories above each path."""
    whole = {}
    for path, entry in entries.items():
        parts = path.split('/')
        for i in range(1, len(parts)):
            whole.setdefault('/'.join(parts[:i]), (stat.S_IFDIR | 0o755, b''))
        whole[path] = entry
    whole['TRAILER!!!'] = (0, b'')
    out = []
    for ino, (path, (mode, data)) in enumerate(whole.items(), 1):
        name = path.encode() + b'\0'
        head = (
            b'070701'
            + b''.join(b'%08x' % n for n in (ino, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0))
            + name
        )
        out += [head, bytes(-len(head) % 4), data, bytes(-len(data) % 4)]
    return b''.join(out)


def need_tools():
    missing = [
        '%s (apt-get install %s)' % pair
        for pair in (
            ('qemu-system-x86_64', 'qemu-system-x86'),
            ('busybox', 'busybox-static'),
            ('mke2fs', 'e2fsprogs'),
            ('ldd', 'libc-bin'),
        )
        if not shutil.which(pair[0], path=PATH)
    ]
    missing += [
        '.tools/guest/%s (ci/tools --guest)' % name
        for name in ('vmlinuz', 'modules/order')
        if not os.path.exists(os.path.join(GUEST, name))
    ]
    if missing:
        raise NestError('missing: ' + ', '.join(missing))


def initramfs(command, libraries_of):
    read = lambda path: pathlib.Path(path).read_bytes()
    with open(os.path.join(GUEST, 'modules/order')) as file:
        order = file.read().split()
    busybox = shutil.which('busybox', path=PATH)
    if with_libraries(busybox):
        raise NestError('%s is not static: apt-get install busybox-static' % busybox)
    entries = dict.fromkeys(('data', 'dev', 'proc', 'sys', 'tmp', 'run'), (stat.S_IFDIR | 493, b''))
    entries |= {
        'init': (stat.S_IFREG | 0o755, INIT.encode()),
        'command': (stat.S_IFREG | 0o644, command.encode() + b'\n'),
        'etc/passwd': (stat.S_IFREG | 0o644, b'root:x:0:0:root:/tmp:/bin/sh\n'),
        'etc/group': (stat.S_IFREG | 0o644, b'root:x:0:\ntty:x:5:\n'),
        # The kernel starts /init by the first of these, before the applets are linked.
        'bin/busybox': (stat.S_IFREG | 0o755, read(busybox)),
        'bin/sh': (stat.S_IFLNK | 0o777, b'busybox'),
    }
    entries |= {
        'modules/' + name: (stat.S_IFREG | 0o644, read(os.path.join(GUEST, 'modules', name)))
        for name in ['order', *order]
    }
    for path in libraries_of:
        entries |= {lib.lstrip('/'): (stat.S_IFREG | 0o755, read(lib)) for lib in with_libraries(path)}
    return cpio(entries)


def make_disk(disk, files, stage):
    """An ext4 of the files. They are staged as hard links where the file system allows it,
    so nothing large is copied twice."""
    os.makedirs(os.path.join(stage, 'out'))
    os.chmod(stage, 0o755)
    for name, path in files.items():
        if not name or os.path.isabs(name) or '..' in name.split('/'):
            raise ValueError('not a path below /data: %r' % name)
        at, path = os.path.join(stage, name), os.path.realpath(path)
        os.makedirs(os.path.dirname(at), exist_ok=True)
        # Into a directory: a second of the same name, or one below it, joins what is there.
        path, at = (os.path.join(path, '.'), at + '/') if os.path.isdir(path) else (path, at)
        if at.endswith('/'):
            os.makedirs(at, exist_ok=True)
        if subprocess.run(['cp', '-alf', '--', path, at], stderr=subprocess.DEVNULL).returncode:
            bundle.run('cp', '-af', '--sparse=always', '--remove-destination', '--', path, at)
    count = used = 0
    for where, dirs, names in os.walk(stage):
        for name in dirs + names:
            count, used = count + 1, used + 8192 + os.lstat(os.path.join(where, name)).st_blocks * 512
    with open(disk, 'wb') as file:
        file.truncate(used + used // 16 + FREE)
    # No journal: nobody mounts it again but to read it.
    bundle.run(
        shutil.which('mke2fs', path=PATH),
        '-q',
        '-F',
        '-t',
        'ext4',
        '-O',
        '^has_journal',
        '-E',
        'lazy_itable_init=1',
        '-m',
        '0',
        '-N',
        str(count + 65536),
        '-d',
        stage,
        disk,
    )


def tail(path, size=6000):
    with open(path, 'rb') as file:
        file.seek(max(0, os.path.getsize(path) - size))
        return file.read().decode(errors='replace').replace('\r', '').strip()


def clock_and_disk(disk, memory, counted):
    """How qemu is to tell the time, and by what it is to show the disk of /data, which it finds as data.ext4."""
    if not counted:
        drive = 'if=none,id=data,format=raw,file=data.ext4,cache=unsafe'
        return [
            '-accel',
            'tcg,thread=multi',
            '-m',
            str(memory),
            '-drive',
            drive,
            '-device',
            'virtio-blk-pci,drive=data',
        ]
    size = (os.path.getsize(disk) + DIMM - 1) // DIMM * DIMM
    os.truncate(disk, size)
    return [
        *('-accel', 'tcg,thread=single', '-icount', 'shift=0,sleep=off'),
        *('-m', '%dM,slots=2,maxmem=64G' % memory),
        *('-object', 'memory-backend-file,id=data,share=off,mem-path=data.ext4,size=%d' % size),
        *('-device', 'nvdimm,memdev=data,unarmed=off'),
    ]


def run(command, files=None, out=None, timeout=PATIENCE, memory=3000, libraries_of=(), smp=1, counted=False):
    """Runs a shell command line in the machine; returns (exit code, what it printed).

    `files` is {path below /data: path here}; what the command leaves in /data/out comes to the directory `out`, holes
    and owners kept. The libraries of the dynamic programs `libraries_of` lie where the loader looks for them. NestError
    if the machine fails, with the end of its console. One processor is faster than two (2.9 s against 3.3 s for next to
    nothing).

    `counted`: the machine's clock counts instructions, one a nanosecond, whatever this machine does meanwhile; what
    lies in /data is then memory, for a disk's answers come when they come, and `out` must be None.
    """
    if counted and out is not None:
        raise ValueError('what a counted machine writes stays in it')
    need_tools()
    os.makedirs(WORK, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix='nest.', dir=WORK) as tmp:
        disk, initrd, output, status, serial = (
            os.path.join(tmp, n) for n in ('data.ext4', 'initramfs', 'output', 'status', 'serial')
        )
        make_disk(disk, files or {}, os.path.join(tmp, 'stage'))
        shutil.rmtree(os.path.join(tmp, 'stage'))
        for path, data in ((initrd, initramfs(command, libraries_of)), (output, b''), (status, b''), (serial, b'')):
            with open(path, 'wb') as file:
                file.write(data)
        # With SVM in use qemu 7.2 loses an interrupt now and then: its local APIC holds one, and the processor sleeps
        # on (seen in about every tenth boot of a machine inside). If it was the timer, a kernel that sets the next one
        # itself sleeps for ever. On a busy machine the kernel would panic when it checks whether its timer ticks:
        # no_timer_check. nohz=off and highres=off make the timer periodic, and each tick delivers what was lost before:
        # no hang in 96 boots. Names relative to its directory have no comma in them, which qemu would take for its own.
        qemu = [
            'qemu-system-x86_64',
            '-M',
            'pc,nvdimm=on',
            '-cpu',
            'EPYC,+svm,+npt',
            '-smp',
            str(smp),
            '-nodefaults',
            '-no-user-config',
            '-display',
            'none',
            '-no-reboot',
            '-serial',
            'file:serial',
            '-kernel',
            os.path.join(GUEST, 'vmlinuz'),
            '-initrd',
            'initramfs',
            '-append',
            'console=ttyS0 quiet panic=-1 no_timer_check nohz=off highres=off',
            # In this order: the first virtio device has the ports vport0p1 and vport0p2.
            '-device',
            'virtio-serial-pci',
            '-chardev',
            'file,id=output,path=output',
            '-device',
            'virtserialport,nr=1,chardev=output',
            '-chardev',
            'file,id=status,path=status',
            '-device',
            'virtserialport,nr=2,chardev=status',
        ]
        qemu += clock_and_disk(disk, memory, counted)
        why = 'the machine died'
        try:
            p = subprocess.run(
                qemu,
                cwd=tmp,
                timeout=timeout,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            said = p.stdout.decode(errors='replace')
        except subprocess.TimeoutExpired as e:
            why, said = 'no end after %d s' % timeout, (e.stdout or b'').decode(errors='replace')
        m = re.fullmatch('exit ([0-9]+)', tail(status))
        if not m:
            # The processor model promises what the emulation lacks, and says so each time.
            said = '\n'.join(line for line in said.splitlines() if "TCG doesn't support requested feature" not in line)
            raise NestError(
                'nest: %s\nserial: %s\nprinted: %s\nqemu: %s'
                % (tail(status) or why, tail(serial), tail(output), said[-1000:])
            )
        if out is not None:
            os.makedirs(out, exist_ok=True)
            with bundle.mounted(disk, 'ext4') as at:
                bundle.run('cp', '-a', '--', os.path.join(at, 'out', '.'), out)
        with open(output, 'rb') as file:
            return int(m[1]), file.read()


def main():
    ap = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    ap.add_argument('command')
    ap.add_argument('--file', action='append', default=[], metavar='GUEST=HOST')
    ap.add_argument('--libraries-of', action='append', default=[], metavar='PATH')
    ap.add_argument('--out', metavar='DIR')
    ap.add_argument('--timeout', type=int, default=PATIENCE, metavar='S')
    ap.add_argument('--memory', type=int, default=3000, metavar='MIB')
    ap.add_argument('--smp', type=int, default=1)
    a = ap.parse_args()
    if not all('=' in pair for pair in a.file):
        ap.error('--file wants GUEST=HOST')
    try:
        code, printed = run(
            a.command, dict(pair.split('=', 1) for pair in a.file), a.out, a.timeout, a.memory, a.libraries_of, a.smp
        )
    except (NestError, OSError, ValueError) as e:
        print(e, file=sys.stderr)
        return 125
    sys.stdout.buffer.write(printed)
    return code


if __name__ == '__main__':
    sys.exit(main())
