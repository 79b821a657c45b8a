"""What patches and layers mean, as a plain tree in memory: nothing here knows of EROFS, ext4 or overlayfs.

It follows what is written of patches, not what the compiler does, and raises Wrong for what must be an error of the
build, Unclear for what the rules leave open (so that no case tests it). Names and contents are bytes; a patch is
(op, fields, host), where fields are as in the manifest, and host is what lies at `from`: bytes, a Node, the entries of
a tar, or the changes of a diff.
"""

import base64
import copy
import re

from model.patch_notation import NS, XATTRS, Unclear, Wrong, caps_of, excluded, mode_of, raw
from model.patch_tree import Base


class Tree(Base):
    def apply(self, patches):
        for op, fields, host in patches:
            getattr(self, 'op_' + op)(fields, host)

    def op_include(self, f, patches):
        self.apply(patches)

    def content(self, f, host):
        return raw(f['content']) if 'content' in f else host

    def op_write(self, f, host):
        if f['path'].endswith('/'):
            raise Wrong('a file has no slash at its end')
        data = self.content(f, host)
        place = self.find(raw(f['path']), parents=f.get('parents', False))
        node = place.node
        if node is None:
            if place.dangling and f.get('parents'):
                raise Unclear('parents of what a link leads to')
            place.parent.names[place.name] = node = self.own(
                self.made('file', mode_of(f.get('mode', '0644'), 0o644, False), data=data), f.get('owner')
            )
            return
        if node.kind != 'file':
            raise Wrong('no file')
        if 'owner' in f:
            self.own(node, f['owner'])  # mode and other xattrs stay; only chown is said to clear any
        if 'mode' in f:
            self.no_acl(node)
            node.mode = mode_of(f['mode'], node.mode, False)
        if node.data != data:
            self.rewrite(node, data)

    def rewrite(self, node, data):
        """The file `node` gets another content; the kernel takes capabilities away when a file is written to."""
        node.data, node.mtime = data, self.now
        node.xattrs.pop(b'security.capability', None)

    def file(self, path):
        node = self.existing(raw(path)).node
        if node.kind != 'file':
            raise Wrong('no file')
        return node

    def op_append(self, f, host):
        node, data = self.file(f['path']), self.content(f, host)
        if data:
            self.rewrite(node, node.data + data)

    def op_copy(self, f, host):
        path = raw(f['path'])
        if 'owner' in f:  # once, before anything is copied, which may be what names owners
            uid, gid = self.ids(f['owner'])
            f = {**f, 'owner': ('' if uid is None else str(uid)) + ('' if gid is None else ':%d' % gid)}
        if host.is_dir():
            orders = []
            for backwards in (True, False):
                trial = copy.deepcopy(self)
                try:
                    trial.copy_tree(f, host, path, backwards)
                    orders.append(trial.dump())
                except Wrong as e:
                    orders.append(e)
            if isinstance(orders[1], Wrong):
                if orders[0] != orders[1] and not isinstance(orders[0], Wrong):
                    raise Unclear('the order of copying')
                raise orders[1]
            if orders[0] != orders[1]:
                raise Unclear('the order of copying')
            return self.copy_tree(f, host, path, False)
        if path.endswith(b'/'):
            into = self.find(path, parents=f.get('parents', False))
            if into.node is None:
                if not f.get('parents'):
                    raise Wrong('no directory')
                if into.dangling:
                    raise Unclear('parents of what a link leads to')
                into.node = into.parent.names[into.name] = self.made('dir', 0o755)
            elif not into.node.is_dir():
                raise Wrong('no directory')
            path = into.path + b'/' + raw(f['from'].split('/')[-1])
        place = self.find(path, parents=f.get('parents', False))
        if place.node and place.node.is_dir():
            raise Wrong('a directory is there')
        if place.dangling or (place.node and place.node.kind != 'file'):
            raise Unclear('copy of a file over a node, or through a link that leads nowhere')
        if place.node and place.node.data == host.data:
            raise Unclear('copy of the same content')
        place.parent.names[place.name] = self.own(
            self.made('file', self.copied_mode(f, host), data=host.data), f.get('owner')
        )

    def copied_mode(self, f, host):
        return mode_of(f['mode'], host.mode, host.is_dir()) if 'mode' in f and host.kind != 'symlink' else host.mode

    def copy_tree(self, f, host, path, backwards):
        new = {}

        def make(h):
            if id(h) not in new:
                if h.kind == 'socket':
                    raise Wrong('a socket')
                new[id(h)] = self.own(
                    self.made(h.kind, self.copied_mode(f, h), data=h.data, target=h.target, rdev=h.rdev), f.get('owner')
                )
            return new[id(h)]

        def merge(h, node, at, below):
            for name in sorted(h.names, reverse=backwards):
                child, there = h.names[name], node.names.get(name)
                if excluded(f.get('exclude', ()), [*below, name]):
                    continue
                if not child.is_dir():
                    if there and there.is_dir():
                        raise Wrong('a directory is there')
                    if there and (there.kind, there.data, there.target, there.rdev) == (
                        child.kind,
                        child.data,
                        child.target,
                        child.rdev,
                    ):
                        raise Unclear('copy of the same content')
                    node.names[name] = make(child)
                    continue
                if there and there.kind == 'symlink':
                    there = self.find(at + b'/' + name).node
                    if there is None:
                        raise Wrong('no directory')
                if there is None:
                    there = node.names[name] = make(child)
                if not there.is_dir():
                    raise Wrong('no directory')
                merge(child, there, at + b'/' + name, [*below, name])

        place = self.find(path, parents=f.get('parents', False))
        if place.node is None:
            if place.dangling:
                raise Wrong('a link that leads nowhere')
            place.node = place.parent.names[place.name] = make(host)
        if not place.node.is_dir():
            raise Wrong('no directory')
        merge(host, place.node, place.path.rstrip(b'/'), [])

    def op_extract(self, f, entries):
        path = raw(f.get('path', '/'))
        place = self.find(path, parents=True)
        if place.dangling:
            raise Unclear('directories to make behind a link')
        if place.node is None:
            place.node = place.parent.names[place.name] = self.made('dir', 0o755)
        if not place.node.is_dir():
            raise Wrong('no directory')
        self.layer(entries, place)

    def op_diff(self, f, changes):
        """`changes` are (path, old, new), with None for what is not there; old may be a part: (lines in front, old)."""
        base = raw(f.get('path', '/'))
        into = self.find(base)
        if into.node is None and not into.dangling:
            raise Unclear('whether the directory of a diff is made')
        if into.node is None or not into.node.is_dir():
            raise Wrong('no directory')
        for path, old, new in changes:
            place = self.find(base.rstrip(b'/') + b'/' + path, follow=False, parents=old is None)
            if place.node and place.node.kind == 'symlink':
                raise Unclear('a diff of a link')
            if old is None:
                if place.node:
                    raise Unclear('a diff makes a file that is there') if place.node.data else Unclear('or is empty')
                place.parent.names[place.name] = self.made('file', 0o644, data=new)
                continue
            if not place.node or place.node.kind != 'file':
                raise Wrong('no file')
            front, old = old if isinstance(old, tuple) else (b'', old)
            if place.node.data != front + old:
                raise Wrong('the hunk does not fit') if old.startswith(b'not so\n') else Unclear('where the hunk fits')
            if new is None:
                if len(place.parent.names) == 1:
                    raise Unclear('whether a directory goes with the last file')
                del place.parent.names[place.name]
                continue
            self.rewrite(place.node, front + new)

    def op_replace(self, f, host):
        node = self.file(f['path'])
        groups = re.sub(
            rb'\$(?:\{(\w+)\}|([0-9]+))', lambda m: rb'\g<%s>' % (m[1] or m[2]), raw(f['with']).replace(b'\\', b'\\\\')
        )
        expr = re.compile(raw(f['find']), re.M)
        count = f.get('count')
        if len(expr.findall(node.data)) < (1 if count is None else count):
            raise Wrong('too few matches')
        data = expr.sub(groups, node.data, count=count or 0)
        if data != node.data:
            self.rewrite(node, data)

    def op_mkdir(self, f, host):
        path, parents = raw(f['path']), f.get('parents', False)
        place = self.find(path, follow=False, parents=parents)
        if place.node:
            if not parents:
                raise Wrong('there already')
            node = self.existing(path).node
            if not node.is_dir():
                raise Wrong('no directory')
            if 'mode' in f:
                self.no_acl(node)
                if not str(f['mode']).isdigit():
                    raise Unclear('what a symbolic mode of a directory that is there starts from')
                node.mode = mode_of(f['mode'], node.mode, True)
            if 'owner' in f:
                self.chown_one(node, *self.ids(f['owner']))
            return
        place.parent.names[place.name] = self.own(
            self.made('dir', mode_of(f.get('mode', '0755'), 0o755, True)), f.get('owner')
        )

    def free(self, f, same=lambda node: False):
        """The place for a new name, or None if what is there is the same already."""
        place = self.find(raw(f['path']), follow=False, parents=f.get('parents', False))
        if place.node and same(place.node):
            return None
        if place.node and (not f.get('force') or place.node.is_dir()):
            raise Wrong('there already')
        return place

    def op_symlink(self, f, host):
        target = raw(f['target'])
        if not target:
            raise Wrong('no target')
        same = lambda node: node.kind == 'symlink' and node.target == target
        place = self.free(f, lambda node: same(node) and 'owner' not in f)
        if place and place.node and same(place.node):
            raise Unclear('the same link with an owner')
        if place:
            place.parent.names[place.name] = self.own(self.made('symlink', 0o777, target=target), f.get('owner'))

    def op_link(self, f, host):
        node = self.existing(raw(f['target'])).node
        if node.is_dir():
            raise Wrong('a link to a directory')
        place = self.free(f, lambda there: there is node)
        if place:
            place.parent.names[place.name] = node

    def op_mknod(self, f, host):
        major, minor = f.get('major'), f.get('minor')
        if (f['kind'] == 'fifo' and (major is not None or minor is not None)) or (
            f['kind'] != 'fifo' and (major is None or minor is None)
        ):
            raise Wrong('the numbers')
        if f['kind'] == 'char' and major == minor == 0:
            raise Wrong('a whiteout')
        if (major or 0) >= 1 << 12 or (minor or 0) >= 1 << 20:
            raise Wrong('the numbers')
        place = self.free(f)
        node = self.made(f['kind'], mode_of(f.get('mode', '0644'), 0o644, False), rdev=(major or 0, minor or 0))
        place.parent.names[place.name] = self.own(node, f.get('owner'))

    def op_remove(self, f, host):
        places = self.matches(raw(f['path']), f.get('missing') == 'ok')
        if not places and f.get('missing') != 'ok':
            raise Wrong('nothing there')
        nested = any(b.path.startswith(a.path + b'/') for a in places for b in places)
        for place in places:
            if place.parent is None:
                raise Wrong('the root')
            if place.node.names and not f.get('recursive'):
                raise Unclear('whether what is in it is removed before it') if nested else Wrong('not empty')
        for place in reversed(places):  # what is below comes first
            del place.parent.names[place.name]

    def op_rename(self, f, host):
        src = self.existing(raw(f['from']), follow=False)
        dst = self.find(raw(f['path']), follow=False)
        if src.parent is None or dst.parent is None:
            raise Wrong('the root')
        if src.key() == dst.key():
            return
        if src.node.is_dir() and (dst.path + b'/').startswith(src.path + b'/'):
            raise Wrong('into itself')
        if dst.node is src.node:
            raise Unclear('one name over another of the same inode')
        if dst.node and not f.get('force'):
            raise Wrong('there already')
        if dst.node and (dst.node.is_dir() != src.node.is_dir() or dst.node.names):
            raise Wrong('cannot take the place')
        del src.parent.names[src.name]
        dst.parent.names[dst.name] = src.node

    def below(self, nodes, recursive):
        """The nodes and with `recursive` all below them, as often as they are reached."""
        return [n for node in nodes for _, n in self.walk(node)] if recursive else nodes

    def no_acl(self, node):
        if b'system.posix_acl_access' in node.xattrs:
            raise Unclear('what a mode means beside an ACL')

    def op_chmod(self, f, host):
        for node in (n for n in self.below(self.followed(raw(f['path'])), f.get('recursive')) if n.kind != 'symlink'):
            self.no_acl(node)
            new = mode_of(f['mode'], node.mode, node.is_dir())
            if mode_of(f['mode'], new, node.is_dir()) != new:
                raise Unclear('a mode that counts twice where a node has two names')
            node.mode = new

    def op_chown(self, f, host):
        uid, gid = self.ids(f['owner'])
        for node in self.below(self.followed(raw(f['path'])), f.get('recursive')):
            self.chown_one(node, uid, gid)

    def op_xattr(self, f, host):
        nodes = self.followed(raw(f['path']))
        if len({id(n) for n in nodes}) < len(nodes) and f.get('remove'):
            raise Unclear('removing an xattr from a node that matches twice')
        for node in nodes:
            for name in list(f.get('set', ())) + f.get('remove', []):
                if (
                    not XATTRS.fullmatch(name)
                    or name.startswith('trusted.overlay.')
                    or (name.startswith('user.') and node.kind not in ('file', 'dir'))
                ):
                    raise Wrong('the name ' + name)
                if name == 'security.capability' and node.kind != 'file':
                    raise Unclear('capabilities of what cannot run')
                if name.startswith('system.'):
                    raise Unclear('what an ACL does to the mode')
            for name, value in f.get('set', {}).items():
                caps = name == 'security.capability'
                node.xattrs[raw(name)] = (
                    caps_of(value)
                    if caps
                    else base64.b64decode(value[7:])
                    if value.startswith('base64:')
                    else raw(value)
                )
            for name in f.get('remove', ()):
                if raw(name) not in node.xattrs:
                    raise Wrong('no xattr ' + name)
                del node.xattrs[raw(name)]

    def op_user(self, f, host):
        name, text = raw(f['name']), lambda key, default: raw(f.get(key, default))
        try:
            lists = [self.find(b'/etc/' + which) for which in (b'passwd', b'group', b'shadow', b'gshadow')]
        except Wrong:
            raise Unclear('no /etc, or a list behind a link that leads nowhere') from None
        if any(p.dangling or (p.node and p.node.kind != 'file') for p in lists):
            raise Unclear('a list of users that is not a file')
        there = [id(p.node) for p in lists if p.node]
        if len(set(there)) < len(there):
            raise Unclear('two lists of users that are one file')
        users = self.lines(b'/etc/passwd') if self.find(b'/etc/passwd').node else []
        groups = self.lines(b'/etc/group') if self.find(b'/etc/group').node else []
        uids, gids = {int(line[2]) for line in users}, {int(line[2]) for line in groups}
        uid = f.get('uid', next(n for n in range(1000, 1 << 20) if n not in uids))
        if uid in uids or any(line[0] == name for line in users):
            raise Wrong('the user is there')
        group, members = f.get('group'), [raw(g) for g in f.get('groups', ())]
        if group is not None:
            line = next(
                (
                    line
                    for line in groups
                    if line[0] == raw(group) or (str(group).isdigit() and int(line[2]) == int(group))
                ),
                None,
            )
            if not line or 'gid' in f:
                raise Wrong('no such group') if not line else Unclear('a group and a gid')
            gid = int(line[2])
        else:
            gid = f.get('gid', uid)
            if any(line[0] == name for line in groups) or gid in gids:
                raise Unclear('the new group, or its number, is there')
        if not all(any(line[0] == m for line in groups) for m in members):
            raise Wrong('no such group')
        home = text('home', '/home/' + f['name'])
        if f.get('create-home'):
            try:
                place = self.find(home)
            except Wrong:
                raise Unclear('a home whose parent is missing') from None
            if place.dangling or (place.node and not place.node.is_dir()):
                raise Unclear('a home behind a link, or that is not a directory')
            if place.node is None:
                place.parent.names[place.name] = self.made('dir', 0o700, uid=uid, gid=gid)

        def join(data):
            lines = [line.split(b':') for line in data.split(b'\n')]
            for line in lines:
                if line[0] in members:
                    if len(line) != 4 or name in line[3].split(b','):
                        raise Unclear('the members of a group')
                    line[3] += (b',' if line[3] else b'') + name
            return b'\n'.join(b':'.join(line) for line in lines)

        add = lambda line: lambda data: data + line + b'\n'
        colons = lambda *fields: b':'.join(b'%d' % v if isinstance(v, int) else v for v in fields)
        self.edit(
            b'/etc/passwd',
            add(colons(name, b'x', uid, gid, text('comment', ''), home, text('shell', '/bin/sh'))),
            new=True,
        )
        new = group is None and colons(name, b'x', gid, b'')
        if new or members:
            self.edit(b'/etc/group', lambda data: add(new)(join(data)) if new else join(data), new=True)
            self.edit(b'/etc/gshadow', lambda data: add(name + b':!::')(join(data)) if new else join(data))
        self.edit(b'/etc/shadow', add(colons(name, b'!', self.now // NS // 86400, b'0:99999:7:::')))
