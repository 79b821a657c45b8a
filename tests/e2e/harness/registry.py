"""Registries on loopback for checks/registry.py: Debian's docker-registry of all kinds, a token server, and a proxy that breaks things.

    with Site(directory) as site:
        site.push(layout, 'name:tag')                   # by skopeo; all have the same storage
        site.plain.host, site.tls.host, site.basic.host, site.token.host, site.default.host
        proxy = site.proxy()                            # before the plain one, or Site.proxy(site.token)
        proxy.on('/blobs/', cut(1000), times=2)
        proxy.asked('/blobs/')                          # what came in

Everything listens on loopback, on ports that were free, and ends with the site.
"""
import base64
import collections
import contextlib
import email.utils
import functools
import http.client
import http.server
import json
import os
import re
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import urllib.parse


USER, PASSWORD = 'ursula', 'pa55:w0rd/Ünicode?'     # a colon, and what base64 and URLs make something else of
IDENTITY = 'the identity/token of=ursula'              # what a login gave in place of name and password
TOOLS = {'docker-registry': 'docker-registry', 'htpasswd': 'apache2-utils', 'openssl': 'openssl', 'skopeo': 'skopeo'}
Request = collections.namedtuple('Request', 'method path range headers time')


def run(*cmd, **kw):
    p = subprocess.run(cmd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors='replace', **kw)
    if p.returncode:
        raise OSError('%s: exit %d: %s' % (' '.join(cmd), p.returncode, p.stdout.strip()[-2000:]))
    return p.stdout


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


class Site:
    """All that belongs to one storage, each part started when it is first asked for."""

    def __init__(self, directory):
        missing = [package for tool, package in TOOLS.items() if not shutil.which(tool)]
        if missing:
            raise OSError('missing: apt-get install ' + ' '.join(missing))
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
        return self.stack.enter_context(Registry(self, 'default', tls={'certificate': cert, 'key': key}, auth=self.htpasswd))

    @functools.cached_property
    def tokens(self):
        return self.stack.enter_context(TokenServer(self.certificate))

    @functools.cached_property
    def token(self):
        auth = {'realm': 'http://%s/token' % self.tokens.host, 'service': 'the registry', 'issuer': TokenServer.ISSUER,
                'rootcertbundle': self.certificate[0]}
        return self.stack.enter_context(Registry(self, 'token', auth={'token': auth}))

    def proxy(self, upstream=None, **kw):
        return self.stack.enter_context(Proxy((upstream or self.plain).host, **kw))

    @functools.cached_property
    def ca(self):
        """A CA that no system trusts, as PEM."""
        with open(self.at('ca.cnf'), 'w') as file:
            file.write('[req]\nprompt=no\ndistinguished_name=n\nx509_extensions=x\n[n]\nCN=Test CA\n'
                       '[x]\nbasicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n')
        run('openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-config', self.at('ca.cnf'),
            '-keyout', self.at('ca.key'), '-out', self.at('ca.pem'))
        return self.at('ca.pem')

    @functools.cached_property
    def certificate(self):
        """(certificate, key) of the server, signed by the CA."""
        with open(self.at('server.cnf'), 'w') as file:
            file.write('[x]\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n'
                       'subjectAltName=DNS:localhost,DNS:registry.invalid,DNS:docker.io,DNS:*.docker.io,IP:127.0.0.1\n')
        run('openssl', 'req', '-newkey', 'rsa:2048', '-nodes', '-subj', '/CN=test registry', '-keyout', self.at('server.key'), '-out', self.at('server.csr'))
        run('openssl', 'x509', '-req', '-in', self.at('server.csr'), '-CA', self.ca, '-CAkey', self.at('ca.key'), '-CAcreateserial', '-days', '2',
            '-extfile', self.at('server.cnf'), '-extensions', 'x', '-out', self.at('server.pem'))
        return self.at('server.pem'), self.at('server.key')

    def push(self, layout, name, *args, tag='latest'):
        """Puts an image there as it is, unless `args` say otherwise."""
        keep = () if '--format' in args else ('--preserve-digests',)
        run('skopeo', 'copy', '--quiet', '--insecure-policy', '--dest-tls-verify=false', *keep, *args, 'oci:%s:%s' % (layout, tag),
            'docker://%s/%s' % (self.plain.host, name))

    def digest(self, name):
        """The digest of what a tag points to."""
        repository, tag = name.rsplit(':', 1)
        c = http.client.HTTPConnection(self.plain.host, timeout=600)
        c.request('HEAD', '/v2/%s/manifests/%s' % (repository, tag), headers={'Accept': ', '.join(
            'application/vnd.' + t for t in ('oci.image.manifest.v1+json', 'oci.image.index.v1+json', 'docker.distribution.manifest.v2+json'))})
        answer = c.getresponse()
        if answer.status != 200:
            raise OSError('the registry does not have %s: %d' % (name, answer.status))
        return answer.headers['Docker-Content-Digest']


