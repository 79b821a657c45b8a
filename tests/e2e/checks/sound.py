"""`verify` sees every damage: flipped bytes, changed indexes, uppers that are not ext4."""

import copy
import json
import os
import random
import re
import resource
import subprocess

from checks import check
from harness.boot import BOOT
from harness.bundle import sealed, written
from harness.common import BINARY, HELLO, TOP, build, call, files, need, scratch
from model import blake3

# Nothing here is large; whoever reads without an end takes more.
MEMORY = 400 << 20
# A reader that waits for what never comes needs no more patience, however busy the machine is.
WAIT = 300


def own_copy(directory, to):
    """A copy of a bundle that shares no file with the cache."""
    call('cp', '-a', '--sparse=always', '--reflink=never', directory, to)
    for path in files(to):
        os.chmod(os.path.join(to, path), 0o644)
    return to


def limited():
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def said(p):
    return (p.stdout + p.stderr)[-600:]


def refused(what, *cmd, **kw):
    """The program must end by itself, with an error of its own."""
    p = call(*cmd, ok=range(-64, 256), timeout=WAIT, stdin=subprocess.DEVNULL, **kw)
    need(
        0 < p.returncode < 128 and p.returncode != 101 and 'panicked' not in p.stderr,
        '%s: exit %d: %s' % (what, p.returncode, said(p)),
    )
    return p


def verify(directory):
    return call(BINARY, 'verify', directory, ok=(0, 1), timeout=WAIT)


def asks_boot(directory):
    """What rootfs-boot says of the whole bundle, without a machine."""
    p = call(
        BOOT,
        '--verify',
        '--dry-run',
        '--engine',
        'qemu',
        directory,
        '/bin/any',
        ok=(0, 125),
        timeout=WAIT,
        stdin=subprocess.DEVNULL,
    )
    need('panicked' not in p.stderr, said(p))
    return p


# Every bit counts.


