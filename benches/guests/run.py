"""Times what programs ask of their file system, inside machines, and writes a report; ci/guest-bench calls it.

    python3 -m guests.run OUTDIR --workloads FILE --work DIR [--rounds N] [--states LETTERS] [--sides WORD,...] LAYOUT...

A LAYOUT is an OCI layout with the tag latest. OUTDIR gets report.md, plots beside it, and results.json with every figure.
"""

import argparse
import json
import os
import shlex
import shutil
import sys
import time

from bench import machine

from . import image, report, sides

# About every tenth machine loses an interrupt and says nothing more. It is started again, so often.
TRIES = 6
STATES = {'c': 'cold', 'w': 'warm', 't': 'tmpfs'}


def parse():
    parser = argparse.ArgumentParser(prog='guests.run')
    parser.add_argument('out')
    parser.add_argument('layouts', nargs='+')
    parser.add_argument('--workloads', required=True)
    parser.add_argument('--work', required=True)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--states', default='cwt', help='of c (cold), w (warm), t (on tmpfs)')
    parser.add_argument('--sides', default='', help='only those whose names begin with one of these words')
    args = parser.parse_args()
    if args.rounds < 1 or set(args.states) - set(STATES):
        parser.error('--rounds takes 1 or more, --states some of c, w, t')
    return args


def log(text):
    print('guest-bench: ' + text, file=sys.stderr, flush=True)


def one_image(layout, args, save):
    """Figures of one image: {'sides': [name], 'rows': [row of a machine], 'first lines': [...]}."""
    work = os.path.join(args.work, os.path.basename(os.path.normpath(layout)))
    shutil.rmtree(work, ignore_errors=True)
    os.makedirs(work)
    extended, unpacked = os.path.join(work, 'image'), os.path.join(work, 'unpacked')
    image.extend(layout, image.unpack(layout, unpacked), args.workloads, extended)
    shutil.rmtree(unpacked)
    tree = image.unpack(extended, os.path.join(work, 'full'))
    kind = image.kind(tree)
    all_sides = [side for side in sides.prepare(extended, tree, work) if wanted(side.name, args.sides)]
    result = {'sides': [side.name for side in all_sides], 'rows': [], 'first lines': [], 'bytes': sides.sizes(extended, work), 'hung': 0}
    for number in range(args.rounds):
        first = number % len(all_sides)
        for side in all_sides[first:] + all_sides[:first]:
            if side.slow and number > 0:
                continue
            # One state a boot: no row then depends on what an earlier state left.
            for state in args.states:
                began = time.monotonic()
                lines, hung = in_a_machine(side, kind, state, args)
                result['hung'] += hung
                for words in lines:
                    if words[0] == 'row':
                        result['rows'].append([side.name, *words[2:4], *map(int, words[4:])])
                    else:
                        result['first lines'].append([side.name, *map(int, words[2:])])
                log('%s, %s, %s, round %d: %.0f s' % (os.path.basename(work), side.name, STATES[state], number + 1, time.monotonic() - began))
                save(result)
    shutil.rmtree(work)
    return result


def wanted(name, words):
    return not words or any(name.startswith(word) for word in words.split(','))


def in_a_machine(side, kind, state, args):
    """The words of each line that the workloads print, and how many machines hung before one did not."""
    workloads = side.command('/bench/workloads', 'rows', 'x', state, side.root, os.path.join(side.root, 'var/bench'), kind.library, kind.suffix, *kind.command)
    start = '/data/workloads first-line x sh -c %s' % shlex.quote(side.command('/bin/echo', 'started'))
    side.files['workloads'] = args.workloads
    for hung in range(TRIES):
        try:
            printed = sides.boot(side, [start, workloads], kind.seconds)
            return [line.split() for line in printed.splitlines() if line.startswith(('row ', 'first-line '))], hung
        except sides.Hung as error:
            last = error
            log('%s; another is started' % error)
    raise RuntimeError('%s: %d machines hung: %s' % (side.name, TRIES, last))


def main():
    args = parse()
    os.makedirs(args.out, exist_ok=True)
    results = {
        'machine': machine.describe(args.out),
        'versions': sides.versions(),
        'rounds': args.rounds,
        'date': time.strftime('%Y-%m-%d', time.gmtime()),
        'images': {},
    }
    for layout in args.layouts:
        name = os.path.basename(os.path.normpath(layout))

        def save(result, name=name):
            results['images'][name] = result
            with open(os.path.join(args.out, 'results.json'), 'w') as file:
                json.dump(results, file, indent=1)
                file.write('\n')

        save(one_image(os.path.abspath(layout), args, save))
        report.page(args.out, results)
    log('wrote ' + os.path.join(args.out, 'report.md'))


if __name__ == '__main__':
    try:
        main()
    except (RuntimeError, OSError) as error:
        sys.exit('guest-bench: %s' % error)
