"""Exchanges that end early, or do not end: resets, half-closes, early answers, endless answers, cancelled sends."""

import asyncio
import gc
import resource
from typing import Any

import pytest
from scripted import HANGING_S, OK, Line, post

from go2hooks.core.domain.outcome import Answer, Failure, NoAnswer


@pytest.mark.parametrize(("sent", "counts"), [(b"\r\n\r\nhalf", True), (b"\r\n", False)], ids=["body", "head"])
async def test_a_reset_is_a_failure_in_the_middle_of_a_head_and_not_of_a_body(
    receive: Any, sender: Any, sent: bytes, counts: bool
) -> None:
    async def script(line: Line) -> None:
        await line.request()
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100" + sent)
        await asyncio.sleep(0.05)
        line.reset()

    receiver = await receive(script)
    response = await sender.send(post(receiver.target()))
    if counts:
        assert isinstance(response, Answer), response
        assert response.status == 200
    else:
        assert isinstance(response, NoAnswer)
        assert response.failure == Failure.CONNECTION_ERROR


async def test_a_reset_instead_of_an_answer_is_a_failure(receive: Any, sender: Any) -> None:
    async def script(line: Line) -> None:
        await line.request()
        line.reset()

    receiver = await receive(script)
    response = await sender.send(post(receiver.target()))
    assert isinstance(response, NoAnswer)
    assert response.failure == Failure.CONNECTION_ERROR


async def test_an_early_answer_counts_and_the_rest_of_the_request_is_not_waited_for(receive: Any, sender: Any) -> None:
    async def script(line: Line) -> None:
        await line.reader.readuntil(b"\r\n\r\n")
        await line.send(b"HTTP/1.1 413 Too large\r\nContent-Length: 0\r\n\r\n")
        await line.reader.read(1)
        await asyncio.sleep(5)

    receiver = await receive(script)
    response = await sender.send(post(receiver.target(), b"x" * 900_000))
    assert isinstance(response, Answer), response
    assert response.status == 413


async def test_a_receiver_that_closes_its_half_after_the_answer_is_fine(receive: Any, sender: Any) -> None:
    async def script(line: Line) -> None:
        await line.request()
        await line.send(OK)
        line.writer.write_eof()
        await line.until_closed()

    receiver = await receive(script)
    for _ in range(3):
        response = await sender.send(post(receiver.target()))
        assert isinstance(response, Answer), response
        await receiver.until(lambda: receiver.open == 0)


async def test_a_receiver_that_closes_its_half_before_the_answer_has_not_answered(receive: Any, sender: Any) -> None:
    async def script(line: Line) -> None:
        await line.request()
        line.writer.write_eof()
        await line.until_closed()

    receiver = await receive(script)
    response = await sender.send(post(receiver.target()))
    assert isinstance(response, NoAnswer)
    assert response.failure == Failure.CONNECTION_ERROR
    await receiver.until(lambda: receiver.open == 0)


async def test_an_endless_row_of_interim_answers_ends(receive: Any, make_sender: Any, kind: str) -> None:
    sender = make_sender(timeout_s=HANGING_S if kind != "aiohttp" else 1.0)

    async def script(line: Line) -> None:
        await line.request()
        while True:
            await line.send(b"HTTP/1.1 102 Processing\r\n\r\n")
            await asyncio.sleep(0.001)

    receiver = await receive(script)
    response = await sender.send(post(receiver.target()))
    assert isinstance(response, NoAnswer)
    assert response.failure == (Failure.INVALID_RESPONSE if kind != "aiohttp" else Failure.TIMEOUT)


@pytest.mark.parametrize("framing", ["length", "chunked", "until the end"])
async def test_a_response_of_a_gibibyte_is_cut_at_the_limit_and_costs_no_memory(
    receive: Any, sender: Any, framing: str
) -> None:
    headers = {
        "length": b"Content-Length: 1073741824\r\n\r\n",
        "chunked": b"Transfer-Encoding: chunked\r\n\r\n",
        "until the end": b"\r\n",
    }
    block = b"10000\r\n" + b"x" * 65536 + b"\r\n" if framing == "chunked" else b"x" * 65536
    sent = 0

    async def script(line: Line) -> None:
        nonlocal sent
        await line.request()
        await line.send(b"HTTP/1.1 200 OK\r\n" + headers[framing])
        for _ in range(16384):
            await line.send(block)
            sent += len(block)

    receiver = await receive(script)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    response = await sender.send(post(receiver.target()))
    await receiver.until(lambda: receiver.open == 0)
    assert isinstance(response, Answer)
    assert (response.status, len(response.excerpt)) == (200, 64)
    assert sent < 50_000_000  # the sender closed: the rest was never sent
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 65536  # KiB


