"""Builds by this project, and the floor under them."""
import json
import os

from . import layout, measure

NEW_LAYER = 10 << 20


class Programs:
    """The binaries that are measured."""

    def __init__(self, compiler, floor):
        self.compiler = compiler
        self.floor = floor

    def build(self, manifest, out, cache):
        return [self.compiler, 'build', manifest, '-o', out, '--cache-dir', cache, '--quiet']


def manifest(path, image):
    """A manifest of nothing but the image."""
    layout.write_file(path, json.dumps({'image': 'oci:%s:latest' % os.path.abspath(image)}).encode())
    return path


def said_json(result):
    """What the floor printed."""
    return json.loads(result['said'].splitlines()[-1])


def cold(programs, image, work, name='ours, cold'):
    """A build with an empty cache."""
    out, cache = os.path.join(work, 'cold'), os.path.join(work, 'cold-cache')
    source = manifest(os.path.join(work, 'image.yaml'), image)

    def after():
        artifacts = measure.disk_use(out, cache)
        artifacts.update(parts(out))
        clear()
        return artifacts

    def clear():
        measure.remove(out)
        measure.remove(cache)
    return measure.Contender(name, programs.build(source, out, cache), clear, after)


def parts(bundle):
    """Sizes of what a bundle consists of, and how many entries its image has."""
    layers = os.path.join(bundle, 'layers')
    if not os.path.isdir(layers):
        return {}
    size = lambda path: os.stat(path).st_size
    return {'layers': sum(size(os.path.join(layers, name)) for name in os.listdir(layers)),
            'fsmeta': size(os.path.join(bundle, 'fsmeta.erofs'))}


def warm(programs, image, work):
    """A filled cache: every layer known; the same after a bundle was removed that shared inodes with the cache; one new layer on top."""
    cache = os.path.join(work, 'cache')
    base = manifest(os.path.join(work, 'base.yaml'), image)
    measure.remove(cache)
    first = os.path.join(work, 'first')
    measure.remove(first)
    filled = measure.spend(programs.build(base, first, cache))
    if 'failed' in filled:
        raise RuntimeError('%s could not be built: %s' % (image, filled['failed']))
    known = set(objects(cache))

    grown = os.path.join(work, 'grown')
    measure.remove(grown)
    layout.on_top(image, grown, layout.mixed_files(7, NEW_LAYER))
    top = manifest(os.path.join(work, 'grown.yaml'), grown)
    count = len(layout.read(grown)[0]['layers'])
    made = os.path.join(work, 'made')
    number = [0]

    def out():
        return os.path.join(made, str(number[0]))

    def another():
        number[0] += 1
        os.makedirs(made, exist_ok=True)

    def forget_new():
        another()
        for path in set(objects(cache)) - known:
            os.remove(path)

    def settle():
        """A build that is not measured, so that each measured one comes behind one of its own kind."""
        another()
        measure.spend(programs.build(base, out(), cache))
        another()

    def remove_one():
        settle()
        measure.remove(os.path.join(made, str(number[0] - 1)))

    build = lambda source: lambda: programs.build(source, out(), cache)
    return [
        measure.Contender('ours, all cached', build(base), settle),
        measure.Contender('ours, all cached, a bundle removed', build(base), remove_one),
        measure.Contender('ours, one new layer', build(top), lambda: (settle(), forget_new())),
        measure.Contender('inflate of the new layer', [programs.floor, grown, '--layer', str(count - 1), '--no-digest']),
    ]


def objects(cache):
    for parent, _, names in os.walk(cache):
        for name in names:
            yield os.path.join(parent, name)


def floor(programs, image, name='floor', more=()):
    return measure.Contender(name, [programs.floor, image, *more])
