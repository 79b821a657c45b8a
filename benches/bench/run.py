"""Measures whole commands and writes a report; ci/bench calls it.

    python3 -m bench.run OUTDIR --compiler FILE --floor FILE --tools DIR --work DIR [--rounds N] [--only images,scale,reads] LAYOUT...

A LAYOUT is an OCI layout with the tag latest. OUTDIR gets report.md, plots beside it, and results.json with every figure.
"""
import argparse
import importlib
import importlib.util
import json
import os
import sys
import time

from . import layout, machine, measure, ours, peers, report, scale

SECTIONS = ['images', 'scale', 'reads']


def parse():
    parser = argparse.ArgumentParser(prog='bench.run')
    parser.add_argument('out')
    parser.add_argument('layouts', nargs='*')
    for name in 'compiler floor tools work'.split():
        parser.add_argument('--' + name, required=True)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--only', default=','.join(SECTIONS))
    args = parser.parse_args()
    args.only = args.only.split(',')
    unknown = set(args.only) - set(SECTIONS)
    if unknown or args.rounds < 1:
        parser.error('--only takes %s, and --rounds 1 or more' % ','.join(SECTIONS))
    return args


def log(text):
    print('bench: ' + text, file=sys.stderr, flush=True)


def one_image(programs, tools, path, work, count):
    """contender -> figures of one image, and its sizes."""
    measure.remove(work)                # what a run left that was stopped
    os.makedirs(work)
    manifest, _ = layout.read(path)
    # Neighbours are compared best: first what is divided by a cold build.
    contenders = [ours.floor(programs, path), ours.cold(programs, path, work), *peers.contenders(tools, path, work), *ours.warm(programs, path, work)]
    warm_up(path, manifest)
    result = measure.rounds(contenders, count, lambda text: log('%s, %s' % (os.path.basename(path), text)))
    if not result['floor']['runs']:
        raise RuntimeError('%s: %s' % (path, result['floor']['failed']))
    result['uncompressed'] = ours.said_json(result['floor'])['bytes']
    result['compressed'] = sum(layer['size'] for layer in manifest['layers'])
    result['layers'] = len(manifest['layers'])
    measure.remove(work)
    return result


def warm_up(path, manifest):
    """Brings the blobs into the page cache."""
    for layer in manifest['layers']:
        with open(os.path.join(path, 'blobs', 'sha256', layer['digest'].removeprefix('sha256:')), 'rb') as blob:
            while blob.read(1 << 22):
                pass


def reads(layouts, out, count):
    """Figures of what a guest reads, where the module is there that takes them."""
    # Its modules know each other without the package's name.
    sys.path.append(os.path.dirname(os.path.abspath(__file__)))
    if importlib.util.find_spec('reads') is None:
        return []
    return importlib.import_module('reads').run(layouts, out, count)


def main():
    args = parse()
    os.makedirs(args.out, exist_ok=True)
    os.makedirs(args.work, exist_ok=True)
    layouts = {os.path.basename(os.path.normpath(path)): os.path.abspath(path) for path in args.layouts}
    programs = ours.Programs(os.path.abspath(args.compiler), os.path.abspath(args.floor))
    tools = peers.Peers(os.path.abspath(args.tools))
    results = {
        'machine': machine.describe(args.work),
        'versions': machine.versions(tools),
        'missing': tools.missing(),
        'rounds': args.rounds,
        'date': time.strftime('%Y-%m-%d', time.gmtime()),
        'images': {}, 'scale': {}, 'reads': [],
    }
    for what in results['missing']:
        log('without ' + what)
    work = os.path.abspath(args.work)
    # What is known is written after each part: a run takes long, and may be cut off.
    if 'images' in args.only:
        for name, path in layouts.items():
            results['images'][name] = one_image(programs, tools, path, os.path.join(work, 'run'), args.rounds)
            save(args.out, results)
    if 'scale' in args.only:
        results['scale'] = scale.run(programs, work, args.rounds, log)
        save(args.out, results)
    if 'reads' in args.only:
        results['reads'] = reads(layouts, os.path.join(work, 'reads'), args.rounds)
    save(args.out, results)
    log('wrote ' + os.path.join(args.out, 'report.md'))


def save(out, results):
    with open(os.path.join(out, 'results.json'), 'w') as file:
        json.dump(results, file, indent=1)
        file.write('\n')
    report.page(out, results)


if __name__ == '__main__':
    try:
        main()
    except RuntimeError as error:
        sys.exit('bench: %s' % error)
