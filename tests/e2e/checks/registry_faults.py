"""Registries that break, refuse and listen:
the build succeeds or fails clearly, the cache stays whole, and no secret gets out."""

import base64
import collections
import contextlib
import os
import random
import re
import subprocess
import time
import urllib.parse

from checks import check
from harness.common import BINARY, Failed, call, manifest_for, need
from harness.proxy import (
    busy_until,
    cut,
    cut_whole,
    hang_up,
    length,
    more,
    no_range,
    range_from,
    redirect,
    slow,
    status,
    wrong,
)
from harness.registry import PASSWORD, USER
from harness.registry_bench import HELLO, LOGIN, all_of, auths, bench, blobs, layers_in, noise, write


def shape(cache):
    """What a cache holds, without what differs with the port: a file too many is a leftover."""
    names = [os.path.relpath(os.path.join(at, n), cache) for at, _, some in os.walk(cache) for n in some]
    return collections.Counter(re.sub(r'[0-9a-f]{32,}|127[._-]0[._-]0[._-]1[^/]*', 'N', n) for n in names)


def seconds_between(proxy, pattern):
    times = [r.time for r in proxy.asked(pattern, 'GET')]
    return times[1] - times[0] if len(times) > 1 else 0


OK, EITHER = None, False  # what a build may come to; else it must fail, with these words


def suffer(b, name, image, want, clean, set_up, outcome, look=None):
    """A build while something goes wrong, then one without on the same cache."""
    proxy = b.site.proxy()
    set_up(proxy)
    cache, words = b.at('cache of ' + name), [proxy.host, *(outcome or [])]
    built = b.pull(
        proxy,
        image,
        cache=cache,
        **({} if outcome is OK else {'may_fail': words} if outcome is EITHER else {'fails': words}),
    )
    if look:
        look(proxy)
    if os.path.exists(built.out):
        b.same(built, want, 'in spite of the fault')
    proxy.rules.clear()
    b.same(b.pull(proxy, image, cache=cache), want, 'afterwards, without the fault')
    left = shape(cache) - clean
    need(not left, 'left behind in the cache: ' + ', '.join(left))


