"""Which lane starts the next attempt: lanes that have something to start take turns, one attempt each.

Slow lanes and the others alternate while both have one that may start something. A lane with an allowance of its
customer's waits until the allowance has a request for it.

Pure: time comes in as `now`, in seconds of any monotonic clock.
"""

from collections import OrderedDict
from heapq import heappop, heappush
from math import inf
from typing import Generic, TypeVar

from go2hooks.core.flow.lane import FAST, SLOW, Lane
from go2hooks.core.flow.sends import SendBudget

T = TypeVar("T")


class Turns(Generic[T]):
    """Lanes that may start something, in the order of their turns."""

    __slots__ = ("_fast", "_order", "_resting", "_sends", "_slow", "_slow_is_next")

    def __init__(self, sends: SendBudget) -> None:
        self._sends = sends
        self._fast: OrderedDict[Lane[T], None] = OrderedDict()  # and unproven ones
        self._slow: OrderedDict[Lane[T], None] = OrderedDict()
        self._slow_is_next = False
        self._resting: list[tuple[float, int, Lane[T]]] = []  # a heap, by when their allowance has a request
        self._order = 0  # breaks ties, so that lanes are never compared

    @property
    def has_any(self) -> bool:
        """Whether a lane may start something now, or as soon as those that have just begun are older."""
        return self._may_slow_start() or (bool(self._fast) and self._sends.free(FAST) > 0)

    @property
    def next_at(self) -> float:
        """When the next allowance has a request for a lane that rests; infinity when none rests."""
        return self._resting[0][0] if self._resting else inf

    def add(self, lane: Lane[T]) -> None:
        """Give the lane a turn if it has something that it may start; it keeps its place when it has one."""
        if lane.queue and lane.in_flight < self._sends.allowed(lane):
            if lane.allowance is None:
                self._ring_of(lane)[lane] = None
            else:
                self.rest(lane)

    def rest(self, lane: Lane[T]) -> None:
        """Let it wait for its allowance."""
        if lane.allowance is not None and not lane.is_resting:
            lane.is_resting = True
            self._order += 1
            heappush(self._resting, (lane.allowance.next_at, self._order, lane))

    def remove(self, lane: Lane[T]) -> None:
        """Before its standing changes."""
        self._ring_of(lane).pop(lane, None)

    def next(self, now: float) -> Lane[T] | None:
        """Whose turn it is; None when no lane may start anything."""
        if not self._sends.may_start(FAST):
            return None
        while self._resting and self._resting[0][0] <= now:
            self._wake(heappop(self._resting)[2], now)
        slow = self._may_slow_start() and (self._slow_is_next or not self._fast)
        ring = self._slow if slow else self._fast
        if not ring:
            return None
        self._slow_is_next = not slow
        lane, _ = ring.popitem(last=False)
        return lane

    def _wake(self, lane: Lane[T], now: float) -> None:
        lane.is_resting = False
        if not lane.may_begin(now):
            self.rest(lane)
        elif lane.queue and lane.in_flight < self._sends.allowed(lane):
            self._ring_of(lane)[lane] = None

    def _may_slow_start(self) -> bool:
        return bool(self._slow) and self._sends.free(SLOW) > 0

    def _ring_of(self, lane: Lane[T]) -> OrderedDict[Lane[T], None]:
        return self._slow if lane.standing == SLOW else self._fast
