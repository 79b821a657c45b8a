"""A stand-in for the socket of docker's daemon."""

import http.server
import json
import socketserver
import threading
import urllib.parse


class Daemon(socketserver.ThreadingUnixStreamServer):
    """What docker's socket answers when it is asked for an image: a docker-archive, in chunks, or which one it is."""

    def __init__(self, path, name, archive, ident='sha256:one'):
        self.archive, self.ident, self.saved = archive, ident, 0

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = 'HTTP/1.1'

            def address_string(self):
                return 'a socket'

            def log_message(self, *_):
                pass

            def do_GET(self):
                path = urllib.parse.unquote(self.path)
                if path == '/images/%s/json' % name:
                    body = json.dumps({'Id': self.server.ident}).encode()
                    self.send_response(200)
                    self.send_header('Content-Length', str(len(body)))
                    self.end_headers()
                    return self.wfile.write(body)
                if path != '/images/%s/get' % name:
                    return self.send_error(404)
                self.server.saved += 1
                self.send_response(200)
                self.send_header('Transfer-Encoding', 'chunked')
                self.end_headers()
                with open(self.server.archive, 'rb') as file:
                    while data := file.read(50000):
                        self.wfile.write(b'%x\r\n%s\r\n' % (len(data), data))
                self.wfile.write(b'0\r\n\r\n')

        super().__init__(path, Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()
