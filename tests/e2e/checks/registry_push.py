"""Bundles to registries that refuse, forget and break; who refers to whom; and many exports into one layout at once."""

import concurrent.futures
import json
import os
import re
import subprocess

from checks import check
from checks.artifact import patched, tool
from harness.common import BINARY, HELLO, PATIENCE, TOP, build, call, need, same_files
from harness.proxy import endless, hang_up, headers, status
from harness.registry import IDENTITY, PASSWORD
from harness.registry_bench import LOGIN, all_of, auths, bench, write

LAYOUT = os.path.join(TOP, 'testimages/hello')
START, PUT = '/blobs/uploads/$', r'/blobs/uploads/.+(digest=.+)'
ERROR = lambda code, message: json.dumps({'errors': [{'code': code, 'message': message}]}).encode()


class Pusher:
    def __init__(self, b):
        self.b, self.bundle = b, b.at('hello')
        build(HELLO, self.bundle, cache=b.at('cache'))

    def __call__(self, server, name, ok=0, words=(), bundle=None, home=None, timeout=PATIENCE, **env):
        """One push; the words are what its error must say."""
        trust = ('--ca-cert', self.b.site.ca) if getattr(server, 'tls', None) else ('--insecure-registry', server.host)
        cmd = [
            BINARY,
            'push',
            bundle or self.bundle,
            '%s/%s' % (server.host, name),
            *trust,
            '--cache-dir',
            self.b.at('cache'),
        ]
        env = {'PATH': os.environ['PATH'], 'HOME': home or self.b.at('nobody')} | env
        # A GiB of addresses: an answer without an end must not be kept.
        p = subprocess.run(
            ['prlimit', '--data=%d' % (1 << 30), *cmd],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=env,
            timeout=timeout,
        )
        need(p.returncode == ok, '%s: exit %d: %s' % (name, p.returncode, p.stdout))
        missing = [w for w in words if w not in p.stdout]
        need(not missing, '%s: the error does not say %s: %s' % (name, missing, p.stdout))
        return p.stdout

    def comes_back(self, name, bundle=None):
        out = self.b.at('back%d' % next(self.b.number))
        tool(
            'pull',
            '%s/%s' % (self.b.site.plain.host, name),
            '-o',
            out,
            '--insecure-registry',
            self.b.site.plain.host,
            cache=self.b.at('empty'),
        )
        same_files(bundle or self.bundle, out, name)


