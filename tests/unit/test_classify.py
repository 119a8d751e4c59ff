"""Which responses are success, and what a Retry-After is worth."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from go2hooks.core.domain.classify import classify, retry_after_s, shown_target
from go2hooks.core.domain.outcome import Answer, Delivered, Failed, Failure, NoAnswer

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
            is_redirect = 300 <= status <= 399 and status != 304
            other = Failure.GONE if status == 410 else Failure.BAD_STATUS
            assert outcome.failure == (Failure.REDIRECT if is_redirect else other)
            assert str(status) in outcome.message


def test_a_redirect_says_that_it_is_not_followed():
    assert classify(answer(301), NOW_MS).message == (
        "The receiver answered 301 Moved Permanently; redirects are not followed."
    )


def test_without_an_answer_the_failure_passes_through():
    assert classify(NoAnswer(Failure.TIMEOUT, "Too slow.", 10_000.0), NOW_MS) == Failed(Failure.TIMEOUT, "Too slow.")


def test_a_redirect_names_its_target():
    location = "https://user:word@hooks.example/new?token=secret#top"
    outcome = classify(answer(308)._replace(location=location), NOW_MS)
    assert outcome.message == (
        "The receiver answered 308 Permanent Redirect (to https://hooks.example/new); redirects are not followed."
    )


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        (None, ""),
        ("", ""),
        ("/new/", "/new/"),
        ("//cdn.example/x", "//cdn.example/x"),
        ("https://h.example/a%20b;c=d/@me", "https://h.example/a%20b;c=d/@me"),
        ("https://h.example?x", "https://h.example"),
        ("?x", ""),
        ("https://a:b@c:d@h.example/", "https://h.example/"),
        ("//a:b@h.example/", "//h.example/"),
        ("https:a:b@h.example/", "https:h.example/"),
        ("HTTPS:\\\\a:b@h.example/", "HTTPS:%5C%5Ch.example/"),
        ("/@me/hook", "/@me/hook"),
        ("https://[2001:db8::1]:8443/", "https://[2001:db8::1]:8443/"),
        ("/<script>\"'`", "/%3Cscript%3E%22%27%60"),
        ("/a b\t\x00\xfc", "/a%20b%09%00%FC"),
        ("/" + "x" * 199, "/" + "x" * 199),
        ("/" + "x" * 200, "/" + "x" * 199 + "…"),
    ],
)
def test_a_target_is_shown_without_what_is_secret_and_without_what_could_act(location, shown):
    assert shown_target(location) == shown


@given(st.text(st.characters(max_codepoint=255)))
def test_any_location_can_be_shown(location):
    shown = shown_target(location)
    assert shown.removesuffix("…").isascii()
    assert shown.isprintable()
    assert len(shown) <= 201


def test_a_304_is_no_redirect():
    outcome = classify(answer(304)._replace(location="/x"), NOW_MS)
    assert outcome == Failed(Failure.BAD_STATUS, "The receiver answered 304 Not Modified.", 304)


def test_a_410_is_gone_and_asks_for_no_wait():
    outcome = classify(answer(410, "30"), NOW_MS)
    assert outcome == Failed(Failure.GONE, "The receiver answered 410 Gone: it wants no more events.", 410)


@pytest.mark.parametrize(
    ("status", "wait_s"),
    [(400, 30.0), (404, 30.0), (429, 30.0), (499, 30.0), (500, 30.0), (503, 30.0), (599, 30.0), (301, None), (304, None), (600, None)],
)  # fmt: skip
def test_retry_after_counts_with_every_error(status, wait_s):
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
        ("1.5", 2.0),
        ("0.001", 1.0),
        ("120, 120", 120.0),
        ("5,120,30", 120.0),
        ("Mon, 01 Jan 2024 12:01:00 GMT, Mon, 01 Jan 2024 12:01:00 GMT", 60.0),
        ("3600", 3600.0),
        ("3601", 3600.0),
        ("Tue, 02 Jan 2024 12:00:00 GMT", 3600.0),
        ("1.", None),
        (".5", None),
        ("1e3", None),
        ("120 s", None),
        ("12 0", None),
        ("5, soon", None),
        (",", None),
        ("soon", None),
        ("", None),
        ("\u0661\u0662", None),
        ("99999999999999999999", 3600.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(header, wait_s):
    assert retry_after_s(header, NOW_MS) == wait_s


_NUMBERS = st.one_of(st.integers(0, 60), st.integers(0, 10**20), st.sampled_from(["", "x"])).map(str)
_DATES = st.builds("{} Jan {} {}:{}:{} {}{}".format, *[_NUMBERS] * 5, st.sampled_from(["+", "-", "GMT", ""]), _NUMBERS)


@given(header=st.one_of(st.text(max_size=60), _DATES))
def test_no_retry_after_does_harm(header):
    wait_s = retry_after_s(header, NOW_MS)
    assert wait_s is None or 0 <= wait_s <= 3600


@pytest.mark.parametrize("header", ["Mon, 01 Jan 99999 12:00:00 GMT", "Mon, 32 Jan 2024 00:00:00 GMT", "1 Jan 2024 12:00:00 +99999999999", "Mon, 01 Jan 99999999999 00:00:00 GMT", "Mon, 99999999999 Jan 2024 00:00:00 GMT", "1 Jan 2024 99999999999:00:00 GMT", "1 Jan 2024 12:00:00 +99999999999999999"])  # fmt: skip
def test_a_date_that_no_calendar_has_says_nothing(header):
    assert retry_after_s(header, NOW_MS) is None
