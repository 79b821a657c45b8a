"""Rule 17 and 17b: which image of an index is meant, and documents as they occur in the wild.

Authorities: image-index.md, manifest.md and config.md of the image specification; containerd (platforms.Only for the order of
platforms, its refusal of what is both an image and an index); Docker, whose Go types read null as absent and keys in any case."""
import json
import os

from layout import CONFIG, GONE, INDEX, LAYER, MANIFEST, Layer, changed, for_platform, image_of_file as image, named, tagged
from notation import F
from registry import case
from tarfmt import f

EMPTY = 'application/vnd.oci.empty.v1+json'


def below(out, *descriptors):
    """An index of its own, which is what the tag leads to."""
    out.index(tagged(out.json({'schemaVersion': 2, 'mediaType': INDEX, 'manifests': list(descriptors)}, INDEX)))


def good(out):
    return for_platform(image(out, 'good'), 'linux', 'amd64')


# What an index may hold beside images: (what it is called, how it is written, what an error says where nothing else is there)
def unknown(out):
    return {**out.json({'future': True}, 'application/vnd.example.future.v9+json'), 'platform': {'os': 'linux', 'architecture': 'amd64'}}


def schema1(out):
    return out.json({'schemaVersion': 1, 'fsLayers': [], 'history': []}, 'application/vnd.docker.distribution.manifest.v1+prettyjws')


def schema1_as_manifest(out):
    return out.json({'schemaVersion': 1, 'fsLayers': [], 'history': []}, MANIFEST)


def artifact_manifest(out):
    kind = 'application/vnd.oci.artifact.manifest.v1+json'
    return out.json({'mediaType': kind, 'artifactType': 'application/x-thing', 'blobs': []}, kind)


def artifact(out):
    thing = out.blob(b'anything', 'application/x-thing')
    return out.json({'schemaVersion': 2, 'mediaType': MANIFEST, 'artifactType': 'application/x-thing', 'config': out.blob(b'{}', EMPTY),
                     'layers': [thing]}, MANIFEST)


def no_layers(out):
    return out.json({'schemaVersion': 2, 'mediaType': MANIFEST, 'artifactType': 'application/x-thing', 'config': out.blob(b'{}', EMPTY)}, MANIFEST)


def binary_config(out):
    about = out.blob(b'\x7fELF\0 is no JSON', 'application/vnd.example.config')
    return out.json({'schemaVersion': 2, 'mediaType': MANIFEST, 'config': about, 'layers': []}, MANIFEST)


def binary_image_config(out):
    return out.json({'schemaVersion': 2, 'mediaType': MANIFEST, 'config': out.blob(b'\x7fELF\0', CONFIG), 'layers': []}, MANIFEST)


def soci(out):
    kind = 'application/vnd.amazon.soci.index.v2+json'
    doc = {'schemaVersion': 2, 'mediaType': MANIFEST, 'artifactType': kind, 'config': out.blob(b'{}', kind), 'layers': []}
    return for_platform({**out.json(doc, MANIFEST), 'artifactType': kind}, 'linux', 'amd64')


def signature(out):
    return image(out, 'sig', layer=Layer(f('sig', '1'), media_type='application/vnd.dev.cosign.simplesigning.v1+json'))


def attestation(out):
    d = image(out, 'said', layer=Layer(f('said', '1'), media_type='application/vnd.in-toto+json'))
    return for_platform({**d, 'annotations': {'vnd.docker.reference.type': 'attestation-manifest'}}, 'unknown', 'unknown')


def attestation_without_mark(out):
    return image(out, 'said', config={'os': 'unknown', 'architecture': 'unknown'})


def encrypted(out):
    return image(out, 'secret', layer=Layer(f('secret', '1'), media_type=LAYER + '+gzip+encrypted'))


def not_json(out):
    return out.blob(b'not JSON at all', MANIFEST)


def sha512(out):
    return {'mediaType': MANIFEST, 'digest': 'sha512:' + '0' * 128, 'size': 7}


def not_there(out):
    return {'mediaType': MANIFEST, 'digest': 'sha256:' + '1' * 64, 'size': 7}


def index_not_there(out):
    return {'mediaType': INDEX, 'digest': 'sha256:' + '1' * 64, 'size': 7}


