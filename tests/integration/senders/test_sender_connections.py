"""When a connection is used again, when a request is sent twice, and what happens when things end early."""

import asyncio
import gc
import resource
import time
from pathlib import Path
from typing import Any

import pytest
from scripted import BODY, HANGING_S, OK, Line, Receiver, answering, post

from go2hooks.core.outcome import Answer, Failure, NoAnswer
from services.dispatcher.senders.protocol import STALE_WITHIN_S
from services.dispatcher.senders.turns import AT_ONCE
from services.dispatcher.senders.wheel import Bucket


def count_of_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def test_one_connection_serves_many_requests(receive: Any, sender: Any) -> None:
    receiver = await receive(OK)
    for _ in range(20):
        response = await sender.send(post(receiver.target()))
        assert isinstance(response, Answer)
    assert len(receiver.lines) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n" + b"x" * 2000000,
    ],
    ids=["asked to close", "HTTP/1.0", "body beyond the limit"],
)
async def test_a_connection_that_is_not_fit_is_closed(receive: Any, make_sender: Any, answer: bytes) -> None:
    sender = make_sender(body_bytes=100)
    receiver = await receive(answer)
    for _ in range(3):
        assert isinstance(await sender.send(post(receiver.target())), Answer)
    assert len(receiver.lines) == 3
    await receiver.until(lambda: receiver.open == 0)


async def test_bytes_that_follow_an_answer_never_become_the_next_one(receive: Any, make_sender: Any, kind: str) -> None:
    if kind == "aiohttp":
        pytest.skip("aiohttp takes the first answer for broken")
    sender = make_sender()
    receiver = await receive(OK + b"HTTP/1.1 500 Forged\r\nContent-Length: 0\r\n\r\n")
    for _ in range(3):
        response = await sender.send(post(receiver.target()))
        assert isinstance(response, Answer)
        assert response.status == 200
    assert len(receiver.lines) == 3


async def test_bytes_on_an_idle_connection_are_nobodys_answer(receive: Any, sender: Any, kind: str) -> None:
    if kind == "aiohttp":
        pytest.skip("aiohttp takes them for the next answer")
    forge, forged = asyncio.Event(), asyncio.Event()

    async def script(line: Line) -> None:
        await line.request()
        await line.send(OK)
        await forge.wait()
        await line.send(b"HTTP/1.1 500 Forged\r\nContent-Length: 0\r\n\r\n")
        forged.set()
        await line.until_closed()

    receiver = await receive(script)
    assert isinstance(await sender.send(post(receiver.target())), Answer)
    forge.set()
    await forged.wait()
    await receiver.until(lambda: receiver.open == 0)
    response = await sender.send(post(receiver.target()))
    assert isinstance(response, Answer)
    assert response.status == 200
    assert len(receiver.lines) == 2


async def test_an_idle_connection_that_the_receiver_closed_is_replaced(receive: Any, sender: Any) -> None:
    async def script(line: Line) -> None:
        await line.request()
        await line.send(OK)

    receiver = await receive(script)
    for number in range(3):
        assert isinstance(await sender.send(post(receiver.target())), Answer)
        await receiver.until(lambda number=number: len(receiver.lines) == number + 1 and receiver.open == 0)


@pytest.mark.parametrize("with_reset", [False, True], ids=["closed", "reset"])
async def test_a_request_on_a_stale_connection_is_sent_once_more_on_a_fresh_one(
    receive: Any, sender: Any, with_reset: bool
) -> None:
    bodies = []

    async def script(line: Line) -> None:
        bodies.append(await line.request())
        await line.send(OK)
        if line.number == 1:
            bodies.append(await line.request())
            if with_reset:
                line.reset()
            return
        await line.until_closed()

    receiver = await receive(script)
    assert isinstance(await sender.send(post(receiver.target())), Answer)
    response = await sender.send(post(receiver.target(), b'{"second":true}'))
    assert isinstance(response, Answer), response
    assert len(receiver.lines) == 2
    assert [body.rpartition(b"\r\n\r\n")[2] for body in bodies] == [BODY, b'{"second":true}', b'{"second":true}']


async def test_who_has_waited_for_a_connection_that_turns_out_stale_gets_a_fresh_one_too(
    receive: Any, make_sender: Any, kind: str
) -> None:
    if kind == "aiohttp":
        pytest.skip("aiohttp opens one for each")
    sender, answer = make_sender(), asyncio.Event()

    async def script(line: Line) -> None:
        await line.request()
        await line.send(OK)
        if line.number == 1:
            await line.request()
            await answer.wait()
            await line.send(OK)
            await line.request()
            return
        await line.until_closed()

    receiver = await receive(script)
    assert isinstance(await sender.send(post(receiver.target())), Answer)
    origin = ("http", "localhost", receiver.port, None)
    for _ in range(AT_ONCE):  # nobody else may open one
        assert await sender._turns.enter(origin, Bucket()) is True
    first = asyncio.create_task(sender.send(post(receiver.target())))
    await asyncio.sleep(0)
    second = asyncio.create_task(sender.send(post(receiver.target())))
    await asyncio.sleep(
        STALE_WITHIN_S + 0.1
    )  # longer than a stale connection is forgiven for, since it waits and does not ask
    assert not second.done()
    answer.set()
    assert isinstance(await first, Answer)
    assert isinstance(await second, Answer)
    assert len(receiver.lines) == 2


