"""What was measured on, and with what."""
import os
import re
import subprocess


def first(text, pattern, default='unknown'):
    found = re.search(pattern, text, re.M)
    return found.group(1).strip() if found else default


def said(*command):
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace')
    except OSError:
        return ''
    return done.stdout


def describe(work):
    with open('/proc/cpuinfo') as file:
        cpu = first(file.read(), r'^model name\s*:\s*(.*)$')
    with open('/proc/meminfo') as file:
        memory = int(first(file.read(), r'^MemTotal:\s*(\d+)', '0'))
    return {
        'CPU': cpu,
        'cores': str(os.cpu_count()),
        'memory': '%.0f GiB' % (memory / (1 << 20)),
        'kernel': ' '.join([os.uname().sysname, os.uname().release, os.uname().machine]),
        'file system': said('findmnt', '-no', 'FSTYPE', '-T', work).strip() or 'unknown',
        'load average at the start': '%.1f' % os.getloadavg()[0],
    }


def versions(peers):
    number = r'(\d+\.\d+[\w.+-]*)'
    known = {
        'rootfs-compile': said('git', 'describe', '--always', '--dirty').strip() or 'unknown',
        'rustc': first(said('rustc', '--version'), number),
        'mkfs.erofs': peers.mkfs_erofs and first(said(peers.mkfs_erofs, '--version'), number),
        'umoci': peers.umoci and first(said(peers.umoci, '--version'), number),
        'msb': peers.msb and first(said(peers.msb, '--version'), number),
        'mke2fs': peers.mke2fs and first(said(peers.mke2fs, '-V'), number),
    }
    return {name: version or 'not here' for name, version in known.items()}
