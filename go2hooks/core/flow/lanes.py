"""A lane per webhook: how many attempts may be under way to it at once, and what waits behind them.

What keeps one webhook from delaying another:

- Each lane has a concurrency limit, found by additive increase (while answers come quickly) and multiplicative decrease
  (on failures): a new or recovering receiver starts with few attempts and earns more (`concurrency_limit`).
- Each lane's queue is bounded by a share of the room that is left in the window (`lane_queues`).
- Lanes that have something to start take turns, one attempt each (`turns`).
- A lane whose attempts last longer than a second is slow, from the moment that they do. Slow lanes have a bounded part
  of all attempts and of the window, however many they are (`sends`, `lane_queues`).
- A lane with an allowance of its customer's (`allowance`) starts nothing before its time. If the allowance keeps what
  waits for longer than a second, the lane is slow, too.
- After consecutive failures a lane's circuit opens: one probe at a time, with growing pauses, until one succeeds
  (`circuit_breaker`).

Pure: time comes in as `now`, in seconds of any monotonic clock.
"""

from collections.abc import Callable, Iterator
from enum import Enum, auto
from math import ceil
from typing import TypeVar

from go2hooks.core.flow.allowance import Allowance
from go2hooks.core.flow.lane import FAST, SLOW, UNPROVEN, Lane, LaneLimits
from go2hooks.core.flow.lane_queues import LaneQueues
from go2hooks.core.flow.lane_table import LaneTable
from go2hooks.core.flow.sends import SendBudget
from go2hooks.core.flow.turns import Turns

T = TypeVar("T")


class Admission(Enum):
    """What became of an offered item."""

    START = auto()  #: start it now; it counts as under way
    QUEUED = auto()  #: it waits in its lane; `startable` gives it out
    FULL = auto()  #: its lane has no room: the caller keeps it elsewhere
    BLOCKED = auto()  #: its lane's circuit is open: the caller keeps it elsewhere


