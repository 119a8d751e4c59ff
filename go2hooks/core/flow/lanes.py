"""A lane per webhook: how many attempts may be under way to it at once, and what waits behind them.

What keeps one webhook from delaying another:

- Each lane has a concurrency limit, found by additive increase (while answers come quickly) and multiplicative decrease
  (on failures): a new or recovering receiver starts with few attempts and earns more.
- Each lane's queue is bounded by a share of the room that is *left* in the window (dynamic thresholds, Choudhury and
  Hahne 1998): one lane can take part of an empty window, and hardly anything of a crowded one, so the window never
  fills up and the partition never stops. What exceeds the share overflows. A lane that empties its queue within five
  seconds keeps its share however crowded it is, and takes all there is while no other webhook has anything: a backlog
  that only waits for its turn need not take the longer way.
  It may have filled the window so, and become slow since: then what it has beyond the share that it would be given now
  is taken out again.
- Lanes that have something to start take turns, one attempt each.
- A lane whose attempts last longer than a second is slow, from the moment that they do. All slow lanes together have half
  of the attempts and half of the window, however many they are, and with those that have not answered yet three quarters
  of the attempts: a thousand receivers that never answer leave the rest to those that do.
- Of attempts that have just begun only so many are under way. A receiver that answers at once needs no more, and a connection
  that was used a moment ago is still in the processor's cache; what is under way for longer leaves its place to others.
- A lane with an allowance of its customer's (`allowance.py`) starts nothing before its time. What its allowance keeps for
  longer than a second makes it slow, too.
- After consecutive failures (`failures.py`) a lane's circuit opens: one probe at a time, with growing pauses, until one
  succeeds.

Pure: time comes in as `now`, in seconds of any monotonic clock.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from enum import Enum, auto
from math import ceil
from typing import Final, Generic, TypeVar

from go2hooks.core.flow.allowance import Allowance
from go2hooks.core.flow.lane import FAST, QUICK_S, SLOW, UNPROVEN, Lane, LaneLimits, Resting
from go2hooks.core.flow.sole_key import SoleKeyDetector

T = TypeVar("T")

# Quick lanes reckon with half as much room again, so that they fill the window up together without overflowing: they
# will have emptied it in a moment.
QUICK_ROOM: Final = 1.5
_FORGIVEN_S: Final = 3600.0  # so long after a probe was due that nobody made, nobody will
YOUNG_S: Final = 0.01  #: an attempt has just begun for at least as long, at most twice as long


class Admission(Enum):
    """What became of an offered item."""

    START = auto()  #: start it now; it counts as under way
    QUEUED = auto()  #: it waits in its lane; `startable` gives it out
    FULL = auto()  #: its lane has no room: the caller keeps it elsewhere
    BLOCKED = auto()  #: its lane's circuit is open: the caller keeps it elsewhere


class Lanes(Generic[T]):
    """All lanes of one process. Not thread-safe: one event loop owns it."""

    def __init__(
        self,
        limits: LaneLimits,
        weigh: Callable[[T], int] = lambda _: 1,
        allowance: Callable[[str], Allowance | None] = lambda _: None,
    ) -> None:
        """`weigh` says how much of the window an item takes, `allowance` what a webhook's customer allows."""
        self._allowance = allowance
        self.limits = limits
        self._weigh = weigh
        self._slow_sends = max(1, int(limits.max_sends * limits.slow_share))
        self._unproven_sends = max(1, int(limits.max_sends * limits.unproven_share))
        self.in_flight = 0
        self.queued = 0  #: items
        # Of the attempts begun since the first, and since the second time before it: those that are still under way.
        self._young, self._young_since = 0, 0.0
        self._older, self._older_since = 0, 0.0
        self._waiting = 0  # their weight
        self._lanes: dict[str, Lane[T]] = {}
        self._sends_by = [0, 0, 0]  # under way, by their lanes' standing
        self._waiting_by = [0, 0, 0]  # weight of what waits, likewise
        # Lanes that may start something, in the order of their turns; the slow ones apart, as theirs may be to wait.
        self._ring: OrderedDict[Lane[T], None] = OrderedDict()
        self._slow_ring: OrderedDict[Lane[T], None] = OrderedDict()
        self._turn_is_slow = False
        self._resting: Resting[T] = Resting()
        self._sole_key: SoleKeyDetector[str] = SoleKeyDetector()  # of the webhooks that something is offered for

    def __len__(self) -> int:
        return len(self._lanes)

    def offer(self, webhook_id: str, item: T, now: float) -> Admission:
        """Start it, queue it, or say why neither."""
        lane = self._lanes.get(webhook_id)
        if lane is None:
            lane = self._new_lane(webhook_id, now)
        lane.used_at = now
        self._age(now)
        self._sole_key.note(webhook_id, now)
        if not lane.in_flight and not lane.queue:
            lane.progress_at = now
        self._becomes_slow(lane, now)
        if lane.circuit.is_open:
            return self._offer_probe(lane, now)
        if (
            not lane.queue
            and self._may_start(lane.standing)
            and lane.in_flight < self._sends_allowed(lane)
            and lane.may_begin(now)
        ):
            self._start(lane, now)
            return Admission.START
        if lane.waiting >= self._queue_allowed(lane, now):
            return Admission.FULL
        self._enqueue(lane, item, first=False)
        return Admission.QUEUED

    def offer_first(self, webhook_id: str, item: T, now: float) -> Admission:
        """Start it, or have it start as soon as the webhook's allowance lets it: before all others, whatever state its lane is in."""
        lane = self._lanes.get(webhook_id)
        if lane is None:
            lane = self._new_lane(webhook_id, now)
        lane.used_at = now
        if not lane.in_flight and not lane.queue:
            lane.progress_at = now
        if lane.in_flight < self._sends_allowed(lane) and lane.may_begin(now):
            self._start(lane, now)
            return Admission.START
        self._enqueue(lane, item, first=True)
        return Admission.QUEUED

    def _enqueue(self, lane: Lane[T], item: T, *, first: bool) -> None:
        if lane.queue is None:
            lane.queue = deque()
        if first:
            lane.queue.appendleft(item)
        else:
            lane.queue.append(item)
        self._count(lane, 1, self._weigh(item))
        self._make_ready(lane)

    def finish(self, webhook_id: str, *, ok: bool, duration_s: float, now: float) -> list[T]:
        """An attempt has ended. Returns what can no longer wait in memory because the circuit has opened."""
        lane = self._lanes[webhook_id]
        self._count_sends(lane, -1)
        self._forget_young(now - duration_s)
        lane.used_at = now
        lane.measure(now)
        self._judge(lane, SLOW if duration_s > QUICK_S or lane.is_behind else FAST)
        if ok:
            lane.reward(duration_s, now)
        else:
            lane.punish(now - duration_s, now)
            if lane.circuit.is_open:
                return self._clear(lane)
        self._make_ready(lane)
        return []

    def release_slot(self, webhook_id: str) -> None:
        """What was given out to be started was not attempted after all: its place is free, and nothing is learnt."""
        lane = self._lanes[webhook_id]
        self._count_sends(lane, -1)
        self._make_ready(lane)

    @property
    def has_startable(self) -> bool:
        """Whether something waits that may start now, or as soon as those that have just begun are older."""
        return self._may_slow_start() or (bool(self._ring) and self._free_sends(FAST) > 0)

    def startable(self, now: float) -> Iterator[T]:
        """What may start now, lane by lane in turn; each counts as under way once given out."""
        self._age(now)
        while self._may_start(FAST) and (lane := self._next_lane(now)) is not None:
            if self._becomes_slow(lane, now):  # it waits with these from now on
                continue
            if not lane.may_begin(now):
                self._resting.add(lane)
            elif lane.queue and lane.in_flight < self._sends_allowed(lane):
                item = lane.queue.popleft()
                self._count(lane, -1, -self._weigh(item))
                if not lane.queue:
                    lane.queue = None
                self._start(lane, now)
                self._make_ready(lane)
                yield item

    @property
    def next_turn_at(self) -> float:
        """When the next allowance has a request for one that waits; infinity when none is waited for."""
        return self._resting.next_at

    def evict(self, unwanted: Callable[[T], bool]) -> list[T]:
        """Take queued items out, whatever their lane."""
        evicted: list[T] = []
        for lane in self._lanes.values():
            if lane.queue:
                gone = [item for item in lane.queue if unwanted(item)]
                if gone:
                    lane.queue = deque(item for item in lane.queue if not unwanted(item)) or None
                    self._count(lane, -len(gone), -sum(map(self._weigh, gone)))
                    evicted += gone
        return evicted

    def surplus(self, now: float, most: int) -> list[T]:
        """Take out what waits beyond the share that its lane would be given now, the latest first, at most so many items.

        Nothing while half of the window is free, nor of a lane that works it off by itself in good time.
        """
        surplus: list[T] = []
        if self._waiting <= self.limits.window * self.limits.slow_share:
            return surplus
        for lane in self._lanes.values():
            queue = lane.queue
            while queue is not None and len(surplus) < most and self._has_surplus(lane, now):
                item = queue.pop()  # never the last
                self._count(lane, -1, -self._weigh(item))
                surplus.append(item)
            if len(surplus) >= most:
                break
        return surplus

    def sweep(self, now: float, idle_s: float = 60.0) -> None:
        """See who has become slow. Forget lanes that have been idle for `idle_s` and have nothing against them."""
        idle: list[str] = []
        for lane in self._lanes.values():
            self._becomes_slow(lane, now)
            is_held_against = lane.circuit.is_open and now - lane.circuit.probe_at < _FORGIVEN_S
            if not lane.in_flight and not lane.queue and now - lane.used_at > idle_s and not is_held_against:
                idle.append(lane.webhook_id)
        for webhook_id in idle:
            del self._lanes[webhook_id]

    def reset(self, webhook_id: str) -> None:
        """The webhook has changed (another URL, enabled again): what was held against it no longer counts."""
        lane = self._lanes.get(webhook_id)
        if lane is not None:
            lane.forgive()

    def room(self, webhook_id: str, now: float) -> int:
        """What weight `offer` would take of this webhook now, to start or to queue; of many items, a little less than that."""
        lane = self._lanes.get(webhook_id)
        if lane is None:
            lane = Lane(webhook_id, self.limits)
            lane.allow(self._allowance(webhook_id), now)
        self._becomes_slow(lane, now)
        self._age(now)
        if lane.circuit.is_open:
            return int(self._may_probe(lane, now))
        queue = max(0, ceil(self._queue_allowed(lane, now)) - lane.waiting)
        if lane.queue or not self._may_start(lane.standing):
            return queue
        return queue + max(0, min(self._free_sends(lane.standing), ceil(self._sends_allowed(lane)) - lane.in_flight))

    def probe_in_s(self, webhook_id: str, now: float) -> float:
        """Seconds until an open circuit admits its next probe; 0 for a closed one."""
        return max(0.0, self._lanes[webhook_id].circuit.probe_at - now) if self.is_blocked(webhook_id) else 0.0

    def turn_in_s(self, webhook_id: str, now: float, most_s: float) -> float:
        """Seconds until one that is moved aside may come back: its circuit's probe, or its turn by the webhook's allowance, in
        `most_s` at most.
        """
        lane = self._lanes[webhook_id]
        if lane.circuit.is_open or lane.allowance is None:
            return self.probe_in_s(webhook_id, now)
        return lane.allowance.turn_in_s(now, len(lane.queue or ()), lane.rate, most_s)

    def allow(self, webhook_id: str, now: float) -> None:
        """The webhook's allowance has changed."""
        lane = self._lanes.get(webhook_id)
        if lane is not None:
            lane.allow(self._allowance(webhook_id), now)
            lane.is_resting = False  # until then, which may be too long: what it has been given is looked at anew
            self._make_ready(lane)

    def is_blocked(self, webhook_id: str) -> bool:
        """Whether its circuit is open."""
        lane = self._lanes.get(webhook_id)
        return lane is not None and lane.circuit.is_open

    def open_circuits(self) -> int:
        """Any thread."""
        return sum(lane.circuit.is_open for lane in list(self._lanes.values()))

    # --- one lane

    def _offer_probe(self, lane: Lane[T], now: float) -> Admission:
        if not self._may_probe(lane, now):
            return Admission.BLOCKED
        self._start(lane, now)
        return Admission.START

    def _may_probe(self, lane: Lane[T], now: float) -> bool:
        is_time = now >= lane.circuit.probe_at and lane.may_begin(now)
        return is_time and not lane.in_flight and self._free_sends(lane.standing) > 0

    def _may_start(self, standing: int) -> bool:
        return self._free_sends(standing) > 0 and self._young + self._older < self.limits.young_sends

    def _may_slow_start(self) -> bool:
        return bool(self._slow_ring) and self._free_sends(SLOW) > 0

    def _next_lane(self, now: float) -> Lane[T] | None:
        """Whose turn it is. Tardy lanes and the others alternate while both have one that may start something."""
        for rested in self._resting.wake(now) if self._resting else ():
            if rested.queue and rested.in_flight < self._sends_allowed(rested):
                self._ring_of(rested)[rested] = None
        slow = self._may_slow_start() and (self._turn_is_slow or not self._ring)
        ring = self._slow_ring if slow else self._ring
        if not ring:
            return None
        self._turn_is_slow = not slow
        lane, _ = ring.popitem(last=False)
        return lane

    def _new_lane(self, webhook_id: str, now: float) -> Lane[T]:
        lane = self._lanes[webhook_id] = Lane(webhook_id, self.limits)
        lane.allow(self._allowance(webhook_id), now)
        return lane

    def _start(self, lane: Lane[T], now: float) -> None:
        self._count_sends(lane, 1)
        self._young += 1
        if lane.allowance is not None:
            lane.allowance.take(now)

    def _age(self, now: float) -> None:
        elapsed = now - self._young_since
        if elapsed >= YOUNG_S:
            counted = elapsed < 2 * YOUNG_S
            self._older, self._older_since = (self._young, self._young_since) if counted else (0, now)
            self._young, self._young_since = 0, now

    def _forget_young(self, began: float) -> None:
        """An attempt that began then has ended. It is not known to the microsecond; what is miscounted is soon forgotten."""
        if began >= self._young_since:
            self._young -= 1
        elif began >= self._older_since:
            self._older -= 1

    def _becomes_slow(self, lane: Lane[T], now: float) -> bool:
        if lane.standing == SLOW:
            return False
        is_stuck = (lane.in_flight > 0 and now - lane.progress_at > QUICK_S) or lane.is_behind
        if not is_stuck and (lane.standing == FAST or self._free_sends(UNPROVEN) > 0):
            return False
        self._judge(lane, SLOW)
        return True

    def _judge(self, lane: Lane[T], standing: int) -> None:
        if standing == lane.standing:
            return
        self._ring_of(lane).pop(lane, None)
        self._sends_by[lane.standing] -= lane.in_flight
        self._waiting_by[lane.standing] -= lane.waiting
        lane.standing = standing
        self._sends_by[standing] += lane.in_flight
        self._waiting_by[standing] += lane.waiting
        self._make_ready(lane)

    def _ring_of(self, lane: Lane[T]) -> OrderedDict[Lane[T], None]:
        return self._slow_ring if lane.standing == SLOW else self._ring

    def _make_ready(self, lane: Lane[T]) -> None:
        if lane.queue and lane.in_flight < self._sends_allowed(lane):
            if lane.allowance is None:
                self._ring_of(lane)[lane] = None  # keeps its place when it has one
            else:
                self._resting.add(lane)

    def _free_sends(self, standing: int) -> int:
        """How many more attempts there may be, of all lanes of this standing."""
        free = self.limits.max_sends - self.in_flight
        if standing == FAST:
            return free
        free = min(free, self._unproven_sends - self._sends_by[UNPROVEN] - self._sends_by[SLOW])
        return free if standing == UNPROVEN else min(free, self._slow_sends - self._sends_by[SLOW])

    def _sends_allowed(self, lane: Lane[T]) -> float:
        """The lane's limit, less when attempts run short in all; always at least one."""
        return max(1.0, min(lane.limit.value, lane.in_flight + self._free_sends(lane.standing) * 0.25))

    def _queue_allowed(self, lane: Lane[T], now: float) -> float:
        window, share = self.limits.window, self.limits.queue_share
        if lane.is_quick(now):
            room = window * QUICK_ROOM
            if self._sole_key.is_sole(lane.webhook_id, now):
                return room
            allowed = min(room - self._waiting, window * share)
        else:
            allowed = max(1.0, (window - self._waiting) * share)
        if lane.allowance is not None:
            allowed = min(allowed, lane.allowance.room)
        if lane.standing == SLOW:
            return min(allowed, (window * self.limits.slow_share - self._waiting_by[SLOW]) * share)
        return allowed

    def _has_surplus(self, lane: Lane[T], now: float) -> bool:
        return len(lane.queue or ()) > 1 and lane.is_slow and lane.waiting > self._queue_allowed(lane, now)

    def _clear(self, lane: Lane[T]) -> list[T]:
        waiting = list(lane.queue or ())
        lane.queue = None
        self._count(lane, -len(waiting), -lane.waiting)
        return waiting

    def _count_sends(self, lane: Lane[T], change: int) -> None:
        lane.in_flight += change
        self.in_flight += change
        self._sends_by[lane.standing] += change

    def _count(self, lane: Lane[T], items: int, weight: int) -> None:
        self.queued += items
        lane.waiting += weight
        self._waiting += weight
        self._waiting_by[lane.standing] += weight
