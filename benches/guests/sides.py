"""The sides: what each of them makes of the image beforehand, and the command line that runs a program in its machine."""

import gzip
import os
import shlex
import shutil
import subprocess
import tarfile
import tempfile

from bench import layout
from harness import TOP, nest

TOOLS = os.path.join(TOP, '.tools')
RELEASE = os.path.join(os.environ.get('CARGO_TARGET_DIR', os.path.join(TOP, 'target')), 'release')
KRUNFW = os.environ.get('ROOTFS_BOOT_KRUNFW', os.path.join(TOOLS, 'guest/libkrunfw.so.5'))
CERTIFICATES = '/etc/ssl/certs/ca-certificates.crt'


class Side:
    """`files` is {path below /data: path here}. `before` is a shell line that the outer machine runs first, `words` what runs a
    command in a machine, in front of that command. There the image is mounted at `root`. One that is `slow`, each system call
    of which leaves its machine, is started in one round only: another would tell much the same."""

    def __init__(self, name, files, words, before=':', libraries_of=(), root='/', slow=False):
        self.name, self.files, self.before, self.libraries_of, self.root = name, files, before, list(libraries_of), root
        self.words, self.slow = words, slow

    def command(self, *words):
        return '%s %s' % (self.words, shlex.join(words))


def call(*command, **env):
    p = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors='replace', env=os.environ | env)
    if p.returncode:
        raise RuntimeError('%s: exit %d\n%s' % (shlex.join(command), p.returncode, (p.stdout + p.stderr)[-2000:]))


def prepare(image, tree, work, boot=os.path.join(RELEASE, 'rootfs-boot'), compiler=os.path.join(RELEASE, 'rootfs-compile')):
    """All sides, with what they need in the directory `work`. `image` is a layout, and `tree` what is in it."""
    made = os.path.join(work, 'bundle')
    call(compiler, 'build', 'oci:%s:latest' % image, '-o', made, '--cache-dir', os.path.join(work, 'cache'), '--quiet', '--force')
    program = {'rootfs-boot': boot, 'libkrunfw.so.5': KRUNFW, 'bundle': made}
    words = 'ROOTFS_BOOT_KRUNFW=/data/libkrunfw.so.5 /data/rootfs-boot --engine libkrun --cpus 1 --memory 1GiB'
    return [
        Side('ours', program, words + ' /data/bundle --', libraries_of=[boot, KRUNFW]),
        Side(
            'virtiofs (--volume)',
            program | {'tree': tree},
            words + ' --volume /data/tree:/mnt /data/bundle --',
            libraries_of=[boot, KRUNFW],
            root='/mnt',
            slow=True,
        ),
        microsandbox(image, work),
    ]


def microsandbox(image, work):
    """It knows what it loaded by absolute paths, so they are the same in the outer machine; and it wants certificates there."""
    bundled = os.path.join(TOOLS, 'peers/microsandbox/_bundled')
    msb, home = os.path.join(bundled, 'bin/msb'), os.path.join(work, 'microsandbox')
    if not os.path.exists(msb):
        raise RuntimeError('%s is not here: ci/tools --peers' % msb)
    archive = os.path.join(work, 'image.tar')
    with tarfile.open(archive, 'w') as tar:
        tar.add(image, '.')
    shutil.rmtree(home, ignore_errors=True)
    # A short path, as its sockets lie below.
    with tempfile.TemporaryDirectory(prefix='msb', dir='/tmp') as place:
        call(msb, 'load', '--quiet', '--tag', 'bench:latest', '--input', archive, MSB_HOME=place)
        shutil.copytree(place, home, symlinks=True)
    os.unlink(archive)
    place = shlex.quote(place)
    before = 'mkdir -p %s /etc/ssl/certs && mount --bind /data/home %s && cp /data/certificates /etc/ssl/certs/ca-certificates.crt' % (
        (place,) * 2
    )
    return Side(
        'microsandbox 0.7.11',
        {'home': home, 'msb': bundled, 'certificates': CERTIFICATES},
        'MSB_HOME=%s HOME=/root /data/msb/bin/msb --error run --no-net --no-stdin --no-tty --pull never -q -c 1 -m 1G bench:latest --' % place,
        before,
        libraries_of=[msb],
    )


def sizes(image, work):
    """Bytes of the image's layers without compression, and of what the sides made of them. Holes count."""
    manifest, _ = layout.read(image)
    layers = 0
    for layer in manifest['layers']:
        with gzip.open(os.path.join(image, 'blobs', 'sha256', layer['digest'].removeprefix('sha256:'))) as blob:
            while read := len(blob.read(1 << 22)):
                layers += read
    made = os.path.join(work, 'bundle')
    ours = [os.path.join(made, 'fsmeta.erofs')] + [os.path.join(made, 'layers', name) for name in os.listdir(made + '/layers')]
    theirs = [
        os.path.join(where, name)
        for where, _, names in os.walk(os.path.join(work, 'microsandbox'))
        for name in names
        if name.endswith('.erofs')
    ]
    total = lambda paths: sum(map(os.path.getsize, paths))
    return {'uncompressed layers': layers, 'ours: layers and fsmeta': total(ours), 'microsandbox: its EROFS files': total(theirs)}


def versions():
    said = lambda *command: subprocess.run(command, capture_output=True, text=True, errors='replace').stdout.strip()
    return {
        'rootfs-compile': said('git', '-C', TOP, 'describe', '--always', '--dirty') or 'unknown',
        'qemu': said('qemu-system-x86_64', '--version').splitlines()[0],
        'libkrunfw': 'that of microsandbox 0.7.11',
    }


class Hung(RuntimeError):
    """A machine did not end: the emulation of SVM loses an interrupt now and then."""


# Seconds for the outer machine as a whole, on a busy machine too.
WALL = 4 * nest.PATIENCE


def boot(side, commands, seconds, memory=6000):
    """What the commands print in an outer machine that holds what the side needs, in its memory already. One that takes more
    than so many seconds of that machine's clock is hung."""
    warm = 'find /data -type f ! -name upper.ext4 -exec cat {} + >/dev/null'
    limit = 10 * seconds if side.slow else seconds
    bounded = ['timeout %d sh -c %s' % (limit, shlex.quote(command)) for command in commands]
    script = '\n'.join(['set -e', 'mkdir -p /root', 'ulimit -n 65536', side.before, warm, *bounded])
    code, printed = nest.run(script, side.files, libraries_of=side.libraries_of, memory=memory, timeout=WALL, counted=True)
    printed = printed.decode(errors='replace').replace('\r', '')
    if code in (124, 143):
        raise Hung('%s: no end after %d s; it printed: %s' % (side.name, limit, printed[-1000:]))
    if code:
        raise RuntimeError('%s: exit %d\n%s' % (side.name, code, printed[-4000:]))
    return printed