def flips(count):
    with scratch() as tmp:
        at = lambda name: os.path.join(tmp, name)
        build(HELLO, at('built'))
        out, r, seen = own_copy(at('built'), at('out')), random.Random(17), 0
        names = sorted(files(out))
        need(verify(out).returncode == 0, 'the copy is not sound')
        for i in range(count):
            name = names[i % len(names)]
            path = os.path.join(out, name)
            size = os.path.getsize(path)
            # Every other flip of the upper, which is mostly a hole, is in its first mebibyte.
            where, bit = r.randrange(min(size, 1 << 20) if i // len(names) % 2 else size), 1 << r.randrange(8)
            with open(path, 'r+b') as file:
                file.seek(where)
                byte = file.read(1)[0]
                file.seek(where)
                file.write(bytes([byte ^ bit]))
            p = verify(out)
            need(
                p.returncode == 1 and name in p.stdout,
                'bit %d of byte %d of %s is flipped: %s' % (bit, where, name, said(p)),
            )
            if name == 'bundle.json' and i < 200:
                refused('inspect of a flipped index', BINARY, 'inspect', out)
                need(asks_boot(out).returncode == 125, 'rootfs-boot takes a flipped index')
            seen += 1
            with open(path, 'r+b') as file:
                file.seek(where)
                file.write(bytes([byte]))
        need(verify(out).returncode == 0, 'the copy is not as it was')
    return '%d of %d flips are seen' % (seen, count)


check('sound-flips')(lambda: flips(270))


# The index, changed by who knows how it is written.


def places(value, path=()):
    """Every container of the document, with its path."""
    if isinstance(value, (dict, list)):
        yield value
        for child in value.values() if isinstance(value, dict) else value:
            yield from places(child)


def other(value, r):
    """Another value, mostly of the same kind."""
    if r.random() < 0.2:
        return r.choice([None, 7, -1, 0.5, 'text', '', True, [], {}, [''], 2**64, {'a': None}])
    if isinstance(value, bool) or value is None:
        return r.choice([True, 'text', [], 0])
    if isinstance(value, int):
        return r.choice([value + 1, max(0, value - 1), 0, value * 2, value + 4096, 2**63, 2**64 - 1])
    if isinstance(value, str):
        n = r.randrange(len(value) + 1)
        return r.choice(
            [
                value[:n] + r.choice('0a/.~\0\u00e9\x7f"') + value[n:],
                value[:n],
                value.upper(),
                '../' + value,
                '/' + value,
                value + value,
            ]
        )
    if isinstance(value, list):
        return r.choice([[], value + value[:1], value[::-1] if len(value) > 1 else [*value, 'x'], value[1:], [value]])
    return r.choice([{}, {**value, 'more': 1}, list(value)])


def change(doc, r):
    """A changed index: as text, and a word of how."""
    new = copy.deepcopy(doc)
    where = r.choice([p for p in places(new) if p])
    how = r.choice(['drop', 'rename', 'add', 'value', 'value', 'value', 'twice', 'order', 'blank'])
    if how == 'blank':
        lines = written(new).split(b'\n')
        at = r.randrange(len(lines))
        lines[at] += r.choice([b' ', b'\t', b'\r'])
        return b'\n'.join(lines), how
    if isinstance(where, list):
        at = r.randrange(len(where))
        if how == 'drop':
            del where[at]
        elif how in ('add', 'twice'):
            where.insert(r.randrange(len(where) + 1), copy.deepcopy(where[at]))
        elif how == 'order':
            r.shuffle(where)
        else:
            where[at] = other(where[at], r)
        return written(new), how
    key = r.choice(list(where))
    if how == 'drop':
        del where[key]
    elif how == 'rename':
        kept = [(k + 'x' if k == key else k, v) for k, v in where.items()]
        where.clear()
        where.update(kept)
    elif how == 'add':
        where[r.choice(['more', 'Seal', 'user', 'path', '$'])] = r.choice([1, None, 'x'])
    elif how == 'order':
        kept = list(where.items())
        r.shuffle(kept)
        where.clear()
        where.update(kept)
    elif how == 'twice':
        text, line = written(new), b'"%s": ' % key.encode()
        at = text.find(line)
        # The key once more in the same object, with a value that a lenient reader might take.
        return text[:at] + line + b'null,\n' + text[at:], how
    else:
        where[key] = other(where[key], r)
    return written(new), how


def index_changes(count):
    r, seen, fine = random.Random(5), 0, 0
    with scratch() as tmp:
        at = lambda name: os.path.join(tmp, name)
        with open(at('m.yaml'), 'w') as file:
            file.write(
                'image: oci:%s/testimages/hello:latest\nplatform: linux/amd64\n'
                'boot: {cpus: 2, memory: 512m, user: "1000", hostname: h, '
                'env: {A: b}, dns: [1.1.1.1], tmpfs: ["/x:1m"], timeout: 90, stop-signal: INT}\n' % TOP
            )
        build(at('m.yaml'), at('out'))
        path = at('out/bundle.json')
        with open(path, 'rb') as file:
            good = file.read()
        doc = json.loads(good)
        need(sealed(good) == good, 'the seal is not what the documentation says')
        for i in range(count):
            text, how = change(doc, r)
            if text == good:
                continue
            with open(path, 'wb') as file:
                file.write(text)
            p = verify(at('out'))
            need(p.returncode == 1 and 'panicked' not in p.stderr, 'change %d (%s) is called sound' % (i, how))
            seen += 1
            # With its seal made right it may be a bundle. Whatever it is, both say so.
            with open(path, 'wb') as file:
                file.write(sealed(text))
            p, q = verify(at('out')), asks_boot(at('out'))
            need('panicked' not in p.stderr, said(p))
            other_host = 'this machine runs' in q.stderr
            need(
                other_host or (p.returncode == 0) == (q.returncode == 0),
                'change %d (%s), sealed: verify says %s, rootfs-boot says %s'
                % (i, how, said(p).strip(), said(q).strip()[-300:]),
            )
            fine += p.returncode == 0
        with open(path, 'wb') as file:
            file.write(good)
        need(verify(at('out')).returncode == 0, 'the index is not as it was')
    return '%d of %d changes are seen; with the seal made right, %d are bundles, for verify and rootfs-boot alike' % (
        seen,
        seen,
        fine,
    )


check('sound-index-changes')(lambda: index_changes(120))


@check('sound-version-1')
def old_version():
    """An index of an earlier version: what to do is said."""
    with scratch() as tmp:
        out = os.path.join(tmp, 'out')
        build(HELLO, out)
        path = os.path.join(out, 'bundle.json')
        with open(path) as file:
            text = file.read()
        with open(path, 'w') as file:
            file.write(re.sub(r'"version": \d+,\n  "seal": "[^"]*",', '"version": 1,', text))
        for cmd in ([BINARY, 'verify', out], [BINARY, 'inspect', out], [BOOT, '--dry-run', out]):
            p = refused('version 1', *cmd)
            need('version 1' in p.stdout + p.stderr and 'Build the bundle again' in p.stdout + p.stderr, said(p))


@check('sound-descriptor')
def descriptor():
    """A descriptor with one more line, of which the index knows hash and size: qemu-img would read another file."""
    with scratch() as tmp:
        at = lambda name: os.path.join(tmp, name)
        build(HELLO, at('out'))
        with open(at('out/bundle.vmdk'), 'rb') as file:
            good = file.read()
        with open(at('out/bundle.json')) as file:
            doc = json.load(file)
        for line in (b' RW 1 FLAT "/etc/passwd" 0 a=b', b'# a comment', b'', b'encoding="UTF-8"'):
            text = good.replace(b'\n\n# Extent', b'\n' + line + b'\n\n# Extent')
            with open(at('out/bundle.vmdk'), 'wb') as file:
                file.write(text)
            for entry in doc['files']:
                if entry['path'] == 'bundle.vmdk':
                    entry['size'], entry['blake3'] = len(text), blake3.hexdigest(text)
            with open(at('out/bundle.json'), 'wb') as file:
                file.write(sealed(written(doc)))
            p, q = verify(at('out')), asks_boot(at('out'))
            need(
                (p.returncode, q.returncode) == (1, 125),
                '%r: verify exits %d, rootfs-boot %d' % (line, p.returncode, q.returncode),
            )


def told_by_blocks(path):
    """BLAKE3 of the blocks that are not all zero, each behind its number."""
    out, at = [], 0
    with open(path, 'rb') as file:
        size = os.path.getsize(path)
        while at < size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA) // 4096 * 4096
            except OSError:  # a hole to the end
                break
            end = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            for block_at in range(at, end, 4096):
                block = os.pread(file.fileno(), 4096, block_at)
                if block.strip(b'\0'):
                    out.append((block_at // 4096).to_bytes(8, 'little') + block)
            at = end
    return blake3.hexdigest(b''.join(out))


@check('sound-upper')
def upper():
    """An upper whose hash is right and whose ext4 is not: each byte of its metadata counts."""
    with scratch() as tmp:
        out = os.path.join(tmp, 'out')
        with open(os.path.join(tmp, 'm.yaml'), 'w') as file:
            file.write('image: oci:%s/testimages/hello:latest\nplatform: linux/amd64\nupper: {size: 16MiB}\n' % TOP)
        build(os.path.join(tmp, 'm.yaml'), out)
        path = os.path.join(out, 'upper.ext4')
        with open(os.path.join(out, 'bundle.json')) as file:
            doc = json.load(file)
        entry = next(e for e in doc['files'] if e['path'] == 'upper.ext4')
        need(told_by_blocks(path) == entry['blake3_nonzero_blocks'], 'the hash is not what the documentation says')
        # The superblock's volume name, a group descriptor's reserved bytes, a bit of a bitmap.
        for at in (1024 + 0x78, 4096 + 0x3C, 4096 * 2 + 0x7FF):
            with open(path, 'r+b') as file:
                byte = os.pread(file.fileno(), 1, at)
                os.pwrite(file.fileno(), bytes([byte[0] ^ 1]), at)
                entry['blake3_nonzero_blocks'] = told_by_blocks(path)
                with open(os.path.join(out, 'bundle.json'), 'wb') as index:
                    index.write(sealed(written(doc)))
                p, q = verify(out), asks_boot(out)
                os.pwrite(file.fileno(), byte, at)
            need(
                (p.returncode, q.returncode) == (1, 125) and 'upper.ext4' in p.stdout and 'hash' not in p.stdout,
                'byte %#x: verify says %s, rootfs-boot exits %d' % (at, said(p), q.returncode),
            )


# What may lie where a file is expected.


# What a build says yes to.
