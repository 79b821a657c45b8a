"""Rules 1 to 3: whiteouts and opaque directories."""
from notation import D, F, H, I, S
from registry import case
from tarfmt import blockdev, chardev, d, f, fifo, hard, long_name, opq, sym, wh

# 1: known by name, whatever the type
LOWER = [f('a', 'lower a'), f('b', 'lower b')]
WITHOUT_A = {'/b': F('lower b')}
case('whiteout-file', 1, LOWER, [wh('a')], tree=WITHOUT_A)
case('whiteout-file-with-data', 1, LOWER, [wh('a', data='not empty')], tree=WITHOUT_A)
case('whiteout-hard-link', 1, LOWER, [wh('a', lambda n: hard(n, '.wh..wh.plnk/1.2'))], tree=WITHOUT_A,
     about='aufs wrote whiteouts as links to one inode; the target is in no layer')
case('whiteout-hard-link-to-file', 1, LOWER, [wh('a', lambda n: hard(n, 'b'))], tree=WITHOUT_A)
case('whiteout-char', 1, LOWER, [wh('a', lambda n: chardev(n, 0, 0))], tree=WITHOUT_A)
case('whiteout-block', 1, LOWER, [wh('a', lambda n: blockdev(n, 7, 0))], tree=WITHOUT_A)
case('whiteout-fifo', 1, LOWER, [wh('a', fifo)], tree=WITHOUT_A)
case('whiteout-symlink', 1, LOWER, [wh('a', lambda n: sym(n, 'b'))], tree=WITHOUT_A)
case('whiteout-directory', 1, LOWER, [wh('a', d)], tree=WITHOUT_A)
case('whiteout-of-nothing-named', 1, LOWER, [f('.wh.')], says=['.wh.'])
case('whiteout-of-dot', 1, LOWER, [f('.wh..')], says=['.wh..'])
case('whiteout-of-dot-dot', 1, LOWER, [f('.wh...')], says=['.wh...'])
case('whiteout-of-dot-dot-deeper', 1, [d('x'), f('x/f')], [f('x/.wh...')], says=['x/.wh...'])
case('whiteout-of-whiteout-name', 1, [f('.wh.x')], [f('y', '1')], tree={'/y': F('1')},
     about='in the lowest layer it hides nothing, and is no file')

for n in (251, 252, 255):
    case('whiteout-of-%d-bytes' % n, 1, [long_name('n' * n, f, '1'), f('b', '2')], [long_name('.wh.' + 'n' * n, f)], tree={'/b': F('2')},
         about='the limit of 255 bytes is that of the hidden name: Docker, containerd and umoci hide it')
case('whiteout-of-255-bytes-deeper', 1, [d('x'), long_name('x/' + 'n' * 255, f, '1')], [long_name('./x/.wh.' + 'n' * 255 + '/', f)], tree={'/x': D()})
case('whiteout-of-256-bytes', 1, [f('b', '2')], [long_name('.wh.' + 'n' * 256, f)], says=['whiteout', '256 bytes'])
case('name-of-256-bytes', 15, [long_name('n' * 256, f)], says=['256 bytes'])

# 2: acts on lower layers only, in any order
case('whiteout-before-own', 2, [f('a', 'old', mode=0o600)], [wh('a'), f('a', 'new')], tree={'/a': F('new')})
case('whiteout-after-own', 2, [f('a', 'old', mode=0o600)], [f('a', 'new'), wh('a')], tree={'/a': F('new')})
DIR = [d('a', mode=0o700), f('a/x', '1'), d('a/sub'), f('a/sub/y', '2')]
case('whiteout-dir', 2, DIR, [wh('a')], tree={})
case('whiteout-dir-before-own-dir', 2, DIR, [wh('a'), d('a', mode=0o711), f('a/new', '3')],
     tree={'/a': D(0o711), '/a/new': F('3')})
case('whiteout-dir-after-own-dir', 2, DIR, [d('a', mode=0o711), f('a/new', '3'), wh('a')],
     tree={'/a': D(0o711), '/a/new': F('3')})
case('whiteout-dir-with-implied-own', 2, DIR, [wh('a'), f('a/new', '3')], tree={'/a': I, '/a/new': F('3')},
     about='the lower directory is hidden, so the implied one takes nothing from it')
case('whiteout-of-nothing', 2, [f('a', '1')], [wh('b'), wh('nowhere/c'), f('d', '2')], tree={'/a': F('1'), '/d': F('2')},
     about='a whiteout makes no directory of its own')
case('whiteout-nested', 2, DIR, [wh('a/sub/y'), wh('a/x')], tree={'/a': D(0o700), '/a/sub': D()},
     about='directories on the way to a whiteout keep what they are')
