"""Checks the written-down expectations of the cases against umoci.

    python3 -m harness.oracle CASES [NAME...]

Unpacks each case with `umoci unpack` (as root) and prints where it differs from what the case expects. umoci is no
judge of all of them: where it is known to do otherwise, KNOWN says why, and only news make the exit status 1.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

from harness import compare, transcode

# Case names, by the reason why umoci is not followed.
KNOWN = {
    name: why
    for why, names in {
        'checks nothing of the sort': 'blob-wrong-digest blob-wrong-size config-wrong-digest manifest-wrong-digest '
        'manifest-wrong-size '
        'manifest-unknown-media-type manifest-said-to-be-index config-other-architecture config-unknown-media-type '
        'bomb-symlink-forest '
        'device-major-too-large device-minor-too-large gid-no-id gid-pax-negative uid-negative uid-no-id '
        'uid-pax-too-large uid-too-large xattr-refused-capability-empty',
        'takes .. as staying inside the root': 'dot-dot-in-link-target dot-dot-last dot-dot-leading dot-dot-middle',
        'is not given the manifest': 'layout-not-there manifest-bad-scheme manifest-empty manifest-no-image '
        'manifest-not-yaml '
        'manifest-unknown-key pinned-wrong platform-not-there platform-other tag-not-there '
        'config-against-index config-architecture-empty-in-index config-variant-against-index',
        'reads configs more strictly than Docker': 'config-created-empty config-entrypoint-string config-history-odd '
        'config-os-absent config-os-empty '
        'config-rootfs-null config-rootfs-type-absent config-rootfs-type-empty config-rootfs-type-null '
        'config-upper-case config-variant-number',
        'goes by the media type': 'media-type-disagrees',
        'links in the order of the tar': 'link-before-target link-chain-backwards link-chain-to-lower',
        'knows no old GNU sparse files, contiguous files, global headers': 'name-before-global-header '
        'sparse-gnu-four sparse-gnu-leading-hole sparse-gnu-many sparse-gnu-middle sparse-gnu-odd-size '
        'sparse-gnu-only-hole '
        'sparse-gnu-trailing-hole sparse-linked type-contiguous pax-global',
        'inherits default ACLs; knows no ACL text, no LIBARCHIVE record, no empty value, no SELinux label': ''
        'acl-default-not-inherited acl-text acl-text-default xattr-libarchive xattr-empty-value xattr-shared',
        'leaves its own time on a directory below which it made another': ''
        'implied-in-deeper through-symlink-implied-below '
        'whiteout-dir-after-own-dir',
        'keeps the marks of this project': 'xattr-own-marks-dropped',
        'sets the mode before the ACL': 'acl-against-mode',
        'refuses what Docker passes over': 'xattr-of-other-kinds',
        'needs a file system with room for it': 'xattr-too-large-for-a-guest',
        'unpacks the links of aufs': 'aufs-bookkeeping aufs-link-after aufs-link-before',
        'fails on a directory implied over a file': 'dir-file-implied-dir file-there-then-through-symlink '
        'file-used-as-directory file-used-as-directory-through-link',
        'clamps times to 32 bits': 'time-pax',
    }.items()
    for name in names.split()
}

# Cases about which image is meant: transcode.py gives umoci one, so they say nothing of umoci.
CHOICE = ('index-', 'order-', 'name-', 'two-names-', 'two-variants-', 'tagged-and-untagged-', 'same-platform-')


def unpack(layout, out):
    """umoci's rootfs (None if it failed), what it said, and the time after which a directory's time is umoci's own."""
    start = time.time_ns() - 10**9
    p = subprocess.run(
        ['umoci', 'unpack', '--image', layout + ':latest', out],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors='replace',
    )
    return (os.path.join(out, 'rootfs') if p.returncode == 0 else None), p.stdout, start


def judge(case):
    """None if umoci agrees, else a line on where it does not."""
    with open(os.path.join(case, 'expect.json')) as file:
        expect = json.load(file)
    with tempfile.TemporaryDirectory(dir=os.environ.get('WORK')) as tmp:
        layout = os.path.join(tmp, 'layout')
        try:
            transcode.copy(os.path.join(case, 'layout'), layout)
        except Exception as e:  # broken on purpose
            return None if expect['exit'] else 'cannot be read: %s' % e
        root, said, start = unpack(layout, os.path.join(tmp, 'out'))
        if root is None:
            return None if expect['exit'] else 'umoci fails: ' + said.strip().split('\n')[-1][-200:]
        if expect['exit']:
            return 'umoci unpacks it'
        return compare.show(expect['entries'], umoci_as_expected(compare.read(root), start)) or None


def umoci_as_expected(entries, start):
    """umoci leaves the current time on directories that it made itself."""
    for e in entries.values():
        if e['type'] == 'dir' and e['mtime'] > start:
            e['mtime'] = 0
    return entries


def main():
    cases, names = sys.argv[1], sys.argv[2:]
    news = 0
    for name in names or sorted(os.listdir(cases)):
        if json.loads(pathlib.Path(cases, name, 'expect.json').read_text())['args']:
            continue  # umoci does not know the limits
        if name.startswith(CHOICE):
            continue
        text = judge(os.path.join(cases, name))
        if text and name not in KNOWN:
            news += 1
            print('%s: %s' % (name, text.replace('\n', '\n    ')))
        elif not text and name in KNOWN:
            print('%s: umoci agrees by now' % name)
    print('%d differ beyond the known %d' % (news, len(KNOWN)))
    return 1 if news else 0


if __name__ == '__main__':
    shutil.which('umoci') or sys.exit('umoci is missing: apt-get install umoci')
    sys.exit(main())
