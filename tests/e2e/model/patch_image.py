"""Random images for checks/patch_random.py."""

import copy
import os
import random

import tarfmt
from harness import compare
from layout import Layer, Layout, tagged
from model.patch_model import Tree
from model.patch_notation import NS, Wrong, raw
from model.patch_tree import Node

NAMES = [
    'a',
    'b',
    'c',
    'd',
    'lib',
    'bin',
    'x.txt',
    'y.conf',
    'sub dir',
    'x[1]',
    'st*r',
    '{b,c}',
    'q?',
    '.hid',
    'ü',
    '日本',
    '-dash',
    "it's",
    'back\\slash',
    '$x',
    'tab\there',
    '#no',
    '"q"',
    'n' * 200,
]
WORDS = (
    b'Port 22|#Port 22|key1=val1|key2=val2|key3=|export A=1|the quick brown fox|  indented|trailing  '
    b'||PermitRootLogin no|x|-- y|++ z'
).split(b'|')
NET_RAW = bytes.fromhex('0100000200200000' + '00' * 12)
LISTS = b'/etc/passwd', b'/etc/group', b'/etc/shadow', b'/etc/gshadow'


def seconds(ns):
    return '%s%d.%09d' % (('-' if ns < 0 else '', *divmod(abs(ns), NS)))


def related(a, b):
    """Whether one is the other or above it."""
    return (a + b'/').startswith(b + b'/') or (b + b'/').startswith(a + b'/')


def long(make, name, letter, *args, link=b'', **kw):
    """An entry whose name or target may be too long for its field."""
    if letter == b'5' and not name.endswith(b'/'):
        name += b'/'
    records = {key: value for key, value in (('path', name), ('linkpath', link)) if len(value) > 100}
    return make(
        name if len(name) <= 100 else b'long',
        letter,
        *args,
        link=link if len(link) <= 100 else b'long',
        records=records,
        **kw,
    )


