"""A plain model of what layers mean, for checks/layer_random.py: layers in, tree out.

Written from the rules of a layer and the image specification, and not from the compiler: entries are applied one after
the other to a tree in memory, in the order of the tar. What the model has more than that are the named deviations from
umoci, which applies entries to a directory in the same order. With none of them the model foretells umoci, with all of
them the compiler.
"""

import copy
import hashlib

from notation import NS, escape
from tarfmt import T0, raw

# Where the rules leave umoci on purpose, each with its reason.
DEVIATIONS = {
    'whiteouts-first': 'what a layer hides is hidden before its entries are applied, whatever order the tar has them '
    'in; umoci hides what is '
    'left when it comes to the whiteout (layer.md: "applied first, regardless of the ordering"; rules 2, 3)',
    'link-below': 'a hard link may name a file of a lower layer that its own layer hides or replaces; '
    'umoci finds it gone (rule 8)',
    'later-target': 'a hard link may come before its target; umoci links in the order of the tar, and fails (rule 8)',
    'replaced-link': 'where a hard link led does not matter if a later entry of its layer has its name; '
    'umoci has failed by then (rule 9)',
    'file-as-directory': 'a directory implied where there is a file replaces it, as an explicit one does; '
    "umoci's mkdir fails (rules 6, 9)",
    'setgid': 'a directory that no layer has an entry for is 0755, 0:0; '
    "umoci's inherits group and setgid bit from the one above it (rule 5)",
}
TAKEN_BY_UMOCI = {'whiteouts-first', 'setgid'}  # these give another tree, the others a tree where umoci gives none
HIDING = ('wh', 'opq')
LIMIT = 40  # symlinks followed for one path


class Refused(Exception):
    """An error, in what the image holds."""


class Unclear(Exception):
    """The rules do not say what such an image means."""


class Node:
    """An inode. `names` is a directory's: name -> (node, the layer that put it there)."""

    def __init__(self, kind, mode=0o755, uid=0, gid=0, mtime=0, xattrs=(), **more):
        self.kind, self.mode, self.uid, self.gid, self.mtime, self.xattrs = kind, mode, uid, gid, mtime, dict(xattrs)
        self.more, self.names = more, {}

    def copy_directories(self):
        """The tree below a directory once more, with the same files."""
        out = copy.copy(self)
        out.names = {
            name: (n.copy_directories() if n.kind == 'dir' else n, layer) for name, (n, layer) in self.names.items()
        }
        return out

    def copy_attributes(self, other):
        self.mode = other.mode
        self.uid = other.uid
        self.gid = other.gid
        self.mtime = other.mtime
        self.xattrs = other.xattrs


def node_of(e):
    """The inode that an entry describes. `e` is a layer_maker.Entry."""
    kind = {'d': 'dir', 'f': 'file', 'sym': 'symlink', 'chardev': 'char', 'fifo': 'fifo'}[e.make]
    fields, more = dict(e.fields), {}
    mtime = fields.get('mtime', T0)
    if isinstance(mtime, str):
        whole, _, fraction = mtime.partition('.')
        mtime = int(whole) * NS + int(fraction.ljust(9, '0') or 0)
    else:
        mtime *= NS
    if kind == 'file':
        more = {'size': len(raw(e.value)), 'sha256': hashlib.sha256(raw(e.value)).hexdigest()}
    elif kind == 'symlink':
        more = {'target': e.value}
    elif kind == 'char':
        more = {'rdev': list(e.value)}
    mode = 0o777 if kind == 'symlink' else fields.get('mode', 0o755 if kind == 'dir' else 0o644)
    return Node(kind, mode, fields.get('uid', 0), fields.get('gid', 0), mtime, fields.get('xattrs', {}), **more)


