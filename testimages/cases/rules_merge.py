"""Rules 4 to 6 and 9: directories that meet, and names that come twice."""
from notation import D, F, H, I, P, S
from registry import case
from tarfmt import d, f, fifo, hard, sym, wh

# 4: a directory over a directory
case('dir-over-dir', 4, [d('a', mode=0o700, uid=1, xattrs={'user.old': '1'}), f('a/x', '1')],
     [d('a', mode=0o1775, uid=2, gid=3, mtime=1600000000, xattrs={'user.new': '2'}), f('a/y', '2')],
     tree={'/a': D(0o1775, 2, 3, 1600000000, xattrs={'user.new': '2'}), '/a/x': F('1'), '/a/y': F('2')},
     about='the newer entry replaces the attributes, xattrs with them')
case('dir-over-dir-deep', 4, [d('a'), d('a/b'), f('a/b/1', '1')], [d('a/b', mode=0o700), f('a/b/2', '2')], [f('a/b/3', '3')],
     tree={'/a': D(), '/a/b': D(0o700), '/a/b/1': F('1'), '/a/b/2': F('2'), '/a/b/3': F('3')})
case('dir-entry-after-children', 4, [f('a/x', '1'), d('a', mode=0o700)], tree={'/a': D(0o700), '/a/x': F('1')})
case('file-over-file', 4, [f('a', 'long content', mode=0o4755, uid=5, xattrs={'user.k': 'v'})], [f('a', 'short')],
     tree={'/a': F('short')})

# 5: implied directories
case('implied-keeps-lower', 5, [d('tmp', mode=0o1777, uid=4, gid=5, mtime=1234567890, xattrs={'user.k': 'v'})], [f('tmp/x', '1')],
     tree={'/tmp': D(0o1777, 4, 5, 1234567890, xattrs={'user.k': 'v'}), '/tmp/x': F('1')})
case('implied-of-nothing', 5, [f('a/b/c', '1')], tree={'/a': I, '/a/b': I, '/a/b/c': F('1')})
case('implied-then-explicit', 5, [f('a/x', '1')], [d('a', mode=0o700)], tree={'/a': D(0o700), '/a/x': F('1')})
case('implied-through-three', 5, [d('a', mode=0o700)], [f('a/1', '1')], [f('a/2', '2')],
     tree={'/a': D(0o700), '/a/1': F('1'), '/a/2': F('2')})
case('implied-in-deeper', 5, [d('a', mode=0o700), d('a/b', mode=0o710)], [f('a/b/c/d', '1')],
     tree={'/a': D(0o700), '/a/b': D(0o710), '/a/b/c': I, '/a/b/c/d': F('1')})
case('implied-root', 5, [d('.', mode=0o700, uid=9)], [f('x', '1')], tree={'/': D(0o700, 9), '/x': F('1')})
case('empty-layer-between', 5, [f('a', '1')], [], [f('b', '2')], tree={'/a': F('1'), '/b': F('2')})

# 6: other kinds over each other
TREE = [d('p'), f('p/x', '1'), d('p/q'), f('p/q/y', '2')]
case('file-over-dir', 6, TREE, [f('p', 'now a file')], tree={'/p': F('now a file')})
case('symlink-over-dir', 6, TREE, [sym('p', 'elsewhere')], tree={'/p': S('elsewhere')})
case('fifo-over-dir', 6, TREE, [fifo('p')], tree={'/p': P()})
case('hard-link-over-dir', 6, TREE + [f('t', '3')], [hard('p', 't')], tree={'/p': F('3'), '/t': H('/p')})
case('dir-over-file', 6, [f('p', '1')], [d('p', mode=0o700), f('p/x', '2')], tree={'/p': D(0o700), '/p/x': F('2')})
case('dir-over-symlink', 6, [d('t'), f('t/x', '1'), sym('p', 't')], [d('p', mode=0o700), f('p/y', '2')],
     tree={'/t': D(), '/t/x': F('1'), '/p': D(0o700), '/p/y': F('2')})
case('dir-file-dir', 6, TREE, [f('p', 'file')], [d('p'), f('p/new', '3')], tree={'/p': D(), '/p/new': F('3')})
case('dir-file-implied-dir', 6, TREE, [f('p', 'file')], [f('p/new', '3')], tree={'/p': I, '/p/new': F('3')},
     about='umoci fails here: its mkdir finds the file; a merge has no reason to')
case('dir-gone-dir', 6, TREE, [wh('p')], [d('p', mode=0o711)], tree={'/p': D(0o711)})
case('file-then-dir-in-one-layer', 6, TREE, [f('p', 'file'), d('p', mode=0o711), f('p/new', '3')],
     tree={'/p': D(0o711), '/p/new': F('3')}, about='the file, though replaced, hid the lower directory')
case('dir-then-file-in-one-layer', 6, TREE, [d('p', mode=0o711), f('p/new', '3'), f('p', 'file')], tree={'/p': F('file')})
case('dir-over-file-keeps-link', 6, [f('p', '1'), hard('other', 'p')], [d('p')], tree={'/p': D(), '/other': F('1')})

# 9: one name twice in a tar
case('twice-file', 9, [f('a', 'first', mode=0o600), f('a', 'second')], tree={'/a': F('second')})
case('twice-file-shorter', 9, [f('a', 'x' * 10000), f('b', 'y'), f('a', '')], tree={'/a': F(''), '/b': F('y')})
case('twice-link-keeps-first', 9, [f('a', 'first'), hard('b', 'a'), f('a', 'second')], tree={'/a': F('second'), '/b': F('first')})
case('twice-dir', 9, [d('a', mode=0o700), f('a/x', '1'), d('a', mode=0o711), f('a/y', '2')],
     tree={'/a': D(0o711), '/a/x': F('1'), '/a/y': F('2')})
case('twice-symlink-file', 9, [sym('a', 'b'), f('b', 'kept'), f('a', 'mine')], tree={'/a': F('mine'), '/b': F('kept')},
     about='the last component is replaced, never followed')
case('twice-file-symlink', 9, [f('a', '1'), sym('a', 'b')], tree={'/a': S('b')})
case('twice-normalised', 9, [f('a', '1'), f('./a', '2'), f('/a', '3')], tree={'/a': F('3')})
case('twice-across-layers', 9, [f('a', '1')], [f('a', '2'), f('a', '3')], tree={'/a': F('3')})
