"""Claims: an attempt is made once by this process, and memory stays bounded."""

import pytest

from go2hooks.core.domain.delivery import Delivery, Kind, replayed
from go2hooks.core.domain.duplicates import Claims, Standing, standing
from go2hooks.core.domain.outcome import State


def test_an_attempt_under_way_is_not_taken_twice():
    claims: Claims[str] = Claims()
    assert claims.claim("dlv_1", 1, "me")
    assert not claims.claim("dlv_1", 1, "me")
    assert claims.claim("dlv_1", 2, "me")
    assert claims.claim("dlv_2", 1, "me")


def test_an_attempt_that_was_given_up_may_be_taken_again():
    claims: Claims[str] = Claims()
    claims.claim("dlv_1", 1, "me")
    claims.give_up("dlv_1", 1)
    assert claims.claim("dlv_1", 1, "me")


def test_giving_up_does_not_forget_what_was_recorded():
    claims: Claims[str] = Claims()
    claims.claim("dlv_1", 1, "me")
    claims.recorded("dlv_1", 1)
    claims.give_up("dlv_1", 1)
    assert not claims.claim("dlv_1", 1, "me")


def test_the_last_recorded_attempts_are_remembered_and_older_ones_forgotten():
    claims: Claims[str] = Claims(remembered=10)
    for n in range(40):
        assert claims.claim(f"dlv_{n}", 1, "me")
        claims.recorded(f"dlv_{n}", 1)
    remembered = [n for n in range(40) if not claims.claim(f"dlv_{n}", 1, "me")]
    assert set(range(30, 40)) <= set(remembered)
    assert len(remembered) <= 20


def test_what_is_under_way_is_never_forgotten():
    claims: Claims[str] = Claims(remembered=2)
    claims.claim("dlv_slow", 1, "me")
    for n in range(20):
        claims.recorded(f"dlv_{n}", 1)
    assert not claims.claim("dlv_slow", 1, "me")


def test_it_is_known_who_has_an_attempt_under_way():
    claims: Claims[str] = Claims()
    claims.claim("dlv_1", 1, "me")
    claims.claim("dlv_1", 1, "you")
    assert claims.holder("dlv_1", 1) == "me"
    claims.recorded("dlv_1", 1)
    assert claims.holder("dlv_1", 1) is None


ATTEMPT = Delivery("dlv_1", "wh_1", "acme", "evt_1", "click", "", b"{}", 1, 0, Kind.EVENT, 0, suspect=False)


@pytest.mark.parametrize(
    ("attempt", "kind", "state", "state_before", "expected"),
    [
        (1, Kind.EVENT, None, None, Standing.OPEN),
        (1, Kind.EVENT, State.DELIVERED, None, Standing.MADE),
        (2, Kind.EVENT, None, State.RETRYING, Standing.OPEN),
        (2, Kind.EVENT, State.RETRYING, State.RETRYING, Standing.MADE),
        (2, Kind.EVENT, None, State.DELIVERED, Standing.OVER),
        (2, Kind.EVENT, None, State.SKIPPED, Standing.OVER),
        (2, Kind.EVENT, None, None, Standing.AWAITED),
        (7, Kind.REPLAY, None, State.FAILED, Standing.OPEN),
        (3, Kind.REPLAY, None, State.DELIVERED, Standing.OPEN),
        (3, Kind.REPLAY, State.DELIVERED, State.DELIVERED, Standing.MADE),
    ],
)
def test_a_retry_is_made_only_when_the_attempt_before_it_is_recorded_as_going_on(
    attempt, kind, state, state_before, expected
):
    assert standing(ATTEMPT._replace(attempt=attempt, kind=kind), state, state_before) is expected


@pytest.mark.parametrize(
    ("attempt", "state_before", "expected"),
    [
        (3, State.DELIVERED, Standing.OPEN),  # the replay's first: what it replays may have ended in any way
        (4, State.RETRYING, Standing.OPEN),
        (4, State.DELIVERED, Standing.OVER),
        (4, None, Standing.AWAITED),
    ],
)
def test_a_replay_s_retries_go_out_only_when_the_replay_goes_on(attempt, state_before, expected):
    replay = replayed(ATTEMPT, 3)._replace(attempt=attempt)
    assert standing(replay, None, state_before) is expected
