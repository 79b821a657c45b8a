"""Images that are large in one way: whiteouts, entries, one layer. Made once, from fixed seeds, and kept."""
import os
import random

from . import layout, measure, ours

LAYERS = 20
BIG = 1 << 30


def files(prefix, count, per_dir=50):
    """`count` entries, directories among them, whose files have some hundred bytes."""
    content = b'int answer(void) { return 42; } /* as small as most */\n' * 4
    for number in range(count):
        if number % per_dir == 0:
            folder = '%s/dir-%05d' % (prefix, number // per_dir)
            yield layout.directory(folder)
        else:
            yield layout.file('%s/file-%d.c' % (folder, number), content[:20 + number % 200])


def whiteouts(count, per_dir=50):
    """One for each of `count` files of `files`, a third of those in every directory."""
    made, number = 0, 0
    while made < count:
        number += 1
        if number % per_dir and number % 3 == 0 or number % per_dir == 1:
            yield layout.file('usr/dir-%05d/.wh.file-%d.c' % (number // per_dir, number), b'')
            made += 1


def one_big(size):
    """Files of all sizes until there are `size` bytes, as a toolchain's layer has them."""
    words, rng, total, number = layout.Words(32 << 20), random.Random(3), 0, 0
    while total < size:
        length = int(min(rng.lognormvariate(10, 2), 48 << 20))
        yield layout.file('opt/big/file-%d' % number, words.take(rng, length))
        total += length
        number += 1


def image(work, name, layers):
    """The layout `name`, with a layer of what each of `layers` yields."""
    path = os.path.join(work, 'scale', name)
    if os.path.exists(os.path.join(path, 'index.json')):
        return path
    measure.remove(path)
    writer = layout.Writer(path)
    for parts in layers:
        writer.layer(parts(), level=6)
    writer.finish()
    return path


def images(work):
    spread = lambda total: [lambda n=n: files('usr/layer-%d' % n, total // LAYERS) for n in range(LAYERS)]
    base, last = lambda: files('usr', 60_000), lambda: [layout.file('etc/last', b'last\n')]
    return {
        '60,000 files': image(work, 'plain', [base, last]),
        '60,000 files + 20,000 whiteouts': image(work, 'whiteouts', [base, lambda: [*whiteouts(20_000), *last()]]),
        '100,000 entries in 20 layers': image(work, 'entries-100k', spread(100_000)),
        '1,000,000 entries in 20 layers': image(work, 'entries-1m', spread(1_000_000)),
        'one gzip layer of 1 GiB': image(work, 'big', [lambda: one_big(BIG)]),
    }


def run(programs, work, count, log):
    """Name of the image -> results of the contenders. Pairs that are compared take turns with each other."""
    made = images(work)
    contenders = []
    for name, path in made.items():
        own = os.path.join(work, 'scale', 'work-' + os.path.basename(path))
        os.makedirs(own, exist_ok=True)
        contenders.append(ours.cold(programs, path, own, name + ': ours, cold'))
        contenders.append(ours.floor(programs, path, name + ': floor'))
    contenders.append(ours.floor(programs, path, name + ': inflate alone', ['--no-digest']))
    flat = measure.rounds(contenders, count, log)
    nested = {name: {} for name in made}
    for full, result in flat.items():
        name, contender = full.rsplit(': ', 1)
        nested[name][contender] = result
    return nested
