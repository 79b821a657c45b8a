"""OCI layouts that the benchmark makes: new ones, and a layer on top of one that is there."""
import hashlib
import json
import os
import random
import shutil
import zlib

GZIP_LAYER = 'application/vnd.oci.image.layer.v1.tar+gzip'
CONFIG = 'application/vnd.oci.image.config.v1+json'
MANIFEST = 'application/vnd.oci.image.manifest.v1+json'


def header(name, size=0, kind=b'0', mode=0o644):
    """A ustar header. Python's tarfile makes some ten thousand a second, and a million are wanted."""
    block = bytearray(512)
    raw = name.encode()
    block[:len(raw)] = raw
    block[100:148] = b'%07o\0%07o\0%07o\0%011o\0%011o\0' % (mode, 0, 0, size, 1_700_000_000)
    block[148:157] = b'        ' + kind
    block[257:265] = b'ustar\00000'
    block[148:156] = b'%06o\0 ' % sum(block)
    return bytes(block)


def file(name, data):
    return header(name, len(data)) + data + bytes(-len(data) % 512)


def directory(name):
    return header(name + '/', kind=b'5', mode=0o755)


class Words:
    """Data as files have it, from a fixed seed: text, tables of records, and what is compressed already. Deflate makes about a third of it."""

    def __init__(self, size=8 << 20):
        rng = random.Random(1)
        words = [bytes(rng.choices(b'etaoinshrdlucmfw', k=rng.randint(2, 9))) for _ in range(4000)]
        weights = [1 / (n + 2) for n in range(len(words))]
        text = b' '.join(rng.choices(words, weights, k=size // 6))
        records = b''.join(rng.randbytes(5) + bytes(11) + rng.choice(words)[:4] for _ in range(size // 16))
        self.pools = [text, text, records, rng.randbytes(size // 2)]

    def take(self, rng, size):
        pool = rng.choices(self.pools, [4, 4, 4, 1])[0]
        out = b''
        while len(out) < size:
            start = rng.randrange(len(pool))
            out += pool[start:start + size - len(out)]
        return out


class Writer:
    """A layout that grows layer by layer."""

    def __init__(self, path):
        self.path = path
        self.layers = []
        self.diff_ids = []
        os.makedirs(os.path.join(path, 'blobs', 'sha256'))

    def blob_path(self, digest):
        return os.path.join(self.path, 'blobs', 'sha256', digest.removeprefix('sha256:'))

    def blob(self, data):
        digest = 'sha256:' + hashlib.sha256(data).hexdigest()
        with open(self.blob_path(digest), 'wb') as out:
            out.write(data)
        return {'digest': digest, 'size': len(data)}

    def layer(self, parts, level=6):
        """Adds a gzip layer of the tar that `parts` come to, without its end. Returns its uncompressed size."""
        plain, packed, size = hashlib.sha256(), hashlib.sha256(), 0
        deflate = zlib.compressobj(level, zlib.DEFLATED, 31)
        temporary = os.path.join(self.path, 'layer')
        with open(temporary, 'wb') as out:
            def write(data):
                packed.update(data)
                out.write(data)
            for part in gather(parts):
                plain.update(part)
                size += len(part)
                write(deflate.compress(part))
            write(deflate.flush())
            bytes_packed = out.tell()
        digest = 'sha256:' + packed.hexdigest()
        os.rename(temporary, self.blob_path(digest))
        self.layers.append({'mediaType': GZIP_LAYER, 'digest': digest, 'size': bytes_packed})
        self.diff_ids.append('sha256:' + plain.hexdigest())
        return size

    def finish(self, config=None):
        """Writes config, manifest and index; the layers of `config`, if it is given, lie below."""
        config = config or {'architecture': 'amd64', 'os': 'linux', 'config': {}, 'rootfs': {'type': 'layers', 'diff_ids': []}}
        config['rootfs']['diff_ids'] = config['rootfs']['diff_ids'] + self.diff_ids
        if config.get('history'):
            config['history'] = config['history'] + [{'created_by': 'bench'} for _ in self.diff_ids]
        manifest = {'schemaVersion': 2, 'mediaType': MANIFEST, 'config': dict(self.blob(encode(config)), mediaType=CONFIG), 'layers': self.layers}
        entry = dict(self.blob(encode(manifest)), mediaType=MANIFEST, annotations={'org.opencontainers.image.ref.name': 'latest'})
        write_file(os.path.join(self.path, 'index.json'), encode({'schemaVersion': 2, 'manifests': [entry]}))
        write_file(os.path.join(self.path, 'oci-layout'), b'{"imageLayoutVersion":"1.0.0"}')


def encode(document):
    return json.dumps(document, sort_keys=True).encode()


def write_file(path, data):
    with open(path, 'wb') as out:
        out.write(data)


def gather(parts, size=1 << 20):
    """The same bytes in larger pieces, and the two blocks that end a tar."""
    held, length = [], 0
    for part in parts:
        held.append(part)
        length += len(part)
        if length >= size:
            yield b''.join(held)
            held, length = [], 0
    yield b''.join(held) + bytes(1024)


def read(path):
    """Manifest and config of the image that is tagged latest, or the only one."""
    def document(digest):
        with open(os.path.join(path, 'blobs', 'sha256', digest.removeprefix('sha256:')), 'rb') as blob:
            return json.load(blob)
    with open(os.path.join(path, 'index.json')) as index:
        manifests = json.load(index)['manifests']
    name = 'org.opencontainers.image.ref.name'
    tagged = [m for m in manifests if m.get('annotations', {}).get(name) == 'latest'] or manifests
    manifest = document(tagged[0]['digest'])
    if 'layers' not in manifest:
        raise ValueError('%s: latest is an index of several platforms; a layout of one image is wanted' % path)
    return manifest, document(manifest['config']['digest'])


def on_top(image, path, parts):
    """Makes the layout `path`: `image` and one layer more."""
    manifest, config = read(image)
    writer = Writer(path)
    for layer in manifest['layers']:
        source = os.path.join(image, 'blobs', 'sha256', layer['digest'].removeprefix('sha256:'))
        try:
            os.link(source, writer.blob_path(layer['digest']))
        except OSError:
            shutil.copyfile(source, writer.blob_path(layer['digest']))
    writer.layers = list(manifest['layers'])
    writer.layer(parts)
    writer.finish(config)


def mixed_files(seed, bytes_packed):
    """Some thousand files of all sizes in a tree, until Deflate would make some `bytes_packed` of them."""
    rng, words, total, number = random.Random(seed), Words(), 0, 0
    while total < bytes_packed * 2.3:
        if number % 40 == 0:
            folder = 'opt/new/part-%d' % (number // 40)
            yield directory(folder)
        size = int(min(rng.lognormvariate(8, 1.6), 4 << 20))
        yield file('%s/file-%d' % (folder, number), words.take(rng, size))
        total += size
        number += 1
