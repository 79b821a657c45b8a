"""Patched bundles as a guest uses them, and patches too large for memory."""

import hashlib
import os
import random
import sys

from checks import check
from checks.patch import MANIFESTS, options_of
from harness import compare
from harness.boot import boot
from harness.common import BINARY, TOP, build, call, need, quiet_kernel, same_files, scratch
from harness.upper import clean, overlay

# All kinds of things that an upper can hold from the start.
PATCHED = r"""
image: oci:%s/testimages/hello:latest
platform: linux/amd64
patches:
  - write: { path: /etc/motd, content: "patched\n" }
  - append: { path: /etc/passwd, content: "last:x:4000:4000::/:/bin/sh\n" }
  - copy: { from: tree, path: /srv/tree, owner: "hello:hello", parents: true }
  - link: { path: /srv/second, target: /srv/tree/0 }
  - remove: { path: /etc/group }
  - remove: { path: /var/cache, recursive: true }
  - mkdir: { path: /var/cache }
  - rename: { from: /usr/share/doc, path: /srv/doc }
  - symlink: { path: /srv/link, target: tree/1 }
  - xattr: { path: /srv/tree/1, set: { user.origin: patch } }
"""

# What a guest does with them. Each line that it prints is compared with what is expected.
SCRIPT = r"""
set -e
cat /etc/motd; tail -n 1 /etc/passwd; cat /srv/link; ls /var/cache | wc -l; ls /srv/doc | wc -l
[ ! -e /etc/group ] && [ ! -e /usr/share/doc ] && echo gone
echo over >/etc/motd
echo more >>/srv/second; tail -n 1 /srv/tree/0
for i in $(seq 0 99); do echo "$i again" >/srv/tree/$i; done
rm /srv/tree/50 /srv/link; mv /srv/tree/51 /srv/moved; mkdir /etc/group; echo in >/etc/group/file; rmdir /var/cache
echo back >/var/cache; rm -r /srv/doc; mkdir -p /usr/share/doc/new; chmod 0600 /srv/tree/2; ln /srv/tree/3 /srv/third
dd if=/dev/zero of=/srv/tree/4 bs=1024 seek=3000 count=1 conv=notrunc 2>/dev/null
find /etc /srv /var/cache /usr/share/doc -xdev -type f ! -name host* ! -name resolv.conf | sort | xargs sha256sum
sync
"""


@check('boot-patched')
def patched():
    """A guest writes over what was patched, and both this kernel and e2fsck take what it left."""
    with scratch() as tmp, quiet_kernel():
        os.mkdir(os.path.join(tmp, 'tree'))
        for i in range(100):
            with open(os.path.join(tmp, 'tree', str(i)), 'w') as file:
                file.write('%d\n' % i * (i * 40 + 1))
        m, out, kept = (os.path.join(tmp, name) for name in ('m.yaml', 'out', 'kept.ext4'))
        with open(m, 'w') as file:
            file.write(PATCHED % TOP)
        build(m, out)
        said = boot(
            out, '--engine', 'qemu', '--upper', kept, '--user', '0', '--entrypoint', '/bin/sh', '--', '-c', SCRIPT
        ).stdout
        lines = said.splitlines()
        expected = ['patched', 'last:x:4000:4000::/:/bin/sh'] + ['1'] * 41 + ['0', '1', 'gone', 'more']
        need(lines[: len(expected)] == expected, 'the guest does not see what was patched:\n%s' % said[:2000])
        sums = {path: digest for digest, path in (line.split('  ', 1) for line in lines[len(expected) :])}
        need(len(sums) > 100 and '/srv/tree/50' not in sums, 'the guest lists %d files' % len(sums))
        clean(kept)
        os.rename(kept, os.path.join(tmp, 'upper.ext4'))  # where overlay() looks for one
        with overlay(out, tmp) as (at, _, _):
            found = compare.read(at)
            here = {
                path: e['sha256']
                for path, e in found.items()
                if e['type'] == 'file'
                and path.startswith(('/etc/', '/srv/', '/var/cache', '/usr/share/doc/'))
                and not path.startswith(('/etc/host', '/etc/resolv'))
            }
            need(
                here == sums,
                'this kernel reads other files than the guest: %s' % sorted(set(here.items()) ^ set(sums.items()))[:6],
            )
            need(
                found['/srv/tree/2']['mode'] == 0o600 and found['/srv/tree/3']['inode'] == found['/srv/third']['inode'],
                "the guest's metadata are lost",
            )
            need(found['/srv/tree/1']['xattrs'].get('user.origin') == b'patch'.hex(), 'the patched xattr is lost')
        # A bundle of other patches is another bundle, whose guest must not get this upper.
        with open(m, 'a') as file:
            file.write('  - write: { path: /etc/issue, content: x }\n')
        build(m, out, '--force')
        p = boot(out, '--engine', 'qemu', '--upper', os.path.join(tmp, 'upper.ext4'), ok=(125,))
        need('upper' in p.stderr, p.stderr)
    return '%d files' % len(sums)


@check('boot-patched-app')
def app():
    """The example python-app does what it is for: its user, its configuration, its capability."""
    with scratch() as tmp:
        out = os.path.join(tmp, 'out')
        build(os.path.join(MANIFESTS, 'python-app.yaml'), out, *options_of('python-app'))
        said = boot(out, '--engine', 'qemu').stdout
        need(said == 'app: web listens on port 80, and may write to /var/lib/app\n', 'it says ' + said)


