"""What waits, by key, given out in turns: who has much waiting delays nobody who has little.

Items of one key keep their order. Pure: time comes in as `now`, in seconds of any monotonic clock.
"""

from collections import deque
from typing import Generic, TypeVar

from go2hooks.core.company import Company

K = TypeVar("K")
T = TypeVar("T")


class FairQueue(Generic[K, T]):
    """A queue per key and a ring of the keys that have something. Unbounded: who puts in asks for the length before."""

    __slots__ = ("_queues", "_ring", "_size", "company")

    def __init__(self) -> None:
        self._queues: dict[K, deque[T]] = {}
        self._ring: deque[K] = deque()
        self._size = 0
        self.company: Company[K] = Company()  #: of the keys that something is put in for

    def __len__(self) -> int:
        return self._size

    def put(self, key: K, item: T, now: float) -> None:
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = deque()
            self._ring.append(key)
        queue.append(item)
        self._size += 1
        self.company.note(key, now)

    def take(self) -> tuple[K, T]:
        """The next item of the key whose turn it is. IndexError when nothing waits."""
        key = self._ring.popleft()
        queue = self._queues[key]
        item = queue.popleft()
        self._size -= 1
        if queue:
            self._ring.append(key)
        else:
            del self._queues[key]
        return key, item

    def is_crowding(self, key: K, least: int, now: float) -> bool:
        """Whether at least `least` items of this key wait, half or more of all that do, and others come too."""
        waiting = len(self._queues.get(key, ()))
        return waiting >= least and 2 * waiting >= self._size and not self.company.is_alone(key, now)
