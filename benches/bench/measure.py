"""Commands in turn, and what each spent."""
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

FIGURES = 'wall cpu peak wchar written'.split()


class Contender:
    """A command that is measured. `before` and `after` run around it, outside the clock; what `after` returns (a dict) is kept
    with the figures of the first round. `command` may be a function that makes it; `tree` asks for the memory of all its processes
    at once. After `enough` seconds of it, all rounds together, it sits out those that follow."""

    def __init__(self, name, command, before=None, after=None, env=None, tree=False, enough=120):
        self.name = name
        self.command = command if callable(command) else lambda: command
        self.before = before or (lambda: None)
        self.after = after or (lambda: None)
        self.env = dict(os.environ, **(env or {}))
        self.tree = tree
        self.enough = enough


def spend(command, env=None, tree=False):
    """The figures of one run; `failed` holds the last words of one that failed."""
    with tempfile.TemporaryDirectory() as scratch:
        result = os.path.join(scratch, 'spent')
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'spend.py')
        args = [sys.executable, '-I', '-S', script, result, 'tree' if tree else 'one', *command]
        subprocess.run(args, env=env, check=True)
        with open(result) as lines:
            figures = {name: float(value) for name, value in map(str.split, lines)}
        with open(result + '.log', errors='replace') as log:
            said = log.read()
    figures['said'] = said
    if figures.pop('code') != 0:
        words = [line.strip() for line in said.splitlines() if line.strip()]
        figures['failed'] = ' '.join(words[-3:])[-300:] or 'it failed without a word'
    return figures


def rounds(contenders, count, log=lambda text: None):
    """Every contender once, then every one again: a machine that slows down slows all. Returns name -> result."""
    results = {c.name: {'runs': [], 'failed': None} for c in contenders}
    for number in range(count):
        for contender in contenders:
            result = results[contender.name]
            if result['failed'] or (number and sum(run['wall'] for run in result['runs']) > contender.enough):
                continue
            contender.before()
            # What an earlier command left to be written is not this one's to wait for.
            os.sync()
            spent = spend(contender.command(), contender.env, contender.tree)
            if 'failed' in spent:
                result['failed'] = spent['failed']
                log('%s failed: %s' % (contender.name, spent['failed']))
                contender.after()
                continue
            said = spent.pop('said')
            result['runs'].append(spent)
            after = contender.after()
            if number == 0:
                result['said'] = said[-2000:]
                result.update(after or {})
            log('round %d, %s: %.3f s' % (number + 1, contender.name, spent['wall']))
    for result in results.values():
        summarize(result)
    return results


def summarize(result):
    """Adds the medians, and the range of the wall time."""
    runs = result['runs']
    for figure in FIGURES:
        result[figure] = statistics.median(run[figure] for run in runs) if runs else None
    walls = sorted(run['wall'] for run in runs)
    result['range'] = [walls[0], walls[-1]] if walls else None


def disk_use(*paths):
    """What lies under `paths`: bytes as files say, and bytes that blocks take; a file with several names counts once."""
    apparent = allocated = 0
    seen = set()
    for path in paths:
        for parent, _, names in os.walk(path):
            for name in names:
                stat = os.lstat(os.path.join(parent, name))
                if (stat.st_dev, stat.st_ino) not in seen:
                    seen.add((stat.st_dev, stat.st_ino))
                    apparent += stat.st_size
                    allocated += stat.st_blocks * 512
    return {'apparent': apparent, 'allocated': allocated}


def remove(path):
    """Removes a file or tree, or nothing."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.remove(path)
