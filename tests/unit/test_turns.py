"""Who may open a connection, and who gets one that becomes idle."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from connections import A, B, connection_to, is_closed

from services.dispatcher.senders.turns import Turns
from services.dispatcher.senders.wheel import Bucket


async def started(*work: Coroutine[Any, Any, Any]) -> list[asyncio.Task[Any]]:
    """Each as a task, as far as it comes by itself."""
    tasks = [asyncio.create_task(one) for one in work]
    await asyncio.sleep(0)
    return tasks


async def full(at_once: int = 1, opened: int = 0, openings: int = 1) -> Turns:
    """With so many connections to A open, and so many openings under way."""
    turns = Turns(at_once)
    for _ in range(opened):
        turns.opened(A)
    assert [await turns.enter(A, Bucket()) for _ in range(openings)] == [True] * openings
    return turns


async def test_so_many_open_at_once_and_the_next_waits_until_one_has_ended() -> None:
    turns = await full(at_once=2, openings=2)
    third, fourth = await started(turns.enter(A, Bucket()), turns.enter(A, Bucket()))
    assert not third.done()
    turns.leave(A)
    assert await third is True
    assert not fourth.done()
    turns.leave(A)
    assert await fourth is True


async def test_origins_do_not_wait_for_each_other() -> None:
    turns = await full()
    (waiting,) = await started(turns.enter(A, Bucket()))
    assert await turns.enter(B, Bucket()) is True
    assert not waiting.done()
    turns.leave(A)
    assert await waiting is True


async def test_who_waits_longest_gets_the_connection_that_becomes_idle_first() -> None:
    turns = await full()
    first, second = await started(turns.enter(A, Bucket()), turns.enter(A, Bucket()))
    one, other = connection_to(A), connection_to(A)
    assert not turns.hand_over(connection_to(B))
    assert turns.hand_over(one)
    assert turns.hand_over(other)
    assert not turns.hand_over(one)
    assert await first is one
    assert await second is other


async def test_the_more_are_open_the_more_may_be_opened_at_once() -> None:
    turns = await full(opened=12, openings=3)
    (fourth,) = await started(turns.enter(A, Bucket()))
    assert not fourth.done()
    turns.lost(A)
    turns.leave(A)  # two under way, eleven open
    await asyncio.sleep(0)
    assert not fourth.done()
    turns.leave(A)
    assert await fourth is True


async def test_who_waits_in_vain_is_told_and_leaves_the_line() -> None:
    turns = await full()
    bucket = Bucket()
    late, patient = await started(turns.enter(A, bucket), turns.enter(A, Bucket()))
    bucket.expired = True
    for item in tuple(bucket):
        item.expire()
    assert await late is False
    assert not bucket
    assert await turns.enter(A, bucket) is False
    turns.leave(A)
    assert await patient is True


@pytest.mark.parametrize("given", ["connection", "leave"])
async def test_what_somebody_got_who_was_cancelled_goes_to_the_next(given: str) -> None:
    turns = await full()
    first, second = await started(turns.enter(A, Bucket()), turns.enter(A, Bucket()))
    connection = connection_to(A)
    if given == "connection":
        assert turns.hand_over(connection)
    else:
        turns.leave(A)
    first.cancel()
    await asyncio.wait([first])
    assert first.cancelled()
    assert await second is (connection if given == "connection" else True)
    assert not is_closed(connection)


async def test_a_connection_that_nobody_takes_after_all_is_closed() -> None:
    turns = await full()
    (only,) = await started(turns.enter(A, Bucket()))
    connection = connection_to(A)
    assert turns.hand_over(connection)
    only.cancel()
    await asyncio.wait([only])
    assert is_closed(connection)


async def test_who_was_cancelled_while_waiting_is_passed_over() -> None:
    turns = await full()
    first, second = await started(turns.enter(A, Bucket()), turns.enter(A, Bucket()))
    first.cancel()
    await asyncio.wait([first])
    turns.leave(A)
    assert await second is True


async def test_closing_ends_the_waiting() -> None:
    turns = await full()
    (waiting,) = await started(turns.enter(A, Bucket()))
    turns.close()
    assert await waiting is False
    assert await turns.enter(A, Bucket()) is False


async def test_nothing_is_remembered_of_an_origin_where_nothing_is_left() -> None:
    turns = await full()
    (waiting,) = await started(turns.enter(A, Bucket()))
    waiting.cancel()
    await asyncio.wait([waiting])
    turns.opened(A)
    turns.leave(A)
    assert len(turns) == 1
    turns.lost(A)
    assert len(turns) == 0
