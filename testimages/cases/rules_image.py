"""Rules 16 to 18: streams, digests and media types, limits."""
import os

from layout import CONFIG, INDEX, LAYER, Layer, for_platform, gzip_member, sha256, tagged, zstd_frame, zstd_skippable
from notation import D, F
from registry import case
from tarfmt import END, d, f, header, pad, sym

# 16: streams
TAR = d('d') + f('d/big', bytes(range(256)) * 300) + f('z', 'last')
TREE = {'/d': D(), '/d/big': F(bytes(range(256)) * 300), '/z': F('last')}
WHOLE = TAR + END
PARTS = [WHOLE[:700], WHOLE[700:5000], WHOLE[5000:]]
case('stream-plain', 16, Layer(TAR, form='plain'), tree=TREE)
case('stream-gzip', 16, Layer(TAR), tree=TREE)
case('stream-zstd', 16, Layer(TAR, form='zstd'), tree=TREE)
case('stream-gzip-members', 16, Layer(tar=WHOLE, blob=b''.join(map(gzip_member, PARTS))), tree=TREE)
case('stream-gzip-empty-member', 16, Layer(tar=WHOLE, blob=gzip_member(b'') + gzip_member(WHOLE) + gzip_member(b'')), tree=TREE)
case('stream-gzip-named', 16, Layer(tar=WHOLE, blob=b'\x1f\x8b\x08\x18\0\0\0\0\0\x03layer.tar\0a comment\0' + gzip_member(WHOLE)[10:]),
     tree=TREE, about='the header has a name and a comment')
case('stream-zstd-frames', 16, Layer(tar=WHOLE, form='zstd', blob=b''.join(map(zstd_frame, PARTS))), tree=TREE)
case('stream-zstd-skippable', 16,
     Layer(tar=WHOLE, form='zstd', blob=zstd_skippable() + zstd_frame(PARTS[0]) + zstd_skippable(b'') + zstd_frame(PARTS[1] + PARTS[2])
           + zstd_skippable(bytes(70000))), tree=TREE, about='zstd:chunked puts its table of contents there')
case('stream-mixed', 16, Layer(f('a', '1'), form='zstd'), Layer(f('b', '2'), form='plain'), Layer(f('c', '3')),
     tree={'/a': F('1'), '/b': F('2'), '/c': F('3')})
case('stream-trailing-zeros', 16, Layer(TAR, end=bytes(1 << 16)), tree=TREE)
case('stream-trailing-zeros-zstd', 16, Layer(TAR, end=bytes(1 << 20), form='zstd'), tree=TREE)
case('stream-one-zero-block', 16, Layer(TAR, end=bytes(512)), tree=TREE)
case('stream-no-end', 16, Layer(TAR, end=b''), tree=TREE, about='the archive ends at an entry: nothing is missing')
case('stream-after-end', 16, Layer(TAR, end=END + f('hidden', 'no')), tree=TREE,
     about='what follows the end is no entry, but the diff ID covers it')
case('stream-empty-tar', 16, Layer(f('a', '1')), Layer(end=END), tree={'/a': F('1')})
case('stream-nothing', 16, Layer(f('a', '1')), Layer(end=b''), tree={'/a': F('1')}, about='a gzip stream of no bytes')
case('stream-unknown-length-entries', 16, Layer(f('a', 'x' * 511), f('b', 'x' * 512), f('c', 'x' * 513), f('d', '')),
     tree={'/a': F('x' * 511), '/b': F('x' * 512), '/c': F('x' * 513), '/d': F('')})
case('stream-cut-in-data', 16, Layer(tar=TAR[:3000]), says=['d/big'])
case('stream-cut-in-header', 16, Layer(tar=(f('a', '1') + f('b', '2'))[:1024 + 200]), says=['layer'])
case('stream-cut-in-padding', 16, Layer(tar=f('the-file', 'x' * 100)[:512 + 200]), tree={'/the-file': F('x' * 100)},
     about="the last file's bytes are all there: Go's reader, and so every tool, takes it")
