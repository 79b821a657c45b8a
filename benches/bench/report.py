"""Figures as a page: tables, and plots beside it. `python3 -m bench.report OUTDIR` makes it again from OUTDIR/results.json."""
import json
import os
import re
import statistics
import sys

from . import svg, targets

MADE = '''Every figure is of a whole command, from its start to its end. The commands of a section run in turn, one round after the
other, so that a machine that slows down slows all; what is shown is the median of the rounds, and behind it the fastest and the slowest. A ratio is the median of the rounds' ratios.
Before each command, what earlier ones left to be written is on disk; the image lies in the page cache. Our builds sync what they
publish, as the tools beside them do not.

- **time** is by the clock; **CPU** is user and system time of the command and all processes that it waited for.
- **peak** is the resident memory of the largest process as the kernel accounts for it (`ru_maxrss`), pages of mapped files
  included; for `mkfs.erofs`, of which several run at once, the largest sum, looked at 50 times a second. Below 9 MiB nothing is told apart.
- **written** is what the processes handed to write calls (`wchar` of `/proc/PID/io`), to whatever file, temporary ones included;
  **dirtied** is what they made dirty in the page cache, in whole pages, or wrote past it (`write_bytes` there): about what reaches the disk.
- **artifacts** is what lies there afterwards, in blocks that are allocated (a file with two names counts once).
- **floor**: all layers inflated (zlib-rs) and the SHA-256 of what comes out, largest first, on all cores, nothing written (`benches/floor.rs`).
- **mkfs.erofs**: `--tar=f --ungzip --aufs -Enoinline_data --sort=none` for each layer, one per core at a time, largest first, then the merge
  of the layers (`--aufs --ovlfs-strip=1`). **msb load** reads an OCI archive into an empty home. **mke2fs -d** gets the tree that umoci unpacked. What takes
  long runs in fewer rounds: mke2fs in one, umoci no more after 30 s of it, others after 2 minutes.
- **one new layer** is 10 MB of gzip with some thousand files on top of the image, whose other layers are cached. **a bundle removed**: since
  the last build a bundle that shared the cache's files was deleted.
'''


def page(out, results):
    """Writes OUT/report.md and the plots it shows."""
    text = ['# What builds cost', '', machine(results), '', MADE]
    rows = [row for name, result in results['images'].items() for row in targets.of_image(name, result)]
    rows += targets.of_scale(results['scale']) if results['scale'] else []
    text += ['## Targets', '', target_table(rows), '']
    if results['images']:
        text += image_sections(out, results['images'])
    if results['scale']:
        text += scale_section(out, results['scale'])
    text += other_sections(out, results['reads'])
    with open(os.path.join(out, 'report.md'), 'w') as file:
        file.write('\n'.join(text))
    return rows


def machine(results):
    facts = ['%s: %s' % pair for pair in results['machine'].items()]
    tools = ['%s %s' % pair for pair in results['versions'].items()]
    lines = ['; '.join(facts) + '.', 'Versions: %s.' % ', '.join(tools), 'Rounds: %d. Date: %s.' % (results['rounds'], results['date'])]
    busy = list(others(results['images'])) + list(others(results['scale']))
    if busy:
        lines.append('While commands of a second and more ran, other work kept %.1f cores busy (median; at most %.1f).' % (
            statistics.median(busy), max(busy)))
    lines += ['Not measured: %s.' % ', '.join(results['missing'])] if results['missing'] else []
    return '\n'.join(lines)


def others(results):
    """Cores that were busy with something else, run by run; the clock of it is too coarse for short runs."""
    for result in results.values():
        for figures in contenders(result).values():
            yield from (run['others'] for run in figures['runs'] if 'others' in run and run['wall'] >= 1)


def target_table(rows):
    lines = ['| what | target | measured | |', '|---|---|---|---|']
    for row in rows:
        sign = '≥' if row.least else '≤'
        measured = 'not measured' if row.measured is None else '%.3g %s' % (row.measured, row.unit)
        verdict = {None: '', True: 'met', False: '**missed**'}[row.met]
        lines.append('| %s | %s %g %s | %s | %s |' % (row.what, sign, row.limit, row.unit, measured, verdict))
    return '\n'.join(lines)