class Registry:
    """One docker-registry process."""

    def __init__(self, site, name, tls=None, auth=None):
        self.site, self.name, self.tls, self.auth = site, name, tls, auth

    def __enter__(self):
        for _ in range(3):              # the port may be taken between our look and its start
            self.host = '127.0.0.1:%d' % free_port()
            config = {'version': 0.1, 'log': {'level': 'info'}, 'storage': {'filesystem': {'rootdirectory': self.site.at('storage')}},
                      'http': {'addr': self.host, 'secret': 'one for all, as they share their uploads', **({'tls': self.tls} if self.tls else {})}, **({'auth': self.auth} if self.auth else {})}
            path, self.log = (self.site.at(self.name + end) for end in ('.yml', '.log'))
            with open(path, 'w') as file:
                json.dump(config, file)         # JSON is YAML
            with open(self.log, 'w') as log:
                self.process = subprocess.Popen(['docker-registry', 'serve', path], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                                env={'PATH': os.environ['PATH'], 'OTEL_TRACES_EXPORTER': 'none'})
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
            c = http.client.HTTPSConnection(self.host, timeout=60, context=ssl._create_unverified_context()) if self.tls else \
                http.client.HTTPConnection(self.host, timeout=60)
            try:
                c.request('GET', '/v2/')
                if c.getresponse().status in (200, 401):
                    return True
            except (OSError, http.client.HTTPException):
                time.sleep(0.02)
            finally:
                c.close()
        return False


