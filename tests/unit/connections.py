"""Connections that carry nothing, for those who only keep or hand on what they are given."""

from typing import Any, Final

from services.dispatcher.http.connection import Connection, Origin, PlainConnection
from services.dispatcher.http.deadlines import Bucket
from services.dispatcher.http.response import ExchangeLimits

A: Final[Origin] = ("https", "a.example", 443, None)
B: Final[Origin] = ("https", "b.example", 443, None)


class _Transport:
    def __init__(self) -> None:
        self.closed = False

    def write(self, data: bytes) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0


class _Owner:
    """Keeps nothing."""

    def release(self, connection: Connection) -> None:
        pass

    forget = release

    def body_deadline(self) -> Bucket:
        return Bucket()


def unconnected(origin: Origin = A) -> Connection:
    return PlainConnection(_Owner(), origin, ExchangeLimits(1.0, 16, 16, 1.0))


def connect(connection: Connection) -> None:
    transport: Any = _Transport()
    connection.connection_made(transport)


def connection_to(origin: Origin = A, idle_since: float = 0.0) -> Connection:
    """Connected, and idle."""
    connection = unconnected(origin)
    connect(connection)
    connection.idle_since = idle_since
    return connection


def is_closed(connection: Connection) -> bool:
    transport: Any = connection._transport
    return transport.closed
