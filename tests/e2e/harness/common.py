"""What most checks use: running the compiler, comparing directories, and the judges that every bundle must pass."""

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
import urllib.parse

from harness import TOP, WORK, bundle, compare, oracle, transcode

BINARY = os.environ.get('ROOTFS_COMPILE', os.path.join(TOP, 'target/release/rootfs-compile'))
FSCK = os.path.join(TOP, '.tools/bin/fsck.erofs')
HELLO = os.path.join(TOP, 'manifests/hello.yaml')
# After so many seconds a program counts as hung. Nothing is expected to be faster: machines are busy.
PATIENCE = 1800


class Failed(Exception):
    pass


def need(ok, why):
    if not ok:
        raise Failed(why)


@contextlib.contextmanager
def scratch():
    with tempfile.TemporaryDirectory(prefix='check.', dir=WORK) as path:
        yield path


def call(*cmd, ok=(0,), **kw):
    """Runs a program; the exit status must be one of `ok`, and it must end."""
    try:
        p = subprocess.run(cmd, capture_output=True, text=True, errors='replace', **{'timeout': PATIENCE, **kw})
    except subprocess.TimeoutExpired as e:
        said = ''.join(said.decode(errors='replace')[-2000:] for said in (e.stdout or b'', e.stderr or b''))
        raise Failed('%s: no end after %d s\n%s' % (' '.join(cmd), e.timeout, said)) from None
    if p.returncode not in ok:
        raise Failed('%s: exit %d\n%s%s' % (' '.join(cmd), p.returncode, p.stdout[-2000:], p.stderr[-2000:]))
    return p


def build(manifest, out, *args, cache=None, ok=(0,), **kw):
    """One run of the compiler. Each call has a cache of its own beside `out`, unless one is given."""
    return call(BINARY, 'build', manifest, '-o', out, '--cache-dir', cache or out + '.cache', *args, ok=ok, **kw)


def manifest_for(path, image, platform='linux/amd64'):
    with open(path, 'w') as file:
        file.write('image: %s\nplatform: %s\n' % (image, platform))
    return path


def files(directory):
    """Every regular file below a directory with its SHA-256."""
    out = {}
    for at, _, names in os.walk(directory):
        for name in names:
            path, h = os.path.join(at, name), hashlib.sha256()
            with open(path, 'rb') as file:
                # Gigabytes of zeros need not be read to be compared: only where a block is not zero, and what it holds,
                # counts.
                size = os.fstat(file.fileno()).st_size
                h.update(b'%d' % size)
                offset = 0
                while offset < size:
                    try:
                        offset = os.lseek(file.fileno(), offset, os.SEEK_DATA) // 4096 * 4096
                    except OSError:  # a hole to the end
                        break
                    end = os.lseek(file.fileno(), offset, os.SEEK_HOLE)
                    while offset < end:
                        chunk = os.pread(file.fileno(), 4096, offset)
                        if chunk.strip(b'\0'):
                            h.update(b'%d:' % offset + chunk)
                        offset += 4096
            out[os.path.relpath(path, directory)] = h.hexdigest()
    return out


def same_files(a, b, why):
    a, b = files(a), files(b)
    need(a == b, '%s: differ: %s' % (why, ', '.join(sorted(n for n in a.keys() | b.keys() if a.get(n) != b.get(n)))))


def layers_of(directory):
    return [path for path, _ in bundle.extents(directory)[1:]]


def need_no_leftovers(parent, *expected):
    """Nothing but what is expected may lie where a bundle was to be published."""
    found = set(os.listdir(parent)) - set(expected)
    need(not found, 'left behind in the directory of the bundle: ' + ', '.join(sorted(found)))


