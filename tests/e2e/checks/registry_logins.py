"""A login goes to the registry that it is for, and to nobody whom that one names."""

import http.server

from checks import check
from harness.common import need
from harness.proxy import Proxy, redirect, status
from harness.registry import IDENTITY, PASSWORD
from harness.registry_bench import HELLO, LOGIN, auths, bench, write
from harness.server import Server


class Thief(Server):
    """Answers everything, and keeps what it is sent."""

    def __init__(self):
        super().__init__()
        self.bodies = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.owner.bodies.append(self.rfile.read(int(self.headers.get('Content-Length', 0))).decode())
            body = b'{"token":"of a thief"}'
            self.send_response(404 if '/blobs/' in self.path else 200)
            self.send_header('Content-Length', str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PUT = do_GET


def shown(server):
    return [r.headers['authorization'] for r in server.asked() if 'authorization' in r.headers]


@check('registry-login-redirected')
def redirected():
    """Redirects of a registry, and of a token server, lead to a thief:
    it learns neither password, token nor identity token."""
    with bench() as b:
        site, stack = b.site, b.site.stack
        site.push(HELLO, 'private/hello:1')
        thief = stack.enter_context(Thief())
        realm = stack.enter_context(Proxy(site.tokens.host))
        for method in ('GET', 'POST'):
            realm.on('/token', redirect(thief.host), method=method, times=None)
        registry = site.proxy(site.token).on(
            '',
            status(401, b'{}', WWW_Authenticate='Bearer realm="http://%s/token",service="the registry"' % realm.host),
            times=None,
        )
        homes = {
            'identity token': {'auths': {registry.host: {'auth': '', 'identitytoken': IDENTITY}}},
            'password': auths({registry.host: PASSWORD}),
        }
        for name, doc in homes.items():
            write(b.at('of ' + name, '.docker/config.json'), doc)
            b.pull(
                registry, 'private/hello:1', home=b.at('of ' + name), fails=[registry.host, 'token server', 'redirects']
            )
            need(realm.asked('/token'), 'the token server was not asked')
            need(not thief.asked(), 'with the %s, the thief was sent %s: %s' % (name, thief.asked(), thief.bodies))
        # A token that anybody gets is not a secret: that server may send whoever asks elsewhere.
        b.pull(registry, 'private/hello:1', fails=[registry.host])
        need(thief.asked('/token', 'GET') and not shown(thief), 'an anonymous token was not asked for, or with a login')

        # Whoever has logged in shows that to no other host, whatever it asks for there.
        for kind, server in (('basic', site.basic), ('token', site.token)):
            thief.forget()
            front = site.proxy(server)
            front.on('/blobs/', redirect(thief.host), times=None)
            b.pull(front, 'private/hello:1', fails=[front.host], **LOGIN)
            need(shown(front), 'no login was shown to the registry (%s)' % kind)
            need(thief.asked('/blobs/') and not shown(thief), '%s: the thief was shown %s' % (kind, shown(thief)))


@check('registry-login-of-one')
def of_one():
    """ROOTFS_COMPILE_USERNAME is for the image's own registry, or for the one that is named:
    not for that of shared layers."""
    with bench() as b:
        site = b.site
        site.push(HELLO, 'private/hello:1')
        image, shared = site.proxy(site.basic), site.proxy(site.basic)
        options = ('--insecure-registry', shared.host, '--cache-from', shared.host + '/layers')

        def build(reference, **kw):
            image.forget(), shared.forget()
            b.build(reference, '--insecure-registry', image.host, *options, **LOGIN, **kw)
            return bool(shown(image)), bool(shown(shared))

        there = image.host + '/private/hello:1'
        need(build(there) == (True, False), 'the registry of shared layers is shown the login of the image')
        need(
            build(there, ROOTFS_COMPILE_REGISTRY=image.host) == (True, False),
            'the registry that was named, and is that of the image',
        )
        need(build('oci:%s:latest' % HELLO) == (False, False), 'an image from a layout: nobody was named')
        need(
            build('oci:%s:latest' % HELLO, ROOTFS_COMPILE_REGISTRY=shared.host) == (False, True),
            'the registry that was named is not shown the login',
        )
        b.build(
            there,
            '--insecure-registry',
            image.host,
            fails=['ROOTFS_COMPILE_REGISTRY'],
            ROOTFS_COMPILE_REGISTRY=shared.host,
            **LOGIN,
        )
        need(not shown(image), 'a login for another registry was shown')
        # A stored login is the registry's own, and stays so.
        write(b.at('of both', '.docker/config.json'), auths({shared.host: PASSWORD}))
        need(
            build(there, home=b.at('of both')) == (True, True),
            'a stored login does not count beside that of the environment',
        )
