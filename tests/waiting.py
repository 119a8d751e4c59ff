"""Waiting for what comes about by itself, for as long as even a busy machine takes, and no longer than it takes."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

WITHIN_S = 60.0


def eventually(check: Callable[[], Any], within_s: float = WITHIN_S, every_s: float = 0.02) -> Any:
    """What `check` gives, as soon as it is true."""
    return step_until(lambda: time.sleep(every_s), check, within_s)


def step_until(step: Callable[[], object], check: Callable[[], Any], within_s: float = WITHIN_S) -> Any:
    """The same, for what comes about by steps that the test takes."""
    deadline = time.monotonic() + within_s
    while not (found := check()):
        assert time.monotonic() < deadline, f"not within {within_s:g} s; it gave {found!r}"
        step()
    return found


async def until(check: Callable[[], Any], within_s: float = WITHIN_S) -> Any:
    """The same, on the loop."""
    deadline = time.monotonic() + within_s
    while not (found := check()):
        assert time.monotonic() < deadline, f"not within {within_s:g} s; it gave {found!r}"
        await asyncio.sleep(0.01)
    return found


async def turn() -> None:
    """Some turns of the loop: what needs nothing from outside has come about by then."""
    for _ in range(5):
        await asyncio.sleep(0)
