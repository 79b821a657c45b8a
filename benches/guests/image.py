"""The image that all sides run: one that is there already, with a layer of the benchmark's own on top."""

import glob
import io
import os
import random
import shutil
import subprocess
import tarfile

from bench import layout
from harness import transcode

LARGE = 64 << 20
# What the layer's files say of their time.
EPOCH = 1_790_000_000

PYTHON = (
    'import json, sqlite3, ssl, asyncio, http.client, urllib.request, xml.etree.ElementTree, decimal, logging.config, '
    'argparse, email.message, csv, zipfile, tarfile, subprocess, multiprocessing, unittest, concurrent.futures, ctypes, '
    'hashlib; print(len(__import__("sys").modules))'
)
NODE = 'for (const m of ["assert","crypto","fs","http","https","net","os","path","stream","tls","url","zlib"]) require(m); console.log("loaded")'


class Kind:
    """What an image holds that the rows take: a library, its sources, and a runtime that is started. All rows of a state take less
    than half of `seconds`."""

    def __init__(self, library, suffix, command, seconds):
        self.library, self.suffix, self.command, self.seconds = library, suffix, command, seconds


def kind(tree):
    """The kind of an unpacked image."""
    python = [os.path.basename(path) for path in glob.glob(tree + '/usr/lib/python3.*')]
    known = [('home/node/app/node_modules', '.js', ['/usr/bin/node', '-e', NODE], 30)]
    known += [('usr/lib/' + name, '.py', ['/usr/bin/python3', '-I', '-B', '-c', PYTHON], 8) for name in python]
    for library, suffix, command, seconds in known:
        if os.path.isdir(os.path.join(tree, library)) and os.path.exists(os.path.join(tree, command[0].lstrip('/'))):
            return Kind(library, suffix, command, seconds)
    raise RuntimeError('%s is no image whose library and runtime this benchmark knows' % tree)


def unpack(source, to):
    """The merged tree, as umoci makes it."""
    plain = to + '.plain'
    transcode.copy(source, plain)  # umoci knows no zstd
    subprocess.run(['umoci', 'unpack', '--image', plain + ':latest', to], check=True, stderr=subprocess.DEVNULL)
    shutil.rmtree(plain)
    return os.path.join(to, 'rootfs')


def extend(source, tree, workloads, out):
    """Writes the layout `out`: the image `source`, whose tree is `tree`, and a layer with the program, a large file that does
    not compress, and Python's compiled modules, which a machine would otherwise make anew at each start."""
    tape = io.BytesIO()
    with tarfile.open(fileobj=tape, mode='w', format=tarfile.PAX_FORMAT) as tar:
        add(tar, 'bench')
        with open(workloads, 'rb') as program:
            add(tar, 'bench/workloads', program.read(), 0o755)
        add(tar, 'bench/large', random.Random(7).randbytes(LARGE))
        for path, data in compiled(tree):
            add(tar, path, data)
    shutil.rmtree(out, ignore_errors=True)
    writer = layout.Writer(out)
    manifest, config = layout.read(source)
    blobs = os.path.join(source, 'blobs', 'sha256')
    for layer in manifest['layers']:
        shutil.copy(os.path.join(blobs, layer['digest'].removeprefix('sha256:')), os.path.join(out, 'blobs', 'sha256'))
        writer.layers.append(layer)
    # The writer ends the tar itself; two such ends do no harm.
    writer.layer([tape.getvalue()], level=1)
    # Nobody else than root, and nothing else than the command.
    config['config'] = {'Env': ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin']}
    writer.finish(config)


def add(tar, path, data=None, mode=0o644):
    """A file, or a directory where there is no data."""
    entry = tarfile.TarInfo(path)
    entry.mtime = EPOCH
    if data is None:
        entry.type, entry.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(entry)
    else:
        entry.size, entry.mode = len(data), mode
        tar.addfile(entry, io.BytesIO(data))


def compiled(tree):
    """(path, bytes) of the modules of the standard library, compiled such that nobody asks for the time of their source; a
    directory has None."""
    libraries = ['/' + os.path.relpath(path, tree) for path in sorted(glob.glob(tree + '/usr/lib/python3*'))]
    if not libraries or not os.path.exists(os.path.join(tree, 'usr/bin/python3')):
        return
    command = ['chroot', tree, '/usr/bin/python3', '-m', 'compileall', '-q', '--invalidation-mode', 'unchecked-hash']
    # Its exit code tells of modules that are tests of what does not compile.
    subprocess.run([*command, *libraries], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for where, directories, names in os.walk(os.path.join(tree, 'usr/lib')):
        directories.sort()
        if os.path.basename(where) == '__pycache__':
            yield os.path.relpath(where, tree), None
            for name in sorted(names):
                path = os.path.join(where, name)
                with open(path, 'rb') as file:
                    yield os.path.relpath(path, tree), file.read()
