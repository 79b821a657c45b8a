"""Random images for checks/layer_random.py: few names, so that entries meet."""

import copy
import dataclasses
import random

import tarfmt
from layout import Layer, Layout, tagged
from model.layer_model import DEVIATIONS, TAKEN_BY_UMOCI, Model, Refused, Unclear

NAMES = 'abcde'
KINDS = {'f': 26, 'd': 16, 'sym': 16, 'hard': 14, 'wh': 14, 'opq': 6, 'chardev': 1, 'fifo': 2}


@dataclasses.dataclass(frozen=True)
class Entry:
    """A call of tarfmt: `value` is a file's content, a link's target, a device's numbers."""

    make: str
    path: str
    value: object = None
    fields: tuple = ()

    def args(self):
        value = () if self.value is None else self.value if isinstance(self.value, tuple) else (self.value,)
        return (self.path, *value)

    def tar(self):
        return getattr(tarfmt, self.make)(*self.args(), **dict(self.fields))

    def __str__(self):
        """As the cases write it."""
        return '%s(%s)' % (
            self.make,
            ', '.join(
                [repr(a) for a in self.args()]
                + ['%s=%s' % (k, oct(v) if k == 'mode' else repr(v)) for k, v in self.fields]
            ),
        )


def show(layers):
    return ', '.join('[%s]' % ', '.join(map(str, entries)) for entries in layers)


def write(path, layers):
    """The image as an OCI layout."""
    out = Layout(path)
    out.index(tagged(out.image([Layer(*(e.tar() for e in entries), form='plain') for entries in layers])))


class Maker:
    """Draws the entries of an image one by one, beside a model that knows what is there by then."""

    def __init__(self, seed):
        self.rng, self.number = random.Random(seed), 0
        # Most images hold nothing that umoci refuses, so that umoci judges them. Some may hold what is an error; in the
        # others an entry that is one is drawn again.
        self.model = Model(TAKEN_BY_UMOCI if self.odds(0.8) else DEVIATIONS)
        self.errors = self.odds(0.08)

    def odds(self, p):
        return self.rng.random() < p

    # ---- paths

    def any_path(self):
        return '/'.join(self.rng.choice(NAMES) for _ in range(self.rng.choice((1, 1, 2, 2, 3))))

    def there(self, *kinds):
        """Paths of the tree so far, of some kinds or any."""
        return [
            path[1:] for path, parent, name in self.model.walk() if not kinds or parent.names[name][0].kind in kinds
        ]

    def pick(self, *kinds):
        some = self.there(*kinds)
        return self.rng.choice(some) if some and self.odds(0.85) else self.any_path()

    def path(self):
        """Where an entry goes: mostly a name that is there, or one below a directory or a link to one."""
        draw = self.rng.random()
        if draw < 0.25:
            path = self.any_path()
        elif draw < 0.5:
            path = self.pick()
        elif draw < 0.55:
            path = self.pick('file') + '/' + self.rng.choice(NAMES)
        else:
            path = self.pick('dir', 'symlink') + '/' + self.rng.choice(NAMES)
            if self.odds(0.2):
                path += '/' + self.rng.choice(NAMES)
        return '/'.join(path.split('/')[:4])

    def spell(self, path):
        """Another form of the same path."""
        draw = self.rng.random()
        return (
            './' + path
            if draw < 0.03
            else '/' + path
            if draw < 0.06
            else path.replace('/', '//', 1)
            if draw < 0.08
            else path
        )

    def symlink_target(self, path):
        draw = self.rng.random()
        target = self.pick('dir', 'dir', 'symlink', 'file') if self.odds(0.7) else self.any_path()
        depth = path.count('/')
        if draw < 0.3:
            return '/' + target
        if draw < 0.6:
            return '../' * depth + target
        if draw < 0.7:
            return '../' * self.rng.randint(1, 4) + target
        if draw < 0.78:
            return target.split('/')[0] + '/../' + target
        if draw < 0.82:
            return self.rng.choice(
                (
                    '.',
                    '..',
                    '/',
                    './' + self.rng.choice(NAMES),
                    self.rng.choice(NAMES) + '/.',
                    self.rng.choice(NAMES) + '/',
                )
            )
        return target.split('/')[-1]

    # ---- entries

    def fields(self, make):
        """Attributes now and then, so that it shows whose they are."""
        out = {}
        if make != 'sym' and self.odds(0.3):
            out['mode'] = self.rng.choice((0o700, 0o711, 0o1777, 0o2750, 0o4755, 0, 0o6711))
        if self.odds(0.2):
            out['uid'] = self.rng.choice((1, 1000, 65534, 1 << 21))
        if self.odds(0.2):
            out['gid'] = self.rng.choice((2, 1000, 1 << 31))
        if self.odds(0.2):
            out['mtime'] = self.rng.choice((0, 1234567890, '1000000000.25', '1000000001.123456789'))
        if self.odds(0.15):
            kind = 'user' if make in 'fd' else 'trusted'
            out['xattrs'] = {'%s.%s' % (kind, self.rng.choice('kl')): self.rng.choice(('v', 'w' * 40))}
        return tuple(out.items())

    def entry(self):
        make = self.rng.choices(list(KINDS), list(KINDS.values()))[0]
        path, value = self.path(), None
        if make == 'opq':
            return Entry(make, '' if self.odds(0.15) else self.pick('dir', 'symlink'))
        if make == 'wh':
            return Entry(make, self.spell(path if self.odds(0.5) else self.pick()))
        if make == 'hard':
            target = self.pick('file', 'symlink', 'char', 'fifo')
            if self.odds(0.2):
                target = self.pick('symlink') + '/' + self.rng.choice(NAMES)
            return Entry(make, self.spell(path), self.spell(target))
        if make == 'd' and self.odds(0.04):
            path = self.rng.choice(('.', './', '/'))
        if make == 'f':
            self.number += 1
            value = str(self.number)
        if make == 'sym':
            value = self.symlink_target(path)
        if make == 'chardev':
            value = (1, self.rng.choice((3, 5)))
        return Entry(make, self.spell(path), value, self.fields(make))

    def layer(self, below):
        """Some entries; then a few out of their order, or twice."""
        self.model = copy.deepcopy(below)
        self.model.start()
        entries = []
        for _ in range(self.rng.randint(1, 12)):
            for _ in range(20):
                e, tried = self.entry(), copy.deepcopy(self.model)
                try:
                    tried.entry(e)
                except (Refused, Unclear):
                    if not (self.errors and self.odds(0.25)):
                        continue
                else:
                    self.model = tried
                entries.append(e)
                break
        for _ in range(self.rng.choice((0, 0, 0, 1, 1, 2, 3))):
            other = list(entries)
            e = other.pop(self.rng.randrange(len(other))) if self.odds(0.8) else self.rng.choice(other)
            other.insert(self.rng.randint(0, len(other)), e)
            if (self.errors and self.odds(0.1)) or self.valid(below, other):
                entries = other
        return entries

    def valid(self, below, entries):
        try:
            self.above(below, entries)
            return True
        except (Refused, Unclear):
            return False

    def above(self, below, entries):
        model = copy.deepcopy(below)
        model.apply([entries])
        return model

    def image(self):
        layers, model = [], self.model
        for _ in range(self.rng.choice((2, 2, 3, 3, 4))):
            for _ in range(20):
                entries = self.layer(model)
                if self.errors or self.valid(model, entries):
                    break
            else:
                continue
            layers.append(entries)
            try:
                model = self.above(model, entries)
            except (Refused, Unclear):
                break
        return layers