@check('push-faults')
def faults():
    """What passes is tried again, with what the server asked for;
    what does not is an error with the server's own words."""
    with bench() as b:
        push, site = Pusher(b), b.site
        gap = lambda proxy, where, method: (lambda t: t[1] - t[0])([r.time for r in proxy.asked(where, method)])

        def passes(name, set_up, look=lambda p: None):
            def run():
                proxy = site.proxy()
                set_up(proxy)
                push(proxy, name)
                look(proxy)
                push.comes_back(name)

            return name, run

        def fails(name, words, set_up, look=lambda p: None):
            def run():
                proxy = site.proxy()
                set_up(proxy)
                push(proxy, name, 1, [proxy.host, *words])
                look(proxy)

            return name, run

        def waited(proxy, where, method, least):
            need(gap(proxy, where, method) >= least, 'tried again after %.2f s' % gap(proxy, where, method))

        def bounded(proxy):
            need(0 < proxy.endless < 64 << 20, '%d bytes of an endless answer were read' % proxy.endless)

        def once(where, method):
            def look(proxy):
                need(len(proxy.asked(where, method)) == 1, 'asked %d times' % len(proxy.asked(where, method)))

            return look

        cases = dict(
            [
                passes(
                    'busy',
                    lambda p: p.on(START, status(429, Retry_After=2), method='POST'),
                    lambda p: waited(p, START, 'POST', 1.95),
                ),
                passes(
                    'busy-at-end',
                    lambda p: p.on('/manifests/', status(503, Retry_After=2), method='PUT'),
                    lambda p: waited(p, '/manifests/', 'PUT', 1.95),
                ),
                passes('busy-heads', lambda p: p.on('/blobs/sha256', status(500), method='HEAD')),
                # A session is gone, as that of a registry that was started anew.
                passes(
                    'forgotten',
                    lambda p: p.on(
                        PUT,
                        status(404, ERROR('BLOB_UPLOAD_UNKNOWN', 'blob upload unknown to registry')),
                        2,
                        method='PUT',
                    ),
                ),
                passes('cut', lambda p: p.on(PUT, hang_up(), method='PUT')),
                passes('broken', lambda p: p.on(PUT, status(502), method='PUT')),
                fails(
                    'too-large',
                    ['413', 'at most 7 bytes'],
                    lambda p: p.on(PUT, status(413, ERROR('SIZE_INVALID', 'at most 7 bytes')), None, method='PUT'),
                    once(PUT, 'PUT'),
                ),
                fails(
                    'bad-manifest',
                    ['400', 'no such artifacts here'],
                    lambda p: p.on(
                        '/manifests/',
                        status(400, ERROR('MANIFEST_INVALID', 'no such artifacts here')),
                        None,
                        method='PUT',
                    ),
                    once('/manifests/', 'PUT'),
                ),
                fails(
                    'read-only',
                    ['405', 'read only'],
                    lambda p: p.on(START, status(405, ERROR('UNSUPPORTED', 'read only')), None, method='POST'),
                    once(START, 'POST'),
                ),
                fails(
                    'no-name',
                    ['no such repository'],
                    lambda p: p.on(START, status(404, ERROR('NAME_UNKNOWN', 'unknown')), None, method='POST'),
                    once(START, 'POST'),
                ),
                fails(
                    'denied',
                    ['login', 'may not'],
                    lambda p: p.on(START, status(403, ERROR('DENIED', 'you may not')), None, method='POST'),
                    once(START, 'POST'),
                ),
                fails(
                    'nowhere',
                    ['where to send'],
                    lambda p: p.on(
                        START, headers(lambda h: {k: v for k, v in h.items() if k != 'Location'}), None, method='POST'
                    ),
                ),
                fails(
                    'busy-for-long',
                    ['429', '3600 s'],
                    lambda p: p.on(START, status(429, Retry_After=3600), None, method='POST'),
                    once(START, 'POST'),
                ),
                fails('endless', ['400'], lambda p: p.on(PUT, endless(400), None, method='PUT'), bounded),
                fails(
                    'forgotten-for-ever', ['forgotten the upload'], lambda p: p.on(PUT, status(404), None, method='PUT')
                ),
            ]
        )
        return all_of(cases, workers=12)


