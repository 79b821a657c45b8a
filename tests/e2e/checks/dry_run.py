"""`rootfs-boot --dry-run` refuses what a start would refuse, and starts and changes nothing."""

import os
import subprocess

from checks import check
from harness.boot import BOOT, ENV
from harness.common import HELLO, PATIENCE, build, files, need, scratch


@check('boot-dry-run-refuses')
def refuses():
    with scratch() as tmp:
        at = lambda name: os.path.join(tmp, name)
        build(HELLO, at('out'))
        build(os.path.join(os.path.dirname(HELLO), 'ops/write.yaml'), at('other'))
        with open(at('nul.env'), 'wb') as file:
            file.write(b'A=b\0c\n')
        with open(at('large.env'), 'w') as file:
            file.writelines('V%d=%s\n' % (i, 'x' * 100_000) for i in range(31))
        with open(at('many.env'), 'w') as file:
            file.writelines('V%06d=\n' % i for i in range(130_000))
        with open(at('long.env'), 'w') as file:
            file.write('A=%s\n' % ('x' * (128 << 10)))
        for name in ('empty', 'no-ext4'):
            with open(at(name), 'w') as file:
                file.truncate(0 if name == 'empty' else 64 << 20)
        odd = os.fsencode(at('odd')) + b'\xff'
        os.mkdir(odd)
        refused = {
            'a NUL in a variable': (['--env-file', at('nul.env')], 'NUL'),
            '3 MiB of variables': (['--env-file', at('large.env')], 'bytes'),
            'variables whose pointers are too many': (['--env-file', at('many.env')], 'bytes'),
            'one variable of more than 128 KiB': (['--env-file', at('long.env')], '131072'),
            '1 TiB of memory': (['--memory', '1t', '--engine', 'qemu'], '--memory'),
            '128 TiB of memory': (['--memory', '128t'], '--memory'),
            '255 processors': (['--cpus', '255'], '254'),
            'a smaller upper': (['--upper-size', '32m'], 'shrink'),
            'an upper of more than 16 TiB': (['--upper-size', '17t'], '16 TiB'),
            'an upper that is not ext4': (['--upper', at('empty')], 'no ext4'),
            'an upper that is another': (['--upper', at('other/upper.ext4')], 'another bundle'),
            "the bundle's own upper": (['--upper', at('out/upper.ext4')], 'own'),
            'an upper in no directory': (['--upper', at('absent/upper')], 'absent'),
            'an upper of zeros': (['--upper', at('no-ext4')], 'no ext4'),
        }
        before = files(tmp)
        for name, (args, word) in refused.items():
            for how in ([], ['--dry-run']):
                p = subprocess.run(
                    [BOOT, *how, '--engine', 'qemu', *args, at('out')]
                    if '--engine' not in args
                    else [BOOT, *how, *args, at('out')],
                    stdin=subprocess.DEVNULL,
                    env=ENV,
                    capture_output=True,
                    text=True,
                    timeout=PATIENCE,
                )
                need(
                    p.returncode == 125 and word in p.stderr,
                    '%s%s: exit %d: %s%s' % (name, ' (dry run)' if how else '', p.returncode, p.stdout[:300], p.stderr),
                )
        need(files(tmp) == before, 'a refusal, or a dry run, changed something')
        fine = {
            'an upper that will be': ['--upper', at('new')],
            '254 processors': ['--cpus', '254'],
            'a larger upper': ['--upper-size', '5g'],
        }
        for name, args in fine.items():
            p = subprocess.run(
                [BOOT, '--dry-run', '--engine', 'qemu', *args, at('out')],
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                env=ENV,
            )
            need(p.returncode == 0, '%s: exit %d: %s' % (name, p.returncode, p.stderr))
        need(files(tmp) == before, 'a dry run changed something')
        return '%d refusals' % len(refused)
