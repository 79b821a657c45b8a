"""Random layers: what the kernel shows of the bundle is what `umoci unpack` makes of the image, or what a rule says
instead.

An image passes where the compiler, umoci and the model of model/layer_model.py agree on every field of every path, or
on refusing it. It also passes where the compiler does as the model says with all the deviations that the model lists
with their reasons, and umoci as the model says with none: so a reason excuses nothing but just what it foretells. What
an image needed is counted.

Environment: LAYER_RANDOM_SEEDS=from-to (other images than those of CI; the long suite has 1,000 more).
"""

import collections
import os
import shutil

from checks import check
from harness import compare, oracle
from harness.common import BINARY, call, manifest_for, need, quiet_kernel, read_bundle, scratch
from model import layer_maker
from model.layer_model import DEVIATIONS, Unclear, outcome

SEEDS, LONG_SEEDS = range(1, 301), range(301, 1301)


def compiled(tmp):
    """What the kernel shows of the bundle, or None where the compiler refuses the image."""
    out = os.path.join(tmp, 'bundle')
    shutil.rmtree(out, ignore_errors=True)
    p = call(
        BINARY,
        'build',
        os.path.join(tmp, 'm.yaml'),
        '-o',
        out,
        '--cache-dir',
        os.path.join(tmp, 'cache'),
        '-q',
        ok=(0, 1),
        timeout=60,
    )
    return (read_bundle(out), '') if p.returncode == 0 else (None, p.stderr.strip())


def unpacked(tmp):
    """What umoci unpacks; None where it fails, and the time after which a directory's time is of its making."""
    out = os.path.join(tmp, 'unpacked')
    shutil.rmtree(out, ignore_errors=True)
    root, said, start = oracle.unpack(os.path.join(tmp, 'image'), out)
    return (compare.read(root) if root else None), said.strip().split('\n')[-1][-200:], start


def differs(a, b, **options):
    """Text on how two results differ, empty if they do not."""
    if a is None or b is None:
        return '' if a is b else 'one is refused'
    return compare.show(a, b, **options)


def reasons(layers):
    """The deviations that matter for an image."""

    def with_only(deviations):
        # With some of them, an image may mean nothing that is clear with all of them.
        try:
            return outcome(layers, deviations)
        except Unclear:
            return Unclear

    everything, nothing = with_only(DEVIATIONS), with_only(())
    return [
        name for name in DEVIATIONS if with_only(set(DEVIATIONS) - {name}) != everything or with_only({name}) != nothing
    ]


def judge(layers):
    """(what is wrong with an image or '', the deviations that it needs)."""
    with scratch() as tmp:
        layer_maker.write(os.path.join(tmp, 'image'), layers)
        manifest_for(os.path.join(tmp, 'm.yaml'), 'oci:image:latest')
        ours, why = compiled(tmp)
        theirs, said, start = unpacked(tmp)
    after = {'implied_after': start}
    between = differs(theirs, ours, **after)
    try:
        expected, as_umoci = outcome(layers), outcome(layers, ())
    except Unclear:
        return '', ['unclear: the rules do not say what it means']
    from_model = differs(expected, ours)
    if not from_model and (not between or not differs(theirs, as_umoci, **after)):
        return '', reasons(layers) if between else []
    lines = []
    for what, text in (
        ('umoci', between),
        ('the model', from_model),
        ('umoci, and the model of it,', differs(theirs, as_umoci, **after)),
    ):
        lines += ['beside %s: %s' % (what, text or 'no difference')]
    return '\n'.join(lines + ['refused: ' + why] * (ours is None) + ['umoci: ' + said] * (theirs is None)), []


def shrink(layers):
    """The least image that is still wrong: without layers, entries and attributes that do not matter."""

    def fewer(layers):
        for i in range(len(layers)):
            yield layers[:i] + layers[i + 1 :]
        for i, entries in enumerate(layers):
            for j in range(len(entries)):
                yield [*layers[:i], entries[:j] + entries[j + 1 :], *layers[i + 1 :]]
        for i, entries in enumerate(layers):
            for j, e in enumerate(entries):
                if e.fields:
                    yield (
                        [
                            *layers[:i],
                            [*entries[:j], layer_maker.Entry(e.make, e.path, e.value), *entries[j + 1 :]],
                            *layers[i + 1 :],
                        ]
                    )

    again = True
    while again:
        again = False
        for some in fewer(layers):
            if some and judge(some)[0]:
                layers, again = some, True
                break
    return layers


def run(seeds):
    counts, failed = collections.Counter(), []
    with quiet_kernel():
        for seed in seeds:
            layers = layer_maker.Maker(seed).image()
            wrong, needed = judge(layers)
            if wrong:
                least = shrink(layers)
                failed.append('seed %d: %s\n%s' % (seed, layer_maker.show(least), judge(least)[0]))
            else:
                counts[' + '.join(needed) or 'as umoci'] += 1
    need(not failed, '%d of %d images:\n%s' % (len(failed), len(seeds), '\n'.join(failed)))
    return '%d images: %s' % (len(seeds), ', '.join('%d %s' % (n, name) for name, n in counts.most_common()))


@check('layer-random')
def layer_random():
    given = os.environ.get('LAYER_RANDOM_SEEDS')
    return run(range(int(given.split('-')[0]), int(given.split('-')[-1]) + 1) if given else SEEDS)
