"""Images pulled by reference: the bundle is that of the layout, whatever the registry wants, does or breaks."""

import json
import os
import subprocess

from checks import check
from harness import transcode
from harness.common import BINARY, PATIENCE, call, manifest_for, need
from harness.images import image
from harness.proxy import status
from harness.registry import PASSWORD, USER
from harness.registry_bench import HELLO, LOGIN, all_of, auths, bench, blobs, layers_in, noise, write
from layout import INDEX, Layer
from tarfmt import f

HELPER = """#!/bin/sh
server=$(cat)
[ "$1" = get ] && [ "$server" = "$HELPER_KNOWS" ] || { echo 'credentials not found in native keychain'; exit 1; }
printf '{"ServerURL":"%s","Username":"%s","Secret":"%s"}' "$server" "$HELPER_USER" "$HELPER_SECRET"
"""


def helper(b, host):
    """The environment with which docker-credential-test is found and knows one host."""
    os.chmod(write(b.at('helpers/docker-credential-test'), HELPER), 0o755)
    return {
        'PATH': b.at('helpers') + ':' + os.environ['PATH'],
        'HELPER_KNOWS': host,
        'HELPER_USER': USER,
        'HELPER_SECRET': PASSWORD,
    }


def logins(b, host):
    """Every way to give the password: name -> (files below the home directory, environment)."""
    right, bad = auths({host: PASSWORD}), auths({host: 'wrong'})
    docker, podman = '.docker/config.json', '.config/containers/auth.json'
    return {
        'ROOTFS_COMPILE_USERNAME and _PASSWORD, before files': ({docker: bad, podman: bad}, LOGIN),
        '~/.docker/config.json': ({docker: right}, {}),
        '$DOCKER_CONFIG, not ~/.docker': ({'else/config.json': right, docker: bad}, {'DOCKER_CONFIG': '~/else'}),
        '$REGISTRY_AUTH_FILE before others': (
            {'some.json': right, docker: bad, podman: bad},
            {'REGISTRY_AUTH_FILE': '~/some.json'},
        ),
        '$XDG_RUNTIME_DIR before others': (
            {'run/containers/auth.json': right, docker: bad, podman: bad},
            {'XDG_RUNTIME_DIR': '~/run'},
        ),
        '~/.config/containers/auth.json before docker': ({podman: right, docker: bad}, {}),
        'docker, as auth.json has but other hosts': (
            {podman: auths({'localhost': 'wrong', '127.0.0.1': 'wrong'}), docker: right},
            {},
        ),
        'auth.json by repository': (
            {podman: auths({host: 'wrong', host + '/private': PASSWORD, host + '/private/other': 'wrong'})},
            {},
        ),
        'credHelpers': ({docker: {'credHelpers': {host: 'test'}, 'credsStore': 'nosuch'}}, helper(b, host)),
        'credsStore': ({docker: {'credsStore': 'test', 'auths': {host: {}}}}, helper(b, host)),
    }


def homes(b, table):
    for i, (name, (texts, env)) in enumerate(table.items()):
        home = b.at('home%d' % i)
        for path, doc in texts.items():
            write(os.path.join(home, path), doc)
        os.makedirs(home, exist_ok=True)
        yield name, home, {k: v.replace('~', home) for k, v in env.items()}


@check('registry-pull')
def pull():
    with bench() as b:
        site = b.site
        for name in ('hello:1', 'public/hello:1', 'private/hello:1'):
            site.push(HELLO, name)
        want, digest, cases = b.of(HELLO), site.digest('hello:1'), {}
        for kind in ('tls', 'basic', 'token', 'default'):
            getattr(site, kind)  # started before there are threads

        def case(name, run, *args, expected=want, **kw):
            cases[name] = lambda: b.same(run(*args, **kw), expected, name)

        for how, name, prefix in (
            ('tag', 'hello:1', ''),
            ('docker://', 'hello:1', 'docker://'),
            ('digest', 'hello@' + digest, ''),
            ('tag@digest', 'hello:1@' + digest, ''),
            ('a tag that is not there @digest', 'hello:none@' + digest, ''),
        ):
            cases['plain HTTP, by ' + how] = lambda name=name, prefix=prefix: by_reference(b, name, prefix, want)
        case('TLS with --ca-cert', b.pull, site.tls, 'hello:1')
        for how, home, env in homes(b, logins(b, site.basic.host)):
            case('basic auth by ' + how, b.pull, site.basic, 'private/hello:1', home=home, **env)
        silent = write(b.at('silent/.docker/config.json'), {'credsStore': 'test'})
        case(
            'a helper that knows nothing of this registry',
            b.pull,
            site.plain,
            'hello:1',
            home=os.path.dirname(os.path.dirname(silent)),
            **helper(b, 'other'),
        )
        cases |= {
            'tokens': lambda: tokens(b, want),
            'proxies': lambda: proxies(b, want),
            'docker.io': lambda: default(b, want),
            'platforms': lambda: platforms(b),
            'schema 2': lambda: schema_2(b),
            'python-slim by TLS': lambda: slim(b),
            'absent digests': lambda: absent(b),
        }
        return all_of(cases, workers=4)


