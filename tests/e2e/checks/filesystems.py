"""Cache and bundle on the file systems that people have:
with and without hard links, reflinks, holes, modes, and names that swap."""

import os
import subprocess

from checks import check
from harness.common import BINARY, TOP, Failed, call, files, need, need_no_leftovers, scratch
from harness.filesystems import KINDS, on


def manifests(tmp):
    """Two manifests of one image. The upper is small, for FAT has neither holes nor files of 4 GiB."""
    for name in ('one', 'two'):
        with open(os.path.join(tmp, name + '.yaml'), 'w') as file:
            file.write(
                'image: oci:%s:latest\nplatform: linux/amd64\nupper: { size: 16MiB }\npatches:\n'
                '  - write: { path: /etc/mark, content: %s }\n' % (os.path.join(TOP, 'testimages/hello'), name)
            )
        yield os.path.join(tmp, name + '.yaml')


def works_on(kind, tmp, one, two, good_one, good_two):
    with on(kind, tmp) as place:
        at = lambda *names: os.path.join(place, *names)
        cache = ('--cache-dir', at('cache'))
        os.makedirs(at('bundles'), exist_ok=True)
        out = at('bundles', 'out')
        call(BINARY, 'build', one, '-o', out, *cache)
        need(files(out) == good_one, 'another bundle than on the usual file system')
        said = call(BINARY, 'build', two, '-o', out, '--force', *cache).stderr
        need(files(out) == good_two, 'another bundle than on the usual file system after --force')
        need('5 cached' in said, 'the cache keeps nothing: ' + said)
        call(BINARY, 'verify', out)
        call(BINARY, 'export', out, '--oci-layout', at('layout'), *cache)
        call(BINARY, 'pull', 'oci:' + at('layout'), '-o', at('bundles', 'pulled'), *cache)
        need(files(at('bundles', 'pulled')) == good_two, 'pulled: another bundle')
        # What is a hole of a copy depends on the file system's blocks, which may be smaller than the upper's.
        call('cp', '-r', '--sparse=always', out, at('bundles', 'copied'))
        call(BINARY, 'verify', at('bundles', 'copied'), timeout=60)
        call(BINARY, 'export', at('bundles', 'copied'), '--raw', at('raw'), timeout=60)
        # A rename that swaps two directories fails: the old bundle stays, and nothing else.
        failed = subprocess.run(
            [
                'strace',
                '-f',
                '--quiet=all',
                '-o',
                '/dev/null',
                '-e',
                'trace=/rename',
                '-e',
                'inject=/rename:error=EIO:when=1+',
                BINARY,
                'build',
                one,
                '-o',
                out,
                '--force',
                *cache,
            ],
            capture_output=True,
            text=True,
        )
        need(
            failed.returncode == 1 and out in failed.stderr,
            'no rename works: exit %d, %s' % (failed.returncode, failed.stderr),
        )
        need(files(out) == good_two, 'a rename failed, and the old bundle is not whole')
        need_no_leftovers(at('bundles'), 'copied', 'out', 'pulled')


@check('file-systems')
def file_systems():
    kinds = [*KINDS, 'overlay', 'tmpfs']
    found = []
    with scratch() as tmp:
        one, two = manifests(tmp)
        good = []
        for manifest in (one, two):
            out = manifest[:-5] + '.good'
            call(BINARY, 'build', manifest, '-o', out, '--cache-dir', os.path.join(tmp, 'cache'))
            good.append(files(out))
        for kind in kinds:
            try:
                works_on(kind, tmp, one, two, *good)
            except Failed as e:
                found.append('%s: %s' % (kind, e))
    need(not found, '\n'.join(found))
    return ', '.join(kinds)
