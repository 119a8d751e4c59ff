"""When a connection is used again, when a request is sent twice, and how many connections there are."""

import asyncio
import gc
import time
from pathlib import Path
from typing import Any

import pytest
from scripted import AT_ONCE, BODY, OK, STALE_WITHIN_S, Line, Receiver, answering, post

from go2hooks.core.domain.outcome import Answer, Failure, NoAnswer
from go2hooks.core.flow.serving import Opening
from services.dispatcher.http.deadlines import Bucket


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
        assert isinstance(await sender._pool._queues.of(origin).enter(Bucket()), Opening)
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


async def test_connections_are_counted_by_what_they_do(receive: Any, make_sender: Any, kind: str) -> None:
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
    await receiver.until(lambda: count() == (0 if kind == "aiohttp" else 1, 0))  # aiohttp does not tell idle ones
    await sender.close()
    await receiver.until(lambda: count() == (0, 0))


async def test_an_attempt_tells_the_address_that_it_went_to(receive: Any, make_sender: Any, kind: str) -> None:
    """Whether the connection is new, or was used before, or gave no answer."""
    lively, silent = await receive(OK), await receive(lambda line: line.until_closed())
    sender = make_sender(timeout_s=0.3)
    responses = [await sender.send(post(receiver.target())) for receiver in (lively, lively, silent)]
    expected = None if kind == "aiohttp" else "127.0.0.1"
    assert [response.remote_address for response in responses] == [expected] * 3