class Model:
    def __init__(self, deviations=DEVIATIONS):
        self.deviations, self.root, self.layer = set(deviations), Node('dir'), 0
        self.pending = []

    # ---- paths

    def at(self, real):
        """The node at a path without symlinks in it, or None."""
        node = self.root
        for name in real:
            if node.kind != 'dir' or name not in node.names:
                return None
            node = node.names[name][0]
        return node

    def resolve(self, path):
        """Where the parent of `path` really is, as a list of names, and the last name ('' for the root)."""
        parts = [p for p in path.split('/') if p not in ('', '.')]
        if '..' in parts:
            raise Unclear('".." in a path')
        if not parts:
            return [], ''
        real, todo, links = [], parts[:-1], 0
        while todo:
            name = todo.pop(0)
            if name in ('', '.'):
                continue
            if name == '..':
                real[-1:] = []
                continue
            node = self.at([*real, name])
            if node is None or node.kind != 'symlink':
                real.append(name)
                continue
            links += 1
            if links > LIMIT:
                raise Refused('symlinks of %s lead in a circle' % path)
            if node.more['target'].startswith('/'):
                real = []
            todo = node.more['target'].split('/') + todo
        return real, parts[-1]

    def make_parents(self, real):
        """The directory at a real path; what is missing on the way becomes an implied one."""
        node = self.root
        for name in real:
            child = node.names.get(name, (None, 0))[0]
            if child is not None and child.kind != 'dir' and 'file-as-directory' not in self.deviations:
                raise Refused('not a directory: ' + '/'.join(real))
            if child is None or child.kind != 'dir':
                child = Node('dir')
                if 'setgid' not in self.deviations and node.mode & 0o2000:
                    child.mode, child.gid = child.mode | 0o2000, node.gid
                node.names[name] = child, self.layer
            node = child
        return node

    # ---- entries

    def apply(self, layers):
        """The tree of all layers; or one of the exceptions."""
        for entries in layers:
            self.start(entries if 'whiteouts-first' in self.deviations else ())
            for e in entries:
                if e.make not in HIDING or 'whiteouts-first' not in self.deviations:
                    self.entry(e)
            self.finish()
        return self

    def start(self, entries=()):
        """Begins a layer; of `entries`, what they hide is hidden now."""
        self.layer += 1
        self.pending = []
        self.below = copy.copy(self)
        self.below.root, self.below.below = self.root.copy_directories(), None
        for real, name in self.hidden_by(entries):
            self.opaque(real) if name is None else self.whiteout(real, name)

    def hidden_by(self, entries):
        """Where whiteouts lead. A whiteout may go through links,
        so the place is known when the entries before it have been applied."""
        if not any(e.make in HIDING for e in entries):
            return []
        order, out = copy.copy(self), []
        order.root, order.deviations = self.root.copy_directories(), self.deviations - {'whiteouts-first'}
        for e in entries:
            try:
                if e.make in HIDING:
                    out.append(order.hiding(e))
                order.entry(e)
            except Refused:
                if e.make in HIDING:
                    raise
        return out

    def hiding(self, e):
        """The directory, and the name in it that a whiteout hides; None instead of a name stands for all."""
        return (self.resolve(e.path + '/x')[0], None) if e.make == 'opq' else self.resolve(e.path)

    def entry(self, e):
        if e.make in HIDING:
            real, name = self.hiding(e)
            return self.opaque(real) if name is None else self.whiteout(real, name)
        real, name = self.resolve(e.path)
        if not name:
            if e.make != 'd':
                raise Refused('the root is a directory')
            return self.root.copy_attributes(node_of(e))
        parent = self.make_parents(real)
        old = parent.names.get(name, (None, 0))[0]
        if e.make == 'd' and old is not None and old.kind == 'dir':
            old.copy_attributes(node_of(e))
            parent.names[name] = old, self.layer
            return None
        parent.names.pop(name, None)  # before a link's target is looked for, so that a link to itself finds nothing
        parent.names[name] = self.linked(e) if e.make == 'hard' else node_of(e), self.layer

    def linked(self, e):
        node = self.find(e.value)
        if node is None and 'link-below' in self.deviations:
            node = self.below.find(e.value)
        if node is not None and node.kind == 'dir':
            raise Refused('%s links to the directory %s' % (e.path, e.value))
        if node is None:
            if 'later-target' not in self.deviations:
                raise Refused('%s links to %s, which is not there' % (e.path, e.value))
            node = Node('pending', target=e.value, name=e.path)
            self.pending.append(node)
        return node

    def find(self, path):
        """The inode at a path, its last name not followed."""
        real, name = self.resolve(path)
        return self.at([*real, name])

    def finish(self):
        """Links to what came later in the layer."""
        found, left = {}, [(parent, name) for _, parent, name in self.walk()]
        for node in self.pending:
            names = [(parent, name) for parent, name in left if parent.names[name][0] is node]
            if not names and 'replaced-link' in self.deviations:
                continue
            target = self.later(node, names)
            for parent, name in names:
                found[parent, name] = target
        for (parent, name), target in found.items():
            parent.names[name] = target, self.layer

    def later(self, node, names):
        first, seen, target = node, [], node
        while target is not None and target.kind == 'pending':
            if target in seen:
                raise Refused('hard links in a circle at ' + node.more['name'])
            seen.append(target)
            target = self.find(target.more['target'])
        if target is None or target.kind == 'dir':
            if self.find(first.more['name']) is not first and names:
                raise Unclear('a link to a link to nothing, whose name another entry has later')
            raise Refused(
                '%s links to %s, which is a directory or not there' % (node.more['name'], node.more['target'])
            )
        return target

    # ---- what hides

    def whiteout(self, real, name):
        parent = self.at(real)
        if parent is not None and parent.kind == 'dir' and name in parent.names:
            self.hide(parent, name)

    def opaque(self, real):
        node = self.at(real)
        if node is not None and node.kind == 'dir':
            for name in list(node.names):
                self.hide(node, name)

    def hide(self, parent, name):
        """Removes what lower layers have, and leaves what is of this layer. True if something is left."""
        node, layer = parent.names[name]
        if node.kind != 'dir':
            if layer != self.layer:
                del parent.names[name]
            return layer == self.layer
        kept = [self.hide(node, child) for child in list(node.names)]
        if layer != self.layer:
            if not any(kept):
                del parent.names[name]
                return False
            parent.names[name] = node, self.layer
        return True

    # ---- the result

    def walk(self):
        """(path, parent, name) of all but the root."""
        todo = [('', self.root)]
        while todo:
            path, node = todo.pop()
            for name in sorted(node.names):
                yield path + '/' + name, node, name
                child = node.names[name][0]
                if child.kind == 'dir':
                    todo.append((path + '/' + name, child))

    def dump(self):
        """The tree as compare.read gives it."""
        paths, out = {}, {}
        nodes = [('/', self.root)] + [(path, parent.names[name][0]) for path, parent, name in self.walk()]
        for path, node in nodes:
            paths.setdefault(node, []).append(path)
        for path, node in nodes:
            names = paths[node]
            nlink = len(names) if node.kind != 'dir' else 2 + sum(n.kind == 'dir' for n, _ in node.names.values())
            e = {
                'type': node.kind,
                'mode': node.mode,
                'uid': node.uid,
                'gid': node.gid,
                'mtime': node.mtime,
                'nlink': nlink,
                'xattrs': {k: raw(v).hex() for k, v in node.xattrs.items()},
                **node.more,
            }
            if len(names) > 1:
                e['inode'] = escape(min(names))
            out[escape(path)] = e
        return out


def outcome(layers, deviations=DEVIATIONS):
    """The tree as compare.read gives it, or None for an image that is refused."""
    try:
        return Model(deviations).apply(layers).dump()
    except Refused:
        return None
