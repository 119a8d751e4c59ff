"""One timeout over everything: never early, a little late at most, and the message says what it interrupted."""

import asyncio
import time
from collections import Counter
from typing import Any

import pytest
from scripted import AT_ONCE, OK, Line, post

from go2hooks.core.domain.outcome import Answer, Failure, NoAnswer

TIMEOUT_S = 0.6  # long enough for a busy machine to come as far as a test wants
LATE_S = 10.0  # a busy machine included
EARLY_S = {
    "protocol": 0.0,
    "taskless": 0.0,
    "aiohttp": 0.005,
}  # asyncio's own timers go by the loop's time, which uvloop rounds


async def send_slowly(line: Line, data: bytes, every_s: float = 0.02) -> None:
    for position in range(len(data)):
        await line.send(data[position : position + 1])
        await asyncio.sleep(every_s)


async def never_answers(line: Line) -> None:
    await line.request()
    await line.until_closed()


async def drips_its_head(line: Line) -> None:
    await line.request()
    await send_slowly(line, b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 1000)


async def drips_a_folded_head(line: Line) -> None:
    await line.request()
    await send_slowly(line, b"HTTP/1.1 200 OK\r\nX-Slow: x\r\n" + b" x" * 1000)


async def drips_its_body(line: Line) -> None:
    await line.request()
    await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    await send_slowly(line, b"x" * 1000)


async def drips_its_chunks(line: Line) -> None:
    await line.request()
    await line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    await send_slowly(line, b"1\r\nx\r\n" * 200)


async def never_ends_its_body(line: Line) -> None:
    await line.request()
    await line.send(b"HTTP/1.1 200 OK\r\n\r\nand then nothing")
    await line.until_closed()


async def never_reads(line: Line) -> None:
    await asyncio.sleep(30)


