"""Fair queues: order within a key, turns between keys, who brings much beside others, and who crowds whom."""

from collections import defaultdict, deque

from hypothesis import given
from hypothesis import strategies as st

from go2hooks.core.flow.fair_queue import FairQueue


def filled(**counts: int) -> FairQueue[str, int]:
    queue: FairQueue[str, int] = FairQueue()
    for key, count in counts.items():
        for number in range(count):
            queue.put(key, number, 0.0)
    return queue


def test_each_key_gets_its_turn_whatever_another_has_waiting() -> None:
    queue = filled(burst=60, one=1, two=2)
    assert [queue.take(0.0) for _ in range(6)] == [
        ("burst", 0),
        ("one", 0),
        ("two", 0),
        ("burst", 1),
        ("two", 1),
        ("burst", 2),
    ]


@given(st.lists(st.one_of(st.sampled_from("abc"), st.integers(1, 100), st.none()), max_size=60))
def test_nothing_gets_lost_or_out_of_its_keys_order(steps: list[str | int | None]) -> None:
    """A letter puts an item under that key, a number puts so many under a key of their own; None takes one."""
    queue: FairQueue[str, int] = FairQueue()
    model: dict[str, deque[int]] = defaultdict(deque)
    for number, step in enumerate(steps):
        if step is not None:
            for _ in range(step if isinstance(step, int) else 1):
                queue.put(key := step if isinstance(step, str) else "many", number, float(number))
                model[key].append(number)
        else:
            taken = queue.take(float(number)) or queue.take_heavy()
            assert (taken is None) == (not any(model.values()))
            if taken is not None:
                key, item = taken
                assert item == model[key].popleft()
        assert len(queue) == sum(map(len, model.values()))


def heavy_of(queue: FairQueue[str, int], now: float) -> set[str]:
    """Take all: the keys that came apart."""
    while queue.take(now):
        pass
    heavy = set()
    while taken := queue.take_heavy():
        heavy.add(taken[0])
    return heavy


def test_who_brings_a_third_of_everything_and_more_than_a_few_is_given_out_apart():
    assert heavy_of(filled(much=64, little=63, less=60), 1.0) == {"much"}
    assert heavy_of(filled(much=64, some=64, little=63), 1.0) == {"much", "some"}
    assert heavy_of(filled(few=63, less=10), 1.0) == set()
    assert heavy_of(filled(most=70, much=65, little=70), 1.0) == {"most", "little"}


def test_who_brings_everything_hinders_nobody():
    assert heavy_of(filled(one=500), 1.0) == set()
    assert heavy_of(filled(one=500, other=500), 1.0) == set()


def test_a_burst_is_seen_before_the_time_is_up():
    queue = filled(burst=1000, other=1)
    assert queue.take(0.0) == ("other", 0)
    assert queue.take(0.0) is None
    assert not queue.has_light


def test_who_brought_much_stays_apart_while_much_of_it_waits_and_others_come():
    queue = filled(burst=200, other=1)
    assert queue.take(1.0) == ("other", 0)
    assert queue.take(1.0) is None
    for _ in range(100):
        assert queue.take_heavy()
    queue.put("other", 1, 1.1)
    assert queue.take(2.0) == ("other", 1)
    assert queue.take(2.0) is None  # a hundred wait
    for _ in range(50):
        assert queue.take_heavy()
    queue.put("other", 2, 2.1)
    assert queue.take(3.0) == ("other", 2)
    assert queue.take_heavy()  # where it stands; after that it is like others
    assert queue.take_heavy() is None
    assert queue.take(3.0) == ("burst", 151)


def test_a_burst_stays_apart_though_it_is_all_that_is_read_for_a_moment():
    queue = filled(burst=200, other=1)
    assert queue.take(1.0) == ("other", 0)
    assert queue.take(1.0) is None
    for number in range(1000):
        queue.put("burst", number, 1.5)
    assert queue.take(1.9) is None
    queue.put("burst", 0, 2.1)
    assert queue.take_heavy()
    assert queue.take(2.2) is None  # where it stands
    assert queue.take_heavy()
    assert queue.take(2.2) == ("burst", 2)  # and nobody else has come for more than a second


def test_who_has_most_of_what_waits_crowds_the_others() -> None:
    queue = filled(burst=100, other=99)
    assert queue.is_crowding("burst", 100, 0.5)
    assert not queue.is_crowding("burst", 101, 0.5)
    assert not queue.is_crowding("other", 1, 0.5)
    assert not queue.is_crowding("unknown", 1, 0.5)


def test_who_has_been_alone_for_a_second_crowds_nobody() -> None:
    queue = filled(other=1, burst=100)
    queue.put("burst", 100, 1.5)
    assert queue.is_crowding("burst", 100, 0.9)
    assert not queue.is_crowding("burst", 100, 1.5)


def test_who_has_much_waiting_is_not_alone_when_another_has_been_since() -> None:
    queue = filled(burst=101, other=100)
    assert queue.is_crowding("burst", 100, 1.5)
