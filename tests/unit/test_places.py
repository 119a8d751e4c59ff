"""Places to wait: as many as there are, half of them at most for one account, and none lost."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from services.api.places import Places


@pytest.mark.parametrize(("count", "one", "others"), [(0, 1, 0), (1, 1, 0), (2, 1, 1), (3, 1, 2), (4, 2, 2), (8, 4, 4)])
def test_an_account_takes_half_of_the_places_and_others_the_rest(count: int, one: int, others: int):
    places = Places(count)
    with ExitStack() as taken:
        assert [taken.enter_context(places.taken_by("one")) for _ in range(9)] == [True] * one + [False] * (9 - one)
        assert sum(taken.enter_context(places.taken_by(f"other {n}")) for n in range(9)) == others


def fail(places: Places):
    with places.taken_by("one") as is_taken:
        assert is_taken
        raise ConnectionError


def test_a_place_is_free_again_though_what_it_was_for_fails():
    places = Places(2)
    for _ in range(3):
        with pytest.raises(ConnectionError):
            fail(places)


def test_threads_neither_lose_places_nor_make_any():
    places, lock, under_way, most = Places(4), threading.Lock(), Counter[str](), 0

    def use(account: str):
        nonlocal most
        for _ in range(2000):
            with places.taken_by(account) as is_taken:
                if is_taken:
                    with lock:
                        under_way[account] += 1
                        most = max(most, *under_way.values())
                    with lock:
                        under_way[account] -= 1

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(use, ["one", "two", "three"] * 2))
    assert most <= 2
    with ExitStack() as taken:
        assert sum(taken.enter_context(places.taken_by(f"{n}")) for n in range(9)) == 4
