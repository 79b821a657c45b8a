"""Signatures of images as cosign writes them down, judged by `verify-image`,
and statements of in-toto about a bundle's origin."""

import base64
import hashlib
import http.client
import json
import os
import subprocess
import urllib.parse

from checks import check
from harness.common import BINARY, build, call, need, same_files, scratch
from harness.registry import Site
from harness.registry_bench import HELLO as HELLO_LAYOUT
from harness.registry_bench import bench, noise, write


class Signer:
    """Signs images as cosign writes it down, with openssl's own keys and signatures,
    in the plain registry of a site."""

    def __init__(self, site, directory, repository, kind='p256'):
        self.site, self.directory, self.repository, self.kind = site, directory, repository, kind
        os.makedirs(directory)
        algorithm = (
            ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256'] if kind == 'p256' else ['-algorithm', 'ED25519']
        )
        call('openssl', 'genpkey', *algorithm, '-out', self.at('key'))
        call('openssl', 'pkey', '-in', self.at('key'), '-pubout', '-out', self.at('key.pub'))

    def at(self, name):
        return os.path.join(self.directory, name)

    def sign(self, message):
        with open(self.at('message'), 'wb') as file:
            file.write(message)
        how = (
            ['dgst', '-sha256', '-sign', self.at('key')]
            if self.kind == 'p256'
            else ['pkeyutl', '-sign', '-rawin', '-inkey', self.at('key'), '-in']
        )
        p = subprocess.run(['openssl', *how, self.at('message')], stdout=subprocess.PIPE, check=True)
        return base64.b64encode(p.stdout).decode()

    def request(self, method, path, body=b'', **headers):
        c = http.client.HTTPConnection(self.site.plain.host, timeout=600)
        c.request(method, path, body, headers)
        answer = c.getresponse()
        answer.read()
        need(answer.status in (201, 202), '%s %s: %d' % (method, path, answer.status))
        return answer

    def blob(self, data, media_type, **more):
        digest = 'sha256:' + hashlib.sha256(data).hexdigest()
        to = self.request('POST', '/v2/%s/blobs/uploads/' % self.repository).headers['Location']
        to = urllib.parse.urlsplit(to)
        self.request('PUT', '%s?%s&digest=%s' % (to.path, to.query, digest), data)
        return {'mediaType': media_type, 'digest': digest, 'size': len(data), **more}

    def manifest(self, tag, layers, media_type='application/vnd.oci.image.manifest.v1+json', **more):
        doc = {
            'schemaVersion': 2,
            'mediaType': media_type,
            'config': self.blob(b'{}', 'application/vnd.oci.image.config.v1+json'),
            'layers': layers,
            **more,
        }
        return self.put(tag, doc)

    def put(self, tag, doc):
        data = json.dumps(doc).encode()
        digest = 'sha256:' + hashlib.sha256(data).hexdigest()
        self.request(
            'PUT', '/v2/%s/manifests/%s' % (self.repository, tag or digest), data, **{'Content-Type': doc['mediaType']}
        )
        return {'mediaType': doc['mediaType'], 'digest': digest, 'size': len(data)}

    def simple(self, digest, signed=None, signature=None, kind='cosign container image signature', before=0):
        """`signed`: the digest that the payload names; `before`: signatures by nobody, that come first."""
        payload = json.dumps(
            {
                'critical': {
                    'identity': {'docker-reference': 'example.com/hello'},
                    'image': {'docker-manifest-digest': signed or digest},
                    'type': kind,
                },
                'optional': None,
            }
        ).encode()
        signatures = [base64.b64encode(b'nobody %d' % i).decode() for i in range(before)] + [
            signature or self.sign(payload)
        ]
        layer = self.blob(payload, 'application/vnd.dev.cosign.simplesigning.v1+json')
        layers = [
            {**layer, 'annotations': {'dev.cosignproject.cosign/signature': signature}} for signature in signatures
        ]
        self.manifest(digest.replace(':', '-') + '.sig', layers)

    def bundle(self, digest, signed=None, predicate='https://sigstore.dev/cosign/sign/v1', before=()):
        statement = {
            '_type': 'https://in-toto.io/Statement/v1',
            'subject': [{'digest': {'sha256': (signed or digest).split(':')[1]}}],
            'predicateType': predicate,
            'predicate': {},
        }
        payload, kind = json.dumps(statement).encode(), 'application/vnd.in-toto+json'
        pae = b'DSSEv1 %d %s %d %s' % (len(kind), kind.encode(), len(payload), payload)
        bundle = {
            'mediaType': 'application/vnd.dev.sigstore.bundle.v0.3+json',
            'verificationMaterial': {'publicKey': {'hint': 'x'}},
            'dsseEnvelope': {
                'payload': base64.b64encode(payload).decode(),
                'payloadType': kind,
                'signatures': [{'sig': self.sign(pae)}],
            },
        }
        layers = [self.blob(data, bundle['mediaType']) for data in (*before, json.dumps(bundle).encode())]
        subject = {'mediaType': 'application/vnd.oci.image.manifest.v1+json', 'digest': digest, 'size': 1}
        entry = self.manifest(None, layers, artifactType=bundle['mediaType'], subject=subject)
        index = 'application/vnd.oci.image.index.v1+json'
        self.put(
            digest.replace(':', '-'),
            {'schemaVersion': 2, 'mediaType': index, 'manifests': [{**entry, 'artifactType': bundle['mediaType']}]},
        )

    def forget(self, digest):
        """What there is from now on is signed by nobody."""
        nobody = {'schemaVersion': 2, 'mediaType': 'application/vnd.oci.image.index.v1+json', 'manifests': []}
        self.put(digest.replace(':', '-') + '.sig', nobody)
        self.put(digest.replace(':', '-'), nobody)