async def test_endless_trailers_are_cut_too(receive: Any, sender: Any, kind: str) -> None:
    async def script(line: Line) -> None:
        await line.request()
        await line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nTrailer: ")
        while True:
            await line.send(b"x" * 65536)

    receiver = await receive(script)
    response = await sender.send(post(receiver.target()))
    await receiver.until(lambda: receiver.open == 0)
    assert kind == "aiohttp" or isinstance(response, Answer)  # aiohttp refuses what comes together with its head


async def test_a_cancelled_send_closes_its_connection(receive: Any, sender: Any) -> None:
    async def script(line: Line) -> None:
        await line.request()
        await line.until_closed()

    receiver = await receive(script)
    sending = asyncio.create_task(sender.send(post(receiver.target())))
    await receiver.until(lambda: receiver.open == 1)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    await receiver.until(lambda: receiver.open == 0)


async def test_a_send_cancelled_at_any_moment_leaks_nothing_and_harms_no_other(receive: Any, sender: Any) -> None:
    receiver = await receive(OK)
    assert isinstance(await sender.send(post(receiver.target())), Answer)
    gc.collect()

    async def cut(after_s: float) -> None:
        sending = asyncio.create_task(sender.send(post(receiver.target())))
        await asyncio.sleep(after_s)
        sending.cancel()
        await asyncio.wait([sending])

    async def healthy() -> list[Any]:
        return [await sender.send(post(receiver.target())) for _ in range(50)]

    *_, responses = await asyncio.gather(*(cut(n * 0.0001) for n in range(60)), healthy())
    assert all(isinstance(response, Answer) for response in responses)
    assert receiver.open <= 61
    await sender.close()
    await receiver.until(lambda: receiver.open == 0)


async def test_close_interrupts_what_a_receiver_has_half_closed(receive: Any, make_sender: Any, kind: str) -> None:
    """It sends no more, and reads no more of a request that is larger than all buffers on the way."""
    if kind == "aiohttp":
        pytest.skip("aiohttp ends it at once")
    eof = asyncio.Event()

    async def script(line: Line) -> None:
        line.writer.transport.pause_reading()  # type: ignore[attr-defined]
        line.writer.write_eof()
        eof.set()
        await ended.wait()

    ended = asyncio.Event()
    receiver = await receive(script)
    sender = make_sender()
    sending = asyncio.create_task(sender.send(post(receiver.target(), bytes(30_000_000))))
    await eof.wait()
    await asyncio.sleep(0.2)
    assert sending.done() or sender.connections()["busy"] == 1  # uvloop ends it at once
    await sender.close()
    response = await asyncio.wait_for(sending, 2)
    ended.set()
    assert isinstance(response, NoAnswer)
    assert response.failure == Failure.CONNECTION_ERROR


async def test_close_interrupts_what_is_is_under_way(receive: Any, make_sender: Any, kind: str) -> None:
    async def script(line: Line) -> None:
        await line.request()
        await line.until_closed()

    receiver = await receive(script)
    sender = make_sender()
    sending = [asyncio.create_task(sender.send(post(receiver.target()))) for _ in range(5)]
    await receiver.until(lambda: receiver.open == 5)
    await sender.close()
    responses = await asyncio.wait_for(asyncio.gather(*sending), 2)
    assert all(
        isinstance(response, NoAnswer) and response.failure == Failure.CONNECTION_ERROR for response in responses
    )
    await receiver.until(lambda: receiver.open == 0)


async def test_close_interrupts_no_answer_whose_head_has_arrived(receive: Any, make_sender: Any, kind: str) -> None:
    """It was accepted: a failure would have it sent again."""

    async def script(line: Line) -> None:
        await line.request()
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok")
        answered.set()
        await line.until_closed()

    answered = asyncio.Event()
    receiver = await receive(script)
    sender = make_sender(
        body_timeout_s=HANGING_S if kind != "aiohttp" else 0.5
    )  # aiohttp tells nobody who reads a body
    sending = asyncio.create_task(sender.send(post(receiver.target())))
    await answered.wait()
    await asyncio.sleep(0.1)  # for the head to be read
    await sender.close()
    response = await asyncio.wait_for(sending, 2)
    assert isinstance(response, Answer), response
    assert response.status == 200
