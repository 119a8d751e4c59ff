"""Statistics of attempts: exact counts, percentiles within five per cent."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from go2hooks.core.domain.delivery import Kind
from go2hooks.core.domain.outcome import State
from go2hooks.core.domain.record import AttemptRecord
from go2hooks.core.domain.rollup import STEPS_S, Gathered, Rollup, bucket_of, roll_up, value_of

FRACTIONS = (0.5, 0.95, 0.99)
durations = st.floats(0.02, 3_600_000)


def record(state=State.DELIVERED, *, webhook="wh_1", at_ms=0, duration_ms=1.0, status=200):
    return AttemptRecord(
        webhook, 0, "dlv_1", 1, "acc", "evt_1", "click", Kind.EVENT, state, status, duration_ms, None, None, None, at_ms, None, None,
    )  # fmt: skip


def exact(values, fraction):
    """Nearest rank."""
    return sorted(values)[max(0, math.ceil(fraction * len(values)) - 1)]


def of(values):
    rollup = Rollup()
    for value in values:
        rollup.add(State.DELIVERED, value)
    return rollup


@given(st.lists(durations, min_size=1, max_size=300))
def test_percentiles_are_within_five_per_cent_of_the_exact_ones(values):
    for fraction, found in zip(FRACTIONS, of(values).percentiles(FRACTIONS), strict=True):
        assert found == pytest.approx(exact(values, fraction), rel=0.05)


@given(durations)
def test_a_buckets_value_is_near_all_that_fall_into_it(value):
    assert value_of(bucket_of(value)) == pytest.approx(value, rel=0.05)


@given(st.lists(st.lists(durations, max_size=40), min_size=1, max_size=6))
def test_merged_it_is_the_same_as_if_it_had_never_been_apart(parts):
    merged = Rollup()
    for part in parts:
        merged.merge(of(part))
    whole = of([value for part in parts for value in part])
    assert (merged.delivered, merged.histogram) == (whole.delivered, whole.histogram)
    assert merged.percentiles(FRACTIONS) == whole.percentiles(FRACTIONS)


def test_without_answers_there_are_no_percentiles():
    assert Rollup().percentiles(FRACTIONS) == [None, None, None]


@pytest.mark.parametrize("odd", [0.0, 0.001, 0.01])
def test_what_is_too_short_to_be_told_falls_into_the_first_bucket(odd):
    assert bucket_of(odd) == 0


def test_a_batch_gives_a_line_for_each_webhook_and_minute():
    lines = roll_up([
        record(at_ms=59_999, duration_ms=5.0),
        record(State.RETRYING, at_ms=60_000, duration_ms=7.0, status=500),
        record(State.FAILED, at_ms=119_999, duration_ms=10_000.0, status=None),  # no answer: no response time
        record(State.SKIPPED, at_ms=60_001, duration_ms=None, status=None),
        record(State.PENDING, at_ms=60_002, duration_ms=None, status=None),
        record(webhook="wh_2", at_ms=3),
        record(at_ms=0, duration_ms=5.0),
    ])  # fmt: skip
    assert lines == [
        ["wh_1", 0, 2, 0, 0, 0, bucket_of(5.0), 2],
        ["wh_1", 1, 0, 1, 1, 1, bucket_of(7.0), 1],
        ["wh_2", 0, 1, 0, 0, 0, bucket_of(1.0), 1],
    ]


def test_what_only_waits_gives_no_line():
    assert roll_up([record(State.PENDING)]) == []


def test_an_id_that_json_or_postgres_would_refuse_is_written_in_ascii():
    [[name, *_]] = roll_up([record(webhook="wh_\0\ud800")])
    assert json.dumps(name, ensure_ascii=False).encode().isascii()
    assert "\0" not in name


@given(
    st.lists(
        st.tuples(st.sampled_from(["wh_1", "wh_2"]), st.integers(0, 3 * 86_400_000), st.sampled_from(list(State)), durations),
        max_size=60,
    ),
    st.integers(1, 5),
)  # fmt: skip
def test_every_step_counts_the_attempts_that_began_in_it(attempts, batches):
    records = [
        record(state, webhook=name, at_ms=at, duration_ms=duration)
        for name, at, state, duration in attempts
        if state != State.PENDING
    ]
    gathered = Gathered()
    for number in range(batches):
        gathered.add(json.loads(json.dumps(roll_up(records[number::batches]))))
    steps = list(gathered.steps())
    keys = [(webhook, step_s, at_s) for webhook, step_s, at_s, _ in steps]
    assert keys == sorted(set(keys))
    for step_s in STEPS_S:
        of_length = [each for each in steps if each[1] == step_s]
        assert sum(r.delivered + r.failed + r.skipped + r.retried for *_, r in of_length) == len(records)
        for webhook, _, at_s, rollup in of_length:
            inside = [r for r in records if r.webhook_id == webhook and at_s <= r.attempted_ms // 1000 < at_s + step_s]
            assert at_s % step_s == 0
            assert rollup.delivered == sum(r.state == State.DELIVERED for r in inside)
            assert rollup.retried == sum(r.state == State.RETRYING for r in inside)
            assert rollup.failed == sum(r.state == State.FAILED for r in inside)
            assert rollup.skipped == sum(r.state == State.SKIPPED for r in inside)
            assert sum(rollup.histogram.values()) == len(inside)
