"""Images, manifests and bundles that are small and made to exhaust the machine."""

import http.server
import json
import os
import socketserver
import threading

import tarfmt
from checks import check
from harness import exhaust
from harness.common import BINARY, need, scratch
from layout import CONFIG, LAYER, MANIFEST, Layout, tagged

# What the defaults promise; a run with narrow limits takes much less.
MOST_MEMORY, LITTLE_MEMORY = 1536 << 20, 200 << 20
# Seconds of processor time. What fails does so by orders of magnitude: this does not measure the machine.
MOST_TIME = 300

# Of each attack: options that make its small form fail, and the option that its error names; none, where it is to
# succeed.
NARROW = {
    'implied-directories': (('--max-metadata-bytes', '32MiB'), '--max-metadata-bytes'),
    'links-in-reverse': ((), None),
    'links-in-reverse-below': ((), None),
    'sparse-runs': (('--max-sparse-bytes', '256MiB'), '--max-sparse-bytes'),
    'sparse-indexes': (('--max-sparse-bytes', '256MiB'), '--max-sparse-bytes'),
    'small-sparse-files': (('--max-sparse-bytes', '256MiB'), '--max-sparse-bytes'),
    'same-indexes-often': (('--max-sparse-bytes', '128MiB'), '--max-sparse-bytes'),
    'links-to-and-fro': (('--max-steps', '10000000'), '--max-steps'),
    'links-to-and-fro-below': (('--max-steps', '10000000'), '--max-steps'),
    'opaque-over-names': ((), None),
    'names-through-a-deep-link': ((), None),
    'deeper-through-a-link': ((), '--max-depth'),
    'directories-below-a-deep-one': ((), None),
    'journal-of-deep-paths': (('--max-metadata-bytes', '32MiB'), '--max-metadata-bytes'),
    'xattrs-of-a-mebibyte': (('--max-metadata-bytes', '32MiB'), '--max-metadata-bytes'),
    'long-symlinks': (('--max-metadata-bytes', '16MiB'), '--max-metadata-bytes'),
    'foreign-xattrs': ((), None),
    'descending-xattrs': (('--max-xattr-bytes', '2MiB', '--max-metadata-bytes', '16MiB'), '--max-metadata-bytes'),
    'records-by-the-million': ((), None),
    'paths-by-the-million': ((), None),
    'directories': (('--max-metadata-bytes', '16MiB'), '--max-metadata-bytes'),
    'whiteouts': (('--max-metadata-bytes', '16MiB'), '--max-metadata-bytes'),
    'hollow-directories': ((), None),
    'same-deep-path': ((), None),
    'names-of-one-inode': (('--max-metadata-bytes', '4MiB'), '--max-metadata-bytes'),
    'zstd-of-zeros': (('--max-expansion-bytes', '256MiB'), '--max-expansion-bytes'),
    'same-layer-often': (('--max-metadata-bytes', '16MiB'), '--max-metadata-bytes'),
}

# What EROFS itself cannot hold, no option allows.
BEYOND_EROFS = {'descending-xattrs': 'EROFS allows 262148 for one inode'}


def image(name, tmp, n):
    """The layout of an attack."""
    return apart(tmp, name, lambda path: exhaust.write(name, path, n))


def apart(tmp, name, write):
    """A layout that a process of its own makes: what this one has in memory, its children would count as theirs."""
    path = os.path.join(tmp, name)
    pid = os.fork()
    if not pid:
        try:
            write(path)
            os._exit(0)
        finally:
            os._exit(1)
    need(os.waitpid(pid, 0)[1] == 0, 'the image %s could not be made' % name)
    return 'oci:%s:latest' % path


def build(name, tmp, n, args, memory):
    out = os.path.join(tmp, name + '.out')
    cmd = [BINARY, 'build', image(name, tmp, n), '-o', out, '--cache-dir', out + '.cache', '--quiet', *args]
    used = exhaust.measured(cmd, memory=4 << 30, cpu=MOST_TIME)
    need(used.status in (0, 1), '%s: %s' % (name, used))
    need(used.memory <= memory, '%s takes too much memory: %s' % (name, used))
    return used


@check('budgets')
def small():
    """Each attack in a form that takes a second: with narrow limits it ends at the one that it names."""
    need(NARROW.keys() == exhaust.ATTACKS.keys(), 'not every attack has an entry')
    most = 0
    for name, (args, option) in NARROW.items():
        with scratch() as tmp:
            used = build(name, tmp, exhaust.ATTACKS[name][2], args, LITTLE_MEMORY)
            need(used.status == bool(option), '%s: %s' % (name, used))
            need(not option or option in used.said, '%s: the error names no %s: %s' % (name, option, used))
            most = max(most, used.memory)
    return '%d attacks, %d MiB at most' % (len(NARROW), most >> 20)


