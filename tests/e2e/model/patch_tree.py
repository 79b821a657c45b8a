"""A file tree in memory for model/patch_model.py: paths, users, layers, and what it looks like.

It follows what is written of patches, not what the compiler does, and raises Wrong for what must be an error of the
build, Unclear for what the rules leave open (so that no case tests it). Names and contents are bytes; a patch is
(op, fields, host), where fields are as in the manifest, and host is what lies at `from`: bytes, a Node, the entries of
a tar, or the changes of a diff.
"""

import copy
import hashlib

from model.patch_notation import MAGIC, NS, Unclear, Wrong, braces, fits, parts, raw
from notation import escape


class Node:
    """An inode. `origin` numbers those that were there before the patches; a copy of the tree keeps it."""

    def __init__(self, kind, mode, uid=0, gid=0, mtime=0, xattrs=None, data=b'', target=b'', rdev=(0, 0), names=None):
        self.kind = kind
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.mtime = mtime
        self.xattrs = dict(xattrs or {})
        self.data = data
        self.target = target
        self.rdev = rdev
        self.names = names if names is not None else {}
        self.origin = None

    def is_dir(self):
        return self.kind == 'dir'

    def take(self, other):
        """The metadata of another."""
        self.mode = other.mode
        self.uid = other.uid
        self.gid = other.gid
        self.mtime = other.mtime
        self.xattrs = dict(other.xattrs)

    def state(self):
        return (
            self.kind,
            self.mode,
            self.uid,
            self.gid,
            self.mtime,
            tuple(sorted(self.xattrs.items())),
            self.data,
            self.target,
            self.rdev,
        )


class Place:
    """What a path leads to: `node`, or None, under `name` in `parent` (both None for the root)."""

    def __init__(self, parent, name, node, path, crossed, dangling=False):
        self.parent = parent
        self.name = name
        self.node = node
        self.path = path
        self.crossed = crossed
        self.dangling = dangling

    def key(self):
        return id(self.parent), self.name


# ---- modes, capabilities, globs


