"""Signed bundles: minisign and this program judge each other's signatures,
and nothing that is not signed passes where a signature is asked for."""

import fcntl
import os
import shutil
import subprocess
import tarfile

from checks import check
from harness.boot import ENV, boot
from harness.common import BINARY, HELLO, PATIENCE, build, call, files, need, same_files, scratch
from harness.registry import Site

POLICY = '/etc/rootfs-compile'


def minisign_key(path, *args):
    """A pair of minisign's own, without a password."""
    call('minisign', '-G', '-W', '-p', path + '.pub', '-s', path, *args)
    return path


def flip(path):
    os.chmod(path, 0o644)
    with open(path, 'r+b') as file:
        file.seek(os.path.getsize(path) // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


@check('signature')
def signature():
    with scratch() as tmp:
        at = lambda *names: os.path.join(tmp, *names)
        build(HELLO, at('out'))
        call(BINARY, 'keygen', '-o', at('ours'))
        need(
            os.stat(at('ours')).st_mode & 0o777 == 0o600, 'the secret key has the mode %o' % os.stat(at('ours')).st_mode
        )
        said = call(BINARY, 'keygen', '-o', at('ours'), ok=(1,)).stderr
        need('stays as it is' in said, said)
        # Half a key would be in the way of the next one.
        call('prlimit', '--fsize=0', BINARY, 'keygen', '-o', at('full'), ok=(1,))
        need(not os.path.exists(at('full')), 'a key that could not be written is there')
        theirs = minisign_key(at('theirs'))
        call(BINARY, 'keygen', '-o', at('locked'), env={**os.environ, 'ROOTFS_COMPILE_KEY_PASSWORD': 'secret'})
        passed = {**os.environ, 'ROOTFS_COMPILE_KEY_PASSWORD': 'secret'}
        locked = at('locked')

        said = call(BINARY, 'verify', at('out'), '--key', at('ours.pub'), ok=(1,)).stdout
        need('no signature' in said, said)
        signed = at('out/bundle.json.minisig')
        for key, env in ((at('ours'), None), (theirs, None), (locked, passed)):
            call(BINARY, 'sign', at('out'), '--key', key, env=env)
            with open(signed) as file:
                first = file.read()
            call(BINARY, 'sign', at('out'), '--key', key, env=env)
            with open(signed) as file:
                need(file.read() == first, 'the same key gives another signature of the same bundle')
            call('minisign', '-V', '-H', '-m', at('out/bundle.json'), '-p', key + '.pub')
            call(BINARY, 'verify', at('out'), '--key', key + '.pub')
            call(BINARY, 'verify', at('out'))
        need(
            call(BINARY, 'sign', at('out'), '--key', locked, ok=(1,)).stderr.count('PASSWORD') == 1,
            'a key with a password',
        )
        call(
            BINARY, 'sign', at('out'), '--key', locked, ok=(1,), env={**passed, 'ROOTFS_COMPILE_KEY_PASSWORD': 'wrong'}
        )
        call(BINARY, 'sign', at('out'), '--key', at('ours.pub'), ok=(1,))
        # One of several; and minisign's own signature.
        said = call(BINARY, 'verify', at('out'), '--key', at('ours.pub'), ok=(1,)).stdout
        need('another key' in said and 'ours.pub' in said, said)
        call(BINARY, 'verify', at('out'), '--key', at('ours.pub'), '--key', locked + '.pub')
        call('minisign', '-S', '-s', theirs, '-m', at('out/bundle.json'), '-x', signed)
        call(BINARY, 'verify', at('out'), '--key', theirs + '.pub')
        call(BINARY, 'verify', at('out'), '--key', signed, ok=(1,))
        # A signature is of one index.
        shutil.copytree(at('out'), at('changed'), ignore=shutil.ignore_patterns('upper.ext4'))
        for line in range(4):
            with open(signed) as file:
                lines = file.read().split('\n')
            lines[line] = lines[line][:-10] + ('A' if lines[line][-10] != 'A' else 'B') + lines[line][-9:]
            with open(at('changed/bundle.json.minisig'), 'w') as file:
                file.write('\n'.join(lines))
            said = call(BINARY, 'verify', at('changed'), '--key', theirs + '.pub', ok=(1,)).stdout
            need(('bundle.json.minisig' in said) == (line > 0), 'line %d was changed: %s' % (line + 1, said))
        build(HELLO, at('out'), '--force', cache=at('out.cache'))
        need(not os.path.exists(signed), 'a new bundle has the signature of the old one')
        # What does not verify is not signed.
        flip(at('out/layers', sorted(os.listdir(at('out/layers')))[0]))
        call(BINARY, 'sign', at('out'), '--key', at('ours'), ok=(1,))
        need(not os.path.exists(signed), 'a damaged bundle is signed')


@check('signature-travels')
def travels():
    """push, pull, export carry the signature; pull checks it before anything is published."""
    with scratch() as tmp, Site(os.path.join(tmp, 'site')) as site:
        at = lambda *names: os.path.join(tmp, *names)
        build(HELLO, at('out'))
        call(BINARY, 'keygen', '-o', at('key'))
        call(BINARY, 'keygen', '-o', at('other'))
        cached = ('--cache-dir', at('cache'))
        name = site.plain.host + '/bundles/hello:'
        call(BINARY, 'push', at('out'), name + 'unsigned', *cached)
        call(BINARY, 'sign', at('out'), '--key', at('key'))
        call(BINARY, 'push', at('out'), name + 'signed', *cached)
        call(BINARY, 'export', at('out'), '--oci-layout', at('layout'), *cached)
        for i, source in enumerate((name + 'signed', 'oci:' + at('layout'))):
            call(
                BINARY,
                'pull',
                source,
                '-o',
                at('pulled%d' % i),
                '--key',
                at('other.pub'),
                '--key',
                at('key.pub'),
                *cached,
            )
            same_files(at('out'), at('pulled%d' % i), source)
        for source, key, word in (
            (name + 'unsigned', 'key', 'no signature'),
            (name + 'signed', 'other', 'another key'),
        ):
            proxy = site.proxy()
            said = call(
                BINARY,
                'pull',
                source.replace(site.plain.host, proxy.host),
                '-o',
                at('refused'),
                '--key',
                at(key + '.pub'),
                '--cache-dir',
                at('empty'),
                ok=(1,),
            ).stderr
            need(word in said, said)
            need(not os.path.exists(at('refused')), 'it is published all the same')
            blobs = {r.path for r in proxy.asked('/blobs/', 'GET')}
            need(len(blobs) <= 2, 'more than index and signature was asked for: %s' % blobs)
        call(BINARY, 'export', at('out'), '--tar', at('out.tar'))
        with tarfile.open(at('out.tar')) as tar:
            need('bundle.json.minisig' in tar.getnames(), 'the tar has %s' % tar.getnames())


@check('signature-boot')
def at_boot():
    """rootfs-boot --key, and the system's policy, which nothing takes back."""
    with scratch() as tmp:
        at = lambda *names: os.path.join(tmp, *names)
        build(HELLO, at('out'))
        for key in ('key', 'other'):
            call(BINARY, 'keygen', '-o', at(key))
        dry = ('--dry-run', '--engine', 'qemu')

        def refused(word, *args, **kw):
            said = boot(*dry, *args, at('out'), ok=(125,), **kw).stderr
            need(word in said, '%s: %s' % (args, said))

        refused('no signature', '--key', at('key.pub'))
        call(BINARY, 'sign', at('out'), '--key', at('key'))
        boot(*dry, '--key', at('key.pub'), at('out'))
        refused('another key', '--key', at('other.pub'))
        # What a signature covers is looked at: a layer that was changed is noticed without --verify.
        call('cp', '-r', '--sparse=always', at('out'), at('changed'))
        flip(at('changed/layers', sorted(os.listdir(at('changed/layers')))[-1]))
        said = boot(*dry, '--key', at('key.pub'), at('changed'), ok=(125,)).stderr
        need('sha256-' in said, said)

        # This check runs in mounts of its own: nobody else sees this policy.
        call('mkdir', '-p', POLICY)
        call('mount', '-t', 'tmpfs', 'policy', POLICY)
        try:

            def policy(text):
                with open(POLICY + '/policy.toml', 'w') as file:
                    file.write(text)

            shutil.copy(at('key.pub'), POLICY + '/release.pub')
            boot(*dry, at('out'))
            policy('require-signature = true\nkeys = ["release.pub"]\n')
            boot(*dry, at('out'))
            boot(*dry, '--key', at('key.pub'), at('out'))
            refused('another key', '--key', at('other.pub'))
            with open(at('other.pub')) as file:
                policy('require-signature = true\nkeys = ["%s"]\n' % file.read().split('\n')[1])
            refused('another key')
            # Neither an option nor the environment takes it back.
            refused('another key', '--key', at('key.pub'))
            refused(
                'another key',
                env={
                    **ENV,
                    'HOME': tmp,
                    'ROOTFS_COMPILE_POLICY': '/dev/null',
                    'ROOTFS_BOOT_POLICY': '/dev/null',
                    'XDG_CONFIG_HOME': tmp,
                },
            )
            os.unlink(at('out/bundle.json.minisig'))
            refused('no signature')
            p = subprocess.run(
                [
                    BINARY,
                    'run',
                    'oci:' + os.path.join(os.path.dirname(HELLO), '../testimages/hello'),
                    '--cache-dir',
                    at('cache'),
                    '--engine',
                    'qemu',
                ],
                env=ENV,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
            )
            need(p.returncode == 125 and 'no signature' in p.stderr, 'run: exit %d: %s' % (p.returncode, p.stderr))
            for text in (
                '',
                'require-signature = true\n',
                '[',
                'require-signature = true\nkeys = ["absent.pub"]\n',
                'require-signature = false\nother = 1\n',
            ):
                policy(text)
                refused('policy.toml')
            os.unlink(POLICY + '/policy.toml')
            os.symlink('loop', POLICY + '/loop')
            os.symlink('loop', POLICY + '/policy.toml')
            refused('policy.toml')
            os.unlink(POLICY + '/policy.toml')
            policy('require-signature = false\n')
            boot(*dry, at('out'))
        finally:
            call('umount', POLICY)
        return '%d files' % len(files(at('out')))


@check('signature-killed')
def killed():
    """A kill while a signature is replaced leaves a bundle that everybody takes;
    the next `sign` takes away what was left, and so does --force."""
    with scratch() as tmp:
        at = lambda *names: os.path.join(tmp, *names)
        build(HELLO, at('out'))
        call(BINARY, 'keygen', '-o', at('key'))
        sign = (BINARY, 'sign', at('out'), '--key', at('key'))
        call(*sign)
        usual = sorted(os.listdir(at('out')))

        def kill():
            call(
                'strace',
                '-f',
                '--quiet=all',
                '-o',
                '/dev/null',
                '-e',
                'inject=renameat,renameat2:signal=KILL',
                *sign,
                ok=(-9, 137),
            )
            left = set(os.listdir(at('out'))) - set(usual)
            need(len(left) == 1, 'the kill left %s' % left)
            return left.pop()

        left = kill()
        call(BINARY, 'verify', at('out'), '--key', at('key.pub'))
        boot('--dry-run', '--engine', 'qemu', '--key', at('key.pub'), at('out'))
        call(*sign)
        need(sorted(os.listdir(at('out'))) == usual, 'the next `sign` leaves %s' % os.listdir(at('out')))
        left = kill()
        # A signature that is being written, at the same time.
        with open(at('out', left)) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            call(BINARY, 'verify', at('out'))
            need(
                left in build(HELLO, at('out'), '--force', ok=(1,)).stderr, 'a bundle that is being signed is replaced'
            )
        build(HELLO, at('out'), '--force')
        need(
            sorted(os.listdir(at('out'))) == sorted(set(usual) - {'bundle.json.minisig'}),
            'after --force there are %s' % os.listdir(at('out')),
        )
        # Something else under such a name is not taken.
        os.symlink('bundle.json', at('out', left))
        need(left in call(BINARY, 'verify', at('out'), ok=(1,)).stdout, 'a link is passed over')
