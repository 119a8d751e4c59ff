"""Receivers whose few workers serve one connection each: nothing that they would answer times out.

In a third of the usual time: attempts have three seconds. Two senders are two dispatchers.
"""

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import Any

import pytest
from scripted import BODY, Line, Receiver, answering, post

from bench.prefork import Prefork, StandardServer
from go2hooks.core.domain.outcome import Answer
from go2hooks.core.security.request import SignedRequest
from go2hooks.core.security.target import Target, parse_target

pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])  # they take their time, and neither loop has a part in it
TIMEOUT_S = 3.0
PAUSE_S = 0.1  # between the requests of a stream: a busy machine keeps up with that


@pytest.fixture
def kind() -> str:
    """As the pipeline uses it. The reference opens as many connections as there are requests."""
    return "taskless"


def request(target: Target) -> SignedRequest:
    number = next(request.numbers)  # type: ignore[attr-defined]
    return SignedRequest(target, (("X-Webhook-Delivery", f"dlv_{number}"),), BODY)


request.numbers = itertools.count()  # type: ignore[attr-defined]


async def burst_and_stream(sender: Any, target: Target, burst: int, seconds: float) -> list[Any]:
    """So many requests at once, and then one after each pause; their responses."""
    tasks = [asyncio.create_task(sender.send(request(target))) for _ in range(burst)]
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        await asyncio.sleep(PAUSE_S)
        tasks.append(asyncio.create_task(sender.send(request(target))))
    return await asyncio.gather(*tasks)


def failures(responses: list[Any]) -> list[Any]:
    return [response for response in responses if not (isinstance(response, Answer) and response.status == 200)]


def each_arrived_once(receiver: Prefork | StandardServer, responses: list[Any]) -> bool:
    deliveries = [arrival.delivery for arrival in receiver.arrivals]
    return len(deliveries) == len(set(deliveries)) == len(responses)


def target_of(receiver: Prefork | StandardServer, scheme: str = "http") -> Target:
    return parse_target(f"{scheme}://localhost:{receiver.port}/hook")


@pytest.mark.parametrize(
    ("workers", "keep_alive_s", "burst"), [(1, 13.0, 24), (8, 13.0, 200), (8, 1.0, 200)], ids=lambda value: f"{value}"
)
async def test_a_receiver_with_few_workers_is_sent_no_more_than_it_reads(
    make_sender: Any, workers: int, keep_alive_s: float, burst: int
) -> None:
    sender = make_sender(TIMEOUT_S)
    with Prefork(workers, keep_alive_s) as receiver:
        responses = await burst_and_stream(sender, target_of(receiver), burst, 2.0)
        assert failures(responses) == []
        assert each_arrived_once(receiver, responses)
        await sender.close()


async def test_over_tls_too(make_sender: Any, server_tls: Any) -> None:
    sender = make_sender(TIMEOUT_S)
    with Prefork(1, 13.0, context=server_tls) as receiver:
        responses = await burst_and_stream(sender, target_of(receiver, "https"), 12, 1.5)
        assert failures(responses) == []
        assert each_arrived_once(receiver, responses)
        await sender.close()


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
async def test_pythons_own_server_too(make_sender: Any, version: str) -> None:
    sender = make_sender(
        5.0
    )  # it lets five wait: what the kernel drops comes again after a second, and then after three
    with StandardServer(version) as receiver:
        responses = await burst_and_stream(sender, target_of(receiver), 24, 2.0)
        assert failures(responses) == []
        await sender.close()


async def test_what_waits_unread_when_the_stream_ends_is_read(make_sender: Any) -> None:
    sender = make_sender(TIMEOUT_S)
    with Prefork(3, 13.0) as receiver:
        responses = await burst_and_stream(sender, target_of(receiver), 24, 0.0)
        assert failures(responses) == []
        await sender.close()


@pytest.mark.parametrize("workers", [1, 2, 4])
async def test_one_dispatcher_leaves_a_worker_to_the_other(make_sender: Any, workers: int) -> None:
    """The first holds as many connections as there are workers, and sees nothing but answers."""
    first, second = make_sender(TIMEOUT_S), make_sender(TIMEOUT_S)
    with Prefork(workers, 13.0, answer_s=0.01) as receiver:
        target = target_of(receiver)
        ahead = asyncio.create_task(burst_and_stream(first, target, workers, 3.0))
        await asyncio.sleep(0.3)
        behind = await burst_and_stream(second, target, 1, 2.0)
        assert failures(behind + await ahead) == []
        await first.close()
        await second.close()


async def test_an_idle_dispatcher_leaves_a_worker_to_the_other(make_sender: Any) -> None:
    first, second = make_sender(TIMEOUT_S), make_sender(TIMEOUT_S)
    with Prefork(1, 13.0) as receiver:
        target = target_of(receiver)
        assert failures([await first.send(request(target))]) == []
        assert failures([await second.send(request(target))]) == []
        await first.close()
        await second.close()


async def test_few_workers_are_remembered_and_nobody_waits_unread_again(make_sender: Any) -> None:
    sender = make_sender(TIMEOUT_S)
    with Prefork(1, 13.0) as receiver:
        target = target_of(receiver)
        await burst_and_stream(sender, target, 12, 1.0)
        began = time.monotonic()
        assert failures(await burst_and_stream(sender, target, 12, 0.0)) == []
        assert time.monotonic() - began < TIMEOUT_S / 5  # before anything would have been given room
        await sender.close()


def slow(seconds: Callable[[], float]) -> Callable[[Line], Any]:
    async def script(line: Line) -> None:
        while True:
            await line.request()
            await asyncio.sleep(seconds())
            await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    return script


@pytest.mark.parametrize("answer_s", [0.3, 0.6])
async def test_a_receiver_that_is_slow_on_purpose_gets_its_connections(
    receive: Any, make_sender: Any, answer_s: float
) -> None:
    sender = make_sender(TIMEOUT_S)
    receiver: Receiver = await receive(slow(lambda: answer_s))
    assert failures([await sender.send(post(receiver.target()))]) == []
    began = time.monotonic()
    responses = await asyncio.gather(*(sender.send(post(receiver.target())) for _ in range(48)))
    assert failures(responses) == []
    assert time.monotonic() - began < 2.5 * answer_s  # each has waited for its own answer, and hardly for others
    assert len(receiver.lines) >= 32


async def test_a_receiver_whose_answers_take_now_less_now_more_is_not_taken_for_one_with_few_workers(
    receive: Any, make_sender: Any
) -> None:
    sender, durations = make_sender(TIMEOUT_S), itertools.cycle([0.05, 0.6, 0.2, 0.4])
    receiver: Receiver = await receive(slow(lambda: next(durations)))
    for _ in range(2):
        assert failures(await asyncio.gather(*(sender.send(post(receiver.target())) for _ in range(24)))) == []
    began = time.monotonic()
    assert failures(await asyncio.gather(*(sender.send(post(receiver.target())) for _ in range(24)))) == []
    assert time.monotonic() - began < 2 * 0.6


async def test_a_connection_that_is_never_answered_on_keeps_nobody_from_opening_others_for_long(
    receive: Any, make_sender: Any
) -> None:
    """As behind a balancer one of whose servers is dead."""
    sender = make_sender(TIMEOUT_S)

    async def script(line: Line) -> None:
        if line.number == 2:
            await line.until_closed()
        await answering(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")(line)

    receiver: Receiver = await receive(script)
    responses = await burst_and_stream(sender, receiver.target(), 4, 2 * TIMEOUT_S)
    assert len(failures(responses)) == 1
    assert len(receiver.lines) < 12
