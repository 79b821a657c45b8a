"""Rules 11 to 13: xattrs, times, owners, modes and device numbers."""
import struct

from notation import B, C, D, F, H, I, P, S
from registry import case
from tarfmt import acl, base256, blockdev, chardev, d, f, fifo, hard, libarchive_xattr, opq, sym

# 11: xattrs
BINARY = bytes(range(256)) + b'\n=\n\0'
CAP = struct.pack('<IIIII', 0x02000001, 1 << 13, 0, 0, 0)      # cap_net_raw=ep
NOTE = {'trusted.note': 'here'}
case('xattr-binary', 11, [f('a', '1', xattrs={'user.bin': BINARY})], tree={'/a': F('1', xattrs={'user.bin': BINARY})})
case('xattr-several', 11, [f('a', '1', xattrs={'user.z': '1', 'user.a': '2', 'trusted.t': '3', 'security.s': '4'})],
     tree={'/a': F('1', xattrs={'user.a': '2', 'user.z': '1', 'trusted.t': '3', 'security.s': '4'})})
case('xattr-every-kind', 11,
     [d('./', xattrs=NOTE), d('d', xattrs=NOTE), f('f', '1', xattrs=NOTE), sym('s', 'f', xattrs=NOTE), fifo('p', xattrs=NOTE),
      chardev('c', 1, 3, xattrs=NOTE), blockdev('b', 7, 1, xattrs=NOTE), f('empty', xattrs=NOTE)],
     tree={'/': D(xattrs=NOTE), '/d': D(xattrs=NOTE), '/f': F('1', xattrs=NOTE), '/s': S('f', xattrs=NOTE), '/p': P(xattrs=NOTE),
           '/c': C(1, 3, xattrs=NOTE), '/b': B(7, 1, xattrs=NOTE), '/empty': F(xattrs=NOTE)})
case('xattr-capability', 11, [f('ping', '1', mode=0o755, xattrs={'security.capability': CAP}), hard('ping4', 'ping')],
     tree={'/ping': F('1', 0o755, xattrs={'security.capability': CAP}), '/ping4': H('/ping')})
case('xattr-libarchive', 11,
     [f('a', '1', records=[libarchive_xattr('user.odd name%=', BINARY), libarchive_xattr('user.plain', b'x')])],
     tree={'/a': F('1', xattrs={'user.odd name%=': BINARY, 'user.plain': 'x'})})
case('xattr-both-spellings', 11,
     [f('a', '1', xattrs={'user.k': 'same'}, records=[libarchive_xattr('user.k', b'same')])],
     tree={'/a': F('1', xattrs={'user.k': 'same'})}, about='bsdtar writes each xattr twice')
case('xattr-empty-value', 11, [f('a', '1', xattrs={'user.empty': '', 'user.full': 'x'})],
     tree={'/a': F('1', xattrs={'user.empty': '', 'user.full': 'x'})},
     about='umoci drops it, as PAX says of an empty value; containerd keeps it')
case('xattr-long', 11, [f('a', '1', xattrs={'user.long': b'v' * 2000})], tree={'/a': F('1', xattrs={'user.long': b'v' * 2000})})
case('xattr-long-name', 11, [f('a', '1', xattrs={'user.' + 'n' * 250: 'v'})], tree={'/a': F('1', xattrs={'user.' + 'n' * 250: 'v'})})
case('xattr-shared', 11, [f('f%d' % i, '1', xattrs={'security.selinux': 'system_u:object_r:bin_t:s0\0', 'user.i': str(i % 3)})
                          for i in range(12)],
     tree={'/f%d' % i: F('1', xattrs={'security.selinux': 'system_u:object_r:bin_t:s0\0', 'user.i': str(i % 3)}) for i in range(12)})
case('xattr-other-namespaces', 11, [f('a', '1', xattrs={'trusted.x': '1', 'security.ima': b'\3\0', 'user.x': '2'})],
     tree={'/a': F('1', xattrs={'trusted.x': '1', 'security.ima': b'\3\0', 'user.x': '2'})})
