"""The disks that the reading benchmark mounts: one image as several builders lay it out, each as one file."""
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, 'tests/e2e'))
from harness import bundle, transcode                                   # noqa: E402

PATH = os.environ.get('PATH', '') + ':/usr/sbin:/sbin:' + os.path.join(TOP, '.tools/bin')
COMPILE = os.environ.get('ROOTFS_COMPILE', os.path.join(TOP, 'target/release/rootfs-compile'))

# Contender: the file system's type.
TYPES = {'ours': 'erofs', 'mkfs.erofs': 'erofs', 'microsandbox': 'erofs', 'ext4': 'ext4'}


class ReadsError(Exception):
    pass


def tool(name, how):
    found = shutil.which(name, path=PATH)
    if not found:
        raise ReadsError('%s is not here: %s' % (name, how))
    return found


def call(*cmd, **kw):
    p = subprocess.run(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace', **kw)
    if p.returncode:
        raise ReadsError('%s: exit %d\n%s' % (' '.join(cmd), p.returncode, p.stdout[-2000:]))
    return p.stdout


def unpack(layout, scratch):
    """The merged tree as umoci makes it, which is no contender's own reading of the image."""
    umoci = tool('umoci', 'apt-get install umoci')
    plain = os.path.join(scratch, 'plain')
    transcode.copy(layout, plain)               # umoci knows no zstd
    call(umoci, 'unpack', '--image', plain + ':latest', os.path.join(scratch, 'merged'))
    shutil.rmtree(plain)
    return os.path.join(scratch, 'merged/rootfs')


def make(layout, tree, scratch, out):
    """{contender: disk}, of an OCI layout and of the tree that is in it. A contender whose tool is not here is left out, with a line."""
    disks = {}
    for name, of in {'ours': ours, 'mkfs.erofs': mkfs, 'microsandbox': microsandbox, 'ext4': ext4}.items():
        disk = os.path.join(out, name + '.disk')
        try:
            of(layout, tree, scratch, disk)
            disks[name] = disk
        except ReadsError as e:
            if name == 'ours':
                raise
            print('reads: without %s: %s' % (name, e), file=sys.stderr)
    return disks


def ours(layout, tree, scratch, disk):
    if not os.path.exists(COMPILE):
        raise ReadsError('%s is not here: cargo build --release, or name another by ROOTFS_COMPILE' % COMPILE)
    manifest, made = os.path.join(scratch, 'manifest.yaml'), os.path.join(scratch, 'bundle')
    with open(manifest, 'w') as file:
        file.write('image: oci:%s:latest\nplatform: linux/amd64\n' % layout)
    call(COMPILE, 'build', manifest, '-o', made, '--cache-dir', os.path.join(scratch, 'cache'), '--quiet')
    bundle.concat(made, disk)


def mkfs(layout, tree, scratch, disk):
    call(tool('mkfs.erofs', 'ci/tools --erofs'), disk, tree)


def microsandbox(layout, tree, scratch, disk):
    fetched = os.path.join(TOP, '.tools/peers/microsandbox/_bundled/bin/msb')
    msb = os.environ.get('MSB') or (fetched if os.path.exists(fetched) else tool('msb', 'ci/tools --peers fetches it; MSB names another'))
    archive, home = os.path.join(scratch, 'image.tar'), os.path.join(scratch, 'home')
    with tarfile.open(archive, 'w') as tar:
        tar.add(layout, '.')
    os.makedirs(home)
    call(msb, 'load', '--quiet', '--tag', 'image:latest', '--input', archive, env={**os.environ, 'HOME': home})
    os.unlink(archive)
    kept = os.path.join(home, '.microsandbox/cache/vmdk')
    made = [name for name in os.listdir(kept) if name.endswith('.vmdk')]
    if len(made) != 1:
        raise ReadsError('msb load left %d descriptors' % len(made))
    with open(os.path.join(kept, made[0])) as file:
        extents = re.findall(r'^RW (\d+) FLAT "([^"]+)" 0$', file.read(), re.M)
    with open(disk, 'wb') as whole:
        for sectors, path in extents:
            with open(path, 'rb') as part:
                shutil.copyfileobj(part, whole, 1 << 20)
            if os.path.getsize(path) != int(sectors) * 512:
                raise ReadsError('an extent of msb is not as long as its descriptor says')
    shutil.rmtree(home)


def ext4(layout, tree, scratch, disk):
    e2fsprogs = 'apt-get install e2fsprogs'
    mke2fs, debugfs = tool('mke2fs', e2fsprogs), tool('debugfs', e2fsprogs)
    inodes = size = 0
    for at, dirs, files in os.walk(tree):
        for name in dirs + files:
            inodes, size = inodes + 1, size + 256 + os.lstat(os.path.join(at, name)).st_size // 4096 * 4096 + 4096
    with open(disk, 'wb') as file:
        # A tenth for what the file system keeps of itself, and the journal.
        file.truncate((size + size // 10 + (96 << 20)) // 4096 * 4096)
    call(mke2fs, '-q', '-F', '-t', 'ext4', '-N', str(inodes + 1024), '-d', tree, disk)
    # The one directory that is not the image's.
    call(debugfs, '-w', '-R', 'rmdir lost+found', disk)


def wide(layout, files=10_000):
    """An OCI layout of one directory, /wide, with many small files."""
    blobs = os.path.join(layout, 'blobs/sha256')
    os.makedirs(blobs)

    def blob(data, kind):
        digest = hashlib.sha256(data).hexdigest()
        with open(os.path.join(blobs, digest), 'wb') as file:
            file.write(data)
        return {'mediaType': 'application/vnd.oci.image.%s' % kind, 'digest': 'sha256:' + digest, 'size': len(data)}

    tape = io.BytesIO()
    with tarfile.open(fileobj=tape, mode='w', format=tarfile.PAX_FORMAT) as tar:
        top = tarfile.TarInfo('wide')
        top.type, top.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(top)
        for n in range(files):
            data = b'%d\n' % n
            entry = tarfile.TarInfo('wide/%s.%d.json' % (hashlib.sha256(data).hexdigest()[:n % 24 + 1], n))
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    layer = blob(tape.getvalue(), 'layer.v1.tar')
    config = blob(json.dumps({'architecture': 'amd64', 'os': 'linux', 'config': {},
                              'rootfs': {'type': 'layers', 'diff_ids': [layer['digest']]}}).encode(), 'config.v1+json')
    manifest = blob(json.dumps({'schemaVersion': 2, 'mediaType': 'application/vnd.oci.image.manifest.v1+json',
                                'config': config, 'layers': [layer]}).encode(), 'manifest.v1+json')
    manifest['annotations'] = {'org.opencontainers.image.ref.name': 'latest'}
    for name, document in (('oci-layout', {'imageLayoutVersion': '1.0.0'}), ('index.json', {'schemaVersion': 2, 'manifests': [manifest]})):
        with open(os.path.join(layout, name), 'w') as file:
            json.dump(document, file)
