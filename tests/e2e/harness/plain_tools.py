"""Patched images beside the same change made by plain tools on what `umoci unpack` gives."""

import collections
import functools
import os
import resource
import shutil
import stat
import time

from harness import bundle, compare, oracle, transcode
from harness.common import TOP, WORK, Failed, build, call, need, quiet_kernel, scratch
from harness.images import image
from harness.upper import clean, overlay

DIR = os.path.join(WORK, 'patch')
T = 1720000000  # SOURCE_DATE_EPOCH: a time that nothing in the images has
Image = collections.namedtuple('Image', 'layout root base')
# What every script begins with. It runs in the unpacked image; $R is that, $H the host's files of a case.
PRELUDE = r"""
set -eu
umask 022
in_root() { chroot "$R" /bin/sh -euc "$1"; }
# shadow's tools as Debian has them set up; what they need and what they leave beside the files of the accounts is taken
# away again.
shadow_tool() {
    mkdir "$H/.kept"
    for f in login.defs passwd- group- shadow- gshadow- subuid subgid subuid- subgid- .pwd.lock; do
        [ ! -e etc/$f ] || cp -a etc/$f "$H/.kept/"
    done
    printf '%s\n' 'PASS_MAX_DAYS 99999' 'PASS_MIN_DAYS 0' 'PASS_WARN_AGE 7' 'HOME_MODE 0700' 'UID_MIN 1000' \
        'GID_MIN 1000' 'USERGROUPS_ENAB yes' 'CREATE_HOME no' >etc/login.defs
    # Without gshadow they write ! instead of x to group.
    if [ -e etc/gshadow ]; then gshadow=; else gshadow=etc/gshadow; : >etc/gshadow; fi
    tool=$1; shift
    $tool --root "$R" "$@"
    rm -f etc/login.defs etc/*- etc/.pwd.lock etc/subuid etc/subgid $gshadow
    rm -rf var/mail/* var/spool/mail/*
    cp -a "$H/.kept/." etc/
    rm -r "$H/.kept"
}
add_user() { shadow_tool useradd "$@"; }
add_group() { shadow_tool groupadd "$@"; }
# Edits a file in place, so that names and xattrs stay: edit FILE COMMAND...
edit() { f=$1; shift; "$@" <"$f" >"$H/.edit"; cat "$H/.edit" >"$f"; rm "$H/.edit"; }
"""


@functools.cache
def pristine(name):
    """An image as umoci unpacks it, and as the kernel shows it where nothing is patched. Both must be the same tree."""
    layout = os.path.join(TOP, 'testimages/hello') if name == 'hello' else image(name)
    at = os.path.join(DIR, name)
    shutil.rmtree(at, ignore_errors=True)
    os.makedirs(at)
    transcode.copy(layout, os.path.join(at, 'layout'))
    root, said, start = oracle.unpack(os.path.join(at, 'layout'), os.path.join(at, 'out'))
    need(root, 'umoci: ' + said)
    shutil.rmtree(os.path.join(at, 'layout'))
    with scratch() as tmp:
        m = os.path.join(tmp, 'm.yaml')
        with open(m, 'w') as file:
            file.write('image: oci:%s:latest\nplatform: linux/amd64\n' % layout)
        build(m, os.path.join(tmp, 'bundle'), cache=os.path.join(DIR, 'cache'))
        with overlay(os.path.join(tmp, 'bundle'), tmp) as (merged, _, _):
            base = compare.read(merged)
    for path, _, _ in os.walk(os.fsencode(root), topdown=False):
        st = os.lstat(path)
        if st.st_mtime_ns > start:  # umoci's own time on a directory that the image only implies
            time_of_image = base[compare.escape(path[len(root) :]) or '/']['mtime']
            os.utime(path, ns=(time_of_image, time_of_image))
    text = compare.show(compare.read(root), base, empty_xattrs_may_lack=True)
    need(not text, 'without patches already:\n' + text)
    return Image(layout, root, base)


