"""The list of cases, and how one is written to disk."""
import json
import os

from layout import Layer, Layout, tagged
from notation import finish

CASES = {}


class Case:
    def __init__(self, name, rule, layers, tree, says, exit, args, inspect, warns, write, image, platform, manifest, fits_in,
                 about):
        self.name, self.rule, self.args, self.about = name, rule, list(args), about
        self.tree, self.says, self.inspect, self.fits_in = tree, list(says), list(inspect), fits_in
        self.warns = list(warns)
        self.exit = exit if exit is not None else (0 if tree is not None else 1)
        self._layers, self._write, self._image, self._platform, self._manifest = layers, write, image or {}, platform, manifest
        assert (tree is None) == (self.exit != 0), name

    def write_layout(self, out):
        if self._write:
            self._write(out)
            return
        layers = [Layer(*l) if isinstance(l, list) else l for l in self._layers]
        out.index(tagged(out.image(layers, **self._image)))

    def save(self, path):
        """PATH/layout, PATH/manifest.yaml, PATH/expect.json."""
        os.makedirs(path)
        self.write_layout(Layout(os.path.join(path, 'layout')))
        with open(os.path.join(path, 'manifest.yaml'), 'w') as file:
            file.write('image: oci:layout:latest\nplatform: %s\n' % self._platform if self._manifest is None else self._manifest)
        expect = {'rule': self.rule, 'about': self.about, 'exit': self.exit, 'args': self.args, 'says': self.says,
                  'inspect': self.inspect, 'warns': self.warns, 'fits_in': self.fits_in}
        if self.tree is not None:
            tree = self.tree() if callable(self.tree) else self.tree
            expect['entries'] = finish(tree)
        with open(os.path.join(path, 'expect.json'), 'w') as file:
            json.dump(expect, file, indent=1)


def case(name, rule, *layers, tree=None, says=(), exit=None, args=(), inspect=(), warns=(), write=None, image=None, platform='linux/amd64',
         manifest=None, fits_in=None, about='', into=CASES):
    """Registers a case.

    A layer is a list of tar entries or a Layer. `tree` is what the mounted disk must show (see notation.py); without it the build
    must fail with `exit` (1) and a message that holds every word of `says`. `warns` are words that a build that succeeds must say,
    `inspect` those that `inspect --json` must hold, `fits_in` is a bound on the bytes of all layer objects together."""
    assert name not in into, name
    into[name] = Case(name, rule, layers, tree, says, exit, args, inspect, warns, write, image, platform, manifest, fits_in, about)