case('stream-without-padding', 16, Layer(tar=f('the-file', 'x' * 100)[:512 + 100]), tree={'/the-file': F('x' * 100)})
case('stream-without-padding-of-whiteout', 16, Layer(tar=f('b')), Layer(tar=f('.wh.b', 'x' * 100)[:512 + 100]), tree={})
case('stream-cut-gzip', 16, Layer(tar=WHOLE, blob=gzip_member(WHOLE)[:-30]), says=['layer'])
case('stream-cut-gzip-trailer', 16, Layer(tar=WHOLE, blob=gzip_member(WHOLE)[:-3]), says=['layer'])
case('stream-cut-second-member', 16, Layer(tar=WHOLE, blob=gzip_member(PARTS[0]) + gzip_member(WHOLE[700:])[:-20]), says=['layer'])
case('stream-cut-zstd', 16, Layer(tar=WHOLE, form='zstd', blob=zstd_frame(WHOLE)[:-600]), says=['layer'])
CRC = bytearray(gzip_member(WHOLE))
CRC[-6] ^= 1
case('stream-gzip-bad-crc', 16, Layer(tar=WHOLE, blob=bytes(CRC)), says=['layer'])
case('stream-garbage-after-gzip', 16, Layer(tar=WHOLE, blob=gzip_member(WHOLE) + b'garbage at the end'), says=['layer'])
case('stream-not-gzip', 16, Layer(tar=WHOLE, blob=b'this is no gzip stream at all, though it says so'), says=['layer'])
BAD = bytearray(f('the-file', '1'))
BAD[150] = ord('7')
case('tar-bad-checksum', 16, Layer(bytes(BAD)), says=['checksum'])
case('tar-not-a-tar', 16, Layer(tar=b'no tar at all, only text\n' * 100), says=['layer'])
case('tar-size-negative', 16, Layer(header('the-file', b'0', b'\xff' * 12)), says=['layer'])
case('tar-unknown-type', 16, Layer(header('the-thing', b'Q')), says=['the-thing'])
case('tar-bad-pax-length', 16, Layer(header('PaxHeaders.0/x', b'x', 20) + pad(b'99 path=x\nmore bytes'), f('a', '1')), says=['layer'])


# 17: digests, counts, media types, platforms
def two(out, **kw):
    return out.image([Layer(f('a', '1')), Layer(f('b', '2'))], **kw)


NONE = 'sha256:' + '0' * 64
AB = {'/a': F('1'), '/b': F('2')}
case('image-two-layers', 17, [f('a', '1')], [f('b', '2')], tree=AB)
case('image-no-layers', 17, tree={}, about='FROM scratch with nothing added')
case('image-same-layer-twice', 17, [f('a', '1')], [f('a', '2')], [f('a', '1')], tree={'/a': F('1')})
case('image-blob-symlinked', 17, Layer(f('a', '1'), symlinked=True), tree={'/a': F('1')})
case('image-docker-media-types', 17, Layer(f('a', '1'), media_type='application/vnd.docker.image.rootfs.diff.tar.gzip'), tree={'/a': F('1')},
     image={'media_types': ('application/vnd.docker.distribution.manifest.v2+json', 'application/vnd.docker.container.image.v1+json')})
case('image-empty-history', 17, [f('a', '1')], [f('b', '2')], tree=AB,
     image={'history': [{'created_by': 'a'}, {'created_by': 'ENV x=y', 'empty_layer': True}, {'created_by': 'b'}]})
case('blob-wrong-digest', 17, Layer(f('a', '1'), digest=NONE), says=['0' * 12])
case('blob-wrong-size', 17, Layer(f('a', '1'), size=5), says=['size'])
def without_b(out):
    out.index(tagged(two(out)))
    os.unlink(os.path.join(out.blobs, Layer(f('b', '2')).digest_of_blob()))