def by_reference(b, name, prefix, want):
    host = b.site.plain.host
    built = b.build('%s%s/%s' % (prefix, host, name), '--insecure-registry', host)
    b.same(built, want, 'by ' + prefix + name)
    with open(os.path.join(built.out, 'bundle.json')) as file:
        said = json.load(file)['image']['reference']
    need(name in said and host in said, 'bundle.json has the reference %r for %s' % (said, name))


def tokens(b, want):
    site = b.site
    b.same(b.pull(site.token, 'private/hello:1', **LOGIN), want, 'a token for a user')
    b.same(b.pull(site.token, 'public/hello:1'), want, 'a token for anybody')
    asked = site.tokens.scopes()
    need(
        set(asked) == {'repository:private/hello:pull', 'repository:public/hello:pull'}, 'scopes asked for: %s' % asked
    )
    need(len(site.tokens.asked()) <= 4, '%d tokens for two pulls: they are not kept' % len(site.tokens.asked()))


def slim(b):
    layout = image('python-slim')
    b.site.push(layout, 'python:slim')
    b.same(b.pull(b.site.tls, 'python:slim'), b.of(layout), 'python-slim')


def platforms(b):
    site = b.site
    multi = b.layout('multi', [noise(1, 'gzip')], [noise(2, 'zstd')], platforms=['amd64', 'arm64'])
    site.push(multi, 'multi:1', '--all')
    index = site.digest('multi:1')
    for p in ('linux/amd64', 'linux/arm64'):
        for name in ('multi:1', 'multi@' + index):
            b.same(b.pull(site.plain, name, '--platform', p), b.of(multi, '--platform', p), '%s of %s' % (p, name))
    b.pull(site.plain, 'multi:1', '--platform', 'linux/riscv64', fails=['riscv64', site.plain.host])


def schema_2(b):
    gzipped = b.at('gzipped')  # schema 2 knows no zstd
    transcode.copy(HELLO, gzipped)
    b.site.push(gzipped, 'docker:2', '--format', 'v2s2')
    b.same(
        b.pull(b.site.plain, 'docker:2'),
        b.of(gzipped),
        'schema 2',
        but=('reference', 'manifest_digest', 'config_digest', 'media_type'),
    )


def absent(b):
    digest, plain = 'sha256:' + '5' * 64, b.site.plain
    for name in ('hello@' + digest, 'hello:1@' + digest):
        b.pull(plain, name, fails=[digest, plain.host])


def proxies(b, want):
    site = b.site
    tunnel, plain = site.proxy(site.tls), site.proxy()
    b.same(
        b.build('registry.invalid/hello:1', '--ca-cert', site.ca, HTTPS_PROXY='http://' + tunnel.host),
        want,
        'HTTPS_PROXY',
    )
    need(
        {r.path for r in tunnel.asked()} == {'registry.invalid:443'},
        'HTTPS_PROXY: the proxy was asked for %s' % {r.path for r in tunnel.asked()},
    )
    b.same(b.pull(site.plain, 'hello:1', HTTP_PROXY='http://' + plain.host), want, 'HTTP_PROXY')
    need(plain.asked('hello'), 'HTTP_PROXY is not used')
    plain.forget()
    b.same(
        b.pull(site.plain, 'hello:1', HTTP_PROXY='http://' + plain.host, NO_PROXY='localhost,127.0.0.1'),
        want,
        'NO_PROXY',
    )
    need(not plain.asked(), 'the proxy is used against NO_PROXY')


