"""Rules 14 and 15: sparse files, and names."""
import hashlib

from layout import Layer, zstd_frame
from notation import C, Big, D, F, H, I, S
from registry import case
from tarfmt import END, GNU, V7, chardev, d, f, gnu_long, gnu_sparse, hard, header, long_name, pad, pax, pax_sparse, sparse_bytes, sym

# 14: sparse files. (offset, data) segments, and the size
KINDS = {
    'middle': ([(4096, b'A' * 4096), (40960, b'B' * 512)], 65536),
    'leading-hole': ([(1 << 20, b'end')], (1 << 20) + 3),
    'trailing-hole': ([(0, b'begin' + bytes(507))], 1 << 20),
    'only-hole': ([], 300000),
    'odd-size': ([(0, b'x' * 512), (5120, b'y' * 777)], 5897),
    'many': ([(i * 8192, b'%04d' % i * 128) for i in range(60)], 60 * 8192),      # 4 in the header, 21 in each continuation
    'four': ([(i * 8192, b'%04d' % i * 128) for i in range(4)], 3 * 8192 + 512),  # the header is just full
}
for label, (segments, size) in KINDS.items():
    tree = {'/d': D(), '/d/sparse': F(sparse_bytes(segments, size)), '/after': F('next')}
    case('sparse-gnu-' + label, 14, [d('d'), gnu_sparse('d/sparse', segments, size), f('after', 'next')], tree=tree)
    for version in ('0.0', '0.1', '1.0'):
        case('sparse-%s-%s' % (version, label), 14,
             [d('d'), pax_sparse(version, 'd/sparse', segments, size), f('after', 'next')], tree=tree)
case('sparse-holes-cost-nothing', 14, [pax_sparse('1.0', 'huge', [(1 << 30, b'x' * 512)], (1 << 30) + 512)], fits_in=1 << 20,
     tree=lambda: {'/huge': F(sparse_bytes([(1 << 30, b'x' * 512)], (1 << 30) + 512))})
case('sparse-linked', 14, [gnu_sparse('a', [(8192, b'x' * 512)], 1 << 16), hard('b', 'a')],
     tree={'/a': F(sparse_bytes([(8192, b'x' * 512)], 1 << 16)), '/b': H('/a')})
case('sparse-to-lower', 14, [pax_sparse('1.0', 'a', [(8192, b'x' * 512)], 1 << 16)], [hard('b', 'a')],
     tree={'/a': F(sparse_bytes([(8192, b'x' * 512)], 1 << 16)), '/b': H('/a')})
case('sparse-map-past-size', 14, [gnu_sparse('the-file', [(0, b'x' * 512), (1 << 20, b'y' * 512)], 4096)], says=['the-file'])
case('sparse-map-overlaps', 14, [gnu_sparse('the-file', [(0, b'x' * 1024), (512, b'y' * 512)], 8192)], says=['the-file'])
case('sparse-more-data-than-map', 14,
     [pax([('GNU.sparse.major', '1'), ('GNU.sparse.minor', '0'), ('GNU.sparse.name', 'the-file'), ('GNU.sparse.realsize', '4096')])
      + f('GNUSparseFile.0/the-file', pad(b'1\n0\nnot a number\n'))], says=['the-file'])
SPARSE = [('GNU.sparse.map', '4,1'), ('GNU.sparse.numblocks', '1')]
case('sparse-name-alone', 14, [f('a', '1', records={'GNU.sparse.name': 'b'}), d('c', records={'GNU.sparse.name': 'e', 'GNU.sparse.size': '9'})],
     tree={'/a': F('1'), '/c': D()}, about='Go: a record of a sparse file says nothing of what is none')
case('sparse-size-alone', 14, [f('a', records={'GNU.sparse.size': '10'}), f('b', '1', records={'GNU.sparse.realsize': '10'})],
     tree={'/a': F(), '/b': F('1')}, about='Go')
case('sparse-version-unknown', 14, [f('a', '1', records=[('GNU.sparse.major', '2'), ('GNU.sparse.minor', '0'), ('GNU.sparse.name', 'b'), *SPARSE])],
     tree={'/a': F('1')}, about='Go')
case('sparse-realsize-and-map', 14, [f('a', 'x', records=[('GNU.sparse.realsize', '9'), *SPARSE])], tree={'/a': F(b'\0\0\0\0x\0\0\0\0')}, about='Go')
case('sparse-of-two-sizes', 14,
     [f('a', pad(b'1\n0\n1\n') + b'z', records=[('GNU.sparse.major', '1'), ('GNU.sparse.minor', '0'), ('GNU.sparse.realsize', '5'), ('GNU.sparse.size', '7')])],
     tree={'/a': F(b'z' + bytes(6))}, about='Go')
