"""The disk of a bundle, as the kernel sees it.

python3 -m harness.bundle extents BUNDLE            the files of the disk in order, with their sectors, as bundle.vmdk
names them python3 -m harness.bundle concat BUNDLE RAW         the disk as one sparse file python3 -m harness.bundle
mount BUNDLE [EXPECTED]   mounts it (root), compares it with a reading (see compare.py) or prints how many paths it has
"""

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile

from harness import compare
from model import blake3

SEAL = re.compile(rb'(\n  "seal": ")[^"]*')
EXTENT = re.compile(r'^(\w+) (\d+) (\w+) "([^"]*)"(?: (\d+))?$')


def extents(bundle):
    """(path, bytes) of each extent. The descriptor is taken at its word,
    and at the narrow grammar the project allows itself."""
    out = []
    with open(os.path.join(bundle, 'bundle.vmdk')) as file:
        for line in file.read().splitlines():
            if not re.match(r'^(RW|RDONLY|NOACCESS)\b', line):
                continue
            m = EXTENT.match(line)
            if not m or m[1] != 'RW' or m[3] != 'FLAT' or m[5] != '0':
                raise ValueError('not of the form RW n FLAT "name" 0: ' + line)
            if os.path.isabs(m[4]) or '..' in m[4].split('/'):
                raise ValueError('the extent is not inside the bundle: ' + line)
            path, size = os.path.join(bundle, m[4]), int(m[2]) * 512
            if os.path.getsize(path) != size:
                raise ValueError('%s has %d bytes, its extent %d' % (m[4], os.path.getsize(path), size))
            out.append((path, size))
    if not out or os.path.basename(out[0][0]) != 'fsmeta.erofs':
        raise ValueError('the first extent is not fsmeta.erofs')
    return out


def concat(bundle, raw):
    with open(raw, 'wb') as out:
        for path, _size in extents(bundle):
            with open(path, 'rb') as file:
                while chunk := file.read(1 << 20):
                    if chunk.count(0) == len(
                        chunk
                    ):  # leave a hole; large images are mostly copied, never twice on disk
                        out.seek(len(chunk), os.SEEK_CUR)
                    else:
                        out.write(chunk)
        out.truncate(sum(size for _, size in extents(bundle)))


def written(index):
    """The bytes of an index as the compiler writes them."""
    return (json.dumps(index, indent=2, ensure_ascii=False) + '\n').encode()


def sealed(text):
    """An index, as bytes, with its seal made right: a hash of the index whose seal is empty."""
    empty = SEAL.sub(rb'\1', text, count=1)
    return SEAL.sub(lambda m: m[1] + b'blake3:' + blake3.hexdigest(empty).encode(), empty, count=1)


def run(*cmd):
    p = subprocess.run(cmd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if p.returncode:
        raise OSError('%s: exit %d: %s' % (' '.join(cmd), p.returncode, p.stdout.strip()))
    return p.stdout


@contextlib.contextmanager
def mounted(what, kind='erofs', options='ro,loop'):
    """Mounts `what` on a directory of its own for as long as the context lasts."""
    with tempfile.TemporaryDirectory(prefix='mnt.', dir=os.environ.get('WORK')) as at:
        run('mount', '-t', kind, '-o', options, what, at)
        try:
            yield at
        finally:
            run('umount', at)


@contextlib.contextmanager
def disk_of(bundle):
    """The mounted disk of a bundle."""
    with tempfile.TemporaryDirectory(prefix='disk.', dir=os.environ.get('WORK')) as tmp:
        raw = os.path.join(tmp, 'disk.raw')
        concat(bundle, raw)
        with mounted(raw) as at:
            yield at


def main():
    ap = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    ap.add_argument('what', choices=('extents', 'concat', 'mount'))
    ap.add_argument('bundle')
    ap.add_argument('other', nargs='?')
    a = ap.parse_args()
    if a.what == 'extents':
        for path, size in extents(a.bundle):
            print(size // 512, os.path.relpath(path, a.bundle))
        return 0
    if a.what == 'concat':
        concat(a.bundle, a.other)
        return 0
    with disk_of(a.bundle) as at:
        found = compare.read(at)
    if a.other is None:
        print('%d paths' % len(found))
        return 0
    text = compare.show(compare.load(a.other), found)
    print(text or '%d paths, no difference' % len(found))
    return 1 if text else 0


if __name__ == '__main__':
    sys.exit(main())
