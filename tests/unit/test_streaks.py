"""Consecutive failures: in the order in which attempts began, whatever is known first."""

from hypothesis import example, given
from hypothesis import strategies as st

from go2hooks.core.domain.failures import Streak

MANY = 100


def counted(attempts: list[tuple[int, bool]], before: list[int] | None = None, most: int = MANY) -> Streak:
    """What counts after these, each given by when it began and whether it failed."""
    streak = Streak(most, before or [])
    for began, failed in attempts:
        if failed:
            streak.fail(began)
        else:
            streak.succeed(began)
    return streak


def consecutive(attempts: list[tuple[int, bool]]) -> list[int]:
    """The same in plain words: the failures that began after the latest success."""
    latest = max((began for began, failed in attempts if not failed), default=-1)
    return sorted(began for began, failed in attempts if failed and began > latest)


attempts_of_a_webhook = st.lists(st.tuples(st.integers(0, 20), st.booleans()), max_size=40)


@given(attempts=attempts_of_a_webhook)
@example(attempts=[(1, False), *[(0, True)] * 12])  # a dozen that nobody read time out after one that was
@example(attempts=[*[(1, True)] * 9, (0, False), (2, True)])  # a slow success that began first excuses nothing
def test_what_counts_is_what_began_after_the_latest_success_in_whatever_order_it_is_known(attempts):
    assert counted(attempts).starts == consecutive(attempts)


@given(attempts=attempts_of_a_webhook, cut=st.integers(0, 40))
def test_it_makes_no_difference_how_attempts_are_batched(attempts, cut):
    """A batch goes on with what the one before has left, and without its successes: a failure may count that should not."""
    earlier, later = attempts[:cut], attempts[cut:]
    in_two = counted(later, before=counted(earlier).starts)
    assert set(in_two.starts) >= set(consecutive(attempts))
    for began, failed in earlier:
        if not failed:
            in_two.succeed(began)
    assert in_two.starts == consecutive(attempts)


def test_a_failure_says_whether_it_counts():
    streak = counted([(5, False)])
    assert [streak.fail(began) for began in (4, 5, 6)] == [False, False, True]
    assert len(streak) == 1


def test_of_more_than_are_kept_the_first_and_the_latest_are():
    streak = counted([(began, True) for began in range(10)], most=4)
    assert streak.starts == [0, 7, 8, 9]


def test_what_was_held_against_it_is_cleared():
    streak = counted([(1, True), (2, True)])
    streak.clear()
    assert len(streak) == 0