def figures_table(result, base):
    """A line for each contender; times beside those of `base`."""
    lines = ['| | time | | / ours | CPU | peak | written | dirtied | artifacts |', '|---|---|---|---|---|---|---|---|---|']
    size = lambda value: '' if value is None else svg.shown(value, 'bytes')
    for name, figures in result.items():
        if figures['failed']:
            lines.append('| %s | failed: %s | | | | | | | |' % (name, escape(figures['failed'])))
            continue
        low, high = figures['range']
        lines.append('| %s | %s | %s – %s | %s | %s | %s | %s | %s | %s |' % (
            name, svg.shown(figures['wall'], 's'), svg.shown(low, 's'), svg.shown(high, 's'),
            shown_ratio(targets.paired(figures, result[base])), svg.shown(figures['cpu'], 's'),
            size(figures['peak']), size(figures['wchar']), size(figures['written']), size(figures.get('allocated'))))
    return '\n'.join(lines)


def shown_ratio(value):
    return '' if value is None else '%.3g' % value


def escape(words):
    """Words of a tool, fit for a cell, its paths cut to their ends."""
    return re.sub(r'/\S*/', '…/', words).replace('|', '\\|').replace('<', '&lt;')


def image_sections(out, images):
    text = []
    groups = [(name, [(c, r['wall']) for c, r in contenders(result).items()]) for name, result in images.items()]
    text += ['## Images', '', plot(out, 'images', svg.bars('A whole build', groups, log=True)), '']
    peaks = [(name, [(c, r['peak']) for c, r in contenders(result).items() if r['peak']]) for name, result in images.items()]
    text += [plot(out, 'memory', svg.bars('Peak memory', peaks, unit='bytes', log=True)), '']
    sizes = [(name, size_rows(result)) for name, result in images.items()]
    text += [plot(out, 'sizes', svg.bars('Bytes on disk', sizes, unit='bytes')), '']
    for name, result in images.items():
        cold = result['ours, cold']
        text += ['### %s' % name, '', '%d layers, %s compressed, %s uncompressed; ours: layers %s, fsmeta %s.' % (
            result['layers'], svg.shown(result['compressed'], 'bytes'), svg.shown(result['uncompressed'], 'bytes'),
            svg.shown(cold.get('layers', 0), 'bytes'), svg.shown(cold.get('fsmeta', 0), 'bytes')), '']
        text += [figures_table(contenders(result), 'ours, cold'), '']
    return text


def contenders(result):
    return {name: figures for name, figures in result.items() if isinstance(figures, dict)}


def size_rows(result):
    rows = [('layers, uncompressed', result['uncompressed']), ('layers, compressed', result['compressed'])]
    return rows + [(name, figures['allocated']) for name, figures in contenders(result).items() if figures.get('allocated')]


def scale_section(out, scale):
    groups = [(name, [(c, r['wall']) for c, r in result.items()]) for name, result in scale.items()]
    text = ['## Scaling', '', plot(out, 'scale', svg.bars('Large in one way', groups)), '']
    for name, result in scale.items():
        text += ['### %s' % name, '', figures_table(result, 'ours, cold'), '']
    return text


def other_sections(out, rows):
    """Rows of another module: each {"section", "row", "values": {contender: figure or None}, "unit"}."""
    text = []
    for number, section in enumerate(dict.fromkeys(row['section'] for row in rows)):
        mine = [row for row in rows if row['section'] == section]
        text += ['## %s' % section, '']
        units = list(dict.fromkeys(row['unit'] for row in mine))
        for unit in units:
            same = [row for row in mine if row['unit'] == unit]
            groups = [(row['row'], list(row['values'].items())) for row in same]
            drawing = svg.bars(section, groups, 's' if unit == 'seconds' else unit, log=is_wide(groups))
            text += [plot(out, 'reads-%d-%d' % (number, units.index(unit)), drawing), '']
            names = list(dict.fromkeys(name for row in same for name in row['values']))
            text += ['| | %s |' % ' | '.join(names), '|---' * (len(names) + 1) + '|']
            for row in same:
                cells = [cell(row['values'].get(name), unit) for name in names]
                text.append('| %s | %s |' % (row['row'], ' | '.join(cells)))
            text.append('')
    return text


def is_wide(groups):
    """Whether the small bars could not be seen beside the large ones."""
    values = [value for _, rows in groups for _, value in rows if value]
    return bool(values) and max(values) > 50 * min(values)


def cell(value, unit):
    return 'failed' if value is None else svg.shown(value, 's' if unit == 'seconds' else unit)


def plot(out, name, drawing):
    if drawing is None:
        return ''
    with open(os.path.join(out, name + '.svg'), 'w') as file:
        file.write(drawing)
    return '![%s](%s.svg)' % (name, name)


if __name__ == '__main__':
    with open(os.path.join(sys.argv[1], 'results.json')) as known:
        page(sys.argv[1], json.load(known))
