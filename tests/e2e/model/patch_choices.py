"""How a random patch picks paths of the image, spells them otherwise, and names owners and files of the host."""

import contextlib
import re

from model.patch_image import LISTS, NAMES, Images
from model.patch_notation import MAGIC, Wrong, parts, raw

MODES = (
    '0644 0600 0755 4755 2755 1777 0 7 0750 6711 7777 u=rwX,go=rX u-s +t a+x go-rwx ug+s u=rwx,g=u,o= a=r +X g=rx '
    'o-t,u+w a-s =rw o=g u+s,g-x'
).split()
USERS = ['root', 'daemon', 'app', 'web']


def readable(path):
    try:
        return path.decode() is not None
    except UnicodeDecodeError:
        return False


class Choices(Images):
    """What the operations of a random patch choose from. `tree` is how the image looks at the time."""

    def pick(self, *kinds):
        """A path that text can name, mostly of one of `kinds`."""
        # The long chain of links is large and all alike; without the lists there are no names.
        deep = self.odds(0.03)
        lists = self.odds(0.25)
        some = [
            (p, n)
            for p, n in self.tree.walk()
            if p != b'/' and readable(p) and deep >= p.startswith(b'/deep/') and (lists or not p.startswith(LISTS))
        ]
        fit = [(p, n) for p, n in some if n.kind in kinds] if not self.odds(0.04) else []
        return self.rng.choice(fit or some or [(b'/', self.tree.root)])

    def say(self, path, follow=True):
        """Another spelling of a path that leads to the same."""
        place = self.tree.find(path, follow=False)
        links = []
        for p, n in self.tree.walk():
            if n.kind == 'symlink' and readable(p):
                with contextlib.suppress(Wrong):
                    links.append((p, self.tree.find(p).path))
        for _ in range(self.rng.choice((0, 0, 1, 2))):
            new, r = path, self.rng.random()
            if r < 0.6:
                fit = [
                    (p, to)
                    for p, to in links
                    if (path + b'/').startswith(to.rstrip(b'/') + b'/') and (follow or to != path)
                ]
                if fit:
                    p, to = self.rng.choice(fit)
                    new = p + b'/' + path[len(to.rstrip(b'/')) + 1 :] if to != path else p
            else:
                comps = path.split(b'/')
                i = self.rng.randint(1, len(comps) - 1)
                here = b'/'.join(comps[:i]) or b'/'
                try:
                    at = self.tree.find(here)
                except Wrong:
                    continue
                subs = [n for n, c in at.node.names.items() if c.is_dir() and readable(n)] if at.node else []
                new = b'/'.join(
                    comps[:i]
                    + self.rng.choice(([b'.'], [b''], [self.rng.choice(subs), b'..'] if subs else [b'.']))
                    + comps[i:]
                )
            try:
                found = self.tree.find(new, follow)
            except Wrong:
                continue
            if (found.path, found.name) == (
                self.tree.find(path, follow).path if follow else place.path,
                found.name,
            ) or (follow and found.node is place.node):
                path = new
        return path.decode() + ('/' if self.odds(0.03) else '')

    def fresh(self, missing=False):
        """A path for something new, in a directory that is there unless `missing`."""
        into = self.pick('dir')[0]
        path = self.say(into).rstrip('/') if into != b'/' else ''
        for _ in range(self.rng.randint(1, 2) if missing else 0):
            path += '/' + self.rng.choice(('made', 'new dir', 'z'))
        return path + '/' + self.rng.choice([*NAMES, 'fresh%d' % self.rng.randint(0, 99)])

    def glob(self):
        """A glob that fits something, with luck not much."""
        comps = [c.decode() for c in parts(self.pick('file', 'dir', 'symlink')[0])]
        out = []
        for i, c in enumerate(comps):
            how = (
                self.rng.choice(('*', 'head', 'tail', 'one', 'class', 'brace', 'same', 'same', 'same')) if i else 'same'
            )
            plain = not MAGIC.search(raw(c)) and '\\' not in c and c.isascii()
            if how == '*' or not plain:
                out.append('*')
            else:
                out.append(
                    {
                        'head': c[0] + '*',
                        'tail': '*' + c[-1],
                        'one': '?' + c[1:],
                        'class': '[' + c[0] + 'm-o]' + c[1:],
                        'brace': '{' + c + ',other}',
                        'same': c,
                    }[how]
                )
        if len(out) > 2 and self.odds(0.2):
            i = self.rng.randint(1, len(out) - 2)
            out[i : self.rng.randint(i, len(out) - 1)] = ['**']
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
        user = r.choice([*USERS, '0', '1000', '70000', '4294967294'])
        group = r.choice(('root', 'staff', 'tty', 'daemon', '0', '70000', 'app'))
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
            if self.odds(0.5) and not re.search(
                '[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]', data.decode()
            ):
                return {'content': data.decode()}, None
        except UnicodeDecodeError:
            pass
        return {'from': self.host(data)}, data
