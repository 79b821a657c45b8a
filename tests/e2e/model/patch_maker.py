"""Random patches for checks/patch_random.py, on the random images of patch_image.py."""

import copy
import difflib
import re

from layout import Layer
from model.patch_choices import MODES, Choices, readable
from model.patch_image import LISTS, NAMES, WORDS
from model.patch_notation import Unclear, Wrong, raw
from model.patch_tree import Node

FINDS = [
    ('^#?Port .*', 'Port 2222'),
    ('key([0-9]+)=([a-z0-9]*)', 'k${1}_$2 = $1'),
    ('(?P<k>key[0-9])=(?P<v>[a-z0-9]*)', '${v}=${k}'),
    ('[aeiou]', '_'),
    (' +$', ''),
    ('^$', '-'),
    ('fox|no', 'x\\y'),
    ('nowhere', 'x'),
    ('ke', 'ke'),
]
CAPABILITIES = [
    'cap_net_raw+ep',
    'cap_net_raw,cap_setuid=p',
    'cap_chown=ei cap_chown+p',
    'cap_bpf,cap_syslog=ip',
    'cap_sys_admin+i',
    '=',
]
EXCLUDES = ['*.txt', 'a', 'lib', '[a-c]', '{b,d}', 'sub dir/*', '**/b', '*/c', 'lib/**/x.txt', '.*', 'x.*']


def ascii_text(data):
    return data and data.isascii() and not re.search(rb'[\0\r]', data)


def moves(whole, old, new):
    """Whether the hunks between `old`, which is a part of `whole`, and `new` fit one place of it, with enough around
    them not to be bound to an end."""
    for group in difflib.SequenceMatcher(None, old, new).get_grouped_opcodes(3):
        lines = old[group[0][1] : group[-1][2]]
        if (
            any(op != 'equal' or j - i < 3 for op, i, j, _, _ in (group[0], group[-1]))
            or sum(whole[i : i + len(lines)] == lines for i in range(len(whole))) != 1
        ):
            return False
    return True