case('xattr-overlay-dropped', 11,
     [d('o', xattrs={'trusted.overlay.opaque': 'y', 'trusted.keep': '1'}), f('o/x', '1'),
      f('m', '2', xattrs={'trusted.overlay.metacopy': '', 'trusted.overlay.origin': b'\0\1'})], [f('o/y', '3')],
     tree={'/o': D(xattrs={'trusted.keep': '1'}), '/o/x': F('1'), '/o/y': F('3'), '/m': F('2')},
     inspect=['trusted.overlay.opaque'])
case('xattr-overlay-not-opaque', 11, [d('o'), f('o/low', '1')], [d('o', xattrs={'trusted.overlay.opaque': 'y'}), f('o/up', '2')],
     tree={'/o': D(), '/o/low': F('1'), '/o/up': F('2')}, about="overlayfs' own mark means nothing in a layer")
for label, name, value, words in (
        ('name-with-nul', 'user.a\0b', 'v', ['NUL']), ('name-of-256-bytes', 'user.' + 'n' * 251, 'v', ['256 bytes']),
        ('foreign-name-of-256-bytes', 'com.apple.' + 'n' * 246, 'v', ['256 bytes']), ('without-name', '', 'v', ['empty']),
        ('capability-empty', 'security.capability', '', ['capabilities']), ('capability-text', 'security.capability', 'cap_net_raw+ep', ['capabilities']),
        ('capability-old', 'security.capability', struct.pack('<III', 0x01000001, 1, 0), ['capabilities']),
        ('capability-short', 'security.capability', CAP[:19], ['capabilities']), ('capability-long', 'security.capability', CAP + b'\0', ['capabilities']),
        ('acl-garbage', 'system.posix_acl_access', b'\2\0\0\0garbage.', ['ACL']),
        ('acl-without-owner', 'system.posix_acl_access', acl(('group::', 4, None), ('other', 0, None)), ['ACL'])):
    case('xattr-refused-' + label, 11, [f('the-file', '1', xattrs={name: value})], says=['the-file', *words],
         about='setxattr(2) refuses it, so containerd and Docker fail; in a guest the file could not be copied up')
case('xattr-capability-of-namespace', 11, [f('a', '1', xattrs={'security.capability': struct.pack('<IIIIII', 0x03000001, 1 << 13, 0, 0, 0, 1000)})],
     tree={'/a': F('1', xattrs={'security.capability': struct.pack('<IIIIII', 0x03000001, 1 << 13, 0, 0, 0, 1000)})})
case('acl-without-entries', 11, [f('a', '1', xattrs={'system.posix_acl_access': acl()})], tree={'/a': F('1')}, about='for setxattr(2) the wish to have none')
case('xattr-own-marks-dropped', 11, [f('a', '1', xattrs={'trusted.rootfs-compile.implied': '1'}),
                                     f('b', '2', xattrs={'trusted.rootfs-compile.link': 'a'})], tree={'/a': F('1'), '/b': F('2')})
ACL = acl(('user::', 6, None), ('user', 4, 10001), ('group::', 4, None), ('group', 5, 20), ('mask', 5, None), ('other', 0, None))
DEFAULT = acl(('user::', 7, None), ('group::', 5, None), ('other', 0, None))
case('acl-binary', 11, [f('a', '1', mode=0o650, xattrs={'system.posix_acl_access': ACL})],
     tree={'/a': F('1', 0o650, xattrs={'system.posix_acl_access': ACL})})
case('acl-text', 11,
     [f('a', '1', mode=0o650,
        records=[('SCHILY.acl.access', 'user::rw-,user:app:r--:10001,group::r--,group:20:r-x,mask::r-x,other::---')])],
     tree={'/a': F('1', 0o650, xattrs={'system.posix_acl_access': ACL})}, about='umoci does not know these records')