@check('registry-faults')
def faults():
    with bench() as b:
        layout = b.layout('app', [noise(1, 'gzip'), noise(2, 'zstd'), noise(3, 'plain')])
        b.site.push(layout, 'app:1')
        want, digest = b.of(layout), b.site.digest('app:1')
        clean = shape(b.pull(b.site.plain, 'app:1').cache)
        layers, config, _ = layers_in(layout)
        L, C, M = blobs(layout)[0], config['digest'], '/manifests/'
        one, size = layers[1]['digest'], layers[1]['size']
        away = b.site.proxy(address='127.0.0.2')
        away_cut = b.site.proxy(address='127.0.0.2').on('', cut(123_456))
        r = random.Random(5)

        def once(p, where=L):  # a repeated request is a try too many where it cannot help
            many = {path: n for path, n in collections.Counter(q.path for q in p.asked(where, 'GET')).items() if n > 1}
            need(not many, 'tried again: %s' % many)

        def tried(p, where):
            n = max(collections.Counter(q.path for q in p.asked(where, 'GET')).values())
            need(3 <= n <= 8, '%d tries' % n)

        def resumed(*ranges):
            def look(p):
                for digest in (layer['digest'] for layer in layers):
                    got = [q.range for q in p.asked(digest)]
                    need(
                        got == [None, *ranges] or got == ['bytes=0-', *ranges],
                        'the ranges asked for are %s, not %s' % (got[1:], list(ranges)),
                    )

            return look

        def waited(at_least, where):
            def look(p):
                need(
                    seconds_between(p, where) >= at_least,
                    'the second try came after %.2f s' % seconds_between(p, where),
                )

            return look

        # name: (what goes wrong, outcome, what must be seen at the proxy)
        table = {
            'layers cut by a reset': (lambda p: p.on(L, cut(r.randrange(size), reset=True)), OK, None),
            'layers cut three times': (
                lambda p: p.on(L, cut(100_000), 3),
                OK,
                resumed('bytes=100000-', 'bytes=200000-', 'bytes=300000-'),
            ),
            'layers cut behind the head': (lambda p: p.on(L, cut(0)), OK, None),
            'layers cut at the last byte': (lambda p: p.on(one, cut(size - 1)), OK, None),
            'no answer for layers': (lambda p: p.on(L, hang_up()), OK, None),
            'no ranges': (
                lambda p: p.on(L, cut_whole(250_000)).on(L, cut_whole(150_000)).on(L, no_range(), None),
                OK,
                None,
            ),
            'a range from elsewhere': (lambda p: p.on(L, cut(250_000)).on(L, range_from(-7)), EITHER, None),
            'a range from further on': (lambda p: p.on(L, cut(250_000)).on(L, range_from(7), None), EITHER, None),
            '429 with Retry-After for the manifest': (
                lambda p: p.on(M, status(429, Retry_After=1)),
                OK,
                waited(0.95, M),
            ),
            '429 with Retry-After for a layer': (
                lambda p: p.on(one, status(429, Retry_After=2)),
                OK,
                waited(1.95, one),
            ),
            '503 with a date in Retry-After': (lambda p: p.on(one, busy_until(3)), OK, waited(1.9, one)),
            '429 without Retry-After': (lambda p: p.on(L, status(429), 2), OK, waited(0.1, one)),
            '500 for all, 502, 503, 504 for layers': (
                lambda p: [p.on(w, status(code)) for w, code in (('', 500), (L, 502), (L, 503), (L, 504))],
                OK,
                None,
            ),
            'cut, then 500, then cut': (lambda p: p.on(L, cut(99_999)).on(L, status(500)).on(L, cut(1)), OK, None),
            'slow layers': (lambda p: p.on(L, slow(20_000, 0.08)), OK, once),
            'Content-Length too large once': (lambda p: p.on(L, length(7)), EITHER, None),
            'Content-Length too large': (lambda p: p.on(L, length(7), None), EITHER, None),
            'Content-Length too small once': (lambda p: p.on(L, length(-7)), EITHER, None),
            'Content-Length too small': (lambda p: p.on(one, length(-7), None), [one], None),
            'wrong bytes once': (lambda p: p.on(one, wrong()), EITHER, None),
            'wrong bytes': (lambda p: p.on(one, wrong(), None), [one], None),
            'wrong bytes in all layers': (lambda p: p.on(L, wrong(0.9), None), ['sha256:'], None),
            'wrong bytes behind a cut': (lambda p: p.on(one, cut(250_000)).on(one, wrong(), None), [one], None),
            'more bytes than there are': (lambda p: p.on(L, more(b'more'), None), EITHER, None),
            'redirected layers': (lambda p: p.on('/blobs/', redirect(away.host), None), OK, once),
            'redirected to a path': (lambda p: p.on(L, redirect('', '?x=1'), None), OK, once),
            'redirected and cut there': (lambda p: p.on(L, redirect(away_cut.host), None), OK, None),
            'redirected in a circle': (lambda p: p.on(L, redirect(p.host), None), ['redirect'], None),
            'a layer is not there': (lambda p: p.on(one, status(404), None), [one], once),
            'a layer is forbidden': (lambda p: p.on(one, status(403), None), ['login'], once),
            '500 for ever for a layer': (lambda p: p.on(one, status(500), None), ['500', one], lambda p: tried(p, one)),
            '503 for ever for the manifest': (lambda p: p.on(M, status(503), None), ['503'], lambda p: tried(p, M)),
            'no answer for ever': (lambda p: p.on('', hang_up(), None), [], None),
            'the manifest is cut': (lambda p: p.on(M, cut(99)), OK, None),
            'the manifest has wrong bytes': (lambda p: p.on(M, wrong(), None), ['digest'], None),
            'the manifest is a web page': (
                lambda p: p.on(M, status(200, b'<html>Sign in</html>', Content_Type='text/html'), None),
                [],
                None,
            ),
            'the config is cut': (lambda p: p.on(C, cut(99), 2), OK, None),
            'the config has wrong bytes': (lambda p: p.on(C, wrong(), None), [C], None),
        }

        # Those that wait out all tries come first, so that the rest is done meanwhile.
        names = sorted(table, key=lambda name: not re.search('ever|circle|502|small|further', name))
        image = lambda name: 'app@' + digest if name == 'the manifest has wrong bytes' else 'app:1'
        return all_of(
            {name: (lambda name=name: suffer(b, name, image(name), want, clean, *table[name])) for name in names},
            workers=12,
        )


