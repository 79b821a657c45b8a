"""Rules 7, 8 and 10: symlinks on the way, hard links, and the forms of a path."""
from notation import C, D, F, H, I, P, S
from registry import case
from tarfmt import chardev, d, f, fifo, hard, opq, sym, wh

# 7: parents that are symlinks
USR = [d('usr'), d('usr/lib', mode=0o711), f('usr/lib/low', '1'), sym('lib', 'usr/lib')]
USR_TREE = {'/usr': D(), '/usr/lib': D(0o711), '/usr/lib/low': F('1'), '/lib': S('usr/lib')}
case('through-relative', 7, USR, [f('lib/new', '2')], tree={**USR_TREE, '/usr/lib/new': F('2')}, inspect=['lib/new'])
case('through-absolute', 7, [d('usr'), d('usr/lib'), sym('lib', '/usr/lib')], [f('lib/new', '2')],
     tree={'/usr': D(), '/usr/lib': D(), '/lib': S('/usr/lib'), '/usr/lib/new': F('2')})
case('through-own-layer', 7, USR + [f('lib/new', '2')], tree={**USR_TREE, '/usr/lib/new': F('2')})
case('through-dot-dot', 7, [d('a'), d('b'), sym('a/up', '../../../b')], [f('a/up/x', '1')],
     tree={'/a': D(), '/b': D(), '/a/up': S('../../../b'), '/b/x': F('1')}, about='.. stops at the root of the image')
case('through-chain', 7, [d('t'), sym('l1', 'l2'), sym('l2', '/l3'), sym('l3', 't')], [f('l1/x', '1')],
     tree={'/t': D(), '/l1': S('l2'), '/l2': S('/l3'), '/l3': S('t'), '/t/x': F('1')})
case('through-two-on-the-way', 7, [d('r'), d('r/s'), sym('a', 'r'), sym('r/b', 's')], [f('a/b/x', '1')],
     tree={'/r': D(), '/r/s': D(), '/a': S('r'), '/r/b': S('s'), '/r/s/x': F('1')})
case('through-dangling', 7, [sym('l', 'made/here')], [f('l/x', '1')],
     tree={'/l': S('made/here'), '/made': I, '/made/here': I, '/made/here/x': F('1')},
     about='what the link leads to is made, as an implied directory')
case('through-loop', 7, [sym('a', 'b'), sym('b', 'a')], [f('a/x', '1')], says=['a/x'])
case('through-self', 7, [sym('a', 'a')], [f('a/x', '1')], says=['a/x'])
case('loop-unused', 7, [sym('a', 'b'), sym('b', 'a')], [f('x', '1')], tree={'/a': S('b'), '/b': S('a'), '/x': F('1')})
case('explicit-dir-replaces-symlink', 7, USR, [d('lib', mode=0o700), f('lib/new', '2')],
     tree={'/usr': D(), '/usr/lib': D(0o711), '/usr/lib/low': F('1'), '/lib': D(0o700), '/lib/new': F('2')})
case('whiteout-through-symlink', 7, USR, [wh('lib/low')],
     tree={'/usr': D(), '/usr/lib': D(0o711), '/lib': S('usr/lib')})
for which, order in (('first', lambda a, b: [a, b]), ('last', lambda a, b: [b, a])):
    case('whiteout-through-symlink-and-below-' + which, 7, USR + [d('usr/lib/x'), f('usr/lib/x/y', '3')], order(wh('lib/x'), wh('usr/lib/x/y')), tree=USR_TREE,
         about='the directory is gone, and what is hidden in it makes none anew')
case('opaque-through-symlink', 7, USR, [opq('lib'), f('lib/new', '2')],
     tree={'/usr': D(), '/usr/lib': D(0o711), '/lib': S('usr/lib'), '/usr/lib/new': F('2')})
case('through-symlink-implied-below', 7, USR, [f('lib/x/y', '2')],
     tree={**USR_TREE, '/usr/lib/x': I, '/usr/lib/x/y': F('2')})
case('through-symlink-dir-below', 7, USR, [d('lib/x', mode=0o700), f('lib/x/y', '2')],
     tree={**USR_TREE, '/usr/lib/x': D(0o700), '/usr/lib/x/y': F('2')})
