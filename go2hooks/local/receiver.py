"""A receiver for development: takes every POST, verifies both signatures, answers what it was told to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from go2hooks.core.signing import verify_body_signature, verify_standard

_MAX_BODY_BYTES: Final = 1_048_576


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it arrived. Header names are in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes

    def verify(self, secrets: Sequence[str]) -> dict[str, bool]:
        """Each signature header, and whether one of the secrets made it. A missing one is wrong.

        Raises ValueError when a secret is none.
        """
        body_signature = self.headers.get("x-webhook-signature", "")
        message_id = self.headers.get("webhook-id", "")
        timestamp = self.headers.get("webhook-timestamp", "")
        signature = self.headers.get("webhook-signature", "")
        return {
            "X-Webhook-Signature": any(verify_body_signature(secret, self.body, body_signature) for secret in secrets),
            "webhook-signature": verify_standard(secrets, message_id, timestamp, self.body, signature),
        }


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # of the default five, a dispatcher's burst of connections waits a second for its turn


class Receiver:
    """Listens at once; `serve` blocks. `answer` says the status for each request, in a thread of its own per connection."""

    def __init__(self, host: str, port: int, answer: Callable[[Received], int]) -> None:
        """Raises OSError when the port is taken. Port 0 takes a free one."""
        handler = type("Handler", (_Handler,), {"answer": staticmethod(answer)})
        self._server = _Server((host, port), handler)
        self.port: int = self._server.server_address[1]

    def serve(self) -> None:
        """Block until `close` is called from another thread, or KeyboardInterrupt."""
        self._server.serve_forever()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    answer: Callable[[Received], int]
    protocol_version = "HTTP/1.1"
    timeout = 120

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if length > _MAX_BODY_BYTES:
            self.close_connection = True
            self._reply(413)
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        self._reply(type(self).answer(Received(self.path, headers, self.rfile.read(length))))

    def _reply(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        """What is worth a line is said by whoever answers."""
