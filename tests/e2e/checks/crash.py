"""Builds that are killed, and builds that run out of disk."""

import os
import random
import shutil
import subprocess
import sys
import time

from checks import check
from harness import bundle
from harness.common import BINARY, TOP, WORK, build, call, files, need, scratch

KILLS = 50
# A tar of some 24 MiB that does not compress, so that a build takes long enough to be hit in all its phases.
IMAGE = """
import sys, random
sys.path.insert(0, sys.argv[1])
from layout import Layer, Layout, tagged
from tarfmt import d, f
r = random.Random(7)
out = Layout(sys.argv[2])
files = lambda i: [f('l%d/%04d' % (i, j), r.randbytes(r.randrange(1, 16000))) for j in range(1000)]
layers = [Layer(d('l%d' % i), *files(i), form=form)
          for i, form in enumerate(('plain', 'zstd', 'gzip'))]
out.index(tagged(out.image(layers)))
"""


def prepare(tmp):
    call(sys.executable, '-c', IMAGE, os.path.join(TOP, 'testimages/cases'), os.path.join(tmp, 'layout'))
    path = os.path.join(tmp, 'm.yaml')
    with open(path, 'w') as file:
        file.write('image: oci:layout:latest\nplatform: linux/amd64\n')
    return path


@check('kill-9')
def kill():
    with scratch() as tmp:
        m = prepare(tmp)
        good, cache, out = (os.path.join(tmp, n) for n in ('good', 'cache', 'out/bundle'))
        os.mkdir(os.path.dirname(out))
        start = time.monotonic()
        build(m, good)
        whole = time.monotonic() - start
        expected, r, hit = files(good), random.Random(50), 0
        for i in range(KILLS):
            if i % 3 == 0:  # now with a cold cache, now with what the killed ones left
                shutil.rmtree(cache, ignore_errors=True)
            p = subprocess.Popen(
                [BINARY, 'build', m, '-o', out, '--cache-dir', cache],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            time.sleep(r.uniform(0, whole * 1.1))
            p.kill()
            hit += p.wait() == -9
            if os.path.exists(out):
                need(files(out) == expected, 'a partial bundle is there after kill %d' % i)
                shutil.rmtree(out)
            build(m, out, cache=cache)
            need(files(out) == expected, 'the build after kill %d gives other bytes' % i)
            shutil.rmtree(out)
        # What a killed run leaves beside the bundle must not pile up for ever.
        left = os.listdir(os.path.dirname(out))
        return '%d of %d builds were killed before they ended, %d leftovers' % (hit, KILLS, len(left))


@check('disk-full')
def disk_full():
    with scratch() as tmp:
        m = prepare(tmp)
        small = os.path.join(tmp, 'small')
        os.mkdir(small)
        for megabytes in (2, 9, 20, 26, 40):
            bundle.run('mount', '-t', 'tmpfs', '-o', 'size=%dm' % megabytes, 'tmpfs', small)
            try:
                for out, cache in (
                    (small + '/bundle', tmp + '/cache'),
                    (tmp + '/bundle', small + '/cache'),
                    (small + '/b2', small + '/c2'),
                ):
                    p = build(m, out, cache=cache, ok=(0, 1))
                    if p.returncode:
                        need('space' in p.stderr.lower(), 'the message does not speak of space: ' + p.stderr)
                        need(not os.path.exists(out), 'a bundle is there though the disk was full')
                    else:
                        call(BINARY, 'verify', out)
                    for path in (out, cache):
                        shutil.rmtree(path, ignore_errors=True)
                    for name in os.listdir(small):  # temporary files count against the next try
                        shutil.rmtree(os.path.join(small, name), ignore_errors=True)
            finally:
                bundle.run('umount', small)


@check('unwritable')
def unwritable():
    """Root may write anywhere but on a read-only mount."""
    with scratch() as tmp:
        m, ro = prepare(tmp), os.path.join(tmp, 'ro')
        os.mkdir(ro)
        bundle.run('mount', '-t', 'tmpfs', '-o', 'ro', 'tmpfs', ro)
        try:
            for out, cache in ((ro + '/bundle', tmp + '/cache'), (tmp + '/bundle', ro + '/cache')):
                p = build(m, out, cache=cache, ok=(1,))
                need(ro in p.stderr, 'the message does not name the directory: ' + p.stderr)
        finally:
            bundle.run('umount', ro)
    need(os.path.isdir(WORK), 'the work directory is gone')
