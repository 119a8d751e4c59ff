"""Who may open a connection now, origin by origin, and who takes one that becomes idle meanwhile.

A receiver that answers in a millisecond needs a few connections, however many deliveries begin at once; opening one costs
more than many requests, on both sides. So `AT_ONCE` are opened at a time, or a quarter of those that are open: enough to
grow quickly where answers are slow, and no storm where they are not.
"""

import asyncio
from typing import Final

from services.dispatcher.senders.connection import Connection, Origin
from services.dispatcher.senders.wheel import Bucket

AT_ONCE: Final = 16  #: connections to one origin that may be opened at a time, however few are open
_GROWTH: Final = 4  # of so many that are open, one may be opened


class Turn:
    """One who waits: for a connection (given), for leave to open one (True), or in vain (False)."""

    __slots__ = ("result",)

    def __init__(self) -> None:
        self.result: asyncio.Future[Connection | bool] = asyncio.get_running_loop().create_future()

    def end(self, result: Connection | bool) -> bool:  # noqa: FBT001  # what the future says
        """Whether anybody still waits for it."""
        if self.result.done():
            return False
        self.result.set_result(result)
        return True

    def expire(self) -> None:
        self.end(False)  # noqa: FBT003


class _Line:
    """Of one origin."""

    __slots__ = ("open", "opening", "waiting")

    def __init__(self) -> None:
        self.opening = 0
        self.open = 0
        self.waiting: dict[Turn, None] = {}  # in their order


class Turns:
    """Belongs to one event loop. Remembers an origin as long as anything is open, being opened, or waited for there."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self._at_once = at_once
        self._lines: dict[Origin, _Line] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._lines)

    async def enter(self, origin: Origin, bucket: Bucket) -> Connection | bool:
        """A connection that has become idle; or True: open one, and `leave` when that has ended, whatever came of it.

        False when time is up, or after `close`.
        """
        if self._closed or bucket.expired:
            return False
        line = self._line(origin)
        if line.opening < self._limit(line):
            line.opening += 1
            return True
        line.waiting[turn := Turn()] = None
        bucket.add(turn)
        try:
            return await turn.result
        except asyncio.CancelledError:
            self._pass_on(origin, turn)
            raise
        finally:
            bucket.discard(turn)
            line.waiting.pop(turn, None)
            self._tidy(origin, line)

    def leave(self, origin: Origin) -> None:
        """An opening has ended: the next may begin."""
        line = self._lines[origin]
        line.opening -= 1
        while line.waiting and line.opening < self._limit(line):
            if self._next(line).end(True):  # noqa: FBT003
                line.opening += 1
        self._tidy(origin, line)

    def hand_over(self, connection: Connection) -> bool:
        """Give an idle connection to whoever waits longest for one; False when nobody does."""
        line = self._lines.get(connection.origin)
        while line is not None and line.waiting:
            if self._next(line).end(connection):
                return True
        return False

    def opened(self, origin: Origin) -> None:
        """A connection more is open."""
        self._line(origin).open += 1

    def lost(self, origin: Origin) -> None:
        """One is gone."""
        line = self._lines[origin]
        line.open -= 1
        self._tidy(origin, line)

    def close(self) -> None:
        """Nobody waits any more."""
        self._closed = True
        for line in self._lines.values():
            for turn in line.waiting:
                turn.expire()

    # --- inside

    def _line(self, origin: Origin) -> _Line:
        line = self._lines.get(origin)
        if line is None:
            line = self._lines[origin] = _Line()
        return line

    def _limit(self, line: _Line) -> int:
        return max(self._at_once, line.open // _GROWTH)

    def _next(self, line: _Line) -> Turn:
        turn = next(iter(line.waiting))
        del line.waiting[turn]
        return turn

    def _pass_on(self, origin: Origin, turn: Turn) -> None:
        """Who waited was cancelled just as it got something: others may use it."""
        if turn.result.cancelled():
            return
        result = turn.result.result()
        if result is True:
            self.leave(origin)
        elif isinstance(result, Connection) and not self.hand_over(result):
            result.close()

    def _tidy(self, origin: Origin, line: _Line) -> None:
        if not (line.open or line.opening or line.waiting):
            self._lines.pop(origin, None)
