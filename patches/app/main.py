#!/usr/bin/env python3
"""Serves one page.

    main.py [--check]       --check only listens, says so and ends
"""
import configparser
import http.server
import os
import pwd
import string
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


def config():
    parser = configparser.ConfigParser()
    with open(os.environ.get('APP_CONFIG', os.path.join(HERE, 'app.ini'))) as file:
        parser.read_file(file)
    return parser['app']


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        with open(os.path.join(HERE, 'templates/index.html')) as file:
            body = string.Template(file.read()).substitute(path=self.path).encode()
        self.send_response(200)
        self.send_header('Content-Type', 'text/html; charset=utf-8')
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main():
    app = config()
    server = http.server.HTTPServer((app['address'], app.getint('port')), Page)
    state = app['state']
    print('app: %s listens on port %d, and %s write to %s' % (
        pwd.getpwuid(os.getuid()).pw_name, server.server_port, 'may' if os.access(state, os.W_OK) else 'may not', state), flush=True)
    if '--check' not in sys.argv[1:]:
        server.serve_forever()


if __name__ == '__main__':
    main()
