"""A threaded HTTP server on loopback that keeps what it was asked: the base of the proxy and of the token server."""

import collections
import http.client
import http.server
import re
import socket
import sys
import threading
import time

Request = collections.namedtuple('Request', 'method path range headers time')


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


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
                        owner.requests.append(
                            Request(self.command, self.path, headers.get('range'), headers, time.monotonic())
                        )
                return known

        class Threads(http.server.ThreadingHTTPServer):
            daemon_threads, request_queue_size = True, 64

            def handle_error(self, *_):  # the other side went away, which is its right
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