case('sparse-name-with-slash', 14, [f('a', 'x', records=[('GNU.sparse.size', '5'), ('GNU.sparse.name', 'b/'), *SPARSE])],
     tree={'/b': F(b'\0\0\0\0x')}, about='only the name in force before it can make an old directory of it: Go')
case('sparse-without-numblocks', 14, [f('the-file', 'x', records=[('GNU.sparse.size', '5'), SPARSE[0]])], says=['the-file', 'numblocks'], about='Go')
case('sparse-more-blocks-told', 14, [f('the-file', 'x', records=[('GNU.sparse.size', '5'), SPARSE[0], ('GNU.sparse.numblocks', '2')])], says=['the-file', 'numblocks'])
case('sparse-directory', 14, [d('the-dir', records=[('GNU.sparse.size', '5'), *SPARSE])], says=['the-dir', 'sparse'], about='Go')
case('zero-blocks-are-content', 14, [f('a', bytes(100000)), f('b', bytes(4096) + b'x' + bytes(4095))],
     tree={'/a': F(bytes(100000)), '/b': F(bytes(4096) + b'x' + bytes(4095))})

# 15: names
case('name-not-utf8', 15, [f(b'latin-\xe9', '1'), f(b'\xff\xfe', '2'), sym(b'link', b'to-\xe9'), hard(b'\x80h', b'\xff\xfe')],
     tree={b'/latin-\xe9': F('1'), b'/\xff\xfe': F('2'), '/link': S(b'to-\xe9'), b'/\x80h': H(b'/\xff\xfe')})
case('name-control', 15, [f('new\nline', '1'), f('back\\slash', '2'), f('tab\there', '3'), f(' lead', '4'), f('trail ', '5'), f('\x01', '6')],
     tree={'/new\nline': F('1'), '/back\\slash': F('2'), '/tab\there': F('3'), '/ lead': F('4'), '/trail ': F('5'), '/\x01': F('6')})
case('name-case', 15, [f('readme', '1'), f('README', '2'), d('Dir'), f('Dir/x', '3')], [d('dir'), f('dir/x', '4')],
     tree={'/readme': F('1'), '/README': F('2'), '/Dir': D(), '/Dir/x': F('3'), '/dir': D(), '/dir/x': F('4')},
     inspect=['readme', 'README', 'Dir', 'dir'])
case('name-unicode-forms', 15, [f('e\u0301', '1'), f('\u00e9', '2')], tree={'/e\u0301': F('1'), '/\u00e9': F('2')})
case('name-sorted-as-bytes', 15, [f(b'a\xff', '1'), f('a', '2'), f('a!', '3'), f('aa', '4'), f('a/'.rstrip('/') + '.d', '5'), f('A', '6')],
     tree={b'/a\xff': F('1'), '/a': F('2'), '/a!': F('3'), '/aa': F('4'), '/a.d': F('5'), '/A': F('6')})
LONG = 'n' * 255
DEEP = '/'.join(['directory-%02d' % i for i in range(20)])
DEEP_TREE = {'/' + '/'.join(DEEP.split('/')[:i + 1]): I for i in range(20)}
case('name-255-gnu', 15, [long_name(LONG, f, '1')], tree={'/' + LONG: F('1')})
case('name-255-pax', 15, [f('short', '1', records={'path': LONG})], tree={'/' + LONG: F('1')})
case('name-255-bytes-not-utf8', 15, [long_name(b'\xfe' * 255, f, '1')], tree={b'/' + b'\xfe' * 255: F('1')})
case('name-256', 15, [long_name('n' * 256, f, '1')], says=['n' * 40, '255'])
case('path-gnu-long', 15, [long_name(DEEP + '/x', f, '1')], tree={**DEEP_TREE, '/' + DEEP + '/x': F('1')})
case('name-gnu-over-pax', 15,
     [gnu_long(b'L', 'gnu') + f('header', '1', records={'path': 'pax'}), pax({'path': 'pax2'}) + gnu_long(b'L', 'gnu2') + f('header2', '2')],
     tree={'/gnu': F('1'), '/gnu2': F('2')}, about='Go')
case('link-gnu-over-pax', 15, [gnu_long(b'K', 'gnu') + sym('s', 'header', records={'linkpath': 'pax'})], tree={'/s': S('gnu')}, about='Go')
case('name-before-global-header', 15, [pax({'path': 'pax'}) + pax({'comment': 'x'}, kind=b'g') + f('header', '1')], tree={'/header': F('1')},
     about='Go takes a global header for a member, so what is said before it is said of that')
case('link-gnu-long', 15, [f('t', '1'), gnu_long(b'K', DEEP) + sym('s', 'cut', magic=GNU)], tree={'/t': F('1'), '/s': S(DEEP)})
case('both-gnu-long', 15, [long_name(DEEP + '/x', f, '1'), gnu_long(b'K', DEEP + '/x') + long_name(LONG, hard, 'cut')],
     tree={**DEEP_TREE, '/' + DEEP + '/x': F('1'), '/' + LONG: H('/' + DEEP + '/x')})
