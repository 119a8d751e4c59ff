"""Lanes against a model: nothing lost, nothing doubled, no limit passed, whatever happens in whatever order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from go2hooks.core.flow.allowance import Allowance
from go2hooks.core.flow.circuit_breaker import CircuitLimits
from go2hooks.core.flow.lane import SLOW, LaneLimits
from go2hooks.core.flow.lanes import Admission, Lanes
from go2hooks.core.flow.sends import YOUNG_S

LIMITS = LaneLimits(
    max_sends=6,
    young_sends=5,
    window=20,
    webhook_max_sends=4,
    webhook_first_sends=2.0,
    circuit=CircuitLimits(failures=3),
)
IDS = ("a", "b", "c", "d")


class LanesMachine(RuleBasedStateMachine):
    """The model: which item is where, by what the lanes have said."""

    def __init__(self) -> None:
        super().__init__()
        self.lanes: Lanes[tuple[str, int]] = Lanes(LIMITS)
        self.now = 0.0
        self.number = 0
        self.under_way: list[tuple[str, int]] = []
        self.waiting: list[tuple[str, int]] = []
        self.began: dict[tuple[str, int], float] = {}
        self.ended: list[tuple[str, float, bool]] = []  # whose, when it began, whether it failed
        self.opened_at = dict.fromkeys(IDS, 0.0)
        self.failed_at = dict.fromkeys(IDS, 0.0)

    @rule(webhook_id=st.sampled_from(IDS), count=st.integers(1, 30))
    def offer(self, webhook_id: str, count: int) -> None:
        for _ in range(count):
            self.number += 1
            item = (webhook_id, self.number)
            has_room = self.lanes.room(webhook_id, self.now) >= 1
            admission = self.lanes.offer(webhook_id, item, self.now)
            assert has_room == (admission in (Admission.START, Admission.QUEUED))
            if admission is Admission.START:
                self._begin(item)
            elif admission is Admission.QUEUED:
                self.waiting.append(item)
            is_open = self._is_open(webhook_id)
            assert admission is not Admission.BLOCKED or is_open
            assert not is_open or admission in (Admission.BLOCKED, Admission.START)

    def _is_open(self, webhook_id: str) -> bool:
        """Whether so many failed, of those that began after the latest success."""
        latest = max((began for name, began, failed in self.ended if name == webhook_id and not failed), default=-1.0)
        failures = [began for name, began, failed in self.ended if name == webhook_id and failed and began > latest]
        return len(failures) >= LIMITS.circuit.failures

    def _forget(self, webhook_id: str) -> None:
        self.ended = [each for each in self.ended if each[0] != webhook_id]

    def _begin(self, item: tuple[str, int]) -> None:
        if self.lanes._lanes[item[0]].standing == SLOW:
            assert self.lanes.sends._by_standing[SLOW] <= LIMITS.max_sends * LIMITS.slow_share
        self.under_way.append(item)
        self.began[item] = self.now

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), ok=st.booleans())
    def finish(self, data: st.DataObject, ok: bool) -> None:
        item = data.draw(st.sampled_from(self.under_way))
        self.under_way.remove(item)
        duration_s = self.now - self.began[item]
        began, was_open = self.now - duration_s, self._is_open(item[0])
        if ok or not was_open or began >= self.opened_at[item[0]]:
            self.ended.append((item[0], began, not ok))
        self.failed_at[item[0]] = self.now
        if self._is_open(item[0]) and not was_open:
            self.opened_at[item[0]] = self.now
        stranded = self.lanes.finish(item[0], ok=ok, duration_s=duration_s, now=self.now)
        if self._is_open(item[0]):
            assert sorted(stranded) == sorted(each for each in self.waiting if each[0] == item[0])
        else:
            assert stranded == []
        self.waiting = [each for each in self.waiting if each not in stranded]

    @rule()
    def start(self) -> None:
        for item in self.lanes.startable(self.now):
            earlier = [each for each in self.waiting if each[0] == item[0] and each[1] < item[1]]
            assert earlier == []  # first come, first served, within a lane
            self.waiting.remove(item)
            self._begin(item)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def release_slot(self, data: st.DataObject) -> None:
        """It was given out and not attempted: its webhook is disabled, its partition has moved."""
        item = data.draw(st.sampled_from(self.under_way))
        self.under_way.remove(item)
        self.lanes.release_slot(item[0])

    @rule()
    def crash(self) -> None:
        """The process starts anew: nothing is under way, nothing waits, nothing is held against anybody."""
        self.lanes = Lanes(LIMITS)
        self.under_way, self.waiting, self.ended = [], [], []

    @rule(remainder=st.integers(0, 2))
    def evict(self, remainder: int) -> None:
        evicted = self.lanes.queues.evict(lambda item: item[1] % 3 == remainder)
        assert sorted(evicted) == sorted(item for item in self.waiting if item[1] % 3 == remainder)
        self.waiting = [item for item in self.waiting if item not in evicted]

    @rule(most=st.integers(0, 30))
    def shed(self, most: int) -> None:
        surplus = self.lanes.queues.surplus(self.now, most)
        assert len(surplus) <= most
        assert not surplus or len(self.waiting) > LIMITS.window / 2
        for item in surplus:
            assert not [each for each in self.waiting if each[0] == item[0] and each[1] > item[1]]  # the latest first
            self.waiting.remove(item)

    @rule(webhook_id=st.sampled_from(IDS))
    def reset(self, webhook_id: str) -> None:
        self.lanes.reset(webhook_id)
        self.ended = [each for each in self.ended if each[0] != webhook_id or not each[2]]

    @rule(seconds=st.sampled_from([0.001, 0.003, 0.01, 0.3, 2.0, 100.0, 1000.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.lanes.sweep(self.now)
        for webhook_id in set(IDS) - set(self.lanes._lanes):  # forgotten, and with it the failures that it had
            is_forgiven = self.now - self.failed_at[webhook_id] > 3600.0
            assert is_forgiven or not self._is_open(webhook_id)
            assert all(item[0] != webhook_id for item in self.under_way + self.waiting)
            self._forget(webhook_id)

    @invariant()
    def counts_agree(self) -> None:
        assert self.lanes.sends.in_flight == len(self.under_way)
        assert self.lanes.queues.items == len(self.waiting)
        assert self.lanes.open_circuits() == sum(map(self._is_open, IDS))

    @invariant()
    def standings_are_counted(self) -> None:
        standings = {webhook_id: lane.standing for webhook_id, lane in self.lanes._lanes.items()}
        for standing in range(3):
            assert self.lanes.sends._by_standing[standing] == sum(
                standings[item[0]] == standing for item in self.under_way
            )
            assert self.lanes.queues._by_standing[standing] == sum(
                standings[item[0]] == standing for item in self.waiting
            )

    @invariant()
    def limits_hold(self) -> None:
        assert self.lanes.sends.in_flight <= LIMITS.max_sends
        # A probe is let through whatever else has just begun.
        young = [item for item in self.under_way if self.began[item] > self.now - YOUNG_S]
        assert len(young) <= LIMITS.young_sends or self.lanes.open_circuits()
        # Each lane may always have one waiting; a quick one reckons with more than the window, which its consumer bounds.
        assert self.lanes.queues.items <= LIMITS.window * LIMITS.quick_room + len(IDS)
        for webhook_id in IDS:
            assert sum(item[0] == webhook_id for item in self.under_way) <= LIMITS.webhook_max_sends

    def teardown(self) -> None:
        """Once everything under way ends well, everything that waits gets its turn."""
        self.now += 2 * YOUNG_S
        self.start()
        while self.under_way:
            item = self.under_way.pop()
            self.now += 2 * YOUNG_S
            self.lanes.finish(item[0], ok=True, duration_s=self.now - self.began[item], now=self.now)
            self.start()
        assert self.waiting == self.under_way == []
        assert (self.lanes.sends.in_flight, self.lanes.queues.items) == (0, 0)


TestLanes = LanesMachine.TestCase

ALLOWANCES = [(None, None), (2.0, None), (None, 1), (50.0, 2), (0.1, 1)]


class AllowedLanesMachine(LanesMachine):
    """The same, where customers allow only so much, and change their minds."""

    def __init__(self) -> None:
        super().__init__()
        self.allowed: dict[str, tuple[float | None, int | None]] = {}
        self.starts: dict[str, list[float]] = {}  # since the allowance was changed last
        self.crash()

    def _allowance(self, webhook_id: str) -> Allowance | None:
        allowed = self.allowed.get(webhook_id, (None, None))
        return None if allowed == (None, None) else Allowance(*allowed)

    @rule()
    def crash(self) -> None:
        self.lanes = Lanes(LIMITS, allowance=self._allowance)
        self.under_way, self.waiting, self.ended, self.starts = [], [], [], {}

    @rule(webhook_id=st.sampled_from(IDS), allowed=st.sampled_from(ALLOWANCES))
    def allow(self, webhook_id: str, allowed: tuple[float | None, int | None]) -> None:
        self.allowed[webhook_id] = allowed
        self.starts.pop(webhook_id, None)
        self.lanes.allow(webhook_id, self.now)

    @rule(webhook_id=st.sampled_from(IDS))
    def wait_a_turn(self, webhook_id: str) -> None:
        if webhook_id in self.lanes._lanes:
            assert self.lanes.turn_in_s(webhook_id, self.now, 60.0) >= 0.0

    def _begin(self, item: tuple[str, int]) -> None:
        rate, most = self.allowed.get(item[0], (None, None))
        if most is not None:
            assert sum(other[0] == item[0] for other in self.under_way) < most
        starts = self.starts.setdefault(item[0], [])
        starts.append(self.now)
        if rate is not None:
            within = [at for at in starts if at > self.now - 1.0]
            assert len(within) <= max(1.0, rate) * 1.05 + 1
        super()._begin(item)

    def teardown(self) -> None:
        """Everything that waits gets its turn, whenever that is."""
        for _ in range(200):
            self.now = max(self.now + 2 * YOUNG_S, min(self.lanes.turns.next_at, self.now + 20.0))
            self.start()
            for item in self.under_way:
                self.lanes.finish(item[0], ok=True, duration_s=0.0, now=self.now)
            self.under_way = []
        assert self.waiting == []
        assert (self.lanes.sends.in_flight, self.lanes.queues.items) == (0, 0)


TestAllowedLanes = AllowedLanesMachine.TestCase


def test_what_a_customer_allows_per_second_is_spaced_evenly():
    lanes: Lanes[int] = Lanes(LaneLimits(), allowance=lambda _: Allowance(5.0, None))
    began = [0.0] if lanes.offer("a", 0, 0.0) is Admission.START else []
    assert [lanes.offer("a", n, 0.0) for n in range(1, 26)] == [Admission.QUEUED] * 25
    assert lanes.offer("a", 26, 0.0) is Admission.FULL  # five seconds' worth waits in memory
    while lanes.queues.items:
        assert not lanes.turns.has_any
        now = lanes.turns.next_at
        for _ in lanes.startable(now):
            began.append(now)
            lanes.finish("a", ok=True, duration_s=0.01, now=now + 0.01)
    assert began == pytest.approx([n * 0.2 for n in range(26)])


def test_what_finds_no_room_gets_a_turn_of_its_own_behind_what_waits():
    lanes: Lanes[int] = Lanes(LaneLimits(), allowance=lambda _: Allowance(5.0, None))
    while lanes.offer("a", 0, 0.0) is not Admission.FULL:
        pass
    turns = [lanes.turn_in_s("a", 0.0, 5.7) for _ in range(4)]
    assert turns == pytest.approx([5.4, 5.6, 5.7, 5.7])
    assert lanes.turn_in_s("a", 0.1, 5.7) == pytest.approx(5.7)  # no later because others were told to ask again


def test_a_higher_limit_is_in_force_at_once():
    allowance = [Allowance(0.1, None)]
    lanes: Lanes[int] = Lanes(LaneLimits(), allowance=lambda _: allowance[0])
    for n in range(2):
        lanes.offer("a", n, 0.0)
    assert lanes.turns.next_at == pytest.approx(10.0)
    allowance[0] = Allowance(100.0, None)
    lanes.allow("a", 1.0)
    assert lanes.turns.next_at == pytest.approx(1.01)
    assert list(lanes.startable(1.01)) == [1]


def test_an_urgent_one_goes_first_and_counts():
    lanes: Lanes[str] = Lanes(LaneLimits(), allowance=lambda _: Allowance(None, 1))
    assert [lanes.offer("a", name, 0.0) for name in ("first", "second")] == [Admission.START, Admission.QUEUED]
    assert lanes.offer_first("a", "test", 0.0) is Admission.QUEUED
    lanes.finish("a", ok=True, duration_s=0.01, now=0.1)
    assert list(lanes.startable(0.1)) == ["test"]
    assert list(lanes.startable(0.2)) == []
    lanes.release_slot("a")
    assert list(lanes.startable(0.3)) == ["second"]


def test_those_that_wait_for_their_allowance_leave_half_of_the_window_to_the_others():
    lanes: Lanes[int] = Lanes(
        LaneLimits(window=4000), allowance=lambda name: Allowance(10.0, None) if name != "a" else None
    )
    for n in range(50 * 100):
        lanes.offer(f"limited_{n % 100}", n, 0.0)
    assert lanes.room("a", 0.0) >= 4000 * 0.5 * 0.25


def fill(lanes: Lanes[int], webhook_id: str, count: int) -> list[Admission]:
    return [lanes.offer(webhook_id, n, 0.0) for n in range(count)]


def test_a_flooded_lane_leaves_room_for_the_others():
    limits = LaneLimits(max_sends=100, window=1000)
    lanes: Lanes[int] = Lanes(limits)
    assert fill(lanes, "flooded", 5000)[-1] is Admission.FULL
    assert lanes.queues.items <= limits.window // 2
    assert fill(lanes, "other", 4) == [Admission.START] * 4
    assert fill(lanes, "third", 5)[-1] is Admission.QUEUED


def test_receivers_that_never_answer_leave_a_share_to_those_that_do():
    limits = LaneLimits(max_sends=100, window=400)
    lanes: Lanes[str] = Lanes(limits)
    assert lanes.offer("healthy", "", 0.0) is Admission.START
    lanes.finish("healthy", ok=True, duration_s=0.01, now=0.01)
    for tenth in range(1, 300):  # of a second; 200 a second to 1,000 receivers, then again
        now = tenth / 10
        for n in range(20):
            lanes.offer(f"dead_{(tenth * 20 + n) % 1000}", "", now)
        list(lanes.startable(now))
        if not tenth % 10:
            lanes.sweep(now)
        assert lanes.offer("healthy", "", now) is Admission.START
        lanes.finish("healthy", ok=True, duration_s=0.01, now=now + 0.01)
    assert lanes.sends.in_flight <= 0.75 * limits.max_sends
    assert lanes.queues.items <= 0.75 * limits.window


def test_a_receiver_that_hangs_is_slow_though_more_comes_for_it_now_and_then():
    lanes: Lanes[int] = Lanes(LaneLimits())
    for now in (0.0, 0.6, 1.2):
        assert lanes.offer("hanging", 0, now) is Admission.START
    assert lanes._lanes["hanging"].standing == SLOW


def test_a_receiver_that_answers_in_time_again_is_no_longer_slow():
    lanes: Lanes[int] = Lanes(LaneLimits(max_sends=8))
    hanging = [lanes.offer(name, 0, 0.0) for name in ("a", "b", "c", "slow")]
    assert hanging == [Admission.START] * 4
    lanes.sweep(1.1)
    assert lanes.offer("slow", 0, 1.1) is Admission.QUEUED  # half of eight are under way
    lanes.finish("slow", ok=True, duration_s=2.0, now=2.0)
    assert fill(lanes, "slow", 2) == [Admission.QUEUED] * 2
    assert len(list(lanes.startable(2.0))) == 1
    lanes.finish("slow", ok=True, duration_s=0.01, now=2.1)
    assert len(list(lanes.startable(2.1))) == 2
    assert lanes.sends.in_flight == 5


def test_lanes_take_turns():
    lanes: Lanes[str] = Lanes(LaneLimits(max_sends=1))
    for name in ("first", "second", "third"):
        assert lanes.offer(name, name, 0.0) is Admission.START
        lanes.finish(name, ok=True, duration_s=0.1, now=0.0)
    assert lanes.offer("first", "first", 0.0) is Admission.START
    for name in ("second", "second", "second", "third", "third", "third"):
        assert lanes.offer(name, name, 0.0) is Admission.QUEUED
    turns = ["first"]
    while lanes.queues.items:
        lanes.finish(turns[-1], ok=True, duration_s=0.1, now=0.0)
        turns += lanes.startable(0.0)
    assert turns == ["first", "second", "third", "second", "third", "second", "third"]


def test_slow_lanes_and_the_others_take_turns():
    lanes: Lanes[str] = Lanes(LaneLimits(young_sends=6))
    for name, duration_s in (("slow", 2.0), ("quick", 0.01)):
        for n in range(4):
            assert lanes.offer(f"{name}_{n}", name, 0.0) is Admission.START
            lanes.finish(f"{name}_{n}", ok=True, duration_s=duration_s, now=duration_s)
    assert [lanes.offer(f"first_{n}", "", 5.0) for n in range(6)] == [Admission.START] * 6
    for name in ("slow", "quick"):
        assert [lanes.offer(f"{name}_{n}", name, 5.0) for n in range(4)] == [Admission.QUEUED] * 4
    assert list(lanes.startable(5.0 + 3 * YOUNG_S)) == ["quick", "slow"] * 3


def test_a_lane_earns_more_sends_by_quick_answers_and_loses_half_by_a_failure():
    lanes: Lanes[int] = Lanes(LaneLimits())
    fill(lanes, "a", 300)
    most = 0
    for n in range(100):
        lanes.finish("a", ok=True, duration_s=0.01, now=n / 100)
        list(lanes.startable(n / 100))
        most = max(most, lanes.sends.in_flight)
    before = lanes.sends.in_flight
    assert before == most == 64
    for _ in range(40):
        lanes.finish("a", ok=True, duration_s=0.01, now=1.0)
    lanes.finish("a", ok=False, duration_s=0.01, now=1.1)
    list(lanes.startable(2.0))
    assert lanes.sends.in_flight <= before // 2


def test_so_many_begin_at_once_and_the_others_when_those_have_ended_or_are_older():
    lanes: Lanes[int] = Lanes(LaneLimits(young_sends=10))
    offered = [lanes.offer(f"wh_{n}", n, 5.0) for n in range(30)]
    assert offered == [Admission.START] * 10 + [Admission.QUEUED] * 20
    for n in range(3):
        lanes.finish(f"wh_{n}", ok=True, duration_s=0.001, now=5.001)
    assert list(lanes.startable(5.002)) == [10, 11, 12]
    assert list(lanes.startable(5.0 + YOUNG_S)) == []
    assert list(lanes.startable(5.002 + 2 * YOUNG_S)) == list(range(13, 23))
    assert lanes.sends.in_flight == 20


def test_what_ends_after_it_no_longer_counts_makes_no_room_for_more():
    lanes: Lanes[int] = Lanes(LaneLimits(young_sends=2))
    assert lanes.offer("slow", 0, 5.0) is Admission.START
    now = 5.0 + 3 * YOUNG_S
    assert list(lanes.startable(now)) == []
    lanes.finish("slow", ok=True, duration_s=now - 5.0, now=now)
    assert [lanes.offer(f"wh_{n}", n, now) for n in range(3)] == [Admission.START] * 2 + [Admission.QUEUED]


def test_slow_answers_earn_a_lane_nothing():
    lanes: Lanes[int] = Lanes(LaneLimits())
    fill(lanes, "a", 100)
    for n in range(50):
        lanes.finish("a", ok=True, duration_s=9.0, now=n)
        list(lanes.startable(n))
    assert lanes.sends.in_flight == 4


def open_circuit(lanes: Lanes[int], now: float = 0.0) -> None:
    while not lanes.is_blocked("a"):
        assert lanes.offer("a", 0, now) is Admission.START
        lanes.finish("a", ok=False, duration_s=0.1, now=now)


def test_an_open_circuit_lets_one_probe_through_at_a_time_with_growing_pauses():
    lanes: Lanes[int] = Lanes(LaneLimits(circuit=CircuitLimits(probe_s=1.0, probe_max_s=3.0)))
    open_circuit(lanes)
    now, pauses = 0.0, []
    for _ in range(5):
        wait_s = lanes.turn_in_s("a", now, 60.0)
        pauses.append(wait_s)
        assert lanes.offer("a", 0, now + wait_s - 0.001) is Admission.BLOCKED
        now += wait_s
        assert lanes.offer("a", 0, now) is Admission.START
        assert lanes.offer("a", 0, now) is Admission.BLOCKED
        lanes.finish("a", ok=False, duration_s=0.1, now=now)
    assert pauses == pytest.approx([1.0, 1.5, 2.25, 3.0, 3.0])


def test_what_was_under_way_when_the_circuit_opened_does_not_put_the_first_probe_off():
    lanes: Lanes[int] = Lanes(LaneLimits(circuit=CircuitLimits(probe_s=1.0)))
    fill(lanes, "a", 300)
    for n in range(100):
        lanes.finish("a", ok=True, duration_s=0.01, now=n / 100)
        list(lanes.startable(n / 100))
    assert lanes.sends.in_flight == 64
    for n in range(64):  # the receiver starts again: each fails after half a second
        lanes.finish("a", ok=False, duration_s=0.5, now=1.5 + n / 1000)
    assert lanes.is_blocked("a")
    assert lanes.turn_in_s("a", 1.6, 60.0) == pytest.approx(0.904)  # a second after the fifth
    assert lanes.offer("a", 0, 2.6) is Admission.START
    lanes.finish("a", ok=False, duration_s=0.05, now=2.65)
    assert lanes.turn_in_s("a", 2.65, 60.0) == pytest.approx(1.5)


def test_what_began_before_an_attempt_that_succeeded_is_not_held_against_a_lane():
    """As where a receiver with few workers has not read a dozen requests, and has answered all that came after them."""
    lanes: Lanes[int] = Lanes(LaneLimits())
    assert fill(lanes, "a", 4) == [Admission.START] * 4
    assert lanes.offer("a", 0, 1.0) is Admission.QUEUED
    lanes.finish("a", ok=True, duration_s=0.01, now=1.0)
    assert list(lanes.startable(1.0)) == [0]
    lanes.finish("a", ok=True, duration_s=0.01, now=1.01)
    limit = lanes._lanes["a"].limit.value
    for _ in range(10):
        lanes.offer("a", 0, 10.0)
        lanes.finish("a", ok=False, duration_s=10.0, now=10.0)
    assert not lanes.is_blocked("a")
    assert lanes._lanes["a"].limit.value == limit


def test_a_success_that_began_first_does_not_close_a_circuit():
    lanes: Lanes[int] = Lanes(LaneLimits(webhook_first_sends=8.0, circuit=CircuitLimits(failures=2)))
    assert lanes.offer("a", 0, 0.0) is Admission.START
    open_circuit(lanes, now=5.0)
    lanes.finish("a", ok=True, duration_s=6.0, now=6.0)
    assert lanes.is_blocked("a")


def test_a_receiver_that_fails_for_days_is_probed_as_rarely_as_ever():
    lanes: Lanes[int] = Lanes(LaneLimits(circuit=CircuitLimits(probe_max_s=30.0)))
    now = 0.0
    for _ in range(3000):
        now += lanes.turn_in_s("a", now, 60.0)
        assert lanes.offer("a", 0, now) is Admission.START
        lanes.finish("a", ok=False, duration_s=0.1, now=now)
    assert lanes.turn_in_s("a", now, 60.0) == 30.0


@pytest.mark.parametrize("how", ["success", "reset"])
def test_a_success_or_a_change_of_the_webhook_closes_the_circuit(how):
    lanes: Lanes[int] = Lanes(LaneLimits())
    open_circuit(lanes)
    if how == "reset":
        lanes.reset("a")
    else:
        assert lanes.offer("a", 0, 100.0) is Admission.START
        lanes.finish("a", ok=True, duration_s=0.1, now=100.0)
    assert not lanes.is_blocked("a")
    assert lanes.turn_in_s("a", 0.0, 60.0) == 0.0
    assert lanes.offer("a", 0, 0.0) is Admission.START


@given(idle_s=st.floats(0, 200))
def test_an_idle_lane_is_forgotten_unless_its_circuit_is_open(idle_s):
    lanes: Lanes[int] = Lanes(LaneLimits())
    open_circuit(lanes)
    lanes.offer("busy", 0, 0.0)
    lanes.offer("idle", 0, 0.0)
    lanes.finish("idle", ok=True, duration_s=0.1, now=0.0)
    lanes.sweep(idle_s, idle_s=60.0)
    assert len(lanes) == (2 if idle_s > 60 else 3)
    assert lanes.is_blocked("a")


def test_a_circuit_that_nobody_has_probed_for_an_hour_is_forgotten():
    """Its webhook was deleted, or its partition is another process's now."""
    lanes: Lanes[int] = Lanes(LaneLimits())
    open_circuit(lanes)
    lanes.sweep(3500.0)
    assert lanes.open_circuits() == 1
    lanes.sweep(3700.0)
    assert len(lanes) == lanes.open_circuits() == 0


