"""Connections that carry nothing, for those who only keep or hand on what they are given."""

from typing import Any, Final

from services.dispatcher.http.connection import Connection, Origin, PlainConnection
from services.dispatcher.http.response import ExchangeLimits

A: Final[Origin] = ("https", "a.example", 443, None)
B: Final[Origin] = ("https", "b.example", 443, None)


class _Transport:
    closed = False

    def close(self) -> None:
        self.closed = True

    abort = close


def connection_to(origin: Origin = A, idle_since: float = 0.0) -> Connection:
    """Connected, and idle."""
    nobody: Any = None
    transport: Any = _Transport()
    connection = PlainConnection(nobody, origin, ExchangeLimits(1.0, 1, 1, 1.0))
    connection.connection_made(transport)
    connection.idle_since = idle_since
    return connection


def is_closed(connection: Connection) -> bool:
    transport: Any = connection._transport
    return transport.closed
