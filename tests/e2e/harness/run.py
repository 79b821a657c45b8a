"""`rootfs-compile run` beside a stand-in for rootfs-boot that says how it was called."""

import contextlib
import os
import shutil

from harness.boot import KRUNFW
from harness.common import BINARY, call, need, scratch

# Stands beside a copy of the compiler: says how it was called, and ends with a code of its own.
FAKE = '#!/bin/sh\nfor a; do printf "%s\\n" "$a"; done\nexit 7\n'


class Runs:
    """`run` beside a program that only says how it was called."""

    def __init__(self, tmp):
        self.tmp, self.cache, self.binary = tmp, os.path.join(tmp, 'cache'), os.path.join(tmp, 'bin/rootfs-compile')
        os.mkdir(os.path.join(tmp, 'bin'))
        shutil.copy(BINARY, self.binary)
        with open(os.path.join(tmp, 'bin/rootfs-boot'), 'w') as file:
            file.write(FAKE)
        os.chmod(os.path.join(tmp, 'bin/rootfs-boot'), 0o755)
        self.env = {'PATH': os.environ['PATH'], 'HOME': tmp, 'ROOTFS_BOOT_KRUNFW': KRUNFW}

    def run(self, *args, says='', ok=(7,), stdin='', **env):
        """The bundle and what else the machine was told. `says`:
        what standard error must have; without, it must be empty."""
        p = call(
            self.binary, 'run', '--cache-dir', self.cache, *args, ok=ok, env=self.env | env, input=stdin, timeout=300
        )
        need(says in p.stderr if says else not p.stderr, 'run %s says: %s' % (' '.join(args), p.stderr))
        told = p.stdout.split('\n')[:-1]
        if not told:
            return None, p.stderr
        # And the same bundle, open, whose number is of no interest.
        need(
            sum(word.startswith('--bundle-fd=') for word in told) == 1, 'it is not told which bundle is open: %s' % told
        )
        return told[0], [word for word in told[1:] if not word.startswith('--bundle-fd=')]

    def made(self):
        """Directories of bundles."""
        return sorted(
            os.path.join(at, d)
            for at, dirs, _ in os.walk(os.path.join(self.cache, 'bundles'))
            for d in dirs
            if os.path.exists(os.path.join(at, d, 'bundle.json'))
        )


@contextlib.contextmanager
def runs():
    with scratch() as tmp:
        yield Runs(tmp)
