"""Tar entries, byte by byte.

Python's tarfile cannot write most of what layers hold in the wild (v7 headers, raw xattr records, old GNU sparse files, numbers
past their field), so the headers are put together here. Every function returns the bytes of one entry: its extended headers, its
own header, its data and the padding.
"""
import base64
import posixpath
import struct
import urllib.parse

T0 = 1_700_000_000          # what entries have for a time unless they say otherwise
BLOCK = 512
END = bytes(2 * BLOCK)      # the two zero blocks at the end of an archive

USTAR, GNU, V7 = b'ustar\x0000', b'ustar  \x00', bytes(8)


def raw(s):
    """A name as bytes: str goes in as UTF-8, with surrogates for the bytes that are none."""
    return s if isinstance(s, bytes) else s.encode('utf-8', 'surrogateescape')


def pad(data):
    return data + bytes(-len(data) % BLOCK)


def base256(value, width):
    """GNU's and star's binary number: top bit set, two's complement."""
    if value < 0:
        return (value + (1 << (8 * width))).to_bytes(width, 'big')
    return (value | 1 << (8 * width - 1)).to_bytes(width, 'big')


def number(value, width):
    if isinstance(value, bytes):                # a case that wants odd digits gives them
        return value.ljust(width, b'\0')
    if 0 <= value < 8 ** (width - 1):
        return b'%0*o\0' % (width - 1, value)
    return base256(value, width)


def text(value, width):
    value = raw(value)
    assert len(value) <= width, 'does not fit its header field: %r' % value
    return value.ljust(width, b'\0')


def header(name, kind, size=0, mode=0o644, uid=0, gid=0, mtime=T0, link=b'', magic=USTAR, dev=(0, 0), prefix=b'', tail=None):
    h = text(name, 100) + number(mode, 8) + number(uid, 8) + number(gid, 8) + number(size, 12) + number(mtime, 12)
    h += b' ' * 8 + kind + text(link, 100) + magic
    if magic != V7:
        h += text('root', 32) + text('root', 32) + number(dev[0], 8) + number(dev[1], 8)
        h += text(prefix, 155) if tail is None else tail
    h = h.ljust(BLOCK, b'\0')
    assert len(h) == BLOCK
    return h[:148] + b'%06o\0 ' % sum(h) + h[156:]


def pax_record(key, value):
    body = b' ' + raw(key) + b'=' + raw(value) + b'\n'
    n = len(body)
    while len(b'%d' % n) + len(body) != n:      # the length counts its own digits
        n = len(b'%d' % n) + len(body)
    return b'%d' % n + body


def pax(records, kind=b'x', name='PaxHeaders.0/entry'):
    """An extended header; `records` is a dict, or a list of pairs where order or repetition matters."""
    body = b''.join(pax_record(k, v) for k, v in (records.items() if isinstance(records, dict) else records))
    return header(name, kind, len(body)) + pad(body)


def gnu_long(kind, value):
    """GNU's 'L' (name) and 'K' (link target) entries; their data ends in a NUL."""
    body = raw(value) + b'\0'
    return header('././@LongLink', kind, len(body), mtime=0, magic=GNU) + pad(body)


def entry(name, kind, data=b'', mtime=T0, xattrs=None, records=None, size=None, **fields):
    """One entry. `mtime` as a string and `xattrs` become PAX records, as tools write them."""
    data = raw(data)
    recs = list(records.items() if isinstance(records, dict) else records or [])
    if isinstance(mtime, str):
        recs.append(('mtime', mtime))
        mtime = max(0, int(float(mtime)))
        mtime = min(mtime, 8 ** 11 - 1)
    recs += [('SCHILY.xattr.' + k, v) for k, v in (xattrs or {}).items()]
    h = header(name, kind, len(data) if size is None else size, mtime=mtime, **fields)
    return (pax(recs) if recs else b'') + h + pad(data)


def f(name, data='', **kw):
    return entry(name, b'0', data, **kw)


def d(name, **kw):
    kw.setdefault('mode', 0o755)
    return entry(name if raw(name).endswith(b'/') else raw(name) + b'/', b'5', **kw)


def sym(name, target, **kw):
    kw.setdefault('mode', 0o777)
    return entry(name, b'2', link=target, **kw)


