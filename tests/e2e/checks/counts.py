"""What a build costs, in figures that do not depend on the day: instructions, bytes written, bytes kept.
A clock says the same in `ci/bench`."""

import hashlib
import json
import os
import random
import re
import subprocess

from checks import check
from harness.common import BINARY, call, manifest_for, need, scratch
from harness.images import image
from layout import Layer, Layout, tagged
from tarfmt import d, f

BLOCK = 1024
# A tenth above what was counted when these were last set. Who makes it cheaper sets them anew.
MOST = {'described': (49_700, 3050), 'implied': (71_000, 14_900)}
MOST_BYTE = 121
# Of a build with nothing to do, from the program's start to its end.
MOST_FIXED = 8_000_000


def many(path, per_layer, layers=4, seed=1):
    """A layout of small files, a fifth of which have the content of another one. Returns its path, the tars' bytes, and
    for each layer (size, content) of all."""
    r, out, tars, contents = random.Random(seed), Layout(path), 0, []
    made = []
    for number in range(layers):
        # Every directory is described, as most tools do: a layer that leaves one out keeps a journal besides.
        entries, kept = [d('l%d' % number)], []
        for i in range(per_layer):
            if i % 50 == 0:
                entries.append(d('l%d/d%04d' % (number, i // 50)))
            data = (
                r.choice(kept) if kept and r.random() < 0.2 else r.randbytes(int(min(20_000, r.lognormvariate(7, 1.2))))
            )
            kept.append(data)
            entries.append(f('l%d/d%04d/%s' % (number, i // 50, 'f%06d' % i), data))
        layer = Layer(*entries)
        tars += len(layer.tar)
        contents.append(kept)
        made.append(layer)
    out.index(tagged(out.image(made)))
    return out.path, tars, contents


def disk_bytes(bundle):
    at = os.path.join(bundle, 'layers')
    return os.path.getsize(os.path.join(bundle, 'fsmeta.erofs')) + sum(
        os.path.getsize(os.path.join(at, n)) for n in os.listdir(at)
    )


def instructions(*args):
    """Instructions of one run, as valgrind counts them: it shows a program AVX2 where the machine has it, and nothing
    later, so that machines agree."""
    p = call('valgrind', '--tool=callgrind', '--callgrind-out-file=/dev/null', BINARY, *args)
    return int(re.search(r'Collected : (\d+)', p.stderr)[1])


def written(*args):
    """Bytes that one run hands to write calls."""
    p = subprocess.Popen([BINARY, *args], stderr=subprocess.DEVNULL)
    os.waitid(os.P_PID, p.pid, os.WEXITED | os.WNOWAIT)
    with open('/proc/%d/io' % p.pid) as file:
        count = int(re.search(r'wchar: (\d+)', file.read())[1])
    need(p.wait() == 0, 'exit %d' % p.returncode)
    return count


@check('count-bytes')
def kept():
    """Layers and fsmeta are not larger than the tars; equal contents are there once; nothing is written twice."""
    said = []
    with scratch() as tmp:
        at = lambda name: os.path.join(tmp, name)
        small, tars, contents = many(at('small'), 2000)
        slim = image('python-slim')
        for name, layout in (('small', small), ('slim', slim)):
            m = manifest_for(at(name + '.yaml'), 'oci:%s:latest' % layout)
            wrote = written('build', m, '-o', at(name + '.out'), '--cache-dir', at(name + '.cache'))
            allocated = sum(
                os.lstat(os.path.join(top, n)).st_blocks * 512
                for top, _, names in os.walk(at(name + '.out'))
                for n in names
            )
            need(
                wrote <= 1.01 * allocated + 100_000,
                '%s: %d bytes are written for a bundle of %d' % (name, wrote, allocated),
            )
            with open(at(name + '.out/bundle.json')) as file:
                told = sum(layer['uncompressed'] for layer in json.load(file)['layers'])
            need(name == 'slim' or told == tars, 'bundle.json tells of %d bytes of tar, which are %d' % (told, tars))
            ratio = disk_bytes(at(name + '.out')) / told
            need(ratio <= 1, '%s: layers and fsmeta are %.4f of the tars' % (name, ratio))
            said.append('%s %.3f of its tars, written %.3f' % (name, ratio, wrote / allocated))
        # What is unavoidable, by the contents alone: blocks of what differs, and some room for each entry.
        distinct = sum(
            -(-len(data) // BLOCK) * BLOCK
            for kept in contents
            for data in {hashlib.sha256(c).digest(): c for c in kept}.values()
        )
        entries = sum(map(len, contents)) * 51 // 50
        rest = disk_bytes(at('small.out')) - distinct
        need(rest <= entries * 150, 'beside the contents there are %d bytes for each entry' % (rest // entries))
    return '; '.join(said)


@check('count-instructions')
def work():
    """Each entry costs the same in a large image as in a small one, cold and cached, with whiteouts or without, and no
    more than it did.

    Once with directories that the layers describe, as most tools write them, and once without: such layers keep a
    journal."""
    with scratch() as tmp:
        at = lambda name: os.path.join(tmp, name)

        def costs(name, layout):
            m = manifest_for(at(name + '.yaml'), 'oci:%s:latest' % layout)
            run = lambda out: instructions(
                'build', '-q', m, '-o', at(name + out), '--cache-dir', at(name + '.cache'), '--jobs', '1'
            )
            return run('.cold'), run('.cached')

        nothing = Layout(at('nothing'))
        nothing.index(tagged(nothing.image([Layer(f('a', '1'))])))
        fixed = costs('nothing', nothing.path)
        need(
            fixed[1] <= MOST_FIXED,
            'a build of one cached file costs %d instructions; it was %d at most' % (fixed[1], MOST_FIXED),
        )
        said = []
        for kind, most in MOST.items():
            per = {}
            for name, count in (('few', 1000), ('many', 4000)):
                out = Layout(at(kind + name))
                described = lambda n, kind=kind, count=count: (
                    [d('l%d' % n)] + [d('l%d/d%04d' % (n, i)) for i in range(count // 50)]
                    if kind == 'described'
                    else []
                )
                # Four layers of empty files, and a fifth that takes the first one away again.
                layers = [
                    Layer(*described(n), *(f('l%d/d%04d/f%06d' % (n, i // 50, i)) for i in range(count)))
                    for n in range(4)
                ]
                layers.append(Layer(*described(0), *(f('l0/d%04d/.wh.f%06d' % (i // 50, i)) for i in range(count))))
                out.index(tagged(out.image(layers)))
                per[name] = [
                    (cost - base) / (5 * count) for cost, base in zip(costs(kind + name, out.path), fixed, strict=True)
                ]
            for how, few, more in zip(('cold', 'cached'), *per.values(), strict=True):
                need(
                    more <= 1.1 * few,
                    '%s, %s: an entry of a large image costs %d instructions, of a small one %d'
                    % (kind, how, more, few),
                )
            for how, at_most, is_ in zip(('cold', 'cached'), most, per['many'], strict=True):
                need(
                    is_ <= at_most,
                    '%s, %s: an entry costs %d instructions; it was %d at most' % (kind, how, is_, at_most),
                )
            said.append('an entry in directories that are %s %d cold, %d cached' % (kind, *per['many']))
        # Bytes, of which most is what inflating and hashing take.
        data = random.Random(1).randbytes(8 << 20)
        out = Layout(at('large'))
        out.index(tagged(out.image([Layer(f('large', data))])))
        byte = (costs('large', out.path)[0] - fixed[0]) / len(data)
        need(byte <= MOST_BYTE, 'a byte costs %.2f instructions; it was %.2f at most' % (byte, MOST_BYTE))
        return '%s; a byte %.2f' % ('; '.join(said), byte)
