"""A real broker behind a proxy that knows Kafka's requests: it can answer one as a coordinator that has moved, or swallow it."""

import socket
import struct
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from accepting import Acceptor, break_off, pump

from bench.torture.stack import ProxiedBroker

OFFSET_FETCH: Final = 9
JOIN_GROUP: Final = 11
_NOT_COORDINATOR: Final = 16


class CoordinatorProxy:
    """Forwards to `target_port` of this machine, on threads that end with their connections."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self.moved = 0  #: so many requests for committed offsets are still to be answered with "not the coordinator"
        self.swallowed: set[int] = set()  #: kinds of requests that get no answer
        self.delay_s = 0.0  #: by which each request comes later
        self._acceptor = Acceptor(self._relay)
        self.port = self._acceptor.port

    def close(self) -> None:
        self._acceptor.close()

    def _relay(self, client: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", self._target_port)) as server:
            answers = threading.Thread(target=pump, args=(server, client), daemon=True)
            answers.start()
            with suppress(OSError):
                self._forward_requests(client, server)
            break_off(client, server)
            answers.join()

    def _forward_requests(self, client: socket.socket, server: socket.socket) -> None:
        """Until either ends, which raises OSError."""
        while True:
            request = _read_frame(client)
            time.sleep(self.delay_s)
            (kind,) = struct.unpack_from(">h", request)
            if kind == OFFSET_FETCH and self.moved > 0:
                self.moved -= 1
                client.sendall(_frame(_moved(request)))
            elif kind not in self.swallowed:
                server.sendall(_frame(request))


class CoordinatedBroker(ProxiedBroker):
    """A broker behind such a proxy."""

    def __init__(self, data_dir: Path) -> None:
        super().__init__(data_dir)
        self.proxy = CoordinatorProxy(self.proxied_port)
        self.advertised_port = self.proxy.port


def _moved(request: bytes) -> bytes:
    """The answer to a request for committed offsets, of version 8 or 9: one group, no topics, an error."""
    _kind, version, correlation, client_length = struct.unpack_from(">hhih", request)
    assert version in (8, 9)
    groups = request[10 + client_length + 1 :]  # behind the client's id and no tags
    assert groups[0] == 2, "one group"  # compact arrays count from 1
    group = groups[1 : 1 + groups[1]]  # its length, from 1, and its name
    return struct.pack(">ixi", correlation, 0) + b"\x02" + group + b"\x01" + struct.pack(">hxx", _NOT_COORDINATOR)


def _frame(message: bytes) -> bytes:
    return struct.pack(">i", len(message)) + message


def _read_frame(connection: socket.socket) -> bytes:
    (length,) = struct.unpack(">i", _read(connection, 4))
    return _read(connection, length)


def _read(connection: socket.socket, count: int) -> bytes:
    read = bytearray()
    while len(read) < count:
        chunk = connection.recv(count - len(read))
        if not chunk:
            raise ConnectionError
        read += chunk
    return bytes(read)
