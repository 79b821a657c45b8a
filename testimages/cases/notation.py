"""The notation in which a case writes down what must come out.

A tree maps each path to one of F, D, S, C, B, P, with the attributes that differ from what entries have by default; I is a
directory that no layer has an entry for, H another name of the path it gives. Nothing here looks at a tar or at a bundle.
"""
import hashlib
import posixpath

from tarfmt import T0, raw

NS = 1_000_000_000


def escape(b):
    """Bytes as JSON can hold them: all but printable ASCII, and '%', as %XX."""
    return ''.join(chr(c) if 0x20 <= c < 0x7f and c != 0x25 else '%%%02X' % c for c in raw(b))


def _node(kind, mode, uid, gid, mtime, ns, xattrs, **more):
    x = {escape(k): raw(v).hex() for k, v in (xattrs or {}).items()}
    return {'type': kind, 'mode': mode, 'uid': uid, 'gid': gid, 'mtime': mtime * NS + ns, 'xattrs': x, **more}


def F(data='', mode=0o644, uid=0, gid=0, mtime=T0, ns=0, xattrs=None):
    data = raw(data)
    return _node('file', mode, uid, gid, mtime, ns, xattrs, size=len(data), sha256=hashlib.sha256(data).hexdigest())


def Big(size, sha256, mode=0o644, uid=0, gid=0, mtime=T0, ns=0, xattrs=None):
    return _node('file', mode, uid, gid, mtime, ns, xattrs, size=size, sha256=sha256)


def D(mode=0o755, uid=0, gid=0, mtime=T0, ns=0, xattrs=None):
    return _node('dir', mode, uid, gid, mtime, ns, xattrs)


I = _node('dir', 0o755, 0, 0, 0, 0, None)


def S(target, uid=0, gid=0, mtime=T0, ns=0, xattrs=None):
    return _node('symlink', 0o777, uid, gid, mtime, ns, xattrs, target=escape(target))


def C(major, minor, mode=0o644, uid=0, gid=0, mtime=T0, ns=0, xattrs=None):
    return _node('char', mode, uid, gid, mtime, ns, xattrs, rdev=[major, minor])


def B(major, minor, mode=0o644, uid=0, gid=0, mtime=T0, ns=0, xattrs=None):
    return _node('block', mode, uid, gid, mtime, ns, xattrs, rdev=[major, minor])


def P(mode=0o644, uid=0, gid=0, mtime=T0, ns=0, xattrs=None):
    return _node('fifo', mode, uid, gid, mtime, ns, xattrs)


def H(path):
    return {'same_inode_as': path}


def finish(tree):
    """The full expectation: hard links resolved, link counts set, and the root there (implied, unless the case has one)."""
    tree = {raw(p): n for p, n in tree.items()}
    tree.setdefault(b'/', I)
    groups = {}
    for path, node in tree.items():
        groups.setdefault(raw(node.get('same_inode_as', path)), []).append(path)
    subdirs = {}
    for path, node in tree.items():
        if node.get('type') == 'dir' and path != b'/':
            parent = posixpath.dirname(path)
            subdirs[parent] = subdirs.get(parent, 0) + 1
    out = {}
    for first, paths in groups.items():
        node = tree[first]
        for path in paths:
            assert path == b'/' or posixpath.dirname(path) in tree, '%r has no parent in its expectation' % path
            n = dict(node)
            n['nlink'] = 2 + subdirs.get(path, 0) if n['type'] == 'dir' else len(paths)
            if len(paths) > 1:
                n['inode'] = escape(min(paths))
            out[escape(path)] = n
    return dict(sorted(out.items()))