case('whiteout-of-file-and-its-child', 2, DIR, [wh('a/sub'), wh('a/sub/y')], tree={'/a': D(0o700), '/a/x': F('1')})
case('whiteout-then-back', 2, [f('a', '1')], [wh('a')], [f('a', '3')], tree={'/a': F('3')})
case('whiteout-dir-then-back', 2, DIR, [wh('a')], [d('a')], tree={'/a': D()})
case('whiteout-symlink-not-target', 2, [f('t', '1'), sym('l', 't')], [wh('l')], tree={'/t': F('1')})
for which, layer in (('after', [f('a', 'new'), wh('a/x')]), ('before', [wh('a/x'), f('a', 'new')])):
    case('whiteout-below-own-file-' + which, 2, DIR, layer, tree={'/a': F('new')}, about='the file is there, whatever the layer also hides of what it replaces')
case('opaque-below-own-file', 3, DIR, [f('a', 'new'), opq('a')], tree={'/a': F('new')})
case('whiteout-only-middle-layer', 2, [f('a', '1')], [f('a', '2')], [wh('a'), f('b', '3')], tree={'/b': F('3')})

# 3: opaque directories
FULL = [d('o', mode=0o750), f('o/low', '1'), d('o/dir'), f('o/dir/deep', '2')]
EMPTIED = {'/o': D(0o711), '/o/new': F('3')}
case('opaque-first', 3, FULL, [d('o', mode=0o711), opq('o'), f('o/new', '3')], tree=EMPTIED)
case('opaque-last', 3, FULL, [d('o', mode=0o711), f('o/new', '3'), opq('o')], tree=EMPTIED)
case('opaque-before-its-directory', 3, FULL, [opq('o'), f('o/new', '3'), d('o', mode=0o711)], tree=EMPTIED)
case('opaque-implied', 3, FULL, [opq('o'), f('o/new', '3')], tree={'/o': D(0o750), '/o/new': F('3')},
     about='emptied, not replaced: what the tar has no entry for keeps its metadata')
case('opaque-keeps-own-of-same-name', 3, FULL, [f('o/low', 'mine'), opq('o')], tree={'/o': D(0o750), '/o/low': F('mine')})
case('opaque-own-subdirectory', 3, FULL, [opq('o'), d('o/dir'), f('o/dir/mine', '3')],
     tree={'/o': D(0o750), '/o/dir': D(), '/o/dir/mine': F('3')}, about='what is below the emptied directory is gone as well')
case('opaque-root', 3, FULL + [f('top', '1')], [opq(), f('only', '2')], tree={'/only': F('2')})
case('opaque-root-dot-slash', 3, FULL + [f('top', '1')], [d('./', mode=0o711), f('./only', '2'), f('./.wh..wh..opq')],
     tree={'/': D(0o711), '/only': F('2')})
case('opaque-of-nothing', 3, [f('a', '1')], [d('o'), opq('o'), f('o/x', '2')], tree={'/a': F('1'), '/o': D(), '/o/x': F('2')})
case('opaque-nested', 3, FULL, [d('o/dir'), opq('o/dir'), f('o/dir/mine', '3')],
     tree={'/o': D(0o750), '/o/low': F('1'), '/o/dir': D(), '/o/dir/mine': F('3')})
case('opaque-then-merged', 3, FULL, [opq('o'), f('o/second', '2')], [f('o/third', '3')],
     tree={'/o': D(0o750), '/o/second': F('2'), '/o/third': F('3')})
case('opaque-hard-link', 3, FULL, [hard('o/.wh..wh..opq', '.wh..wh.orph'), f('o/new', '3')],
     tree={'/o': D(0o750), '/o/new': F('3')})
case('opaque-keeps-link-into-lower', 3, FULL, [hard('kept', 'o/low'), opq('o')], tree={'/o': D(0o750), '/kept': F('1')},
     about='the link names the lower file; that its old name is emptied away changes nothing')
PLINK = '.wh..wh.plnk/12.34'
for which, layer in (('after', [f(PLINK, 'x', mode=0o755), hard('b', PLINK), hard('c', PLINK)]),
                     ('before', [hard('b', PLINK), hard('c', PLINK), f(PLINK, 'x', mode=0o755)])):
    case('aufs-link-' + which, 3, [f('a', '1')], [d('.wh..wh.plnk', mode=0o700), *layer], tree={'/a': F('1'), '/b': F('x', mode=0o755), '/c': H('/b')},
         about='aufs kept a file with several names once, and linked to it: its content, as Docker, containers/storage, containerd and umoci have it')
case('aufs-bookkeeping', 3, [f('a', '1')],
     [f('.wh..wh.aufs'), d('.wh..wh.orph', mode=0o700), d('.wh..wh.plnk', mode=0o700), f('.wh..wh.plnk/12.34', 'x'), f('b', '2')],
     tree={'/a': F('1'), '/b': F('2')})
case('two-names-one-whited-out', 3, [f('a', '1'), hard('b', 'a'), hard('c', 'a'), sym('s', 'a')], [wh('a')],
     tree={'/b': F('1'), '/c': H('/b'), '/s': S('a')})
