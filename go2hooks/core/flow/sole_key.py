"""Detects that a single key has caused all traffic for a second; fairness limits may then be lifted.

Pure: time comes in as `now`, in seconds of any monotonic clock.
"""

from typing import Final, Generic, TypeVar

K = TypeVar("K")

_ALONE_S: Final = 1.0


class SoleKeyDetector(Generic[K]):
    """Sees the keys of all traffic, in the order of arrival."""

    __slots__ = ("_latest", "changed_at")

    def __init__(self) -> None:
        self._latest: K | None = None
        self.changed_at = 0.0  #: since when all traffic has been for the latest key

    def note(self, key: K, now: float) -> None:
        """Something has arrived for `key`."""
        if key != self._latest:
            self._latest, self.changed_at = key, now

    def is_sole(self, key: K, now: float) -> bool:
        """Whether all traffic of the last second was for this key."""
        return key == self._latest and now - self.changed_at > _ALONE_S
