"""A proxy before a registry, and the faults that it can be told to make.

    proxy.on(PATTERN, FAULT, times=1, method=METHOD)

A fault is a function of the request and of what fetches the true answer; the functions at the end make them.
"""

import collections
import contextlib
import email.utils
import http.client
import http.server
import re
import socket
import struct
import threading
import time

from harness.server import Server


class Proxy(Server):
    """Stands before a registry. The first rule that fits a request and is not
    used up for its path decides what happens to it."""

    def __init__(self, upstream, address='127.0.0.1', **kw):
        super().__init__(address, **kw)
        self.upstream, self.rules, self.endless = upstream, [], 0

    def on(self, pattern, fault, times=1, method='GET'):
        """`times` counts for each path on its own, or for each of what the pattern's group finds in it;
        None: always."""
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
            if self.path.startswith('http://'):  # we are the client's HTTP_PROXY
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
            drop = {'connection', 'proxy-connection', 'keep-alive', 'proxy-authorization'} | (
                set() if ranged else {'range', 'if-range'}
            )
            c.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for k, v in self.headers.items():  # one by one: Accept may come many times
                if k.lower() not in drop:
                    c.putheader(k, v)
            c.endheaders(self.body)
            with c.getresponse() as r:
                body = r.read()
                headers = {
                    k: v for k, v in r.headers.items() if k.lower() not in ('connection', 'transfer-encoding', 'date')
                }
            c.close()
            return r.status, headers, body

        def answer(self, status, headers, body, stop=None, length=None, pace=None, reset=False, then=None):
            """Sends it; up to byte `stop`, with another Content-Length, `pace` = (bytes, seconds) slow, ended by a
            reset or by what `then` does."""
            self.send_response(status)
            if self.command != 'HEAD':
                headers = {k: v for k, v in headers.items() if k.lower() != 'content-length'} | {
                    'Content-Length': len(body) if length is None else length
                }
            if stop is not None or length is not None:
                self.close_connection = True
            for k, v in headers.items():
                self.send_header(k, str(v))
            self.end_headers()
            body = body[:stop] if stop is not None else body
            step = pace[0] if pace else 1 << 16
            for at in range(0, len(body), step):
                self.wfile.write(body[at : at + step])
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
    return lambda h, get: h.answer(
        code, {'Content-Type': 'application/json'} | {k.replace('_', '-'): v for k, v in headers.items()}, body
    )


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
        h.answer(
            206, headers | {'Content-Range': 'bytes %d-%d/%d' % (first, len(whole) - 1, len(whole))}, whole[first:]
        )

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
