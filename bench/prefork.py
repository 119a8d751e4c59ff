"""A receiver as Apache's prefork, gunicorn's sync workers and Python's own `HTTPServer` are: few workers, one connection each.

A worker takes a connection, answers what comes on it at once, and takes the next one when this one ends or has been idle
for the keep-alive. Connections that no worker has taken wait in the kernel, which has accepted them: their requests are
written and nobody reads them.
"""

import contextlib
import socket
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Final, NamedTuple, Self

_OK: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_LOOK_S: Final = 0.05  # how soon a worker notices that it is to end


class Arrival(NamedTuple):
    """A request that was read and answered."""

    at: float  #: seconds of the monotonic clock
    delivery: str
    connection: int


class Prefork:
    """Listens from the start; `with` ends its workers. Over TLS with a context, after whose handshake a worker reads."""

    def __init__(
        self,
        workers: int,
        keep_alive_s: float,
        *,
        answer_s: float = 0.0,
        backlog: int = 511,
        context: ssl.SSLContext | None = None,
    ) -> None:
        """`answer_s`: how long a worker works on each request."""
        self.arrivals: list[Arrival] = []
        self.connections = 0  #: taken by a worker so far
        self._keep_alive_s = keep_alive_s
        self._answer_s = answer_s
        self._context = context
        self._ended = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=backlog)
        self._listener.settimeout(_LOOK_S)
        self.port: int = self._listener.getsockname()[1]
        self._workers = [threading.Thread(target=self._work, daemon=True) for _ in range(workers)]
        for worker in self._workers:
            worker.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for worker in self._workers:
            worker.join()
        self._listener.close()

    def _work(self) -> None:
        while not self._ended.is_set():
            with contextlib.suppress(OSError):  # nobody came, or who came has gone
                accepted, _ = self._listener.accept()
                self.connections += 1
                self._serve(accepted, self.connections)

    def _serve(self, accepted: socket.socket, number: int) -> None:
        with accepted:
            accepted.settimeout(self._keep_alive_s)
            line = accepted if self._context is None else self._context.wrap_socket(accepted, server_side=True)
            with line:
                line.settimeout(_LOOK_S)
                received = b""
                while request := self._read(line, received):
                    received = request[1]
                    time.sleep(self._answer_s)
                    self.arrivals.append(Arrival(time.monotonic(), request[0], number))
                    line.sendall(_OK)

    def _read(self, line: socket.socket, received: bytes) -> tuple[str, bytes] | None:
        """The next request's delivery, and what follows it; None when none came within the keep-alive."""
        deadline = time.monotonic() + self._keep_alive_s
        while (end := _end_of_request(received)) is None:
            if self._ended.is_set() or time.monotonic() > deadline:
                return None
            with contextlib.suppress(TimeoutError):
                piece = line.recv(65536)
                if not piece:
                    return None
                received += piece
        return _header(received, b"x-webhook-delivery").decode(), received[end:]


def _end_of_request(received: bytes) -> int | None:
    head, separator, body = received.partition(b"\r\n\r\n")
    length = int(_header(head, b"content-length") or b"0")
    return len(head) + len(separator) + length if separator and len(body) >= length else None


def _header(head: bytes, name: bytes) -> bytes:
    for line in head.split(b"\r\n"):
        if line.lower().startswith(name + b":"):
            return line.partition(b":")[2].strip()
    return b""


class StandardServer:
    """Python's `HTTPServer`: one worker, a backlog of five; with `version` HTTP/1.1 it keeps a connection until it is closed."""

    def __init__(self, version: str) -> None:
        self.arrivals: list[Arrival] = []
        handler = type("Handler", (_Handler,), {"arrivals": self.arrivals, "protocol_version": version})
        self._server = HTTPServer(("127.0.0.1", 0), handler)
        self.port: int = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_LOOK_S,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    arrivals: list[Arrival]
    timeout = 65

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.arrivals.append(Arrival(time.monotonic(), self.headers["X-Webhook-Delivery"], id(self.connection)))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        """Nothing."""