def quick_until(lanes: Lanes[int], names: tuple[str, ...], until: float) -> None:
    """Let receivers answer in 10 ms, with as much waiting as has room."""
    under_way = dict.fromkeys(names, 0)
    tick = 0
    while (now := tick / 100) < until:
        for name in names:
            for _ in range(under_way[name]):
                lanes.finish(name, ok=True, duration_s=0.01, now=now)
            under_way[name] = 0
        for name in names:
            for n in range(100):
                under_way[name] += lanes.offer(name, n, now) is Admission.START
        list(lanes.startable(now))
        for lane in lanes._lanes.values():
            under_way[lane.webhook_id] = lane.in_flight
        tick += 1


@pytest.mark.parametrize("names", [("a",), ("a", "b", "c", "d", "e", "f")])
def test_who_filled_the_window_while_quick_does_not_keep_it_when_slow(names):
    """Each may: alone it takes all there is, and quick ones fill it up together. Nothing more would be read of anybody's."""
    limits = LaneLimits()
    lanes: Lanes[int] = Lanes(limits)
    quick_until(lanes, names, 3.0)
    assert lanes.queues.items > 0.9 * limits.window
    assert lanes.queues.surplus(3.0, 10_000) == []
    lanes.sweep(4.2)  # no answer for more than a second
    first = lanes.queues.surplus(4.2, 200)
    assert len(first) == 200
    while lanes.queues.surplus(4.2, 200):
        pass
    assert lanes.queues.items <= limits.window / 2
    assert lanes.offer("other", 0, 4.2) is Admission.START


