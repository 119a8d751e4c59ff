"""Consecutive failures of a webhook, in the order in which attempts began.

An attempt that failed says nothing of a receiver that has answered one that began later: a request that a busy receiver
never read times out after dozens that it did read. So a failure counts only while no success is known that began with it
or after it. The order in which attempts end, and in which they become known, makes no difference.
"""

from bisect import bisect_right, insort
from collections.abc import Iterable


class Streak:
    """Failed attempts that began after the latest success that is known. Times are of one clock, in any one unit."""

    __slots__ = ("_most", "_succeeded", "starts")

    def __init__(self, most: int, starts: Iterable[float] = ()) -> None:
        """Keeps at most so many, at least two; `starts`: when those that count already began."""
        self.starts = sorted(starts)  #: when they began, earliest first
        self._most = most
        self._succeeded = float("-inf")  # when the latest success began

    def __len__(self) -> int:
        return len(self.starts)

    def succeed(self, began: float) -> None:
        """An attempt that began then has succeeded: what began no later does not count any more."""
        if began > self._succeeded:
            self._succeeded = began
            if self.starts:
                del self.starts[: bisect_right(self.starts, began)]

    def fail(self, began: float) -> bool:
        """An attempt that began then has failed. Whether it counts."""
        if began <= self._succeeded:
            return False
        insort(self.starts, began)
        if len(self.starts) > self._most:
            del self.starts[1]  # not the first, which says since when
        return True

    def clear(self) -> None:
        """What has failed so far does not count any more."""
        self.starts.clear()
