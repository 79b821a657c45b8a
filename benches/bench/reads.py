#!/usr/bin/env python3
"""What reading an image costs: the bundle's disk against mkfs.erofs, microsandbox and ext4, on this kernel and in a guest; on this
kernel also against overlayfs and fuse-overlayfs over the unpacked layers.

    reads.py OUTDIR LAYOUT...       OCI layouts with the tag latest; OUTDIR gets the disks, and reads.json
    --rounds N (5)  --no-guest  --row WORD (only rows with this in their name)

Needs root, loop devices, umoci and qemu, and for each contender its own tool. The contenders take turns, so that what else the machine
does falls on all of them; a value is the median of the rounds. All must read the same number of things, and the same bytes.
"""
import argparse
import collections
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

import reads_disks
import reads_guest
import reads_overlays
from reads_disks import TOP, TYPES, ReadsError, bundle

Row = collections.namedtuple('Row', 'name state action below words', defaults=('', ()))
Sample = collections.namedtuple('Sample', 'nanoseconds count sum requests sectors')

ROWS = [Row('walk with stat, cold', 'cold', 'walk'),
        Row('walk with stat, warm', 'warm', 'walk'),
        Row('read all files, cold', 'cold', 'read'),
        Row('read all files, warm', 'warm', 'read'),
        Row('4096 random blocks, cold', 'cold', 'random'),
        Row('open all files, warm', 'warm', 'open'),
        Row('20,000 absent names, warm', 'warm', 'absent')]
WIDE = [Row('10,000 names, cold', 'cold', 'list', 'wide'),
        Row('10,000 names, warm', 'warm', 'list', 'wide'),
        Row('10,000 names with stat, cold', 'cold', 'walk', 'wide'),
        Row('20,000 absent names beside 10,000, warm', 'warm', 'absent', 'wide')]
# What takes long is done a few times only, and is as steady for it. The guest's clock needs fewer rounds still.
SLOW, SLOW_ROUNDS, GUEST_ROUNDS, GUEST_SLOW_ROUNDS = ('read', 'exec'), 4, 4, 2

MODULES = ('argparse asyncio concurrent.futures ctypes decimal email.message http.client json logging sqlite3 ssl subprocess unittest '
           'urllib.request xml.etree.ElementTree zipfile flask pydantic requests numpy pandas torch')
# A module that the image does not have costs a search, and that is counted as well. It is one line, as the guest's plan has lines.
IMPORT = 'exec(%r)' % '''
import importlib
found = 0
for name in "%s".split():
    try:
        importlib.import_module(name)
        found += 1
    except ImportError:
        pass
print(found)
''' % MODULES
REQUIRE = 'for (const m of ["assert","crypto","fs","http","https","net","os","path","stream","tls","url","zlib"]) require(m); console.log(process.version)'
PROGRAMS = [('sh -c :, cold', ('bin/sh',), ('-c', ':')),
            ('python imports, cold', ('opt/venv/bin/python', 'usr/local/bin/python3', 'usr/bin/python3'), ('-B', '-c', IMPORT)),
            ('node requires, cold', ('usr/local/bin/node', 'usr/bin/node', 'opt/node/bin/node'), ('-e', REQUIRE))]


def program_rows(tree):
    """What programs the image has, started with it as their root."""
    for name, paths, words in PROGRAMS:
        for path in paths:
            if os.path.lexists(os.path.join(tree, path)):
                yield Row(name, 'cold', 'exec', '', ('/' + path, *words))
                break


