"""Places that requests share which have to wait for something: no account takes more than half of them."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Places:
    """Safe to share between threads."""

    def __init__(self, count: int) -> None:
        """Of a single place, anybody may take the whole."""
        self._free = max(1, count)
        self._each = max(1, count // 2)
        self._taken: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def taken_by(self, account_id: str) -> Iterator[bool]:
        """Whether there is a place for this account, which is its own until the end. Does not block."""
        is_taken = self._take(account_id)
        try:
            yield is_taken
        finally:
            if is_taken:
                self._give_back(account_id)

    def _take(self, account_id: str) -> bool:
        with self._lock:
            if not self._free or self._taken[account_id] >= self._each:
                return False
            self._free -= 1
            self._taken[account_id] += 1
            return True

    def _give_back(self, account_id: str) -> None:
        with self._lock:
            self._free += 1
            self._taken[account_id] -= 1
            if not self._taken[account_id]:
                del self._taken[account_id]
