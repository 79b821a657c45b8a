"""Machines: the cases of src/boot/tests/boot under both engines, and what a person sees of an engine."""

import functools
import json
import os
import re
import shutil
import signal
import stat
import subprocess

from checks import check
from checks.boot_images import DIR, bundles
from harness import bundle, nest
from harness.boot import BOOT, ENV, KRUNFW, boot, no_engine
from harness.common import PATIENCE, TOP, call, files, need, scratch
from harness.upper import clean


@functools.cache
def cases():
    """The program with the cases."""
    p = call('cargo', 'test', '--release', '--locked', '--no-run', '--test', 'boot', '--message-format=json', cwd=TOP)
    made = [json.loads(line) for line in p.stdout.splitlines() if line.startswith('{')]
    made = [m['executable'] for m in made if m.get('executable') and m['target']['name'] == 'boot']
    need(len(made) == 1, 'cargo did not say where the cases are')
    return made[0]


@functools.cache
def kvm_is_broken():
    """Why no guest runs on this machine's own KVM, or None if one does."""
    p = boot(os.path.join(bundles(), 'hello'), '--engine', 'libkrun', ok=range(256))
    return None if p.returncode == 0 and p.stdout.startswith('hello, world') else p.stderr


def judge_uppers(out):
    """What the machines left behind, as e2fsck and this machine's kernel see it."""
    found = sorted(name for name in os.listdir(out) if name.endswith('.ext4'))
    need(len(found) == 6, 'the cases left the uppers %s' % ', '.join(found))
    for name in found:
        path = os.path.join(out, name)
        if name == 'killed-raw.recover.ext4':
            # As the machine left it that was killed while it wrote: not clean, until the journal is replayed.
            dirty = call('e2fsck', '-fn', path, ok=range(16))
            need('recover' in dirty.stdout + dirty.stderr, '%s needs no recovery: %s' % (name, dirty.stdout))
            call('e2fsck', '-p', path, ok=(0, 1))
        clean(path)
    with bundle.mounted(os.path.join(out, 'overlay.clean.ext4'), 'ext4', 'ro,loop') as at:
        shadow = os.lstat(os.path.join(at, 'upper/etc/shadow'))
        need(stat.S_ISCHR(shadow.st_mode) and shadow.st_rdev == 0, 'the deleted file is not a whiteout')
        opaque = os.getxattr(os.path.join(at, 'upper/var/cache/app'), 'trusted.overlay.opaque')
        need(opaque == b'y', 'the replaced directory is not opaque')
    return '%d uppers' % len(found)


