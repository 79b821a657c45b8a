"""Real images: what the kernel shows, beside what umoci unpacks."""

import json
import os
import shutil

from checks import check
from harness import bundle
from harness.common import (
    BINARY,
    HELLO,
    TOP,
    build,
    call,
    files,
    fsck_extract,
    judge,
    manifest_for,
    need,
    scratch,
    umoci,
)
from harness.images import image


def compare_with_umoci(layout):
    with scratch() as tmp:
        out = os.path.join(tmp, 'bundle')
        build(manifest_for(os.path.join(tmp, 'm.yaml'), 'oci:%s:latest' % layout), out)
        expected, options = umoci(layout)
        found = judge(out, expected, **options)
        fsck_extract(out, found)
        return '%d paths, %d layers' % (len(found), len(bundle.extents(out)) - 1)


@check('image-hello')
def hello():
    return compare_with_umoci(os.path.join(TOP, 'testimages/hello'))


@check('image-python-slim')
def python_slim():
    return compare_with_umoci(image('python-slim'))


@check('bundle-json')
def bundle_json():
    with scratch() as tmp:
        out = os.path.join(tmp, 'bundle')
        build(HELLO, out)
        with open(os.path.join(out, 'bundle.json')) as file:
            text = file.read()
        json.loads(text)
        for word in (
            '/lib/app/hello',
            'world',
            '1000:1000',
            '/home/hello',
            'LANG=C.UTF-8',
            '8080/tcp',
            '/data',
            'SIGINT',
            'org.opencontainers.image.title',
            'linux',
        ):
            need(word in text, 'bundle.json does not have %s of the image config' % word)
        for name in files(out):
            need(name == 'bundle.json' or name in text, 'bundle.json does not list ' + name)
        need(TOP not in text and tmp not in text, 'bundle.json holds a path of this host')
        json.loads(call(BINARY, 'inspect', out, '--json').stdout)
        json.loads(call(BINARY, 'verify', out, '--json').stdout)


@check('verify-finds-damage')
def verify_damage():
    """One byte flipped in each file, and each file cut: verify must exit 1 and name it."""
    with scratch() as tmp:
        out = os.path.join(tmp, 'bundle')
        build(HELLO, out)
        for name in sorted(files(out)):
            path = os.path.join(out, name)
            keep = path + '.keep'
            call('cp', '--sparse=always', path, keep)
            for how in ('flipped', 'cut'):
                # The objects may be hard links into the cache: damage a copy.
                os.unlink(path)
                call('cp', '--sparse=always', keep, path)
                os.chmod(path, 0o644)
                size = os.path.getsize(path)
                with open(path, 'r+b') as file:
                    if how == 'cut':
                        file.truncate(size - min(size, 512))
                    else:
                        file.seek(size // 2)
                        byte = file.read(1)
                        file.seek(size // 2)
                        file.write(bytes([byte[0] ^ 1]))
                os.rename(keep, os.path.join(tmp, 'keep'))
                p = call(BINARY, 'verify', out, ok=(0, 1))
                os.rename(os.path.join(tmp, 'keep'), keep)
                need(p.returncode == 1, 'verify does not see %s %s' % (how, name))
            os.unlink(path)
            os.rename(keep, path)
        call(BINARY, 'verify', out)


@check('vmdk-qemu')
def vmdk():
    """qemu must read the same bytes from the descriptor, wherever the directory lies."""
    with scratch() as tmp:
        out, raw, flat = (os.path.join(tmp, n) for n in ('bundle', 'raw', 'flat'))
        build(HELLO, out)
        bundle.concat(out, flat)
        for place in ('bundle', 'moved and renamed'):
            if place != 'bundle':
                shutil.move(out, os.path.join(tmp, place))
                out = os.path.join(tmp, place)
            call('qemu-img', 'convert', '-O', 'raw', os.path.join(out, 'bundle.vmdk'), raw)
            call('cmp', raw, flat)
            call(BINARY, 'verify', out)
