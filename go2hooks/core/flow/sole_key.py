"""Whether one key has been the only one for a while: then there is nobody to protect from it.

Pure: time comes in as `now`, in seconds of any monotonic clock.
"""

from typing import Final, Generic, TypeVar

K = TypeVar("K")

_ALONE_S: Final = 1.0


class SoleKeyDetector(Generic[K]):
    """Of the keys that something comes for, in the order in which it comes."""

    __slots__ = ("_latest", "changed_at")

    def __init__(self) -> None:
        self._latest: K | None = None
        self.changed_at = 0.0  #: since when it has been the latest key

    def note(self, key: K, now: float) -> None:
        """Something has come for `key`."""
        if key != self._latest:
            self._latest, self.changed_at = key, now

    def is_sole(self, key: K, now: float) -> bool:
        """Whether nothing but this key's has come for a second."""
        return key == self._latest and now - self.changed_at > _ALONE_S
