"""Closes connections so that a receiver with few workers serves others, and one that got no answer yet is served.

A receiver may serve as many connections at once as it has workers (`core/flow/serving.py`), and other dispatchers want
one of the workers. So:

- Where workers are few, a connection is used briefly and then closed, however much there is to send.
- Elsewhere, when all connections that the receiver has ever served at once are open, the idle ones are closed early:
  there may be no more workers than those.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from go2hooks.core.flow.serving import Opening, Serving
from services.dispatcher.http.connection import Connection


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """How connections to one origin are opened, and how long they are kept."""

    overdue_s: (
        float  #: then an attempt waits no longer for an answered connection, and room is made for an unanswered one
    )
    brief_s: float  #: how long a connection to a receiver with few workers is used, and is kept idle
    last_s: float  #: how long the last worker that a receiver has shown is kept idle
    idle_s: float  #: how long any connection is kept idle; also how long it is remembered that workers are few
    at_once: int = 16  #: connections being made: quick growth where answers take long, no storm where they do not
    open_per_opening: int = 4  #: of so many open connections, one more may be made at the same time

    @classmethod
    def within(cls, timeout_s: float, idle_s: float) -> "QueueLimits":
        """Such that no attempt times out because it waits for a worker that another dispatcher keeps idle."""
        return cls(timeout_s / 5, timeout_s / 10, min(timeout_s / 2, idle_s), idle_s)

    @property
    def watch_s(self) -> float:
        """How often those who wait are looked at."""
        return self.overdue_s / 4


class FewWorkers:
    """Of one origin."""

    __slots__ = ("_close_idle", "_forgetting", "_limits", "_on_forget", "_serving", "_wants_room")

    def __init__(
        self, serving: Serving, limits: QueueLimits, close_idle: Callable[[], bool], on_forget: Callable[[], None]
    ) -> None:
        """`close_idle` closes the connection that has been idle for longest; False when none is.

        `on_forget` is called when it is no longer remembered that workers are few.
        """
        self._serving = serving
        self._limits = limits
        self._close_idle = close_idle
        self._on_forget = on_forget
        self._forgetting: asyncio.TimerHandle | None = None
        self._wants_room = False  # whether the next connection that becomes idle is to be closed

    @property
    def is_remembered(self) -> bool:
        return self._forgetting is not None

    def first_answer(self, opening: Opening, now: float) -> None:
        """A connection was answered on for the first time. If that took room, workers are few."""
        self._serving.first_answer(opening, now)
        if opening.has_room:
            self.close()
            self._forgetting = asyncio.get_running_loop().call_later(self._limits.idle_s, self._forget)

    def close(self) -> None:
        """Stop the timer."""
        if self._forgetting is not None:
            self._forgetting.cancel()

    def make_room(self, now: float) -> None:
        """Close an idle connection for each one that is overdue, or the next that becomes idle."""
        while (opening := self._serving.overdue(now, self._limits.overdue_s)) is not None:
            opening.has_room = self._close_idle()
            if not opening.has_room:
                self._wants_room = self._serving.is_overtaken(opening)
                return

    def takes(self, connection: Connection) -> bool:
        """Whether a connection that becomes idle is to be closed."""
        if self._serving.is_few and age_s(connection) > self._limits.brief_s:
            return True
        if not self._wants_room:
            return False
        opening = self._serving.overdue(connection.idle_since, self._limits.overdue_s)
        self._wants_room = opening is not None
        if opening is None:
            return False
        opening.has_room = True
        return True

    @property
    def one_idle_s(self) -> float:
        """How long the connection that has been idle for longest is kept."""
        if self._serving.is_few:
            return self._limits.brief_s
        return self._limits.last_s if self._serving.answered >= self._serving.most else self._limits.idle_s

    def _forget(self) -> None:
        self._forgetting = None
        self._serving.forget()
        self._on_forget()


def age_s(connection: Connection) -> float:
    """The age of a connection that became idle just now."""
    return connection.idle_since - connection.connected_at
