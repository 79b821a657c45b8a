"""An upper as its judges see it: e2fsck, and overlayfs in the kernel."""

import contextlib
import os

from harness import bundle
from harness.common import call, copy_sparse, need


def clean(image):
    """e2fsck must say clean and nothing else: one line per file system, no question, no remark."""
    p = call('e2fsck', '-fn', image)
    odd = [
        line
        for line in (p.stdout + p.stderr).splitlines()
        if line.strip() and not line.startswith(('e2fsck ', 'Pass ')) and ' files (' not in line
    ]
    need(not odd, 'e2fsck -fn %s: %s' % (os.path.basename(image), '\n'.join(odd)))


@contextlib.contextmanager
def overlay(directory, tmp):
    """The merged directory of a bundle with a copy of its upper."""
    upper = os.path.join(tmp, 'upper.ext4')
    if not os.path.exists(upper):
        copy_sparse(os.path.join(directory, 'upper.ext4'), upper)
        os.chmod(upper, 0o600)
    with bundle.disk_of(directory) as lower, bundle.mounted(upper, 'ext4', 'loop') as up:
        at = os.path.join(tmp, 'merged')
        os.makedirs(at, exist_ok=True)
        bundle.run(
            'mount',
            '-t',
            'overlay',
            '-o',
            'lowerdir=%s,upperdir=%s/upper,workdir=%s/work' % (lower, up, up),
            'overlay',
            at,
        )
        try:
            yield at, lower, up
        finally:
            bundle.run('umount', at)
