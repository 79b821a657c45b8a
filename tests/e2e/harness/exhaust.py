"""Images that are small and made to exhaust the machine, and what a program uses up on them.

    python3 -m harness.exhaust --list
    python3 -m harness.exhaust [--binary FILE] [NAME...]       builds each at its full size and prints what that took

Blobs are put together of gzip members, because most of their bytes repeat and Python need not hold them.
"""

import argparse
import hashlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import zlib

from harness import TOP
from layout import LAYER, Layer, Layout, tagged, zstd_frame
from tarfmt import END, d, entry, f, hard, header, opq, pax, pax_record, sym

MIB = 1 << 20

# Runs a program and reports the processor time and the memory of it alone: what a process had before it became another
# program counts for that one too, so this must be a small process.
MEASURE = """
import json, os, resource, sys
limits, told, cmd = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3:]
pid = os.fork()
if not pid:
    for name, limit in limits.items():
        resource.setrlimit(getattr(resource, name), (limit, limit))
    os.execvp(cmd[0], cmd)
_, status, used = os.wait4(pid, 0)
with open(told, 'w') as file:
    cpu = used.ru_utime + used.ru_stime
    json.dump({'status': os.waitstatus_to_exitcode(status), 'memory': used.ru_maxrss << 10, 'cpu': cpu}, file)
"""


class Used:
    """What a run used up."""

    def __init__(self, status, memory, cpu, said):
        self.status, self.memory, self.cpu, self.said = status, memory, cpu, said

    def __str__(self):
        return 'exit %d, %d MiB, %.1f s of processor time: %s' % (
            self.status,
            self.memory >> 20,
            self.cpu,
            self.said.strip()[-300:],
        )


def measured(cmd, memory=8 << 30, cpu=600, **kw):
    """Runs `cmd`, which is stopped beyond so many bytes of its own memory (not of
    files that it maps) or seconds of processor time."""
    with tempfile.NamedTemporaryFile('r') as told:
        limits = json.dumps({'RLIMIT_DATA': memory, 'RLIMIT_CPU': cpu, 'RLIMIT_CORE': 0})
        p = subprocess.run(
            [sys.executable, '-S', '-E', '-c', MEASURE, limits, told.name, *cmd],
            capture_output=True,
            text=True,
            errors='replace',
            **kw,
        )
        return Used(*json.load(told).values(), p.stderr + p.stdout)


class Blob:
    """A gzipped tar written piece by piece; `repeat` compresses its bytes once."""

    def __init__(self):
        self.parts, self.diff_id, self.bytes = [], hashlib.sha256(), 0

    def add(self, data, times=1):
        z = zlib.compressobj(9, zlib.DEFLATED, 31)
        member = z.compress(data) + z.flush()
        for _ in range(times):
            self.diff_id.update(data)
        self.parts.append(member * times)
        self.bytes += len(data) * times

    def layer(self):
        self.add(END)
        return Layer(
            tar=b'', blob=b''.join(self.parts), media_type=LAYER + '+gzip', diff_id='sha256:' + self.diff_id.hexdigest()
        )


def gathered(entries, step=1000):
    """A layer of many entries."""
    blob, part = Blob(), []
    for data in entries:
        part.append(data)
        if len(part) == step:
            blob.add(b''.join(part))
            part = []
    blob.add(b''.join(part))
    return blob.layer()


def at(path, kind=b'0', **kw):
    """An entry whose path fits no header."""
    return entry('long', kind, records={'path': path}, **kw)


def xattrs(pairs):
    return b''.join(pax_record('SCHILY.xattr.' + name, value) for name, value in pairs)


def extended(records, name):
    """A file behind an extended header of these bytes."""
    return header('PaxHeaders.0/entry', b'x', len(records)) + records + bytes(-len(records) % 512) + f(name)


def with_records(records, count):
    """`count` files of which each has an extended header of these bytes."""
    blob, head = Blob(), header('PaxHeaders.0/entry', b'x', len(records)) + records + bytes(-len(records) % 512)
    z = zlib.compressobj(9, zlib.DEFLATED, 31)
    member = z.compress(head) + z.flush()
    for i in range(count):
        blob.parts.append(member)
        blob.diff_id.update(head)
        blob.add(f('f%06d' % i))
    return blob.layer()


# Each is a list of layers, for a size that says how many of what matters.
ATTACKS = {}


def attack(name, full, small):
    """`full` is the size that harms; `small`, with narrow limits, is one for every run of the suite."""

    def register(make):
        ATTACKS[name] = (make, full, small)
        return make

    return register


@attack('implied-directories', 20_000, 300)
def implied_directories(n):
    return [gathered((at('%05d/' % i + 'd/' * 999 + 'f') for i in range(n)), 100)]


@attack('links-in-reverse', 16_000, 16_000)
def links_in_reverse(n):
    return [gathered([hard('l%05d' % i, 'l%05d' % (i + 1)) for i in range(n)] + [f('l%05d' % n, 'x')])]