def test_receivers_that_answer_steadily_and_have_more_than_they_work_off_leave_a_share_of_the_window():
    limits = LaneLimits(window=1000, webhook_first_sends=1.0, webhook_max_sends=1)
    lanes: Lanes[int] = Lanes(limits)
    names = "abcdef"
    for name in names:
        assert lanes.offer(name, 0, 0.0) is Admission.START
    for tick in range(1, 30):  # three answers a second, each
        for name in names:
            for n in range(100):
                lanes.offer(name, n, 0.3 * tick)
            lanes.finish(name, ok=True, duration_s=0.3, now=0.3 * tick)
        assert len(list(lanes.startable(0.3 * tick))) == len(names)
    assert limits.window / 2 < lanes.queues.items <= limits.window * 0.61  # w each, where w = (1000 - 6 w) / 4


def test_who_works_off_what_waits_keeps_it():
    lanes: Lanes[int] = Lanes(LaneLimits())
    quick_until(lanes, ("a",), 3.0)
    assert lanes.queues.items > 3600
    assert lanes.queues.surplus(3.3, 10_000) == []  # a moment without an answer


def test_large_items_take_more_of_the_window_and_give_it_back():
    """One webhook's large deliveries must not fill the window that all share."""
    lanes: Lanes[int] = Lanes(LaneLimits(window=100, webhook_first_sends=1.0), lambda item: item)
    assert lanes.offer("large", 30, 0.0) is Admission.START
    assert lanes.offer("large", 30, 0.0) is Admission.QUEUED
    assert lanes.offer("large", 30, 0.0) is Admission.FULL
    assert [lanes.offer("small", 1, 0.0) for _ in range(10)][-1] is Admission.QUEUED
    assert lanes.queues.items == 10
    lanes.finish("large", ok=True, duration_s=5.0, now=1.0)
    assert list(lanes.startable(1.0)) == [30]
    assert lanes.offer("large", 24, 1.0) is Admission.QUEUED
    assert lanes.queues.evict(lambda item: item > 1) == [24]
    assert lanes.offer("large", 24, 1.0) is Admission.QUEUED