case('through-symlink-two-layers', 7, USR, [f('lib/new', '2')], [f('usr/lib/new', '3'), f('lib/more', '4')],
     tree={**USR_TREE, '/usr/lib/new': F('3'), '/usr/lib/more': F('4')})
case('symlink-replaced-below', 7, USR, [wh('lib'), f('lib/new', '2')],
     tree={'/usr': D(), '/usr/lib': D(0o711), '/usr/lib/low': F('1'), '/lib': I, '/lib/new': F('2')},
     about='the link is hidden by its own layer, so nothing is followed')

# Two paths that a symlink below makes one: the last entry of the tar counts, as umoci has it.
ONE = [d('usr'), d('usr/bin'), sym('bin', 'usr/bin')]
ONE_TREE = {'/usr': D(), '/usr/bin': D(), '/bin': S('usr/bin')}
case('through-symlink-then-direct', 7, ONE, [f('bin/tool', 'first'), f('usr/bin/tool', 'last')], tree={**ONE_TREE, '/usr/bin/tool': F('last')})
case('direct-then-through-symlink', 7, ONE, [f('usr/bin/tool', 'first'), f('bin/tool', 'last')], tree={**ONE_TREE, '/usr/bin/tool': F('last')})
case('direct-then-link-through-symlink', 7, ONE, [f('x', 'linked'), f('usr/bin/tool', 'first'), hard('bin/tool', 'x')],
     tree={**ONE_TREE, '/x': F('linked'), '/usr/bin/tool': H('/x')})
case('link-through-symlink-then-direct', 7, ONE, [f('x', 'linked'), hard('bin/tool', 'x'), f('usr/bin/tool', 'last')],
     tree={**ONE_TREE, '/x': F('linked'), '/usr/bin/tool': F('last')})
case('dirs-through-symlink-last-description', 7, ONE, [d('usr/bin/d', mode=0o700), f('usr/bin/d/a', '1'), d('bin/d', mode=0o711), f('bin/d/b', '2')],
     tree={**ONE_TREE, '/usr/bin/d': D(0o711), '/usr/bin/d/a': F('1'), '/usr/bin/d/b': F('2')})
case('dirs-through-symlink-first-description', 7, ONE, [d('bin/d', mode=0o711), f('bin/d/b', '2'), d('usr/bin/d', mode=0o700)],
     tree={**ONE_TREE, '/usr/bin/d': D(0o700), '/usr/bin/d/b': F('2')})
LD = [d('d', mode=0o700), f('d/z', 'low'), sym('l', 'd')]
case('through-symlink-then-file-there', 7, LD, [f('l/q', '1'), f('d', 'file')], tree={'/d': F('file'), '/l': S('d')})
case('file-there-then-through-symlink', 7, LD, [f('d', 'file'), f('l/q', '1')], tree={'/d': I, '/d/q': F('1'), '/l': S('d')}, inspect=['over_files'])
case('through-symlink-then-link-there', 7, LD + [d('e')], [f('l/q', '1'), sym('d', 'e')], tree={'/d': S('e'), '/l': S('d'), '/e': D()})
LD_TREE = {'/d': D(0o700), '/d/z': F('low')}
for which, order, gone in (('first', lambda a, b: [a, b], True), ('last', lambda a, b: [b, a], False)):
    case('whiteout-through-symlink-and-of-it-' + which, 2, LD, order(wh('l/z'), wh('l')), tree={'/d': D(0o700)} if gone else LD_TREE,
         about='umoci: what is hidden behind the link too, unless the link is hidden by then')
    case('opaque-through-symlink-and-whiteout-of-it-' + which, 3, LD, order(opq('l'), wh('l')), tree={'/d': D(0o700)} if gone else LD_TREE)
    case('whiteout-deeper-through-symlink-and-of-it-' + which, 2, LD + [d('d/s'), f('d/s/t', '1')], order(wh('l/s/t'), wh('l')),
         tree={**LD_TREE, '/d/s': D(), **({} if gone else {'/d/s/t': F('1')})})

case('hard-link-to-symlink-also-gone-through', 8, USR, [f('lib/new', '2'), hard('other', 'lib')],
     tree={**USR_TREE, '/usr/lib/new': F('2'), '/other': H('/lib')})