def full():
    """Each attack at a size that harmed, with the limits that are default."""
    most = {}
    for name in NARROW:
        with scratch() as tmp:
            used = build(name, tmp, exhaust.ATTACKS[name][1], (), MOST_MEMORY)
            named = BEYOND_EROFS.get(name, '--max-')
            need(used.status == 0 or named in used.said, '%s: the error says nothing of %s: %s' % (name, named, used))
            most[name] = used
    return '; '.join('%s: %d MiB, %.0f s' % (name, used.memory >> 20, used.cpu) for name, used in most.items())


def deep(count):
    """So many directories 400 components of 255 bytes below /srv: each has a path of 100 kB."""
    links = [
        tarfmt.entry(
            'l%d' % i, b'2', records={'linkpath': '/'.join(['l%d' % (i - 1) if i else 'srv'] + ['n' * 255] * 15)}
        )
        for i in range(27)
    ]
    return [tarfmt.d('srv'), *links] + [tarfmt.d('l26/%d' % i) for i in range(count)]


DIFF = '--- a/f\n+++ b/f\n@@ -1,0 +2 @@\n+new\n'
LINES = 'a\n' * (4 << 20)
# What patches are applied to, the patch, and whether narrow limits end it.
PATCHED = {
    'a hunk in a file of line ends': (lambda: [tarfmt.f('f', '\n' * (32 << 20))], {'diff': {'content': DIFF}}, False),
    'accounts of line ends': (
        lambda: [tarfmt.f('etc/' + name, LINES) for name in ('passwd', 'group', 'shadow', 'gshadow')],
        {'user': {'name': 'app'}},
        False,
    ),
    'a mode of deep directories': (
        lambda: deep(4000),
        {'chmod': {'path': '/srv', 'mode': 'g-w', 'recursive': True}},
        False,
    ),
    'an owner of deep directories': (
        lambda: deep(4000),
        {'chown': {'path': '/srv', 'owner': '5:5', 'recursive': True}},
        False,
    ),
    'a glob over deep directories': (lambda: deep(4000), {'remove': {'path': '/srv/**/*.pyc', 'missing': 'ok'}}, True),
    'all names of a directory': (
        lambda: (
            [tarfmt.f('d/a')] + [exhaust.at('d/' + 'n' * 240 + '%06d' % i, b'1', link='d/a') for i in range(60_000)]
        ),
        {'remove': {'path': '/d/*'}},
        True,
    ),
    'large files that are edited': (
        lambda: [tarfmt.f('f%d' % i, '%d' % i * (20 << 20)) for i in range(4)],
        *[{'replace': {'path': '/f%d' % i, 'find': '^.', 'with': 'x'}} for i in range(4)],
        True,
    ),
}


@check('budgets-patches')
def patched():
    """Images whose patches take much: little memory, or an error that names the limit."""
    most = 0
    for number, (name, (entries, *patches, ends)) in enumerate(PATCHED.items()):
        with scratch() as tmp:

            def write(path, entries=entries):
                out = Layout(path)
                out.index(tagged(out.image([exhaust.gathered(entries())])))

            manifest = os.path.join(tmp, 'm.yaml')
            with open(manifest, 'w') as file:
                json.dump({'image': apart(tmp, 'layout%d' % number, write), 'patches': patches}, file)
            cmd = [
                BINARY,
                'build',
                manifest,
                '-o',
                os.path.join(tmp, 'out'),
                '--cache-dir',
                os.path.join(tmp, 'cache'),
                '--quiet',
                '--max-metadata-bytes',
                '120MiB',
            ]
            used = exhaust.measured(cmd, memory=4 << 30, cpu=MOST_TIME)
            need(used.status == ends and ('--max-metadata-bytes' in used.said) == ends, '%s: %s' % (name, used))
            need(used.memory <= LITTLE_MEMORY, '%s takes too much memory: %s' % (name, used))
            most = max(most, used.memory)
    return '%d cases, %d MiB at most' % (len(PATCHED), most >> 20)


YAML = {
    'lists': '[' * 32_000,
    'mappings': '{a: ' * 100_000,
    'entries': '- ' * 100_000,
    'keys': '? ' * 100_000,
    'behind what is not YAML': 'a: "\\q"\nb: ' + '[' * 32_000,
    'aliases': 'a0: &a0 [x]\n' + ''.join('a%d: &a%d [*a%d, *a%d]\n' % (i, i, i - 1, i - 1) for i in range(1, 60)),
    'values': 'image: x\nvars: [' + 'a,' * 1_900_000 + ']\n',
    'a long text often': 'a: &a ' + 'x' * (1 << 20) + '\nb: [' + '*a, ' * 100_000 + ']\n',
}