def fsck(directory):
    """fsck.erofs exits 0 for most of what is wrong, so a word from it is a failure as well."""
    meta, *layers = [path for path, _ in bundle.extents(directory)]
    alone = [(path, []) for path in dict.fromkeys(layers)]
    # fsck.erofs 1.9 keeps devices in an array of 256 and crashes beyond it; the kernel and our own reader have no such
    # bound.
    for image, devices in alone + ([(meta, layers)] if len(layers) < 256 else []):
        p = call(FSCK, *('--device=' + path for path in devices), image)
        need(not p.stderr.strip(), 'fsck.erofs of %s: %s' % (os.path.basename(image), p.stderr))
        need(
            '<W>' not in p.stdout and '<E>' not in p.stdout,
            'fsck.erofs of %s: %s' % (os.path.basename(image), p.stdout),
        )


def fsck_extract(directory, expected):
    """What fsck.erofs reads by its own code must be the tree as well, as far as it sets it."""
    meta, *layers = [path for path, _ in bundle.extents(directory)]
    with scratch() as tmp:
        out = os.path.join(tmp, 'out')
        # fsck.erofs 1.9 takes an xattr without a value for one it cannot read; the kernel's reading has judged those.
        empty = any(value == '' for e in expected.values() for value in e.get('xattrs', {}).values())
        p = call(
            FSCK,
            '--extract=' + out,
            '--no-xattrs' if empty else '--xattrs',
            '--no-preserve-owner',
            *('--device=' + path for path in layers),
            meta,
        )
        need(not p.stderr.strip(), 'fsck.erofs --extract: ' + p.stderr)
        # It ends a file before the hole at the file's end: what is missing must be zeros.
        for path, e in expected.items():
            at = os.fsencode(out) + urllib.parse.unquote_to_bytes(path)
            if e['type'] == 'file' and os.path.isfile(at) and os.path.getsize(at) < e['size']:
                os.truncate(at, e['size'])
        found = compare.read(out)
    strip = lambda entries: {
        path: {
            k: v
            for k, v in e.items()
            if k in ('type', 'size', 'sha256', 'target', 'rdev', 'xattrs')
            and not (k == 'xattrs' and (empty or e['type'] not in ('file', 'dir')))
        }
        | {'mtime': 0}
        for path, e in entries.items()
    }
    text = compare.show(strip(expected), strip(found))
    need(not text, 'fsck.erofs --extract gives another tree:\n' + text)


def read_bundle(directory):
    with bundle.disk_of(directory) as at:
        return compare.read(at)


def judge(directory, expected, **options):
    """The disk must mount and show `expected`; fsck.erofs and our own verify must find nothing.
    Returns what was read."""
    found = read_bundle(directory)
    text = compare.show(expected, found, **options)
    need(not text, text)
    fsck(directory)
    call(BINARY, 'verify', directory)
    return found


def umoci(layout):
    """What umoci makes of an image, and the time after which a directory's time is of its making."""
    with scratch() as tmp:
        transcode.copy(layout, os.path.join(tmp, 'layout'))
        root, said, start = oracle.unpack(os.path.join(tmp, 'layout'), os.path.join(tmp, 'out'))
        need(root, 'umoci: ' + said)
        return compare.read(root), {'implied_after': start, 'empty_xattrs_may_lack': True}


def dmesg():
    lines = call('dmesg').stdout.splitlines()
    return [
        line
        for line in lines
        if any(w in line for w in ('erofs', 'EROFS', 'EXT4', 'ext4', 'overlay', 'JBD2', 'I/O error'))
    ]


# The kernel says these of every mount, so they are not complaints.
HARMLESS = ('mounted filesystem', 'unmounting filesystem', 'mounted with root inode', 'xattr support', 'Opts:')


@contextlib.contextmanager
def quiet_kernel():
    before = len(call('dmesg').stdout.splitlines())
    yield
    with_news = call('dmesg').stdout.splitlines()
    news = [line for line in with_news[before:] if line in set(dmesg()) and not any(w in line for w in HARMLESS)]
    need(not news, 'the kernel complains:\n' + '\n'.join(news))


def copy_sparse(src, dst):
    call('cp', '--sparse=always', src, dst)


def remove(path):
    shutil.rmtree(path, ignore_errors=True)