case('hard-link-to-symlink-then-gone-through', 8, USR, [hard('other', 'lib'), f('lib/new', '2')],
     tree={**USR_TREE, '/usr/lib/new': F('2'), '/other': H('/lib')})

# 8: hard links
case('link-same-layer', 8, [f('a', '1', mode=0o755), hard('b', 'a')], tree={'/a': F('1', 0o755), '/b': H('/a')})
case('link-attributes-ignored', 8, [f('a', '1', mode=0o640, uid=1), hard('b', 'a', mode=0o777, uid=2, mtime=1)],
     tree={'/a': F('1', 0o640, 1), '/b': H('/a')}, about='a link is a name; the inode is the file')
case('link-before-target', 8, [hard('b', 'a'), f('a', '1')], tree={'/a': F('1'), '/b': H('/a')})
case('link-chain', 8, [f('a', '1'), hard('b', 'a'), hard('c', 'b'), hard('d/e', 'c')],
     tree={'/a': F('1'), '/b': H('/a'), '/c': H('/a'), '/d': I, '/d/e': H('/a')})
case('link-chain-backwards', 8, [hard('c', 'b'), hard('b', 'a'), f('a', '1')], tree={'/a': F('1'), '/b': H('/a'), '/c': H('/a')})
case('link-to-lower', 8, [f('a', '1', xattrs={'user.k': 'v'})], [hard('b', 'a')],
     tree={'/a': F('1', xattrs={'user.k': 'v'}), '/b': H('/a')})
case('link-to-lower-two-down', 8, [d('x'), f('x/a', '1')], [f('other', '2')], [hard('b', 'x/a'), hard('c', 'b')],
     tree={'/x': D(), '/x/a': F('1'), '/other': F('2'), '/b': H('/x/a'), '/c': H('/x/a')})
case('link-joins-lower-group', 8, [f('a', '1'), hard('b', 'a')], [hard('c', 'b')],
     tree={'/a': F('1'), '/b': H('/a'), '/c': H('/a')})
case('link-lower-before-later-own', 8, [f('a', 'low')], [hard('b', 'a'), f('a', 'own')], tree={'/a': F('own'), '/b': F('low')},
     about='a link means the file as it is where the link stands in the tar: umoci, containerd. A later entry only where nothing else is')
case('link-earlier-own-before-lower', 8, [f('a', 'low')], [f('a', 'own'), hard('b', 'a')], tree={'/a': F('own'), '/b': H('/a')})
case('link-earlier-own-then-replaced', 8, [f('a', 'low')], [f('a', 'own'), hard('b', 'a'), f('a', 'later')], tree={'/a': F('later'), '/b': F('own')})
case('links-swap-names', 8, [f('a', 'A'), f('b', 'B')], [hard('t', 'a'), hard('a', 'b'), hard('b', 't')],
     tree={'/a': F('B'), '/t': F('A'), '/b': H('/t')}, about='umoci')
case('link-by-link-then-replaced', 8, [f('d', 'low')], [hard('c', 'd'), hard('b', 'c'), f('c', 'own')], tree={'/d': F('low'), '/b': H('/d'), '/c': F('own')},
     about='umoci: the link was one to the lower file when it was linked to')
case('links-in-a-circle', 8, [hard('a', 'b'), hard('b', 'a')], says=['circle'])
case('link-chain-to-lower', 8, [f('a', 'low')], [hard('d', 'c'), hard('c', 'b'), hard('b', 'a'), f('a', 'own')],
     tree={'/a': F('own'), '/b': F('low'), '/c': H('/b'), '/d': H('/b')})
case('link-through-symlink-to-earlier-own', 8, [d('d'), f('d/q', 'low'), sym('l', 'd')], [f('d/q', 'own'), hard('y', 'l/q')],
     tree={'/d': D(), '/l': S('d'), '/d/q': F('own'), '/y': H('/d/q')}, about='the own layer had it already, under another path')
case('link-through-symlink-before-own', 8, [d('d'), f('d/q', 'low'), sym('l', 'd')], [hard('y', 'l/q'), f('d/q', 'own')],
     tree={'/d': D(), '/l': S('d'), '/d/q': F('own'), '/y': F('low')})
