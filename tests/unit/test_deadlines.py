"""The timer wheel: never early, and quiet when nobody waits."""

import asyncio
import time
from collections.abc import Callable

from services.dispatcher.http.deadlines import DeadlineQueue


class Clock:
    """Stands still unless told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Waiter:
    def __init__(self) -> None:
        self.entered = time.monotonic()
        self.expired_after: float | None = None

    def expire(self) -> None:
        self.expired_after = time.monotonic() - self.entered


async def until(check: Callable[[], bool], within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while not check():  # noqa: ASYNC110  # conditions of all kinds, with a deadline
            await asyncio.sleep(0.005)


async def test_nothing_expires_early_and_everything_expires() -> None:
    wheel, waiters = DeadlineQueue(0.1, tick_s=0.01), []
    for _ in range(30):
        waiters.append(waiter := Waiter())
        wheel.bucket().add(waiter)
        await asyncio.sleep(0.003)
    await until(lambda: all(waiter.expired_after is not None for waiter in waiters))
    assert all(waiter.expired_after >= 0.1 for waiter in waiters)


async def test_who_leaves_in_time_does_not_expire() -> None:
    clock = Clock()
    wheel, waiter = DeadlineQueue(0.05, tick_s=0.01, clock=clock), Waiter()
    bucket = wheel.bucket()
    bucket.add(waiter)
    await until(lambda: wheel.bucket() is not bucket)
    clock.now = 0.04
    await asyncio.sleep(0.03)
    bucket.discard(waiter)
    clock.now = 0.06
    await until(lambda: bucket.expired)
    assert waiter.expired_after is None
    wheel.close()


async def test_who_leaves_and_comes_back_keeps_the_deadline() -> None:
    clock = Clock()
    wheel, waiter = DeadlineQueue(0.1, tick_s=0.01, clock=clock), Waiter()
    bucket = wheel.bucket()
    bucket.add(waiter)
    await until(lambda: wheel.bucket() is not bucket)
    clock.now = 0.05
    bucket.discard(waiter)
    clock.now = 0.07
    await asyncio.sleep(0.03)
    assert not bucket.expired
    bucket.add(waiter)
    await asyncio.sleep(0.03)
    assert waiter.expired_after is None
    clock.now = 0.11
    await until(lambda: waiter.expired_after is not None)
    wheel.close()


async def test_the_wheel_stops_ticking_and_starts_again() -> None:
    wheel = DeadlineQueue(0.02, tick_s=0.01)
    wheel.bucket()
    await until(lambda: wheel._handle is None)
    waiter = Waiter()
    wheel.bucket().add(waiter)
    await until(lambda: waiter.expired_after is not None)


async def test_the_wheel_goes_by_the_clock_and_not_by_the_number_of_ticks() -> None:
    clock = Clock()
    wheel, waiter = DeadlineQueue(10.0, tick_s=0.001, clock=clock), Waiter()
    wheel.bucket().add(waiter)
    await asyncio.sleep(0.05)
    assert waiter.expired_after is None
    clock.now = 20.0
    await until(lambda: waiter.expired_after is not None)
    wheel.close()


async def test_an_item_may_enter_a_new_deadline_while_another_expires() -> None:
    wheel = DeadlineQueue(0.02, tick_s=0.01)
    second = Waiter()

    class Restarts:
        def expire(self) -> None:
            wheel.bucket().add(second)

    wheel.bucket().add(Restarts())
    await until(lambda: second.expired_after is not None)
    assert second.expired_after >= 0.02
