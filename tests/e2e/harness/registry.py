"""Registries on loopback for checks/registry.py: Debian's docker-registry of all kinds, a token server, and a proxy
(proxy.py) that makes faults.

    with Site(directory) as site:
        site.push(layout, 'name:tag')                   # by skopeo; all have the same storage
        site.plain.host, site.tls.host, site.basic.host, site.token.host, site.default.host
        proxy = site.proxy()                            # before the plain one, or Site.proxy(site.token)
        proxy.on('/blobs/', cut(1000), times=2)
        proxy.asked('/blobs/')                          # what came in

Everything listens on loopback, on ports that were free, and ends with the site.
"""

import base64
import contextlib
import functools
import http.client
import http.server
import json
import os
import ssl
import subprocess
import time
import urllib.parse

from harness.proxy import Proxy
from harness.server import Server, free_port

USER, PASSWORD = 'ursula', 'pa55:w0rd/Ünicode?'  # a colon, and what base64 and URLs make something else of
IDENTITY = 'the identity/token of=ursula'  # what a login gave in place of name and password


def run(*cmd, **kw):
    p = subprocess.run(cmd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace', **kw)
    if p.returncode:
        raise OSError('%s: exit %d: %s' % (' '.join(cmd), p.returncode, p.stdout.strip()[-2000:]))
    return p.stdout


class Site:
    """All that belongs to one storage, each part started when it is first asked for."""

    def __init__(self, directory):
        self.directory, self.stack = directory, contextlib.ExitStack()
        os.makedirs(os.path.join(directory, 'storage'), exist_ok=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stack.close()

    def at(self, name):
        return os.path.join(self.directory, name)

    @functools.cached_property
    def plain(self):
        return self.stack.enter_context(Registry(self, 'plain'))

    @functools.cached_property
    def tls(self):
        cert, key = self.certificate
        return self.stack.enter_context(Registry(self, 'tls', tls={'certificate': cert, 'key': key}))

    @functools.cached_property
    def htpasswd(self):
        with open(self.at('htpasswd'), 'w') as file:
            file.write(run('htpasswd', '-nbB', '-C', '4', USER, PASSWORD))
        return {'htpasswd': {'realm': 'the basic one', 'path': self.at('htpasswd')}}

    @functools.cached_property
    def basic(self):
        return self.stack.enter_context(Registry(self, 'basic', auth=self.htpasswd))

    @functools.cached_property
    def default(self):
        """What docker.io would be: TLS and a login. It is reached by a tunnel that takes it for that."""
        cert, key = self.certificate
        return self.stack.enter_context(
            Registry(self, 'default', tls={'certificate': cert, 'key': key}, auth=self.htpasswd)
        )

    @functools.cached_property
    def tokens(self):
        return self.stack.enter_context(TokenServer(self.certificate))

    @functools.cached_property
    def token(self):
        auth = {
            'realm': 'http://%s/token' % self.tokens.host,
            'service': 'the registry',
            'issuer': TokenServer.ISSUER,
            'rootcertbundle': self.certificate[0],
        }
        return self.stack.enter_context(Registry(self, 'token', auth={'token': auth}))

    def proxy(self, upstream=None, **kw):
        return self.stack.enter_context(Proxy((upstream or self.plain).host, **kw))

    @functools.cached_property
    def ca(self):
        """A CA that no system trusts, as PEM."""
        with open(self.at('ca.cnf'), 'w') as file:
            file.write(
                '[req]\nprompt=no\ndistinguished_name=n\nx509_extensions=x\n[n]\nCN=Test CA\n'
                '[x]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n'
                'subjectKeyIdentifier=hash\n'
            )
        run(
            'openssl',
            'req',
            '-x509',
            '-newkey',
            'rsa:2048',
            '-nodes',
            '-days',
            '2',
            '-config',
            self.at('ca.cnf'),
            '-keyout',
            self.at('ca.key'),
            '-out',
            self.at('ca.pem'),
        )
        return self.at('ca.pem')

    @functools.cached_property
    def certificate(self):
        """(certificate, key) of the server, signed by the CA."""
        with open(self.at('server.cnf'), 'w') as file:
            file.write(
                '[x]\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n'
                'subjectAltName=DNS:localhost,DNS:registry.invalid,DNS:docker.io,DNS:*.docker.io,IP:127.0.0.1\n'
            )
        run(
            'openssl',
            'req',
            '-newkey',
            'rsa:2048',
            '-nodes',
            '-subj',
            '/CN=test registry',
            '-keyout',
            self.at('server.key'),
            '-out',
            self.at('server.csr'),
        )
        run(
            'openssl',
            'x509',
            '-req',
            '-in',
            self.at('server.csr'),
            '-CA',
            self.ca,
            '-CAkey',
            self.at('ca.key'),
            '-CAcreateserial',
            '-days',
            '2',
            '-extfile',
            self.at('server.cnf'),
            '-extensions',
            'x',
            '-out',
            self.at('server.pem'),
        )
        return self.at('server.pem'), self.at('server.key')

    def push(self, layout, name, *args, tag='latest'):
        """Puts an image there as it is, unless `args` say otherwise."""
        keep = () if '--format' in args else ('--preserve-digests',)
        run(
            'skopeo',
            'copy',
            '--quiet',
            '--insecure-policy',
            '--dest-tls-verify=false',
            *keep,
            *args,
            'oci:%s:%s' % (layout, tag),
            'docker://%s/%s' % (self.plain.host, name),
        )

    def digest(self, name):
        """The digest of what a tag points to."""
        repository, tag = name.rsplit(':', 1)
        c = http.client.HTTPConnection(self.plain.host, timeout=600)
        c.request(
            'HEAD',
            '/v2/%s/manifests/%s' % (repository, tag),
            headers={
                'Accept': ', '.join(
                    'application/vnd.' + t
                    for t in (
                        'oci.image.manifest.v1+json',
                        'oci.image.index.v1+json',
                        'docker.distribution.manifest.v2+json',
                    )
                )
            },
        )
        answer = c.getresponse()
        if answer.status != 200:
            raise OSError('the registry does not have %s: %d' % (name, answer.status))
        return answer.headers['Docker-Content-Digest']


class Registry:
    """One docker-registry process."""

    def __init__(self, site, name, tls=None, auth=None):
        self.site, self.name, self.tls, self.auth = site, name, tls, auth

    def __enter__(self):
        for _ in range(3):  # the port may be taken between our look and its start
            self.host = '127.0.0.1:%d' % free_port()
            config = {
                'version': 0.1,
                'log': {'level': 'info'},
                'storage': {'filesystem': {'rootdirectory': self.site.at('storage')}},
                'http': {
                    'addr': self.host,
                    'secret': 'one for all, as they share their uploads',
                    **({'tls': self.tls} if self.tls else {}),
                },
                **({'auth': self.auth} if self.auth else {}),
            }
            path, self.log = (self.site.at(self.name + end) for end in ('.yml', '.log'))
            with open(path, 'w') as file:
                json.dump(config, file)  # JSON is YAML
            with open(self.log, 'w') as log:
                self.process = subprocess.Popen(
                    ['docker-registry', 'serve', path],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env={'PATH': os.environ['PATH'], 'OTEL_TRACES_EXPORTER': 'none'},
                )
            if self.answers():
                return self
            self.__exit__()
        with open(self.log) as log:
            raise OSError('docker-registry (%s) does not start:\n%s' % (self.name, log.read()[-2000:]))

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()

    def answers(self):
        # Whether it answers is the question, not how soon on a busy machine.
        end = time.monotonic() + 600
        while time.monotonic() < end and self.process.poll() is None:
            c = (
                http.client.HTTPSConnection(self.host, timeout=60, context=ssl._create_unverified_context())
                if self.tls
                else http.client.HTTPConnection(self.host, timeout=60)
            )
            try:
                c.request('GET', '/v2/')
                if c.getresponse().status in (200, 401):
                    return True
            except (OSError, http.client.HTTPException):
                time.sleep(0.02)
            finally:
                c.close()
        return False


class TokenServer(Server):
    """Gives tokens to USER for everything, and to anybody for what is below public/.
    A token comes as `token` and as `access_token` by turns."""

    ISSUER = 'the token server'

    def __init__(self, certificate):
        super().__init__()
        self.certificate, self.given = certificate, []
        with open(certificate[0]) as file:
            self.x5c = ''.join(file.read().split('-----')[2].split())

    def sign(self, user, service, access):
        pack = lambda data: base64.urlsafe_b64encode(data).rstrip(b'=')
        now = int(time.time())
        claims = {
            'iss': self.ISSUER,
            'sub': user,
            'aud': service,
            'exp': now + 300,
            'nbf': now - 10,
            'iat': now,
            'jti': os.urandom(8).hex(),
            'access': access,
        }
        text = b'.'.join(
            pack(json.dumps(part).encode()) for part in ({'typ': 'JWT', 'alg': 'RS256', 'x5c': [self.x5c]}, claims)
        )
        p = subprocess.run(
            ['openssl', 'dgst', '-sha256', '-sign', self.certificate[1]], input=text, stdout=subprocess.PIPE, check=True
        )
        return (text + b'.' + pack(p.stdout)).decode()

    def scopes(self):
        """The scopes of all requests so far, in order."""
        return [
            s
            for r in self.asked()
            for v in urllib.parse.parse_qs(urllib.parse.urlsplit(r.path).query).get('scope', [])
            for s in v.split(' ')
        ]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
            user, given = '', self.headers.get('Authorization')
            if given:
                kind, _, value = given.partition(' ')
                user = USER
                if kind.lower() != 'basic' or base64.b64decode(value).decode() != USER + ':' + PASSWORD:
                    return self.say(401, {'details': 'incorrect username or password'})
            self.give(user, query)

        def do_POST(self):
            """As OAuth 2 has it, for identity tokens."""
            form = urllib.parse.parse_qs(self.rfile.read(int(self.headers['Content-Length'])).decode())
            if (form.get('grant_type'), form.get('refresh_token')) != (['refresh_token'], [IDENTITY]) or not form.get(
                'client_id'
            ):
                return self.say(401, {'error': 'invalid_grant'})
            self.give(USER, form)

        def give(self, user, query):
            access = []
            for scope in (s for v in query.get('scope', []) for s in v.split(' ')):
                kind, name, actions = scope.split(':')
                if user or name.startswith('public/'):
                    access.append(
                        {'type': kind, 'name': name, 'actions': [a for a in actions.split(',') if user or a == 'pull']}
                    )
            token = self.owner.sign(user, query['service'][0], access)
            self.owner.given.append(token)
            self.say(200, {('token', 'access_token')[len(self.owner.given) % 2]: token, 'expires_in': 300})

        def say(self, status, doc):
            body = json.dumps(doc).encode()
            self.send_response(status)
            self.send_header('Content-Type', 'application/json')
            self.send_header('Content-Length', str(len(body)))
            self.end_headers()
            self.wfile.write(body)


# What a rule can do to a request. `get` asks the registry.
