"""One timer for the deadlines of all requests: coarse, cheap, never early.

Every deadline has the same length, so they expire in the order in which they were set. Those that are set within one
tick share a bucket; a bucket expires one timeout after it was closed. Adding and removing an item is one set operation
each. An item expires at least `timeout_s` and at most about `timeout_s + 2 * tick_s` after it was added.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol


class Expirable(Protocol):
    """Something that a deadline can end. Hashed by identity."""

    def expire(self) -> None:
        """End now. Must not raise, and must not block."""


class Bucket(set[Expirable]):
    """Items that share a deadline. Remove one that is done with `discard`; check `expired` before adding it again."""

    __slots__ = ("expired",)

    def __init__(self) -> None:
        super().__init__()
        self.expired = False


class DeadlineQueue:
    """Deadlines of one length, in seconds. Belongs to one event loop. Its timer stops while it is not used."""

    def __init__(self, timeout_s: float, tick_s: float = 0.05, clock: Callable[[], float] = time.monotonic) -> None:
        self.timeout_s = timeout_s
        self._tick_s = tick_s
        self._clock = clock
        self._open = Bucket()
        self._handed_out = False  # whether anybody may hold the open bucket
        self._closed: deque[tuple[float, Bucket]] = deque()
        self._handle: asyncio.TimerHandle | None = None

    def bucket(self) -> Bucket:
        """The bucket whose items expire `timeout_s` from now: add to it at once, and again until it has expired."""
        self._handed_out = True
        if self._handle is None:
            self._arm()
        return self._open

    def close(self) -> None:
        """Stop the timer. Items that are left do not expire any more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self) -> None:
        self._handle = asyncio.get_running_loop().call_later(self._tick_s, self._tick)

    def _tick(self) -> None:
        self._handle = None
        now = self._clock()  # not the loop's time, which may be stale by one iteration
        if self._handed_out:
            self._closed.append((now + self.timeout_s, self._open))
            self._open = Bucket()
            self._handed_out = False
        while self._closed and self._closed[0][0] <= now:
            self._expire(self._closed.popleft()[1])
        if self._closed and self._handle is None:  # who expired may have asked for a bucket
            self._arm()

    @staticmethod
    def _expire(bucket: Bucket) -> None:
        bucket.expired = True
        for item in tuple(bucket):
            item.expire()
