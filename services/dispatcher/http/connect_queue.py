"""Who may open a connection now, origin by origin, and who takes one that becomes idle meanwhile.

A receiver that answers in a millisecond needs a few connections, however many deliveries begin at once; opening one costs
more than many requests, on both sides. So `AT_ONCE` are opened at a time, or a quarter of those that are open: enough to
grow quickly where answers are slow, and no storm where they are not. None is while others go unanswered (`line.py`).
"""

import asyncio
from collections.abc import Callable
from functools import partial

from go2hooks.core.flow.serving import Opening
from services.dispatcher.http.connection import Connection, Origin
from services.dispatcher.http.deadlines import Bucket
from services.dispatcher.http.line import AT_ONCE, Line, Times, Waiter


class ConnectQueue:
    """Belongs to one event loop. Remembers an origin as long as anything is open, being opened, or waited for there, and few
    workers for as long as a connection may be idle.
    """

    def __init__(self, times: Times, at_once: int = AT_ONCE) -> None:
        #: Closes the connection to an origin that has been idle for longest; False when none is idle. Set by who keeps them.
        self.close_idle: Callable[[Origin], bool]
        self._times = times
        self._at_once = at_once
        self._lines: dict[Origin, Line] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._lines)

    async def enter(self, origin: Origin, bucket: Bucket) -> Connection | Opening | None:
        """A connection that has become idle; or leave to open one: `made` or `failed` when that has ended.

        None when time is up, or after `close`.
        """
        if self._closed or bucket.expired:
            return None
        line = self._line(origin)
        if line.may_open():
            return line.begin()
        line.waiting[waiter := Waiter()] = None
        line.watch()
        bucket.add(waiter)
        try:
            return await waiter.result
        except asyncio.CancelledError:
            _pass_on(line, waiter)
            raise
        finally:
            bucket.discard(waiter)
            line.waiting.pop(waiter, None)
            self._tidy(origin, line)

    def begin(self, origin: Origin) -> Opening:
        """Leave to open a connection at once, whoever waits: the one that was to be used is gone."""
        return self._line(origin).begin()

    def made(self, connection: Connection, opening: Opening) -> None:
        """A connection is there."""
        self._lines[connection.origin].made(connection, opening)

    def failed(self, origin: Origin, opening: Opening) -> None:
        """None has come of it."""
        self._lines[origin].failed(opening)

    def lost(self, connection: Connection) -> None:
        """A connection that was made is gone."""
        self._lines[connection.origin].lost(connection)

    def release(self, connection: Connection) -> bool:
        """See `Line.release`."""
        return self._lines[connection.origin].release(connection)

    def wants_another(self, origin: Origin) -> bool:
        """Whether another connection is to be opened beside one that `is_alone`."""
        line = self._lines.get(origin)
        return line is not None and line.serving.is_unproven

    def one_idle_s(self, origin: Origin) -> float:
        """See `Line.one_idle_s`."""
        line = self._lines.get(origin)
        return self._times.idle_s if line is None else line.one_idle_s

    def close(self) -> None:
        """Nobody waits any more."""
        self._closed = True
        for line in self._lines.values():
            line.close()

    # --- inside

    def _line(self, origin: Origin) -> Line:
        line = self._lines.get(origin)
        if line is None:
            line = self._lines[origin] = Line(
                self._times, self._at_once, partial(self.close_idle, origin), partial(self._tidy, origin)
            )
        return line

    def _tidy(self, origin: Origin, line: Line) -> None:
        if not line.is_in_use and self._lines.get(origin) is line:
            del self._lines[origin]


def _pass_on(line: Line, waiter: Waiter) -> None:
    """Who waited was cancelled just as it got something: others may use it."""
    result = None if waiter.result.cancelled() else waiter.result.result()
    if isinstance(result, Opening):
        line.failed(result)
    elif isinstance(result, Connection) and not line.hand_over(result):
        result.close()
