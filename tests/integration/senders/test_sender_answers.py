"""What a receiver may send, and what both senders make of it."""

from typing import Any

from scripted import BODY, OK, Line, post

from go2hooks.core.domain.outcome import Answer, Failure, NoAnswer


def head(*lines: str) -> bytes:
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


async def test_a_header_section_without_an_end_is_cut_at_the_limit(receive: Any, sender: Any) -> None:
    receiver = await receive(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 10485760)
    response = await sender.send(post(receiver.target()))
    assert isinstance(response, NoAnswer)
    assert response.failure == Failure.INVALID_RESPONSE


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
