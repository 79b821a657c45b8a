"""Bundles of images that have odd things where a machine has its own, and programs that cannot be run
(src/boot/tests/boot/image.rs)."""

import functools
import hashlib
import json
import os
import re
import shutil
import struct

from checks import check
from harness import bundle, compare
from harness.common import TOP, WORK, build, call, manifest_for, need, scratch
from harness.images import image

HELLO = os.path.join(TOP, 'testimages/hello')

# From a builder: an empty file. Ubuntu links to systemd-resolved's file; alpine-baselayout has "localhost" as the name
# of every machine.
EMPTY_ETC = r"""
  - write: { path: /etc/hosts, content: "" }
  - symlink: { path: /etc/resolv.conf, target: ../run/systemd/resolve/stub-resolv.conf }
  - write: { path: /etc/hostname, content: "localhost\n" }
"""
OWN_ETC = r"""
  - write: { path: /etc/hosts, content: "10.9.8.7\tpatched\n127.0.0.1 localhost", mode: "640", owner: "1000" }
  - write: { path: /etc/resolv.conf, content: "# ours\nnameserver 9.9.9.9\n" }
  - replace: { path: /etc/resolv.conf, find: "# ours\n", with: "" }
  - write: { path: /etc/hostname, content: "named-here\n" }
"""
ODD_PLACES = r"""
  - remove: { path: /tmp, recursive: true, missing: ok }
  - write: { path: /tmp, content: "a file\n" }
  - remove: { path: /run, recursive: true, missing: ok }
  - symlink: { path: /run, target: /nowhere }
  - mkdir: { path: /etc/hosts }
  - write: { path: /etc/hosts/inside, content: "" }
  - symlink: { path: /etc/resolv.conf, target: ../run/systemd/resolve/stub-resolv.conf }
  - symlink: { path: /etc/hostname, target: /dev/null }
"""
FIFOS = r"""
  - remove: { path: "/etc/{passwd,group}" }
  - mknod: { path: /etc/passwd, kind: fifo }
  - mknod: { path: /etc/group, kind: fifo }
"""
PROGRAMS = r"""
  - copy: { from: programs, path: /opt/p, parents: true, mode: "u=rwx,go=rx" }
  - symlink: { path: /sbin/init, target: /bin/busybox, force: true, parents: true }
  - symlink: { path: /opt/p/to-init, target: /sbin/init }
  - symlink: { path: /usr/lib/systemd/systemd, target: /bin/busybox, parents: true }
"""


def elf(machine, bits=64, big=False, interpreter=None):
    """An executable of which there is no more than its headers, as elf(5) has them."""
    order = '>' if big else '<'
    ident = b'\x7fELF' + bytes([2 if bits == 64 else 1, 2 if big else 1, 1]) + bytes(9)
    if bits == 32:
        return ident + struct.pack(order + 'HHIIIIIHHHHHH', 2, machine, 1, 0, 52, 0, 0, 52, 32, 0, 0, 0, 0)
    count = 1 if interpreter else 0
    out = ident + struct.pack(order + 'HHIQQQIHHHHHH', 2, machine, 1, 0, 64, 0, 0, 64, 56, count, 0, 0, 0)
    if interpreter:
        text = interpreter + b'\0'
        out += struct.pack(order + 'IIQQQQQQ', 3, 4, 120, 0, 0, len(text), len(text), 1) + text
    return out


FILES = {
    'script': b'echo a script\n',
    'empty': b'',
    'aarch64': elf(183),
    's390': elf(22, big=True),
    'i386': elf(3, bits=32),
    'data': b'\x89PNG\r\n\x1a\n\0\0',
    'by-script': b'#!/opt/p/aarch64\n',
    'no-name': b'#! \n',
    'not-executable': b'#!/etc/motd\n',
    'no-interpreter': b'#! /bin/nosuch -e\n',
    'windows': b'#!/bin/sh\r\necho\r\n',
    'loader': elf(62, interpreter=b'/lib/nosuch-ld.so.1'),
}


def with_config(layout, out, change):
    """A copy of an OCI layout of one image, its config's `config` changed."""
    shutil.copytree(layout, out)
    blob = lambda digest: os.path.join(out, 'blobs', digest.replace(':', '/'))

    def put(value):
        data = json.dumps(value, sort_keys=True).encode()
        digest = 'sha256:' + hashlib.sha256(data).hexdigest()
        with open(blob(digest), 'wb') as file:
            file.write(data)
        return {'digest': digest, 'size': len(data)}

    def read(path):
        with open(path) as file:
            return json.load(file)

    index = read(os.path.join(out, 'index.json'))
    manifest = read(blob(index['manifests'][0]['digest']))
    config = read(blob(manifest['config']['digest']))
    change(config['config'])
    manifest['config'].update(put(config))
    index['manifests'][0].update(put(manifest))
    with open(os.path.join(out, 'index.json'), 'w') as file:
        json.dump(index, file)
    return out


def volumes(*names):
    return lambda config: config.update(Volumes={name: {} for name in names})