def reader():
    """The program that reads, built: static, for the guest."""
    cmd = ['cargo', 'rustc', '--package', 'rootfs-compile', '--release', '--locked', '--bench', 'reader', '--message-format=json', '--', '-C', 'target-feature=+crt-static']
    p = subprocess.run(cmd, cwd=TOP, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    made = [json.loads(line) for line in p.stdout.splitlines() if line.startswith('{')]
    made = [m['executable'] for m in made if m.get('executable') and m['target']['name'] == 'reader']
    if p.returncode or len(made) != 1:
        raise ReadsError('cargo did not build the reader: ' + p.stderr[-2000:])
    return made[0]


def sample(line):
    return Sample(*map(int, line.split()))


def turns(rows, contenders, rounds, slow_rounds):
    """Each row and contender once a round, the contenders next to each other, and another one first in each round."""
    contenders = list(contenders)
    for n in range(rounds):
        first = n % len(contenders)
        for i, row in enumerate(rows):
            if row.action not in SLOW or n < slow_rounds:
                for contender in contenders[first:] + contenders[:first]:
                    yield i, contender


def on_this_kernel(program, disks, rows, rounds, layout, scratch):
    """{(row, contender): samples}, by loop mounts, and by overlays over the unpacked layers."""
    samples = collections.defaultdict(list)
    with contextlib.ExitStack() as stack:
        mounts = {name: stack.enter_context(bundle.mounted(disk, TYPES[name])) for name, disk in disks.items()}
        mounts |= stack.enter_context(reads_overlays.mounted(layout, scratch))
        for i, contender in turns(rows, mounts, rounds, SLOW_ROUNDS):
            row = rows[i]
            line = reads_disks.call(program, row.state, row.action, os.path.join(mounts[contender], row.below), *row.words)
            samples[i, contender].append(sample(line))
    return samples


def in_a_guest(program, disks, rows, rounds, scratch):
    samples = collections.defaultdict(list)
    steps = [('%d %s' % (i, name), name, rows[i].state, rows[i].action, rows[i].below, rows[i].words) for i, name in turns(rows, disks, min(rounds, GUEST_ROUNDS), GUEST_SLOW_ROUNDS)]
    for label, line in reads_guest.run(program, disks, steps, scratch):
        i, contender = label.split(' ', 1)
        samples[int(i), contender].append(sample(line))
    return samples


def judged(section, rows, contenders, samples):
    """The medians, as rows of a report: times, and for what is read cold what the disk was asked for."""
    out = []
    for i, row in enumerate(rows):
        found = {(s.count, s.sum): name for name in contenders for s in samples[i, name]}
        if len(found) != 1:
            raise ReadsError('%s: %s: not all read the same: %s' % (section, row.name, {name: key for key, name in found.items()}))
        units = {'s': lambda s: s.nanoseconds / 1e9}
        if row.state == 'cold':
            units |= {'requests': lambda s: s.requests, 'MiB': lambda s: s.sectors / 2048}
        for unit, value in units.items():
            # No disk counts what an overlay asks for.
            columns = [*TYPES, *reads_overlays.NAMES] if unit == 's' else TYPES
            values = {name: statistics.median(map(value, samples[i, name])) if name in contenders else None for name in columns}
            out.append({'section': section, 'row': row.name, 'values': values, 'unit': unit})
    return out


def run(images, out, rounds=5, guest=True, only=''):
    """Reports on each image of {name: layout}, and on a directory of 10,000 names; `out` keeps the disks."""
    os.makedirs(out, exist_ok=True)
    report, program = [], reader()
    with tempfile.TemporaryDirectory(prefix='reads.', dir=out) as scratch:
        layouts = {**images, 'wide': os.path.join(scratch, 'wide')}
        reads_disks.wide(layouts['wide'])
        for name, layout in layouts.items():
            here, kept = os.path.join(scratch, 'work'), os.path.join(out, name)
            os.makedirs(here)
            os.makedirs(kept, exist_ok=True)
            tree = reads_disks.unpack(os.path.abspath(layout), here)
            rows = [row for row in (WIDE if name == 'wide' else ROWS + list(program_rows(tree))) if only in row.name]
            disks = reads_disks.make(os.path.abspath(layout), tree, here, kept)
            shutil.rmtree(os.path.join(here, 'merged'))
            section = '%s, loop mount' % name
            here_too = [*disks, *reads_overlays.NAMES]
            report += judged(section, rows, here_too, on_this_kernel(program, disks, rows, rounds, os.path.abspath(layout), here))
            if guest:
                section = '%s, in a guest' % name
                report += judged(section, rows, disks, in_a_guest(program, disks, rows, rounds, here))
            shutil.rmtree(here)
    return report


def table(report):
    section = None
    for line in report:
        if line['section'] != section:
            section = line['section']
            yield '%-52s' % section + ''.join('%18s' % name for name in line['values'])
        show = {'s': lambda v: '%.2f ms' % (v * 1e3), 'requests': lambda v: '%d req' % v, 'MiB': lambda v: '%.1f MiB' % v}[line['unit']]
        yield '  %-50s' % line['row'] + ''.join('%18s' % ('-' if v is None else show(v)) for v in line['values'].values())


def main():
    ap = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    ap.add_argument('out')
    ap.add_argument('layouts', nargs='+', metavar='LAYOUT')
    ap.add_argument('--rounds', type=int, default=5)
    ap.add_argument('--no-guest', dest='guest', action='store_false')
    ap.add_argument('--row', default='')
    a = ap.parse_args()
    images = {os.path.basename(os.path.normpath(path)): path for path in a.layouts}
    try:
        report = run(images, a.out, a.rounds, a.guest, a.row)
    except ReadsError as e:
        print('reads: %s' % e, file=sys.stderr)
        return 1
    with open(os.path.join(a.out, 'reads.json'), 'w') as file:
        json.dump(report, file, indent=1)
    print('\n'.join(table(report)))
    return 0


if __name__ == '__main__':
    sys.exit(main())