PEAK = """
import os, sys
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(pid, 0)
print(usage.ru_maxrss >> 10)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def peak(*args):
    """Runs the compiler; the most memory that it had, in MiB."""
    # From a process that is small itself, because a new one counts what it was before it became the program.
    return int(call(sys.executable, '-S', '-E', '-c', PEAK, BINARY, *args).stdout)


@check('patch-streams')
def streams():
    """Files of any size pass through; holes stay holes."""
    size, holes = 600 << 20, 1 << 39
    with scratch() as tmp:
        block = random.Random(1).randbytes(1 << 20)
        digest = hashlib.sha256()
        with open(os.path.join(tmp, 'big'), 'wb') as file:
            for i in range(size >> 20):
                part = i.to_bytes(8, 'little') + block[8:]
                file.write(part)
                digest.update(part)
        with open(os.path.join(tmp, 'sparse'), 'wb') as file:
            file.truncate(holes)
            file.seek(holes // 2 + 5)
            file.write(b'middle')
        m, out = os.path.join(tmp, 'm.yaml'), os.path.join(tmp, 'out')
        with open(m, 'w') as file:
            file.write(
                'image: oci:%s/testimages/hello:latest\nplatform: linux/amd64\npatches:\n'
                '  - copy: { from: big, path: /srv/big, parents: true }\n'
                '  - append: { path: /srv/big, from: big }\n  - copy: { from: sparse, path: /srv/sparse }\n'
                '  - append: { path: /srv/sparse, content: end }\n' % TOP
            )
        memory = peak('build', m, '-o', out, '--cache-dir', os.path.join(tmp, 'cache'))
        need(memory < 64, 'the compiler had %d MiB of memory' % memory)
        clean(os.path.join(out, 'upper.ext4'))
        with overlay(out, tmp) as (at, _, _up):
            found, expected = hashlib.sha256(), digest.copy()
            with open(os.path.join(at, 'srv/big'), 'rb') as file:
                half = hashlib.sha256()
                for i in range(2 * size >> 20):
                    half.update(file.read(1 << 20))
                    if i + 1 == size >> 20:
                        need(half.digest() == expected.digest(), 'the copied file has other bytes')
                        half = found
                need(found.digest() == expected.digest() and not file.read(1), 'the appended file has other bytes')
            path = os.path.join(at, 'srv/sparse')
            st = os.stat(path)
            need(
                st.st_size == holes + 3 and st.st_blocks <= 16 + 16,
                '%d bytes in %d sectors' % (st.st_size, st.st_blocks),
            )
            with open(path, 'rb') as file:
                for offset, text in ((0, bytes(9)), (holes // 2 + 4, b'\0middle\0'), (holes - 1, b'\0end')):
                    file.seek(offset)
                    need(file.read(len(text)) == text, 'the sparse file has other bytes at %d' % offset)
    return '%d MiB of memory for %d MiB of files' % (memory, 2 * size >> 20)


@check('patch-many')
def many():
    """A tree of 20,000 files, as cp makes it."""
    with scratch() as tmp:
        rand = random.Random(2)
        for d in range(100):
            os.makedirs(os.path.join(tmp, 'tree', '%03d' % d))
            for f in range(200):
                with open(os.path.join(tmp, 'tree', '%03d' % d, '%03d' % f), 'wb') as file:
                    file.write(rand.randbytes(rand.choice((0, 10, 300, 5000))))
        m, out = os.path.join(tmp, 'm.yaml'), os.path.join(tmp, 'out')
        with open(m, 'w') as file:
            file.write(
                'image: oci:%s/testimages/hello:latest\nplatform: linux/amd64\npatches:\n'
                '  - copy: { from: tree, path: /srv/tree, parents: true }\n' % TOP
            )
        memory = peak('build', m, '-o', out, '--cache-dir', os.path.join(tmp, 'cache'))
        need(memory < 64, 'the compiler had %d MiB of memory' % memory)
        clean(os.path.join(out, 'upper.ext4'))
        call('cp', '-r', os.path.join(tmp, 'tree'), os.path.join(tmp, 'plain'))
        with overlay(out, tmp) as (at, _, _):
            strip = lambda entries: {
                path: {k: v for k, v in e.items() if k in ('type', 'mode', 'size', 'sha256')} | {'mtime': 0}
                for path, e in entries.items()
            }
            text = compare.show(
                strip(compare.read(os.path.join(tmp, 'plain'))), strip(compare.read(os.path.join(at, 'srv/tree')))
            )
            need(not text, text)
    return '%d MiB of memory' % memory


@check('patch-around-the-bundle')
def around():
    """A copy of the directory that the bundle is made in leaves the bundle out, and so makes the same each time."""
    with scratch() as tmp:
        top = os.path.join(tmp, 'project')
        os.mkdir(top)
        m, out = os.path.join(top, 'm.yaml'), os.path.join(top, 'bundle')
        with open(m, 'w') as file:
            file.write(
                'image: oci:%s/testimages/hello:latest\nplatform: linux/amd64\npatches:\n'
                '  - copy: { from: ., path: /srv/all, parents: true }\n' % TOP
            )
        for keep in ('first', 'second'):
            build(m, out, '--force', cache=os.path.join(tmp, 'cache'))
            call('cp', '-a', '--sparse=always', out, os.path.join(tmp, keep))
        same_files(os.path.join(tmp, 'first'), os.path.join(tmp, 'second'), 'built twice beside itself')
        with overlay(out, tmp) as (at, _, _):
            need(
                os.listdir(os.path.join(at, 'srv/all')) == ['m.yaml'],
                'the copy has %s' % os.listdir(os.path.join(at, 'srv/all')),
            )