def default(b, want):
    """A name alone is one of docker.io, whose registry is another host, and whose login has a key of its own."""
    site = b.site
    tunnel, home = site.proxy(site.default), b.at('home of docker.io')
    site.push(HELLO, 'library/hello:latest')
    write(os.path.join(home, '.docker/config.json'), auths({'https://index.docker.io/v1/': PASSWORD}))
    for name in ('hello', 'docker.io/hello', 'library/hello:latest', 'index.docker.io/library/hello'):
        b.same(b.build(name, '--ca-cert', site.ca, home=home, HTTPS_PROXY='http://' + tunnel.host), want, name)
    hosts = {r.path for r in tunnel.asked()}
    need(
        hosts in ({'registry-1.docker.io:443'}, {'index.docker.io:443'}),
        'what is at docker.io was asked for at %s' % hosts,
    )
    tunnel.on('', status(403), times=None, method='CONNECT')
    b.build('python', fails=['docker.io', 'python'], HTTPS_PROXY='http://' + tunnel.host)


@check('registry-cached')
def cached():
    with bench() as b:
        site, cache = b.site, b.at('cache')
        first, twice = [noise(1, 'gzip', 9000), noise(2, 'zstd', 9000), noise(3, 'plain', 9000)], noise(5, 'gzip', 9000)
        old, new = b.layout('old', first), b.layout('new', [*first, noise(4, 'gzip', 9000), twice, twice])
        site.push(old, 'app:1')
        site.push(new, 'app:2')
        proxy = site.proxy()
        pattern, digests = blobs(old)
        known = b.at('known')
        b.build('oci:%s:latest' % old, cache=known)
        b.same(b.pull(proxy, 'app:1', cache=known), b.of(old), 'layers known from a layout')
        need(
            not proxy.asked(pattern),
            'layers were downloaded that are cached from a layout: %s' % [r.path for r in proxy.asked(pattern)],
        )
        proxy.forget()
        b.pull(proxy, 'app:1', cache=cache)
        need(
            sorted(r.path.split('/')[-1] for r in proxy.asked(pattern, 'GET')) == sorted(digests),
            'not each layer was asked for once: %s' % proxy.asked(pattern),
        )
        proxy.forget()
        b.same(b.pull(proxy, 'app:1', cache=cache), b.of(old), 'a second build')
        need(not proxy.asked(pattern), 'the second build downloads %s' % [r.path for r in proxy.asked(pattern)])
        need(proxy.asked('/manifests/1'), 'the second build does not ask where the tag points to')
        proxy.forget()
        b.same(b.pull(proxy, 'app:2', cache=cache), b.of(new), 'an image with two new layers')
        pattern_new, digests_new = blobs(new)
        got = sorted(r.path.split('/')[-1] for r in proxy.asked(pattern_new, 'GET'))
        need(
            got == sorted(set(digests_new) - set(digests)),
            'of an image with two new layers (one of them twice) these were downloaded: %s' % got,
        )
        offline(b, proxy, cache, old)


def offline(b, proxy, cache, old):
    site = b.site
    digest = site.digest('app:1')
    b.pull(proxy, 'app@' + digest, cache=cache)
    proxy.forget()
    for name in ('app:1', 'app@' + digest):
        b.same(b.pull(proxy, name, '--offline', cache=cache), b.of(old), '--offline of ' + name)
    host = proxy.host
    b.pull(proxy, 'app:1', '--offline', fails=[host, 'app', 'offline'])
    b.pull(proxy, 'app:3', '--offline', cache=cache, fails=[host, 'app:3', 'offline'])
    layers = layers_in(old)[0]
    [version] = [n for n in os.listdir(cache) if n.startswith('v')]
    gone = [n for n in os.listdir(os.path.join(cache, version)) if n.startswith(noise(2, 'zstd', 9000).diff_id[7:])]
    need(gone, 'the cache has no object that is named by the diff ID of a layer: %s' % os.listdir(cache))
    for name in gone:
        os.unlink(os.path.join(cache, version, name))
    b.pull(proxy, 'app:1', '--offline', cache=cache, fails=[layers[1]['digest'], 'offline'])
    need(not proxy.asked(), '--offline asks the registry: %s' % [r.path for r in proxy.asked()])
    b.same(b.pull(proxy, 'app:1', cache=cache), b.of(old), 'after an object was gone')
    need(
        [r.path.split('/')[-1] for r in proxy.asked(blobs(old)[0])] == [layers[1]['digest']],
        'not the missing layer alone is downloaded',
    )
    b.same(b.build('oci:%s:latest' % old, '--offline'), b.of(old), '--offline of a layout')


