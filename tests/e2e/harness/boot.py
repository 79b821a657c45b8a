"""Starting rootfs-boot, with the kernel that ci/tools fetched."""

import os
import subprocess

from harness.common import TOP, call

BOOT = os.environ.get('ROOTFS_BOOT', os.path.join(TOP, 'target/release/rootfs-boot'))
KRUNFW = os.path.join(TOP, '.tools/guest/libkrunfw.so.5')
ENV = {**os.environ, 'ROOTFS_BOOT_KRUNFW': KRUNFW}


def boot(*args, ok=(0,), env=ENV, **kw):
    return call(BOOT, *args, ok=ok, env=env, stdin=subprocess.DEVNULL, **kw)


def no_engine(tmp, does=''):
    """An environment whose qemu only leaves a mark."""
    os.makedirs(os.path.join(tmp, 'path'), exist_ok=True)
    fake, mark = os.path.join(tmp, 'path/qemu-system-x86_64'), os.path.join(tmp, 'launched')
    with open(fake, 'w') as file:
        file.write('#!/bin/sh\necho "$@" >%s\n%s\n' % (mark, does))
    os.chmod(fake, 0o755)
    return {**ENV, 'PATH': os.path.join(tmp, 'path') + ':' + ENV['PATH']}, mark