@check('registry-secrets')
def secrets():
    with bench() as b:
        site = b.site
        for name in ('private/hello:1', 'public/hello:1'):
            site.push(HELLO, name)
        away, refuses = site.proxy(address='127.0.0.2'), site.proxy(address='127.0.0.2').on('', status(403), times=None)
        query, said, bad = '?X-Signature=s1gnedAndSealed', [], LOGIN | {'ROOTFS_COMPILE_PASSWORD': 'wr0ng-passw0rd'}

        def collect(built):
            said.append(built.said)

        jobs, unsafe = {}, ('--verbose', '--progress', 'json')
        for kind in (site.basic, site.token):

            def lend(kind=kind, name=kind.name):
                m = manifest_for(b.at('build of %s.yaml' % name), kind.host + '/private/hello:1')
                collect(b.pull(kind, 'private/hello:1', '--verbose', '--lock', manifest=m, **LOGIN))
                collect(b.pull(kind, 'private/hello:1', *unsafe, fails=[kind.host], **bad))
                before = site.proxy(kind).on('/blobs/', redirect(away.host, query), times=None)
                built = b.pull(before, 'private/hello:1', *unsafe, **LOGIN)
                b.same(built, b.of(HELLO), 'redirected to another host')
                collect(built)
                need(
                    [r for r in before.asked('/blobs/') if 'authorization' in r.headers],
                    'nothing is proved: no credentials came to the registry itself',
                )

            jobs['login at ' + kind.name] = lend
            for how, fault in (('403', redirect(refuses.host, query)), ('500', status(500))):
                before = site.proxy(kind).on('/blobs/', fault, times=None)
                jobs['%s and %s' % (kind.name, how)] = lambda before=before: collect(
                    b.pull(before, 'private/hello:1', *unsafe, fails=[], **LOGIN)
                )
        all_of(jobs)
        for server in (away, refuses):
            got = server.asked()
            need(got, 'nothing came to the host of the redirect')
            need(all(r.path.endswith(query) for r in got), 'the query of the redirect is lost')
            for r in got:
                need(
                    not {'authorization', 'cookie'} & set(r.headers),
                    'credentials came to the host of the redirect: %s' % sorted(r.headers),
                )
        # A host that a redirect leads to asks for a login of its own, for which it would be told the registry's.
        thief = site.proxy(address='127.0.0.2')
        thief.on('/steal', status(200, b'{"token":"abc"}'), None)
        thief.on(
            '/blobs/',
            status(401, b'{}', WWW_Authenticate='Bearer realm="http://%s/steal",service="x"' % thief.host),
            None,
        )
        for kind in (site.basic, site.token):
            before = site.proxy(kind).on('/blobs/', redirect(thief.host, query), times=None)
            collect(b.pull(before, 'private/hello:1', *unsafe, fails=['another host'], **LOGIN))
        need(
            thief.asked('/blobs/')
            and not thief.asked('/steal')
            and not any('authorization' in r.headers for r in thief.asked()),
            'a host of a redirect got a login',
        )
        home = b.at('of basic')
        write(os.path.join(home, '.docker/config.json'), auths({site.basic.host: PASSWORD}))
        open_to_all = site.proxy()
        collect(b.pull(open_to_all, 'public/hello:1', '--verbose', home=home))
        need(
            not any('authorization' in r.headers for r in open_to_all.asked()),
            'the credentials of one port went to another',
        )
        write(
            os.path.join(home, '.docker/config.json'),
            {'auths': {site.basic.host: {'auth': 'x' + base64.b64encode(PASSWORD.encode()).decode()}}},
        )
        collect(b.pull(site.basic, 'private/hello:1', '--verbose', home=home, fails=[], codes=(1, 2)))
        collect(b.build('127.0.0.1:1/private/hello:1', '--verbose', fails=['127.0.0.1:1'], **LOGIN))
        userinfo = 'http://%s:pr0xyS3cret@' % USER
        for proxy in ('127.0.0.1:1', site.proxy().on('', status(407), times=None, method='CONNECT').host):
            collect(
                b.build(
                    'registry.invalid/hello:1', '--verbose', fails=['registry.invalid'], HTTPS_PROXY=userinfo + proxy
                )
            )
        return look_for_secrets(b, site, said)