@check('registry-foreign')
def foreign():
    """A foreign layer is one like any other where the registry has it; else the error says where its manifest has it.
    What a registry's index holds beside images is passed over, also what it has lost."""
    with bench() as b:
        layout = b.layout('app', [noise(1, 'gzip', 9000)])
        b.site.push(layout, 'app:1')
        with open(os.path.join(layout, 'index.json')) as file:
            entry = json.load(file)['manifests'][0]
        with open(os.path.join(layout, 'blobs', 'sha256', entry['digest'][7:])) as file:
            doc = json.load(file)
        kind = 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip'
        url = 'https://elsewhere.invalid/layer'

        def served(doc):
            proxy = b.site.proxy()
            body = json.dumps(doc).encode()
            return proxy.on(
                '/manifests/1$', lambda h, get: h.answer(200, {'Content-Type': doc['mediaType']}, body), times=None
            )

        there = {**doc, 'layers': [{**doc['layers'][0], 'mediaType': kind, 'urls': [url]}]}
        b.same(
            b.pull(served(there), 'app:1'),
            b.of(layout),
            'a foreign layer that is there',
            but=('reference', 'manifest_digest', 'media_type'),
        )
        gone = {**doc, 'layers': [{**there['layers'][0], 'digest': 'sha256:' + '0' * 64}]}
        b.pull(served(gone), 'app:1', fails=['foreign', url])
        cache = b.at('cache')
        b.build('oci:%s:latest' % layout, cache=cache)
        b.same(
            b.pull(served(gone), 'app:1', cache=cache),
            b.of(layout),
            'a foreign layer that is compiled already',
            but=('reference', 'manifest_digest', 'media_type', 'digest'),
        )
        lost = {'mediaType': doc['mediaType'], 'digest': 'sha256:' + '1' * 64, 'size': 7}
        entry = {k: entry[k] for k in ('mediaType', 'digest', 'size')}
        index = {
            'schemaVersion': 2,
            'mediaType': INDEX,
            'manifests': [lost, {**lost, 'mediaType': 'application/x-future'}, entry],
        }
        b.same(b.pull(served(index), 'app:1'), b.of(layout), 'an index with entries of other kinds')
        b.pull(served({**index, 'manifests': [lost]}), 'app:1', fails=['linux/amd64', 'missing'])


