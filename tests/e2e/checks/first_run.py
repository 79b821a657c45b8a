"""The first run: what `make hello` does on a machine that has Rust, make and pip,
what it says where that cannot do, and `make install`."""

import os
import shutil
import stat

from checks import check
from harness.common import TOP, WORK, call, files, need, scratch
from harness.machine import machine

GREETING = 'hello, world: a kernel reads this from EROFS (75 programs, user 1000, /home/hello)'
PROGRAMS = ['rootfs-boot', 'rootfs-compile']


def first_run(role, built):
    """`make hello` as the first thing that is done on a machine;
    then what it made, with nothing exported, and what it does again."""
    with machine(WORK, role, kvm=role == 'root' and os.path.exists('/dev/kvm'), built=built) as m:
        code, said = m.run('make hello')
        lines = said.splitlines()
        need(code == 0 and GREETING in lines, said)
        set_up = [i for i, line in enumerate(lines) if line.startswith('ci/tools: ')]
        compiled = [i for i, line in enumerate(lines) if line.startswith('cargo build ')]
        need(set_up and compiled and set_up[-1] < compiled[0], 'the set-up does not come before compiling:\n' + said)
        need(
            all(any(word in lines[i] for i in set_up) for word in ('gcc', 'qemu-system-x86', 'libkrunfw')),
            'the set-up does not say what it gets:\n' + said,
        )
        code, said = m.run('target/release/rootfs-boot target/hello/bundle.vmdk -- "by hand"')
        # Whatever KVM is here, rootfs-boot may say that it does not use it.
        need(code == 0 and GREETING.replace('world', 'by hand') in said.splitlines(), said)
        code, said = m.run('make hello')
        need(code == 0 and GREETING in said.splitlines() and 'ci/tools:' not in said, 'the second run:\n' + said)
        code, said = m.run(
            'make install PREFIX="$HOME/.local" && "$HOME/.local/bin/rootfs-compile" --version && '
            '"$HOME/.local/bin/rootfs-boot" --version'
        )
        need(code == 0, said)


@check('first-run-root')
def as_root():
    first_run('root', built=True)


@check('first-run-user')
def as_user():
    first_run('user', built=True)


def lacking():
    """(name, what is done to a machine that has all but qemu and a kernel, words of the one sentence)"""
    no_apt = ': >/etc/apt/sources.list; rm -rf /etc/apt/sources.list.d; '
    fake = 'mkdir -p /opt/fake; printf "#!/bin/sh\\n%s\\n" >/opt/fake/cargo; chmod 755 /opt/fake/cargo'
    yield 'no package of qemu', no_apt, ['qemu-system-x86', 'apt-get install', 'Unable to locate package']
    yield (
        'no network',
        'echo "deb http://127.0.0.1:9/debian bookworm main" >/etc/apt/sources.list; rm -rf /var/lib/apt/lists',
        ['qemu-system-x86', 'Failed to fetch', '127.0.0.1'],
    )
    yield 'no apt-get', 'mv /usr/bin/apt-get /usr/bin/apt-get.away', ['qemu-system-x86', 'no apt-get']
    yield (
        'no pip',
        no_apt + 'rm -r /usr/lib/python3/dist-packages/pip /usr/bin/pip*',
        ['python3-pip', 'apt-get install'],
    )
    yield (
        'no index of pip',
        'printf "#!/bin/sh\n" >/usr/bin/qemu-system-x86_64; chmod 755 /usr/bin/qemu-system-x86_64',
        ['libkrunfw', 'pip could not fetch', 'No matching distribution'],
    )
    yield 'no cargo', 'mkdir -p /opt/fake', ['cargo is not here', 'Rust 1.91 or newer', 'rustup']
    yield 'an old cargo', fake % 'echo cargo 1.65.0', ['cargo 1.65.0 is too old', 'Rust 1.91 or newer', 'rustup']
    yield 'a rustup without a toolchain', fake % 'exit 1', ['cargo --version fails', 'rustup default stable']


