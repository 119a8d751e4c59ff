"""The router's turns: each account has its own, the heavy ones gather, and the room for what is read is bounded."""

from collections import Counter
from dataclasses import replace
from math import inf
from types import SimpleNamespace
from typing import Any, Final

import pytest

from go2hooks.kafka.partitions import Assignment, Partition, PartitionKey
from services.router.batch import ReadEvent
from services.router.scheduling import RouterBounds, Scheduler

BOUNDS: Final = RouterBounds(window=1000, lookahead=10_000, lookahead_bytes=1 << 24, gather_s=0.005)
PARTITION: Final = Partition(Assignment(PartitionKey("t", 0), 0))
MESSAGE: Any = SimpleNamespace()


def event(account: str, size: int = 100) -> ReadEvent:
    return ReadEvent(MESSAGE, PARTITION, account.encode(), 0, 0, size)


def put(scheduler: Scheduler, now: float, **counts: int) -> Scheduler:
    for account, count in counts.items():
        for _ in range(count):
            scheduler.put(event(account), now)
    return scheduler


def turn(scheduler: Scheduler, now: float, tick_s: float = 0.0) -> list[str]:
    """Whose events one turn gives out. Each takes `tick_s` to route."""
    scheduler.begin_turn(now)
    accounts = []
    while (taken := scheduler.take(now)) is not None:
        accounts.append(taken.account.decode())
        now += tick_s
    return accounts


@pytest.fixture
def gathering() -> Scheduler:
    """One heavy account beside another one, whose first turn is over."""
    scheduler = put(Scheduler(BOUNDS, thread_time=lambda: 0.0), 1.0, heavy=400, other=50)
    assert Counter(turn(scheduler, 1.0)) == {"other": 50}  # 400 have come at once, and more may: they are read first
    return scheduler


def test_an_event_behind_a_burst_of_another_account_overtakes_it():
    scheduler = put(Scheduler(BOUNDS), 1.0, burst=2000, other=1)
    assert turn(scheduler, 1.0)[0] == "other"


def test_a_turn_gives_out_200_events_of_accounts_that_are_not_heavy():
    scheduler = put(Scheduler(BOUNDS), 1.0, one=300)
    assert len(turn(scheduler, 1.0)) == 200
    assert len(turn(scheduler, 1.0)) == 100
    assert turn(scheduler, 1.0) == []


def test_heavy_accounts_wait_for_their_own_turn(gathering):
    assert turn(gathering, 1.004) == []
    assert gathering.wait_s(1.004) == pytest.approx(0.001)
    assert gathering.wait_s(1.005) == 0.0
    assert turn(gathering, 1.005) == ["heavy"] * 4  # the least, of a backlog
    assert turn(gathering, 1.006) == []


def test_a_turn_of_the_heavy_accounts_has_what_came_since_the_last_one(gathering):
    turn(gathering, 1.01)
    put(gathering, 1.02, heavy=30)
    assert turn(gathering, 1.02) == ["heavy"] * 36  # thirty that came, and six of the backlog


def test_a_rush_is_read_before_more_of_it_is_routed(gathering):
    put(gathering, 1.01, heavy=200)
    assert turn(gathering, 1.01) == []
    assert turn(gathering, 1.02) == ["heavy"] * 4


def test_heavy_accounts_do_not_wait_when_the_room_is_half_full(gathering):
    put(gathering, 1.001, heavy=5000)
    assert gathering.wait_s(1.001) == 0.0
    assert len(turn(gathering, 1.001)) == 204


def test_a_heavy_backlog_is_routed_faster_while_a_processor_is_free_and_slower_when_not():
    worked = 0.0
    scheduler = put(Scheduler(BOUNDS, thread_time=lambda: worked), 1.0, heavy=400, other=50)
    turn(scheduler, 1.0)

    def routed(now: float, share: float) -> int:
        """Events of a turn in which this thread had the processor for a share of the time."""
        nonlocal worked
        scheduler.begin_turn(now)
        count = 0
        while scheduler.take(now) is not None:
            count, now, worked = count + 1, now + 0.001, worked + 0.001 * share
        return count

    assert [routed(1.1 + number / 10, 1.0) for number in range(4)] == [4, 6, 8, 10]
    assert [routed(1.6, 0.5), routed(1.7, 1.0), routed(1.8, 1.0)] == [12, 6, 8]


def test_a_turn_without_a_heavy_account_does_not_change_how_much_a_heavy_one_gets():
    scheduler = Scheduler(BOUNDS)
    for number in range(20):
        put(scheduler, float(number), one=5, two=5)
        assert len(turn(scheduler, float(number))) == 10
    put(scheduler, 30.0, heavy=400, other=50)
    turn(scheduler, 30.0)
    assert turn(scheduler, 31.0) == ["heavy"] * 4


def test_a_turn_ends_in_time_however_long_it_takes_to_write():
    scheduler = put(Scheduler(BOUNDS), 1.0, one=40)
    assert len(turn(scheduler, 1.0, tick_s=0.3)) == 4


def test_an_account_crowds_the_others_when_a_thousand_of_its_events_wait_and_others_come():
    scheduler = put(Scheduler(BOUNDS), 1.0, burst=1000, other=1)
    assert scheduler.is_crowding(b"burst", 1.0)
    assert not scheduler.is_crowding(b"other", 1.0)
    alone = put(Scheduler(BOUNDS), 1.0, burst=3000)
    assert alone.is_crowding(b"burst", 1.5)
    assert not alone.is_crowding(b"burst", 2.5)


def test_the_room_is_bounded_by_events_and_by_bytes():
    scheduler = put(Scheduler(replace(BOUNDS, lookahead=50, lookahead_bytes=1000)), 1.0, one=9)
    assert scheduler.room == 41
    put(scheduler, 1.0, one=1)
    assert scheduler.room == 0
    turn(scheduler, 1.0)
    assert scheduler.room == 50


def test_nothing_waits_without_an_event():
    assert Scheduler(BOUNDS).wait_s(1.0) == inf
    assert put(Scheduler(BOUNDS), 1.0, one=1).wait_s(1.0) == 0.0