ALL = acl(('user::', 7, None), ('user', 7, 1000), ('group::', 7, None), ('mask', 7, None), ('other', 7, None))
OWNERS = acl(('user::', 6, None), ('user', 7, 1000), ('group::', 7, None), ('mask', 0, None), ('other', 0, None))
case('acl-against-mode', 11,
     [f('a', '1', mode=0o600, xattrs={'system.posix_acl_access': ALL}), f('b', '1', mode=0o640, xattrs={'system.posix_acl_access': acl(
         ('user::', 7, None), ('group::', 7, None), ('other', 7, None))})],
     tree={'/a': F('1', 0o600, xattrs={'system.posix_acl_access': OWNERS}), '/b': F('1', 0o640)},
     about='Docker and containerd set the mode behind the xattrs, umoci before them')
case('xattr-of-other-kinds', 11,
     [sym('s', 'x', xattrs={'user.x': '1', **NOTE}), sym('t', 'x', xattrs={'system.posix_acl_access': ALL}), fifo('p', xattrs={'user.x': '1'}),
      chardev('c', 1, 3, xattrs={'user.x': '1'}), f('f', '1', xattrs={'system.posix_acl_default': ALL})],
     tree={'/s': S('x', xattrs=NOTE), '/t': S('x'), '/p': P(), '/c': C(1, 3), '/f': F('1')},
     inspect=['user.x', 'system.posix_acl_access', 'system.posix_acl_default'],
     about='Linux lets none of them have it; in a guest the file could not be copied up')
case('xattr-too-large-for-a-guest', 11, [f('a', '1', xattrs={'user.large': b'v' * 60000})], tree={'/a': F('1', xattrs={'user.large': b'v' * 60000})},
     warns=['/a: its xattrs do not fit'], about='more than ext4 has room for')
case('acl-text-default', 11, [d('a', mode=0o750, records=[('SCHILY.acl.default', 'user::rwx,group::r-x,other::---')])],
     tree={'/a': D(0o750, xattrs={'system.posix_acl_default': DEFAULT})})
case('acl-default-not-inherited', 11, [d('a', mode=0o750, xattrs={'system.posix_acl_default': DEFAULT}), f('a/x', '1'), d('a/sub')],
     [f('a/later', '2'), f('a/implied/y', '3')],
     tree={'/a': D(0o750, xattrs={'system.posix_acl_default': DEFAULT}), '/a/x': F('1'), '/a/sub': D(), '/a/later': F('2'),
           '/a/implied': I, '/a/implied/y': F('3')})
case('xattr-of-opaque-dir', 11, [d('o'), f('o/x', '1')], [d('o', xattrs={'user.k': 'v'}), opq('o')],
     tree={'/o': D(xattrs={'user.k': 'v'})}, about='the mark of the layer object is not left beside it')

# 12: times
TIMES = [('frac', '1700000000.123456789', 1700000000, 123456789), ('tenth', '1700000000.1', 1700000000, 100000000),
         ('longer', '1700000000.1234567899', 1700000000, 123456789), ('zero', '0', 0, 0), ('last-ns', '1.999999999', 1, 999999999),
         ('before', '-1.5', -2, 500000000), ('long-before', '-2208988800', -2208988800, 0), ('y2038', '2147483648.5', 2147483648, 500000000),
         ('y2106', '4294967296', 4294967296, 0), ('y2400', '13569465600.25', 13569465600, 250000000)]
case('time-pax', 12, [f(n, mtime=s) for n, s, _, _ in TIMES], tree={'/' + n: F(mtime=s, ns=ns) for n, _, s, ns in TIMES})
case('time-pax-dirs-and-links', 12, [d('d', mtime='1.25'), sym('s', 'x', mtime='2.5'), fifo('p', mtime='3.75'), f('d/x', mtime='4.125')],
     tree={'/d': D(mtime=1, ns=250000000), '/s': S('x', mtime=2, ns=500000000), '/p': P(mtime=3, ns=750000000),
           '/d/x': F(mtime=4, ns=125000000)})
