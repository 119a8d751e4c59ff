"""Who may open a connection, who gets one that becomes idle, and when one is closed so that a worker takes another."""

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import pytest
from connections import A, B, connection_to, is_closed
from waiting import until

from go2hooks.core.flow.serving import Opening
from services.dispatcher.http.connect_queue import ConnectQueues
from services.dispatcher.http.connection import Connection, Origin
from services.dispatcher.http.deadlines import Bucket
from services.dispatcher.http.few_workers import QueueLimits

LIMITS = QueueLimits.within(10.0, 60.0)
SHORT = QueueLimits.within(0.2, 0.3)


class Scene:
    """A queue, and who keeps the connections that become idle."""

    def __init__(self, at_once: int = 1, limits: QueueLimits = LIMITS) -> None:
        self.queues = ConnectQueues(replace(limits, at_once=at_once), self._close_idle)
        self.idle: list[Connection] = []

    def _close_idle(self, origin: Origin) -> bool:
        if not self.idle:
            return False
        connection = self.idle.pop(0)
        connection.close()
        self.queues.of(connection.origin).lost(connection)
        return True

    async def opening(self, origin: Origin = A) -> Opening:
        opening = await self.queues.of(origin).enter(Bucket())
        assert isinstance(opening, Opening)
        return opening

    def made(self, opening: Opening, origin: Origin = A) -> Connection:
        connection = connection_to(origin)
        self.queues.of(connection.origin).made(connection, opening)
        return connection

    def answer(self, connection: Connection, took_s: float = 0.0) -> Connection:
        connection.idle_since = time.monotonic()
        connection.asked_at = connection.idle_since - took_s
        if not connection.connected_at:
            connection.connected_at = connection.asked_at
        if not self.queues.of(connection.origin).release(connection):
            self.idle.append(connection)
        return connection

    async def served(self, count: int) -> list[Connection]:
        """So many connections that were answered on; all are idle."""
        return [self.answer(self.made(await self.opening())) for _ in range(count)]


async def started(*work: Coroutine[Any, Any, Any]) -> list[asyncio.Task[Any]]:
    """Each as a task, as far as it comes by itself."""
    tasks = [asyncio.create_task(one) for one in work]
    await asyncio.sleep(0)
    return tasks


async def full(at_once: int = 1) -> tuple[Scene, list[Opening]]:
    """As many connections to A are being opened as may be at once."""
    scene = Scene(at_once)
    return scene, [await scene.opening() for _ in range(at_once)]


# --- opening


async def test_so_many_open_at_once_and_the_next_waits_until_one_has_ended() -> None:
    scene, (first, second) = await full(at_once=2)
    third, fourth = await started(scene.queues.of(A).enter(Bucket()), scene.queues.of(A).enter(Bucket()))
    assert not third.done()
    scene.queues.of(A).failed(first)
    assert isinstance(await third, Opening)
    assert not fourth.done()
    scene.made(second)
    assert isinstance(await fourth, Opening)


async def test_origins_do_not_wait_for_each_other() -> None:
    scene, (opening,) = await full()
    (waiting,) = await started(scene.queues.of(A).enter(Bucket()))
    await scene.opening(B)
    assert not waiting.done()
    scene.queues.of(A).failed(opening)
    assert isinstance(await waiting, Opening)


async def test_who_waits_longest_gets_the_connection_that_becomes_idle_first() -> None:
    scene = Scene()
    one, other = await scene.served(2)
    await scene.opening()
    first, second = await started(scene.queues.of(A).enter(Bucket()), scene.queues.of(A).enter(Bucket()))
    assert scene.queues.of(one.origin).release(one)
    assert scene.queues.of(other.origin).release(other)
    assert not scene.queues.of(one.origin).release(one)
    assert await first is one
    assert await second is other


async def test_the_more_are_open_the_more_may_be_opened_at_once() -> None:
    scene = Scene()
    served = await scene.served(12)
    openings = [await scene.opening() for _ in range(3)]
    (fourth,) = await started(scene.queues.of(A).enter(Bucket()))
    assert not fourth.done()
    scene.queues.of(A).lost(served[0])
    scene.queues.of(A).failed(openings[0])  # two under way, eleven open
    await asyncio.sleep(0)
    assert not fourth.done()
    scene.queues.of(A).failed(openings[1])
    assert isinstance(await fourth, Opening)


async def test_who_waits_in_vain_is_told_and_leaves_the_line() -> None:
    scene, (opening,) = await full()
    bucket = Bucket()
    late, patient = await started(scene.queues.of(A).enter(bucket), scene.queues.of(A).enter(Bucket()))
    bucket.expired = True
    for item in tuple(bucket):
        item.expire()
    assert await late is None
    assert not bucket
    scene.queues.of(A).failed(opening)
    assert isinstance(await patient, Opening)


@pytest.mark.parametrize("given", ["connection", "leave"])
async def test_what_somebody_got_who_was_cancelled_goes_to_the_next(given: str) -> None:
    scene = Scene()
    (connection,) = await scene.served(1)
    opening = await scene.opening()
    first, second = await started(scene.queues.of(A).enter(Bucket()), scene.queues.of(A).enter(Bucket()))
    if given == "connection":
        assert scene.queues.of(connection.origin).release(connection)
    else:
        scene.queues.of(A).failed(opening)
    first.cancel()
    await asyncio.wait([first])
    assert first.cancelled()
    got = await second
    assert got is connection if given == "connection" else isinstance(got, Opening)
    assert not is_closed(connection)


async def test_a_connection_that_nobody_takes_after_all_is_closed() -> None:
    scene = Scene()
    (connection,) = await scene.served(1)
    await scene.opening()
    (only,) = await started(scene.queues.of(A).enter(Bucket()))
    assert scene.queues.of(connection.origin).release(connection)
    only.cancel()
    await asyncio.wait([only])
    assert is_closed(connection)


