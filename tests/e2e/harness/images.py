"""The larger images, which testimages/build-images makes."""

import os

from harness.common import TOP, WORK, call


def image(name):
    """An image of testimages/build-images, made if it is not there."""
    out = os.path.join(WORK, 'images')
    call(os.path.join(TOP, 'testimages/build-images'), out, name)
    return os.path.join(out, name)