def features(*wanted):
    return lambda out: for_platform(image(out, wanted[0]), 'linux', 'amd64', **{'os.features': list(wanted)})


OTHERS = {
    'unknown-media-type': (unknown, 'vnd.example.future'), 'schema1': (schema1, 'v1+prettyjws'),
    'schema1-as-manifest': (schema1_as_manifest, 'schema 1'), 'artifact-manifest': (artifact_manifest, 'artifact.manifest'),
    'artifact': (artifact, EMPTY), 'no-layers': (no_layers, EMPTY), 'binary-config': (binary_config, 'vnd.example.config'),
    'binary-image-config': (binary_image_config, 'not JSON'), 'soci-v2': (soci, 'soci'), 'signature': (signature, 'simplesigning'),
    'attestation': (attestation, 'attestation'), 'attestation-without-mark': (attestation_without_mark, 'attestation'),
    'encrypted': (encrypted, 'encrypted'), 'not-json': (not_json, 'not JSON'), 'sha512': (sha512, 'sha512'),
    'blob-not-there': (not_there, 'missing'), 'index-not-there': (index_not_there, 'missing'), 'null': (lambda out: None, 'null'),
    'os-features': (features('erofs'), 'os.features erofs'), 'os-features-nydus': (features('nydus.remoteimage.v1'), 'nydus'),
}
MUST = 'image-index.md: what is unknown MUST NOT generate an error'
for label, (write, word) in OTHERS.items():
    case('index-beside-' + label, 17, write=lambda out, w=write: below(out, w(out), good(out), w(out)), tree={'/good': F('1')}, about=MUST)
    case('index-only-' + label, 17, write=lambda out, w=write: below(out, w(out)), says=['linux/amd64', word],
         about='where nothing else is there, what was there is said')
case('index-top-beside-artifact', 17, write=lambda out: out.index(artifact(out), tagged(image(out, 'good'))), tree={'/good': F('1')},
     manifest='image: oci:layout\nplatform: linux/amd64\n', about='SOCI, ORAS and cosign put theirs into index.json too')
case('index-artifact-that-is-an-image', 17, tree={'/only': F('1')},
     write=lambda out: below(out, image(out, 'only', manifest={'artifactType': 'application/x-thing'})),
     about='manifest.md: artifactType may be set with any config; it is taken where nothing else is there')
case('index-artifact-gives-way', 17, tree={'/good': F('1')}, about='an artifact is a system only if nothing else is there',
     write=lambda out: below(out, image(out, 'thing', manifest={'artifactType': 'application/x-thing'}), image(out, 'good')))
case('index-entry-without-platform-gives-way', 17, write=lambda out: below(out, image(out, 'plain'), good(out)), tree={'/good': F('1')})
case('index-entry-without-media-type', 17, tree={'/good': F('1')},
     write=lambda out: below(out, changed(good(out), {'mediaType': GONE})), about='the document says what it is')


def damaged(out):
    d = image(out, 'x')
    with open(os.path.join(out.blobs, d['digest'][7:]), 'wb') as file:
        file.write(b' ' * d['size'])
    return d


case('index-beside-damaged', 17, write=lambda out: below(out, good(out), damaged(out)), tree={'/good': F('1')},
     about='what need not be read is not read')
case('index-damaged-first', 17, write=lambda out: below(out, for_platform(damaged(out), 'linux', 'amd64'), good(out)), says=['damaged'],
     about='damage is no reason to take another image in silence')


# The order of platforms: entries in the order of the index; each image has a file by its variant
def variants(*parts):
    def write(out):
        entries = []
        for part in parts:
            arch, _, variant = part.partition('/')
            d = image(out, part.replace('/', '-'), config={'architecture': arch})
            entries.append(for_platform(d, 'linux', arch, **({'variant': variant} if variant else {})))
        below(out, *entries)
    return write