@check('image-signature')
def image_signature():
    """verify-image: what cosign wrote down of an image in either form, judged by openssl's signatures."""
    with bench() as b:
        site = b.site
        for name in ('hello:1', 'hello:other'):
            site.push(HELLO_LAYOUT if name == 'hello:1' else b.layout('other', [noise(9, 'gzip', 5000)]), name)
        digest, other = site.digest('hello:1'), site.digest('hello:other')
        host, cases = site.plain.host, 0

        def manifest(signer, name='hello:1'):
            path = b.at('%s.yaml' % name.replace(':', '-'))
            write(
                path,
                'image: %s/%s\nplatform: linux/amd64\nverify-image: { cosign-key: %s }\n'
                % (host, name, os.path.relpath(signer.at('key.pub'), b.tmp)),
            )
            return path

        def builds(signer, *args, fails=None, name='hello:1', **kw):
            nonlocal cases
            cases += 1
            return b.build(name, *args, manifest=manifest(signer, name), fails=fails, **kw)

        for kind in ('p256', 'ed25519'):
            ours = Signer(site, b.at('ours ' + kind), 'hello', kind)
            theirs = Signer(site, b.at('theirs ' + kind), 'hello', kind)
            ours.forget(digest)
            builds(ours, fails=['verify-image', 'not signed', digest])
            for way in ('simple', 'bundle'):
                sign = getattr(ours, way)
                ours.forget(digest)
                sign(digest)
                cache = b.at('cache %s %s' % (kind, way))
                built = builds(ours, cache=cache)
                with open(os.path.join(built.out, 'bundle.json')) as file:
                    told = json.load(file)['image']
                need(
                    told['signed']['digest'] == digest and told['manifest_digest'] == digest,
                    'bundle.json says %s' % told,
                )
                call(BINARY, 'verify', built.out)
                builds(ours, '--offline', cache=cache)
                builds(theirs, fails=['not signed by that key'])
                # The signature of another image, or of something else about this one.
                sign(digest, signed=other)
                builds(ours, fails=['not signed by that key'])
                sign(
                    digest,
                    **({'kind': 'something else'} if way == 'simple' else {'predicate': 'https://spdx.dev/Document'}),
                )
                builds(ours, fails=['not signed by that key'])
            ours.forget(digest)
            ours.simple(digest, signature=base64.b64encode(b'no signature').decode())
            builds(ours, fails=['not signed by that key'])
            # Others may have signed it as well, and what is not a bundle may be beside one.
            ours.forget(digest)
            ours.simple(digest, before=100)
            builds(ours)
            ours.simple(digest, before=300)
            builds(ours, fails=['256'])
            ours.forget(digest)
            ours.bundle(digest, before=[b'[]', b'7', b'{"dsseEnvelope":[]}'])
            builds(ours)
        # An index is signed, and not what it lists; a lock pins what it lists.
        multi = b.layout('multi', [noise(1, 'gzip', 9000)], [noise(2, 'zstd', 9000)], platforms=['amd64', 'arm64'])
        site.push(multi, 'multi:1', '--all')
        signer = Signer(site, b.at('of multi'), 'multi')
        builds(signer, '--lock', fails=['not signed'], name='multi:1')
        need(not os.path.exists(b.at('multi-1.lock')), 'what is not signed is locked')
        signer.simple(site.digest('multi:1'))
        built = builds(signer, '--lock', name='multi:1')
        builds(signer, '--locked', name='multi:1')
        with open(os.path.join(built.out, 'bundle.json')) as file:
            need(
                json.load(file)['image']['signed']['digest'] == site.digest('multi:1'),
                'another digest is said to be signed',
            )
        # Elsewhere than in a registry, and with what is not a key.
        path = write(
            b.at('layout.yaml'),
            'image: oci:%s:latest\nplatform: linux/amd64\nverify-image: { cosign-key: %s }\n'
            % (HELLO_LAYOUT, signer.at('key.pub')),
        )
        b.build('a layout', manifest=path, fails=['verify-image', 'registries only'])
        path = write(b.at('absent.yaml'), 'image: %s/hello:1\nverify-image: { cosign-key: absent.pub }\n' % host)
        b.build('no key', manifest=path, fails=['absent.pub'])
        path = write(
            b.at('secret.yaml'), 'image: %s/hello:1\nverify-image: { cosign-key: %s }\n' % (host, signer.at('key'))
        )
        b.build('a secret key', manifest=path, fails=['no public key'])
        path = write(b.at('odd.yaml'), 'image: %s/hello:1\nverify-image: { keyless: true }\n' % host)
        b.build('an unknown field', manifest=path, fails=['keyless'], codes=(2,))
        return '%d builds' % cases


