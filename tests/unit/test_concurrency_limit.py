"""The AIMD limit: what it earns, what it loses."""

import pytest

from go2hooks.core.flow.concurrency_limit import ConcurrencyLimit


def test_a_limit_doubles_with_each_round_of_answers_until_the_first_failure():
    limit = ConcurrencyLimit(4.0, 64.0)
    for expected in (8.0, 16.0, 32.0, 64.0, 64.0):
        for _ in range(int(limit.value)):
            limit.grow()
        assert limit.value == expected


def test_after_a_failure_it_is_halved_and_grows_by_one_a_round():
    limit = ConcurrencyLimit(16.0, 64.0)
    limit.shrink(64.0)
    assert limit.value == 8.0
    for _ in range(8):
        limit.grow()
    assert limit.value == pytest.approx(9.0, abs=0.1)


def test_it_never_falls_below_one_nor_stays_above_what_it_is_told():
    limit = ConcurrencyLimit(16.0, 64.0)
    limit.shrink(4.0)
    assert limit.value == 4.0
    for _ in range(4):
        limit.shrink(64.0)
    assert limit.value == 1.0


def test_a_lower_bound_takes_hold_at_once():
    limit = ConcurrencyLimit(16.0, 64.0)
    limit.bound(3.0)
    assert limit.value == 3.0
    limit.grow()
    assert limit.value == 3.0


def test_who_starts_over_grows_fast_again():
    limit = ConcurrencyLimit(16.0, 64.0)
    limit.shrink(64.0)
    limit.start_over()
    limit.grow()
    assert limit.value == 9.0
