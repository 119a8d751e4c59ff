"""What a receiver may send, and what both senders make of it."""

import asyncio
from typing import Any

import pytest
from scripted import BODY, OK, Line, post

from go2hooks.core.outcome import Answer, Failure, NoAnswer


def head(*lines: str) -> bytes:
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


CHUNKED = head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked")

# name: (what the receiver sends, before it closes, the status and excerpt that come of it)
WELL_FORMED: dict[str, tuple[bytes, int, bytes]] = {
    "a body with its length": (OK, 200, b"ok"),
    "a chunked body": (CHUNKED + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", 200, b"abcde"),
    "chunk extensions and trailers": (CHUNKED + b"3;a=b\r\nabc\r\n0\r\nTrailer: x\r\n\r\n", 200, b"abc"),
    "a body that ends with the connection": (head("HTTP/1.1 200 OK") + b"until the end", 200, b"until the end"),
    "no headers at all": (b"HTTP/1.1 200 OK\r\n\r\n", 200, b""),
    "no reason phrase": (b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", 200, b""),
    "a 204": (head("HTTP/1.1 204 No Content"), 204, b""),
    "a 304 that names a length": (head("HTTP/1.1 304 Not Modified", "Content-Length: 10"), 304, b""),
    "HTTP/1.0": (head("HTTP/1.0 200 OK") + b"old", 200, b"old"),
    "HTTP/1.0 with keep-alive": (
        head("HTTP/1.0 200 OK", "Connection: keep-alive", "Content-Length: 3") + b"old",
        200,
        b"old",
    ),
    "a redirect, which is not followed": (
        head("HTTP/1.1 302 Found", "Location: http://127.0.0.1:1/", "Content-Length: 0"),
        302,
        b"",
    ),
    "an error": (head("HTTP/1.1 500 Oh", "Content-Length: 4") + b"oops", 500, b"oops"),
    "a compressed body, which is left as it is": (
        head("HTTP/1.1 200 OK", "Content-Encoding: gzip", "Content-Length: 3") + b"\x1f\x8b\x08",
        200,
        b"\x1f\x8b\x08",
    ),
    "100 Continue first": (head("HTTP/1.1 100 Continue") + OK, 200, b"ok"),
    "102 and 103 first": (
        head("HTTP/1.1 102 Processing") + head("HTTP/1.1 103 Early Hints", "Link: </x>") + OK,
        200,
        b"ok",
    ),
    "pipelined garbage after the answer": (OK + b"garbage\r\n\r\n", 200, b"ok"),
    "a second answer that nobody asked for": (OK + head("HTTP/1.1 500 No", "Content-Length: 0"), 200, b"ok"),
    "a long header": (head("HTTP/1.1 200 OK", "X-Long: " + "x" * 30000, "Content-Length: 2") + b"ok", 200, b"ok"),
    "many headers": (
        head("HTTP/1.1 200 OK", *[f"X-{n}: y" for n in range(500)], "Content-Length: 2") + b"ok",
        200,
        b"ok",
    ),
    "an excerpt longer than is kept": (head("HTTP/1.1 200 OK", "Content-Length: 100") + b"x" * 100, 200, b"x" * 64),
    "a status that nobody defined": (head("HTTP/1.1 999 Request denied", "Content-Length: 0"), 999, b""),
    "cookies": (head("HTTP/1.1 200 OK", "Set-Cookie: a=b", "Content-Length: 2") + b"ok", 200, b"ok"),
    "an upgrade offered, not made": (
        head("HTTP/1.1 200 OK", "Connection: upgrade", "Upgrade: h2c", "Content-Length: 2") + b"ok",
        200,
        b"ok",
    ),
    "bytes beyond ASCII in a header": (
        "HTTP/1.1 200 Grüße\r\nX-A: ü\r\nContent-Length: 2\r\n\r\nok".encode("latin-1"),
        200,
        b"ok",
    ),
}

#: aiohttp takes the answer for broken as well; the fast sender knows where it ended.
BROKEN_FOR_AIOHTTP = {"pipelined garbage after the answer"}

# name: (what the receiver sends, before it closes, the failure that comes of it)
BROKEN: dict[str, tuple[bytes, Failure]] = {
    "nothing": (b"", Failure.CONNECTION_ERROR),
    "half a status line": (b"HTTP/1.1 2", Failure.CONNECTION_ERROR),
    "half a head": (b"HTTP/1.1 200 OK\r\nContent-", Failure.CONNECTION_ERROR),
    "less than its length": (head("HTTP/1.1 200 OK", "Content-Length: 10") + b"short", Failure.CONNECTION_ERROR),
    "a chunked body without its end": (CHUNKED + b"3\r\nabc\r\n", Failure.CONNECTION_ERROR),
    "half a chunk": (CHUNKED + b"ff\r\nabc", Failure.CONNECTION_ERROR),
    "no HTTP": (b"220 mail.example ESMTP\r\n", Failure.INVALID_RESPONSE),
    "an SSH banner": (b"SSH-2.0-OpenSSH_9.2\r\n", Failure.INVALID_RESPONSE),
    "an HTTP/2 preface": (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x80", Failure.INVALID_RESPONSE),
    "a TLS alert": (b"\x15\x03\x01\x00\x02\x02\x46", Failure.INVALID_RESPONSE),
    "NUL bytes": (b"\0" * 64, Failure.INVALID_RESPONSE),
    "a status that is no number": (head("HTTP/1.1 abc OK"), Failure.INVALID_RESPONSE),
    "a status of two digits": (head("HTTP/1.1 20 OK", "Content-Length: 0"), Failure.INVALID_RESPONSE),
    "a status below 100": (head("HTTP/1.1 099 Odd", "Content-Length: 0"), Failure.INVALID_RESPONSE),
    "two different lengths": (
        head("HTTP/1.1 200 OK", "Content-Length: 2", "Content-Length: 3") + b"abc",
        Failure.INVALID_RESPONSE,
    ),
    "a negative length": (head("HTTP/1.1 200 OK", "Content-Length: -1"), Failure.INVALID_RESPONSE),
    "a length that overflows": (
        head("HTTP/1.1 200 OK", "Content-Length: 99999999999999999999999"),
        Failure.INVALID_RESPONSE,
    ),
    "length and chunks at once": (
        head("HTTP/1.1 200 OK", "Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n",
        Failure.INVALID_RESPONSE,
    ),
    "a chunk size that is no number": (CHUNKED + b"zz\r\nabc\r\n", Failure.INVALID_RESPONSE),
    "a header without a colon": (head("HTTP/1.1 200 OK", "Nonsense", "Content-Length: 0"), Failure.INVALID_RESPONSE),
    "101 Switching Protocols": (
        head("HTTP/1.1 101 Switching", "Connection: upgrade", "Upgrade: websocket") + b"\x81\x05hello",
        Failure.INVALID_RESPONSE,
    ),
    "100 Continue and nothing else": (head("HTTP/1.1 100 Continue"), Failure.CONNECTION_ERROR),
    "a header section of 80 KiB": (
        head("HTTP/1.1 200 OK", *[f"X-{n}: {'y' * 1000}" for n in range(80)], "Content-Length: 0"),
        Failure.INVALID_RESPONSE,
    ),
    "a header section of 10 MiB": (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 10485760, Failure.INVALID_RESPONSE),
}


@pytest.mark.parametrize("name", WELL_FORMED)
async def test_an_answer_counts_whichever_way_it_is_sent(receive: Any, sender: Any, kind: str, name: str) -> None:
    answer, status, excerpt = WELL_FORMED[name]
    if kind == "aiohttp" and name in BROKEN_FOR_AIOHTTP:
        pytest.skip("aiohttp parses on, and fails")

    async def script(line: Line) -> None:
        await line.request()
        await line.send(answer)

    receiver = await receive(script)
    response = await sender.send(post(receiver.target()))
    assert isinstance(response, Answer), response
    assert (response.status, response.excerpt) == (status, excerpt)
    assert 0 < response.duration_ms < 5000


@pytest.mark.parametrize("name", WELL_FORMED)
async def test_an_answer_counts_when_it_comes_byte_by_byte(receive: Any, sender: Any, name: str) -> None:
    answer, status, excerpt = WELL_FORMED[name]
    if len(answer) > 1000:
        pytest.skip("long in bytes, and no different")

    async def script(line: Line) -> None:
        await line.request()
        for position in range(len(answer)):
            await line.send(answer[position : position + 1])
            await asyncio.sleep(0)

    receiver = await receive(script)
    response = await sender.send(post(receiver.target()))
    assert isinstance(response, Answer), response
    assert (response.status, response.excerpt) == (status, excerpt)


@pytest.mark.parametrize("name", BROKEN)
async def test_what_is_no_answer_is_a_failure_of_its_own_kind(receive: Any, sender: Any, name: str) -> None:
    answer, failure = BROKEN[name]

    async def script(line: Line) -> None:
        await line.request()
        await line.send(answer)

    receiver = await receive(script)
    response = await sender.send(post(receiver.target()))
    assert isinstance(response, NoAnswer), response
    assert response.failure == failure, response
    assert response.message.endswith(".")
    assert "127.0.0.1" not in response.message


async def test_the_request_is_what_was_signed(receive: Any, sender: Any) -> None:
    requests = []

    async def script(line: Line) -> None:
        requests.append(await line.request())
        await line.send(OK)

    receiver = await receive(script)
    await sender.send(post(receiver.target(path="/a%20b?x=1&y=%2F")))
    head_bytes, _, body = requests[0].partition(b"\r\n\r\n")
    request_line, *headers = head_bytes.decode().split("\r\n")
    assert request_line == "POST /a%20b?x=1&y=%2F HTTP/1.1"
    assert sorted(headers) == sorted(
        [
            f"Host: localhost:{receiver.port}",
            "Content-Type: application/json",
            "X-Webhook-Attempt: 1",
            "User-Agent: Go2-Webhooks/test",
            f"Content-Length: {len(BODY)}",
        ]
    )
    assert body == BODY


async def test_retry_after_is_passed_on_as_it_came(receive: Any, sender: Any) -> None:
    receiver = await receive(head("HTTP/1.1 503 Busy", "retry-AFTER:  120 ", "Content-Length: 0"))
    response = await sender.send(post(receiver.target()))
    assert isinstance(response, Answer)
    assert response.retry_after == "120"


async def test_retry_after_is_not_read_from_a_body_or_an_interim_head(receive: Any, sender: Any) -> None:
    interim = head("HTTP/1.1 103 Early Hints", "Retry-After: 9")
    receiver = await receive(interim + head("HTTP/1.1 503 Busy", "Content-Length: 18") + b"\r\nRetry-After: 5\r\n")
    response = await sender.send(post(receiver.target()))
    assert isinstance(response, Answer)
    assert response.retry_after is None


async def test_a_header_that_would_break_out_of_its_line_is_not_sent(receive: Any, sender: Any) -> None:
    receiver = await receive(OK)
    request = post(receiver.target())._replace(headers=(("X-Webhook-Event", "click\r\nX-Forged: 1"),))
    response = await sender.send(request)
    assert isinstance(response, NoAnswer)
    assert response.failure == Failure.INVALID_URL
    assert not receiver.lines