def look_for_secrets(b, site, said):
    pair = lambda password: base64.b64encode((USER + ':' + password).encode()).decode().rstrip('=')
    secret = {
        'the password': PASSWORD,
        'a wrong password': 'wr0ng-passw0rd',
        "the proxy's password": 'pr0xyS3cret',
        'the signature of a redirect': 's1gnedAndSealed',
        'the password, escaped': urllib.parse.quote(PASSWORD),
        'user and password': pair(PASSWORD),
        'user and the wrong one': pair('wr0ng-passw0rd'),
        "the proxy's, encoded": pair('pr0xyS3cret'),
        'the password, encoded': base64.b64encode(PASSWORD.encode()).decode().rstrip('='),
    }
    secret |= {'token %d' % i: token for i, token in enumerate(site.tokens.given)}
    secret |= {'the signature of token %d' % i: token.split('.')[2] for i, token in enumerate(site.tokens.given)}
    need(len(site.tokens.given) > 2, 'no tokens were given')
    for name, value in secret.items():
        for text in said:
            at = text.find(value)
            need(at < 0, '%s is said: %s' % (name, text[max(0, at - 200) : at + 300]))
    looked = 0
    for at, inside, names in os.walk(b.tmp):
        inside[:] = [
            n for n in inside if at != b.tmp or n.startswith('build')
        ]  # not the homes that we have filled, nor the site's files
        for path in (os.path.join(at, n) for n in names if at != b.tmp or n.startswith('build')):
            with open(path, 'rb') as file:
                data = file.read(8 << 20)  # larger ones are upper.ext4, mostly holes
            looked += 1
            for name, value in secret.items():
                need(value.encode() not in data, '%s lies in %s' % (name, os.path.relpath(path, b.tmp)))
    need(looked > 50, 'only %d files were looked into' % looked)
    return '%d files' % looked


@check('registry-errors')
def errors():
    with bench() as b:
        site, login = b.site, ['docker login', 'ROOTFS_COMPILE_USERNAME']
        for name in ('hello:1', 'private/hello:1'):
            site.push(HELLO, name)
        plain, tls, said = site.plain, site.tls, {}

        def case(name, run, server, *args, fails=(), **kw):
            def go():
                said[name] = run(server, *args, fails=fails, **kw).said

            cases[name] = go

        cases = {}
        case('no such tag', b.pull, plain, 'hello:absent', fails=[plain.host, 'hello', 'absent', 'tag'])
        case('no such repository', b.pull, plain, 'no/such:1', fails=[plain.host, 'no/such', 'repository'])
        case(
            'nobody listens',
            b.build,
            '127.0.0.1:1/hello:1',
            '--insecure-registry',
            '127.0.0.1:1',
            fails=['127.0.0.1:1', 'refused'],
        )
        case('no such host', b.build, 'nowhere.invalid/hello:1', fails=['nowhere.invalid'])
        tunnel = {'HTTPS_PROXY': 'http://' + site.proxy().host}  # to what is not on loopback, and has no TLS
        case(
            'no TLS there',
            b.build,
            'registry.invalid/hello:1',
            fails=['registry.invalid', '--insecure-registry'],
            **tunnel,
        )
        case(
            'TLS there',
            b.build,
            tls.host + '/hello:1',
            '--insecure-registry',
            tls.host,
            fails=[tls.host, '--insecure-registry'],
        )
        case(
            'insecure is another port',
            b.build,
            'registry.invalid/hello:1',
            '--insecure-registry',
            'registry.invalid:80',
            fails=['registry.invalid', '--insecure-registry'],
            **tunnel,
        )
        case('unknown CA', b.build, tls.host + '/hello:1', fails=[tls.host, '--ca-cert', 'certificate'])
        case('not logged in', b.pull, site.basic, 'private/hello:1', fails=[site.basic.host, 'private/hello', *login])
        case(
            'wrong password',
            b.pull,
            site.basic,
            'private/hello:1',
            fails=[site.basic.host, 'login', login[1]],
            **LOGIN | {'ROOTFS_COMPILE_PASSWORD': 'x'},
        )
        case(
            'no token for anybody',
            b.pull,
            site.token,
            'private/hello:1',
            fails=[site.token.host, 'private/hello', *login],
        )
        case(
            'wrong password for a token',
            b.pull,
            site.token,
            'private/hello:1',
            fails=[site.token.host, 'login', login[1]],
            **LOGIN | {'ROOTFS_COMPILE_PASSWORD': 'x'},
        )
        case(
            'no CA file',
            b.build,
            tls.host + '/hello:1',
            '--ca-cert',
            b.at('absent.pem'),
            fails=['absent.pem'],
            codes=(1, 2),
        )
        no_pem = write(b.at('no.pem'), 'no certificate\n')
        case(
            'no certificate in it', b.build, tls.host + '/hello:1', '--ca-cert', no_pem, fails=['no.pem'], codes=(1, 2)
        )
        case('port too large', b.build, 'localhost:99999/hello', fails=['localhost:99999', 'port'], codes=(1, 2))
        # What is not a reference is an error of the manifest, and must never be looked for in a network.
        digest = 'sha256:' + 'a' * 64
        bad = {
            'upper case': 'localhost/Hello',
            'empty tag': 'localhost/hello:',
            'tag with a bad character': 'localhost/hello:a+b',
            'long tag': 'localhost/hello:' + 't' * 129,
            'short digest': 'localhost/hello@sha256:abc',
            'unknown algorithm': 'localhost/hello@md5:' + 'a' * 32,
            'digest not in hex': 'localhost/hello@sha256:' + 'x' * 64,
            'two digests': 'localhost/hello@%s@%s' % (digest, digest),
            'no repository': 'localhost:5000/',
            'empty part': 'localhost/a//b',
            'bad port': 'localhost:port/hello',
            'a URL': 'https://localhost/hello',
            'a blank': 'localhost/hel lo',
            'separator at the end': 'localhost/hello-',
            'long name': 'localhost/' + 'n' * 300,
            'docker:// and nothing': 'docker://',
            'an ID': 'a' * 64,
        }
        for name, reference in bad.items():
            case(
                'reference: ' + name,
                b.build,
                reference,
                fails=['m.yaml:1', reference[:40]],
                codes=(2,),
                HTTPS_PROXY='http://127.0.0.1:1',
            )
        failed, texts = [], {}
        try:
            all_of(cases)
        except Failed as e:
            failed.append(str(e))
        may_share = {
            'insecure is another port',
            'no token for anybody',
            'wrong password for a token',
            'no such repository',
        }
        for name in said.keys() - may_share:
            if not name.startswith('reference'):  # those show the reference, and how one is written
                # Without what the reference itself makes different.
                text = re.sub(r'build\d+|"[^"]*"|`[^`]*`|localhost\S*|127[.]\S*|n{9}\w*', '', said[name]).strip()
                texts.setdefault(text, []).append(name)
        failed += [
            'one text for errors of different kinds (%s): %s' % (', '.join(sorted(names)), text[:300])
            for text, names in texts.items()
            if len(names) > 1
        ]
        need(not failed, '\n'.join(failed))
        return '%d cases' % len(cases)


