"""Random patches on random images: what the kernel shows must be what the plain model of tests/patchmodel.py says.

Environment: PATCH_MODEL_SEEDS=from-to (other seeds than those of CI; all errors are built, not a few), PATCH_MODEL_OPS (25 an image).
"""
import copy
import difflib
import json
import os
import random
import re
import stat
import sys
import types

import compare
from checks import check
from checks.common import BINARY, TOP, Failed, build, call, need, need_no_leftovers, quiet_kernel, same_files, scratch
from checks.upper import clean, overlay
from patchmodel import MAGIC, NS, Node, Tree, Unclear, Wrong, parts, raw

sys.path.append(os.path.join(TOP, 'testimages/cases'))
import tarfmt  # noqa: E402
from layout import Layer, Layout, tagged  # noqa: E402

SEEDS, OPS = range(1, 41), int(os.environ.get('PATCH_MODEL_OPS', 25))
NAMES = ['a', 'b', 'c', 'd', 'lib', 'bin', 'x.txt', 'y.conf', 'sub dir', 'x[1]', 'st*r', '{b,c}', 'q?', '.hid', 'ü', '日本', '-dash', "it's", 'back\\slash',
         '$x', 'tab\there', '#no', '"q"', 'n' * 200]
WORDS = b'Port 22|#Port 22|key1=val1|key2=val2|key3=|export A=1|the quick brown fox|  indented|trailing  ||PermitRootLogin no|x|-- y|++ z'.split(b'|')
FINDS = [('^#?Port .*', 'Port 2222'), ('key([0-9]+)=([a-z0-9]*)', 'k${1}_$2 = $1'), ('(?P<k>key[0-9])=(?P<v>[a-z0-9]*)', '${v}=${k}'), ('[aeiou]', '_'), (' +$', ''),
         ('^$', '-'), ('fox|no', 'x\\y'), ('nowhere', 'x'), ('ke', 'ke')]
MODES = ['0644', '0600', '0755', '4755', '2755', '1777', '0', '7', '0750', '6711', '7777', 'u=rwX,go=rX', 'u-s', '+t', 'a+x', 'go-rwx', 'ug+s', 'u=rwx,g=u,o=', 'a=r',
         '+X', 'g=rx', 'o-t,u+w', 'a-s', '=rw', 'o=g', 'u+s,g-x']
CAPABILITIES = ['cap_net_raw+ep', 'cap_net_raw,cap_setuid=p', 'cap_chown=ei cap_chown+p', 'cap_bpf,cap_syslog=ip', 'cap_sys_admin+i', '=']
NET_RAW = bytes.fromhex('0100000200200000' + '00' * 12)
USERS = ['root', 'daemon', 'app', 'web']
LISTS = b'/etc/passwd', b'/etc/group', b'/etc/shadow', b'/etc/gshadow'
EXCLUDES = ['*.txt', 'a', 'lib', '[a-c]', '{b,d}', 'sub dir/*', '**/b', '*/c', 'lib/**/x.txt', '.*', 'x.*']


def ascii_text(data):
    return data and data.isascii() and not re.search(rb'[\0\r]', data)


def seconds(ns):
    return '%s%d.%09d' % (('-' if ns < 0 else '',) + divmod(abs(ns), NS))