async def test_a_request_is_never_sent_a_third_time(receive: Any, sender: Any) -> None:
    seen = []

    async def script(line: Line) -> None:
        await line.request()
        if line.number == 1:
            await line.send(OK)
            await line.request()
        seen.append(line.number)

    receiver = await receive(script)
    assert isinstance(await sender.send(post(receiver.target())), Answer)
    response = await sender.send(post(receiver.target()))
    assert isinstance(response, NoAnswer)
    assert response.failure == Failure.CONNECTION_ERROR
    assert seen == [1, 2]
    assert len(receiver.lines) == 2


async def test_a_request_on_a_fresh_connection_is_not_sent_again(receive: Any, sender: Any) -> None:
    async def script(line: Line) -> None:
        await line.request()

    receiver = await receive(script)
    response = await sender.send(post(receiver.target()))
    assert isinstance(response, NoAnswer)
    assert response.failure == Failure.CONNECTION_ERROR
    assert response.message == "The receiver closed the connection without a response."
    assert len(receiver.lines) == 1


async def test_a_request_is_not_sent_again_once_an_answer_began(receive: Any, sender: Any) -> None:
    async def script(line: Line) -> None:
        await line.request()
        await line.send(OK)
        await line.request()
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Le")

    receiver = await receive(script)
    assert isinstance(await sender.send(post(receiver.target())), Answer)
    response = await sender.send(post(receiver.target()))
    assert isinstance(response, NoAnswer)
    assert response.failure == Failure.CONNECTION_ERROR
    assert len(receiver.lines) == 1


async def test_a_request_is_not_sent_again_when_the_receiver_took_its_time_to_hang_up(
    receive: Any, sender: Any
) -> None:
    async def script(line: Line) -> None:
        await line.request()
        await line.send(OK)
        await line.request()
        await asyncio.sleep(1.2)

    receiver = await receive(script)
    assert isinstance(await sender.send(post(receiver.target())), Answer)
    response = await sender.send(post(receiver.target()))
    assert isinstance(response, NoAnswer)
    assert len(receiver.lines) == 1


async def test_a_reset_in_the_middle_of_an_answer_is_a_failure(receive: Any, sender: Any) -> None:
    async def script(line: Line) -> None:
        await line.request()
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await asyncio.sleep(0.05)
        line.reset()

    receiver = await receive(script)
    response = await sender.send(post(receiver.target()))
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
    if kind != "aiohttp":
        assert isinstance(response, Answer)
    else:
        assert isinstance(response, NoAnswer)


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


async def test_close_interrupts_what_is_under_way(receive: Any, make_sender: Any, kind: str) -> None:
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


async def test_idle_connections_are_bounded(receive: Any, make_sender: Any, kind: str) -> None:
    if kind == "aiohttp":
        pytest.skip("aiohttp bounds them by time alone")
    sender = make_sender(pool_max_idle=3)
    started = asyncio.Semaphore(0)

    async def script(line: Line) -> None:
        await line.request()
        started.release()
        await all_started.wait()
        await line.send(OK)
        await line.until_closed()

    all_started = asyncio.Event()
    receiver = await receive(script)
    sending = [asyncio.create_task(sender.send(post(receiver.target()))) for _ in range(10)]
    for _ in range(10):
        await started.acquire()
    all_started.set()
    assert all(isinstance(response, Answer) for response in await asyncio.gather(*sending))
    await receiver.until(lambda: receiver.open == 3)


async def test_connections_idle_for_too_long_are_closed(receive: Any, make_sender: Any) -> None:
    sender = make_sender(pool_idle_s=0.2)
    receiver = await receive(OK)
    begun = time.monotonic()
    assert isinstance(await sender.send(post(receiver.target())), Answer)
    await receiver.until(lambda: receiver.open == 0)
    assert time.monotonic() - begun >= 0.2


async def test_two_origins_never_share_a_connection(receive: Any, make_sender: Any) -> None:
    sender = make_sender(names={"a.test": ["127.0.0.1"], "b.test": ["127.0.0.1"]})
    receiver = await receive(OK)
    for host in ("a.test", "b.test", "a.test", "b.test"):
        assert isinstance(await sender.send(post(receiver.target(host))), Answer)
    assert len(receiver.lines) == 2


async def test_hundreds_of_requests_at_once_leave_no_descriptor_behind(
    receive: Any, make_sender: Any, kind: str
) -> None:
    gc.collect()
    before = count_of_descriptors()
    sender = make_sender()
    receiver: Receiver = await receive(answering(OK))
    for _ in range(3):
        responses = await asyncio.gather(*(sender.send(post(receiver.target())) for _ in range(200)))
        assert all(isinstance(response, Answer) for response in responses)
    if kind == "aiohttp":
        assert len(receiver.lines) == 200
    else:  # answered at once: most take a connection that another has left
        assert len(receiver.lines) <= 100
    await sender.close()
    await receiver.until(lambda: receiver.open == 0)
    await receiver.stop()
    gc.collect()
    await receiver.until(lambda: count_of_descriptors() <= before + 4)  # the loop's own


async def test_connections_are_counted_by_what_they_do(receive: Any, make_sender: Any) -> None:
    sender = make_sender()
    asked, answer = asyncio.Event(), asyncio.Event()

    async def hold(line: Line) -> None:
        await line.request()
        asked.set()
        await answer.wait()
        await line.send(OK)
        await line.until_closed()

    def count() -> tuple[int, int]:
        return sender.connections().get("idle", 0), sender.connections().get("busy", 0)

    receiver = await receive(hold)
    assert count() == (0, 0)
    sending = asyncio.create_task(sender.send(post(receiver.target())))
    await asked.wait()
    assert count() == (0, 1)
    answer.set()
    assert isinstance(await sending, Answer)
    await receiver.until(lambda: count() == (1, 0))
    await sender.close()
    await receiver.until(lambda: count() == (0, 0))
