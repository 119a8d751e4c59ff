"""Idle connections, last in first out per origin, bounded in all, closed when idle for too long."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable

from services.dispatcher.senders.connection import Connection, Origin


class IdlePool:
    """Keeps connections between exchanges. Belongs to one event loop; its timer runs only while it holds any."""

    def __init__(self, max_idle: int, idle_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_idle = max_idle
        self._idle_s = idle_s
        self._clock = clock
        self._by_origin: dict[Origin, list[Connection]] = {}
        self._oldest_first: OrderedDict[Connection, None] = OrderedDict()
        self._handle: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._oldest_first)

    def take(self, origin: Origin) -> Connection | None:
        """The connection that was used last: the one least likely to have been closed by the receiver."""
        connections = self._by_origin.get(origin)
        if connections is None:
            return None
        connection = connections.pop()
        if not connections:
            del self._by_origin[origin]
        del self._oldest_first[connection]
        return connection

    def put(self, connection: Connection) -> None:
        """Keep it; over the bound, the one that has been idle for longest is closed."""
        self._oldest_first[connection] = None
        self._by_origin.setdefault(connection.origin, []).append(connection)
        if len(self._oldest_first) > self._max_idle:
            self._close_oldest()
        if self._handle is None:
            self._arm()

    def discard(self, connection: Connection) -> None:
        """Forget it, if it is here."""
        if connection not in self._oldest_first:
            return
        del self._oldest_first[connection]
        siblings = self._by_origin[connection.origin]
        siblings.remove(connection)
        if not siblings:
            del self._by_origin[connection.origin]

    def close(self) -> None:
        """Close all of them and stop the timer."""
        while self._oldest_first:
            self._close_oldest()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self) -> None:
        self._handle = asyncio.get_running_loop().call_later(min(1.0, self._idle_s / 2), self._sweep)

    def _sweep(self) -> None:
        self._handle = None
        latest = self._clock() - self._idle_s
        while self._oldest_first and next(iter(self._oldest_first)).idle_since <= latest:
            self._close_oldest()
        if self._oldest_first:
            self._arm()

    def _close_oldest(self) -> None:
        connection = next(iter(self._oldest_first))
        self.discard(connection)
        connection.close()
