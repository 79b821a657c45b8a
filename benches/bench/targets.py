"""What a build is meant to cost, beside what it costs: a table to read, no verdict on the machine."""
import statistics

MIB = 1 << 20


class Row:
    def __init__(self, what, limit, measured, unit='', least=False):
        self.what, self.limit, self.measured, self.unit, self.least = what, limit, measured, unit, least

    @property
    def met(self):
        if self.measured is None:
            return None
        return self.measured >= self.limit if self.least else self.measured <= self.limit


def paired(above, below, figure='wall'):
    """The median of the rounds' ratios: within a round, the machine was much the same for both."""
    pairs = [a[figure] / b[figure] for a, b in zip((above or {}).get('runs', []), (below or {}).get('runs', [])) if b[figure]]
    return statistics.median(pairs) if pairs else None


def of_image(name, result):
    """Rows of one image; `result` is contender -> figures."""
    wall = lambda contender: result.get(contender, {}).get('wall')
    cold = result['ours, cold']
    rows = [Row('%s: cold build / floor' % name, 1.3, paired(cold, result['floor']), '×')]
    faster = {'node': 10, 'cuda-like': 2.5}.get(name)
    if faster:
        rows.append(Row('%s: msb load / cold build' % name, faster, paired(result.get('msb load'), cold), '×', least=True))
    rows.append(Row('%s: mkfs.erofs, merged / cold build' % name, 1, paired(result.get('mkfs.erofs, merged'), cold), '×', least=True))
    cached = {'python-slim': 30, 'node': 150, 'cuda-like': 150}.get(name)
    if cached and wall('ours, all cached'):
        rows.append(Row('%s: all cached' % name, cached, wall('ours, all cached') * 1e3, 'ms'))
    new, alone = wall('ours, one new layer'), wall('inflate of the new layer')
    if name == 'cuda-like' and new and alone:
        rows.append(Row('%s: one new 10 MB layer, beyond its inflate' % name, 150, (new - alone) * 1e3, 'ms'))
    if name == 'cuda-like' and cold['peak']:
        rows.append(Row('%s: peak memory' % name, 200, cold['peak'] / MIB, 'MiB'))
    if cold['wall'] and result['floor']['wall']:
        rows.append(Row('%s: layers + fsmeta / uncompressed layers' % name, 1, (cold['layers'] + cold['fsmeta']) / result['uncompressed'], '×'))
        rows.append(Row('%s: bytes written / bytes of artifacts' % name, 1.01, cold['wchar'] / cold['allocated'], '×'))
    return rows


def of_scale(scale):
    ours = {name: result['ours, cold'] for name, result in scale.items()}
    plain, whiteouts, small, large, big = list(ours)
    pair = lambda figure, a, b: paired(ours[a], ours[b], figure)
    rows = [Row('60,000 files + 20,000 whiteouts / without', 1.15, pair('wall', whiteouts, plain), '×')]
    rows.append(Row('1,000,000 / 100,000 entries, time per entry', 1.3, tenth(pair('wall', large, small)), '×'))
    rows.append(Row('1,000,000 / 100,000 entries, memory per entry', 1.3, tenth(pair('peak', large, small)), '×'))
    if ours[small]['peak'] and ours[large]['peak']:
        rows.append(Row('memory per entry beyond the fixed part', 400, (ours[large]['peak'] - ours[small]['peak']) / 900_000, 'bytes'))
    rows.append(Row('one gzip layer of 1 GiB: cold build / inflate alone', 1.3, paired(ours[big], scale[big]['inflate alone']), '×'))
    return rows


def tenth(value):
    return None if value is None else value / 10
