"""The same image through other people's tools, each in the fastest way that it has."""
import os
import shlex
import subprocess

from . import layout, measure


class Peers:
    """Where the tools are; None for one that this machine lacks."""

    def __init__(self, tools):
        def there(path):
            return path if os.access(path, os.X_OK) else None
        self.mkfs_erofs = there(os.path.join(tools, 'bin', 'mkfs.erofs'))
        self.msb = there(os.path.join(tools, 'peers', 'microsandbox', '_bundled', 'bin', 'msb'))
        self.umoci = which('umoci')
        self.mke2fs = which('mke2fs')

    def missing(self):
        return ['%s (ci/tools installs it)' % name for name, path in vars(self).items() if path is None]


def which(name):
    for directory in os.environ['PATH'].split(':') + ['/usr/sbin', '/sbin']:
        if os.access(os.path.join(directory, name), os.X_OK):
            return os.path.join(directory, name)
    return None


def contenders(peers, image, work):
    manifest, _ = layout.read(image)
    made = []
    if peers.mkfs_erofs:
        made.append(mkfs_erofs(peers.mkfs_erofs, image, manifest, os.path.join(work, 'mkfs')))
    if peers.umoci:
        made.append(umoci(peers.umoci, image, work))
    if peers.mke2fs and peers.umoci:
        made.append(mke2fs(peers.mke2fs, work))
    if peers.msb:
        made.append(msb(peers.msb, image, work))
    return made


def cleared(path):
    """Before and after a run into the new directory `path`."""
    def before():
        measure.remove(path)
        os.makedirs(path)

    def after():
        use = measure.disk_use(path)
        measure.remove(path)
        return use
    return before, after


def mkfs_erofs(program, image, manifest, out):
    """One EROFS per layer, as many at a time as there are cores, the largest first; then the merge, lowest layer first. Without
    inline data and sorting, as containerd calls it."""
    blob = lambda layer: os.path.join(image, 'blobs', 'sha256', layer['digest'].removeprefix('sha256:'))
    jobs, objects = [], []
    for number, layer in enumerate(manifest['layers']):
        objects.append(os.path.join(out, '%d.erofs' % number))
        jobs.append((layer['size'], '%s %s' % (objects[-1], blob(layer))))
    queue = '\n'.join(job for _, job in sorted(jobs, reverse=True))
    packed = ' --ungzip' if any(layer['mediaType'].endswith('gzip') for layer in manifest['layers']) else ''
    one = '%s --tar=f%s --aufs --quiet -Enoinline_data --sort=none "$1" "$2"' % (shlex.quote(program), packed)
    merge = [program, '--aufs', '--ovlfs-strip=1', '--quiet', os.path.join(out, 'merged.erofs'), *objects]
    script = 'echo %s | xargs -P %d -n 2 sh -c %s sh\nexec %s' % (
        shlex.quote(queue), os.cpu_count(), shlex.quote(one), shlex.join(merge))
    before, after = cleared(out)
    return measure.Contender('mkfs.erofs, merged', ['sh', '-ec', script], before, after, tree=True)


def umoci(program, image, work):
    """What it unpacked is left for `mke2fs`."""
    out = os.path.join(work, 'umoci')

    def before():
        measure.remove(out)
        os.makedirs(out)
    return measure.Contender('umoci unpack', [program, 'unpack', '--image', image + ':latest', os.path.join(out, 'bundle')],
                             before, lambda: measure.disk_use(out), enough=30)


def msb(program, image, work):
    """Its store is new in each round; the archive is made beforehand."""
    home, archive = os.path.join(work, 'msb-home'), os.path.join(work, 'image.tar')
    before, after = cleared(home)

    def pack():
        before()
        if not os.path.exists(archive):
            subprocess.run(['tar', '-C', image, '-cf', archive, '.'], check=True)
    return measure.Contender('msb load', [program, 'load', '--quiet', '-i', archive], pack, after, env={'HOME': home})


def mke2fs(program, work):
    """The tree that `umoci` unpacked, as one ext4 that is a third larger than its content. Once: it is here for its size."""
    tree = os.path.join(work, 'umoci', 'bundle', 'rootfs')
    out = os.path.join(work, 'mke2fs')
    before, after = cleared(out)

    def command():
        size = measure.disk_use(tree)['allocated'] * 4 // 3 // 1024 + (64 << 10)
        inodes = sum(1 + len(files) for _, _, files in os.walk(tree)) + 1000
        return [program, '-q', '-t', 'ext4', '-N', str(inodes), '-d', tree, os.path.join(out, 'image.ext4'), '%dk' % size]
    return measure.Contender('mke2fs -d', command, before, after, enough=0)