def run_cases(engine, words=()):
    out = os.path.join(DIR, 'out-' + engine)
    shutil.rmtree(out, ignore_errors=True)
    before = files(os.path.join(bundles(), 'hello'))
    if engine == 'qemu' or kvm_is_broken() is None:
        where = 'here'
        p = subprocess.Popen(
            [cases(), '--binary', BOOT, '--engine', engine, '--bundles', bundles(), '--out', out, *words],
            env=ENV,
            text=True,
            errors='replace',
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            # Each case has its own limit, by which it says what hangs.
            said, _ = p.communicate(timeout=2 * PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(p.pid, signal.SIGKILL)  # and its machines with it
            said = p.communicate()[0] + '\nand then nothing for too long'
        code = p.returncode
        need(files(os.path.join(bundles(), 'hello')) == before, 'the machines changed the bundle')
    else:
        where = 'in an emulated machine, as KVM here gives: %s' % ' '.join(kvm_is_broken().split())[:120]
        given = {'rootfs-boot': BOOT, 'cases': cases(), 'bundles': bundles(), 'libkrunfw.so.5': KRUNFW}
        command = (
            'ROOTFS_BOOT_KRUNFW=/data/libkrunfw.so.5 TMPDIR=/data ./cases --binary ./rootfs-boot --engine %s '
            '--bundles bundles --out out %s' % (engine, ' '.join(words))
        )
        code, said = nest.run(command, files=given, out=out, libraries_of=[BOOT, cases(), KRUNFW])
        said = said.decode(errors='replace')
    need(code == 0, said)
    return '%s, %s, %s' % (said.strip().splitlines()[-1], where, judge_uppers(out))


@check('boot-qemu')
def qemu():
    return run_cases('qemu')


@check('boot-libkrun')
def libkrun():
    return run_cases('libkrun')


@check('boot-readme')
def readme():
    """The README's first command, as a stranger types it."""
    p = call('make', 'hello', cwd=TOP, env={k: v for k, v in os.environ.items() if k != 'ROOTFS_BOOT_KRUNFW'})
    need('hello, world: a kernel reads this from EROFS' in p.stdout, p.stdout + p.stderr)


@check('boot-auto')
def auto():
    """Without --engine something always runs.
    Where KVM is there and useless, the notice and the error say so, and the next start knows."""
    here = os.path.join(bundles(), 'hello')
    why = kvm_is_broken()
    with scratch() as tmp:
        os.mkdir(os.path.join(tmp, 'run'), 0o700)
        env = {k: v for k, v in ENV.items() if k != 'ROOTFS_BOOT_ENGINE'} | {
            'XDG_RUNTIME_DIR': os.path.join(tmp, 'run'),
            'XDG_CACHE_HOME': os.path.join(tmp, 'cache'),
        }

        def start(*args, engines, **more):
            """One start; what it says on standard error besides how long each phase took.
            Counting engines tells a start that waited for KVM."""
            p = boot(here, '--timings', *args, '--', 'anywhere', env=env | more)
            need(p.stdout.startswith('hello, anywhere: '), p.stdout + p.stderr)
            notices = [line for line in p.stderr.splitlines() if not re.match('rootfs-boot: (host|guest) ', line)]
            n = p.stderr.count("engine's process started")
            need(n == engines, '%d engines were started, not %d: %s' % (n, engines, p.stderr))
            return notices

        if why is None:
            need(start(engines=1) == [], 'KVM works, and still something is said')
            return 'KVM works here'
        opens = os.access('/dev/kvm', os.R_OK | os.W_OK)
        need('/dev/kvm' in why, 'the error does not name /dev/kvm: ' + why)
        need(('may not be able to run this guest' in why) == opens, 'the error does not say what is wrong: ' + why)
        # An engine that is given up must not keep what the next one needs.
        said = start('--upper', os.path.join(tmp, 'upper'), engines=1 + opens)
        need(len(said) == 1 and 'qemu' in said[0], 'not one line of notice: %s' % said)
        if not opens:
            return 'no KVM'
        skips = lambda said: (
            len(said) == 1 and all(w in said[0] for w in ('--engine qemu', 'ROOTFS_BOOT_ENGINE', '--engine libkrun'))
        )
        need(skips(said), 'the notice does not say how to skip it: %s' % said)
        said = start(engines=1)
        need(skips(said) and 'earlier' in said[0], 'the second start does not say that it knows: %s' % said)
        need(start(engines=1, ROOTFS_BOOT_ENGINE='qemu') == [], 'something is said of an engine that was asked for')
        # Another kernel of the guest may fare better, and a finding that cannot be kept is not an error.
        other = os.path.join(tmp, 'libkrunfw.so.5')
        shutil.copy(KRUNFW, other)
        locked = {'XDG_RUNTIME_DIR': os.path.join(tmp, 'none'), 'HOME': os.path.join(tmp, 'file'), 'XDG_CACHE_HOME': ''}
        open(locked['HOME'], 'w').close()
        need(skips(start('--krunfw', other, engines=2, **locked)), 'with nowhere to keep the finding')
        p = boot(here, '--engine', 'libkrun', ok=(125,), env=env)
        need('may not be able to run this guest' in p.stderr, 'libkrun by name: ' + p.stderr)
        need('earlier' in start(engines=1)[0], 'libkrun failed again, and the finding is gone')
    return 'KVM opens, and runs nothing'


FAKE = r'''#!/usr/bin/env python3
import os, re, select, sys
control = next(int(re.search('fd=([0-9]+)', a)[1]) for a in sys.argv if a.startswith('socket,id=port0,'))
def say(text):
    os.write(control, text.encode() + b'\n')
def asked(seconds=None):
    """Whether the supervisor sends the command a signal, within so many seconds if they are given."""
    while select.select([control], [], [], seconds)[0]:
        if os.read(control, 9)[:1] == b'S':
            return True
    return False
'''


@check('boot-slow-engine')
def slow_engine():
    """What a machine says counts, and not how soon:
    judged by an engine that is a script and takes its time where a busy host would."""
    here = os.path.join(bundles(), 'hello')
    with scratch() as tmp:
        env, _ = no_engine(tmp)
        fake = os.path.join(tmp, 'path/qemu-system-x86_64')

        def run(script, *args, code):
            with open(fake, 'w') as file:
                file.write(FAKE + script)
            p = boot(here, '--engine', 'qemu', *args, ok=range(256), env=env)
            need(p.returncode == code, '%s: exit %d: %s' % (script, p.returncode, p.stderr))
            return p.stderr

        # A timeout is the command's, and begins with it: a machine that is slow to mount its disks is asked nothing.
        said = run(
            "say('hello 1'); early = asked(3); say('run 2'); asked(); "
            "say('warn 0 asked ' + ('early' if early else 'late')); say('exit 0 3 0 0 0'); asked()\n",
            '--timeout',
            '1',
            code=124,
        )
        need('asked late' in said and 'early' not in said, 'a machine whose command did not run yet: ' + said)
        run(
            "say('hello 1'); early = asked(3); say('exit %d 3 0 0 0' % (9 if early else 7)); asked()\n",
            '--timeout',
            '1',
            code=7,
        )
        # It begins once, whatever a guest says.
        run(
            "say('hello 1')\nfor _ in range(100):\n    say('run 2')\n    if asked(0.2):\n"
            "        say('exit 0 3 0 0 0'); asked()\nsay('exit 9 3 0 0 0'); asked()\n",
            '--timeout',
            '1',
            code=124,
        )
        # A guest says as much to a person as that person may read.
        said = run(
            "say('hello 1'); say('run 2')\nfor _ in range(1000):\n    say('\\n'.join(['warn 0 ' + 'x' * 50] * 100))\n"
            "say('exit 5 3 0 0 0'); asked()\n",
            code=5,
        )
        need(
            said.count('xxx\n') == 100 and 'the rest is left out' in said,
            'it said %d bytes: %s' % (len(said), said[-200:]),
        )
        # The last words of an engine that is gone, its own and its guest's, however late somebody gets to read them.
        for n in range(10):
            run("say('hello 1'); say('run 2'); say('exit %d 3 0 0 0')\n" % n, code=n)
            said = run("print('line\\n' * 5000 + 'why %d'); sys.exit(1)\n" % n, code=125)
            need('why %d' % n in said, 'the last words are missing: ' + said)
            said = run("print('it is so %d'); sys.exit(125)\n" % n, code=125)
            need('it is so %d' % n in said, 'the last words are missing: ' + said)
