"""Requests that begin in the same iteration of the event loop and are written right after each other.

A receiver is then woken once for several of them, not once for each.
"""

from typing import Final

from services.dispatcher.http.connection import Connection, Report
from services.dispatcher.http.deadlines import Bucket

BURST: Final = 16  #: requests that are written together at most; the first waits until the last is signed


class Corking:
    """Writes requests at once, or between `cork` and `uncork` in bursts."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: list[tuple[Connection, bytes, float, Bucket, Report]] | None = None  # None: write at once

    def cork(self) -> None:
        self._held = []

    def uncork(self) -> None:
        held, self._held = self._held, None
        if held:
            _write(held)

    def exchange(self, connection: Connection, message: bytes, started: float, bucket: Bucket, report: Report) -> None:
        """Do `connection.exchange`, now or together with others."""
        if self._held is None:
            connection.exchange(message, started, bucket, report)
            return
        self._held.append((connection, message, started, bucket, report))
        if len(self._held) == BURST:
            _write(self._held)


def _write(held: list[tuple[Connection, bytes, float, Bucket, Report]]) -> None:
    for connection, message, started, bucket, report in held:
        connection.exchange(message, started, bucket, report)
    held.clear()