@check('push-logins')
def logins():
    """By password, by token and by identity token; anew when it has become too old; to nobody else."""
    with bench() as b:
        push, site = Pusher(b), b.site
        unauthorized = lambda server: status(
            401, b'{}', WWW_Authenticate='Bearer realm="http://%s/token",service="the registry"' % site.tokens.host
        )

        push(site.basic, 'by/password:1', **LOGIN)
        push.comes_back('by/password:1')
        site.tokens.forget()
        push(site.token, 'by/token:1', **LOGIN)
        need(set(site.tokens.scopes()) == {'repository:by/token:pull,push'}, 'it asks for %s' % site.tokens.scopes())
        push.comes_back('by/token:1')
        for kind, server in (('password', site.basic), ('token', site.token)):
            push(server, 'nobody/by-%s:1' % kind, 1, [server.host, 'docker login', 'ROOTFS_COMPILE_USERNAME'])
            push(
                server,
                'wrong/by-%s:1' % kind,
                1,
                [server.host, 'login that was given'],
                **LOGIN | {'ROOTFS_COMPILE_PASSWORD': 'x'},
            )
        # Too old in the middle: at the start of a blob, at its end, and at the manifest.
        before = site.proxy(site.token)
        for where, method in ((START, 'POST'), (PUT, 'PUT'), ('/manifests/', 'PUT')):
            before.on(where, unauthorized(before), method=method)
        push(before, 'too/old:1', **LOGIN)
        push.comes_back('too/old:1')
        # docker login keeps these where a token server gives them.
        for name, token, ok in (('right', IDENTITY, 0), ('wrong', 'x', 1)):
            home = b.at('of ' + name)
            write(
                os.path.join(home, '.docker/config.json'),
                {'auths': {site.token.host: {'auth': '', 'identitytoken': token}}},
            )
            said = push(site.token, 'by/identity:' + name, ok, [] if ok == 0 else ['login that was given'], home=home)
            need(token not in said or token == 'x', said)
        push.comes_back('by/identity:right')
        site.tokens.forget()
        b.pull(site.token, 'by/identity:right', home=b.at('of right'), fails=['it is an artifact'])
        need(list(site.tokens.asked(method='POST')), 'a pull does not use the identity token')
        # What docker login keeps for Docker's own registry, beside what else it keeps there.
        hub = 'https://index.docker.io/v1/'
        write(
            os.path.join(b.at('of hub'), '.docker/config.json'),
            {
                'auths': {
                    hub: auths({'x': PASSWORD})['auths']['x'],
                    **{
                        hub + kind: auths({'x': 'no password'})['auths']['x']
                        for kind in ('access-token', 'refresh-token')
                    },
                }
            },
        )
        site.push(LAYOUT, 'library/hello:1')
        tunnel = site.proxy(site.default)
        for _ in range(4):
            b.build('hello:1', '--ca-cert', site.ca, home=b.at('of hub'), HTTPS_PROXY='http://' + tunnel.host)
        # No home, an empty login, and a token that comes under the other name.
        b.pull(site.plain, 'library/hello:1', HOME='/dev/null')
        write(os.path.join(b.at('of blank'), '.docker/config.json'), {'auths': {site.plain.host: {'auth': ''}}})
        b.pull(site.plain, 'library/hello:1', home=b.at('of blank'))
        # What an upload goes on at may belong to somebody else.
        away = site.proxy(address='127.0.0.2')
        moved = site.proxy(site.basic).on(
            START,
            headers(lambda h: h | {'Location': h['Location'].replace(moved_host(h), away.host)}),
            None,
            method='POST',
        )
        push(moved, 'moved/away:1', **LOGIN)
        need(
            away.asked(PUT, 'PUT') and not any('authorization' in r.headers for r in away.asked()),
            'credentials came to the host that an upload went to',
        )
        need(
            [r for r in moved.asked(START, 'POST') if 'authorization' in r.headers],
            'nothing is proved: no credentials came to the registry itself',
        )
        # Token servers that never end, or say nothing that is a token.
        for name, fault, words in (
            ('endless', endless(200, b'{"token":"'), ['its answer has more than']),
            ('empty', status(200, b'{}'), ['no token']),
            ('odd', status(200, b'{"token":"a\\nb"}'), ['token']),
            ('busy', status(503), ['token server', '503']),
            ('refused', endless(500), ['token server', '500']),
        ):
            tokens = site.proxy(site.tokens).on('/token', fault, None)
            server = site.proxy().on(
                '/v2/',
                status(
                    401, b'{}', WWW_Authenticate='Bearer realm="http://%s/token",service="the registry"' % tokens.host
                ),
                None,
                method='HEAD',
            )
            push(server, 'x/%s:1' % name, 1, [server.host, *words], **LOGIN)
            need(tokens.endless < 64 << 20, '%d bytes of an endless answer were read' % tokens.endless)


def moved_host(h):
    return re.match('http://([^/]+)/', h['Location'])[1]


@check('push-referrers')
def referrers():
    """A registry that does not look for subjects itself has a list of them under a tag; one that does has not."""
    with bench() as b:
        site, push = b.site, Pusher(b)
        site.push(LAYOUT, 'app:1')
        subject = site.digest('app:1')
        bundles, proxy = {}, site.proxy()
        for name in ('one', 'two'):
            manifest = b.at(name + '.yaml')
            with open(manifest, 'w') as file:
                file.write(
                    'image: %s/app:1\nplatform: linux/amd64\npatches:\n  - write: { path: /etc/mark, content: "%s" }\n'
                    % (proxy.host, name)
                )
            bundles[name] = b.at(name)
            build(manifest, bundles[name], '--insecure-registry', proxy.host, cache=b.at('cache'))
        raw = lambda name: json.loads(
            call('skopeo', 'inspect', '--raw', '--tls-verify=false', 'docker://%s/%s' % (site.plain.host, name)).stdout
        )
        tags = lambda: set(
            json.loads(call('skopeo', 'list-tags', '--tls-verify=false', 'docker://%s/app' % site.plain.host).stdout)[
                'Tags'
            ]
        )
        tag = subject.replace(':', '-')
        # One that says that it has seen the subject.
        proxy.on('/manifests/', headers(lambda h: h | {'OCI-Subject': subject}), None, method='PUT')
        with open(os.path.join(bundles['one'], 'bundle.json')) as file:
            need(json.load(file)['image']['manifest_digest'] == subject, 'the bundle is of another image')
        push(proxy, 'app:known', bundle=bundles['one'])
        need(raw('app:known')['subject']['digest'] == subject, 'there is no subject')
        proxy.rules.clear()
        need(tags() == {'1', 'known'}, 'tags: %s' % tags())
        # What cannot be asked for is not taken for what is not there.
        proxy.on('/manifests/sha256:', status(403), None)
        push(proxy, 'app:busy', 1, ['login'], bundle=bundles['one'])
        proxy.rules.clear()
        for name in ('one', 'two', 'one'):
            push(proxy, 'app:' + name, bundle=bundles[name])
            push.comes_back('app:' + name, bundles[name])
        need(tags() == {'1', 'known', 'one', 'two', tag}, 'tags: %s' % tags())
        listed = raw('app:' + tag)
        need(
            listed['schemaVersion'] == 2 and listed['mediaType'] == 'application/vnd.oci.image.index.v1+json',
            'the list is %s' % listed,
        )
        digests = [entry['digest'] for entry in listed['manifests']]
        need(digests == [site.digest('app:one'), site.digest('app:two')], 'the list has %s' % digests)
        for entry in listed['manifests']:
            need(
                entry['artifactType'] == 'application/vnd.rootfs-compile.bundle.v1'
                and entry['mediaType'] == 'application/vnd.oci.image.manifest.v1+json',
                'an entry is %s' % entry,
            )
            need(
                entry['size']
                == len(
                    call(
                        'skopeo',
                        'inspect',
                        '--raw',
                        '--tls-verify=false',
                        'docker://%s/app@%s' % (site.plain.host, entry['digest']),
                    ).stdout.encode()
                ),
                'a size is wrong',
            )
        need(raw('app:one')['subject']['digest'] == subject, 'the subject is another')


