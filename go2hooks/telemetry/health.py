"""/metrics, /healthz and /readyz of router and dispatcher, on a thread of their own."""

import json
import os
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import CollectorRegistry

from go2hooks.core.errors import SettingsError

Checks = Callable[[], dict[str, bool]]


class HealthServer:
    """Serves until `close`. `/healthz` answers 200 while the process lives; `/readyz` 503 until every check holds."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry, ready: Checks) -> None:
        """Raises SettingsError when the port is taken. Port 0 takes a free one."""
        handler = type("Handler", (_Handler,), {"registry": registry, "ready": staticmethod(ready)})
        try:
            self._server = ThreadingHTTPServer((host, port), handler)
        except OSError as error:
            message = (
                f"cannot listen on {host}:{port} ({error.strerror}): set GO2HOOKS_METRICS_PORT to a free port, or 0"
            )
            raise SettingsError(message) from error
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    registry: CollectorRegistry
    ready: Checks
    timeout = 10

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
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        """Scrapes are not worth a line each."""


def announce_port(port: int) -> None:
    """Tell whoever started us which port we took: a JSON file, written whole or not at all."""
    target = os.environ.get("GO2HOOKS_PORT_FILE")
    if target:
        temporary = Path(f"{target}.{os.getpid()}")
        temporary.write_text(json.dumps({"port": port}))
        temporary.replace(target)
