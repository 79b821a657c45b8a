"""What container engines mount: the layers unpacked on an ext4, joined by the kernel's overlayfs or by fuse-overlayfs."""
import contextlib
import json
import os
import shutil
import subprocess
import tempfile

from reads_disks import ReadsError, bundle, call, tool
from harness import transcode                                   # noqa: E402  (reads_disks has put it in the path)

NAMES = ['overlayfs on ext4', 'fuse-overlayfs']
OPAQUE = '.wh..wh..opq'


def unpack(layout, scratch):
    """A directory for each layer, the lowest first, with whiteouts as overlayfs has them."""
    plain = os.path.join(scratch, 'plain')
    transcode.copy(layout, plain)               # GNU tar must find a zstd for others
    blob = lambda digest: os.path.join(plain, 'blobs', *digest.split(':'))
    document = lambda path: json.load(open(path))
    manifest = document(blob(document(os.path.join(plain, 'index.json'))['manifests'][0]['digest']))
    layers = []
    for number, layer in enumerate(manifest['layers']):
        layers.append(os.path.join(scratch, 'layer%d' % number))
        os.makedirs(layers[-1])
        call('tar', '--xattrs', '--xattrs-include=*', '--numeric-owner', '-xpf', blob(layer['digest']), '-C', layers[-1])
        whiteouts(layers[-1])
    shutil.rmtree(plain)
    return layers


def whiteouts(layer):
    for at, _, names in list(os.walk(layer)):
        for name in names:
            if not name.startswith('.wh.'):
                continue
            os.unlink(os.path.join(at, name))
            if name == OPAQUE:
                os.setxattr(at, 'trusted.overlay.opaque', b'y')
            elif not os.path.lexists(os.path.join(at, name[4:])):
                os.mknod(os.path.join(at, name[4:]), 0o20000, 0)


@contextlib.contextmanager
def mounted(layout, scratch):
    """{name: mount} of both, on one ext4 in a file, below which all contenders have the same."""
    fuse = tool('fuse-overlayfs', 'apt-get install fuse-overlayfs')
    with tempfile.TemporaryDirectory(prefix='overlays.', dir=scratch) as made:
        disk, source = os.path.join(made, 'layers.ext4'), os.path.join(made, 'source')
        os.makedirs(source)
        count = len(unpack(layout, source))
        # An overlay that nobody writes to wants two directories.
        os.makedirs(os.path.join(source, 'empty'))
        used = int(call('du', '-s', '--block-size=1', source).split()[0])
        inodes = sum(len(dirs) + len(files) for _, dirs, files in os.walk(source))
        with open(disk, 'wb') as file:
            file.truncate((used + used // 8 + (128 << 20)) // 4096 * 4096)
        call(tool('mke2fs', 'apt-get install e2fsprogs'), '-q', '-F', '-t', 'ext4', '-N', str(inodes + 1024), '-d', source, disk)
        shutil.rmtree(source)
        with contextlib.ExitStack() as stack:
            below = stack.enter_context(bundle.mounted(disk, 'ext4'))
            lower = 'lowerdir=' + ':'.join(os.path.join(below, 'layer%d' % n) for n in reversed(range(count)))
            lower += ':' + os.path.join(below, 'empty')
            yield {
                NAMES[0]: stack.enter_context(bundle.mounted('overlay', 'overlay', 'ro,' + lower)),
                NAMES[1]: stack.enter_context(by_fuse(fuse, lower, made)),
            }


@contextlib.contextmanager
def by_fuse(program, lower, made):
    at = os.path.join(made, 'fuse')
    os.makedirs(at)
    p = subprocess.run([program, '-o', lower, at], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if p.returncode:
        raise ReadsError('fuse-overlayfs: ' + p.stdout)
    try:
        yield at
    finally:
        call('umount', at)