case('blob-missing', 17, write=without_b, says=[Layer(f('b', '2')).digest_of_blob()[:12]])
case('blob-cut', 17, Layer(f('a', '1'), blob=gzip_member(f('a', '1') + END)[:-9], digest=sha256(gzip_member(f('a', '1') + END)),
                           size=len(gzip_member(f('a', '1') + END))), says=[sha256(gzip_member(f('a', '1') + END))[7:19]])
case('config-wrong-digest', 17, write=lambda out: out.index(tagged(two(out, config_kw={'digest': NONE}))), says=['0' * 12])
case('manifest-wrong-digest', 17, write=lambda out: out.index(tagged(two(out, manifest_kw={'digest': NONE}))), says=['0' * 12])
case('manifest-wrong-size', 17, write=lambda out: out.index(tagged(two(out, manifest_kw={'size': 7}))), says=['size'])
case('diff-id-wrong', 17, Layer(f('a', '1'), diff_id=NONE), says=['0' * 12])
case('diff-ids-too-few', 17, write=lambda out: out.index(tagged(two(out, diff_ids=[NONE]))), says=['1', '2'])
case('diff-ids-too-many', 17, write=lambda out: out.index(tagged(two(out, diff_ids=[NONE] * 3))), says=['3', '2'])
case('diff-id-of-trailing-bytes', 17, Layer(f('a', '1'), end=END + bytes(9216), diff_id=sha256(f('a', '1') + END)), says=['diff'],
     about='the diff ID covers the padding of the archive too')
