"""Reads directory trees as root, and compares two readings.

    python3 -m harness.compare read DIR [-o FILE]       one JSON object: every path with all that the kernel tells of it
    python3 -m harness.compare diff EXPECTED FOUND      each is such a file, the expect.json of a case, or a directory

diff prints a line per difference and exits 1 if there is one. Paths, targets and xattr names are bytes; in JSON all but
printable ASCII, and "%", are written as %XX.
"""

import argparse
import hashlib
import json
import os
import stat
import sys

KINDS = {
    stat.S_IFREG: 'file',
    stat.S_IFDIR: 'dir',
    stat.S_IFLNK: 'symlink',
    stat.S_IFCHR: 'char',
    stat.S_IFBLK: 'block',
    stat.S_IFIFO: 'fifo',
    stat.S_IFSOCK: 'socket',
}
FIELDS = ('type', 'mode', 'uid', 'gid', 'rdev', 'size', 'sha256', 'target', 'nlink', 'inode', 'mtime')


def escape(b):
    return ''.join(chr(c) if 0x20 <= c < 0x7F and c != 0x25 else '%%%02X' % c for c in b)


def xattrs_of(path):
    """All xattrs. A name that is listed must also be readable, so errors are not caught."""
    out = {}
    for name in os.listxattr(path, follow_symlinks=False):
        out[escape(os.fsencode(name))] = os.getxattr(path, name, follow_symlinks=False).hex()
    return out


def content_of(path):
    h, n = hashlib.sha256(), 0
    with open(path, 'rb') as file:
        while chunk := file.read(1 << 20):
            h.update(chunk)
            n += len(chunk)
    return n, h.hexdigest()


def read(root):
    """Every path below `root`, which itself is '/'.
    The walk goes by file descriptors, as a path may be longer than PATH_MAX."""
    entries, groups, inodes = {}, {}, {}

    def visit(at, name, path):
        """Reads `name` in the current directory."""
        st = os.lstat(name)
        kind = KINDS[stat.S_IFMT(st.st_mode)]
        e = {
            'type': kind,
            'mode': stat.S_IMODE(st.st_mode),
            'uid': st.st_uid,
            'gid': st.st_gid,
            'mtime': st.st_mtime_ns,
            'nlink': st.st_nlink,
            'xattrs': xattrs_of(name),
        }
        key = escape(path)
        ino = st.st_dev, st.st_ino  # on an overlay, files of both layers may have the same number
        if kind == 'file':
            if st.st_nlink > 1 and ino in inodes:
                first = entries[inodes[ino]]
                e['size'], e['sha256'] = first['size'], first['sha256']
            else:
                n, e['sha256'] = content_of(name)
                e['size'] = st.st_size
                if n != st.st_size:
                    raise OSError('%s: %d bytes read of %d' % (key, n, st.st_size))
        elif kind == 'symlink':
            e['target'] = escape(os.readlink(name))
            if len(os.readlink(name)) != st.st_size:
                raise OSError('%s: the size of the symlink is not the length of its target' % key)
        elif kind in ('char', 'block'):
            e['rdev'] = [os.major(st.st_rdev), os.minor(st.st_rdev)]
        if kind != 'dir' and st.st_nlink > 1:
            inodes.setdefault(ino, key)
            groups.setdefault(ino, []).append((path, key))
        entries[key] = e
        return kind == 'dir' and (at is None or st.st_dev == at)

    home = os.open('.', os.O_RDONLY | os.O_DIRECTORY)
    fds = []
    try:
        device = os.stat(root).st_dev
        os.chdir(root)
        visit(device, b'.', b'/')
        # Depth first by chdir, with a list for a stack: a thousand levels are more than Python likes to recurse.
        stack = [(b'', sorted(os.listdir(b'.')), 0)]
        fds.append(os.open('.', os.O_RDONLY | os.O_DIRECTORY))
        while stack:
            path, names, i = stack.pop()
            if i == len(names):
                os.close(fds.pop())
                if fds:
                    os.fchdir(fds[-1])
                continue
            stack.append((path, names, i + 1))
            name = names[i]
            if visit(device, name, path + b'/' + name):
                fds.append(os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW))
                os.fchdir(fds[-1])
                stack.append((path + b'/' + name, sorted(os.listdir(b'.')), 0))
    finally:
        os.fchdir(home)
        for fd in [home, *fds]:
            os.close(fd)
    for paths in groups.values():
        least = escape(min(p for p, _ in paths))
        for _, key in paths:
            if len(paths) > 1:
                entries[key]['inode'] = least
    return entries


def differences(expected, found, implied_after=None, empty_xattrs_may_lack=False):
    """Yields (path, what, expected, found). The two options are for what umoci is known to do otherwise:

    implied_after: a directory whose expected time is later than this got it from the unpacking itself (it was implied,
    or entered
        through a link), which says nothing of the image.
    empty_xattrs_may_lack: an xattr without a value may be missing from what is expected."""
    for path in sorted(expected.keys() | found.keys()):
        e, f = expected.get(path), found.get(path)
        if e is None or f is None:
            yield path, 'missing' if f is None else 'extra', e and e['type'], f and f['type']
            continue
        for field in FIELDS:
            a, b = e.get(field), f.get(field)
            if field == 'mtime' and implied_after is not None and e['type'] == 'dir' and a > implied_after:
                continue
            if field == 'nlink' and e['type'] == 'dir' and f['type'] == 'dir' and 1 in (a, b):
                continue  # a file system that counts no subdirectories, or has too many to count
            if a != b:
                yield path, field, a, b
        a, b = e.get('xattrs', {}), f.get('xattrs', {})
        for name in sorted(a.keys() | b.keys()):
            if a.get(name) != b.get(name) and not (empty_xattrs_may_lack and name not in a and b[name] == ''):
                yield path, 'xattr ' + name, a.get(name), b.get(name)


def load(path):
    if os.path.isdir(path):
        return read(path)
    with open(path) as file:
        doc = json.load(file)
    return doc.get('entries', doc)


def show(expected, found, limit=40, **options):
    """The differences as text, empty where there are none."""
    short = lambda v: 'nothing' if v is None else str(v) if len(str(v)) < 80 else str(v)[:77] + '...'
    lines = [
        '%s: %s: expected %s, found %s' % (p, what, short(a), short(b))
        for p, what, a, b in differences(expected, found, **options)
    ]
    if len(lines) > limit:
        lines = [*lines[:limit], 'and %d more differences' % (len(lines) - limit)]
    return '\n'.join(lines)


def main():
    ap = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    sub = ap.add_subparsers(dest='what', required=True)
    r = sub.add_parser('read')
    r.add_argument('dir')
    r.add_argument('-o', dest='out')
    d = sub.add_parser('diff')
    d.add_argument('expected')
    d.add_argument('found')
    a = ap.parse_args()
    if a.what == 'read':
        with open(a.out, 'w') if a.out else sys.stdout as file:
            json.dump({'entries': read(a.dir)}, file, indent=1)
        return 0
    expected, found = load(a.expected), load(a.found)
    text = show(expected, found)
    print(text or '%d paths, no difference' % len(expected))
    return 1 if text else 0


if __name__ == '__main__':
    sys.exit(main())
