"""Folding a batch of attempts must come out as if each had been counted on its own."""

from hypothesis import example, given
from hypothesis import strategies as st

from go2hooks.core.failures import Streak, fold


def counted_one_by_one(before: int, since: int, attempts: list[bool]) -> tuple[int, int, int]:
    """Count after all attempts, the highest count on the way, and when the present streak began."""
    count, peak = before, 0
    for at, failed in enumerate(attempts, start=1):
        if failed and count == 0:
            since = at
        count = count + 1 if failed else 0
        peak = max(peak, count) if failed else peak
    return count, peak, since if count else 0


def as_postgres_does(before: int, since: int, streak: Streak) -> tuple[int, int, int]:
    """What `postgres.attempts` makes of a streak."""
    count = streak.trailing if streak.succeeded else before + streak.leading
    if streak.succeeded:
        since = streak.trailing_since_ms if streak.trailing else 0
    elif before == 0:
        since = streak.leading_since_ms
    peak = max(before + streak.leading if streak.leading else 0, streak.longest)
    return count, peak, since


@given(before=st.integers(0, 20), attempts=st.lists(st.booleans(), min_size=1, max_size=40))
@example(before=0, attempts=[True] * 10 + [False])
@example(before=3, attempts=[False, True, True, False, True])
def test_a_folded_batch_counts_as_its_attempts_one_by_one(before, attempts):
    since = -1 if before else 0
    streak = fold(("wh", failed, at) for at, failed in enumerate(attempts, start=1))["wh"]
    assert as_postgres_does(before, since, streak) == counted_one_by_one(before, since, attempts)


@given(attempts=st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.integers(1, 99)), max_size=40))
def test_each_webhook_is_folded_by_itself(attempts):
    alone = {one: fold(each for each in attempts if each[0] == one).get(one) for one in {each[0] for each in attempts}}
    assert fold(attempts) == alone