@check('registry-killed')
def stopped():
    """A build that is killed while layers come leaves a cache that the next one can use."""
    with bench() as b:
        layout = b.layout('app', [noise(1, 'gzip'), noise(2, 'zstd')])
        b.site.push(layout, 'app:1')
        proxy, cache = b.site.proxy(), b.at('cache')
        digests = blobs(layout)[1]
        with open(os.path.join(layout, 'blobs', *digests[0].split(':')), 'rb') as file:
            head = file.read(100)
        proxy.on(digests[0], slow(4_000, 0.1))
        m = manifest_for(b.at('m.yaml'), proxy.host + '/app:1')
        p = subprocess.Popen(
            [BINARY, 'build', m, '-o', b.at('bundle'), '--cache-dir', cache, '--insecure-registry', proxy.host],
            stderr=subprocess.DEVNULL,
            env={'PATH': os.environ['PATH'], 'HOME': b.tmp},
        )
        try:
            # Killed while the blob arrives, and not before it does.
            while p.poll() is None and not proxy.asked(digests[0]):
                time.sleep(0.02)
            with contextlib.suppress(subprocess.TimeoutExpired):
                p.wait(1.5)
            need(p.poll() is None, 'the build ended before it could be killed: exit %s' % p.returncode)
        finally:
            p.kill()
            p.wait()
        need(not os.path.exists(b.at('bundle')), 'a bundle is there')
        for at, _, names in os.walk(cache):
            for path in (os.path.join(at, n) for n in names):
                with open(path, 'rb') as file:
                    need(
                        head not in file.read(), 'layers should be compiled as they come, but the blob lies in ' + path
                    )
        b.same(b.pull(proxy, 'app:1', cache=cache), b.of(layout), 'after a build was killed')
        call(BINARY, 'verify', b.of(layout))