def stop_signal(name):
    return lambda config: config.update(StopSignal=name)


def make(directory, cache, bundles):
    """Puts the bundles own-etc, empty-etc, odd-places, fifos and programs below `bundles`."""
    programs = os.path.join(directory, 'programs')
    os.mkdir(programs)
    for name, data in FILES.items():
        with open(os.path.join(programs, name), 'wb') as file:
            file.write(data)
    unknown = with_config(HELLO, os.path.join(directory, 'unknown-signal'), stop_signal('SIGNOPE'))
    impossible = with_config(
        HELLO, os.path.join(directory, 'impossible-volumes'), volumes('', '/etc/motd', '/' + 256 * 'x', '/srv/data')
    )
    for name, layout, patches in (
        ('fifos', impossible, FIFOS),
        ('own-etc', HELLO, OWN_ETC),
        ('empty-etc', HELLO, EMPTY_ETC),
        ('odd-places', unknown, ODD_PLACES),
        ('programs', HELLO, PROGRAMS),
    ):
        manifest = os.path.join(directory, name + '.yaml')
        with open(manifest, 'w') as file:
            file.write('image: oci:%s:latest\nplatform: linux/amd64\npatches:%s' % (layout, patches))
        build(manifest, os.path.join(bundles, name), cache=cache)


@check('boot-stop-signal')
def stop_signals():
    """As docker takes them (Container.StopSignal of moby): what nobody knows is SIGTERM, which the build says."""
    from harness.boot import boot

    with scratch() as tmp:
        for i, (name, number, words) in enumerate(
            (
                ('', 15, 'SIGTERM'),
                ('SIGNOPE', 15, 'SIGNOPE'),
                ('0', 15, 'SIGTERM'),
                (None, 15, None),
                ('rtmin+3', 37, None),
                ('9', 9, None),
            )
        ):
            layout = with_config(HELLO, os.path.join(tmp, 'layout%d' % i), stop_signal(name))
            manifest, out = os.path.join(tmp, '%d.yaml' % i), os.path.join(tmp, 'out%d' % i)
            with open(manifest, 'w') as file:
                file.write('image: oci:%s:latest\nplatform: linux/amd64\n' % layout)
            said = build(manifest, out, cache=os.path.join(tmp, 'cache')).stderr
            warned = [line for line in said.splitlines() if 'StopSignal' in line]
            need(
                len(warned) == (words is not None) and all(words in line for line in warned),
                '%r: the build says %s' % (name, said),
            )
            plan = json.loads(boot(out, '--engine', 'qemu', '--dry-run').stdout)
            need(plan['command']['stop_signal'] == number, '%r is signal %s' % (name, plan['command']['stop_signal']))


DIR = os.path.join(WORK, 'boot')
BROKEN = r"""
#include <stddef.h>
#include <stdint.h>
static char kernel[1 << 20] __attribute__((aligned(4096))) = {
    0x0f, 0x0b, [64] = 4, [68] = 4, [72] = 18, [76] = 'X', 'e', 'n', [83] = 1};
char *krunfw_get_kernel(uint64_t *load, uint64_t *entry, size_t *size)
{
    *load = *entry = 0x1000000;
    *size = sizeof kernel;
    return kernel;
}
"""


@functools.cache
def bundles():
    """The bundles of the cases, and the sums of their files as this machine's kernel reads them."""
    shutil.rmtree(DIR, ignore_errors=True)
    os.makedirs(os.path.join(DIR, 'bundles'))
    layouts = {'hello': os.path.join(TOP, 'testimages/hello'), 'python-slim': image('python-slim')}
    for name, layout in layouts.items():
        out = os.path.join(DIR, 'bundles', name)
        m = manifest_for(os.path.join(DIR, name + '.yaml'), 'oci:%s:latest' % layout)
        build(m, out, cache=os.path.join(DIR, 'cache'))
        with bundle.disk_of(out) as at, open(out + '.sums', 'wb') as sums:
            for path, entry in compare.read(at).items():
                if entry['type'] == 'file':
                    plain = re.sub(rb'%([0-9A-F]{2})', lambda m: bytes([int(m[1], 16)]), path.encode())
                    # As sha256sum writes a name with a backslash or a newline in it.
                    odd = plain.replace(b'\\', b'\\\\').replace(b'\n', b'\\n')
                    sums.write((b'\\' if odd != plain else b'') + entry['sha256'].encode() + b'  ' + odd + b'\n')
    make(DIR, os.path.join(DIR, 'cache'), os.path.join(DIR, 'bundles'))
    # Its code is an invalid instruction, for which no handler was set up. At 64 is the note by which qemu starts a
    # kernel.
    source = os.path.join(DIR, 'broken.c')
    with open(source, 'w') as file:
        file.write(BROKEN)
    call('cc', '-shared', '-fPIC', '-Wl,-soname,libkrunfw.so.5', '-o', os.path.join(DIR, 'bundles/broken.so'), source)
    return os.path.join(DIR, 'bundles')
