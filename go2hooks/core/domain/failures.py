"""Counts the consecutive failures of a webhook, in the order in which attempts began.

A request that a busy receiver never read times out after dozens of later requests that the receiver answered. Such a
failure says nothing about the receiver. So a failure counts only while no success is known that began at the same time
or later. The order in which attempts end, and in which they are reported, does not matter.
"""

from bisect import bisect_right, insort
from collections.abc import Iterable


class Streak:
    """Failed attempts that began after the latest known success. All times are of the same clock, in the same unit."""

    __slots__ = ("_most", "_succeeded", "starts")

    def __init__(self, most: int, starts: Iterable[float] = ()) -> None:
        """Keeps at most `most` failures (at least 2). `starts`: when the failures began that already count."""
        self.starts = sorted(starts)  #: when the failures began, earliest first
        self._most = most
        self._succeeded = float("-inf")  # when the latest success began

    def __len__(self) -> int:
        return len(self.starts)

    def succeed(self, began: float) -> None:
        """An attempt that began at `began` has succeeded: failures that began no later do not count any more."""
        if began > self._succeeded:
            self._succeeded = began
            if self.starts:
                del self.starts[: bisect_right(self.starts, began)]

    def fail(self, began: float) -> bool:
        """An attempt that began at `began` has failed. Returns whether it counts."""
        if began <= self._succeeded:
            return False
        insort(self.starts, began)
        if len(self.starts) > self._most:
            del self.starts[1]  # keeps the first one: the time since which the webhook fails
        return True

    def clear(self) -> None:
        """The failures so far do not count any more."""
        self.starts.clear()
