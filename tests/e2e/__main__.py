"""End-to-end checks of the release binary, as root.

    python3 tests/e2e [--long] [--list] [WORD...]       only the checks whose name holds one of the words

Environment: ROOTFS_COMPILE (target/release/rootfs-compile), WORK (.work: images, mounts; may be deleted at any time).
"""

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
import time
import traceback

from checks import every_check
from harness import TOP, WORK, common

MODULES = ('jsonschema', 'yaml')
# Before the checks are imported, some of which keep a copy.
os.environ['WORK'] = WORK
os.environ['PATH'] += ':/usr/sbin:/sbin'


def missing_tools(binary):
    tools = os.path.join(TOP, 'ci/tools')
    out = subprocess.run([tools, '--missing'], check=True, capture_output=True, text=True).stdout.splitlines()
    out += ["python3's module %s (ci/tools --python)" % m for m in MODULES if not importlib.util.find_spec(m)]
    if not os.access(os.path.join(TOP, '.tools/bin/fsck.erofs'), os.X_OK):
        out.append('.tools/bin/fsck.erofs (ci/tools)')
    if not os.access(binary, os.X_OK):
        out.append('%s (cargo build --release)' % binary)
    if os.geteuid():
        out.append('root: these checks mount')
    with open('/proc/filesystems') as file:
        known = file.read().split()
    # A module that can be loaded is not listed until it is.
    out += [
        '%s in the kernel' % fs
        for fs in ('erofs', 'ext4', 'overlay')
        if fs not in known and subprocess.run(['modprobe', '-q', fs]).returncode
    ]
    return out


SKOPEO_CACHE = '/var/lib/containers/cache'


def in_own_mounts():
    """Goes on in a mount namespace of its own, where skopeo remembers nothing of copies that were made before: what it
    remembers of a layer's other forms decides what it writes, and whether it writes at all."""
    if os.environ.get('E2E_MOUNTS') != 'own':
        os.execvpe(
            'unshare', ['unshare', '--mount', '--', sys.executable, *sys.argv], {**os.environ, 'E2E_MOUNTS': 'own'}
        )
    os.makedirs(SKOPEO_CACHE, mode=0o700, exist_ok=True)
    subprocess.run(['mount', '-t', 'tmpfs', 'skopeo', SKOPEO_CACHE], check=True)


def main():
    ap = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    ap.add_argument('words', nargs='*')
    ap.add_argument('--long', action='store_true')
    ap.add_argument('--list', action='store_true')
    a = ap.parse_args()
    # A shell starts what it puts into the background with ^C ignored, and the programs under test rightly keep to that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # The quick ones first.
    chosen = sorted((c for c in every_check() if a.long or a.list or not c.long), key=lambda c: c.long)
    chosen = [c for c in chosen if not a.words or any(w in c.name for w in a.words)]
    if a.list:
        print('\n'.join(c.name + (' (--long)' if c.long else '') for c in chosen))
        return 0
    missing = missing_tools(common.BINARY)
    if missing:
        print('missing, so nothing was checked:\n  ' + '\n  '.join(missing))
        return 1
    in_own_mounts()
    os.makedirs(WORK, exist_ok=True)
    failed, start = [], time.monotonic()
    for check in chosen:
        began = time.monotonic()
        try:
            note = check.run()
            print('ok    %-40s %6.1f s  %s' % (check.name, time.monotonic() - began, note or ''), flush=True)
        except Exception as e:
            failed.append(check.name)
            text = str(e) if isinstance(e, (common.Failed, OSError, ValueError)) else traceback.format_exc()
            print(
                'FAIL  %-40s %6.1f s\n    %s'
                % (check.name, time.monotonic() - began, text.strip().replace('\n', '\n    ')),
                flush=True,
            )
    if not chosen:
        print('no such check: --list names them; those with --long run only with it')
    print('%d checks, %d failed, %.0f s' % (len(chosen), len(failed), time.monotonic() - start))
    for name in failed:
        print('  failed: ' + name)
    return 1 if failed or not chosen else 0


if __name__ == '__main__':
    sys.exit(main())
