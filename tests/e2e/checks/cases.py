"""The rules of a layer: every case of testimages/cases, built and compared with what is written down for it."""

import json
import os
import subprocess
import sys

from checks import check
from harness.common import (
    BINARY,
    TOP,
    WORK,
    Failed,
    build,
    call,
    judge,
    layers_of,
    need,
    need_no_leftovers,
    same_files,
    scratch,
)

SOURCE = os.path.join(TOP, 'testimages/cases')


def generate(*args):
    out = os.path.join(WORK, 'scale' if '--scale' in args else 'cases')
    call(sys.executable, SOURCE, out, *args)
    return out


def run_case(path):
    with open(os.path.join(path, 'expect.json')) as file:
        expect = json.load(file)
    with scratch() as tmp:
        out = os.path.join(tmp, 'out', 'bundle')
        os.mkdir(os.path.dirname(out))
        p = build(
            os.path.join(path, 'manifest.yaml'),
            out,
            *expect['args'],
            cache=os.path.join(tmp, 'cache'),
            ok=range(-64, 256),
        )
        need(
            p.returncode == expect['exit'],
            'exit %d instead of %d: %s' % (p.returncode, expect['exit'], p.stderr.strip()[-600:]),
        )
        if expect['exit']:
            silent = [w for w in expect['says'] if w.lower() not in p.stderr.lower()]
            need(
                not silent,
                'the message does not say %s: %s' % (' or '.join(map(repr, silent)), p.stderr.strip()[-600:]),
            )
            need('panicked' not in p.stderr, p.stderr)
            need_no_leftovers(os.path.dirname(out))
            return
        judge(out, expect['entries'])
        # A layer that comes from the cache must say all that the tar said, the order of its entries too.
        again = os.path.join(tmp, 'again')
        build(os.path.join(path, 'manifest.yaml'), again, *expect['args'], cache=os.path.join(tmp, 'cache'))
        same_files(out, again, 'the bundle of cached layers')
        silent = [w for w in expect['warns'] if w not in p.stderr]
        need(not silent, 'nothing is said of %s: %s' % (' or '.join(map(repr, silent)), p.stderr.strip()[-600:]))
        if expect['fits_in'] is not None:
            size = sum(map(os.path.getsize, layers_of(out)))
            need(size <= expect['fits_in'], 'the layers have %d bytes, more than %d' % (size, expect['fits_in']))
        if expect['inspect']:
            said = call(BINARY, 'inspect', out, '--json').stdout
            for word in expect['inspect']:
                need(word in said, 'inspect does not mention %r: %s' % (word, said[-600:]))


def run_all(path):
    failed = []
    names = sorted(os.listdir(path))
    for name in names:
        try:
            run_case(os.path.join(path, name))
        except (Failed, OSError, ValueError, subprocess.TimeoutExpired) as e:
            failed.append('%s: %s' % (name, e))
    need(not failed, '%d of %d fail:\n%s' % (len(failed), len(names), '\n'.join(failed)))
    return '%d cases' % len(names)


def of_rule(rule):
    """The cases of one rule are generated into a directory of their own."""

    def run():
        listed = call(sys.executable, SOURCE, '--list').stdout.splitlines()
        names = [line.split()[1] for line in listed if int(line.split()[0]) == rule]
        out = os.path.join(WORK, 'cases', 'rule-%02d' % rule)
        call(sys.executable, SOURCE, out, *names)
        return run_all(out)

    return run


for number in range(1, 19):
    check('rule-%02d' % number)(of_rule(number))


@check('cases-beside-umoci')
def oracle():
    """The written expectations themselves: umoci must agree wherever no reason is known why it does not."""
    flat = os.path.join(WORK, 'cases', 'all')
    call(sys.executable, SOURCE, flat)
    return (
        call(sys.executable, '-m', 'harness.oracle', flat, cwd=os.path.join(TOP, 'tests/e2e'))
        .stdout.strip()
        .split('\n')[-1]
    )
