"""upper.ext4 as the upper directory of an overlayfs in the kernel, above the disk of the bundle; and its sizes."""

import os
import pathlib

from checks import check
from harness.common import HELLO, TOP, build, call, manifest_for, need, quiet_kernel, scratch
from harness.upper import clean, overlay


@check('overlay-upper')
def upper():
    with scratch() as tmp, quiet_kernel():
        out = os.path.join(tmp, 'bundle')
        build(HELLO, out)
        clean(os.path.join(out, 'upper.ext4'))
        with overlay(out, tmp) as (at, lower, up):
            p = lambda *names: os.path.join(at, *names)
            st, low = os.stat(os.path.join(up, 'upper')), os.stat(lower)
            need(
                (st.st_mode, st.st_uid, st.st_gid) == (low.st_mode, low.st_uid, low.st_gid),
                '/upper is not as the merged root',
            )
            xattrs = lambda path: sorted(
                (n, os.getxattr(path, n)) for n in os.listxattr(path) if not n.startswith('trusted.overlay.')
            )
            need(xattrs(os.path.join(up, 'upper')) == xattrs(lower), '/upper has other xattrs than the merged root')
            with open(p('etc/motd'), 'a') as file:  # copy-up
                file.write('and more\n')
            os.unlink(p('etc/group'))  # whiteout over a file
            call('rm', '-r', p('var/cache'))  # and over a tree
            os.mkdir(p('var/cache'))  # mkdir over the whiteout
            need(os.listdir(p('var/cache')) == [], 'a directory made over a whiteout shows what was below')
            os.rename(p('home/hello/notes'), p('home/hello/renamed'))
            os.link(p('usr/share/doc/hello/README'), p('home/link'))
            os.chmod(p('tmp'), 0o700)
            os.setxattr(p('lib/app/probe'), 'user.new', b'1')
            need(
                b'security.capability' in map(os.fsencode, os.listxattr(p('lib/app/probe'))),
                'copy-up lost security.capability',
            )
            os.mkdir(p('new'))
            for i in range(2000):
                with open(p('new', '%04d' % i), 'w') as file:
                    file.write('x' * i)
            said = call('chroot', at, '/bin/sh', '/lib/app/hello', 'overlay').stdout
            need(said.startswith('hello, overlay'), 'the entrypoint says ' + said)
        clean(os.path.join(tmp, 'upper.ext4'))
        with overlay(out, tmp) as (at, lower, up):  # and all of it is still there
            need(pathlib.Path(at, 'etc/motd').read_text().endswith('and more\n'), 'the copied-up file lost its change')
            need(not os.path.exists(os.path.join(at, 'etc/group')), 'the deleted file is back')
            need(os.path.exists(os.path.join(at, 'home/hello/renamed')), 'the renamed file is gone')
            need(len(os.listdir(os.path.join(at, 'new'))) == 2000, 'new files are gone')


@check('upper-sizes')
def sizes():
    """Any size from 16 MiB to 16 TiB, and little of it on disk."""
    for size, at_most in (
        ('16MiB', 1 << 20),
        ('100MiB', 1 << 20),
        ('4GiB', 1 << 20),
        ('100GiB', 16 << 20),
        ('1TiB', 128 << 20),
    ):
        with scratch() as tmp:
            m = manifest_for(os.path.join(tmp, 'm.yaml'), 'oci:%s/testimages/hello:latest' % TOP)
            with open(m, 'a') as file:
                file.write('upper: { size: %s }\n' % size)
            out = os.path.join(tmp, 'bundle')
            build(m, out)
            st = os.stat(os.path.join(out, 'upper.ext4'))
            unit = {'MiB': 1 << 20, 'GiB': 1 << 30, 'TiB': 1 << 40}[size[-3:]]
            need(st.st_size == int(size[:-3]) * unit, 'upper.ext4 of %s has %d bytes' % (size, st.st_size))
            need(st.st_blocks * 512 <= at_most, 'upper.ext4 of %s has %d bytes on disk' % (size, st.st_blocks * 512))
            clean(os.path.join(out, 'upper.ext4'))


@check('upper-size-out-of-range')
def out_of_range():
    with scratch() as tmp:
        for size in ('1MiB', '17TiB', '-1', 'large'):
            m = manifest_for(os.path.join(tmp, 'm.yaml'), 'oci:%s/testimages/hello:latest' % TOP)
            with open(m, 'a') as file:
                file.write('upper: { size: %s }\n' % size)
            p = build(m, os.path.join(tmp, 'bundle'), ok=(2,))
            need(
                '16 MiB to 16 TiB' in p.stderr or 'is not a size' in p.stderr or 'a size such as' in p.stderr,
                'the message on size %s does not say so: %s' % (size, p.stderr),
            )