case('time-header', 12, [f('zero', mtime=0), f('one', mtime=1), f('y2038', mtime=2 ** 31), f('octal-end', mtime=8 ** 11 - 1)],
     tree={'/zero': F(mtime=0), '/one': F(mtime=1), '/y2038': F(mtime=2 ** 31), '/octal-end': F(mtime=8589934591)})
case('time-base256', 12, [f('before', mtime=-86400), f('after', mtime=8 ** 11)], tree={'/before': F(mtime=-86400), '/after': F(mtime=8589934592)})
case('time-dir-kept', 12, [d('d', mtime=100)], [f('d/new', '1')], tree={'/d': D(mtime=100), '/d/new': F('1')},
     about='a change below does not touch the time of a directory')
case('time-atime-ctime-ignored', 12, [f('a', records={'atime': '5.5', 'ctime': '6.5'})], tree={'/a': F()})

# 13: owners, modes, device numbers
case('ids-large', 13, [f('b256', uid=2 ** 32 - 2, gid=2 ** 31), f('octal', uid=0o7777777, gid=65536),
                       f('pax', records={'uid': '4294967294', 'gid': '3000000'}), d('dir', uid=65535, gid=65534)],
     tree={'/b256': F(uid=4294967294, gid=2147483648), '/octal': F(uid=2097151, gid=65536), '/pax': F(uid=4294967294, gid=3000000),
           '/dir': D(uid=65535, gid=65534)})
case('ids-pax-over-header', 13, [f('a', uid=5, gid=6, records={'uid': '7', 'gid': '8'})], tree={'/a': F(uid=7, gid=8)})
case('uid-no-id', 13, [f('the-file', uid=2 ** 32 - 1)], says=['the-file', '4294967295'])
case('gid-no-id', 13, [f('the-file', gid=2 ** 32 - 1)], says=['the-file', '4294967295'])
case('uid-negative', 13, [f('the-file', uid=base256(-2, 8))], says=['the-file'])
case('uid-too-large', 13, [f('the-file', uid=2 ** 32)], says=['the-file', '4294967296'])
case('uid-pax-too-large', 13, [f('the-file', records={'uid': '4294967295'})], says=['the-file', '4294967295'])
case('gid-pax-negative', 13, [f('the-file', records={'gid': '-1'})], says=['the-file'])
case('mode-bits', 13, [f('suid', mode=0o4755), f('sgid', mode=0o2755), d('sticky', mode=0o1777), f('all', mode=0o7777), f('none', mode=0),
                       d('sgid-dir', mode=0o2770)],
     tree={'/suid': F(mode=0o4755), '/sgid': F(mode=0o2755), '/sticky': D(0o1777), '/all': F(mode=0o7777), '/none': F(mode=0),
           '/sgid-dir': D(0o2770)})
case('mode-with-type-bits', 13, [f('a', mode=0o100644), d('b', mode=0o40755)], tree={'/a': F(), '/b': D()},
     about='some writers put all of st_mode into the field')
case('sgid-dir-not-inherited', 13, [d('g', mode=0o2775, gid=50), f('g/x', '1'), d('g/sub')], tree={'/g': D(0o2775, gid=50), '/g/x': F('1'), '/g/sub': D()})
case('devices', 13, [chardev('null', 1, 3, mode=0o666), blockdev('loop', 7, 200, mode=0o660, gid=6), chardev('wide', 4095, 1048575),
                     blockdev('minor', 8, 256)],
     tree={'/null': C(1, 3, 0o666), '/loop': B(7, 200, 0o660, gid=6), '/wide': C(4095, 1048575), '/minor': B(8, 256)})
case('device-major-too-large', 13, [chardev('the-device', 4096, 0)], says=['the-device', '4096'])
case('device-minor-too-large', 13, [blockdev('the-device', 1, 1048576)], says=['the-device', '1048576'])