def hard(name, target, **kw):
    return entry(name, b'1', link=target, **kw)


def chardev(name, major, minor, **kw):
    return entry(name, b'3', dev=(major, minor), **kw)


def blockdev(name, major, minor, **kw):
    return entry(name, b'4', dev=(major, minor), **kw)


def fifo(name, **kw):
    return entry(name, b'6', **kw)


def wh(path, make=f, **kw):
    """A whiteout of `path`; `make` picks another tar type for it."""
    head, tail = posixpath.split(raw(path))
    return make(posixpath.join(head, b'.wh.' + tail), **kw)


def opq(directory=''):
    return f(posixpath.join(raw(directory), b'.wh..wh..opq'))


def long_name(name, make, *args, **kw):
    """The entry under a GNU long name."""
    return gnu_long(b'L', name) + make('truncated', *args, magic=GNU, **kw)


def libarchive_xattr(name, value):
    """bsdtar's record: the name is URL-encoded, the value base64 without padding."""
    return ('LIBARCHIVE.xattr.' + urllib.parse.quote(name, safe='._'), base64.b64encode(value).rstrip(b'='))


def acl(*entries):
    """A POSIX ACL as the kernel stores it: (tag, permissions, id) each, in the order given."""
    tags = {'user::': 1, 'user': 2, 'group::': 4, 'group': 8, 'mask': 16, 'other': 32}
    return struct.pack('<I', 2) + b''.join(struct.pack('<HHI', tags[t], p, 0xffffffff if i is None else i) for t, p, i in entries)


def sparse_bytes(segments, size):
    out = bytearray(size)
    for at, data in segments:
        out[at:at + len(data)] = data
    return bytes(out)


def _map(segments, size):
    """(offset, length) pairs; GNU tar closes the map with an empty segment where the file ends in a hole."""
    pairs = [(at, len(data)) for at, data in segments]
    if not pairs or sum(pairs[-1]) < size:
        pairs.append((size, 0))
    return pairs


def gnu_sparse(name, segments, size, **kw):
    """Old GNU format: type 'S', four segments in the header, 21 in each continuation header."""
    pairs = _map(segments, size)
    slot = lambda pair: number(pair[0], 12) + number(pair[1], 12)
    stored = b''.join(data for _, data in segments)
    first, rest = pairs[:4], pairs[4:]
    tail = bytes(41) + b''.join(map(slot, first)).ljust(96, b'\0') + (b'\1' if rest else b'\0') + number(size, 12)
    out = header(name, b'S', len(stored), magic=GNU, tail=tail, **kw)
    while rest:
        some, rest = rest[:21], rest[21:]
        out += (b''.join(map(slot, some)).ljust(504, b'\0') + (b'\1' if rest else b'\0')).ljust(BLOCK, b'\0')
    return out + pad(stored)


def pax_sparse(version, name, segments, size, **kw):
    """PAX sparse files as GNU tar has written them over the years: 0.0, 0.1 and 1.0."""
    pairs = _map(segments, size)
    stored = b''.join(data for _, data in segments)
    fake = posixpath.join('GNUSparseFile.0', posixpath.basename(name))
    if version == '0.0':
        recs = [('GNU.sparse.size', str(size)), ('GNU.sparse.numblocks', str(len(pairs)))]
        for at, n in pairs:
            recs += [('GNU.sparse.offset', str(at)), ('GNU.sparse.numbytes', str(n))]
        return pax(recs) + entry(name, b'0', stored, **kw)
    if version == '0.1':
        recs = [('GNU.sparse.size', str(size)), ('GNU.sparse.numblocks', str(len(pairs))), ('GNU.sparse.name', name),
                ('GNU.sparse.map', ','.join('%d,%d' % p for p in pairs))]
        return pax(recs) + entry(fake, b'0', stored, **kw)
    recs = [('GNU.sparse.major', '1'), ('GNU.sparse.minor', '0'), ('GNU.sparse.name', name), ('GNU.sparse.realsize', str(size))]
    table = '\n'.join([str(len(pairs))] + ['%d\n%d' % p for p in pairs]) + '\n'
    return pax(recs) + entry(fake, b'0', pad(table.encode()) + stored, **kw)
