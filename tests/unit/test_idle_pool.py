"""The pool of idle connections: last in first out, bounded, swept."""

import asyncio
from typing import Any

from connections import A, B, connection_to, is_closed

from services.dispatcher.http.connection import Connection
from services.dispatcher.http.pool import IdlePool


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def pool_of(*connections: Connection, **options: Any) -> IdlePool:
    pool = IdlePool(**{"max_idle": 10, "idle_s": 60.0, "one_idle_s": lambda _origin: 60.0, **options})
    for connection in connections:
        pool.put(connection)
    return pool


async def test_the_last_one_in_is_the_first_one_out_of_its_origin() -> None:
    first, second, other = connection_to(), connection_to(), connection_to(B)
    pool = pool_of(first, second, other)
    assert [pool.take(A), pool.take(A), pool.take(A)] == [second, first, None]
    assert pool.take(B) is other
    assert len(pool) == 0
    pool.close()


async def test_the_one_idle_for_longest_gives_way_whatever_its_origin() -> None:
    oldest, newer, newest = connection_to(A), connection_to(B), connection_to(B)
    pool = pool_of(oldest, newer, newest, max_idle=2)
    assert is_closed(oldest)
    assert not is_closed(newer)
    assert pool.take(A) is None
    assert len(pool) == 2
    pool.close()
    assert is_closed(newer)
    assert is_closed(newest)


async def test_what_is_idle_for_too_long_is_closed_and_the_rest_is_not() -> None:
    clock = Clock()
    old, young = connection_to(idle_since=0.0), connection_to(idle_since=50.0)
    pool = pool_of(old, young, idle_s=20.0, sweep_s=0.01, clock=clock)
    clock.now = 50.0
    async with asyncio.timeout(2):
        while not is_closed(old):  # noqa: ASYNC110  # a deadline, not luck
            await asyncio.sleep(0.01)
    assert not is_closed(young)
    assert len(pool) == 1
    pool.close()


async def test_one_is_closed_sooner_where_its_origin_says_so() -> None:
    clock = Clock()
    first, second, other = connection_to(A), connection_to(A), connection_to(B)
    pool = pool_of(
        first, second, other, sweep_s=0.01, clock=clock,
        one_idle_s=lambda origin: 1.0 if origin == A and not is_closed(first) else 60.0,
    )  # fmt: skip
    clock.now = 2.0
    async with asyncio.timeout(2):
        while not is_closed(first):  # noqa: ASYNC110  # a deadline, not luck
            await asyncio.sleep(0.001)
    assert not is_closed(second)
    await asyncio.sleep(0.05)
    assert not is_closed(second)
    assert not is_closed(other)
    pool.close()


async def test_the_one_idle_for_longest_is_closed_when_it_is_asked_for() -> None:
    first, second, other = connection_to(A), connection_to(A), connection_to(B)
    pool = pool_of(other, first, second)
    assert pool.close_first(A)
    assert is_closed(first)
    assert pool.take(A) is second
    assert not pool.close_first(A)
    assert not is_closed(other)
    pool.close()


async def test_a_connection_that_is_gone_is_not_given_out() -> None:
    gone, stays = connection_to(), connection_to()
    pool = pool_of(stays, gone)
    pool.discard(gone)
    pool.discard(gone)
    assert [pool.take(A), pool.take(A)] == [stays, None]
    pool.close()


async def test_nothing_remains_of_origins_without_connections() -> None:
    pool = pool_of(*(connection_to(("https", f"{n}.example", 443, None)) for n in range(5)))
    for n in range(5):
        pool.take(("https", f"{n}.example", 443, None))
    assert not pool._by_origin
    assert not pool._oldest_first
    pool.close()
