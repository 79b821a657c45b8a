"""The benchmark inside machines, in its small form: not how fast anything is, but that all rows are there."""

import collections
import json
import os

from checks import check
from harness.common import TOP, call, need, scratch
from harness.images import image

# As many as src/compile/benches/workloads.rs has.
COLD_ROWS = 14


@check('guest-bench')
def small():
    """One boot of each side. That they read the same files and bytes the benchmark itself insists on."""
    layout = image('python-slim')
    with scratch() as tmp:
        out, work = os.path.join(tmp, 'out'), os.path.join(tmp, 'work')
        env = {**os.environ, 'BENCH_WORK': work}
        call(os.path.join(TOP, 'ci/guest-bench'), '--small', out, layout + '/', env=env)
        with open(os.path.join(out, 'results.json')) as file:
            result = json.load(file)['images']['python-slim']
        need(os.path.exists(os.path.join(out, 'python-slim-cold.svg')), 'no plot was drawn')
    rows = collections.Counter((side, state) for side, state, *_ in result['rows'])
    sides = result['sides']
    need(len(sides) == 2, 'the sides are %s' % sides)
    wanted = {(side, state): count for side in sides for state, count in (('boot', 1), ('cold', COLD_ROWS))}
    need(rows == wanted, 'the rows are %s' % rows)
    need(all(row[3] > 0 and row[4] > 0 for row in result['rows']), 'a row counted nothing, or took no time')
    return '%d rows of %s' % (len(result['rows']), ' and '.join(sides))