case('path-pax', 15, [f('short', '1', records={'path': DEEP + '/x'})], tree={**DEEP_TREE, '/' + DEEP + '/x': F('1')})
case('linkpath-pax', 15, [sym('s', 'cut', records={'linkpath': DEEP}), f('t', '1'), hard('h', 'cut', records={'linkpath': 't'})],
     tree={'/s': S(DEEP), '/t': F('1'), '/h': H('/t')})
case('symlink-4095', 15, [sym('s', 'cut', records={'linkpath': 't' * 4095})], tree={'/s': S('t' * 4095)})
case('ustar-prefix', 15, [f('x', '1', prefix=DEEP[:142]), f('y' * 100, '2', prefix=DEEP[:142])],
     tree={**{'/' + '/'.join(DEEP[:142].split('/')[:i + 1]): I for i in range(len(DEEP[:142].split('/')))},
           '/' + DEEP[:142] + '/x': F('1'), '/' + DEEP[:142] + '/' + 'y' * 100: F('2')})
case('name-100-no-nul', 15, [f('n' * 100, '1'), sym('s', 't' * 100)], tree={'/' + 'n' * 100: F('1'), '/s': S('t' * 100)})
case('v7', 15, [header('a', b'\0', 1, magic=V7) + pad(b'1'), header('dir/', b'\0', mode=0o755, magic=V7),
                header('dir/l', b'2', mode=0o777, link='../a', magic=V7), header('h', b'1', link='a', magic=V7)],
     tree={'/a': F('1'), '/dir': D(), '/dir/l': S('../a'), '/h': H('/a')}, about='a directory is known by its trailing slash')
case('gnu-magic-prefix-is-times', 15, [header('a', b'0', 1, magic=GNU, tail=b'14000000000\x0014000000000\0') + pad(b'1')],
     tree={'/a': F('1')}, about='where ustar has the prefix, GNU has atime and ctime')
case('pax-global', 15, [pax({'comment': 'a commit id', 'mtime': '5'}, kind=b'g'), f('a', '1')], tree={'/a': F('1')},
     about='a global header is passed over, as Docker and containerd do')
case('pax-global-malformed', 15, [header('g', b'g', 4) + pad(b'0 X='), f('a', '1')], says=['PAX'], about='CPython keeps such an archive; Go refuses it')
case('pax-size', 15, [pax({'size': '5'}) + header('a', b'0', 0) + pad(b'12345'), f('b', 'next')], tree={'/a': F('12345'), '/b': F('next')})
case('type-contiguous', 15, [f('plain', '1'), header('cont', b'7', 1) + pad(b'2')], tree={'/plain': F('1'), '/cont': F('2')})
case('spaces-in-numbers', 15, [f('a', '1', mode=b'   644 \0', uid=b'     1 \0')], tree={'/a': F('1', uid=1)},
     about='old writers pad octal with spaces')

# Headers as they occur: what Go's archive/tar reads, Docker, containerd and umoci take.
for label, magic in (('blank', b'ustar\0 \0'), ('nul', b'ustar\0\0\0'), ('other', b'ustar\x0012')):
    case('ustar-version-' + label, 15, [d('p'), f('x', '1', prefix='p', magic=magic), chardev('c', 5, 1, magic=magic)],
         tree={'/p': D(), '/p/x': F('1'), '/c': C(5, 1)}, about="the version behind ustar's magic does not matter: GNU tar, bsdtar, Go")
case('numbers-behind-nuls', 15,
     [f('a', '12345', mode=b'\x000755\0', uid=b'\x00\x00001\0', gid=b'\x00 02 \0', size=b'\x00\x00\x00\x005\0', mtime=b'\x0014524770400'),
      chardev('c', b'\x00003\0', b'\x00\x0004\0')],
     tree={'/a': F('12345', mode=0o755, uid=1, gid=2, mtime=0o14524770400), '/c': C(3, 4)}, about='Go trims NULs and spaces, GNU tar one NUL')
CKSUM = bytearray(header('a', b'0', 1))
CKSUM[148:156] = b'\0' + CKSUM[148:154].lstrip(b'0').rjust(6, b'0') + b'\0'
case('checksum-behind-nul', 15, [bytes(CKSUM) + pad(b'1')], tree={'/a': F('1')})
case('gnu-magic-prefix', 15, [d('some'), d('some/where'), header('x', b'0', 1, magic=GNU, tail=b'some/where') + pad(b'1'),
                              header('y', b'0', 1, magic=GNU, tail=b'7 dwarfs/in') + pad(b'2')],
     tree={'/some': D(), '/some/where': D(), '/some/where/x': F('1'), '/7 dwarfs': I, '/7 dwarfs/in': I, '/7 dwarfs/in/y': F('2')},
     about="Docker built with Go before 1.8 wrote it; Go reads it where atime and ctime hold no numbers")
