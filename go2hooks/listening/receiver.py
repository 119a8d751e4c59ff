"""A receiver for development: it accepts every POST, verifies both signatures, and answers as configured."""

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from go2hooks.core.security.signing import verify_body_signature, verify_standard

_MAX_BODY_BYTES: Final = 1_048_576
_WITHOUT_BODY: Final = frozenset((204, 304))


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it arrived. Header names are in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes
    headers_as_sent: tuple[tuple[str, str], ...] = ()

    def verify(self, secrets: Sequence[str]) -> dict[str, bool]:
        """Each signature header, and whether one of the secrets made it. A missing header is False.

        Raises ValueError when a secret is malformed.
        """
        body_signature = self.headers.get("x-webhook-signature", "")
        message_id = self.headers.get("webhook-id", "")
        timestamp = self.headers.get("webhook-timestamp", "")
        signature = self.headers.get("webhook-signature", "")
        return {
            "X-Webhook-Signature": any(verify_body_signature(secret, self.body, body_signature) for secret in secrets),
            "webhook-signature": verify_standard(secrets, message_id, timestamp, self.body, signature),
        }


@dataclass(frozen=True, slots=True)
class LocalReply:
    """An answer. `headers` without those that frame the body."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


class _ReceiverServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # with the default of five, a dispatcher's burst of connections waits for a second


class Receiver:
    """Listens at once; `serve` blocks. `answer` returns the reply, or its status alone, in a thread per connection."""

    def __init__(self, host: str, port: int, answer: Callable[[Received], int | LocalReply]) -> None:
        """Raises OSError when the port is taken. Port 0 takes a free one."""
        handler = type("Handler", (_ReceiverHandler,), {"answer": staticmethod(answer)})
        kind = (
            type("Server", (_ReceiverServer,), {"address_family": socket.AF_INET6}) if ":" in host else _ReceiverServer
        )
        self._server = kind((host, port), handler)
        self.port: int = self._server.server_address[1]

    def serve(self) -> None:
        """Block until `close` is called from another thread, or KeyboardInterrupt."""
        self._server.serve_forever()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _ReceiverHandler(BaseHTTPRequestHandler):
    answer: Callable[[Received], int | LocalReply]
    protocol_version = "HTTP/1.1"
    timeout = 120

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > _MAX_BODY_BYTES:
            self.close_connection = True
            self._reply(LocalReply(413))
            return
        as_sent = tuple(self.headers.items())
        headers = {name.lower(): value for name, value in as_sent}
        answer = type(self).answer(Received(self.path, headers, self.rfile.read(length), as_sent))
        self._reply(answer if isinstance(answer, LocalReply) else LocalReply(answer))

    def _reply(self, reply: LocalReply) -> None:
        self.send_response_only(reply.status)
        for name, value in reply.headers:
            self.send_header(name, value)
        if reply.status not in _WITHOUT_BODY:
            self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        if reply.status not in _WITHOUT_BODY:
            self.wfile.write(reply.body)

    def log_message(self, *_args: object) -> None:
        """No log: `answer` prints what matters."""
