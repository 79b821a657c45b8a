"""Cases of size: too slow for every run, written as they are read."""
import hashlib

from layout import Layer, StreamedLayer
from notation import Big, D, F, H, I
from registry import case
from tarfmt import END, d, f, hard, header, wh

SCALE = {}


def scale(*args, **kw):
    case(*args, into=SCALE, **kw)


def of_layers(n):
    layers = [[f('layer-%03d' % i, str(i)), f('same', str(i)), d('dir'), f('dir/%03d' % (i % 50), str(i))] for i in range(n)]
    tree = {'/same': F(str(n - 1)), '/dir': D()}
    for i in range(n):
        tree['/layer-%03d' % i] = tree['/dir/%03d' % (i % 50)] = F(str(i))
    return layers, tree


for count in (128, 500):
    many, shown = of_layers(count)
    scale('layers-%d' % count, 4, *many, tree=shown)

scale('directory-100000', 15, [d('d')] + [f('d/entry-%06d' % i) for i in range(100_000)],
      tree=lambda: {'/d': D(), **{'/d/entry-%06d' % i: F() for i in range(100_000)}})
scale('directory-names-255', 15, [d('d')] + [f('cut', records={'path': 'd/%05d' % i + 'n' * 250}) for i in range(5000)],
      tree=lambda: {'/d': D(), **{'/d/%05d' % i + 'n' * 250: F() for i in range(5000)}})
scale('subdirectories-70000', 15, [d('d')] + [d('d/%05d' % i) for i in range(70_000)],
      tree=lambda: {'/d': D(), **{'/d/%05d' % i: D() for i in range(70_000)}}, about='more links than 16 bits count')
scale('links-70000', 8, [f('f', 'x')] + [hard('l%05d' % i, 'f') for i in range(70_000)],
      tree=lambda: {'/f': F('x'), **{'/l%05d' % i: H('/f') for i in range(70_000)}})
scale('link-chain-5000-backwards', 8, [hard('l%05d' % i, 'l%05d' % (i + 1)) for i in range(5000)] + [f('l05000', 'x')],
      tree=lambda: {'/l05000': F('x'), **{'/l%05d' % i: H('/l05000') for i in range(5000)}})

FILES = 60_000
PATHS = ['d%03d/e%d/f%05d' % (i // 120, i % 10, i) for i in range(FILES)]


def files():
    return [f(p, str(i)) for i, p in enumerate(PATHS)]


def with_parents(paths, node=lambda i: F(str(i))):
    """The tree of files that only imply their directories."""
    tree = {}
    for i, p in paths:
        a, b, _ = p.split('/')
        tree['/' + a] = tree['/%s/%s' % (a, b)] = I
        tree['/' + p] = node(i)
    return tree


def after_whiteouts():
    tree = with_parents(enumerate(PATHS))               # the directories stay, empty or not
    for p in PATHS[::3]:
        del tree['/' + p]
    return tree


def after_new_dirs():
    tree = with_parents(enumerate(PATHS))
    for i in range(12_000):
        tree['/d%03d/new%05d' % (i % 500, i)] = D()
        tree['/d%03d/new%05d/x' % (i % 500, i)] = F('n')
    return tree


scale('files-60000-whiteouts-20000', 2, files(), [wh(p) for p in PATHS[::3]], tree=after_whiteouts)
scale('files-60000-dirs-12000', 5, files(),
      [d('d%03d/new%05d' % (i % 500, i)) + f('d%03d/new%05d/x' % (i % 500, i), 'n') for i in range(12_000)], tree=after_new_dirs)

# The format's own limits. A value has 16 bits of length; all xattrs of an inode have 12 + 4 * 65534 bytes.
scale('xattr-65535', 11, [f('a', xattrs={'user.k': b'v' * 65535})], tree={'/a': F(xattrs={'user.k': b'v' * 65535})})
scale('xattr-65536', 11, [f('the-file', xattrs={'user.k': b'v' * 65536})], says=['the-file', 'user.k'])
scale('xattr-area', 11, [f('a', xattrs={'user.k%d' % i: b'v' * 65000 for i in range(4)})],
      tree={'/a': F(xattrs={'user.k%d' % i: b'v' * 65000 for i in range(4)})}, args=['--max-xattr-bytes', '1000000'],
      about='260,000 bytes: listxattr and getxattr still give each of them')
scale('xattr-area-past', 11, [f('the-file', xattrs={'user.k%d' % i: b'v%d' % i + b'v' * 65000 for i in range(5)})],
      args=['--max-xattr-bytes', '1000000'], says=['the-file'])

SIZE = (4 << 30) + 4097


def large_file():
    yield header('large', b'0', SIZE)
    piece = bytes(1 << 20)
    yield b'begin' + piece[5:]
    for _ in range((4 << 10) - 1):
        yield piece
    yield b'x' * 4097
    yield bytes(-SIZE % 512) + END


def large_sha256():
    h, it = hashlib.sha256(), large_file()
    next(it)
    for _ in range(4 << 10):
        h.update(next(it))
    h.update(next(it))
    return h.hexdigest()


scale('file-4gib', 18, StreamedLayer(large_file()), tree=lambda: {'/large': Big(SIZE, large_sha256())})

DEEP = ['d'] * 1000
scale('depth-1000', 18, [f('cut', '1', records={'path': '/'.join(DEEP) + '/x'})], args=['--max-depth', '2000'],
      tree=lambda: {**{'/' + '/'.join(DEEP[:i + 1]): I for i in range(1000)}, '/' + '/'.join(DEEP) + '/x': F('1')})
LONGEST = '/'.join(['p' * 99] * 40) + '/' + 'q' * 94       # 4094 bytes, and the reader's "/" before it
scale('path-longest', 18, [f('cut', '1', records={'path': LONGEST})],
      tree=lambda: {**{'/' + '/'.join(['p' * 99] * (i + 1)): I for i in range(40)}, '/' + LONGEST: F('1')})
scale('empty-files-30000', 14, [f('d/%05d' % i) for i in range(30_000)], fits_in=8 << 20,
      tree=lambda: {'/d': I, **{'/d/%05d' % i: F() for i in range(30_000)}})
