"""The timer wheel: never early, hardly late, and quiet when nobody waits."""

import asyncio
import time

import pytest

from services.dispatcher.senders.wheel import TimerWheel


class Waiter:
    def __init__(self) -> None:
        self.entered = time.monotonic()
        self.expired_after: float | None = None

    def expire(self) -> None:
        self.expired_after = time.monotonic() - self.entered


async def test_nothing_expires_early_and_nothing_much_too_late() -> None:
    wheel, waiters = TimerWheel(0.1, tick_s=0.01), []
    for _ in range(30):
        waiters.append(waiter := Waiter())
        wheel.bucket().add(waiter)
        await asyncio.sleep(0.003)
    await asyncio.sleep(0.3)
    for waiter in waiters:
        assert waiter.expired_after is not None
        assert 0.1 <= waiter.expired_after < 0.3


async def test_who_leaves_in_time_does_not_expire() -> None:
    wheel, waiter = TimerWheel(0.05, tick_s=0.01), Waiter()
    bucket = wheel.bucket()
    bucket.add(waiter)
    await asyncio.sleep(0.03)
    bucket.discard(waiter)
    await asyncio.sleep(0.1)
    assert waiter.expired_after is None
    assert bucket.expired


async def test_who_leaves_and_comes_back_keeps_the_deadline() -> None:
    wheel, waiter = TimerWheel(0.1, tick_s=0.01), Waiter()
    bucket = wheel.bucket()
    bucket.add(waiter)
    await asyncio.sleep(0.05)
    bucket.discard(waiter)
    await asyncio.sleep(0.02)
    assert not bucket.expired
    bucket.add(waiter)
    await asyncio.sleep(0.15)
    assert waiter.expired_after is not None
    assert 0.1 <= waiter.expired_after < 0.2


async def test_the_wheel_stops_ticking_and_starts_again() -> None:
    wheel = TimerWheel(0.02, tick_s=0.01)
    wheel.bucket()
    await asyncio.sleep(0.1)
    assert wheel._handle is None
    waiter = Waiter()
    wheel.bucket().add(waiter)
    await asyncio.sleep(0.1)
    assert waiter.expired_after is not None


async def test_the_wheel_goes_by_the_clock_and_not_by_the_number_of_ticks() -> None:
    now = 0.0
    wheel, waiter = TimerWheel(10.0, tick_s=0.001, clock=lambda: now), Waiter()
    wheel.bucket().add(waiter)
    await asyncio.sleep(0.05)
    assert waiter.expired_after is None
    now = 20.0
    await asyncio.sleep(0.05)
    assert waiter.expired_after is not None
    wheel.close()


async def test_an_item_may_enter_a_new_deadline_while_another_expires() -> None:
    wheel = TimerWheel(0.02, tick_s=0.01)
    second = Waiter()

    class Restarts:
        def expire(self) -> None:
            wheel.bucket().add(second)

    wheel.bucket().add(Restarts())
    await asyncio.sleep(0.15)
    assert second.expired_after is not None
    assert second.expired_after == pytest.approx(0.05, abs=0.1)
