"""The retry schedule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from go2hooks.core.domain.delivery import ON_REQUEST, Delivery, Kind, Position, replayed
from go2hooks.core.domain.outcome import DeadLetter, Delivered, Done, Failed, Failure, RetryAt, Skip, SkipReason
from go2hooks.core.domain.record import record_skip
from go2hooks.core.domain.retry import RetryPolicy, next_step

policies = st.builds(RetryPolicy, st.lists(st.floats(0.001, 86_400), min_size=1, max_size=10).map(tuple))
moments = st.integers(0, 2**45)
DELIVERY = Delivery(
    "dlv_1", "wh_1", "acc_1", "evt_1", "click", "2024-01-01T12:00:00Z", b"{}", 1, 0, "event", 0, suspect=False
)
FAILED = Failed(Failure.BAD_STATUS, "The receiver answered 500.", 500)


def test_the_schedule_of_the_page() -> None:
    """5 s, 30 s, 2 min, 10 min, 1 h, each counted from the failure before it; the sixth failure is the last."""
    policy = RetryPolicy()
    steps = [policy.after_failure(attempt, 1000) for attempt in range(1, 7)]
    assert steps == [
        RetryAt(0, 6_000),
        RetryAt(1, 31_000),
        RetryAt(2, 121_000),
        RetryAt(3, 601_000),
        RetryAt(4, 3_601_000),
        DeadLetter(),
    ]
    assert policy.max_attempts == 6
    assert policy.span_s == 5 + 30 + 120 + 600 + 3600


@given(policies, moments)
def test_every_chain_of_failures_ends_after_max_attempts(policy: RetryPolicy, now_ms: int) -> None:
    attempt = 1
    while isinstance(step := policy.after_failure(attempt, now_ms), RetryAt):
        assert step.tier == attempt - 1
        assert step.due_ms == now_ms + round(policy.delays_s[step.tier] * 1000)
        attempt += 1
    assert attempt == policy.max_attempts == len(policy.delays_s) + 1


@given(policies, st.integers(10, 1000), moments)
def test_a_schedule_that_was_shortened_meanwhile_ends_the_chain(policy: RetryPolicy, extra: int, now_ms: int) -> None:
    assert policy.after_failure(len(policy.delays_s) + extra, now_ms) == DeadLetter()


@given(policies, st.integers(0, 5), moments)
def test_what_is_sent_back_goes_through_the_whole_schedule_again(policy: RetryPolicy, rounds: int, now_ms: int) -> None:
    first = rounds * policy.max_attempts + 1
    for attempt in range(first, first + policy.max_attempts):
        delivery = DELIVERY._replace(kind=Kind.REPLAY, attempt=attempt)
        expected = policy.after_failure(attempt - first + 1, now_ms)
        assert next_step(delivery, FAILED, now_ms, policy) == expected
    assert expected == DeadLetter()


@given(policies, st.integers(1, 20), moments)
def test_a_replay_begins_the_schedule_anew_whatever_the_number_of_its_first_attempt(
    policy: RetryPolicy, first: int, now_ms: int
) -> None:
    delivery = replayed(DELIVERY, first)
    for place in range(1, policy.max_attempts + 1):
        expected = policy.after_failure(place, now_ms)
        assert next_step(delivery, FAILED, now_ms, policy) == expected
        delivery = delivery._replace(attempt=delivery.attempt + 1)
    assert expected == DeadLetter()


@given(policies, st.integers(1, 10), moments, st.floats(0, 200_000))
def test_what_the_receiver_asked_for_never_hurries_a_retry(
    policy: RetryPolicy, attempt: int, now_ms: int, wait_s: float
) -> None:
    plain, asked = policy.after_failure(attempt, now_ms), policy.after_failure(attempt, now_ms, wait_s)
    if isinstance(plain, DeadLetter):
        assert asked == plain
        return
    assert isinstance(asked, RetryAt)
    assert asked.tier >= plain.tier
    assert asked.due_ms == now_ms + round(policy.delays_s[asked.tier] * 1000)
    reachable = policy.delays_s[plain.tier :]
    assert policy.delays_s[asked.tier] >= min(wait_s, max(reachable))


@given(st.integers(1, 10), moments, policies)
def test_a_success_is_done_at_any_attempt(attempt: int, now_ms: int, policy: RetryPolicy) -> None:
    assert next_step(DELIVERY._replace(attempt=attempt), Delivered(204), now_ms, policy) == Done()


@given(st.integers(1, 10), moments, policies)
def test_what_was_asked_for_is_never_retried(attempt: int, now_ms: int, policy: RetryPolicy) -> None:
    for kind in ON_REQUEST:
        delivery = DELIVERY._replace(attempt=attempt, kind=kind)
        assert next_step(delivery, FAILED, now_ms, policy) == DeadLetter()


@pytest.mark.parametrize("kind", [Kind.EVENT, Kind.REPLAY])
@pytest.mark.parametrize("failure", [f for f in Failure if f != Failure.GONE])
def test_every_failure_is_retried_by_the_same_schedule(kind: Kind, failure: Failure) -> None:
    step = next_step(DELIVERY._replace(kind=kind, attempt=2), Failed(failure, "why"), 1000, RetryPolicy())
    assert step == RetryAt(1, 31_000)


@pytest.mark.parametrize("kind", Kind)
def test_who_is_gone_is_not_asked_again(kind: Kind) -> None:
    failed = Failed(Failure.GONE, "why", 410, retry_after_s=5.0)
    assert next_step(DELIVERY._replace(kind=kind), failed, 1000, RetryPolicy()) == DeadLetter()


@pytest.mark.parametrize("kind", [Kind.EVENT, Kind.REPLAY])
@pytest.mark.parametrize(
    ("wait_s", "tier"),
    [(None, 0), (0.0, 0), (5.0, 0), (5.001, 1), (30.0, 1), (100.0, 2), (120.0, 2), (3600.0, 4), (3601.0, 4), (1e9, 4)],
)
def test_a_long_retry_after_takes_the_first_tier_that_is_long_enough(
    kind: Kind, wait_s: float | None, tier: int
) -> None:
    failed, policy = Failed(Failure.BAD_STATUS, "busy", 503, retry_after_s=wait_s), RetryPolicy()
    expected = RetryAt(tier, round(policy.delays_s[tier] * 1000))
    assert next_step(DELIVERY._replace(kind=kind), failed, 0, policy) == expected


@pytest.mark.parametrize("kind", [Kind.EVENT, Kind.REPLAY])
def test_without_a_retry_after_the_shortest_tier_is_long_enough(kind: Kind) -> None:
    assert next_step(DELIVERY._replace(kind=kind), FAILED, 0, RetryPolicy((0.1, 60.0))) == RetryAt(0, 100)


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        (SkipReason.DISABLED, "The webhook was disabled when this was to be sent."),
        (SkipReason.DELETED, "The webhook was deleted."),
        (SkipReason.UNSUBSCRIBED, "The webhook no longer subscribes to this event."),
    ],
)
def test_what_is_skipped_says_why_and_promises_nothing(reason: SkipReason, message: str) -> None:
    record = record_skip(DELIVERY, Position("go2.deliveries", 0, 0), Skip(reason), 0)
    assert (record.error_code, record.error_message) == (reason, message)
