"""A directory with registries of its own, in which images are built and pulled,
and what most checks of registries need beside it."""

import base64
import collections
import concurrent.futures
import contextlib
import itertools
import json
import os
import random
import subprocess

from harness.common import BINARY, PATIENCE, TOP, Failed, files, manifest_for, need, need_no_leftovers, scratch
from harness.registry import PASSWORD, USER, Site
from layout import INDEX, Layer, Layout, for_platform, tagged
from tarfmt import d, f

HELLO = os.path.join(TOP, 'testimages/hello')
LOGIN = {'ROOTFS_COMPILE_USERNAME': USER, 'ROOTFS_COMPILE_PASSWORD': PASSWORD}
Built = collections.namedtuple('Built', 'out cache said')


class Bench:
    """A directory in which images are built,
    each build in a place of its own that must hold the bundle afterwards, or nothing."""

    def __init__(self, tmp, site):
        self.tmp, self.site, self.number, self.layouts = tmp, site, itertools.count(), {}

    def at(self, *names):
        return os.path.join(self.tmp, *names)

    def build(
        self,
        reference,
        *args,
        cache=None,
        manifest=None,
        fails=None,
        may_fail=None,
        home=None,
        timeout=PATIENCE,
        codes=(1,),
        **env,
    ):
        """`fails`: words that the message must have; without, the build must succeed; `may_fail`: if it does not, these
        words.

        Nothing of the caller's environment counts."""
        parent = self.at('build%d' % next(self.number))
        os.mkdir(parent)
        cache, home = cache or os.path.join(parent, 'cache'), home or self.at('home')
        os.makedirs(home, exist_ok=True)
        os.mkdir(os.path.join(parent, 'out'))
        manifest = manifest or manifest_for(os.path.join(parent, 'm.yaml'), '"%s"' % reference)
        out = os.path.join(parent, 'out', 'bundle')
        env = {'PATH': os.environ['PATH'], 'HOME': home, 'RUST_LOG': 'trace', 'RUST_BACKTRACE': '1'} | env
        what = ' '.join([reference, *args])
        cmd = [BINARY, 'build', manifest, '-o', out, '--cache-dir', cache, *args]
        try:
            p = subprocess.run(
                cmd,
                capture_output=True,
                text=True,
                errors='replace',
                env=env,
                timeout=timeout,
                stdin=subprocess.DEVNULL,
            )
        except subprocess.TimeoutExpired as e:
            raise Failed(
                'build of %s: no end after %d s: %s'
                % (what, timeout, (e.stderr or b'').decode(errors='replace')[-600:])
            ) from None
        said = p.stdout + p.stderr
        need('panicked' not in said, said)
        if may_fail is not None and p.returncode:
            fails = may_fail
        need(
            p.returncode == 0 if fails is None else p.returncode in codes,
            'build of %s: exit %d: %s' % (what, p.returncode, said.strip()[-1000:]),
        )
        if fails is not None:
            silent = [w for w in fails if w.lower() not in said.lower()]
            need(
                not silent,
                'build of %s: the message does not say %s: %s'
                % (what, ', '.join(map(repr, silent)), said.strip()[-600:]),
            )
        need_no_leftovers(os.path.dirname(out), *([] if fails is not None else ['bundle']))
        return Built(out, cache, said)

    def pull(self, server, name, *args, **kw):
        """From a registry or proxy, with the option that it needs."""
        trust = ('--ca-cert', self.site.ca) if getattr(server, 'tls', None) else ('--insecure-registry', server.host)
        return self.build('%s/%s' % (server.host, name), *trust, *args, **kw)

    def of(self, layout, *args):
        """What the layout gives."""
        key = (layout, *args)
        if key not in self.layouts:
            self.layouts[key] = self.build('oci:%s:latest' % layout, *args).out
        return self.layouts[key]

    def same(self, built, expected, why, but=('reference',)):
        """All files; of bundle.json all but some keys of the image and of layers."""
        left, right = files(built.out), files(expected)
        differ = [n for n in sorted(left.keys() | right.keys()) if left.get(n) != right.get(n) and n != 'bundle.json']
        need(not differ, '%s: the bundle differs from the expected one in %s' % (why, ', '.join(differ)))
        docs = []
        for directory in (built.out, expected):
            with open(os.path.join(directory, 'bundle.json')) as file:
                doc = json.load(file)
            del doc['seal']
            doc['image'] = {k: v for k, v in doc['image'].items() if k not in but}
            doc['layers'] = [{k: v for k, v in layer.items() if k not in but} for layer in doc['layers']]
            docs.append(doc)
        keys = [k for k in sorted(docs[0].keys() | docs[1].keys()) if docs[0].get(k) != docs[1].get(k)]
        need(
            not keys,
            '%s: bundle.json has another %s'
            % (why, ', '.join('%s: %s, not %s' % (k, docs[0].get(k), docs[1].get(k)) for k in keys)[:1500]),
        )

    def layout(self, name, *images, platforms=None):
        """A layout of layers' entries; with `platforms`, an index of an image for each,
        beside what builders add for no platform."""
        out = Layout(self.at(name))
        made = [
            out.image(layers, platform=('linux', p)) for layers, p in zip(images, platforms or ['amd64'], strict=True)
        ]
        if platforms:
            listed = [for_platform(m, 'linux', p) for m, p in zip(made, platforms, strict=True)]
            listed.insert(
                0,
                for_platform(
                    out.image([Layer(f('attested', 'x'))], platform=('unknown', 'unknown')), 'unknown', 'unknown'
                ),
            )
            made = [out.json({'schemaVersion': 2, 'mediaType': INDEX, 'manifests': listed}, INDEX)]
        out.index(tagged(made[0]))
        return out.path


@contextlib.contextmanager
def bench():
    with scratch() as tmp:
        os.mkdir(os.path.join(tmp, 'site'))
        with Site(os.path.join(tmp, 'site')) as site:
            yield Bench(tmp, site)


def all_of(cases, workers=6):
    """Runs functions side by side, as most of them wait; says all that is wrong."""
    failed = []
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        running = {name: pool.submit(run) for name, run in cases.items()}
        for name, job in running.items():
            try:
                job.result()
            except (Failed, OSError, ValueError) as e:
                failed.append('%s: %s' % (name, e))
    need(not failed, '%d of %d fail:\n%s' % (len(failed), len(cases), '\n'.join(failed)))
    return '%d cases' % len(cases)


def layers_in(layout):
    """The descriptors of the layers of a layout's only image, and that of its config."""
    with open(os.path.join(layout, 'index.json')) as file:
        digest = json.load(file)['manifests'][0]['digest']
    with open(os.path.join(layout, 'blobs', *digest.split(':'))) as file:
        doc = json.load(file)
    return doc['layers'], doc['config'], digest


def blobs(layout):
    """A pattern of the requests for layers, and the digests of those."""
    digests = [layer['digest'] for layer in layers_in(layout)[0]]
    return '/blobs/(%s)$' % '|'.join(digests), digests


def noise(seed, form, size=400_000):
    """A layer that does not compress."""
    data = random.Random(seed).randbytes(size)
    return Layer(d('n%d' % seed), f('n%d/data' % seed, data), f('n%d/text' % seed, 'of %d\n' % seed), form=form)


def write(path, doc):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'w') as file:
        file.write(doc if isinstance(doc, str) else json.dumps(doc))
    return path


def auths(entries):
    return {
        'auths': {
            key: {'auth': base64.b64encode((USER + ':' + password).encode()).decode()}
            for key, password in entries.items()
        }
    }
