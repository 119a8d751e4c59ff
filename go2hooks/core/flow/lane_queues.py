"""How much may wait in memory behind each lane.

Each lane's queue is bounded by a share of the room that is *left* in the window (dynamic thresholds, Choudhury and
Hahne 1998): one lane can take part of an empty window, and hardly anything of a crowded one. So the window never fills
up and the partition never stops. What exceeds the share overflows. A lane that empties its queue within five seconds
keeps its share however crowded the window is, and takes all of it while no other webhook has anything: a backlog that
only waits for its turn need not take the longer way.

A lane may have filled the window so, and become slow since: then what exceeds the share that it would be given now is
taken out again. All slow lanes together have half of the window.

Pure: time comes in as `now`, in seconds of any monotonic clock.
"""

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from go2hooks.core.flow.lane import SLOW, Lane, LaneLimits
from go2hooks.core.flow.sole_key import SoleKeyDetector

T = TypeVar("T")


class LaneQueues(Generic[T]):
    """Counts what waits in all lanes, in items and by weight."""

    __slots__ = ("_busy", "_by_standing", "_limits", "_sole_key", "_weigh", "items", "weight")

    def __init__(self, limits: LaneLimits, weigh: Callable[[T], int]) -> None:
        self.items = 0  #: that wait
        self.weight = 0  #: of the window, that they take
        self._busy: dict[Lane[T], None] = {}  # lanes in which something waits
        self._limits = limits
        self._weigh = weigh
        self._by_standing = [0, 0, 0]  # weight
        self._sole_key: SoleKeyDetector[str] = SoleKeyDetector()

    def note(self, lane: Lane[T], now: float) -> None:
        """An item is offered to this lane."""
        self._sole_key.note(lane.webhook_id, now)

    def allowed(self, lane: Lane[T], now: float) -> float:
        """The weight that may wait in this lane."""
        window, share = self._limits.window, self._limits.queue_share
        if lane.is_quick(now):
            room = window * self._limits.quick_room
            if self._sole_key.is_sole(lane.webhook_id, now):
                return room
            allowed = min(room - self.weight, window * share)
        else:
            allowed = max(1.0, (window - self.weight) * share)
        if lane.allowance is not None:
            allowed = min(allowed, lane.allowance.room)
        if lane.standing == SLOW:
            return min(allowed, (window * self._limits.slow_share - self._by_standing[SLOW]) * share)
        return allowed

    def put(self, lane: Lane[T], item: T, *, first: bool) -> None:
        if lane.queue is None:
            lane.queue = deque()
            self._busy[lane] = None
        if first:
            lane.queue.appendleft(item)
        else:
            lane.queue.append(item)
        self._count(lane, 1, self._weigh(item))

    def take(self, lane: Lane[T], queue: deque[T]) -> T:
        """The first item of the lane's queue."""
        item = queue.popleft()
        self._count(lane, -1, -self._weigh(item))
        if not queue:
            self._empty(lane)
        return item

    def clear(self, lane: Lane[T]) -> list[T]:
        """Everything that waits in the lane."""
        if lane.queue is None:
            return []
        waiting = list(lane.queue)
        self._count(lane, -len(waiting), -lane.waiting)
        self._empty(lane)
        return waiting

    def evict(self, unwanted: Callable[[T], bool]) -> list[T]:
        """Take items out, whatever their lane."""
        evicted: list[T] = []
        for lane in list(self._busy):
            waiting = lane.queue or ()
            gone = [item for item in waiting if unwanted(item)]
            if gone:
                lane.queue = deque(item for item in waiting if not unwanted(item))
                self._count(lane, -len(gone), -sum(map(self._weigh, gone)))
                evicted += gone
                if not lane.queue:
                    self._empty(lane)
        return evicted

    def surplus(self, now: float, most: int) -> list[T]:
        """Take out at most so many items that exceed their lane's share, the latest first, and never a lane's last.

        Nothing while half of the window is free, nor of a lane that works it off by itself in good time.
        """
        surplus: list[T] = []
        if self.weight <= self._limits.window * self._limits.slow_share:
            return surplus
        for lane in self._busy:
            queue = lane.queue
            while queue is not None and len(surplus) < most and self._has_surplus(lane, len(queue), now):
                item = queue.pop()
                self._count(lane, -1, -self._weigh(item))
                surplus.append(item)
            if len(surplus) >= most:
                break
        return surplus

    def move(self, lane: Lane[T], standing: int) -> None:
        """The lane's standing is about to change."""
        self._by_standing[lane.standing] -= lane.waiting
        self._by_standing[standing] += lane.waiting

    def _has_surplus(self, lane: Lane[T], items: int, now: float) -> bool:
        return items > 1 and lane.is_slow and lane.waiting > self.allowed(lane, now)

    def _empty(self, lane: Lane[T]) -> None:
        lane.queue = None
        del self._busy[lane]

    def _count(self, lane: Lane[T], items: int, weight: int) -> None:
        self.items += items
        lane.waiting += weight
        self.weight += weight
        self._by_standing[lane.standing] += weight