class Maker(Choices):
    """Random patches. `tree` is how the image looks at the time."""

    def write(self):
        path, node = self.pick('file')
        data = self.data() if self.odds(0.85) else node.data
        fields, host = self.held(data)
        if self.odds(0.4):
            missing = self.odds(0.3)
            return {
                'path': self.fresh(missing),
                **fields,
                **self.about('mode', 'owner'),
                **({'parents': True} if missing or self.odds(0.1) else {}),
            }, host
        return {'path': self.say(path), **fields, **self.about('mode', 'owner', p=0.2)}, host

    def append(self):
        fields, host = self.held(self.data())
        return {'path': self.say(self.pick('file')[0]), **fields}, host

    def host_tree(self, depth=0):
        """A directory of the host, made of what the guest may have as well."""
        r, all_of_it = self.rng, []

        def fill(node, depth):
            for name in sorted({self.name() for _ in range(r.randint(0, 6))}):
                kind = r.choices(
                    ('dir', 'file', 'symlink', 'hard', 'fifo', 'char', 'socket'), (25, 45, 15, 12, 2, 2, 0.3)
                )[0]
                if kind == 'dir' and depth > 2:
                    kind = 'file'
                links = [n for n in all_of_it if not n.is_dir()]
                if kind == 'hard' and links:
                    node.names[name] = r.choice(links)
                    continue
                child = (
                    Node('file', 0o600)
                    if kind == 'socket'
                    else self.node('file' if kind == 'hard' else kind, b'/x/' + name)
                )
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
        path = (
            self.say(self.pick('file')[0])
            if how < 0.4
            else self.fresh(missing)
            if how < 0.7
            else self.say(self.pick('dir')[0]).rstrip('/') + '/'
        )
        return {'from': self.host(node, r.choice(NAMES[:12])), 'path': path, **more}, node

    def extract(self):
        at = b'/' if self.odds(0.4) else self.pick('dir')[0]
        entries = (
            self.layer(self.rng.randint(1, 12), at, keep=LISTS[:2] if self.odds(0.9) else ()) if self.is_dir(at) else []
        )
        layer = Layer(self.tar(entries), form=self.rng.choice(('plain', 'gzip', 'zstd')))
        path = {} if at == b'/' and self.odds(0.7) else {'path': self.say(at)}
        return {'from': self.host(layer.blob, 'x.tar'), **path}, entries

    def diff(self):
        r, lines, changes = self.rng, [], {}
        base = b'/' if self.odds(0.5) else self.pick('dir')[0]
        strip = r.choice((0, 1, 1, 1, 2))
        plain = lambda p: re.fullmatch(rb'[A-Za-z0-9_./ -]+', p)
        if not self.is_dir(base):
            return {'content': '--- /dev/null\n+++ b/x\n@@ -0,0 +1 @@\n+x\n', 'path': base.decode()}, [
                (b'x', None, b'x\n')
            ]
        place = self.tree.find(base)
        top = place.path.rstrip(b'/')
        some = [
            (p, n)
            for p, n in self.tree.walk(place.node, top)
            if plain(p) and n.kind == 'file' and ascii_text(n.data) and len(n.data) < 5000
        ]
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
            changes[r.choice(dirs).rstrip(b'/') + r.choice((b'/fresh diff', b'/deeper/down/fresh.txt'))] = (
                None,
                self.text(),
            )
        out = []
        for path, (old, new) in changes.items():
            a, b = old[1] if isinstance(old, tuple) else old or b'', new or b''
            if a == b or not all(ascii_text(t) or not t for t in (a, b)):
                continue
            rel = path[len(top) + 1 :]
            side = lambda text, letter, rel=rel: (
                '/dev/null' if text is None else '/'.join([*([letter] + ['x'] * strip)[:strip], rel.decode()])
            )
            stamp = '\t2024-01-02 03:04:05.000000000 +0000' if b' ' in rel or self.odds(0.5) else ''
            if self.odds(0.2):
                lines.append('diff -u %s %s\n' % (side(old, 'a'), side(new, 'b')))
            lines += ['--- %s%s\n' % (side(old, 'a'), stamp), '+++ %s%s\n' % (side(new, 'b'), stamp)]
            around = 3 if isinstance(old, tuple) else r.choice((3, 3, 1, 0))
            for line in list(difflib.unified_diff(a.decode().splitlines(True), b.decode().splitlines(True), n=around))[
                2:
            ]:
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
            lines[i : i + self.rng.randint(0, 2)] = [
                self.rng.choice(WORDS) + b' edited\n' for _ in range(self.rng.randint(0, 2))
            ]
        return b''.join(lines)

    def replace(self):
        some = [p for p, n in self.tree.walk() if n.kind == 'file' and ascii_text(n.data) and readable(p)]
        if not some:
            return None
        fits = [
            (f, w, len(re.findall(raw(f), self.tree.find(p, False).node.data, re.M)), p)
            for f, w in FINDS
            for p in self.rng.sample(some, min(8, len(some)))
        ]
        find, text, n, path = (
            self.rng.choice([x for x in fits if x[2]] or fits) if not self.odds(0.05) else self.rng.choice(fits)
        )
        return {
            'path': self.say(path),
            'find': find,
            'with': text,
            **({'count': self.rng.randint(1, n + self.odds(0.1)) if n else 1} if self.odds(0.5) else {}),
        }, None

    def mkdir(self):
        if self.odds(0.2):
            return {'path': self.say(self.pick('dir')[0]), 'parents': True, **self.about('mode', 'owner')}, None
        missing = self.odds(0.3)
        return {
            'path': self.fresh(missing),
            **self.about('mode', 'owner'),
            **({'parents': True} if missing or self.odds(0.1) else {}),
        }, None

    def new(self, forced):
        """The path of a new link or node, or of one to replace."""
        if forced and self.odds(0.4):
            return {'path': self.say(self.pick('file', 'symlink', 'fifo', 'char')[0], follow=False), 'force': True}
        missing = self.odds(0.15)
        return {
            'path': self.fresh(missing),
            **({'parents': True} if missing or self.odds(0.05) else {}),
            **({'force': True} if forced and self.odds(0.1) else {}),
        }

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
            fields['major'], fields['minor'] = self.rng.choice(
                ((10, 200), (0, 1), (4095, 1048575), (8, 0), (0, 0), (255, 256), (256, 255))
            )
        return {**fields, 'kind': kind, **self.about('mode', 'owner')}, None

    def remove(self):
        missing = {'missing': 'ok'} if self.odds(0.2) else {}
        if missing and self.odds(0.5):
            return {'path': self.fresh(self.odds(0.5)), **missing}, None
        path, node = self.pick('file', 'file', 'symlink', 'dir', 'fifo')
        path = self.glob() if self.odds(0.3) else self.say(path, follow=False)
        deep = (node.names and len(list(self.tree.walk(node))) < 12) or self.odds(0.1)
        return {'path': path, **({'recursive': True} if deep or self.odds(0.05) else {}), **missing}, None

    def rename(self):
        src = self.pick('file', 'file', 'symlink', 'dir', 'dir', 'fifo')
        small = [(p, n) for p, n in (self.pick('dir') for _ in range(5)) if len(list(self.tree.walk(n))) < 15]
        src = self.rng.choice(small) if src[1].is_dir() and small else src
        force = self.odds(0.3)
        same = [
            p
            for p, n in self.tree.walk()
            if n.is_dir() == src[1].is_dir() and not n.names and p != src[0] and readable(p)
        ]
        to = (
            self.say(self.rng.choice(same), follow=False)
            if force and same
            else src[0].decode()
            if self.odds(0.05)
            else self.fresh()
        )
        return {'from': self.say(src[0], follow=False), 'path': to, **({'force': True} if force else {})}, None

    def chmod(self):
        return {
            'path': self.any('file', 'dir', 'symlink'),
            'mode': self.rng.choice(MODES),
            **self.about('recursive', p=0.15),
        }, None

    def chown(self):
        return {
            'path': self.any('file', 'dir', 'symlink', 'fifo'),
            'owner': self.owner(),
            **self.about('recursive', p=0.15),
        }, None

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
            names = r.sample(
                ('user.one', 'user.new', 'trusted.x', 'trusted.overlayfs', 'security.capability', 'user.ü'),
                r.randint(1, 2),
            )
            names += ['trusted.overlay.x'] if self.odds(0.03) else []
            value = lambda: r.choice(
                ('', 'plain', 'ü $$', 'base64:AP8KAA==', 'base64:', '0x00', 'v' * 900 if self.odds(0.2) else 'w')
            )
            fields['set'] = {n: r.choice(CAPABILITIES) if 'cap' in n else value() for n in names if n not in gone}
        return fields, None

    def user(self):
        r = self.rng
        fields = {'name': r.choice(('app2', 'svc', 'svc-2', 'web', 'x_y', 'app'))}
        for key, values in (
            ('uid', (1000, 1001, 70001, 2000000, 1)),
            ('gid', (2000, 1000, 70001)),
            ('group', ('staff', 'tty', '50', 'nogroup')),
            ('home', ('/srv/home', '/opt/u', '/srv/app')),
            ('shell', ('/bin/false', '/usr/bin/tool')),
            ('comment', ('A User', '')),
            ('groups', (['staff'], ['staff', 'daemon'], ['none'] if self.odds(0.1) else ['tty'])),
        ):
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
        weights = {
            'write': 10,
            'append': 6,
            'copy': 9,
            'extract': 6,
            'diff': 7,
            'replace': 5,
            'mkdir': 6,
            'symlink': 6,
            'link': 8,
            'remove': 8,
            'rename': 9,
            'chmod': 8,
            'chown': 7,
            'xattr': 8,
            'mknod': 3,
            'user': 3,
            'include': 0 if nested else 2,
        }
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
