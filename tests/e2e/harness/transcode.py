"""Copies an OCI layout, and turns its plain and zstd layers into gzip, as Debian 12's umoci does not know zstd."""

import gzip
import hashlib
import json
import os
import subprocess

INDEX = 'application/vnd.oci.image.index.v1+json'
MANIFEST = 'application/vnd.oci.image.manifest.v1+json'


def put(out, data):
    digest = hashlib.sha256(data).hexdigest()
    with open(os.path.join(out, 'blobs', 'sha256', digest), 'wb') as file:
        file.write(data)
    return {'digest': 'sha256:' + digest, 'size': len(data)}


def copy(src, dst, architecture='amd64'):
    """The image of `src` for linux/`architecture` (or its only one), as dst:latest."""

    def blob(digest):
        with open(os.path.join(src, 'blobs', *digest.split(':')), 'rb') as file:
            return file.read()

    os.makedirs(os.path.join(dst, 'blobs', 'sha256'))
    with open(os.path.join(dst, 'oci-layout'), 'w') as file:
        file.write('{"imageLayoutVersion":"1.0.0"}')
    with open(os.path.join(src, 'index.json')) as file:
        doc = json.load(file)
    while 'manifests' in doc:
        some = [m for m in doc['manifests'] if m.get('platform', {}).get('architecture', architecture) == architecture]
        doc = json.loads(blob(some[0]['digest']))
    doc['layers'] = doc.get('layers') or []
    for layer in doc['layers']:
        if 'zstd' in layer['mediaType']:
            tar = subprocess.run(
                ['zstd', '-dcq', '--no-progress'], input=blob(layer['digest']), stdout=subprocess.PIPE, check=True
            ).stdout
            layer.update(
                put(dst, gzip.compress(tar, 1, mtime=0)), mediaType='application/vnd.oci.image.layer.v1.tar+gzip'
            )
        else:
            layer.update(put(dst, blob(layer['digest'])))
            if 'docker' in layer['mediaType']:
                layer['mediaType'] = 'application/vnd.oci.image.layer.v1.tar+gzip'
    doc['config'] = {'mediaType': 'application/vnd.oci.image.config.v1+json', **put(dst, blob(doc['config']['digest']))}
    doc['mediaType'] = MANIFEST
    top = {
        'mediaType': MANIFEST,
        **put(dst, json.dumps(doc).encode()),
        'annotations': {'org.opencontainers.image.ref.name': 'latest'},
    }
    with open(os.path.join(dst, 'index.json'), 'w') as file:
        json.dump({'schemaVersion': 2, 'manifests': [top]}, file)
