"""Requests as bytes, and what is read from a response's head."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from go2hooks.core.security.request import SignedRequest
from go2hooks.core.security.target import Target, parse_target
from services.dispatcher.http.wire import UnsendableError, final_head, location, retry_after, serialize

TARGET = parse_target("https://hooks.example/in?x=1")


def request(*headers: tuple[str, str], target: Target = TARGET, body: bytes = b"{}") -> SignedRequest:
    return SignedRequest(target, headers, body)


def test_a_request_is_one_run_of_bytes() -> None:
    assert serialize(request(("A", "1"), ("B", "2"))) == (
        b"POST /in?x=1 HTTP/1.1\r\nHost: hooks.example\r\nA: 1\r\nB: 2\r\nContent-Length: 2\r\n\r\n{}"
    )


def test_a_body_may_hold_anything() -> None:
    assert serialize(request(body=b"\r\n\r\n\0\xff")).endswith(b"Content-Length: 6\r\n\r\n\r\n\r\n\0\xff")


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nb", "a\rb", "\n", "日本"])
def test_a_value_that_breaks_the_framing_is_refused(value: str) -> None:
    with pytest.raises(UnsendableError):
        serialize(request(("A", value)))
    with pytest.raises(UnsendableError):
        serialize(request((value, "a")))


@pytest.mark.parametrize("path", ["/a b", "/a\r\nX: y", "/ü", "/\x7f", "/a\tb"])
def test_a_path_that_breaks_the_request_line_is_refused(path: str) -> None:
    with pytest.raises(UnsendableError):
        serialize(request(target=TARGET._replace(path=path)))


@given(name=st.text(), value=st.text())
def test_no_header_ever_adds_a_line(name: str, value: str) -> None:
    try:
        raw = serialize(request((name, value)))
    except UnsendableError:
        return
    assert raw.count(b"\r\n") == 5
    assert raw.count(b"\n") == raw.count(b"\r") == 5


def test_interim_heads_are_skipped() -> None:
    final = b"HTTP/1.1 200 OK\r\nA: b"
    assert (
        final_head(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + final + b"\r\n\r\nbody")
        == final
    )


def test_line_ends_without_carriage_returns_are_understood() -> None:
    assert final_head(b"HTTP/1.1 503 Busy\nRetry-After: 3\n\nRetry-After: 4") == b"HTTP/1.1 503 Busy\nRetry-After: 3"
    assert retry_after(b"HTTP/1.1 503 Busy\nRetry-After: 3") == "3"


@pytest.mark.parametrize(
    ("head", "value"),
    [
        (b"HTTP/1.1 503 B\r\nRetry-After: 120", "120"),
        (b"HTTP/1.1 503 B\r\nretry-after:Wed, 21 Oct 2026 07:28:00 GMT\r\nB: c", "Wed, 21 Oct 2026 07:28:00 GMT"),
        (b"HTTP/1.1 503 B\r\nRetry-After: \t5\t ", "5"),
        (b"HTTP/1.1 503 B\r\nRetry-After:", ""),
        (b"HTTP/1.1 503 B\r\nX-Retry-After: 5", None),
        (b"HTTP/1.1 503 B", None),
        (b"HTTP/1.1 503 B\r\nRetry-After: 5\r\nA: b\r\nretry-after: 7", "5, 7"),
    ],
)
def test_retry_after_is_found(head: bytes, value: str | None) -> None:
    assert retry_after(head) == value


@pytest.mark.parametrize("value", [b"x" + b" " * 65_000 + b"y", b" " * 65_000, b"\t " * 32_000 + b"1", b"9" * 65_000])
def test_no_retry_after_keeps_anybody_waiting(value: bytes) -> None:
    """While an expression is matched nothing else runs, and a receiver chooses what it is matched against."""
    began = time.process_time()
    assert retry_after(b"HTTP/1.1 503 B\r\nRetry-After: " + value) in (None, "", "1")
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize(
    ("head", "value"),
    [
        (b"HTTP/1.1 301 M\r\nlocation: https://a.test/x?y#z \r\nB: c", "https://a.test/x?y#z"),
        (b"HTTP/1.1 301 M\r\nLocation: /" + b"x" * 5000, "/" + "x" * 1023),
        (b"HTTP/1.1 301 M\r\nContent-Location: /x", None),
        (b"HTTP/1.1 301 M\r\nLocation: /\xfc", "/\xfc"),
    ],
)
def test_a_location_is_found(head: bytes, value: str | None) -> None:
    assert location(head) == value


@given(st.binary(max_size=300))
def test_no_bytes_trouble_the_reading_of_heads(raw: bytes) -> None:
    head = final_head(raw)
    retry_after(head)
    location(head)