@check('registry-lock')
def lock():
    with bench() as b:
        site = b.site
        one, two = b.layout('one', [noise(1, 'gzip', 9000)]), b.layout('two', [noise(2, 'gzip', 9000)])
        proxy = site.proxy()
        reference, path = proxy.host + '/app:1', b.at('app.lock')
        m = manifest_for(b.at('app.yaml'), reference)

        def build(*args, **kw):
            return b.pull(proxy, 'app:1', *args, manifest=m, **kw)

        def text(at=path):
            with open(at, 'rb') as file:
                return file.read()

        site.push(one, 'app:1')
        site.push(two, 'app:2')
        old, new = site.digest('app:1'), site.digest('app:2')
        build()
        need(not os.path.exists(path), 'a lock file is there though nobody asked for it')
        build('--locked', fails=['app.lock', '--lock '])
        need(not os.path.exists(path), '--locked wrote a lock file')
        call(BINARY, 'build', m, '--dry-run', '--lock', '--cache-dir', b.at('dry.cache'))
        need(not os.path.exists(path), 'a dry run wrote a lock file')
        # Elsewhere than in a registry there is nothing that a lock could hold.
        layout = manifest_for(b.at('layout.yaml'), 'oci:%s:latest' % one)
        with open(os.path.join(one, 'index.json')) as file:
            [entry] = json.load(file)['manifests']
        pinned = manifest_for(b.at('pinned.yaml'), 'oci:%s:latest@%s' % (one, entry['digest']))
        for option in ('--locked', '--lock', '--update'):
            b.build('a layout, %s' % option, option, manifest=layout, fails=[option, 'oci:', '@sha256:'])
            b.build('a pinned layout, %s' % option, option, manifest=pinned)
        b.same(build('--lock'), b.of(one), '--lock')
        first = text()
        for word in (reference, old, 'linux/amd64'):
            need(word.encode() in first, 'the lock file does not have %s: %s' % (word, first.decode()))
        need(
            b.tmp.encode() not in first and os.uname().nodename.encode() not in first,
            'the lock file knows this host: %s' % first.decode(),
        )
        locked = build('--locked')
        b.same(locked, b.of(one), '--locked')
        build('--lock')
        need(text() == first, 'a second --lock makes another file:\n%s\n%s' % (first.decode(), text().decode()))
        other = manifest_for(b.at('elsewhere.yaml'), reference)
        b.pull(proxy, 'app:1', '--lock', manifest=other, TZ='Asia/Tokyo')
        need(text(b.at('elsewhere.lock')) == first, 'the lock file of the same manifest by another name is another one')

        site.push(two, 'app:1')  # the tag moves
        cache = b.at('cache')
        for args in ((), ('--locked',), ('--lock',)):
            b.same(build(*args, cache=cache), locked.out, 'a moved tag, %s' % ' '.join(args or ['locked']), but=())
            need(text() == first, 'build %s changed the lock file' % ' '.join(args))
        proxy.forget()
        b.same(build('--offline', cache=cache), b.of(one), 'locked and --offline')
        need(not proxy.asked(), '--offline asks for %s' % [r.path for r in proxy.asked()])
        proxy.on('/manifests/', status(404), times=None)
        build('--update', fails=[proxy.host])
        need(text() == first, '--update that failed changed the lock file')
        proxy.rules.clear()
        b.same(build('--update'), b.of(two), '--update')
        second = text()
        need(new.encode() in second and old.encode() not in second, '--update: the lock file is\n' + second.decode())
        need(
            len(second) == len(first),
            '--update changed more than the digest:\n%s\n%s' % (first.decode(), second.decode()),
        )
        b.same(build('--locked'), b.of(two), '--locked after --update')
        site.push(one, 'app:1')
        build('--update', '--locked', fails=['--locked'], codes=(1, 2))
        need(text() == second, '--locked changed the lock file')

        # The manifest names another image than its lock file; then the platform that it lacks.
        manifest_for(m, proxy.host + '/app:2')
        build('--locked', fails=['app:2', 'app.lock', '--lock '])
        b.same(build(), b.of(two), 'a lock file without the reference')
        multi = b.layout('multi', [noise(3, 'gzip', 9000)], [noise(4, 'gzip', 9000)], platforms=['amd64', 'arm64'])
        site.push(multi, 'multi:1', '--all')
        many = manifest_for(b.at('multi.yaml'), proxy.host + '/multi:1')
        arm = ('--platform', 'linux/arm64')
        b.pull(proxy, 'multi:1', '--lock', manifest=many)
        b.pull(proxy, 'multi:1', '--locked', *arm, manifest=many, fails=['linux/arm64', 'multi.lock', '--lock '])
        b.pull(proxy, 'multi:1', '--lock', *arm, manifest=many)
        for p in ('linux/amd64', 'linux/arm64'):
            need(p.encode() in text(b.at('multi.lock')), 'the lock file lacks %s: %s' % (p, text(b.at('multi.lock'))))
            b.same(
                b.pull(proxy, 'multi:1', '--locked', '--platform', p, manifest=many),
                b.of(multi, '--platform', p),
                '--locked ' + p,
            )
        write(path, 'this: is\n  no lock file: [')
        build('--locked', fails=['app.lock'], codes=(1, 2))
        build(fails=['app.lock'], codes=(1, 2))


@check('registry-lock-race')
def lock_race():
    """Two builds at once that each write down their platform: the lock has both."""
    with bench() as b:
        b.site.push(
            b.layout('two', [Layer(f('a', '1'))], [Layer(f('a', '2'))], platforms=['amd64', 'arm64']), 'two:1', '--all'
        )
        manifest, lock = b.at('race.yaml'), b.at('race.lock')
        with open(manifest, 'w') as file:
            file.write('image: %s/two:1\n' % b.site.plain.host)
        for n in range(8):
            running = [
                subprocess.Popen(
                    [
                        BINARY,
                        'build',
                        manifest,
                        '-o',
                        b.at('race-%d-%s' % (n, p)),
                        '--platform',
                        'linux/' + p,
                        '--lock',
                        '--cache-dir',
                        b.at('race-cache'),
                        '--insecure-registry',
                        b.site.plain.host,
                    ],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                )
                for p in ('amd64', 'arm64')
            ]
            for p in running:
                _, said = p.communicate(timeout=PATIENCE)
                need(p.returncode == 0, said)
            with open(lock) as file:
                found = next(iter(json.load(file)['images'].values()))
            need(
                found.keys() == {'linux/amd64', 'linux/arm64'},
                'round %d: the lock has %s alone' % (n, ', '.join(found)),
            )
            os.unlink(lock)