class Server:
    """A threaded HTTP server, and what it was asked."""

    def __init__(self, address='127.0.0.1'):
        self.address, self.lock, self.requests, self.closing = address, threading.Lock(), [], threading.Event()

    def __enter__(self):
        owner = self

        class Handler(self.Handler):
            protocol_version, timeout = 'HTTP/1.1', 60

            def setup(self):
                self.owner = owner
                super().setup()

            def log_message(self, *_):
                pass

            def parse_request(self):
                known = super().parse_request()
                if known:
                    with owner.lock:
                        headers = {k.lower(): v for k, v in self.headers.items()}
                        owner.requests.append(Request(self.command, self.path, headers.get('range'), headers, time.monotonic()))
                return known

        class Threads(http.server.ThreadingHTTPServer):
            daemon_threads, request_queue_size = True, 64

            def handle_error(self, *_):         # the other side went away, which is its right
                if not isinstance(sys.exc_info()[1], OSError):
                    super().handle_error(*_)

        self.server = Threads((self.address, 0), Handler)
        self.host = '%s:%d' % self.server.server_address
        threading.Thread(target=self.server.serve_forever, kwargs={'poll_interval': 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()

    def asked(self, pattern='', method=''):
        with self.lock:
            return [r for r in self.requests if re.search(pattern, r.path) and method in r.method]

    def forget(self):
        with self.lock:
            self.requests.clear()


class TokenServer(Server):
    """Gives tokens to USER for everything, and to anybody for what is below public/. A token comes as `token` and as `access_token` by turns."""
    ISSUER = 'the token server'

    def __init__(self, certificate):
        super().__init__()
        self.certificate, self.given = certificate, []
        with open(certificate[0]) as file:
            self.x5c = ''.join(file.read().split('-----')[2].split())

    def sign(self, user, service, access):
        pack = lambda data: base64.urlsafe_b64encode(data).rstrip(b'=')
        now = int(time.time())
        claims = {'iss': self.ISSUER, 'sub': user, 'aud': service, 'exp': now + 300, 'nbf': now - 10, 'iat': now, 'jti': os.urandom(8).hex(), 'access': access}
        text = b'.'.join(pack(json.dumps(part).encode()) for part in ({'typ': 'JWT', 'alg': 'RS256', 'x5c': [self.x5c]}, claims))
        p = subprocess.run(['openssl', 'dgst', '-sha256', '-sign', self.certificate[1]], input=text, stdout=subprocess.PIPE, check=True)
        return (text + b'.' + pack(p.stdout)).decode()

    def scopes(self):
        """The scopes of all requests so far, in order."""
        return [s for r in self.asked() for v in urllib.parse.parse_qs(urllib.parse.urlsplit(r.path).query).get('scope', []) for s in v.split(' ')]

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
            if (form.get('grant_type'), form.get('refresh_token')) != (['refresh_token'], [IDENTITY]) or not form.get('client_id'):
                return self.say(401, {'error': 'invalid_grant'})
            self.give(USER, form)

        def give(self, user, query):
            access = []
            for scope in (s for v in query.get('scope', []) for s in v.split(' ')):
                kind, name, actions = scope.split(':')
                if user or name.startswith('public/'):
                    access.append({'type': kind, 'name': name, 'actions': [a for a in actions.split(',') if user or a == 'pull']})
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


class Proxy(Server):
    """Stands before a registry. The first rule that fits a request and is not used up for its path decides what happens to it."""

    def __init__(self, upstream, address='127.0.0.1', **kw):
        super().__init__(address, **kw)
        self.upstream, self.rules, self.endless = upstream, [], 0

    def on(self, pattern, fault, times=1, method='GET'):
        """`times` counts for each path on its own, or for each of what the pattern's group finds in it; None: always."""
        self.rules.append((re.compile(pattern), method, fault, times, collections.Counter()))
        return self

    def fault(self, method, path):
        with self.lock:
            for pattern, of, fault, times, used in self.rules:
                found = method == of and pattern.search(path)
                key = found and (found[1] if pattern.groups else path)
                if found and (times is None or used[key] < times):
                    used[key] += 1
                    return fault
        return None

    class Handler(http.server.BaseHTTPRequestHandler):
        body = None

        def do_GET(self):
            if self.path.startswith('http://'):         # we are the client's HTTP_PROXY
                self.path = '/' + self.path.split('/', 3)[3]
            fault = self.owner.fault(self.command, self.path)
            fault(self, self.get) if fault else self.answer(*self.get())

        do_HEAD = do_GET

        def do_PUT(self):
            fault = self.owner.fault(self.command, self.path)
            if getattr(fault, 'unread', False):
                return fault(self, self.get)
            self.body = self.rfile.read(int(self.headers.get('Content-Length', 0)))
            fault(self, self.get) if fault else self.answer(*self.get())

        do_POST = do_PATCH = do_PUT

        def do_CONNECT(self):
            fault = self.owner.fault('CONNECT', self.path)
            if fault:
                return fault(self, None)
            self.close_connection = True
            with socket.create_connection(self.owner.upstream.split(':'), timeout=60) as there:
                self.wfile.write(b'HTTP/1.1 200 Connected\r\n\r\n')
                back = threading.Thread(target=pump, args=(there, self.connection), daemon=True)
                back.start()
                pump(self.connection, there)
                back.join(10)

        def get(self, ranged=True):
            """What the registry answers: status, headers, body."""
            c = http.client.HTTPConnection(self.owner.upstream, timeout=60)
            drop = {'connection', 'proxy-connection', 'keep-alive', 'proxy-authorization'} | (set() if ranged else {'range', 'if-range'})
            c.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for k, v in self.headers.items():           # one by one: Accept may come many times
                if k.lower() not in drop:
                    c.putheader(k, v)
            c.endheaders(self.body)
            with c.getresponse() as r:
                body = r.read()
                headers = {k: v for k, v in r.headers.items() if k.lower() not in ('connection', 'transfer-encoding', 'date')}
            c.close()
            return r.status, headers, body

        def answer(self, status, headers, body, stop=None, length=None, pace=None, reset=False, then=None):
            """Sends it; up to byte `stop`, with another Content-Length, `pace` = (bytes, seconds) slow, ended by a reset or by what `then` does."""
            self.send_response(status)
            if self.command != 'HEAD':
                headers = {k: v for k, v in headers.items() if k.lower() != 'content-length'} | {'Content-Length': len(body) if length is None else length}
            if stop is not None or length is not None:
                self.close_connection = True
            for k, v in headers.items():
                self.send_header(k, str(v))
            self.end_headers()
            body = body[:stop] if stop is not None else body
            step = pace[0] if pace else 1 << 16
            for at in range(0, len(body), step):
                self.wfile.write(body[at:at + step])
                if pace and self.owner.closing.wait(pace[1]):
                    return
            if then:
                then()
            if reset:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
                self.connection.close()


def pump(source, sink):
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


# What a rule can do to a request. `get` asks the registry.

def cut(n, reset=False):
    """The connection ends behind byte n of the body."""
    return lambda h, get: h.answer(*get(), stop=n, reset=reset)


def cut_whole(n):
    """As `cut`, but the answer never is a part: what a server without ranges does."""
    return lambda h, get: h.answer(*get(ranged=False), stop=n)


def hang_up():
    """No answer at all."""
    def act(h, get):
        h.close_connection = True
    return act


def status(code, body=b'{"errors":[{"code":"UNAVAILABLE","message":"out of order"}]}', **headers):
    return lambda h, get: h.answer(code, {'Content-Type': 'application/json'} | {k.replace('_', '-'): v for k, v in headers.items()}, body)


def busy_until(seconds):
    """503 with a Retry-After that is a date."""
    return lambda h, get: status(503, Retry_After=email.utils.formatdate(time.time() + seconds, usegmt=True))(h, get)


def slow(step, seconds):
    return lambda h, get: h.answer(*get(), pace=(step, seconds))


def length(delta):
    """Says more or fewer bytes than it sends."""
    def act(h, get):
        code, headers, body = get()
        h.answer(code, headers, body, length=len(body) + delta)
    return act


def wrong(at=0.5):
    """One bit is another one."""
    def act(h, get):
        code, headers, body = get()
        body = bytearray(body)
        body[int(len(body) * at)] ^= 1
        h.answer(code, headers, bytes(body))
    return act


def more(extra):
    """The right bytes and then some, with a Content-Length that fits."""
    def act(h, get):
        code, headers, body = get()
        h.answer(code, headers, body + extra)
    return act


def no_range():
    """Answers 200 and from the start."""
    return lambda h, get: h.answer(*get(ranged=False))


def range_from(delta):
    """A 206 that begins elsewhere than was asked for, and says so."""
    def act(h, get):
        code, headers, whole = get(ranged=False)
        m = re.match(r'bytes=(\d+)-', h.headers.get('Range', ''))
        if not m:
            return h.answer(code, headers, whole)
        first = max(0, int(m[1]) + delta)
        h.answer(206, headers | {'Content-Range': 'bytes %d-%d/%d' % (first, len(whole) - 1, len(whole))}, whole[first:])
    return act


def redirect(host, query=''):
    """To the same path of another host; of the same one, without naming it, if `host` is empty."""
    return lambda h, get: h.answer(307, {'Location': '%s%s%s' % (host and 'http://' + host, h.path, query)}, b'')


def stall(n=0):
    """Sends n bytes of the body (the head too, unless n is 0) and then nothing, with the connection open."""
    def act(h, get):
        h.close_connection = True
        wait = lambda: h.owner.closing.wait(300)
        if n:
            h.answer(*get(), stop=n, then=wait)
        else:
            wait()
    return act


def deaf():
    """Takes nothing of what is sent to it."""
    def act(h, get):
        h.close_connection = True
        h.owner.closing.wait(300)
    act.unread = True
    return act


def slow_in(seconds):
    """Takes what is sent to it over so long a time."""
    def act(h, get):
        length, parts, step = int(h.headers['Content-Length']), [], seconds / 20
        for i in range(20):
            parts.append(h.rfile.read(length * (i + 1) // 20 - length * i // 20))
            if h.owner.closing.wait(step):
                return
        h.body = b''.join(parts)
        h.answer(*get())
    act.unread = True
    return act


def endless(code, start=b''):
    """An answer that goes on for as long as somebody listens."""
    def act(h, get):
        h.close_connection = True
        h.send_response(code)
        h.send_header('Content-Type', 'application/json')
        h.end_headers()
        h.wfile.write(start)
        sent = 0
        with contextlib.suppress(OSError):
            while not h.owner.closing.is_set() and sent < 4 << 30:
                # Told before it is sent: whoever hangs up may look at once.
                sent += 65536
                h.owner.endless = max(h.owner.endless, sent)
                h.wfile.write(b' ' * 65536)
    return act


def headers(change):
    """The answer with other headers."""
    def act(h, get):
        code, headers, body = get()
        h.answer(code, change(dict(headers)), body)
    return act


def drip(seconds):
    """A byte of the body now and then."""
    return lambda h, get: h.answer(*get(), pace=(1, seconds))
