"""Decides which event is routed next. Reads no clock but the thread's own: time comes in as `now`, in monotonic
seconds.

Events are keyed by account, so a burst of one account lies in one partition, before the events of others. Each turn
routes one event of each account that has any, then another, until the turn is full.

An account that brings a third of all events is heavy, and has turns of its own, every few milliseconds: events that
gather until then cost Kafka and the dispatchers much less. How much of its backlog is routed in one turn depends on
whether a processor is free.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Final

from go2hooks.core.flow.batch_size import AdaptiveBatch
from go2hooks.core.flow.fair_queue import FairQueue
from services.router.batch import ReadEvent


@dataclass(frozen=True, slots=True)
class RouterBounds:
    """What a router holds at most, and for how long."""

    window: int  #: deliveries written and not yet acknowledged
    lookahead: int  #: events read and not yet routed
    lookahead_bytes: int
    gather_s: float  #: how long the events of a heavy account wait for each other


@dataclass(frozen=True, slots=True)
class TurnLimits:
    """When a turn ends, and which account crowds out others."""

    events: int = 200  #: of accounts that are not heavy; between turns the router reads, and stores offsets
    #: Fan-outs to a thousand webhooks wait for room in librdkafka, and a consumer that has not polled for minutes loses
    #: its partitions with nothing committed, again and again. So a turn ends after this time, however few events it
    #: routed.
    longest_s: float = 1.0
    crowd: int = 1000  #: waiting events of one account, which others' later events would have to wait for
    tick_s: float = 0.001  #: librdkafka does not wait for less


@dataclass(frozen=True, slots=True)
class HeavyLimits:
    """How many events of the heavy accounts are routed in one turn."""

    least: int = 4  #: events of their backlog
    most: int = 200  #: likewise; as many as the other accounts may route
    step: int = 2  #: more of them each time that a processor was free
    hindered: float = 0.1  #: share of a turn's time in which another thread had the processor: then half as many
    #: More events than this that came since the last turn: the router reads on first, since others' events lie behind
    #: them.
    rush: int = 200


_TURN: Final = TurnLimits()
_HEAVY: Final = HeavyLimits()


class Scheduler:
    """Holds the events that are read, and gives them out in turns: `begin_turn`, then `take` until it gives None."""

    def __init__(self, bounds: RouterBounds, thread_time: Callable[[], float] = time.thread_time) -> None:
        """`thread_time` tells the processor time of the thread that routes, in seconds."""
        self._bounds = bounds
        self._thread_time = thread_time
        self._queue: FairQueue[bytes, ReadEvent] = FairQueue()
        self._bytes = 0
        self._left = 0  # events that this turn may still take
        self._began_at = 0.0
        self._ends_at = 0.0
        self._is_heavy_turn = False
        self._heavy_pace = AdaptiveBatch(_HEAVY.least, _HEAVY.most, _HEAVY.step)
        self._heavy_at = 0.0  # when the heavy accounts have their next turn
        self._heavy_began_at = 0.0
        self._heavy_worked_s = 0.0
        self._waited = 0  # events that waited after the heavy accounts' last turn

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def room(self) -> int:
        """How many events may be read now."""
        return self._bounds.lookahead - len(self._queue) if self._bytes < self._bounds.lookahead_bytes else 0

    def put(self, event: ReadEvent, now: float) -> None:
        self._bytes += event.size
        self._queue.put(event.account, event, now)

    def wait_s(self, now: float) -> float:
        """Seconds until an event may be routed: 0 for at once, infinite when none waits."""
        if not self._queue:
            return inf
        if self._queue.has_light or self._is_filling():
            return 0.0
        wait_s = self._heavy_at - now
        return max(_TURN.tick_s, wait_s) if wait_s > 0 else 0.0

    def begin_turn(self, now: float) -> None:
        self._left, self._is_heavy_turn = _TURN.events, False
        self._began_at, self._ends_at = now, now + _TURN.longest_s

    def take(self, now: float) -> ReadEvent | None:
        """The next event of this turn; None when the turn is over."""
        if self._left > 0 and now < self._ends_at:
            self._left -= 1
            taken = self._queue.take_heavy() if self._is_heavy_turn else self._queue.take(now)
            if taken is not None:
                self._bytes -= taken[1].size
                return taken[1]
        if self._is_heavy_turn:
            self._end_heavy_turn(now)
            return None
        return self.take(now) if self._begin_heavy_turn(now) else None

    def is_crowding(self, account: bytes, now: float) -> bool:
        """Whether the account has so much waiting that it crowds out the others."""
        return self._queue.is_crowding(account, _TURN.crowd, now)

    def _begin_heavy_turn(self, now: float) -> bool:
        """Whether the heavy accounts have a turn now: as many events as came since their last one, and some backlog."""
        filling = self._is_filling()
        if not filling and self._began_at < self._heavy_at:
            return False
        came = len(self._queue) - self._waited
        self._waited, self._heavy_at = len(self._queue), self._began_at + self._bounds.gather_s
        if not self._queue.has_heavy or (came >= _HEAVY.rush and not filling):
            return False
        self._left, self._ends_at = min(max(0, came), _HEAVY.rush) + self._heavy_pace.items, now + _TURN.longest_s
        self._is_heavy_turn, self._heavy_began_at, self._heavy_worked_s = True, now, self._thread_time()
        return True

    def _end_heavy_turn(self, now: float) -> None:
        self._waited = len(self._queue)
        worked_s, took_s = self._thread_time() - self._heavy_worked_s, now - self._heavy_began_at
        self._heavy_pace.note(hindered=took_s - worked_s > _HEAVY.hindered * took_s)

    def _is_filling(self) -> bool:
        """Whether what waits takes half of the room: once it takes all, nothing more is read, of any account."""
        bounds = self._bounds
        return 2 * len(self._queue) > bounds.lookahead or 2 * self._bytes > bounds.lookahead_bytes
