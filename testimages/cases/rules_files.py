"""Rules 14 and 15: sparse files, and names."""
from notation import D, F, H, I, S
from registry import case
from tarfmt import GNU, V7, d, f, gnu_long, gnu_sparse, hard, header, long_name, pad, pax, pax_sparse, sparse_bytes, sym

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
case('name-256', 15, [long_name('n' * 256, f, '1')], says=['n' * 100])
case('path-gnu-long', 15, [long_name(DEEP + '/x', f, '1')], tree={**DEEP_TREE, '/' + DEEP + '/x': F('1')})
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
case('pax-size', 15, [pax({'size': '5'}) + header('a', b'0', 0) + pad(b'12345'), f('b', 'next')], tree={'/a': F('12345'), '/b': F('next')})
case('type-contiguous', 15, [f('plain', '1'), header('cont', b'7', 1) + pad(b'2')], tree={'/plain': F('1'), '/cont': F('2')})
case('spaces-in-numbers', 15, [f('a', '1', mode=b'   644 \0', uid=b'     1 \0')], tree={'/a': F('1', uid=1)},
     about='old writers pad octal with spaces')