ONLY = 'containerd: platforms.Only'
for label, wanted, there, taken in (
        ('v3-first', 'linux/amd64', ['amd64/v3', 'amd64'], 'amd64'),
        ('plain-first', 'linux/amd64/v2', ['amd64', 'amd64/v2'], 'amd64/v2'),
        ('older', 'linux/amd64/v4', ['amd64', 'amd64/v2', 'amd64/v3'], 'amd64/v3'),
        ('v1', 'linux/amd64', ['amd64/v2', 'amd64/v1'], 'amd64/v1'),
        ('arm', 'linux/arm', ['arm/v5', 'arm/v6', 'arm/v7'], 'arm/v7'),
        ('arm-v6', 'linux/arm/v6', ['arm/v7', 'arm/v5', 'arm/v6'], 'arm/v6'),
        ('arm-only-older', 'linux/arm/v7', ['arm/v8', 'arm/v5'], 'arm/v5'),
        ('armhf', 'linux/armhf', ['arm/v6', 'arm/v7'], 'arm/v7'),
        ('arm64', 'linux/arm64', ['arm64/v9', 'arm64/v8'], 'arm64/v8'),
        ('arm64-newer', 'linux/arm64/v8.4', ['arm64', 'arm64/v8.2', 'arm64/v8.6'], 'arm64/v8.2'),
        ('aarch64', 'linux/aarch64', ['amd64', 'aarch64'], 'aarch64'),
        ('x86_64', 'linux/x86_64', ['arm64', 'x86_64'], 'x86_64'),
        ('asked-as-x86_64', 'linux/x86_64', ['arm64', 'amd64'], 'amd64')):
    case('order-' + label, 17, write=variants(*there), platform=wanted, tree={'/' + taken.replace('/', '-'): F('1')}, about=ONLY)
case('order-only-newer', 17, write=variants('amd64/v3', 'amd64/v2'), says=['linux/amd64', 'linux/amd64/v2', 'linux/amd64/v3'], about=ONLY)
case('order-386', 17, write=variants('386'), says=['linux/386'], about='unlike containerd: the guest has a kernel of its own')


def twice(out):
    return for_platform(image(out, 'first'), 'linux', 'amd64'), for_platform(image(out, 'second'), 'linux', 'amd64')


FIRST = 'image-index.md: the first matching entry SHOULD be used'
PLAIN = 'image: oci:layout\nplatform: linux/amd64\n'
case('same-platform-twice', 17, write=lambda out: below(out, *twice(out)), tree={'/first': F('1')}, about=FIRST)
case('same-platform-twice-on-top', 17, write=lambda out: out.index(*twice(out)), manifest=PLAIN, tree={'/first': F('1')}, about=FIRST)
case('same-platform-twice-said', 17, write=lambda out: out.index(*twice(out)), manifest=PLAIN, tree={'/first': F('1')}, args=['-v'],
     warns=['note: 2 entries'])
case('two-variants-no-name', 17, write=variants('amd64/v2', 'amd64'), manifest='image: oci:layout\nplatform: linux/amd64/v2\n',
     tree={'/amd64-v2': F('1')}, about=FIRST)
case('two-names-no-name', 17, write=lambda out: out.index(*(tagged(d, t) for d, t in zip(twice(out), ('one', 'two')))), manifest=PLAIN,
     says=['one', 'two'], about='two images, not two entries of one: skopeo asks as well')
case('tagged-and-untagged-no-name', 17, write=lambda out: out.index(tagged(twice(out)[0], 'one'), twice(out)[1]), manifest=PLAIN,
     says=['one', '@sha256:'])


# Names, as Docker 25 and later write them: all of it in one annotation, the tag in the other
def docker25(out):
    out.index(named(image(out, 'alpine'), full='docker.io/library/alpine:3.18', ref='3.18'),
              named(image(out, 'a'), full='docker.io/library/a:1', ref='1'), named(image(out, 'b'), full='example.com:5000/x/b:1', ref='1'),
              named(image(out, 'musl'), ref='busybox:1.38.0-musl'), named(image(out, 'x'), ref='docker.io/library/x:1'))


for label, name, file in (('familiar', 'alpine:3.18', 'alpine'), ('full', 'docker.io/library/alpine:3.18', 'alpine'), ('tag', '3.18', 'alpine'),
                          ('of-two-tags', 'a:1', 'a'), ('with-port', 'example.com:5000/x/b:1', 'b'), ('colon', 'busybox:1.38.0-musl', 'musl'),
                          ('slashes', 'docker.io/library/x:1', 'x'), ('normal-form', 'x:1', 'x')):
    case('name-' + label, 17, write=docker25, manifest='image: oci:layout:%s\nplatform: linux/amd64\n' % name, tree={'/' + file: F('1')},
         about='names compare as Docker reads them')
