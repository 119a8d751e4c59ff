"""Requests that are written together: held while corked, in bursts of a bounded size, and each answered once."""

import asyncio
import select
from typing import Any

import pytest
from scripted import OK, Line, post

from go2hooks.core.domain.outcome import Answer, Response
from services.dispatcher.http.corking import BURST

COUNT = BURST + 4


async def test_what_is_corked_leaves_in_bursts_and_is_answered_once(receive: Any, make_sender: Any, kind: str) -> None:
    if kind != "protocol":
        pytest.skip("the fast sender's own")
    all_open = asyncio.Event()

    async def script(line: Line) -> None:
        await line.request()
        await all_open.wait()  # so that each of the first requests needs a connection of its own
        await line.send(OK)
        while True:
            receiver.requests.append(await line.request())
            await line.send(OK)

    receiver, sender = await receive(script), make_sender()
    first = [asyncio.ensure_future(sender.send(post(receiver.target()))) for _ in range(COUNT)]
    await receiver.until(lambda: receiver.open == COUNT)
    all_open.set()
    await asyncio.gather(*first)

    def reached() -> int:
        """Receiver's connections that something has come in on, which nobody can have read yet."""
        sockets = [line.writer.get_extra_info("socket").fileno() for line in receiver.lines]
        return len(select.select(sockets, [], [], 0)[0])

    answers: list[Response] = []
    sender.cork()
    for _ in range(BURST - 1):
        assert sender.send_now(post(receiver.target()), answers.append)
    assert reached() == 0
    assert sender.send_now(post(receiver.target()), answers.append)
    assert reached() == BURST
    for _ in range(COUNT - BURST):
        assert sender.send_now(post(receiver.target()), answers.append)
    assert not sender.send_now(post(receiver.target()), answers.append), "a connection was given out twice"
    assert reached() == BURST
    sender.uncork()
    assert reached() == COUNT
    await receiver.until(lambda: len(answers) == COUNT)
    assert all(isinstance(answer, Answer) and answer.status == 200 for answer in answers)
    assert len(receiver.requests) == COUNT
    assert sender.send_now(post(receiver.target()), answers.append)
    assert reached() == 1, "not at once, though it was uncorked"