async def test_who_was_cancelled_while_waiting_is_passed_over() -> None:
    scene, (opening,) = await full()
    first, second = await started(scene.queues.of(A).enter(Bucket()), scene.queues.of(A).enter(Bucket()))
    first.cancel()
    await asyncio.wait([first])
    scene.queues.of(A).failed(opening)
    assert isinstance(await second, Opening)


async def test_closing_ends_the_waiting() -> None:
    scene, _ = await full()
    (waiting,) = await started(scene.queues.of(A).enter(Bucket()))
    scene.queues.close()
    assert await waiting is None


async def test_nothing_is_remembered_of_an_origin_where_nothing_is_left() -> None:
    scene, (opening,) = await full()
    (waiting,) = await started(scene.queues.of(A).enter(Bucket()))
    waiting.cancel()
    await asyncio.wait([waiting])
    connection = scene.made(opening)
    assert len(scene.queues) == 1
    scene.queues.of(connection.origin).lost(connection)
    assert len(scene.queues) == 0


# --- few workers


async def test_who_would_open_one_beside_one_that_is_overtaken_waits_for_one_that_is_answered_on() -> None:
    scene = Scene(at_once=16)
    (connection,) = await scene.served(1)
    scene.made(await scene.opening())
    await asyncio.sleep(0.01)
    scene.answer(connection, took_s=0.001)
    (waiting,) = await started(scene.queues.of(A).enter(Bucket()))
    assert not waiting.done()
    assert scene.queues.of(connection.origin).release(connection)
    assert await waiting is connection


async def test_nobody_waits_for_long_for_a_connection_that_others_use() -> None:
    scene = Scene(at_once=16, limits=SHORT)
    (connection,) = await scene.served(1)
    scene.made(await scene.opening())
    await asyncio.sleep(0.01)
    scene.answer(connection, took_s=0.001)
    scene.idle.clear()  # somebody has taken it
    assert isinstance(await asyncio.wait_for(scene.queues.of(A).enter(Bucket()), 10), Opening)


async def overdue(scene: Scene) -> Connection:
    """A connection that is answered on only after another one, which was answered on before, is closed."""
    (other,) = await scene.served(1)
    connection = scene.made(await scene.opening())
    await until(lambda: is_closed(other), 10)
    return scene.answer(connection)


async def test_an_idle_connection_is_closed_for_one_that_waits_for_long() -> None:
    scene = Scene(at_once=16, limits=SHORT)
    await overdue(scene)
    assert scene.idle == []  # it has been open for long itself: others may wait for the worker


async def test_a_connection_in_use_is_closed_for_one_that_waits_for_long_when_it_becomes_idle() -> None:
    scene = Scene(at_once=16, limits=SHORT)
    (used,) = await scene.served(1)
    scene.idle.clear()
    scene.made(await scene.opening())
    await asyncio.sleep(0.01)
    scene.answer(used, took_s=0.001)
    scene.idle.clear()
    await asyncio.sleep(2 * SHORT.overdue_s)
    assert not is_closed(used)
    assert is_closed(scene.answer(used, took_s=0.001))
    assert scene.idle == []


async def test_where_workers_are_few_a_connection_is_used_for_a_moment_and_no_others_are_opened() -> None:
    scene = Scene(at_once=16, limits=SHORT)
    scene.queues.of(A).lost(await overdue(scene))
    (connection,) = await scene.served(1)
    assert scene.queues.one_idle_s(A) == SHORT.brief_s
    (waiting,) = await started(scene.queues.of(A).enter(Bucket()))
    assert not waiting.done()
    connection.connected_at -= 2 * SHORT.brief_s
    assert scene.queues.of(connection.origin).release(connection)
    assert is_closed(connection)
    assert not waiting.done()
    scene.queues.of(connection.origin).lost(connection)
    assert isinstance(await waiting, Opening)


async def test_few_workers_are_remembered_without_a_connection_and_then_forgotten() -> None:
    scene = Scene(at_once=16, limits=SHORT)
    scene.queues.of(A).lost(await overdue(scene))
    assert len(scene.queues) == 1
    await until(lambda: len(scene.queues) == 0, 10)


async def test_a_second_worker_is_looked_for_once_a_connection_alone_has_been_open_for_a_moment() -> None:
    scene = Scene()
    (connection,) = await scene.served(1)
    assert not connection.is_alone
    connection.connected_at -= 2 * LIMITS.overdue_s
    scene.answer(connection)
    assert connection.is_alone
    assert scene.queues.of(A).serving.is_unproven
    second = scene.made(await scene.opening())
    assert not scene.queues.of(A).serving.is_unproven  # it is being looked for
    scene.answer(second)
    assert not scene.queues.of(A).serving.is_unproven
    assert not scene.answer(connection).is_alone


async def test_the_last_worker_that_a_receiver_has_shown_is_not_kept_idle_for_long() -> None:
    scene = Scene()
    await scene.served(3)
    assert scene.queues.one_idle_s(A) == LIMITS.last_s
    scene.queues.of(A).lost(scene.idle.pop())
    assert scene.queues.one_idle_s(A) == LIMITS.idle_s
    assert scene.queues.one_idle_s(B) == LIMITS.idle_s


def test_nobody_times_out_who_waits_for_what_another_dispatcher_keeps() -> None:
    limits = QueueLimits.within(10.0, 60.0)
    assert limits.last_s + limits.overdue_s + limits.watch_s < 10.0
    assert limits.brief_s < limits.overdue_s < limits.last_s <= limits.idle_s
    assert QueueLimits.within(10.0, 2.0).last_s == 2.0