def by_plain_tools(img, script, tmp, host):
    """What `script` makes of a copy of the unpacked image, with the times that patches have."""
    root = os.path.join(tmp, 'plain')
    call('cp', '-a', img.root, root)
    # Directories are held open, so that no new one gets the inode number of one that was removed.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    held, fds = {}, []
    try:
        for path, _, _ in os.walk(os.fsencode(root)):
            fds.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW))
            st = os.fstat(fds[-1])
            held[st.st_ino] = st.st_mtime_ns
        start = time.time_ns() - 50_000_000  # the kernel's clock for files is a tick behind
        call(
            'sh',
            '-c',
            PRELUDE + script,
            cwd=root,
            env={**os.environ, 'R': root, 'H': host, 'T': str(T), 'SOURCE_DATE_EPOCH': str(T), 'LC_ALL': 'C'},
        )
        entries = compare.read(root)
        # Whatever has the present time was changed: a directory because names came or went, unless it is new; others by
        # their content.
        inodes = {b'': os.lstat(root).st_ino}
        for path, names, _ in os.walk(os.fsencode(root)):
            for name in names:
                inodes[os.path.join(path, name)[len(root) :]] = os.lstat(os.path.join(path, name)).st_ino
        inodes = {compare.escape(path) or '/': inode for path, inode in inodes.items()}
        for path, e in entries.items():
            if e['mtime'] > start:
                e['mtime'] = held.get(inodes[path], T * 10**9) if e['type'] == 'dir' else T * 10**9
    finally:
        for fd in fds:
            os.close(fd)
    # A file that only lost a name is not changed itself, and the layer it lies in knows nothing of the loss; so it is
    # with overlayfs.
    for path, e in entries.items():
        b = img.base.get(path)
        if (
            b
            and e['type'] != 'dir'
            and e['nlink'] < b['nlink']
            and {**e, 'nlink': 0, 'inode': 0} == {**b, 'nlink': 0, 'inode': 0}
        ):
            e['nlink'] = b['nlink']
    return entries


def judge_upper(up, base, found):
    """The upper has what overlayfs needs and nothing else:
    no copy of what did not change, one whiteout with many names. Returns its paths."""
    top = os.fsencode(os.path.join(up, 'upper'))
    inner, whiteouts, paths, dirs = set(), set(), [], []
    for at, names, files in os.walk(top):
        for name in names + files:
            real = os.path.join(at, name)
            path, st = compare.escape(real[len(top) :]), os.lstat(real)
            paths.append(path)
            marks = {
                n: os.getxattr(real, n, follow_symlinks=False)
                for n in os.listxattr(real, follow_symlinks=False)
                if n.startswith('trusted.overlay.')
            }
            if stat.S_ISDIR(st.st_mode):
                dirs.append(path)
                need(
                    marks in ({}, {'trusted.overlay.opaque': b'y'}), '%s in the upper has the marks %s' % (path, marks)
                )
                continue
            need(not marks, '%s in the upper has the marks %s' % (path, marks))
            inner.add(path)
            if stat.S_ISCHR(st.st_mode) and st.st_rdev == 0:
                whiteouts.add(st.st_ino)
                need(path in base, 'a whiteout of nothing: ' + path)
                need(path not in found, '%s is there in spite of its whiteout' % path)
            else:
                need(
                    path in found and found[path] != base.get(path),
                    'the upper holds %s, of which nothing changed' % path,
                )
    need(len(whiteouts) < 2, 'the whiteouts have %d inodes instead of one' % len(whiteouts))
    for path in sorted(dirs, key=len, reverse=True):
        need(path in found, 'the upper holds the directory %s, which is not to be seen' % path)
        if found[path] != base.get(path) or any(p.startswith(path + '/') for p in inner):
            inner.add(path)
        # An empty directory over one that is not empty does something as well.
        below = any(p.startswith(path + '/') for p in base) and not any(p.startswith(path + '/') for p in found)
        need(path in inner or below, 'the upper holds the directory %s, in which nothing changed' % path)
    return sorted(paths)


def judge_patched(manifest, script, tmp, img='hello', args=(), also=None):
    """Builds a manifest and compares what the kernel shows with what the script makes.
    Returns (paths, paths of the upper)."""
    img, out, host = pristine(img), os.path.join(tmp, 'bundle'), os.path.join(tmp, 'h')
    os.makedirs(host, exist_ok=True)
    build(manifest, out, *args, cache=os.path.join(DIR, 'cache'), env={**os.environ, 'SOURCE_DATE_EPOCH': str(T)})
    clean(os.path.join(out, 'upper.ext4'))
    with overlay(out, tmp) as (merged, _, _):
        found = compare.read(merged)
        expected = by_plain_tools(img, script, tmp, host)
        text = compare.show(expected, found, empty_xattrs_may_lack=True)
        need(not text, text)
        need(expected != img.base or not script.strip(), 'the plain tools changed nothing, so nothing was tested')
    # As it was built: where overlayfs was mounted to write, it has left marks of its own.
    with bundle.mounted(os.path.join(out, 'upper.ext4'), 'ext4', 'ro,loop') as up:
        paths = judge_upper(up, img.base, found)
        if also:
            also(paths, os.path.join(up, 'upper'))
    return len(found), len(paths)


def run_all(cases):
    """Runs (name, function) pairs, all of them whatever happens, with the kernel listening."""
    failed = []
    with quiet_kernel():
        for name, run in cases:
            try:
                run()
            except (Failed, OSError, ValueError, KeyError) as e:
                failed.append('%s: %s' % (name, str(e).strip().replace('\n', '\n    ')))
    need(not failed, '%d of %d fail:\n%s' % (len(failed), len(cases), '\n'.join(failed)))
    return len(cases)
