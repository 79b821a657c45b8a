"""What a terminal is shown: nothing of an image, a bundle or a server makes it do anything."""

import json
import os
import pathlib
import re
import shutil

from checks import check
from harness.common import BINARY, build, call, need, scratch
from harness.proxy import status
from harness.registry_bench import bench
from layout import Layer, Layout, sha256, tagged
from tarfmt import d, f, sym

BOOT = os.environ.get('ROOTFS_BOOT', os.path.join(os.path.dirname(BINARY), 'rootfs-boot'))
EVIL = '\x1b]0;owned\x07\x9b2J\u202e\r'
OBEYED = re.compile('[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]')


def tame(p, what):
    """Nothing that a terminal obeys, on either stream."""
    found = OBEYED.search(p.stdout + p.stderr)
    need(not found, '%s prints %r: %r' % (what, found and found[0], (p.stdout + p.stderr)[:1000]))


def forge(layout, index):
    """Gives the bundle in a layout another bundle.json."""

    def read(name):
        with open(os.path.join(layout, name)) as file:
            return json.load(file)

    def blob(descriptor, data):
        descriptor |= {'digest': sha256(data), 'size': len(data)}
        with open(os.path.join(layout, 'blobs', descriptor['digest'].replace(':', '/')), 'wb') as file:
            file.write(data)

    top = read('index.json')
    [entry] = top['manifests']
    manifest = read('blobs/' + entry['digest'].replace(':', '/'))
    blob(manifest['config'], index)
    blob(entry, json.dumps(manifest).encode())
    with open(os.path.join(layout, 'index.json'), 'w') as file:
        json.dump(top, file)


@check('terminal-escapes')
def escapes():
    with scratch() as tmp:
        at = lambda name: os.path.join(tmp, name)
        out = Layout(at('lay' + EVIL))
        config = {'Env': ['A=' + EVIL], 'Cmd': ['/bin/' + EVIL], 'Labels': {EVIL: EVIL}, 'StopSignal': 'SIG' + EVIL}
        out.index(
            tagged(
                out.image(
                    [
                        Layer(d('r' + EVIL), sym('link', 'r' + EVIL)),
                        Layer(f('link/Name' + EVIL, 'x', xattrs={'other.' + EVIL: 'y'}), f('link/name' + EVIL, 'x')),
                    ],
                    config=config,
                )
            )
        )
        with open(at('m.yaml'), 'w') as file:
            json.dump(
                {
                    'image': 'oci:%s:latest' % out.path,
                    'platform': 'linux/amd64',
                    'boot': {'env': {'B': EVIL}},
                    'patches': [{'write': {'path': '/link/p' + EVIL, 'content': 'x'}}],
                },
                file,
            )
        tame(build(at('m.yaml'), at('out'), '-v'), 'build')
        tame(build(at('m.yaml'), at('plain'), '-v', '--progress', 'plain'), 'build --progress plain')
        tame(build(at('m.yaml'), at('json'), '-v', '--progress', 'json'), 'build --progress json')
        for args in (
            ['build', at('m.yaml'), '--dry-run', '--cache-dir', at('out.cache')],
            ['build', at('m.yaml'), '--dry-run', '--json', '--cache-dir', at('out.cache')],
            ['inspect', at('out')],
            ['inspect', at('out'), '--json'],
            ['verify', at('out')],
        ):
            p = call(BINARY, *args)
            tame(p, ' '.join(args[:1] + args[2:]))
            if '--json' in args:
                need('owned' in json.dumps(json.loads(p.stdout)), 'the JSON lost the name')
        # What another user may put into a cache.
        cache = at('out.cache')
        for name in (name for name in os.listdir(cache) if name.startswith('v')):
            open(os.path.join(cache, name, 'x' + EVIL), 'w').close()
        for args in ([], ['--json']):
            p = call(BINARY, 'cache', 'verify', '--cache-dir', cache, *args)
            tame(p, ' '.join(['cache verify', *args]))
            need('owned' in p.stdout, 'the name is lost: ' + p.stdout)
        need(EVIL in json.loads(p.stdout)['strangers'][0], 'the JSON lost the name')
        p = call(BOOT, at('out'), '--dry-run', '--engine', 'qemu', ok=(0,))
        tame(p, 'rootfs-boot --dry-run')
        need(EVIL in json.loads(p.stdout)['command']['argv'][0], 'the JSON lost the command')
        # What a bundle says that nobody built.
        shutil.copytree(at('out'), at('b' + EVIL), ignore=shutil.ignore_patterns('upper.ext4'))
        for args in (
            ['verify', at('b' + EVIL)],
            ['verify', at('b' + EVIL), '--json'],
            ['inspect', at('b' + EVIL + 'x')],
            ['export', at('b' + EVIL), '--raw', at('r' + EVIL)],
        ):
            tame(call(BINARY, *args, ok=(1,)), ' '.join(args[:1]))
        tame(call(BOOT, at('b' + EVIL), '--dry-run', ok=(125,)), 'rootfs-boot')
        path = at('b' + EVIL) + '/bundle.json'
        with open(path) as file:
            doc = json.load(file)
        doc['files'][0]['path'] = EVIL
        doc['image']['reference'] = EVIL
        with open(path, 'w') as file:
            json.dump(doc, file)
        for args in (['verify', at('b' + EVIL)], ['inspect', at('b' + EVIL)]):
            tame(call(BINARY, *args, ok=(0, 1)), args[0] + ' of a bundle that nobody built')
        # An unknown key, which is named, and would end the line and begin one of its own.
        with open(at('out/bundle.json')) as file:
            text = file.read()
        with open(path, 'w') as file:
            file.write(text.replace('"seal": "', '"x\\nforged\\n": 1, "seal": "', 1))
        call(BINARY, 'export', at('out'), '--oci-layout', at('layout'), '--cache-dir', at('out.cache'))
        forge(at('layout'), pathlib.Path(path).read_bytes())
        for cmd, code in (
            ([BINARY, 'verify', at('b' + EVIL)], 1),
            ([BINARY, 'inspect', at('b' + EVIL)], 1),
            ([BOOT, at('b' + EVIL), '--dry-run'], 125),
            ([BINARY, 'pull', 'oci:' + at('layout'), '-o', at('pulled'), '--cache-dir', at('out.cache')], 1),
        ):
            p = call(*cmd, ok=(code,))
            need('forged' in p.stdout + p.stderr, '%s does not name the key: %s' % (cmd, p.stdout + p.stderr))
            need(
                'forged' not in (p.stdout + p.stderr).splitlines(),
                '%s prints a line that nobody wrote: %s' % (cmd, p.stdout + p.stderr),
            )
        with open(at('m.yaml'), 'w') as file:
            file.write('image: localhost:1/x\n')
        with open(at('m.lock'), 'w') as file:
            file.write('{"version":1,"x\\nforged\\n":1}')
        p = call(BINARY, 'build', at('m.yaml'), '-o', at('locked'), ok=(1,))
        need('forged' in p.stderr and 'forged' not in p.stderr.splitlines(), 'a lock file prints a line: %s' % p.stderr)


@check('terminal-escapes-of-servers')
def servers():
    with bench() as b:
        proxy = b.site.proxy()
        body = json.dumps({'errors': [{'code': EVIL, 'message': 'no: ' + EVIL}]}, ensure_ascii=False).encode()
        proxy.on('', status(400, body), times=None)
        said = b.pull(proxy, 'hello:1', fails=['no: ', 'owned']).said
        need(not OBEYED.search(said), 'the registry says %r' % said)