case('link-to-symlink', 8, [sym('s', 'nowhere'), hard('h', 's')], tree={'/s': S('nowhere'), '/h': H('/s')})
case('link-to-device', 8, [chardev('c', 1, 3, mode=0o666), hard('h', 'c')], tree={'/c': C(1, 3, 0o666), '/h': H('/c')})
case('link-to-fifo', 8, [fifo('p'), hard('h', 'p')], tree={'/p': P(), '/h': H('/p')})
case('link-lower-symlink', 8, [sym('s', 'nowhere')], [hard('h', 's')], tree={'/s': S('nowhere'), '/h': H('/s')})
case('link-one-name-out', 8, [f('a', '1'), hard('b', 'a')], [wh('a')], tree={'/b': F('1')})
case('link-one-name-replaced', 8, [f('a', '1'), hard('b', 'a'), hard('c', 'a')], [f('b', '2')],
     tree={'/a': F('1'), '/c': H('/a'), '/b': F('2')})
case('link-to-whited-out', 8, [f('a', '1')], [hard('b', 'a'), wh('a')], tree={'/b': F('1')}, about='a rename of a lower file')
case('link-over-its-own-lower', 8, [f('a', '1'), f('b', '2')], [hard('b', 'a')], tree={'/a': F('1'), '/b': H('/a')})
case('link-target-forms', 8, [d('x'), f('x/a', '1'), hard('b', './x/a'), hard('c', '/x/a'), hard('d', 'x//a')],
     tree={'/x': D(), '/x/a': F('1'), '/b': H('/x/a'), '/c': H('/x/a'), '/d': H('/x/a')})
case('link-target-through-symlink', 8, USR, [hard('h', 'lib/low')], tree={**USR_TREE, '/h': H('/usr/lib/low')})
case('link-name-through-symlink', 8, USR + [f('t', '2')], [hard('lib/h', 't')],
     tree={**USR_TREE, '/t': F('2'), '/usr/lib/h': H('/t')})
case('link-nowhere', 8, [f('a', '1')], [hard('sub/name', 'gone/target')], says=['sub/name', 'gone/target'])
case('link-nowhere-first-layer', 8, [hard('name', 'target')], says=['name', 'target'])
case('link-to-directory', 8, [d('dir'), hard('name', 'dir')], says=['name', 'dir'])
case('link-ring', 8, [hard('one', 'two'), hard('two', 'one')], says=['one', 'two'])

# 10: forms of a path, and the root
case('path-forms', 10, [f('./a', '1'), f('/b', '2'), d('./c/'), f('c//d', '3'), f('c/./e', '4'), f('.//c/f', '5')],
     tree={'/a': F('1'), '/b': F('2'), '/c': D(), '/c/d': F('3'), '/c/e': F('4'), '/c/f': F('5')})
for label, root in ('dot-slash', './'), ('dot', '.'), ('slash', '/'):
    case('root-' + label, 10, [d(root, mode=0o1750, uid=7, gid=8, mtime='1000000000.25', xattrs={'user.k': 'v'}), f('x', '1')],
         tree={'/': D(0o1750, 7, 8, 1000000000, 250000000, {'user.k': 'v'}), '/x': F('1')})
case('root-of-last-layer', 10, [d('./', mode=0o700, uid=1)], [d('./', mode=0o755, uid=2)], tree={'/': D(0o755, 2)})
case('no-entries', 10, [], tree={})
case('dot-dot-leading', 10, [f('../x', '1')], says=['../x'])
case('dot-dot-middle', 10, [d('a'), f('a/../x', '1')], says=['a/../x'])
case('dot-dot-last', 10, [d('a'), d('a/..')], says=['a/..'])
case('dot-dot-in-link-target', 10, [f('a', '1'), hard('x', '../a')], says=['x', '../a'])
case('dot-dot-in-symlink-is-fine', 10, [sym('x', '../../etc/../a')], tree={'/x': S('../../etc/../a')})
case('dots-in-names-are-fine', 10, [f('..a', '1'), f('b..', '2'), f('...', '3')],
     tree={'/..a': F('1'), '/b..': F('2'), '/...': F('3')})
case('wh-in-the-middle-is-a-name', 10, [f('x.wh.y', '1'), f('.whx', '2')], tree={'/x.wh.y': F('1'), '/.whx': F('2')})
