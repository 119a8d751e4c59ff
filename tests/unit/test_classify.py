"""Which responses are success, and what a Retry-After is worth."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from go2hooks.core.classify import classify, retry_after_s
from go2hooks.core.outcome import Answer, Delivered, Failed, Failure, NoAnswer

NOW_MS = 1_704_110_400_000  # Mon, 01 Jan 2024 12:00:00 GMT


def answer(status: int, retry_after: str | None = None) -> Answer:
    return Answer(status, 12.5, retry_after, b"")


def test_2xx_alone_is_success():
    """Each status there can be: those at the edges are one in a hundred."""
    for status in range(100, 1000):
        outcome = classify(answer(status), NOW_MS)
        assert isinstance(outcome, Delivered) == (200 <= status <= 299)
        assert outcome.status == status
        if isinstance(outcome, Failed):
            assert outcome.failure == (Failure.REDIRECT if 300 <= status <= 399 else Failure.BAD_STATUS)
            assert str(status) in outcome.message


def test_a_redirect_says_that_it_is_not_followed():
    assert classify(answer(301), NOW_MS).message == (
        "The receiver answered 301 Moved Permanently; redirects are not followed."
    )


def test_without_an_answer_the_failure_passes_through():
    assert classify(NoAnswer(Failure.TIMEOUT, "Too slow.", 10_000.0), NOW_MS) == Failed(Failure.TIMEOUT, "Too slow.")


@pytest.mark.parametrize(
    ("status", "wait_s"), [(429, 30.0), (503, 30.0), (500, None), (404, None), (301, None)]
)  # fmt: skip
def test_retry_after_counts_where_it_means_something(status, wait_s):
    assert classify(answer(status, "30"), NOW_MS).retry_after_s == wait_s


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [
        (None, None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("Mon, 01 Jan 2024 12:01:00 GMT", 60.0),
        ("Mon, 01 Jan 2024 11:00:00 GMT", 0.0),
        ("Mon, 01 Jan 2024 12:01:00 -0000", 60.0),
        ("Monday, 01-Jan-24 12:01:00 GMT", 60.0),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("\u0661\u0662", None),
        ("99999999999999999999", 999999999.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(header, wait_s):
    assert retry_after_s(header, NOW_MS) == wait_s


_NUMBERS = st.one_of(st.integers(0, 60), st.integers(0, 10**20), st.sampled_from(["", "x"])).map(str)
_DATES = st.builds("{} Jan {} {}:{}:{} {}{}".format, *[_NUMBERS] * 5, st.sampled_from(["+", "-", "GMT", ""]), _NUMBERS)


@given(header=st.one_of(st.text(max_size=60), _DATES))
def test_no_retry_after_does_harm(header):
    wait_s = retry_after_s(header, NOW_MS)
    assert wait_s is None or wait_s >= 0


@pytest.mark.parametrize("header", ["Mon, 01 Jan 99999 12:00:00 GMT", "Mon, 32 Jan 2024 00:00:00 GMT", "1 Jan 2024 12:00:00 +99999999999", "Mon, 01 Jan 99999999999 00:00:00 GMT", "Mon, 99999999999 Jan 2024 00:00:00 GMT", "1 Jan 2024 99999999999:00:00 GMT", "1 Jan 2024 12:00:00 +99999999999999999"])  # fmt: skip
def test_a_date_that_no_calendar_has_says_nothing(header):
    assert retry_after_s(header, NOW_MS) is None
