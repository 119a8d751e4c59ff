"""An answer that many requests share, and that is refreshed at most every few seconds."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Shared(Generic[T]):
    """One thread refreshes at a time. Meanwhile the others get the last answer; they wait only if there is none."""

    def __init__(self, ask: Callable[[], T], fresh_s: float) -> None:
        """What `ask` raises, `get` raises."""
        self._ask = ask
        self._fresh_s = fresh_s
        self._lock = threading.Lock()
        self._known: tuple[T, float] | None = None  # with when it was answered

    def get(self) -> T:
        """An answer of the last `fresh_s` seconds, or the newest one while another thread refreshes it."""
        known = self._known
        if known is not None and (self._is_fresh(known) or not self._lock.acquire(blocking=False)):
            return known[0]
        if known is None:
            self._lock.acquire()
        try:
            if self._known is None or not self._is_fresh(self._known):
                self._known = self._ask(), time.monotonic()
            return self._known[0]
        finally:
            self._lock.release()

    def _is_fresh(self, known: tuple[T, float]) -> bool:
        return time.monotonic() - known[1] < self._fresh_s