class Images:
    """Random things. `tree` is how the image looks at the time."""

    def __init__(self, seed):
        self.rng, self.hosts = random.Random(seed), []
        self.now = self.rng.choice((1_750_000_000, 1_750_000_000, 86_399, 4_200_000_000))
        self.tree = Tree(self.now)
        self.tree.root.mtime = 0

    def odds(self, p):
        return self.rng.random() < p

    # ---- what an image holds

    def data(self):
        r = self.rng
        size = r.choice((0, 1, 100, 4095, 4096, 4097, 9000, 20000))
        return (
            self.text() if self.odds(0.6) else r.randbytes(size) if self.odds(0.5) else r.randbytes(64) * (size // 64)
        )

    def text(self):
        lines = [
            self.rng.choice(WORDS) + (b' %d' % i if self.odds(0.5) else b'') for i in range(self.rng.randint(1, 30))
        ]
        return b'\n'.join(lines) + (b'' if self.odds(0.1) else b'\n')

    def name(self):
        return raw(self.rng.choice(NAMES))

    def some_path(self):
        """Any path of the tree, for the target of a link; or none."""
        path = self.rng.choice([p for p, _ in self.tree.walk() if not p.startswith(b'/deep/')])
        return path if self.odds(0.9) else path.rstrip(b'/') + b'/gone'

    def target(self, at):
        """Where a link at `at` leads to: absolute, relative, with too many .., to itself, or nowhere;
        sometimes too long for an inode."""
        there, r = self.some_path(), self.rng.random()
        if r < 0.4:
            return there
        if r < 0.8:
            return os.path.relpath(there, os.path.dirname(at))
        if r < 0.9:
            return b'../' * 9 + there[1:] + (b'/' if self.odds(0.2) else b'') if there != b'/' else b'.'
        return self.rng.choice((b'nowhere', os.path.basename(at), b'./' * 60 + b'x', b'/' + b'long' * 200))

    def node(self, kind, at):
        r = self.rng
        mtime = r.choice(
            (
                1_600_000_000 * NS + r.randrange(NS),
                1_700_000_000 * NS,
                -86_400_250_000_000,
                4_000_000_000 * NS + NS // 2,
                0,
                1,
            )
        )
        n = Node(
            kind,
            r.choice((0o644, 0o755, 0o600, 0o4755, 0o2755, 0o6711, 0o1777, 0, 0o7777, 0o2640)),
            r.choice((0, 0, 1, 1000, 65535, 65536, 70000, 2**32 - 2)),
            r.choice((0, 0, 50, 1000, 65536, 70000)),
            mtime,
        )
        if self.odds(0.25):
            for name in r.sample(
                (b'user.one', b'user.two', b'trusted.x', b'trusted.long.name', b'security.capability', b'user.big'),
                r.randint(1, 3),
            ):
                if kind in ('file', 'dir') or name.startswith(b'trusted'):
                    n.xattrs[name] = (
                        r.choice((NET_RAW, bytes.fromhex('0000000200000000ff0000000000000000000000')))
                        if b'cap' in name
                        else r.randbytes(r.choice((300, 1500)))
                        if b'big' in name
                        else r.choice((b'', b'v', b'\0\xff\n', r.randbytes(40)))
                    )
        if kind == 'dir' and self.odds(0.05):
            n.xattrs[b'system.posix_acl_default'] = tarfmt.acl(
                ('user::', 7, None), ('user', 5, 1000), ('group::', 5, None), ('mask', 5, None), ('other', 0, None)
            )
        if kind == 'file':
            n.data = self.data()
            if self.odds(0.05):
                n.mode = 0o654
                n.xattrs[b'system.posix_acl_access'] = tarfmt.acl(
                    ('user::', 6, None), ('user', 4, 1000), ('group::', 4, None), ('mask', 5, None), ('other', 4, None)
                )
            elif self.odds(0.05):
                n.xattrs, n.mtime = {}, 1_600_000_000 * NS
                segments = [
                    (at, r.randbytes(r.choice((10, 5000)))) for at in sorted(r.sample(range(0, 1 << 19, 8192), 6))
                ]
                n.sparse = r.choice(('S', '0.0', '0.1', '1.0')), segments, 1 << 19 | 5
                n.data = tarfmt.sparse_bytes(*n.sparse[1:])
        elif kind == 'symlink':
            n.mode, n.target = 0o777, self.target(at)
        elif kind in ('char', 'block'):
            n.rdev = r.choice(((1, 3), (8, 300), (4095, 1048575), (259, 65536)))
        return n

    def layer(self, count, at=b'/', keep=()):
        """The entries of a tar whose root is `at`.
        Each must mean one thing only, so none takes the place of what another one needs."""
        r, before = self.rng, self.tree
        self.tree = work = copy.deepcopy(before)
        base = work.find(at)
        top = base.path.rstrip(b'/')
        hides, hidden, brings, used, frozen, pinned, gone = [], [], [], {}, set(), set(), {}
        within = lambda: [(p, n) for p, n in work.walk(base.node, top) if p != base.path]
        for _ in range(r.randint(0, 3)):
            there = [
                p
                for p, _ in within()
                if not any((k + b'/').startswith(p + b'/') for k in [*keep, *frozen])
                and not any(p.startswith(k + b'/') for k in frozen)
            ]
            if there:
                path = r.choice(there)
                node = work.find(path, follow=False).node
                opaque = node.is_dir() and self.odds(0.5)
                name, crossed = (
                    self.through(path, top)
                    if not opaque and not any((h + b'/').startswith(path + b'/') for h in hidden)
                    else (path, ())
                )
                hidden.append(path)
                hides.append({'name': name[len(top) + 1 :], 'kind': 'opaque' if opaque else 'whiteout'})
                frozen |= {*crossed, path} if crossed else set()
                gone.update((p, n) for p, n in work.walk(node, path) if not n.is_dir())
                work.layer(hides[-1:], base)
        for _ in range(count):
            there = within()
            if there and self.odds(0.25):
                loc = r.choice(there)[0]
            else:
                loc = (
                    r.choice([base.path.rstrip(b'/')] + [p for p, n in there if n.is_dir() and p.count(b'/') < 6])
                    + b'/'
                    + self.name()
                )
                loc += b'/' + self.name() if self.odds(0.1) and not work.find(loc, follow=False).node else b''
            kind = r.choices(('dir', 'file', 'symlink', 'hard', 'fifo', 'char', 'block'), (20, 35, 20, 18, 2, 2, 2))[0]
            try:
                old = work.find(loc, follow=False).node
            except Wrong:  # an implied directory is to come first
                old = None
            merges = kind == 'dir' and old and old.is_dir()
            below = loc + b'/'
            if (
                loc in used
                or any(related(p, loc) for p in pinned)
                or (not merges and any((p + b'/').startswith(below) for p in [*used, *pinned, *frozen, *hidden, *keep]))
            ):
                continue
            name, crossed = self.through(loc, top) if self.odds(0.2) and not old and kind != 'dir' else (loc, ())
            if any(p in used or p in pinned for p in crossed):
                continue
            e = {'name': name[len(top) + 1 :], 'kind': kind}
            if kind == 'hard':
                lost = [
                    p
                    for p in gone
                    if p not in [*frozen, *crossed] and not any(related(p, u) for u in [*used, loc]) and self.odds(0.2)
                ]
                links = [
                    p
                    for p, n in there
                    if not n.is_dir() and p != loc and used.get(p, p) == p and p not in [*frozen, *crossed]
                ]
                if not links and not lost:
                    continue
                path = r.choice(lost or links)
                e['target'] = path[len(top) + 1 :]
                pinned.add(path)
                place = work.find(loc, follow=False, implied=True)
                place.parent.names[place.name] = gone[path] if lost else work.find(path, follow=False).node
            else:
                e['node'] = self.node(kind, loc)
                work.layer([e], base)
            used[loc] = name
            frozen |= set(crossed)
            brings.append(e)
        if self.odds(0.15):
            brings.append({'name': b'', 'kind': 'dir', 'node': self.node('dir', b'/')})
            work.layer(brings[-1:], base)
        for e in hides:
            brings.insert(r.randint(0, len(brings)), e)
        self.tree = before
        trial = copy.deepcopy(before)
        trial.layer(brings, trial.find(at))
        assert trial.dump() == work.dump(), 'the model disagrees with itself:\n' + compare.show(
            work.dump(), trial.dump()
        )
        return brings

    def through(self, path, top):
        """The path of a tar entry through a link to its directory, and the links on the way."""
        parent, name = os.path.split(path)
        links = []
        for p, n in self.tree.walk():
            if n.kind == 'symlink' and p.startswith(top + b'/'):
                try:
                    place = self.tree.find(p)
                except Wrong:
                    continue
                climbs = any(
                    b'/../' in self.tree.find(c, follow=False).node.target.lstrip(b'./') for c in place.crossed
                )  # through what may be replaced
                if (
                    place.node
                    and place.node.is_dir()
                    and place.path == parent
                    and not climbs
                    and not any(c.startswith(path + b'/') for c in place.crossed)
                ):
                    links.append((p + b'/' + name, place.crossed))
        return self.rng.choice(links) if links else (path, ())

    def tar(self, entries):
        return b''.join(self.tar_entry(e) for e in entries)

    def tar_entry(self, e):
        name, kind, n = e['name'] or b'./', e['kind'], e.get('node')
        if kind == 'whiteout':
            return long(tarfmt.entry, os.path.join(os.path.dirname(name), b'.wh.' + os.path.basename(name)), b'0')
        if kind == 'opaque':
            return long(tarfmt.entry, os.path.join(e['name'], b'.wh..wh..opq'), b'0')
        if kind == 'hard':
            return long(tarfmt.entry, name, b'1', link=e['target'])
        kw = {
            'mode': n.mode,
            'uid': n.uid,
            'gid': n.gid,
            'mtime': seconds(n.mtime),
            'xattrs': {k.decode(): v for k, v in n.xattrs.items()},
        }
        if kind == 'file' and getattr(n, 'sparse', None) and len(name) < 80:
            form, segments, size = n.sparse
            kw = {'mode': n.mode, 'uid': n.uid, 'gid': n.gid, 'mtime': n.mtime // NS}
            if form == 'S':
                return tarfmt.gnu_sparse(name, segments, size, **kw)
            return tarfmt.pax_sparse(form, name.decode('utf-8', 'surrogateescape'), segments, size, **kw)
        if kind == 'symlink':
            kw['link'] = n.target
        elif kind in ('char', 'block'):
            kw['dev'] = n.rdev
        letter = {'file': b'0', 'symlink': b'2', 'char': b'3', 'block': b'4', 'dir': b'5', 'fifo': b'6'}[kind]
        return long(tarfmt.entry, name, letter, n.data, **kw)

    def image(self, path, counts=(50, 25)):
        """Writes a layout, and leaves in `tree` what it holds:
        what is always there, and layers of so many random things."""
        N = lambda kind, mode=0o755, **kw: Node(kind, mode, mtime=1_700_000_000 * NS, **kw)
        lists = {
            b'etc/passwd': b'root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/bin/false\n'
            b'app:x:70000:50:An App:/srv:/bin/sh',
            b'etc/group': b'root:x:0:\ndaemon:x:1:root,app\nstaff:x:50:\ntty:x:5:\n',
            b'etc/shadow': b'root:*:1:0:99999:7:::\n',
            b'etc/gshadow': b'root:*::\ndaemon:*::root,app\nstaff:!::\n',
        }
        first = [
            {'name': raw(d), 'kind': 'dir', 'node': N('dir')}
            for d in ('etc usr usr/lib usr/bin home srv srv/app srv/app/data var var/lib opt deep').split()
        ]
        first += [
            {'name': name, 'kind': 'file', 'node': N('file', 0o640 if b'shadow' in name else 0o644, data=data)}
            for name, data in lists.items()
            if b'shadow' not in name or self.odds(0.6)
        ]
        links = {
            'bin': 'usr/bin',
            'lib': '/usr/lib',
            'srv/up': '../usr/../var',
            'home/out': '../../../../srv',
            'opt/loop': 'loop',
            'opt/one': 'two',
            'opt/two': '/opt/one',
            'etc/alias': '../etc',
            'usr/bin/conf': '/etc/app.conf',
            'etc/dangling': 'not/there',
            'etc/new': '/srv/new-file',
            'bin2': 'bin',
        }
        links.update(
            ('deep/%02d' % i, '%02d' % (i + 1) if i < 41 else '../etc') for i in range(1, 42)
        )  # 02 is 40 links away from it, 01 41
        first += [
            {'name': raw(name), 'kind': 'symlink', 'node': N('symlink', 0o777, target=raw(target))}
            for name, target in links.items()
        ]
        first += [
            {'name': b'etc/app.conf', 'kind': 'file', 'node': N('file', 0o644, data=b'\n'.join(WORDS) + b'\n')},
            {
                'name': b'usr/bin/tool',
                'kind': 'file',
                'node': N('file', 0o4755, data=b'#!/bin/sh\n', xattrs={b'security.capability': NET_RAW}),
            },
            {'name': b'usr/lib/tool', 'kind': 'hard', 'target': b'usr/bin/tool'},
            {'name': b'srv/app/tool', 'kind': 'hard', 'target': b'usr/lib/tool'},
            {'name': b'srv/app/\xff\xfe', 'kind': 'file', 'node': N('file', 0o644, data=b'not UTF-8')},
        ]
        layers = [first]
        self.tree.layer(first)
        for count in counts:
            layers.append(self.layer(count, keep=LISTS[:2]))
            self.tree.layer(layers[-1])
        out = Layout(path)
        out.index(
            tagged(
                out.image(
                    [Layer(self.tar(entries), form=self.rng.choice(('plain', 'gzip', 'zstd'))) for entries in layers]
                )
            )
        )
