"""OCI layouts written from layers of tar bytes, right ones and broken ones."""
import gzip
import hashlib
import json
import os
import zlib

from tarfmt import END, f

MANIFEST = 'application/vnd.oci.image.manifest.v1+json'
INDEX = 'application/vnd.oci.image.index.v1+json'
CONFIG = 'application/vnd.oci.image.config.v1+json'
LAYER = 'application/vnd.oci.image.layer.v1.tar'
NAME, REF = 'io.containerd.image.name', 'org.opencontainers.image.ref.name'
GONE = object()                         # takes a key of a document away
SUFFIX = {'plain': '', 'gzip': '+gzip', 'zstd': '+zstd'}


def sha256(data):
    return 'sha256:' + hashlib.sha256(data).hexdigest()


def gzip_member(data, level=6):
    return gzip.compress(data, level, mtime=0)


def zstd_frame(data, size=None):
    """A frame of raw and run-length blocks: a valid one whatever zstd is installed, or none.

    `size` makes a frame of that many zeros without having them in memory."""
    total = len(data) if size is None else size
    # No content size for the large one: one that announces itself would be caught too easily.
    out = [b'\x28\xb5\x2f\xfd', b'\xe0' + total.to_bytes(8, 'little') if size is None else b'\x00\x58']
    at = 0
    while True:
        n = min(128 << 10, total - at)
        last = at + n == total
        chunk = data[at:at + n] if size is None else None
        run = chunk is None or (n > 1 and chunk.count(chunk[:1]) == n)
        out.append((last | (run << 1) | n << 3).to_bytes(3, 'little'))
        out.append((chunk[:1] if chunk else b'\0') if run else chunk)
        at += n
        if last:
            return b''.join(out)


def zstd_skippable(data=b'skip me'):
    return b'\x50\x2a\x4d\x18' + len(data).to_bytes(4, 'little') + data


COMPRESS = {'plain': bytes, 'gzip': gzip_member, 'zstd': zstd_frame}


class Layer:
    """A layer: `tar` is its uncompressed bytes, `blob` what lies in the layout. Each part can be given to break it."""

    def __init__(self, *entries, form='gzip', end=END, tar=None, blob=None, media_type=None, diff_id=None, digest=None, size=None,
                 symlinked=False):
        self.tar = b''.join(entries) + end if tar is None else tar
        self.blob = COMPRESS[form](self.tar) if blob is None else blob
        self.media_type = media_type or LAYER + SUFFIX[form]
        self.diff_id = diff_id or sha256(self.tar)
        self.digest, self.size, self.symlinked = digest, size, symlinked

    def digest_of_blob(self):
        return hashlib.sha256(self.blob).hexdigest()


class StreamedLayer:
    """A layer too big for memory: `chunks` yields its tar, and the blob is written as it comes."""

    def __init__(self, chunks):
        self.chunks, self.media_type = chunks, LAYER + '+gzip'

    def write(self, out):
        tmp = os.path.join(out.blobs, 'partial')
        z, blob, plain, n = zlib.compressobj(1, zlib.DEFLATED, 31), hashlib.sha256(), hashlib.sha256(), 0
        with open(tmp, 'wb') as file:
            for chunk in self.chunks:
                plain.update(chunk)
                data = z.compress(chunk)
                blob.update(data)
                n += file.write(data)
            data = z.flush()
            blob.update(data)
            n += file.write(data)
        os.rename(tmp, os.path.join(out.blobs, blob.hexdigest()))
        self.diff_id = 'sha256:' + plain.hexdigest()
        return {'mediaType': self.media_type, 'digest': 'sha256:' + blob.hexdigest(), 'size': n}


class Layout:
    """A layout directory being written."""

    def __init__(self, path):
        self.path, self.blobs = path, os.path.join(path, 'blobs', 'sha256')
        os.makedirs(self.blobs)
        with open(os.path.join(path, 'oci-layout'), 'w') as file:
            file.write('{"imageLayoutVersion":"1.0.0"}')

    def blob(self, data, media_type, digest=None, size=None, symlinked=False, **more):
        digest = digest or sha256(data)
        at = os.path.join(self.blobs, digest.split(':')[1])
        if symlinked:
            with open(os.path.join(self.path, 'elsewhere'), 'wb') as file:
                file.write(data)
            os.symlink('../../elsewhere', at)
        else:
            with open(at, 'wb') as file:
                file.write(data)
        return {'mediaType': media_type, 'digest': digest, 'size': len(data) if size is None else size, **more}

    def json(self, value, media_type, **kw):
        return self.blob(json.dumps(value, sort_keys=True, separators=(',', ':')).encode(), media_type, **kw)

    def image(self, layers, config=None, platform=('linux', 'amd64'), diff_ids=None, history=None, manifest_kw=None, config_kw=None,
              media_types=(MANIFEST, CONFIG)):
        """Writes the blobs of an image and returns its manifest's descriptor."""
        described = []
        for l in layers:
            if isinstance(l, StreamedLayer):
                described.append(l.write(self))
            else:
                described.append(self.blob(l.blob, l.media_type, l.digest, l.size, l.symlinked))
        doc = {'architecture': platform[1], 'os': platform[0], 'config': config or {},
               'rootfs': {'type': 'layers', 'diff_ids': [l.diff_id for l in layers] if diff_ids is None else diff_ids}}
        if history:
            doc['history'] = history
        about = self.json(doc, media_types[1], **(config_kw or {}))
        return self.json({'schemaVersion': 2, 'mediaType': media_types[0], 'config': about, 'layers': described}, media_types[0],
                         **(manifest_kw or {}))

    def index(self, *descriptors):
        with open(os.path.join(self.path, 'index.json'), 'w') as file:
            json.dump({'schemaVersion': 2, 'mediaType': INDEX, 'manifests': list(descriptors)}, file, sort_keys=True)


def tagged(descriptor, tag='latest'):
    return {**descriptor, 'annotations': {'org.opencontainers.image.ref.name': tag}}


def for_platform(descriptor, os_name, architecture, **more):
    return {**descriptor, 'platform': {'os': os_name, 'architecture': architecture, **more}}


def named(descriptor, **names):
    """Names as Docker from 25 on writes them: full='docker.io/library/a:1', ref='1'."""
    keys = {'full': NAME, 'ref': REF}
    return {**descriptor, 'annotations': {keys[k]: v for k, v in names.items()}}


def changed(doc, changes):
    return {k: v for k, v in {**doc, **(changes or {})}.items() if v is not GONE}


def image_of_file(out, name, config=None, manifest=None, config_type=CONFIG, media_type=MANIFEST, layer=None, **described):
    """An image of one file, called `name`. `config` and `manifest` are what differs in its documents."""
    l = layer or Layer(f(name, '1'))
    doc = {'os': 'linux', 'architecture': 'amd64', 'config': {}, 'rootfs': {'type': 'layers', 'diff_ids': [l.diff_id]}}
    about = out.json(changed(doc, config), config_type)
    doc = {'schemaVersion': 2, 'mediaType': media_type, 'config': about, 'layers': [out.blob(l.blob, l.media_type)]}
    return {**out.json(changed(doc, manifest), media_type), **described}