@check('provenance')
def provenance():
    """A statement of in-toto about a bundle:
    the same for the same inputs, another for others, and found from the bundle in a registry."""
    with scratch() as tmp, Site(os.path.join(tmp, 'site')) as site:
        at = lambda *names: os.path.join(tmp, *names)
        os.makedirs(at('m/tree/sub'))
        for path, text in (
            ('m/tree/a', 'one\n'),
            ('m/tree/sub/b', 'two\n'),
            ('m/more.yaml', '- mkdir: { path: "/${NAME}" }\n'),
        ):
            with open(at(path), 'w') as file:
                file.write(text)
        with open(at('m/m.yaml'), 'w') as file:
            file.write(
                'image: oci:%s:latest\nplatform: linux/amd64\nvars: { NAME: x }\npatches:\n'
                '  - copy: { from: tree, path: /tree }\n'
                '  - write: { path: /a, from: tree/a }\n  - include: more.yaml\n' % HELLO_LAYOUT
            )

        def made(name, *args):
            build(at('m/m.yaml'), at(name), '--provenance', at(name + '.json'), *args, cache=at('cache'))
            with open(at(name + '.json')) as file:
                return file.read()

        text = made('one')
        need(made('two') == text, 'another statement of the same bundle')
        need(tmp + '/' not in text and os.uname().nodename not in text, 'the statement knows this host: ' + text)
        doc = json.loads(text)
        with open(at('one/bundle.json'), 'rb') as file:
            index = file.read()
        sha256 = lambda data: hashlib.sha256(data).hexdigest()
        need(
            doc['subject'] == [{'name': 'bundle.json', 'digest': {'sha256': sha256(index)}}],
            'the subject is %s' % doc['subject'],
        )
        definition = doc['predicate']['buildDefinition']
        found = {d['name']: d['digest'] for d in definition['resolvedDependencies']}
        tree = subprocess.run(
            'find . -type f | cut -c3- | LC_ALL=C sort | xargs sha256sum | sha256sum',
            shell=True,
            cwd=at('m/tree'),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout.split()[0]
        with open(at('m/m.yaml'), 'rb') as file:
            manifest = file.read()
        image = json.loads(index)['image']
        expected = {
            'manifest:m.yaml': {'sha256': sha256(manifest)},
            'included:more.yaml': {'sha256': sha256(b'- mkdir: { path: "/${NAME}" }\n')},
            'patch:tree': {'dirHash': tree},
            'patch:tree/a': {'sha256': sha256(b'one\n')},
            'image': {'sha256': image['manifest_digest'][7:]},
            'image config': {'sha256': image['config_digest'][7:]},
        }
        need(found == expected, 'it names %s, not %s' % (found, expected))
        need(made('other', '--set', 'NAME=y') != text, 'the same statement with another variable')
        # Nothing of another program's gives way to it, and no bundle is made whose statement has no place.
        with open(at('foreign.json'), 'w') as file:
            json.dump(
                doc | {'predicate': {'buildDefinition': {'buildType': 'https://mobyproject.org/buildkit@v1'}}}, file
            )
        for place, word in (
            ('foreign.json', 'stays as it is'),
            ('new/bundle.json', 'beside it'),
            ('new/p.json', 'beside it'),
            ('absent/p.json', 'absent'),
            ('cache/p.json', 'cache'),
        ):
            said = build(at('m/m.yaml'), at('new'), '--provenance', at(place), cache=at('cache'), ok=(1,)).stderr
            need(word in said and not os.path.exists(at('new')), '--provenance %s: %s' % (place, said))
        with open(at('foreign.json')) as file:
            need('mobyproject' in file.read(), 'a statement of another program was overwritten')
        name = site.plain.host + '/bundles/hello:1'
        said = call(
            BINARY, 'push', at('other'), name, '--provenance', at('one.json'), '--cache-dir', at('cache'), ok=(1,)
        ).stderr
        need('not about this bundle' in said, said)
        call(BINARY, 'push', at('one'), name, '--provenance', at('one.json'), '--cache-dir', at('cache'))
        get = lambda path, accept='application/vnd.oci.image.index.v1+json': json.loads(
            call(
                'curl', '-sf', '-H', 'Accept: ' + accept, 'http://%s/v2/bundles/hello/%s' % (site.plain.host, path)
            ).stdout
        )
        [entry] = get('manifests/' + site.digest('bundles/hello:1').replace(':', '-'))['manifests']
        need(entry['artifactType'] == 'application/vnd.in-toto+json', 'the referrer is %s' % entry)
        referrer = get('manifests/' + entry['digest'], entry['mediaType'])
        need(get('blobs/' + referrer['layers'][0]['digest']) == doc, 'another statement is there')
        call(BINARY, 'pull', name, '-o', at('pulled'), '--cache-dir', at('cache'))
        same_files(at('one'), at('pulled'), 'a bundle that something refers to')
