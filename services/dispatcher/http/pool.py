"""Idle connections, last in first out per origin, bounded in all, closed when idle for too long."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable

from services.dispatcher.http.connection import Connection, Origin


class IdlePool:
    """Keeps connections between exchanges. Belongs to one event loop. Its timer runs only while it holds any."""

    def __init__(
        self,
        max_idle: int,
        idle_s: float,
        one_idle_s: Callable[[Origin], float],
        sweep_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """A connection is closed after `idle_s`; of each origin, the one that is idle for longest after `one_idle_s`.

        Both are checked every `sweep_s`, which is less.
        """
        self._max_idle = max_idle
        self._idle_s = idle_s
        self._one_idle_s = one_idle_s
        self._sweep_s = sweep_s
        self._clock = clock
        self._by_origin: dict[Origin, list[Connection]] = {}
        self._oldest_first: OrderedDict[Connection, None] = OrderedDict()
        self._handle: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._oldest_first)

    def take(self, origin: Origin) -> Connection | None:
        """The connection that was used last: the receiver is least likely to have closed it."""
        connections = self._by_origin.get(origin)
        if connections is None:
            return None
        connection = connections.pop()
        if not connections:
            del self._by_origin[origin]
        del self._oldest_first[connection]
        return connection

    def put(self, connection: Connection) -> None:
        """Keep it. Above the bound, close the one that has been idle for longest."""
        self._oldest_first[connection] = None
        self._by_origin.setdefault(connection.origin, []).append(connection)
        if len(self._oldest_first) > self._max_idle:
            self._close_oldest()
        if self._handle is None:
            self._arm()

    def discard(self, connection: Connection) -> None:
        """Remove it, if it is here."""
        if connection not in self._oldest_first:
            return
        del self._oldest_first[connection]
        siblings = self._by_origin[connection.origin]
        siblings.remove(connection)
        if not siblings:
            del self._by_origin[connection.origin]

    def close_first(self, origin: Origin) -> bool:
        """Close the connection to this origin that has been idle for longest; False when none is."""
        connections = self._by_origin.get(origin)
        if connections is None:
            return False
        self._close(connections[0])
        return True

    def close(self) -> None:
        """Close all of them and stop the timer."""
        while self._oldest_first:
            self._close_oldest()
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self) -> None:
        self._handle = asyncio.get_running_loop().call_later(self._sweep_s, self._sweep)

    def _sweep(self) -> None:
        self._handle = None
        now = self._clock()
        while self._oldest_first and now - next(iter(self._oldest_first)).idle_since >= self._idle_s:
            self._close_oldest()
        for origin, connections in tuple(self._by_origin.items()):
            idle_s = now - connections[0].idle_since
            if idle_s >= self._sweep_s and idle_s >= self._one_idle_s(origin):
                self._close(connections[0])
        if self._oldest_first:
            self._arm()

    def _close_oldest(self) -> None:
        self._close(next(iter(self._oldest_first)))

    def _close(self, connection: Connection) -> None:
        self.discard(connection)
        connection.close()