for label, media_type in (('foreign', 'application/vnd.oci.image.layer.nondistributable.v1.tar+gzip'),
                          ('docker-foreign', 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip')):
    case('media-type-' + label, 17, Layer(f('a', '1'), media_type=media_type), tree={'/a': F('1')}, about='its blob is there: a layer')
for label, media_type in (('encrypted', LAYER + '+gzip+encrypted'), ('unknown', 'application/x-never-heard-of')):
    case('media-type-' + label, 17, Layer(f('a', '1'), media_type=media_type), says=[media_type])
case('media-type-disagrees', 17, Layer(tar=WHOLE, form='plain', blob=gzip_member(WHOLE)), tree=TREE,
     about='said to be a plain tar, and is gzip: containerd goes by the bytes, and the diff ID settles it')


def platforms(out):
    amd, arm = out.image([Layer(f('amd', '1'))]), out.image([Layer(f('arm', '1'))], platform=('linux', 'arm64'))
    return for_platform(amd, 'linux', 'amd64'), for_platform(arm, 'linux', 'arm64', variant='v8')


def nested(out):
    inner = out.json({'schemaVersion': 2, 'mediaType': INDEX, 'manifests': list(platforms(out))}, INDEX)
    out.index(tagged(inner))


case('platform-from-index', 17, write=lambda out: out.index(*map(tagged, platforms(out))), tree={'/amd': F('1')})
case('platform-nested-index', 17, write=nested, tree={'/amd': F('1')})
case('platform-other', 17, write=nested, platform='linux/arm64', tree={'/arm': F('1')})
case('platform-not-there', 17, write=nested, platform='linux/s390x', says=['linux/s390x', 'linux/amd64', 'linux/arm64'])
case('tag-not-there', 17, [f('a', '1')], manifest='image: oci:layout:nightly\nplatform: linux/amd64\n', says=['nightly', 'latest'])
case('pinned-wrong', 17, [f('a', '1')], manifest='image: oci:layout:latest@%s\nplatform: linux/amd64\n' % NONE, says=['0' * 12])
case('manifest-unknown-media-type', 17, [f('a', '1')], image={'media_types': ('application/x-manifest', CONFIG)}, says=['application/x-manifest'])
case('index-not-json', 17, write=lambda out: open(out.path + '/index.json', 'w').write('{"manifests": ['), says=['index.json'])
case('layout-not-there', 17, [f('a', '1')], manifest='image: oci:no-such-directory:latest\n', says=['no-such-directory'])
case('manifest-not-yaml', 17, [f('a', '1')], manifest='image: [oci:layout\nplatform: }\n', exit=2, says=['line'])
case('manifest-unknown-key', 17, [f('a', '1')], manifest='image: oci:layout:latest\nplatfrom: linux/amd64\n', exit=2, says=['platfrom', ':2:1: '])
case('manifest-no-image', 17, [f('a', '1')], manifest='platform: linux/amd64\n', exit=2, says=['image'])
case('manifest-bad-scheme', 17, [f('a', '1')], manifest='image: floppy:/layout\n', exit=2, says=['floppy'])
case('manifest-empty', 17, [f('a', '1')], manifest='', exit=2, says=['image'])

# 18: limits
MANY = [f('f%02d' % i, 'x') for i in range(20)]
case('limit-layer-bytes', 18, [f('a', 'x' * 6000), f('b', 'x' * 6000)], args=['--max-layer-bytes', '10000'], says=['max-layer-bytes'])
case('limit-layer-bytes-kept', 18, [f('a', 'x' * 600)], args=['--max-layer-bytes', '100000'], tree={'/a': F('x' * 600)})
case('limit-file-bytes', 18, [f('the-file', 'x' * 6000)], args=['--max-file-bytes', '5999'], says=['the-file', 'max-file-bytes'])
case('limit-file-bytes-kept', 18, [f('a', 'x' * 6000)], args=['--max-file-bytes', '6000'], tree={'/a': F('x' * 6000)})
case('limit-entries', 18, MANY, args=['--max-entries', '10'], says=['max-entries'])
case('limit-path', 18, [f('a/b/c/d/e', '1')], args=['--max-path', '8'], says=['a/b/c/d/e', 'max-path'])
case('limit-depth', 18, [f('a/b/c/d/e', '1')], args=['--max-depth', '3'], says=['a/b/c/d/e', 'max-depth'])
case('limit-xattr-bytes', 18, [f('the-file', xattrs={'user.k': 'v' * 500})], args=['--max-xattr-bytes', '100'], says=['the-file', 'max-xattr-bytes'])
case('limit-path-default', 18, [f('short', records={'path': '/'.join(['p' * 99] * 41)})], says=['path'], about='4099 bytes; 4096 are allowed')
case('bomb-zstd', 18, Layer(tar=f('a', '1') + END, form='zstd',
                            blob=zstd_frame(header('the-bomb', b'0', 1 << 33)) + zstd_frame(b'', size=1 << 33)),
     args=['--max-layer-bytes', str(64 << 20)], says=['max-layer-bytes'], about='8 GiB out of some hundred kilobytes')
case('bomb-gzip', 18, Layer(tar=f('a', '1') + END, blob=gzip_member(header('the-bomb', b'0', 1 << 33)) + gzip_member(bytes(128 << 20), 9) * 4),
     args=['--max-file-bytes', str(64 << 20)], says=['the-bomb', 'max-file-bytes'])
case('bomb-of-zeros-after-the-end', 18, Layer(tar=f('a', '1') + END, form='zstd', blob=zstd_frame(f('a', '1') + END) + zstd_frame(b'', size=1 << 33)),
     args=['--max-layer-bytes', str(64 << 20)], says=['max-layer-bytes'], about='no entry is large; the stream is')
case('bomb-pax-header', 18, Layer(header('PaxHeaders.0/x', b'x', 1 << 33)), says=['layer'], about='an extended header is read into memory, so it has a bound')
case('bomb-symlink-forest', 18, [sym('l%02d' % i, 'l%02d' % (i + 1)) for i in range(60)] + [d('l60')], [f('l00/x', '1')],
     says=['l00/x'], about='40 links are followed, as in the kernel')
