"""A limit on requests that wait: no account takes more than half of the places."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Places:
    """Safe to share between threads."""

    def __init__(self, count: int) -> None:
        """If there is one place, any account may take it."""
        self._free = max(1, count)
        self._each = max(1, count // 2)
        self._taken: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def taken_by(self, account_id: str) -> Iterator[bool]:
        """Take a place for this account until the end of the block. Yields whether there was one; does not block."""
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