@check('artifact-exports')
def exports():
    """Many exports into one layout at once; what else is in its index stays."""
    with bench() as b:
        build(HELLO, b.at('hello'), cache=b.at('cache'))
        build(patched(b.tmp, 'other', LAYOUT, 'x'), b.at('other'), cache=b.at('cache'))
        names = ['t%d' % i for i in range(16)]
        export = lambda name: tool(
            'export',
            b.at(('hello', 'other')[int(name[1:]) % 2]),
            '--oci-layout',
            b.at('layout'),
            '--tag',
            name,
            cache=b.at('cache'),
        )
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(export, names))
        path = b.at('layout/index.json')
        with open(path) as file:
            index = json.load(file)
        ref = 'org.opencontainers.image.ref.name'
        need(
            {e['annotations'][ref] for e in index['manifests']} == set(names),
            'tags: %s' % sorted(e['annotations'][ref] for e in index['manifests']),
        )
        for name in names[:2]:
            tool('import', 'oci:%s:%s' % (b.at('layout'), name), '-o', b.at('from ' + name), cache=b.at('empty'))
            same_files(b.at(('hello', 'other')[int(name[1:]) % 2]), b.at('from ' + name), name)
        # One that is stopped half-way leaves a place that the next one can use.
        p = subprocess.Popen(
            [BINARY, 'export', b.at('hello'), '--oci-layout', b.at('stopped'), '--cache-dir', b.at('cache')],
            stderr=subprocess.DEVNULL,
        )
        while p.poll() is None and not os.path.isdir(b.at('stopped/blobs')):
            pass
        p.kill()
        p.wait()
        with open(b.at('stopped/blobs/sha256/.rootfs-compile-tmp-leftleft'), 'w'):
            pass
        tool('export', b.at('hello'), '--oci-layout', b.at('stopped'), cache=b.at('cache'))
        left = [n for n in os.listdir(b.at('stopped/blobs/sha256')) if len(n) != 64]
        need(not left, 'left: %s' % left)
        # An image with a tag, and what others have noted in the index.
        call('skopeo', 'copy', '--quiet', 'oci:%s:latest' % LAYOUT, 'oci:%s:latest' % b.at('layout'))
        with open(path) as file:
            index = json.load(file) | {'annotations': {'a': 'b'}}
        with open(path, 'w') as file:
            json.dump(index, file)
        p = tool('export', b.at('hello'), '--oci-layout', b.at('layout'), ok=(1,), cache=b.at('cache'))
        need('--tag' in p.stderr and 'latest' in p.stderr, p.stderr)
        with open(path) as file:
            need(json.load(file) == index, 'the index has changed')
        tool('export', b.at('hello'), '--oci-layout', b.at('layout'), '--tag', 't1', cache=b.at('cache'))
        with open(path) as file:
            after = json.load(file)
        need(
            after['annotations'] == {'a': 'b'} and len(after['manifests']) == len(index['manifests']),
            'the index has lost something: %s' % after,
        )
        tool('import', 'oci:%s:t1' % b.at('layout'), '-o', b.at('again'), cache=b.at('empty'))
        same_files(b.at('hello'), b.at('again'), 'a tag that another bundle had')
