"""Answers each POST with what the functions of the page say about it: Go2's signature, Standard Webhooks, the library."""

import os
from http.server import BaseHTTPRequestHandler, HTTPServer

from verify import body_ok, standard_ok

try:
    from library import event_of
except ModuleNotFoundError:
    event_of = None

SECRET = os.environ["WEBHOOK_SECRET"]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        verdicts = [body_ok(SECRET, self.headers, body), standard_ok(SECRET, self.headers, body)]
        if event_of is not None:
            verdicts.append(event_of(SECRET, dict(self.headers), body) is not None)
        answer = " ".join(str(verdict).lower() for verdict in verdicts).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_args):
        pass


HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
