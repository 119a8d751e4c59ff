"""The API as a process, and a gate in front of what it needs."""

import http.client
import json
import socket
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from accepting import Acceptor, break_off, pump

HANGING_S = 30.0  #: after so long something is taken to hang


class Gate:
    """A TCP proxy in front of a server, which can be shut: then connections break and none succeeds."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._open = True
        self._sockets: set[socket.socket] = set()
        self._acceptor = Acceptor(self._relay)
        self.port = self._acceptor.port

    def shut(self) -> None:
        self._open = False
        break_off(*list(self._sockets))

    def open(self) -> None:
        self._open = True

    def close(self) -> None:
        self.shut()
        self._acceptor.close()

    def _relay(self, client: socket.socket) -> None:
        if not self._open:
            return
        with socket.create_connection(self._target) as server:
            self._sockets |= {client, server}
            back = threading.Thread(target=pump, args=(server, client), daemon=True)
            back.start()
            pump(client, server)
            back.join()
            self._sockets -= {client, server}


@dataclass
class Process:
    """A running API."""

    popen: subprocess.Popen[bytes]
    port: int
    key: str
    log: Path

    def call(
        self, method: str, path: str, body: object = None, **headers: str
    ) -> tuple[int, dict, http.client.HTTPMessage]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"} | headers
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection.request(method, path, raw, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return (
            answer.status,
            json.loads(content) if answer.headers["Content-Type"] == "application/json" else content,
            answer.headers,
        )

    def raw(self, *parts: bytes, pause_s: float = 0) -> bytes:
        """Send bytes as they are and read until the server closes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            for part in parts:
                connection.sendall(part)
                time.sleep(pause_s)
            received = b""
            while chunk := connection.recv(65536):
                received += chunk
        return received


def through(url: str, gate: Gate) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{gate.port}"))
