"""One origin's connections: who may open one, who waits for one, and when one is closed so that a worker takes another.

A receiver may have few workers (`core/serving.py`), and other dispatchers that want one of them. So:

- Where workers are few, a connection is used for a moment and then closed, however much there is to send.
- Elsewhere as many as the receiver has ever answered on at once are not kept for long if one is idle: it may serve no more.
- While it has shown no more than one, a request that comes a moment later opens another beside it, which shows whether
  there is a second worker.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from go2hooks.core.flow.serving import Opening, Serving
from services.dispatcher.http.connection import Connection

AT_ONCE: Final = 16  #: connections to one origin that may be opened at a time, however few are open
_GROWTH: Final = 4  # of so many that are open, one may be opened


class Times(NamedTuple):
    """In seconds."""

    overdue_s: (
        float  #: a connection without an answer is given room, and nobody waits for one that is answered on any longer
    )
    brief_s: float  #: a connection to a receiver with few workers is neither used nor idle for longer
    last_s: float  #: nor is the last worker that a receiver has shown kept idle
    idle_s: float  #: nor any connection; for so long it is known that workers are few

    @classmethod
    def within(cls, timeout_s: float, idle_s: float) -> "Times":
        """Such that no attempt times out because it waits for a worker that another dispatcher keeps idle."""
        return cls(timeout_s / 5, timeout_s / 10, min(timeout_s / 2, idle_s), idle_s)

    @property
    def watch_s(self) -> float:
        """How often is looked at who waits."""
        return self.overdue_s / 4


class Waiter:
    """One who waits: for a connection (given), for leave to open one, or in vain (None)."""

    __slots__ = ("began", "result")

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.result: asyncio.Future[Connection | Opening | None] = asyncio.get_running_loop().create_future()

    def expire(self) -> None:
        if not self.result.done():
            self.result.set_result(None)


class Line:
    """Of one origin. Belongs to one event loop."""

    __slots__ = (
        "_at_once", "_close_idle", "_dialling", "_forgetting", "_is_watched", "_on_change", "_open", "_times", "_wants_room",
        "serving", "waiting",
    )  # fmt: skip

    def __init__(
        self, times: Times, at_once: int, close_idle: Callable[[], bool], on_change: Callable[["Line"], None]
    ) -> None:
        """`close_idle` closes the connection that has been idle for longest; False when none is.

        `on_change` is told when something has ended that keeps this line in use.
        """
        self.serving = Serving()
        self.waiting: dict[Waiter, None] = {}  #: in their order
        self._times = times
        self._at_once = at_once
        self._close_idle = close_idle
        self._on_change = on_change
        self._open = 0
        self._dialling = 0  # connections that are not made yet
        self._is_watched = False
        self._wants_room = False  # whether the next connection that becomes idle is to be closed
        self._forgetting: asyncio.TimerHandle | None = None  # that workers are few

    @property
    def is_in_use(self) -> bool:
        """Whether there is anything to remember."""
        return bool(self._open or self._dialling or self.waiting or self._forgetting)

    # --- opening

    def may_open(self) -> bool:
        return self._may_dial() and self.serving.may_open()

    def begin(self) -> Opening:
        """A connection is being opened: `made` or `failed` is next."""
        self._dialling += 1
        self.watch()
        return self.serving.begin(time.monotonic())

    def made(self, connection: Connection, opening: Opening) -> None:
        """It is there: the next may be opened."""
        connection.opening = opening
        self._open += 1
        self._dialling -= 1
        self._wake()

    def failed(self, opening: Opening) -> None:
        """Nothing has come of it."""
        self._dialling -= 1
        self.serving.give_up(opening)
        self._wake()

    def lost(self, connection: Connection) -> None:
        """A connection that was made is gone."""
        self._open -= 1
        if connection.opening is None:
            self.serving.lose()
        else:
            self.serving.give_up(connection.opening)
        self._wake()

    # --- idle connections

    def release(self, connection: Connection) -> bool:
        """A connection was answered on and may be used again: it is given to whoever waits longest, or closed to make room.

        False when neither is so: it is to be kept.
        """
        serving = self.serving
        if connection.opening is None:
            serving.answer(connection.asked_at, connection.idle_since)
        else:
            self._first_answer(connection, connection.opening)
        if (serving.is_few or self._wants_room) and self._makes_room(connection):
            connection.close()
            return True
        if self.waiting and self.hand_over(connection):
            self._wake()
            return True
        connection.is_alone = serving.is_unproven and _age_s(connection) > self._times.overdue_s
        return False

    def hand_over(self, connection: Connection) -> bool:
        """Give an idle connection to whoever waits longest; False when nobody does."""
        waiter = self._next()
        if waiter is None:
            return False
        waiter.result.set_result(connection)
        return True

    @property
    def one_idle_s(self) -> float:
        """After how long the connection that has been idle for longest is closed, so that a worker is free for others."""
        if self.serving.is_few:
            return self._times.brief_s
        return self._times.last_s if self.serving.answered >= self.serving.most else self._times.idle_s

    def close(self) -> None:
        """Nobody waits any more."""
        for waiter in self.waiting:
            waiter.expire()
        if self._forgetting is not None:
            self._forgetting.cancel()

    # --- inside

    def _may_dial(self) -> bool:
        return self._dialling < max(self._at_once, self._open // _GROWTH)

    def _next(self) -> Waiter | None:
        """Who waits longest; not who was cancelled a moment ago, and leaves the line when its task gets to run."""
        while self.waiting:
            waiter = next(iter(self.waiting))
            del self.waiting[waiter]
            if not waiter.result.done():
                return waiter
        return None

    def _wake(self) -> None:
        """Something has changed that others may have waited for."""
        while self.waiting and self.may_open():
            self._let_open()
        self._on_change(self)

    def _let_open(self) -> None:
        waiter = self._next()
        if waiter is not None:
            waiter.result.set_result(self.begin())

    def _first_answer(self, connection: Connection, opening: Opening) -> None:
        connection.opening = None
        self.serving.first_answer(opening, connection.idle_since)
        if opening.has_room:
            if self._forgetting is not None:
                self._forgetting.cancel()
            self._forgetting = asyncio.get_running_loop().call_later(self._times.idle_s, self._forget)

    def _forget(self) -> None:
        self._forgetting = None
        self.serving.forget()
        self._wake()

    def _makes_room(self, connection: Connection) -> bool:
        """Whether a connection that becomes idle is to be closed, so that a worker takes another one."""
        if self.serving.is_few and _age_s(connection) > self._times.brief_s:
            return True
        opening = self.serving.overdue(connection.idle_since, self._times.overdue_s) if self._wants_room else None
        self._wants_room = opening is not None
        if opening is None:
            return False
        opening.has_room = True
        return True

    # --- who waits for long

    def watch(self) -> None:
        """Look, from now on, at those that wait for a first answer or for a connection, for as long as any do."""
        if not self._is_watched:
            self._is_watched = True
            asyncio.get_running_loop().call_later(self._times.overdue_s, self._look)

    def _look(self) -> None:
        self._is_watched = self.serving.has_unanswered or bool(self.waiting)
        if not self._is_watched:
            return
        now = time.monotonic()
        while (opening := self.serving.overdue(now, self._times.overdue_s)) is not None:
            opening.has_room = self._close_idle()
            if not opening.has_room:
                self._wants_room = self.serving.is_overtaken(opening)
                break
        while self.waiting and self._may_dial() and now - next(iter(self.waiting)).began > self._times.overdue_s:
            self._let_open()
        asyncio.get_running_loop().call_later(self._times.watch_s, self._look)


def _age_s(connection: Connection) -> float:
    """When it was answered on last."""
    return connection.idle_since - connection.connected_at
