"""/metrics, /healthz and /readyz of router and dispatcher, on a thread of their own."""

import contextlib
import errno
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import CollectorRegistry

from go2hooks.core.errors import SettingsError

log = structlog.get_logger(__name__)
PORT_PIPE: Final = "GO2HOOKS_PORT_PIPE"  #: number of the descriptor that a parent reads the port from
Checks = Callable[[], dict[str, bool]]


class HealthServer:
    """Serves until `close`. `/healthz` answers 200 while the process lives; `/readyz` 503 until every check holds."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry, ready: Checks) -> None:
        """Raises SettingsError when the port is taken. Port 0 takes a free one."""
        handler = type("Handler", (_Handler,), {"registry": registry, "ready": staticmethod(ready)})
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
            server = type("Server", (_Server,), {"address_family": family})
            self._server = server((host, port), handler)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                remedy = f"port {port} is taken: set GO2HOOKS_METRICS_PORT to a free one, or to 0"
            else:
                remedy = f"{error.strerror}: check GO2HOOKS_METRICS_HOST and GO2HOOKS_METRICS_PORT"
            raise SettingsError(f"cannot listen on {host}:{port}: {remedy}") from error
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    """Limits connections and their time, so that slow or many clients take no threads or descriptors from deliveries."""

    at_once: Final = 16  #: requests: a scrape, two probes, and some more
    request_s: Final = 10.0  #: a connection lasts no longer, however slowly its bytes come
    daemon_threads = True
    request_queue_size = 128  # with the default of five, the kernel refuses a scrape among others, and it comes late

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self._began: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        super().__init__(address, handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            has_room = len(self._began) < self.at_once
            if has_room:
                self._began[request] = time.monotonic()
        if has_room:
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def service_actions(self) -> None:
        """Called twice a second: end connections that take too long."""
        with self._lock:
            late = [request for request, began in self._began.items() if time.monotonic() - began > self.request_s]
            for request in late:
                with contextlib.suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)

    def close_request(self, request: Any) -> None:
        with self._lock:
            self._began.pop(request, None)
            request.close()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Log a client's broken connection at debug level, and an error of ours with its traceback."""
        error = sys.exception()
        if isinstance(error, OSError):
            log.debug("request for metrics broken off", error=type(error).__name__)
        else:
            log.error("request for metrics failed", exc_info=error)


class _Handler(BaseHTTPRequestHandler):
    registry: CollectorRegistry
    ready: Checks
    timeout = _Server.request_s
    server_version = "go2hooks"
    sys_version = ""  # not everybody's business

    def do_HEAD(self) -> None:
        """Like GET without a body, which `_answer` leaves out: load balancers send HEAD."""
        self.do_GET()

    def do_GET(self) -> None:
        match self.path.partition("?")[0]:
            case "/metrics":
                self._answer(200, generate_latest(self.registry), CONTENT_TYPE_LATEST)
            case "/healthz":
                self._answer(200, b'{"status":"ok"}')
            case "/readyz":
                checks = type(self).ready()
                self._answer(200 if all(checks.values()) else 503, json.dumps(checks).encode())
            case _:
                self._answer(404, b'{"status":"not found"}')

    def _answer(self, status: int, body: bytes, content_type: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Answer requests that the library refuses, such as other methods; its own answer would be HTML."""
        status = HTTPStatus.METHOD_NOT_ALLOWED if code == HTTPStatus.NOT_IMPLEMENTED else HTTPStatus(code)
        self.close_connection = True
        self._answer(status, json.dumps({"status": status.phrase.lower()}).encode())

    def log_message(self, *_args: object) -> None:
        """Scrapes are not worth a line each."""


def announce_port(port: int) -> None:
    """Tell the process that started us our port: by a pipe, or a JSON file that is written atomically."""
    if pipe := os.environ.get(PORT_PIPE):
        os.write(int(pipe), f"{port}\n".encode())
    target = os.environ.get("GO2HOOKS_PORT_FILE")
    if target:
        temporary = Path(f"{target}.{os.getpid()}")
        temporary.write_text(json.dumps({"port": port}))
        temporary.replace(target)