class Lanes(LaneTable[T]):
    """All lanes of one process. Not thread-safe: one event loop owns it."""

    def __init__(
        self,
        limits: LaneLimits,
        weigh: Callable[[T], int] = lambda _: 1,
        allowance: Callable[[str], Allowance | None] = lambda _: None,
    ) -> None:
        """`weigh` says how much of the window an item takes, `allowance` what a webhook's customer allows."""
        super().__init__(limits, allowance)
        self.sends = SendBudget(limits)
        self.queues: LaneQueues[T] = LaneQueues(limits, weigh)
        self.turns: Turns[T] = Turns(self.sends)

    # --- an item's way

    def offer(self, webhook_id: str, item: T, now: float) -> Admission:
        """Start it, queue it, or say why neither."""
        lane = self._use(webhook_id, now)
        self.sends.age(now)
        self.queues.note(lane, now)
        self._becomes_slow(lane, now)
        if lane.circuit.is_open:
            return self._start(lane, now) if self._may_probe(lane, now) else Admission.BLOCKED
        if not lane.queue and self.sends.may_start(lane.standing) and self._has_send(lane, now):
            return self._start(lane, now)
        if lane.waiting >= self.queues.allowed(lane, now):
            return Admission.FULL
        return self._enqueue(lane, item, first=False)

    def offer_first(self, webhook_id: str, item: T, now: float) -> Admission:
        """Start it, or queue it first until its webhook's allowance has a request, whatever its lane's state."""
        lane = self._use(webhook_id, now)
        return self._start(lane, now) if self._has_send(lane, now) else self._enqueue(lane, item, first=True)

    def startable(self, now: float) -> Iterator[T]:
        """What may start now, lane by lane in turn; each counts as under way once given out."""
        self.sends.age(now)
        while (lane := self.turns.next(now)) is not None:
            if self._becomes_slow(lane, now):  # it waits with these from now on
                continue
            if not lane.may_begin(now):
                self.turns.rest(lane)
            elif lane.queue and lane.in_flight < self.sends.allowed(lane):
                item = self.queues.take(lane, lane.queue)
                self._start(lane, now)
                self.turns.add(lane)
                yield item

    def finish(self, webhook_id: str, *, ok: bool, duration_s: float, now: float) -> list[T]:
        """An attempt has ended. Returns what can no longer wait in memory because the circuit has opened."""
        lane = self._lanes[webhook_id]
        self.sends.end(lane, now - duration_s)
        lane.used_at = now
        lane.measure(now)
        self._judge(lane, SLOW if duration_s > self._limits.quick_s or lane.is_behind else FAST)
        if ok:
            lane.reward(duration_s, now)
        else:
            lane.punish(now - duration_s, now)
            if lane.circuit.is_open:
                return self.queues.clear(lane)
        self.turns.add(lane)
        return []

    def release_slot(self, webhook_id: str) -> None:
        """What was given out to be started was not attempted after all: its place is free, and nothing is learnt."""
        lane = self._lanes[webhook_id]
        self.sends.release(lane)
        self.turns.add(lane)

    # --- what is asked and told about a webhook

    def room(self, webhook_id: str, now: float) -> int:
        """What weight `offer` would take of this webhook now, to start or to queue; a little less of many items."""
        lane = self._lanes.get(webhook_id) or self._new_lane(webhook_id, now)
        self._becomes_slow(lane, now)
        self.sends.age(now)
        if lane.circuit.is_open:
            return int(self._may_probe(lane, now))
        queue = max(0, ceil(self.queues.allowed(lane, now)) - lane.waiting)
        if lane.queue or not self.sends.may_start(lane.standing):
            return queue
        return queue + max(0, min(self.sends.free(lane.standing), ceil(self.sends.allowed(lane)) - lane.in_flight))

    def turn_in_s(self, webhook_id: str, now: float, most_s: float) -> float:
        """Seconds until an item that is moved aside may come back: as a probe, or with a request of the allowance."""
        lane = self._lanes.get(webhook_id)
        if lane is None:
            return 0.0
        if lane.circuit.is_open:
            return max(0.0, lane.circuit.probe_at - now)
        if lane.allowance is None:
            return 0.0
        return lane.allowance.turn_in_s(now, len(lane.queue or ()), lane.rate, most_s)

    def allow(self, webhook_id: str, now: float) -> None:
        """The webhook's allowance has changed."""
        lane = self._lanes.get(webhook_id)
        if lane is not None:
            lane.allow(self._allowance(webhook_id), now)
            lane.is_resting = False  # until then, which may be too long: what it has been given is looked at anew
            self.turns.add(lane)

    def sweep(self, now: float, idle_s: float = 60.0) -> None:
        """See who has become slow. Forget lanes that have been idle for `idle_s` and have nothing against them."""
        for lane in list(self._lanes.values()):
            self._becomes_slow(lane, now)
            is_held_against = lane.circuit.is_open and now - lane.circuit.probe_at < self._limits.forgiven_s
            if not lane.in_flight and not lane.queue and now - lane.used_at > idle_s and not is_held_against:
                del self._lanes[lane.webhook_id]

    # --- one lane

    def _has_send(self, lane: Lane[T], now: float) -> bool:
        return lane.in_flight < self.sends.allowed(lane) and lane.may_begin(now)

    def _may_probe(self, lane: Lane[T], now: float) -> bool:
        is_time = now >= lane.circuit.probe_at and lane.may_begin(now)
        return is_time and not lane.in_flight and self.sends.free(lane.standing) > 0

    def _start(self, lane: Lane[T], now: float) -> Admission:
        self.sends.begin(lane)
        if lane.allowance is not None:
            lane.allowance.take(now)
        return Admission.START

    def _enqueue(self, lane: Lane[T], item: T, *, first: bool) -> Admission:
        self.queues.put(lane, item, first=first)
        self.turns.add(lane)
        return Admission.QUEUED

    def _becomes_slow(self, lane: Lane[T], now: float) -> bool:
        if lane.standing == SLOW:
            return False
        is_stuck = (lane.in_flight > 0 and now - lane.progress_at > self._limits.quick_s) or lane.is_behind
        if not is_stuck and (lane.standing == FAST or self.sends.free(UNPROVEN) > 0):
            return False
        self._judge(lane, SLOW)
        return True

    def _judge(self, lane: Lane[T], standing: int) -> None:
        if standing == lane.standing:
            return
        self.turns.remove(lane)
        self.sends.move(lane, standing)
        self.queues.move(lane, standing)
        lane.standing = standing
        self.turns.add(lane)