@check('budgets-yaml')
def yaml():
    """Manifests, and files that they include."""
    with scratch() as tmp:
        at = lambda name: os.path.join(tmp, name)
        with open(at('including.yaml'), 'w') as file:
            file.write('image: oci:x\npatches:\n  - include: included.yaml\n')
        for name, text in YAML.items():
            for path, read in (('manifest.yaml', 'manifest.yaml'), ('included.yaml', 'including.yaml')):
                with open(at(path), 'w') as file:
                    file.write(text)
                used = exhaust.measured(
                    [BINARY, 'build', at(read), '-o', at('out'), '--cache-dir', at('cache')], memory=2 << 30, cpu=60
                )
                need(used.status == 2 and path in used.said, '%s as %s: %s' % (name, path, used))
                need(used.memory < 700 << 20, '%s as %s: %s' % (name, path, used))


@check('budgets-documents')
def documents():
    """Indexes, manifests and configs of an image."""
    with scratch() as tmp:
        digest = 'sha256:' + '0' * 64
        layer = json.dumps({'mediaType': LAYER, 'digest': digest, 'size': 1}, separators=(',', ':'))
        of = {
            'objects': '{"schemaVersion":2,"manifests":[' + '{"":0},' * (15 * exhaust.MIB // 7) + '{}]}',
            'lists': '[' * 100_000,
            'zeros': '{"schemaVersion":2,"manifests":[' + '0,' * 4_500_000 + '0]}',
            'manifests': '{"schemaVersion":2,"manifests":['
            + ','.join([layer] * (15 * exhaust.MIB // (len(layer) + 1)))
            + ']}',
        }
        for name, text in of.items():
            path = os.path.join(tmp, name)
            Layout(path)
            with open(os.path.join(path, 'index.json'), 'w') as file:
                file.write(text)
            cmd = [BINARY, 'build', 'oci:' + path, '-o', path + '.out', '--cache-dir', path + '.cache']
            used = exhaust.measured(cmd, memory=4 << 30, cpu=60)
            need(used.status == 1 and used.memory < 700 << 20, '%s: %s' % (name, used))
        # An index that leads to one manifest of a bundle over and over.
        out = Layout(os.path.join(tmp, 'bundles'))
        about = {'digest': digest, 'size': 1}
        bundle = {
            'artifactType': 'application/vnd.rootfs-compile.bundle.v1',
            'config': about,
            'layers': [about] * 10_000,
        }
        out.index(*[out.json(bundle, MANIFEST)] * 400)
        used = exhaust.measured(
            [BINARY, 'pull', 'oci:' + out.path, '-o', out.path + '.out', '--cache-dir', out.path + '.cache'],
            memory=4 << 30,
            cpu=60,
        )
        need(used.status == 1 and used.memory < LITTLE_MEMORY, 'one bundle often: %s' % used)
        out = Layout(os.path.join(tmp, 'layers'))
        manifest = '{"schemaVersion":2,"config":%s,"layers":[%s]}'
        config = {'architecture': 'amd64', 'os': 'linux', 'rootfs': {'type': 'layers', 'diff_ids': [digest] * 100_000}}
        about = out.json(config, CONFIG)
        text = manifest % (json.dumps(about), ','.join([layer] * 100_000))
        out.index(tagged(out.blob(text.encode(), MANIFEST)))
        cmd = [BINARY, 'build', 'oci:' + out.path, '-o', out.path + '.out', '--cache-dir', out.path + '.cache']
        used = exhaust.measured(cmd, memory=4 << 30, cpu=60)
        need(used.status == 1 and '65535' in used.said, '100,000 layers: %s' % used)


class EndlessDaemon(socketserver.ThreadingUnixStreamServer):
    """Docker's socket, whose answer has no end."""

    daemon_threads = True

    class RequestHandlerClass(http.server.BaseHTTPRequestHandler):
        protocol_version = 'HTTP/1.1'

        def address_string(self):
            return 'a socket'

        def log_message(self, *_):
            pass

        def do_GET(self):
            self.send_response(200)
            self.send_header('Transfer-Encoding', 'chunked')
            self.end_headers()
            piece = b'%x\r\n%s\r\n' % (exhaust.MIB, bytes(exhaust.MIB))
            try:
                while True:
                    self.wfile.write(piece)
            except OSError:
                pass

    def __init__(self, path):
        super().__init__(path, self.RequestHandlerClass)
        threading.Thread(target=self.serve_forever, daemon=True).start()


@check('budgets-daemon')
def endless_daemon():
    with scratch() as tmp:
        at = lambda name: os.path.join(tmp, name)
        with EndlessDaemon(at('docker.sock')) as daemon:
            cmd = [
                BINARY,
                'build',
                'docker-daemon:app:1',
                '-o',
                at('out'),
                '--cache-dir',
                at('cache'),
                '--max-archive-bytes',
                '64MiB',
            ]
            used = exhaust.measured(
                cmd, memory=2 << 30, cpu=60, env={**os.environ, 'DOCKER_HOST': 'unix://' + at('docker.sock')}
            )
            daemon.shutdown()
        need(used.status == 1 and '--max-archive-bytes' in used.said, 'a daemon without an end: %s' % used)
        need(used.memory < LITTLE_MEMORY, 'a daemon without an end: %s' % used)