@attack('links-in-reverse-below', 16_000, 16_000)
def links_in_reverse_below(n):
    """Each of them leads through a symbolic link of a lower layer."""
    return [
        Layer(d('d'), sym('s', 'd'), f('d/l%05d' % n, 'x')),
        gathered([hard('s/l%05d' % i, 's/l%05d' % (i + 1)) for i in range(n)]),
    ]


def sparse(name, runs, size):
    """A sparse file in the form 1.0, one byte for each run."""
    text = b'%d\n' % len(runs) + b''.join(b'%d\n1\n' % at for at in runs)
    text += bytes(-len(text) % 512)
    return entry(
        'GNUSparseFile/x',
        b'0',
        text + b'x' * len(runs),
        records={
            'GNU.sparse.major': '1',
            'GNU.sparse.minor': '0',
            'GNU.sparse.name': name,
            'GNU.sparse.realsize': str(size),
        },
    )


@attack('sparse-runs', 65_536, 65_536)
def sparse_runs(n):
    return [gathered([sparse('f', range(0, 1 << 40, (1 << 40) // n), 1 << 40)])]


@attack('sparse-indexes', 40_000, 600)
def sparse_indexes(n):
    """Files of a byte at the end of holes: each has 65,536 chunk indexes in the layer, and again in fsmeta."""
    size = 65_535 << 24
    return [gathered(sparse('%06d' % i, [size], size + 1) for i in range(n))]


@attack('small-sparse-files', 300_000, 4000)
def small_sparse_files(n):
    """A byte on each page: equal files, and a hundred thousand bytes of zeros for each."""
    return [gathered(sparse('%06d' % i, range(0, 128 << 10, 4096), 128 << 10) for i in range(n))]


@attack('same-indexes-often', 400, 20)
def same_indexes_often(n):
    """One layer again and again, whose files a link of the layer between leads to another directory each time."""
    size = 65_535 << 24
    files = gathered(sparse('s/%06d' % i, [size], size + 1) for i in range(100 if n > 100 else 20))
    return [layer for i in range(n) for layer in (Layer(d('d%d' % i), sym('s', 'd%d' % i)), files)]


def to_and_fro(links):
    """Links of which each goes to and fro in `d`, and leads to the next one."""
    yield d('d')
    for i in range(links):
        yield entry('l%d' % i, b'2', records={'linkpath': 'd/../' * 810 + ('l%d' % (i + 1) if i + 1 < links else 'd')})


@attack('links-to-and-fro', 1_000_000, 2000)
def links_to_and_fro(n):
    return [gathered(itertools.chain(to_and_fro(38), (f('l0/f') for _ in range(n))))]


@attack('links-to-and-fro-below', 1_000_000, 1000)
def links_to_and_fro_below(n):
    return [gathered(to_and_fro(38)), gathered(f('l0/f') for _ in range(n))]


@attack('opaque-over-names', 2_200_000, 250_000)
def opaque_over_names(n):
    """Long names of one inode, and a mark that hides them in a layer that does not describe their directory."""
    names = (at('d/' + '%0255d' % i, b'1', link=b'd/f') for i in range(n))
    return [gathered(itertools.chain([d('./'), d('d'), f('d/f')], names), 20_000), Layer(opq('d'))]


@attack('names-through-a-deep-link', 200_000, 5000)
def names_through_a_deep_link(n):
    return [
        Layer(entry('s', b'2', records={'linkpath': '/'.join(['d'] * 1000)})),
        gathered(f('s/%06d' % i) for i in range(n)),
    ]


@attack('deeper-through-a-link', 1, 1)
def deeper_through_a_link(_):
    """A path of 1,000 components whose first is a link to a path of 1,000 components."""
    return [Layer(entry('s', b'2', records={'linkpath': '/'.join(['d'] * 1000)})), Layer(at('s/' + 'd/' * 998 + 'f'))]


@attack('directories-below-a-deep-one', 200_000, 4000)
def directories_below_a_deep_one(n):
    """Paths of a thousand components, of which most walks hold one for each directory."""
    return [
        gathered(
            [at('/'.join(['d'] * i), b'5') for i in range(1, 1000)]
            + [at('d/' * 999 + '%06d' % i, b'5') for i in range(n)],
            100,
        )
    ]


@attack('journal-of-deep-paths', 200_000, 8000)
def journal_of_deep_paths(n):
    return [gathered([at('d/' * 999 + '%06d' % i) for i in range(n)], 100)]


@attack('xattrs-of-a-mebibyte', 4000, 40)
def xattrs_of_a_mebibyte(n):
    return [with_records(xattrs(('user.%02d' % i, b'v' * 65_000) for i in range(16)), n)]


@attack('long-symlinks', 500_000, 10_000)
def long_symlinks(n):
    blob, head = Blob(), pax({'linkpath': 't' * 4000})
    z = zlib.compressobj(9, zlib.DEFLATED, 31)
    member = z.compress(head) + z.flush()
    for i in range(n):
        link = header('s%06d' % i, b'2')
        blob.parts += [member, zlib.compress(link, 1, 31)]
        blob.diff_id.update(head + link)
    return [blob.layer()]


@attack('foreign-xattrs', 3000, 30)
def foreign_xattrs(n):
    return [with_records(xattrs(('foreign.%0180d' % i, b'') for i in range(6000)), n)]


@attack('descending-xattrs', 100, 10)
def descending_xattrs(n):
    return [with_records(xattrs(('user.%05d' % i, b'') for i in range(90_000, 0, -1)), n)]


@attack('records-by-the-million', 2500, 5)
def records_by_the_million(n):
    return [with_records(b'6 a=b\n' * (3 * MIB // 6), n)]


@attack('paths-by-the-million', 2500, 5)
def paths_by_the_million(n):
    return [with_records(b'9 path=a\n' * (3 * MIB // 9), n)]


@attack('directories', 4_000_000, 50_000)
def directories(n):
    """Empty directories, with few names compressed over and over."""
    return [gathered((header('%08d/' % i, b'5', mode=0o755) for i in range(n)), 20_000)]


@attack('whiteouts', 4_000_000, 50_000)
def whiteouts(n):
    return [gathered((header('.wh.%08d' % i, b'0') for i in range(n)), 20_000)]


@attack('hollow-directories', 1_000_000, 20_000)
def hollow_directories(n):
    """Whiteouts of each directory on a path, and a million whiteouts at its end."""
    dirs = ['/'.join(['d'] * i) for i in range(1, 128)]
    entries = [at(path + '/.wh.x') for path in dirs] + [at(dirs[-1] + '/.wh.%07d' % i) for i in range(n)]
    return [gathered(entries + [at((path.rpartition('/')[0] + '/.wh.d').lstrip('/')) for path in dirs])]


@attack('same-deep-path', 1_500_000, 5000)
def same_deep_path(n):
    blob = Blob()
    blob.add(b''.join(at('/'.join(['d'] * i), b'5') for i in range(1, 1020)))
    blob.add(at('d/' * 1020, b'5') * 1000, n // 1000)
    return [blob.layer()]


@attack('names-of-one-inode', 4_000_000, 80_000)
def names_of_one_inode(n):
    return [gathered([f('f')] + [header('%08d' % i, b'1', link=b'f') for i in range(n)], 20_000)]


@attack('zstd-of-zeros', 200 << 30, 4 << 30)
def zstd_of_zeros(n):
    head = header('f', b'0', n)
    blob = zstd_frame(head) + zstd_frame(None, n)
    return [Layer(tar=b'', blob=blob, media_type=LAYER + '+zstd', diff_id='sha256:' + '0' * 64)]


@attack('same-layer-often', 10_000, 200)
def same_layer_often(n):
    layer = gathered(f('%06d' % i) for i in range(100_000 if n > 1000 else 1000))
    return [layer] * n


def write(name, path, n=None):
    """Writes the layout of the attack `name` and returns how many bytes its layers have."""
    make, full, _ = ATTACKS[name]
    out, layers = Layout(path), make(n or full)
    out.index(tagged(out.image(layers)))
    return sum(len(layer.blob) for layer in {id(layer): layer for layer in layers}.values())


def main():
    ap = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    ap.add_argument('names', nargs='*')
    ap.add_argument('--list', action='store_true')
    ap.add_argument('--binary', default=os.path.join(TOP, 'target/release/rootfs-compile'))
    ap.add_argument('--memory', type=int, default=4096, help='MiB')
    ap.add_argument('--cpu', type=int, default=100)
    a = ap.parse_args()
    if a.list:
        return print('\n'.join(ATTACKS))
    for name in a.names or ATTACKS:
        with tempfile.TemporaryDirectory(prefix='exhaust.', dir=os.environ.get('WORK')) as tmp:
            # A process of its own makes the image, so that this one stays small.
            pid = os.fork()
            if not pid:
                n = write(name, os.path.join(tmp, 'image'))
                with open(os.path.join(tmp, 'bytes'), 'w') as file:
                    file.write(str(n))
                os._exit(0)
            os.waitpid(pid, 0)
            with open(os.path.join(tmp, 'bytes')) as file:
                n = int(file.read())
            image = 'oci:%s:latest' % os.path.join(tmp, 'image')
            used = measured(
                [a.binary, 'build', image, '-o', os.path.join(tmp, 'out'), '--cache-dir', os.path.join(tmp, 'cache')],
                a.memory << 20,
                a.cpu,
            )
            print('%-30s %9d KiB  %s' % (name, n >> 10, used), flush=True)


if __name__ == '__main__':
    main()