class Base:
    def __init__(self, now):
        self.root, self.now = Node('dir', 0o755), now * NS

    def walk(self, node=None, path=b''):
        """(path, node) of everything below, and of `node` itself."""
        node = node or self.root
        yield path or b'/', node
        for name in sorted(node.names):
            yield from self.walk(node.names[name], path + b'/' + name)

    def made(self, kind, mode, **more):
        return Node(kind, mode, mtime=self.now, **more)

    # ---- paths

    def find(self, path, follow=True, parents=False, base=None, implied=False):
        """Where a path leads. `parents` makes what is missing on the way;
        `implied` does so for a tar, whose root is the Place `base`."""
        stack, names, crossed = [self.root], [], []
        if base:
            for name in parts(base.path):
                stack.append(stack[-1].names[name])
                names.append(name)
        elif not path.startswith(b'/'):
            raise Wrong('not absolute')
        todo, links = [(c, False) for c in parts(path)], 0
        at = lambda *more: b'/' + b'/'.join(names + list(more))
        while todo:
            name, of_link = todo.pop(0)
            if name == b'..':
                if names:
                    stack.pop()
                    names.pop()
                continue
            if len(name) > 255:
                raise Wrong('a name too long')
            node = stack[-1].names.get(name)
            if node and node.kind == 'symlink' and (todo or follow):
                links += 1
                if links > 40:
                    raise Wrong('too many links')
                crossed.append(at(name))
                if node.target.startswith(b'/'):
                    stack, names = [self.root], []
                todo = [(c, True) for c in parts(node.target)] + todo
                continue
            if not todo:
                return Place(stack[-1], name, node, at(name), crossed, dangling=node is None and of_link)
            if node is None:
                if not parents and not implied:
                    raise Wrong('no directory ' + escape(at(name)))
                if of_link or any(c == b'..' for c, _ in todo):
                    raise Unclear('directories to make behind a link, or .. in one to make')
                node = stack[-1].names[name] = Node('dir', 0o755, mtime=0 if implied else self.now)
            if not node.is_dir():
                raise Unclear('a tar entry below a file') if implied else Wrong('no directory: ' + escape(at(name)))
            stack.append(node)
            names.append(name)
        return Place(stack[-2] if names else None, names[-1] if names else None, stack[-1], at(), crossed)

    def existing(self, path, follow=True):
        place = self.find(path, follow)
        if place.node is None:
            raise Wrong('nothing there')
        return place

    def matches(self, path, none_ok=False):
        """The places that a path or glob names, for remove without following the last component; sorted."""
        try:
            place = self.find(path, follow=False)
            if place.node:
                return [place]
            missing = None
        except Wrong as e:
            missing = e
        if not MAGIC.search(path):
            if missing and 'no directory: ' in str(missing) and none_ok:
                raise Unclear('a file on the way to what may be missing')
            if missing and 'links' in str(missing) and none_ok:
                raise Unclear('a loop on the way to what may be missing')
            return []
        out = {}
        for glob in braces(path.decode()):
            comps = [raw(c) for c in glob.split('/') if c not in ('', '.')]
            if b'..' in comps or comps[-1] == b'**':
                raise Unclear('.. in a glob, or ** at its end')
            at = [Place(None, None, self.root, b'/', [])]
            for i, comp in enumerate(comps):
                last, found = i == len(comps) - 1, []
                for place in (p for p in at if p.node.is_dir()):
                    below = place.path.rstrip(b'/') + b'/'
                    if comp == b'**':
                        found += [
                            Place(None, None, node, p, [])
                            for p, node in self.walk(place.node, place.path.rstrip(b'/'))
                            if node.is_dir()
                        ]
                        continue
                    for name in sorted(place.node.names):
                        if not (fits(comp.decode(), name) if MAGIC.search(comp) else comp == name):
                            continue
                        child = place.node.names[name]
                        if last:
                            found.append(Place(place.node, name, child, below + name, []))
                        elif child.kind == 'symlink' and MAGIC.search(comp):
                            raise Unclear('a link among what matches on the way')
                        elif child.kind == 'symlink':
                            try:
                                found.append(self.existing(below + name))
                            except Wrong as e:
                                raise Unclear(str(e)) from e
                        else:
                            found.append(Place(place.node, name, child, below + name, []))
                at = list({p.path: p for p in found}.values())
            out.update((p.path, p) for p in at)
        return [out[p] for p in sorted(out)]

    def followed(self, path):
        """What chmod, chown and xattr work on; nothing is an error."""
        places = self.matches(path)
        if not places:
            raise Wrong('nothing matches')
        literal = len(places) == 1 and not MAGIC.search(path)
        nodes = []
        for place in places:
            try:
                nodes.append(self.existing(path if literal else place.path).node)
            except Wrong:
                if literal:
                    raise
                raise Unclear('a glob matches a link that leads nowhere') from None
        return nodes

    # ---- users

    def lines(self, path):
        place = self.existing(path)
        if place.node.kind != 'file':
            raise Unclear('a list of users that is not a file')
        lines = [line.split(b':') for line in place.node.data.split(b'\n') if line]
        if not all(len(line) == (7 if b'passwd' in path else 4) and line[2].isdigit() for line in lines):
            raise Unclear('lines that do not have the fields of passwd or group')
        return lines

    def ids(self, owner):
        """(uid or None, gid or None)"""
        user, colon, group = raw(str(owner)).partition(b':')
        uid = gid = None
        if user and user.isdigit():
            uid = int(user)
            if colon and not group:
                raise Unclear('the login group of a number')
        elif user:
            line = next((line for line in self.lines(b'/etc/passwd') if line[0] == user), None)
            if not line:
                raise Wrong('no such user')
            uid = int(line[2])
            if colon and not group:
                gid = int(line[3])
        if group.isdigit():
            gid = int(group)
        elif group:
            line = next((line for line in self.lines(b'/etc/group') if line[0] == group), None)
            if not line:
                raise Wrong('no such group')
            gid = int(line[2])
        if max(uid or 0, gid or 0) > 2**32 - 2:
            raise Wrong('the number')
        return uid, gid

    def own(self, node, owner):
        """The owner of a new node."""
        if owner is not None:
            uid, gid = self.ids(owner)
            node.uid, node.gid = node.uid if uid is None else uid, node.gid if gid is None else gid
        return node

    def chown_one(self, node, uid, gid):
        uid, gid = node.uid if uid is None else uid, node.gid if gid is None else gid
        if (uid, gid) == (node.uid, node.gid):
            return
        node.uid, node.gid = uid, gid
        if node.kind not in ('dir', 'symlink'):
            node.mode &= ~0o4000 & ~(0o2000 if node.mode & 0o010 else 0)
            node.xattrs.pop(b'security.capability', None)

    def edit(self, path, change, new=False):
        """Adds lines to /etc/passwd and its like."""
        place = self.find(path)
        if place.node is None and new:
            place.parent.names[place.name] = place.node = self.made('file', 0o644)
        if place.node is None:
            return
        data = place.node.data
        whole = data + b'\n' if data and not data.endswith(b'\n') else data
        data = change(whole)
        if data != whole:
            place.node.data, place.node.mtime = data, self.now

    # ---- layers

    def layer(self, entries, base=None):
        """Entries are dicts: name, kind (also hard, whiteout, opaque), target, node (what it holds). First what they
        hide of what lies below, then what they bring, in order; a hard link names a file of its own layer, else one
        below."""
        base = base or Place(None, None, self.root, b'/', [])
        own, low = set(), {}
        for e in entries:
            if e['kind'] == 'hard' and e['target'] not in own:
                low[e['name']] = self.find(e['target'], follow=False, base=base).node
            if e['kind'] not in ('whiteout', 'opaque'):
                own.add(e['name'])
        for e in entries:
            if e['kind'] in ('whiteout', 'opaque'):
                try:
                    place = self.find(e['name'], follow=e['kind'] == 'opaque', base=base)
                except Wrong:
                    continue
                if e['kind'] == 'whiteout' and place.node:
                    del place.parent.names[place.name]
                elif place.node and place.node.is_dir():
                    place.node.names.clear()
        for e in entries:
            if e['kind'] in ('whiteout', 'opaque'):
                continue
            place = self.find(e['name'], follow=False, base=base, implied=True)
            if e['kind'] == 'hard':
                node = low.get(e['name']) or self.find(e['target'], follow=False, base=base).node
                if node is None:
                    raise Wrong('no target')
            else:
                node = copy.deepcopy(e['node'])
            if place.node and place.node.is_dir() and node.is_dir():
                place.node.take(node)
            else:
                place.parent.names[place.name] = node

    # ---- what it looks like

    def paths_of(self):
        """id of every node → its paths."""
        out = {}
        for path, node in self.walk():
            out.setdefault(id(node), []).append(path)
        return out

    def freeze(self):
        """Numbers the nodes that are there before the patches; returns {number: (state, paths)}."""
        paths, out = self.paths_of(), {}
        for _, node in self.walk():
            if node.origin is None:
                node.origin = len(out)
                out[node.origin] = (node.state(), set(paths[id(node)]))
        return out

    def dump(self):
        """As compare.read() gives it."""
        paths, out = self.paths_of(), {}
        for path, n in self.walk():
            e = {
                'type': n.kind,
                'mode': n.mode,
                'uid': n.uid,
                'gid': n.gid,
                'mtime': n.mtime,
                'xattrs': {escape(k): v.hex() for k, v in n.xattrs.items()},
            }
            same = paths[id(n)]
            e['nlink'] = 2 + sum(c.is_dir() for c in n.names.values()) if n.is_dir() else len(same)
            if n.kind == 'file':
                e['size'], e['sha256'] = len(n.data), hashlib.sha256(n.data).hexdigest()
            elif n.kind == 'symlink':
                e['target'] = escape(n.target)
            elif n.kind in ('char', 'block'):
                e['rdev'] = list(n.rdev)
            if len(same) > 1 and not n.is_dir():
                e['inode'] = escape(min(same))
            out[escape(path)] = e
        return out

    def untouched(self, lower):
        """The paths at which the tree shows what was there before the patches, as it was there:
        {path: names its inode had}."""
        paths, out = self.paths_of(), {}
        by_path = {p: i for i, ps in paths.items() for p in ps}

        def visit(node, path):
            state, had = lower.get(node.origin, (None, ()))
            here = path or b'/'
            if here in had and node.state() == state and set(paths[id(node)]) <= had:
                out[here] = len(had)
            if here in had:  # else the whole of it moved here
                for name, child in node.names.items():
                    visit(child, path + b'/' + name)

        visit(self.root, b'')
        # Where one name of an inode has to be written, all of them have.
        return {p: n for p, n in out.items() if all(q in out for q in paths[by_path[p]])}
