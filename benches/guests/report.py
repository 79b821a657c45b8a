"""The report: tables and plots of what the machines printed."""

import math
import os
import statistics

from bench import svg

STATES = ['boot', 'cold', 'warm', 'tmpfs']
HEADINGS = {
    'boot': 'First walk after the start',
    'cold': 'Cold: caches dropped before each row',
    'warm': 'Warm: the second of two runs',
    'tmpfs': 'The same writes on a tmpfs, which is nobody\'s merit',
}
INTRODUCTION = '''# What a program in a machine waits for

%(date)s, rootfs-compile %(version)s. Each side runs the same program, [workloads.rs](../../src/compile/benches/workloads.rs), in its own
microVM, with one processor and 1 GiB. The microVMs run inside one emulated machine, whose processor has SVM in software
and whose **clock counts instructions: one is a nanosecond**, whatever else the host does. So the figures of one
row compare with each other and with those of another day, to a few per cent; they compare with no clock on a
wall. What they leave out: caches and branches of a real processor, which make long walks dearer, and the cost of a real
world switch, which makes each request to the host dearer. Disks are files in that machine's memory.

Each figure is the median of %(rounds)d boots (with virtiofs of one), in milliseconds. `requests` are requests for reading at all disks of the machine.
A row in which two sides did not count the same things and the same bytes stops the benchmark.

| | |
|---|---|
'''


class Differ(RuntimeError):
    pass


def page(out, results):
    parts = [INTRODUCTION % {'date': results['date'], 'version': results['versions']['rootfs-compile'], 'rounds': results['rounds']}]
    parts += ['| %s | %s |\n' % pair for pair in (results['machine'] | results['versions']).items()]
    for name, result in results['images'].items():
        parts += one_image(out, name, result)
    with open(os.path.join(out, 'report.md'), 'w') as file:
        file.write(''.join(parts))


def medians(result):
    """{state: {row: {side: (ns, requests, sectors)}}}, after all sides were seen to have done the same."""
    samples, found = {}, {}
    for side, state, row, ns, count, total, requests, sectors in result['rows']:
        samples.setdefault((state, row), {}).setdefault(side, []).append((ns, requests, sectors))
        found.setdefault((state, row), {}).setdefault((count, total), set()).add(side)
    table = {}
    for (state, row), by_side in samples.items():
        if len(found[state, row]) > 1:
            raise Differ('%s, %s: not all did the same: %s' % (state, row, found[state, row]))
        table.setdefault(state, {})[row] = {side: tuple(map(statistics.median, zip(*all_of, strict=True))) for side, all_of in by_side.items()}
    return table


def one_image(out, name, result):
    table, sides = medians(result), result['sides']
    parts = ['\n## %s\n\n' % name]
    parts += sizes(result['bytes'])
    parts += first_lines(result, sides)
    for state in STATES:
        if state not in table:
            continue
        parts.append('\n### %s\n\n' % HEADINGS[state])
        parts.append('| ms | %s | requests: %s |\n' % (' | '.join(sides), ' | '.join(sides)))
        parts.append('|---|%s\n' % ('--:|' * (2 * len(sides))))
        for row, by_side in table[state].items():
            best = min(values[0] for values in by_side.values())
            cells = [shown(by_side.get(side), best) for side in sides]
            cells += ['%d' % by_side[side][1] if side in by_side else '' for side in sides]
            parts.append('| %s | %s |\n' % (row.replace('-', ' '), ' | '.join(cells)))
        if len(table[state]) > 1:
            ratios = ['%.2f' % geometric(table[state], side, sides[0]) if covers(table[state], side) else '' for side in sides]
            parts.append('| *geometric mean, %s is 1* | %s |%s\n' % (sides[0], ' | '.join(ratios), ' |' * len(sides)))
            plot = svg.bars('%s, %s' % (name, state), [(row.replace('-', ' '), [(side, values[side][0] / 1e9) for side in sides if side in values]) for row, values in table[state].items()], log=True)
            if plot:
                file = '%s-%s.svg' % (name, state)
                with open(os.path.join(out, file), 'w') as target:
                    target.write(plot)
                parts.append('\n![%s, %s](%s)\n' % (name, state, file))
    if result['hung']:
        parts.append('\n%d machines lost an interrupt and were started again.\n' % result['hung'])
    return parts


def shown(values, best):
    """Milliseconds, the best of a row in bold, where what differs by less than a per cent is as good."""
    if values is None:
        return ''
    text = '%.1f' % (values[0] / 1e6)
    return '**%s**' % text if values[0] <= best * 1.01 else text


def covers(rows, side):
    return all(side in by_side for by_side in rows.values())


def geometric(rows, side, base):
    return math.exp(statistics.mean(math.log(by_side[side][0] / by_side[base][0]) for by_side in rows.values()))


def sizes(bytes_of):
    layers = bytes_of['uncompressed layers']
    return ['| bytes | | of the uncompressed layers |\n|---|--:|--:|\n'] + [
        '| %s | %d | %.3f |\n' % (what, size, size / layers) for what, size in bytes_of.items()
    ]


def first_lines(result, sides):
    """From the start of the side's program to the first line of a command in the machine, and to its end."""
    times = {}
    for side, came, ended in result['first lines']:
        times.setdefault(side, []).append((came, ended))
    rows = ['\n| ms | to the first line of a command | to the end |\n|---|--:|--:|\n']
    for side in sides:
        came, ended = map(statistics.median, zip(*times[side], strict=True))
        rows.append('| %s | %.1f | %.1f |\n' % (side, came / 1e6, ended / 1e6))
    return rows