@pytest.mark.parametrize(
    ("script", "phase"),
    [
        (never_answers, "waiting for a response"),
        (drips_its_head, None),
        (drips_a_folded_head, None),
        (never_reads, "waiting for a response"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
@pytest.mark.parametrize("warm", [False, True], ids=["fresh", "kept alive"])
async def test_a_receiver_that_takes_too_long_times_out(
    receive: Any, make_sender: Any, kind: str, script: Any, phase: str | None, warm: bool
) -> None:
    sender = make_sender(timeout_s=TIMEOUT_S)

    async def whole_script(line: Line) -> None:
        if warm:
            await line.request()
            await line.send(OK)
        await script(line)

    receiver = await receive(whole_script)
    if warm:
        assert isinstance(await sender.send(post(receiver.target())), Answer)
    begun = time.monotonic()
    response = await sender.send(post(receiver.target(), b"x" * 900_000 if script is never_reads else b"{}"))
    took_s = time.monotonic() - begun
    assert isinstance(response, NoAnswer), response
    assert response.failure == Failure.TIMEOUT
    assert response.message.startswith("Timed out after 0.6 s while ")
    assert phase is None or phase in response.message
    assert TIMEOUT_S - EARLY_S[kind] <= took_s < TIMEOUT_S + LATE_S
    assert len(receiver.lines) == 1  # not sent again
    if script is not never_reads:
        await receiver.until(lambda: receiver.open == 0)


@pytest.mark.parametrize("script", [drips_its_body, drips_its_chunks, never_ends_its_body])
@pytest.mark.parametrize(
    ("timeout_s", "body_timeout_s"), [(30.0, TIMEOUT_S), (TIMEOUT_S, 30.0)], ids=["body", "attempt"]
)
async def test_the_end_of_a_body_is_waited_for_briefly_and_then_the_answer_counts(
    receive: Any, make_sender: Any, kind: str, script: Any, timeout_s: float, body_timeout_s: float
) -> None:
    sender = make_sender(timeout_s=timeout_s, body_timeout_s=body_timeout_s)

    async def whole_script(line: Line) -> None:
        await line.request()
        await line.send(OK)
        await script(line)

    receiver = await receive(whole_script)
    assert isinstance(await sender.send(post(receiver.target())), Answer)
    begun = time.monotonic()
    response = await sender.send(post(receiver.target()))
    took_s = time.monotonic() - begun
    assert isinstance(response, Answer), response
    assert response.status == 200
    assert response.excerpt
    assert TIMEOUT_S - EARLY_S[kind] <= took_s < TIMEOUT_S + LATE_S
    assert response.duration_ms < took_s * 1000 - 100  # to the end of the head
    await receiver.until(lambda: receiver.open == 0)
    assert isinstance(await sender.send(post(receiver.target())), Answer)
    assert len(receiver.lines) == 2  # that connection was not used again


async def test_a_body_whose_end_comes_in_time_keeps_its_connection(receive: Any, make_sender: Any) -> None:
    sender = make_sender(body_timeout_s=10.0)

    async def script(line: Line) -> None:
        while True:
            await line.request()
            await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
            await asyncio.sleep(0.02)
            await line.send(b"k")

    receiver = await receive(script)
    for _ in range(5):
        response = await sender.send(post(receiver.target()))
        assert isinstance(response, Answer), response
        assert response.excerpt == b"ok"
    assert len(receiver.lines) == 1


async def look_up_or_hang(host: str) -> list[str]:
    if host == "dead.test":
        await asyncio.Event().wait()
    return ["127.0.0.1"]


async def test_a_host_name_that_is_not_looked_up_in_time_times_out(receive: Any, make_sender: Any, kind: str) -> None:
    sender = make_sender(timeout_s=TIMEOUT_S, lookup=look_up_or_hang)
    receiver = await receive(OK)
    responses = await asyncio.gather(*(sender.send(post(receiver.target("dead.test"))) for _ in range(200)))
    assert {response.failure for response in responses} == {Failure.TIMEOUT}
    said = Counter(response.message for response in responses)
    looking_up = 200 if kind == "aiohttp" else AT_ONCE
    assert said.pop("Timed out after 0.6 s while looking up the host name.") == looking_up
    assert said == (
        {} if kind == "aiohttp" else {"Timed out after 0.6 s while waiting for a connection.": 200 - AT_ONCE}
    )


async def test_nobody_waits_behind_a_host_name_that_is_not_looked_up(receive: Any, make_sender: Any) -> None:
    sender = make_sender(lookup=look_up_or_hang)
    receiver = await receive(OK)
    dead = [asyncio.create_task(sender.send(post(receiver.target("dead.test")))) for _ in range(200)]
    await asyncio.sleep(0)
    assert isinstance(await sender.send(post(receiver.target("healthy.test"))), Answer)
    assert not any(task.done() for task in dead)
    for task in dead:
        task.cancel()
    await asyncio.wait(dead)


async def test_a_connect_that_nobody_answers_times_out(make_sender: Any, full_backlog: int, kind: str) -> None:
    sender = make_sender(timeout_s=TIMEOUT_S)
    from go2hooks.core.security.target import parse_target

    response = await sender.send(post(parse_target(f"http://127.0.0.1:{full_backlog}/")))
    assert isinstance(response, NoAnswer)
    assert response.failure == Failure.TIMEOUT
    assert response.message == "Timed out after 0.6 s while connecting."


async def test_a_handshake_that_never_ends_times_out(receive: Any, make_sender: Any, kind: str) -> None:
    sender = make_sender(timeout_s=TIMEOUT_S)

    async def script(line: Line) -> None:
        await line.until_closed()

    receiver = await receive(script)
    response = await sender.send(post(receiver.target()._replace(scheme="https")))
    assert isinstance(response, NoAnswer)
    assert response.failure == Failure.TIMEOUT
    phase = "negotiating TLS" if kind != "aiohttp" else "connecting"  # aiohttp does not tell
    assert response.message == f"Timed out after 0.6 s while {phase}."
    await receiver.until(lambda: receiver.open == 0)


async def test_both_tries_of_a_stale_connection_share_one_timeout(receive: Any, make_sender: Any) -> None:
    sender = make_sender(timeout_s=1.0)

    async def script(line: Line) -> None:
        await line.request()
        if line.number == 1:
            await line.send(OK)
            await line.request()
            await asyncio.sleep(0.6)
        else:
            await line.until_closed()

    receiver = await receive(script)
    assert isinstance(await sender.send(post(receiver.target())), Answer)
    begun = time.monotonic()
    response = await sender.send(post(receiver.target()))
    assert isinstance(response, NoAnswer)
    assert response.failure == Failure.TIMEOUT
    assert 0.995 <= time.monotonic() - begun < 0.6 + 1.0 - 0.01  # were the second try given a second of its own
    assert len(receiver.lines) == 2


async def test_thousands_of_waiting_requests_all_time_out(receive: Any, make_sender: Any) -> None:
    sender = make_sender(timeout_s=1.5)
    receiver = await receive(never_answers)
    begun = time.monotonic()
    responses = await asyncio.gather(*(sender.send(post(receiver.target())) for _ in range(300)))
    assert all(isinstance(response, NoAnswer) and response.failure == Failure.TIMEOUT for response in responses)
    assert time.monotonic() - begun >= 1.495
    await receiver.until(lambda: receiver.open == 0)