@check('first-run-lacking')
def what_cannot_be():
    """One sentence that names what to install, before anything is compiled."""
    for i, (name, spoil, words) in enumerate(lacking()):
        for role in ('root', 'user') if i == 0 else ('user',):
            with machine(WORK, role, built=False) as m:
                # The compiler is not what is missing here.
                code, said = m.run(
                    'printf "#!/bin/sh\\n" >/usr/bin/cc; cp /usr/bin/cc /usr/bin/ar; '
                    'chmod 755 /usr/bin/cc /usr/bin/ar; ' + spoil,
                    role='root',
                )
                need(code == 0, '%s: %s' % (name, said))
                rust = '/opt/fake' if 'cargo' in name or 'rustup' in name else '/opt/rust/bin'
                code, said = m.run(
                    ('PIP_RETRIES=0 PIP_INDEX_URL=http://127.0.0.1:9/simple ' if 'index' in name else '')
                    + 'make hello',
                    path=rust + ':/usr/sbin:/usr/bin:/sbin:/bin',
                )
                told = [
                    line
                    for line in said.splitlines()
                    if not line.startswith(
                        ('make: ***', 'ci/tools: installing ', 'ci/tools: fetching ', 'ci/tools: libkrunfw ')
                    )
                ]
                need(code != 0 and len(told) == 1, '%s, as %s: not one sentence: %s' % (name, role, said))
                need(
                    all(word in told[0] for word in words),
                    '%s, as %s: the sentence does not say %s: %s' % (name, role, words, said),
                )
    return '%d cases' % len(list(lacking()))


@check('first-run-install')
def install():
    """Programs that are built are installed without cargo; where they cannot go is said before anything is built."""
    call('make', 'all', cwd=TOP)
    with scratch() as tmp:
        os.makedirs(os.path.join(tmp, 'bin'))
        for name in ('make', 'sh', 'find', 'install', 'touch', 'rm'):
            os.symlink(shutil.which(name), os.path.join(tmp, 'bin', name))
        env = {'PATH': os.path.join(tmp, 'bin'), 'HOME': tmp}
        make = lambda *args, **kw: call(os.path.join(tmp, 'bin/make'), *args, cwd=TOP, env=env, **kw)
        out, bin_ = os.path.join(tmp, 'out put'), os.path.join(tmp, 'out put/usr/bin')
        make('install', 'DESTDIR=' + out, 'PREFIX=/usr')
        need(sorted(os.listdir(bin_)) == PROGRAMS, 'installed: %s' % os.listdir(bin_))
        for name in PROGRAMS:
            need(stat.S_IMODE(os.stat(os.path.join(bin_, name)).st_mode) == 0o755, name + ' is not 0755')
            call('cmp', os.path.join(bin_, name), os.path.join(TOP, 'target/release', name))
        share = files(os.path.join(out, 'usr/share'))
        need(
            {'man/man1/rootfs-boot.1', 'man/man1/rootfs-compile-build.1', 'bash-completion/completions/rootfs-boot'}
            <= share.keys(),
            'installed: %s' % sorted(share),
        )
        need(
            all(stat.S_IMODE(os.stat(os.path.join(out, 'usr/share', name)).st_mode) == 0o644 for name in share),
            'a page is not 0644',
        )
        make('uninstall', 'DESTDIR=' + out, 'PREFIX=/usr')
        need(not files(out), 'left by uninstall: %s' % sorted(files(out)))
        with open(os.path.join(tmp, 'file'), 'w'):
            pass
        p = make('install', 'PREFIX=' + os.path.join(tmp, 'file'), ok=(2,))
        need('cannot be written' in p.stderr and 'PREFIX=' in p.stderr and 'cargo' not in p.stdout, p.stdout + p.stderr)
        # Features and profile are those of `make`, so little is compiled again.
        for package in ('compile', 'boot'):
            call(
                'cargo',
                'install',
                '--quiet',
                '--locked',
                '--path',
                'src/' + package,
                '--root',
                tmp,
                '--target-dir',
                'target',
                '--no-track',
                cwd=TOP,
            )
        for name in PROGRAMS:
            call(os.path.join(tmp, 'bin', name), '--version')