class Maker:
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
        return self.text() if self.odds(0.6) else r.randbytes(size) if self.odds(0.5) else r.randbytes(64) * (size // 64)

    def text(self):
        lines = [self.rng.choice(WORDS) + (b' %d' % i if self.odds(0.5) else b'') for i in range(self.rng.randint(1, 30))]
        return b'\n'.join(lines) + (b'' if self.odds(0.1) else b'\n')

    def name(self):
        return raw(self.rng.choice(NAMES))

    def some_path(self):
        """Any path of the tree, for the target of a link; or none."""
        path = self.rng.choice([p for p, _ in self.tree.walk() if not p.startswith(b'/deep/')])
        return path if self.odds(0.9) else path.rstrip(b'/') + b'/gone'

    def target(self, at):
        """Where a link at `at` leads to: absolute, relative, with too many .., to itself, or nowhere; sometimes too long for an inode."""
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
        mtime = r.choice((1_600_000_000 * NS + r.randrange(NS), 1_700_000_000 * NS, -86_400_250_000_000, 4_000_000_000 * NS + NS // 2, 0, 1))
        n = Node(kind, r.choice((0o644, 0o755, 0o600, 0o4755, 0o2755, 0o6711, 0o1777, 0, 0o7777, 0o2640)), r.choice((0, 0, 1, 1000, 65535, 65536, 70000, 2 ** 32 - 2)),
                 r.choice((0, 0, 50, 1000, 65536, 70000)), mtime)
        if self.odds(0.25):
            for name in r.sample((b'user.one', b'user.two', b'trusted.x', b'trusted.long.name', b'security.capability', b'user.big'), r.randint(1, 3)):
                if kind in ('file', 'dir') or name.startswith(b'trusted'):
                    n.xattrs[name] = (r.choice((NET_RAW, bytes.fromhex('0000000200000000ff0000000000000000000000'))) if b'cap' in name else
                                      r.randbytes(r.choice((300, 1500))) if b'big' in name else r.choice((b'', b'v', b'\0\xff\n', r.randbytes(40))))
        if kind == 'dir' and self.odds(0.05):
            n.xattrs[b'system.posix_acl_default'] = tarfmt.acl(('user::', 7, None), ('user', 5, 1000), ('group::', 5, None), ('mask', 5, None), ('other', 0, None))
        if kind == 'file':
            n.data = self.data()
            if self.odds(0.05):
                n.mode = 0o654
                n.xattrs[b'system.posix_acl_access'] = tarfmt.acl(('user::', 6, None), ('user', 4, 1000), ('group::', 4, None), ('mask', 5, None), ('other', 4, None))
            elif self.odds(0.05):
                n.xattrs, n.mtime = {}, 1_600_000_000 * NS
                segments = [(at, r.randbytes(r.choice((10, 5000)))) for at in sorted(r.sample(range(0, 1 << 19, 8192), 6))]
                n.sparse = r.choice(('S', '0.0', '0.1', '1.0')), segments, 1 << 19 | 5
                n.data = tarfmt.sparse_bytes(*n.sparse[1:])
        elif kind == 'symlink':
            n.mode, n.target = 0o777, self.target(at)
        elif kind in ('char', 'block'):
            n.rdev = r.choice(((1, 3), (8, 300), (4095, 1048575), (259, 65536)))
        return n

    def layer(self, count, at=b'/', keep=()):
        """The entries of a tar whose root is `at`. Each must mean one thing only, so none takes the place of what another one needs."""
        r, before = self.rng, self.tree
        self.tree = work = copy.deepcopy(before)
        base = work.find(at)
        top = base.path.rstrip(b'/')
        hides, hidden, brings, used, frozen, pinned, gone = [], [], [], {}, set(), set(), {}
        within = lambda: [(p, n) for p, n in work.walk(base.node, top) if p != base.path]
        for _ in range(r.randint(0, 3)):
            there = [p for p, _ in within() if not any((k + b'/').startswith(p + b'/') for k in [*keep, *frozen]) and not any(p.startswith(k + b'/') for k in frozen)]
            if there:
                path = r.choice(there)
                node = work.find(path, follow=False).node
                opaque = node.is_dir() and self.odds(0.5)
                name, crossed = self.through(path, top) if not opaque and not any((h + b'/').startswith(path + b'/') for h in hidden) else (path, ())
                hidden.append(path)
                hides.append({'name': name[len(top) + 1:], 'kind': 'opaque' if opaque else 'whiteout'})
                frozen |= {*crossed, path} if crossed else set()
                gone.update((p, n) for p, n in work.walk(node, path) if not n.is_dir())
                work.layer(hides[-1:], base)
        for _ in range(count):
            there = within()
            if there and self.odds(0.25):
                loc = r.choice(there)[0]
            else:
                loc = r.choice([base.path.rstrip(b'/')] + [p for p, n in there if n.is_dir() and p.count(b'/') < 6]) + b'/' + self.name()
                loc += b'/' + self.name() if self.odds(0.1) and not work.find(loc, follow=False).node else b''
            kind = r.choices(('dir', 'file', 'symlink', 'hard', 'fifo', 'char', 'block'), (20, 35, 20, 18, 2, 2, 2))[0]
            try:
                old = work.find(loc, follow=False).node
            except Wrong:               # an implied directory is to come first
                old = None
            merges = kind == 'dir' and old and old.is_dir()
            below = loc + b'/'
            if loc in used or any(related(p, loc) for p in pinned) or not merges and any((p + b'/').startswith(below) for p in [*used, *pinned, *frozen, *hidden, *keep]):
                continue
            name, crossed = self.through(loc, top) if self.odds(0.2) and not old and kind != 'dir' else (loc, ())
            if any(p in used or p in pinned for p in crossed):
                continue
            e = {'name': name[len(top) + 1:], 'kind': kind}
            if kind == 'hard':
                lost = [p for p in gone if p not in [*frozen, *crossed] and not any(related(p, u) for u in [*used, loc]) and self.odds(0.2)]
                links = [p for p, n in there if not n.is_dir() and p != loc and used.get(p, p) == p and p not in [*frozen, *crossed]]
                if not links and not lost:
                    continue
                path = r.choice(lost or links)
                e['target'] = path[len(top) + 1:]
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
        assert trial.dump() == work.dump(), 'the model disagrees with itself:\n' + compare.show(work.dump(), trial.dump())
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
                climbs = any(b'/../' in self.tree.find(c, follow=False).node.target.lstrip(b'./') for c in place.crossed)   # through what may be replaced
                if place.node and place.node.is_dir() and place.path == parent and not climbs and not any(c.startswith(path + b'/') for c in place.crossed):
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
        kw = {'mode': n.mode, 'uid': n.uid, 'gid': n.gid, 'mtime': seconds(n.mtime), 'xattrs': {k.decode(): v for k, v in n.xattrs.items()}}
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
        """Writes a layout, and leaves in `tree` what it holds: what is always there, and layers of so many random things."""
        N = lambda kind, mode=0o755, **kw: Node(kind, mode, mtime=1_700_000_000 * NS, **kw)
        lists = {b'etc/passwd': b'root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/:/bin/false\napp:x:70000:50:An App:/srv:/bin/sh',
                 b'etc/group': b'root:x:0:\ndaemon:x:1:root,app\nstaff:x:50:\ntty:x:5:\n', b'etc/shadow': b'root:*:1:0:99999:7:::\n',
                 b'etc/gshadow': b'root:*::\ndaemon:*::root,app\nstaff:!::\n'}
        first = [{'name': raw(d), 'kind': 'dir', 'node': N('dir')} for d in 'etc usr usr/lib usr/bin home srv srv/app srv/app/data var var/lib opt deep'.split()]
        first += [{'name': name, 'kind': 'file', 'node': N('file', 0o640 if b'shadow' in name else 0o644, data=data)} for name, data in lists.items()
                  if b'shadow' not in name or self.odds(0.6)]
        links = {'bin': 'usr/bin', 'lib': '/usr/lib', 'srv/up': '../usr/../var', 'home/out': '../../../../srv', 'opt/loop': 'loop', 'opt/one': 'two',
                 'opt/two': '/opt/one', 'etc/alias': '../etc', 'usr/bin/conf': '/etc/app.conf', 'etc/dangling': 'not/there', 'etc/new': '/srv/new-file', 'bin2': 'bin'}
        links.update(('deep/%02d' % i, '%02d' % (i + 1) if i < 41 else '../etc') for i in range(1, 42))      # 02 is 40 links away from it, 01 41
        first += [{'name': raw(name), 'kind': 'symlink', 'node': N('symlink', 0o777, target=raw(target))} for name, target in links.items()]
        first += [{'name': b'etc/app.conf', 'kind': 'file', 'node': N('file', 0o644, data=b'\n'.join(WORDS) + b'\n')},
                  {'name': b'usr/bin/tool', 'kind': 'file', 'node': N('file', 0o4755, data=b'#!/bin/sh\n', xattrs={b'security.capability': NET_RAW})},
                  {'name': b'usr/lib/tool', 'kind': 'hard', 'target': b'usr/bin/tool'}, {'name': b'srv/app/tool', 'kind': 'hard', 'target': b'usr/lib/tool'},
                  {'name': b'srv/app/\xff\xfe', 'kind': 'file', 'node': N('file', 0o644, data=b'not UTF-8')}]
        layers = [first]
        self.tree.layer(first)
        for count in counts:
            layers.append(self.layer(count, keep=LISTS[:2]))
            self.tree.layer(layers[-1])
        out = Layout(path)
        out.index(tagged(out.image([Layer(self.tar(entries), form=self.rng.choice(('plain', 'gzip', 'zstd'))) for entries in layers])))

    # ---- how a path may be spelled

    def pick(self, *kinds):
        """A path that text can name, mostly of one of `kinds`."""
        deep, lists = self.odds(0.03), self.odds(0.25)      # the long chain of links is large and all alike; without the lists there are no names
        some = [(p, n) for p, n in self.tree.walk() if p != b'/' and readable(p) and deep >= p.startswith(b'/deep/') and (lists or not p.startswith(LISTS))]
        fit = [(p, n) for p, n in some if n.kind in kinds] if not self.odds(0.04) else []
        return self.rng.choice(fit or some or [(b'/', self.tree.root)])

    def say(self, path, follow=True):
        """Another spelling of a path that leads to the same."""
        place = self.tree.find(path, follow=False)
        links = []
        for p, n in self.tree.walk():
            if n.kind == 'symlink' and readable(p):
                try:
                    links.append((p, self.tree.find(p).path))
                except Wrong:
                    pass
        for _ in range(self.rng.choice((0, 0, 1, 2))):
            new, r = path, self.rng.random()
            if r < 0.6:
                fit = [(p, to) for p, to in links if (path + b'/').startswith(to.rstrip(b'/') + b'/') and (follow or to != path)]
                if fit:
                    p, to = self.rng.choice(fit)
                    new = p + b'/' + path[len(to.rstrip(b'/')) + 1:] if to != path else p
            else:
                comps = path.split(b'/')
                i = self.rng.randint(1, len(comps) - 1)
                here = b'/'.join(comps[:i]) or b'/'
                try:
                    at = self.tree.find(here)
                except Wrong:
                    continue
                subs = [n for n, c in at.node.names.items() if c.is_dir() and readable(n)] if at.node else []
                new = b'/'.join(comps[:i] + self.rng.choice(([b'.'], [b''], [self.rng.choice(subs), b'..'] if subs else [b'.'])) + comps[i:])
            try:
                found = self.tree.find(new, follow)
            except Wrong:
                continue
            if (found.path, found.name) == (self.tree.find(path, follow).path if follow else place.path, found.name) or follow and found.node is place.node:
                path = new
        return path.decode() + ('/' if self.odds(0.03) else '')

    def fresh(self, missing=False):
        """A path for something new, in a directory that is there unless `missing`."""
        into = self.pick('dir')[0]
        path = self.say(into).rstrip('/') if into != b'/' else ''
        for _ in range(self.rng.randint(1, 2) if missing else 0):
            path += '/' + self.rng.choice(('made', 'new dir', 'z'))
        return path + '/' + self.rng.choice(NAMES + ['fresh%d' % self.rng.randint(0, 99)])

    def glob(self):
        """A glob that fits something, with luck not much."""
        comps = [c.decode() for c in parts(self.pick('file', 'dir', 'symlink')[0])]
        out = []
        for i, c in enumerate(comps):
            how = self.rng.choice(('*', 'head', 'tail', 'one', 'class', 'brace', 'same', 'same', 'same')) if i else 'same'
            plain = not MAGIC.search(raw(c)) and '\\' not in c and c.isascii()
            if how == '*' or not plain:
                out.append('*')
            else:
                out.append({'head': c[0] + '*', 'tail': '*' + c[-1], 'one': '?' + c[1:], 'class': '[' + c[0] + 'm-o]' + c[1:], 'brace': '{' + c + ',other}',
                            'same': c}[how])
        if len(out) > 2 and self.odds(0.2):
            i = self.rng.randint(1, len(out) - 2)
            out[i:self.rng.randint(i, len(out) - 1)] = ['**']
        return '/' + '/'.join(out)

    def is_dir(self, path):
        try:
            return self.tree.existing(path).node.is_dir()
        except Wrong:
            return False

    def any(self, *kinds):
        """For operations that take globs."""
        return self.glob() if self.odds(0.3) else self.say(self.pick(*kinds)[0])

    def owner(self):
        r = self.rng
        user, group = r.choice(USERS + ['0', '1000', '70000', '4294967294']), r.choice(('root', 'staff', 'tty', 'daemon', '0', '70000', 'app'))
        text = r.choice((user, user + ':' + group, user + ':' + group, ':' + group, user + ':'))
        return int(text) if text.isdigit() and self.odds(0.3) else text

    def about(self, *keys, p=0.3):
        """Some of the fields that several operations have."""
        out = {}
        for key in keys:
            if self.odds(p):
                out[key] = self.rng.choice(MODES) if key == 'mode' else self.owner() if key == 'owner' else True
        return out

    def host(self, value, name='file'):
        """Notes what is to lie on the host, and returns its `from`."""
        path = 'host/%d/%s' % (len(self.hosts), name)
        self.hosts.append((path, value))
        return path

    def held(self, data):
        """`content` or `from`, and what is there."""
        try:
            if self.odds(0.5) and not re.search('[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]', data.decode()):
                return {'content': data.decode()}, None
        except UnicodeDecodeError:
            pass
        return {'from': self.host(data)}, data

    # ---- the operations

    def write(self):
        path, node = self.pick('file')
        data = self.data() if self.odds(0.85) else node.data
        fields, host = self.held(data)
        if self.odds(0.4):
            missing = self.odds(0.3)
            return {'path': self.fresh(missing), **fields, **self.about('mode', 'owner'), **({'parents': True} if missing or self.odds(0.1) else {})}, host
        return {'path': self.say(path), **fields, **self.about('mode', 'owner', p=0.2)}, host

    def append(self):
        fields, host = self.held(self.data())
        return {'path': self.say(self.pick('file')[0]), **fields}, host

    def host_tree(self, depth=0):
        """A directory of the host, made of what the guest may have as well."""
        r, all_of_it = self.rng, []

        def fill(node, depth):
            for name in sorted({self.name() for _ in range(r.randint(0, 6))}):
                kind = r.choices(('dir', 'file', 'symlink', 'hard', 'fifo', 'char', 'socket'), (25, 45, 15, 12, 2, 2, 0.3))[0]
                if kind == 'dir' and depth > 2:
                    kind = 'file'
                links = [n for n in all_of_it if not n.is_dir()]
                if kind == 'hard' and links:
                    node.names[name] = r.choice(links)
                    continue
                child = Node('file', 0o600) if kind == 'socket' else self.node('file' if kind == 'hard' else kind, b'/x/' + name)
                child.kind = 'socket' if kind == 'socket' else child.kind
                all_of_it.append(child)
                node.names[name] = child
                if child.is_dir():
                    fill(child, depth + 1)
            if depth == 1 and self.odds(0.03):
                node.names.update((b'%03d ' % i + b'x' * 60, Node('file', 0o644, data=b'%d' % i)) for i in range(300))
        top = self.node('dir', b'/x')
        fill(top, 0)
        return top

    def copy(self):
        r, missing = self.rng, self.odds(0.15)
        more = {**self.about('mode', 'owner'), **({'parents': True} if missing or self.odds(0.1) else {})}
        if self.odds(0.5):
            node = self.host_tree()
            if self.odds(0.4):
                more['exclude'] = r.sample(EXCLUDES, r.randint(1, 3))
            path = self.fresh(missing) if missing or self.odds(0.4) else self.say(self.pick('dir')[0])
            return {'from': self.host(node, r.choice(('tree', 'a tree'))), 'path': path, **more}, node
        node = self.node('file', b'/x')
        how = r.random()
        path = self.say(self.pick('file')[0]) if how < 0.4 else self.fresh(missing) if how < 0.7 else self.say(self.pick('dir')[0]).rstrip('/') + '/'
        return {'from': self.host(node, r.choice(NAMES[:12])), 'path': path, **more}, node

    def extract(self):
        at = b'/' if self.odds(0.4) else self.pick('dir')[0]
        entries = self.layer(self.rng.randint(1, 12), at, keep=LISTS[:2] if self.odds(0.9) else ()) if self.is_dir(at) else []
        layer = Layer(self.tar(entries), form=self.rng.choice(('plain', 'gzip', 'zstd')))
        path = {} if at == b'/' and self.odds(0.7) else {'path': self.say(at)}
        return {'from': self.host(layer.blob, 'x.tar'), **path}, entries

    def diff(self):
        r, lines, changes = self.rng, [], {}
        base = b'/' if self.odds(0.5) else self.pick('dir')[0]
        strip = r.choice((0, 1, 1, 1, 2))
        plain = lambda p: re.fullmatch(rb'[A-Za-z0-9_./ -]+', p)
        if not self.is_dir(base):
            return {'content': '--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+x\n', 'path': base.decode()}, [(b'x', None, b'x\n')]
        place = self.tree.find(base)
        top = place.path.rstrip(b'/')
        some = [(p, n) for p, n in self.tree.walk(place.node, top) if plain(p) and n.kind == 'file' and ascii_text(n.data) and len(n.data) < 5000]
        dirs = [p for p, n in self.tree.walk(place.node, top) if plain(p) and n.is_dir()]
        for path, node in r.sample(some, min(len(some), r.randint(1, 3))):
            old, new = node.data, self.edited(node.data)
            if self.odds(0.15):
                changes[path] = (old, None)
            elif self.odds(0.3):
                split = old.splitlines(True)
                front, old = b''.join(split[:3]), b''.join(split[3:])
                new = self.edited(old)
                if self.odds(0.2):
                    changes[path] = (b'not so\n' + old, new)
                elif moves(split, old.splitlines(True), new.splitlines(True)):
                    changes[path] = ((front, old), new)
            else:
                changes[path] = (old, new)
        if dirs and self.odds(0.4):
            changes[r.choice(dirs).rstrip(b'/') + r.choice((b'/fresh diff', b'/deeper/down/fresh.txt'))] = (None, self.text())
        out = []
        for path, (old, new) in changes.items():
            a, b = old[1] if isinstance(old, tuple) else old or b'', new or b''
            if a == b or not all(ascii_text(t) or not t for t in (a, b)):
                continue
            rel = path[len(top) + 1:]
            side = lambda text, letter: '/dev/null' if text is None else '/'.join(([letter] + ['x'] * strip)[:strip] + [rel.decode()])
            stamp = '\t2024-01-02 03:04:05.000000000 +0000' if b' ' in rel or self.odds(0.5) else ''
            if self.odds(0.2):
                lines.append('diff -u %s %s\n' % (side(old, 'a'), side(new, 'b')))
            lines += ['--- %s%s\n' % (side(old, 'a'), stamp), '+++ %s%s\n' % (side(new, 'b'), stamp)]
            around = 3 if isinstance(old, tuple) else r.choice((3, 3, 1, 0))
            for line in list(difflib.unified_diff(a.decode().splitlines(True), b.decode().splitlines(True), n=around))[2:]:
                lines.append(line if line.endswith('\n') else line + '\n\\ No newline at end of file\n')
            out.append((rel, old, new))
        if not out:
            return None
        fields, _ = self.held(''.join(lines).encode())
        if strip != 1:
            fields['strip'] = strip
        return {**fields, **({'path': self.say(base)} if base != b'/' or self.odds(0.1) else {})}, out

    def edited(self, data):
        lines = data.splitlines(True)
        for _ in range(self.rng.randint(1, 3)):
            i = self.rng.randint(0, len(lines))
            lines[i:i + self.rng.randint(0, 2)] = [self.rng.choice(WORDS) + b' edited\n' for _ in range(self.rng.randint(0, 2))]
        return b''.join(lines)

    def replace(self):
        some = [p for p, n in self.tree.walk() if n.kind == 'file' and ascii_text(n.data) and readable(p)]
        if not some:
            return None
        fits = [(f, w, len(re.findall(raw(f), self.tree.find(p, False).node.data, re.M)), p) for f, w in FINDS for p in self.rng.sample(some, min(8, len(some)))]
        find, text, n, path = self.rng.choice([x for x in fits if x[2]] or fits) if not self.odds(0.05) else self.rng.choice(fits)
        return {'path': self.say(path), 'find': find, 'with': text, **({'count': self.rng.randint(1, n + self.odds(0.1)) if n else 1} if self.odds(0.5) else {})}, None

    def mkdir(self):
        if self.odds(0.2):
            return {'path': self.say(self.pick('dir')[0]), 'parents': True, **self.about('mode', 'owner')}, None
        missing = self.odds(0.3)
        return {'path': self.fresh(missing), **self.about('mode', 'owner'), **({'parents': True} if missing or self.odds(0.1) else {})}, None

    def new(self, forced):
        """The path of a new link or node, or of one to replace."""
        if forced and self.odds(0.4):
            return {'path': self.say(self.pick('file', 'symlink', 'fifo', 'char')[0], follow=False), 'force': True}
        missing = self.odds(0.15)
        return {'path': self.fresh(missing), **({'parents': True} if missing or self.odds(0.05) else {}), **({'force': True} if forced and self.odds(0.1) else {})}

    def symlink(self):
        path, node = self.pick('symlink')
        if self.odds(0.1):
            return {'path': self.say(path, follow=False), 'target': node.target.decode('utf-8', 'replace')}, None
        fields = self.new(True)
        target = self.target(raw(fields['path']))
        return ({**fields, 'target': target.decode(), **self.about('owner', p=0.2)}, None) if readable(target) else None

    def link(self):
        target = self.pick('file', 'file', 'fifo', 'char')[0]
        return {**self.new(True), 'target': self.say(target)}, None

    def mknod(self):
        kind, fields = self.rng.choice(('char', 'block', 'fifo')), self.new(False)
        if kind != 'fifo' or self.odds(0.05):
            fields['major'], fields['minor'] = self.rng.choice(((10, 200), (0, 1), (4095, 1048575), (8, 0), (0, 0), (255, 256), (256, 255)))
        return {**fields, 'kind': kind, **self.about('mode', 'owner')}, None

    def remove(self):
        missing = {'missing': 'ok'} if self.odds(0.2) else {}
        if missing and self.odds(0.5):
            return {'path': self.fresh(self.odds(0.5)), **missing}, None
        path, node = self.pick('file', 'file', 'symlink', 'dir', 'fifo')
        path = self.glob() if self.odds(0.3) else self.say(path, follow=False)
        deep = node.names and len(list(self.tree.walk(node))) < 12 or self.odds(0.1)
        return {'path': path, **({'recursive': True} if deep or self.odds(0.05) else {}), **missing}, None

    def rename(self):
        src = self.pick('file', 'file', 'symlink', 'dir', 'dir', 'fifo')
        small = [(p, n) for p, n in (self.pick('dir') for _ in range(5)) if len(list(self.tree.walk(n))) < 15]
        src = self.rng.choice(small) if src[1].is_dir() and small else src
        force = self.odds(0.3)
        same = [p for p, n in self.tree.walk() if n.is_dir() == src[1].is_dir() and not n.names and p != src[0] and readable(p)]
        to = self.say(self.rng.choice(same), follow=False) if force and same else src[0].decode() if self.odds(0.05) else self.fresh()
        return {'from': self.say(src[0], follow=False), 'path': to, **({'force': True} if force else {})}, None

    def chmod(self):
        return {'path': self.any('file', 'dir', 'symlink'), 'mode': self.rng.choice(MODES), **self.about('recursive', p=0.15)}, None

    def chown(self):
        return {'path': self.any('file', 'dir', 'symlink', 'fifo'), 'owner': self.owner(), **self.about('recursive', p=0.15)}, None

    def xattr(self):
        r, path = self.rng, self.any('file', 'file', 'dir', 'symlink')
        fields = {'path': path}
        try:
            have = [k.decode() for n in self.tree.followed(raw(path)) for k in n.xattrs]
        except (Wrong, Unclear):
            have = []
        gone = r.sample(sorted(set(have)), 1) if have and self.odds(0.3) else ['user.none'] if self.odds(0.03) else []
        if gone:
            fields['remove'] = gone
        if not gone or self.odds(0.3):
            names = r.sample(('user.one', 'user.new', 'trusted.x', 'trusted.overlayfs', 'security.capability', 'user.ü'), r.randint(1, 2))
            names += ['trusted.overlay.x'] if self.odds(0.03) else []
            value = lambda: r.choice(('', 'plain', 'ü $$', 'base64:AP8KAA==', 'base64:', '0x00', 'v' * 900 if self.odds(0.2) else 'w'))
            fields['set'] = {n: r.choice(CAPABILITIES) if 'cap' in n else value() for n in names if n not in gone}
        return fields, None

    def user(self):
        r = self.rng
        fields = {'name': r.choice(('app2', 'svc', 'svc-2', 'web', 'x_y', 'app'))}
        for key, values in (('uid', (1000, 1001, 70001, 2000000, 1)), ('gid', (2000, 1000, 70001)), ('group', ('staff', 'tty', '50', 'nogroup')),
                            ('home', ('/srv/home', '/opt/u', '/srv/app')), ('shell', ('/bin/false', '/usr/bin/tool')), ('comment', ('A User', '')),
                            ('groups', (['staff'], ['staff', 'daemon'], ['none'] if self.odds(0.1) else ['tty']))):
            if self.odds(0.3) and not (key == 'group' and 'gid' in fields):
                fields[key] = r.choice(values)
        return {**fields, **self.about('create-home', p=0.5)}, None

    def include(self):
        """Some patches in a file of their own; the last of them may be one that fails."""
        before, some = self.tree, []
        for _ in range(self.rng.randint(1, 4)):
            patch, why = self.patch(nested=True)
            some.append(patch)
            if why:
                break
        self.tree = before
        return None, some

    def patch(self, nested=False):
        """A patch that does something or fails, applied to `tree`; with what is wrong with it."""
        weights = {'write': 10, 'append': 6, 'copy': 9, 'extract': 6, 'diff': 7, 'replace': 5, 'mkdir': 6, 'symlink': 6, 'link': 8, 'remove': 8, 'rename': 9, 'chmod': 8,
                   'chown': 7, 'xattr': 8, 'mknod': 3, 'user': 3, 'include': 0 if nested else 2}
        while True:
            op = self.rng.choices(list(weights), list(weights.values()))[0]
            try:
                made = getattr(self, op)()
            except Wrong:
                continue
            if made is None:
                continue
            trial = copy.deepcopy(self.tree)
            patch = (op, *made)
            try:
                trial.apply([patch])
            except Unclear:
                continue
            except Wrong as e:
                return patch, str(e)
            self.tree = trial
            return patch, None


def moves(whole, old, new):
    """Whether the hunks between `old`, which is a part of `whole`, and `new` fit one place of it, with enough around them not to be bound to an end."""
    for group in difflib.SequenceMatcher(None, old, new).get_grouped_opcodes(3):
        lines = old[group[0][1]:group[-1][2]]
        if any(op != 'equal' or j - i < 3 for op, i, j, _, _ in (group[0], group[-1])) or sum(whole[i:i + len(lines)] == lines for i in range(len(whole))) != 1:
            return False
    return True


def related(a, b):
    """Whether one is the other or above it."""
    return (a + b'/').startswith(b + b'/') or (b + b'/').startswith(a + b'/')


def readable(path):
    try:
        return path.decode() is not None
    except UnicodeDecodeError:
        return False


def long(make, name, letter, *args, link=b'', **kw):
    """An entry whose name or target may be too long for its field."""
    if letter == b'5' and not name.endswith(b'/'):
        name += b'/'
    records = {key: value for key, value in (('path', name), ('linkpath', link)) if len(value) > 100}
    return make(name if len(name) <= 100 else b'long', letter, *args, link=link if len(link) <= 100 else b'long', records=records, **kw)


def put(path, value):
    """Writes what lies on the host."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    done = {}

    def node(path, n):
        if id(n) in done:
            return os.link(done[id(n)], path, follow_symlinks=False)
        done[id(n)] = path
        if n.kind == 'symlink':
            return os.symlink(n.target, path)
        if n.kind == 'dir':
            os.mkdir(path)
            for name, child in n.names.items():
                node(path + b'/' + name, child)
        elif n.kind == 'file':
            with open(path, 'wb') as file:
                file.write(n.data)
        else:
            os.mknod(path, {'char': stat.S_IFCHR, 'block': stat.S_IFBLK, 'fifo': stat.S_IFIFO, 'socket': stat.S_IFSOCK}[n.kind], os.makedev(*n.rdev))
        os.chown(path, 12345, 54321)                # that is not to be taken over
        os.chmod(path, n.mode)
        for name in (k for k in n.xattrs if k.startswith(b'user.') and len(n.xattrs[k]) < 100):
            os.setxattr(path, name, n.xattrs[name])
    if isinstance(value, bytes):
        with open(path, 'wb') as file:
            file.write(value)
    else:
        node(raw(path), value)


class Manifest:
    """Patches as text. `line` is that of the last one, in `file`: an included one if that is where it is."""

    def __init__(self, rng, directory, patches, image, size):
        self.rng, self.directory, self.vars, self.number = rng, directory, {}, 0
        body, line = self.listed(patches, '')
        head = ['image: oci:' + image, 'platform: linux/amd64'] + (['upper: { size: %s }' % size] if size else [])
        head += ['vars:'] + ['  %s: %s' % (k, json.dumps(v, ensure_ascii=False)) for k, v in self.vars.items()] if self.vars else []
        op = patches[-1][0] if patches else ''
        self.file, self.line, self.op = self.last if op == 'include' else ('m.yaml', line + len(head) + 2, op)
        self.path, self.text = os.path.join(directory, 'm.yaml'), '\n'.join(head + ['patches:' if body else 'patches: []'] + body) + '\n'
        with open(self.path, 'w') as file:
            file.write(self.text)

    def string(self, text, key=''):
        """A value in quotes, with some of it from a variable."""
        dollar = lambda s: re.sub(r'\$(?=[${])|\$\Z', '$$', s) if self.rng.random() < 0.7 else s.replace('$', '$$')
        if len(text) > 1 and len(text) < 4000 and self.rng.random() < 0.06:
            i = self.rng.randrange(len(text))
            j = self.rng.randint(i, min(len(text), i + 20))
            name = 'V%d' % len(self.vars)
            self.vars[name] = dollar(text[i:j])
            text = text[:i].replace('$', '$$') + '${%s}' % name + text[j:].replace('$', '$$')
        else:
            text = dollar(text)
        if key in ('mode', 'path') and re.fullmatch('0[0-7]{3}|/[a-z/]*[a-z]', text) and self.rng.random() < 0.5:
            return text
        return json.dumps(text, ensure_ascii=False)

    def value(self, v, key='', up=''):
        if isinstance(v, bool):
            return 'true' if v else 'false'
        if isinstance(v, int):
            return str(v)
        if isinstance(v, list):
            return '[%s]' % ', '.join(map(self.value, v))
        if isinstance(v, dict):
            return '{ %s }' % ', '.join('%s: %s' % (json.dumps(k, ensure_ascii=False), self.value(x)) for k, x in v.items())
        return self.string(up + v if key == 'from' and v.startswith('host/') else v, key)

    def listed(self, patches, up):
        """The lines of a list, and the index of the last patch's."""
        lines, at = [], 0
        for op, fields, host in patches:
            at = len(lines)
            if op == 'include':
                self.number += 1
                inner, line = self.listed(host, '../../')
                name = 'parts/%d/p%d.yaml' % (self.number, self.number)
                self.last = os.path.basename(name), line + 1, host[-1][0]
                os.makedirs(os.path.join(self.directory, os.path.dirname(name)), exist_ok=True)
                with open(os.path.join(self.directory, name), 'w') as file:
                    file.write('\n'.join(inner) + '\n')
                lines.append('  - include: ' + self.string(name))
                continue
            items = ['%s: %s' % (k, self.value(v, k, up)) for k, v in fields.items()]
            if self.rng.random() < 0.7:
                lines.append('  - %s: { %s }' % (op, ', '.join(items)))
            else:
                lines += ['  - %s:' % op] + ['      ' + item for item in items]
        return lines, at


class ByDevice:
    """What compare.read() has for os while it reads an overlay: files of the lower and of the upper may share an inode number there, and only the
    device tells them apart."""

    def __getattr__(self, name):
        return getattr(os, name)

    def lstat(self, path):
        st = os.lstat(path)
        return types.SimpleNamespace(**{k: getattr(st, k) for k in dir(st) if k.startswith('st_')} | {'st_ino': (st.st_dev, st.st_ino)})


def seen(at):
    compare.os = ByDevice()
    try:
        return compare.read(at)
    finally:
        compare.os = os


def differences(out, tmp, tree, lower, was):
    """What is wrong with a bundle, as text. `lower` is tree.freeze() from before the patches, `was` its dump()."""
    expected, kept = tree.dump(), {compare.escape(p): n for p, n in tree.untouched(lower).items()}
    for path, names in kept.items():
        if expected[path]['type'] != 'dir':         # overlayfs counts the names of the layer, also those that are whited out
            expected[path]['nlink'] = names
    clean(os.path.join(out, 'upper.ext4'))
    with overlay(out, tmp) as (at, _, up):
        upper = compare.read(os.path.join(up, 'upper'))
        text = compare.show(expected, seen(at))
    wrong = []
    whiteouts = {e.get('inode', path) for path, e in upper.items() if e['type'] == 'char' and e['rdev'] == [0, 0]}
    for path, e in upper.items():
        if e['type'] == 'char' and e['rdev'] == [0, 0]:
            needless = path not in was or path in expected
        elif e['type'] == 'dir':
            needless = path in kept and path != '/' and not any(p.startswith(path + '/') for p in upper)
        else:
            needless = path in kept
        if needless:
            wrong.append('%s: needless in the upper, as %s' % (path, e['type']))
    if len(whiteouts) > 1:
        wrong.append('the whiteouts are of several inodes: ' + ', '.join(sorted(whiteouts)))
    return '\n'.join(([text] if text else []) + wrong)


class Run:
    """One image with one sequence of patches."""

    def __init__(self, seed, tmp):
        self.seed, self.tmp, self.maker = seed, tmp, Maker(seed)
        self.maker.image(os.path.join(tmp, 'image'))
        self.lower, self.base = self.maker.tree.freeze(), self.maker.tree
        self.was, self.good, self.bad = self.base.dump(), [], []
        while len(self.good) < OPS:
            patch, why = self.maker.patch()
            if why:
                self.bad.append((len(self.good), patch, why))
            else:
                self.good.append(patch)
        for path, value in self.maker.hosts:
            put(os.path.join(tmp, path), value)
        self.size = random.Random(seed).choice(('64MiB', '100MiB', None))

    def manifest(self, patches):
        return Manifest(random.Random(self.seed), self.tmp, patches, os.path.join(self.tmp, 'image'), self.size)

    def build(self, m, out, *args, ok=(0,), cache='cache'):
        return build(m.path, out, *args, cache=os.path.join(self.tmp, cache), ok=ok, env={**os.environ, 'SOURCE_DATE_EPOCH': str(self.maker.now)})

    def judge(self, patches):
        """What is wrong with the result of some patches; None if they are not to be judged."""
        tree = copy.deepcopy(self.base)
        try:
            tree.apply(patches)
        except (Wrong, Unclear):
            return None
        with scratch() as tmp:
            try:
                self.build(self.manifest(patches), os.path.join(tmp, 'bundle'))
                call(BINARY, 'verify', os.path.join(tmp, 'bundle'))
                return differences(os.path.join(tmp, 'bundle'), tmp, tree, self.lower, self.was)
            except (Failed, OSError, ValueError) as e:
                return str(e)

    def least(self, patches):
        """The patches without those that it fails without as well."""
        for i in reversed(range(len(patches))):
            fewer = patches[:i] + patches[i + 1:]
            if self.judge(fewer):
                patches = fewer
        return patches

    def failing(self, before, patch, why):
        """A patch that must fail does, and says where."""
        m = self.manifest(self.good[:before] + [patch])
        with scratch() as tmp:
            out = os.path.join(tmp, 'bundle')
            p = self.build(m, out, ok=range(-64, 256))
            text = m.text.split('\n')
            where = '%s:%d: %s ' % (m.file, m.line, m.op)
            need(p.returncode in (1, 2), 'seed %d: exit %d of what is an error (%s): %s\n%s' % (self.seed, p.returncode, why, '\n'.join(text[-12:]), p.stderr[-600:]))
            need(where in p.stderr and 'panicked' not in p.stderr, 'seed %d: the message does not begin with %r (%s): %s' % (self.seed, where, why, p.stderr[-600:]))
            need_no_leftovers(tmp)


@check('patch-model')
def model():
    given = os.environ.get('PATCH_MODEL_SEEDS')
    seeds = range(int(given.split('-')[0]), int(given.split('-')[-1]) + 1) if given else SEEDS
    failed, counts = [], [0, 0]
    for seed in seeds:
        with scratch() as tmp, quiet_kernel():
            run = Run(seed, tmp)
            wrong = run.judge(run.good)
            if wrong:
                least = run.least(run.good)
                failed.append('seed %d, SOURCE_DATE_EPOCH=%d:\n%s\n%s' % (seed, run.maker.now, run.manifest(least).text, run.judge(least) or wrong))
            errors = run.bad if given else run.bad[:4]
            for error in errors:
                try:
                    run.failing(*error)
                except Failed as e:
                    failed.append(str(e))
            if seed % 4 == 0 and not wrong:
                for name in ('one', 'two'):
                    run.build(run.manifest(run.good), os.path.join(tmp, name), cache='cache-' + name)
                same_files(os.path.join(tmp, 'one'), os.path.join(tmp, 'two'), 'seed %d, built twice' % seed)
        counts[0] += len(run.good)
        counts[1] += len(errors)
    need(not failed, '%d failures:\n%s' % (len(failed), '\n'.join(failed)))
    return '%d images, %d patches, %d errors' % (len(seeds), *counts)


NOTHING = '''
  - chmod: { path: /usr/bin/tool, mode: "4755" }
  - chmod: { path: /usr/bin/tool, mode: "u+s" }
  - chown: { path: /usr, owner: "0:0", recursive: true }
  - write: { path: /usr/bin/tool, content: "#!/bin/sh\\n", mode: "4755", owner: "0:0" }
  - append: { path: /etc/app.conf, content: "" }
  - replace: { path: /etc/app.conf, find: "key1", with: "key1" }
  - mkdir: { path: /usr/lib, parents: true }
  - mkdir: { path: /usr/lib, parents: true, mode: "0755", owner: root }
  - symlink: { path: /bin, target: usr/bin }
  - link: { path: /usr/lib/tool, target: /bin/tool }
  - remove: { path: "/usr/*/nothing*", missing: ok }
  - rename: { from: /usr/lib, path: /usr/lib2 }
  - rename: { from: /usr/lib2, path: /usr/lib }
  - rename: { from: /etc/app.conf, path: /lib/app.conf }
  - rename: { from: /usr/lib/app.conf, path: /etc/app.conf }
  - rename: { from: /etc/app.conf, path: /etc/../etc/app.conf }
  - xattr: { path: /usr/bin/tool, set: { user.x: "1" } }
  - xattr: { path: /usr/lib/tool, remove: [user.x] }
  - mkdir: { path: /made }
  - write: { path: /made/file, content: "gone again" }
  - remove: { path: /made, recursive: true }
  - remove: { path: /srv/app/tool }
  - link: { path: /srv/app/tool, target: /usr/bin/tool }
  - chmod: { path: /etc, mode: "0700" }
  - chmod: { path: /etc, mode: "a=rX,u+w" }'''


@check('patch-nothing')
def nothing():
    """Patches after which all is as before leave the upper empty: each one alone, where it is nothing alone, and all together."""
    with scratch() as tmp, quiet_kernel():
        maker = Maker(0)
        maker.image(os.path.join(tmp, 'image'), ())
        with open(os.path.join(tmp, 'm.yaml'), 'w') as file:
            file.write('image: oci:%s/image\nplatform: linux/amd64\nupper: { size: 64MiB }\npatches:%s\n' % (tmp, NOTHING))
        out = os.path.join(tmp, 'bundle')
        build(os.path.join(tmp, 'm.yaml'), out, env={**os.environ, 'SOURCE_DATE_EPOCH': '1'})
        clean(os.path.join(out, 'upper.ext4'))
        with overlay(out, tmp) as (at, _, up):
            left = sorted(compare.read(os.path.join(up, 'upper')).keys() - {'/'})
            need(not left, 'in the upper though nothing changed: ' + ', '.join(left))
            text = compare.show(maker.tree.dump(), seen(at))
            need(not text, text)
