"""What only --long runs: large images, cases of size, and random cases by the thousand."""

import os
import time

from checks import budgets, check, faults, layer_random, sound
from checks.cases import generate, run_case
from checks.first_run import first_run
from checks.images import compare_with_umoci
from harness.common import call, need  # noqa: F401
from harness.images import image


def of_image(name):
    return lambda: compare_with_umoci(image(name))


for label in ('python', 'node', 'cuda-like'):
    check('image-' + label, long=True)(of_image(label))

for role in ('root', 'user'):
    check('first-run-from-nothing-' + role, long=True)(lambda role=role: first_run(role, built=False))

check('system-calls-all', long=True)(lambda: faults.run(1))
check('budgets-full', long=True)(budgets.full)
check('sound-10000-flips', long=True)(lambda: sound.flips(10_000))
check('sound-1000-index-changes', long=True)(lambda: sound.index_changes(1000))
check('layer-random-1000', long=True)(lambda: layer_random.run(layer_random.LONG_SEEDS))

NAMES = (
    'layers-128 layers-500 directory-100000 directory-names-255 subdirectories-70000 links-70000 '
    'link-chain-5000-backwards files-60000-whiteouts-20000 files-60000-dirs-12000 xattr-65535 xattr-65536 xattr-area '
    'xattr-area-past file-4gib depth-1000 path-longest empty-files-30000'
).split()


def of_size(name):
    def run():
        out = generate('--scale', name)
        start = time.monotonic()
        run_case(os.path.join(out, name))
        return '%.1f s of it built and judged' % (time.monotonic() - start)

    return run


for label in NAMES:
    check('scale-' + label, long=True)(of_size(label))