case('gnu-magic-prefix-not-ascii', 15, [header('x', b'0', 1, magic=GNU, tail='é/x'.encode()) + pad(b'1')], tree={'/x': F('1')},
     about='Go takes an ASCII prefix only')
case('star-prefix', 15, [header('x', b'0', 1, tail=(b'p' * 65 + b'/' + b'q' * 65 + b'14524770400\x0014524770400\0').ljust(163, b'\0') + b'tar\0') + pad(b'1')],
     tree={'/' + 'p' * 65: I, '/' + 'p' * 65 + '/' + 'q' * 65: I, '/' + 'p' * 65 + '/' + 'q' * 65 + '/x': F('1')},
     about="star's prefix has 131 bytes, and two times follow it")
case('file-with-slash', 15, [header('a/', b'0', 3) + pad(b'123'), f('b', '2')], tree={'/a': F('123'), '/b': F('2')},
     about='only the oldest archives, which have no type for directories, mean one by the slash: Go')
case('gnu-long-empty', 15, [header('././@LongLink', b'L', 0, magic=GNU) + f('a', '1'), gnu_long(b'L', '') + gnu_long(b'K', '') + sym('s', 'a')],
     tree={'/a': F('1'), '/s': S('a')}, about='an empty long name overrides nothing: Go')
case('link-with-data', 15, [f('a', '1'), header('the-link', b'1', 1, link='a') + pad(b'1')], says=['the-link', 'announces 1 bytes'],
     about='Go expects a header there, so no tool takes it; the error blames the entry and not the archive')
case('type-without-data-announces-some', 15, [header('d/', b'5', 100, mode=0o755), f('d/a', '1')], tree={'/d': D(), '/d/a': F('1')},
     about='Go passes over the size of a type that has no data')
case('pax-header-at-end', 15, Layer(f('a', '1'), pax({'path': 'nothing'}), end=b''), tree={'/a': F('1')}, about='Go')
case('pax-mtime-plus', 12, [f('a', '1', records={'mtime': '+1.5'}), f('b', '1', records={'mtime': '+1'})],
     tree={'/a': F('1', mtime=1, ns=500000000), '/b': F('1', mtime=1)}, about='Go')
case('path-very-long', 15, [f('x', records={'path': 'p/' * 200000})], says=['path of 400000 bytes', '--max-path'])

# 13 of the doubtful: a file of the same tar that a later path goes through
case('file-used-as-directory', 15, [f('a', '1'), f('a/b', '2')], tree={'/a': I, '/a/b': F('2')}, inspect=['over_files', '"a"'],
     about='the later entry wins, as for any two entries of a name; inspect tells it. umoci, containerd and GNU tar fail there')
case('file-used-as-directory-through-link', 15, [d('t'), sym('l', 't/x')], [f('t/x', '1'), f('l/b', '2')],
     tree={'/t': D(), '/l': S('t/x'), '/t/x': I, '/t/x/b': F('2')}, inspect=['over_files', '"t/x"'])

# 14: zeros are holes, however the tar has them
ZEROS = 256 << 20


def of_zeros(name, size):
    """A file of `size` zeros in a blob of some hundred bytes."""
    first = header(name, b'0', size)
    digest = hashlib.sha256(first)
    for _ in range(size >> 20):
        digest.update(bytes(1 << 20))
    digest.update(END)
    return Layer(form='zstd', tar=b'', diff_id='sha256:' + digest.hexdigest(),
                 blob=zstd_frame(first) + zstd_frame(b'', size=size) + zstd_frame(END))


case('zeros-cost-nothing', 14, of_zeros('zeros', ZEROS), fits_in=1 << 20,
     tree=lambda: {'/zeros': Big(ZEROS, hashlib.sha256(bytes(ZEROS)).hexdigest())},
     about='the same file as a tar writes it that knows no holes')
DENSE = [(0, b'x' * 4096), (4096 * 40, b'y' * 4096)]
for label, make in (('dense', lambda name, segments, size: f(name, sparse_bytes(segments, size))), ('sparse', lambda *a: pax_sparse('1.0', *a))):
    case('zeros-in-between-' + label, 14, [make('a', DENSE, 4096 * 100), make('b', DENSE, 4096 * 100 + 17), make('z', [], 1000)],
         fits_in=40000, tree={'/a': F(sparse_bytes(DENSE, 4096 * 100)), '/b': F(sparse_bytes(DENSE, 4096 * 100 + 17)), '/z': F(bytes(1000))})
