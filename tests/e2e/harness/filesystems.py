"""File systems of other kinds on a loop device, for as long as a check needs one."""

import contextlib
import os

from harness.common import call

# Name: how an image of it is made, and how a loop device with it is mounted. exfat comes through FUSE. It stands for
# FAT as well: the drivers of FAT that FUSE has cannot make a file longer by ftruncate.
KINDS = {
    'ext4': (('mkfs.ext4', '-q', '-b', '4096'), ('mount',)),
    'ext4-1k': (('mkfs.ext4', '-q', '-b', '1024'), ('mount',)),
    'xfs': (('mkfs.xfs', '-q'), ('mount',)),
    'btrfs': (('mkfs.btrfs', '-q'), ('mount',)),
    'exfat': (('mkfs.exfat',), ('mount.exfat-fuse',)),
}
# xfs wants no less.
SIZE = 320 << 20


def output(*argv):
    return call(*argv).stdout.strip()


@contextlib.contextmanager
def on(kind, tmp):
    """A directory on a new file system."""
    at = os.path.join(tmp, kind)
    os.mkdir(at)
    with contextlib.ExitStack() as stack:
        if kind == 'overlay':
            parts = [os.path.join(tmp, part) for part in ('lower', 'upper', 'work')]
            for part in parts:
                os.mkdir(part)
            os.mkdir(os.path.join(parts[0], 'place'))
            call('mount', '-t', 'overlay', '-o', 'lowerdir=%s,upperdir=%s,workdir=%s' % tuple(parts), 'overlay', at)
        elif kind == 'tmpfs':
            call('mount', '-t', 'tmpfs', '-o', 'size=%d' % SIZE, 'tmpfs', at)
        else:
            image = os.path.join(tmp, kind + '.img')
            with open(image, 'wb') as file:
                file.truncate(SIZE)
            make, mount = KINDS[kind]
            call(*make, image)
            device = output('losetup', '--find', '--show', image)
            stack.callback(call, 'losetup', '--detach', device)
            call(*mount, device, at)
        stack.callback(call, 'umount', at)
        # An overlay cannot rename a directory of its lower layer: the bundle's place is one.
        yield os.path.join(at, 'place') if kind == 'overlay' else at
