"""Fair queues: order within a key, turns between keys, and who crowds whom."""

from collections import defaultdict, deque

from hypothesis import given
from hypothesis import strategies as st

from go2hooks.core.fair_queue import FairQueue


def filled(**counts: int) -> FairQueue[str, int]:
    queue: FairQueue[str, int] = FairQueue()
    for key, count in counts.items():
        for number in range(count):
            queue.put(key, number, 0.0)
    return queue


def test_each_key_gets_its_turn_whatever_another_has_waiting() -> None:
    queue = filled(burst=1000, one=1, two=2)
    assert [queue.take() for _ in range(6)] == [
        ("burst", 0),
        ("one", 0),
        ("two", 0),
        ("burst", 1),
        ("two", 1),
        ("burst", 2),
    ]


@given(st.lists(st.one_of(st.sampled_from("abc"), st.none()), max_size=60))
def test_nothing_gets_lost_or_out_of_its_keys_order(steps: list[str | None]) -> None:
    """A letter puts an item under that key; None takes one."""
    queue: FairQueue[str, int] = FairQueue()
    model: dict[str, deque[int]] = defaultdict(deque)
    for number, step in enumerate(steps):
        if step is not None:
            queue.put(step, number, 0.0)
            model[step].append(number)
        elif len(queue):
            key, item = queue.take()
            assert item == model[key].popleft()
        assert len(queue) == sum(map(len, model.values()))


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