AT = 'empty@sha256:' + '5' * 64
case('name-with-at', 17, write=lambda out: out.index(tagged(good(out), AT), tagged(image(out, 'other'), 'other')),
     manifest='image: oci:layout:%s\nplatform: linux/amd64\n' % AT, says=['there is no tag "empty"', '@sha256:' + '5' * 8],
     about='annotations.md lets a name hold a digest, as rules_oci writes it of its own image; whoever asks for a digest gets that one or none')
case('name-ambiguous', 17, write=docker25, manifest='image: oci:layout:1\nplatform: linux/amd64\n',
     says=['docker.io/library/a:1', 'example.com:5000/x/b:1'])
case('name-not-there', 17, write=docker25, manifest='image: oci:layout:alpine:3.19\nplatform: linux/amd64\n',
     says=['alpine:3.19', 'docker.io/library/alpine:3.18'])


# Configs and manifests of the wild
def written(**kw):
    return lambda out: out.index(tagged(image(out, 'good', **kw)))


GO = 'what Go reads: null is absent, keys count in any case'
for label, config in (('variant-empty', {'variant': ''}), ('variant-null', {'variant': None}), ('variant-number', {'variant': 8}),
                      ('run-null', {'config': None}), ('run-absent', {'config': GONE}), ('history-null', {'history': None}),
                      ('history-odd', {'history': [{'created': 7}]}), ('os-features-null', {'os.features': None}),
                      ('created-null', {'created': None}), ('created-empty', {'created': ''}), ('x86_64', {'architecture': 'x86_64'}),
                      ('upper-case', {'architecture': 'AMD64', 'os': 'Linux'}),
                      ('values-null', {'config': {'Volumes': {'/data': None}, 'ExposedPorts': {'80/tcp': None}, 'Labels': {'a': None}}}),
                      ('lists-null', {'config': {'Volumes': None, 'ExposedPorts': None, 'Labels': None, 'Env': None, 'Cmd': None, 'User': None,
                                                 'Entrypoint': None, 'WorkingDir': None, 'StopSignal': None, 'OnBuild': None}}),
                      ('unknown-keys', {'container_config': {'Cmd': 7}, 'moby.buildkit.buildinfo.v1': 'x', 'id': None})):
    case('config-' + label, 17, write=written(config=config), tree={'/good': F('1')}, about=GO)
for label, config, words in (('entrypoint-string', {'Entrypoint': '/bin/app', 'Cmd': 'one word'}, ['/bin/app', 'one word']),
                             ('keys-lower-case', {'entrypoint': ['/bin/app'], 'user': '7:8', 'workingdir': '/w'}, ['/bin/app', '7:8', '/w'])):
    case('config-' + label, 17, write=written(config={'config': config}), tree={'/good': F('1')}, inspect=words, about='Docker: StrSlice; Go')
ROOTFS = {'diff_ids': [Layer(f('good', '1')).diff_id]}
for label, rootfs in (('absent', ROOTFS), ('null', {**ROOTFS, 'type': None}), ('empty', {**ROOTFS, 'type': ''})):
    case('config-rootfs-type-' + label, 17, write=written(config={'rootfs': rootfs}), tree={'/good': F('1')}, about=GO)
for label, rootfs in (('foo', {**ROOTFS, 'type': 'foo'}), ('number', {**ROOTFS, 'type': 7})):
    case('config-rootfs-type-' + label, 17, write=written(config={'rootfs': rootfs}), says=['type'],
         about='config.md: implementations MUST generate an error on an unknown value')
for label, config, words in (('variant-odd', {'variant': 'v8 (odd)/x'}, ['variant']), ('architecture-empty', {'architecture': ''}, ['architecture', 'linux/amd64']),
                             ('architecture-absent', {'architecture': GONE}, ['architecture']), ('os-absent', {'os': GONE}, ['operating system']),
                             ('os-empty', {'os': ''}, ['operating system'])):
    case('config-' + label, 17, write=written(config=config), tree={'/good': F('1')}, warns=['warning', *words], about='read, and said to be a guess')
case('config-architecture-empty-in-index', 17, platform='linux/arm64', tree={'/good': F('1')}, inspect=['linux/arm64'],
     write=lambda out: below(out, for_platform(image(out, 'good', config={'architecture': '', 'os': ''}), 'linux', 'arm64')))
case('config-against-index', 17, platform='linux/arm64', tree={'/good': F('1')}, warns=['warning', 'linux/amd64', 'linux/arm64'],
     write=lambda out: below(out, for_platform(image(out, 'good'), 'linux', 'arm64')), about='containerd and Docker go by the index')
case('config-variant-against-index', 17, platform='linux/arm/v6', tree={'/good': F('1')},
     write=lambda out: below(out, for_platform(image(out, 'good', config={'architecture': 'arm'}), 'linux', 'arm', variant='v6')),
     about='official arm32v6 images have no variant in their config')
case('config-variant-newer-alone', 17, write=written(config={'variant': 'v3'}), tree={'/good': F('1')},
     about='containerd compares no platform where the name leads to a manifest')
case('config-other-architecture', 17, write=written(config={'architecture': 'riscv64'}), says=['linux/amd64', 'linux/riscv64'])
case('config-not-text', 17, write=written(config={'config': {'User': 1000}}), says=['User', 'number'], about='Docker and umoci refuse it too')
SCRATCH = {'rootfs': {'type': 'layers', 'diff_ids': None}}
for label, layers in (('null', None), ('absent', GONE), ('empty', [])):
    case('manifest-layers-' + label, 17, write=written(config=SCRATCH, manifest={'layers': layers}), tree={}, about='FROM scratch')
case('config-diff-ids-absent', 17, write=written(config={'rootfs': {'type': 'layers'}}, manifest={'layers': []}), tree={})
case('config-rootfs-null', 17, write=written(config={'rootfs': None}, manifest={'layers': []}), tree={})
case('config-old-media-type', 17, write=written(config_type='application/octet-stream'), tree={'/good': F('1')},
     about='registries of the first years said so; Docker takes it')
case('config-unknown-media-type', 17, write=written(config_type='application/vnd.cncf.helm.config.v1+json'), says=['helm'],
     about='manifest.md: MUST NOT be parsed')
BOTH = {'manifests': [{'mediaType': MANIFEST, 'digest': 'sha256:' + '0' * 64, 'size': 7}]}
for label, kw in (('oci', {}), ('docker', {'media_type': 'application/vnd.docker.distribution.manifest.v2+json'}), ('index', {'media_type': INDEX}),
                  ('untyped', {'manifest': {**BOTH, 'mediaType': GONE}})):
    case('manifest-and-index-' + label, 17, write=written(**{'manifest': BOTH, **kw}), says=['both `manifests` and `config`'],
         about='CVE-2021-41190; containerd and Docker refuse it')
case('manifest-said-to-be-index', 17, write=lambda out: out.index(tagged({**image(out, 'good'), 'mediaType': INDEX})), says=['descriptor'])
case('manifest-schema-version-absent', 17, write=written(manifest={'schemaVersion': GONE}), tree={'/good': F('1')}, about=GO)


# Foreign layers
def foreign(out, keep, urls):
    l = Layer(f('good', '1'), media_type='application/vnd.oci.image.layer.nondistributable.v1.tar+gzip')
    d = {**out.blob(l.blob, l.media_type), 'urls': urls}
    out.index(tagged(image(out, 'good', layer=Layer(f('good', '1')), manifest={'layers': [d]})))
    if not keep:
        os.unlink(os.path.join(out.blobs, l.digest_of_blob()))


URL = 'https://example.com/layer.tar.gz'
case('foreign-layer-there', 17, write=lambda out: foreign(out, True, [URL]), tree={'/good': F('1')},
     about='manifest.md: implementations MUST support the nondistributable media types')
case('foreign-layer-elsewhere', 17, write=lambda out: foreign(out, False, [URL]), says=[URL, 'foreign'])
case('foreign-layer-nowhere', 17, write=lambda out: foreign(out, False, None), says=['foreign'])


def lower_case_index(out):
    d = tagged(image(out, 'good'))
    with open(os.path.join(out.path, 'index.json'), 'w') as file:
        json.dump({'SchemaVersion': 2, 'Manifests': [{k.upper() if k == 'size' else k: v for k, v in d.items()}]}, file)


case('index-keys-in-any-case', 17, write=lower_case_index, tree={'/good': F('1')}, about=GO)
case('index-without-entries', 17, write=lambda out: out.index(), manifest=PLAIN, says=['empty'])
