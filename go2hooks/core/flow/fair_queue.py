"""What waits, by key, given out in turns: who has much waiting delays nobody who has little.

Keys that bring much beside others are given out apart: their items may gather for a moment, as what comes together
costs less, and what they cost is taken from everybody.

Items of one key keep their order. Pure: time comes in as `now`, in seconds of any monotonic clock.
"""

from collections import deque
from typing import Final, Generic, TypeVar

from go2hooks.core.flow.sole_key import SoleKeyDetector

K = TypeVar("K")
T = TypeVar("T")

_COUNTED_S: Final = 0.25  # how long is counted who brings how much, at most
_COUNTED_ITEMS: Final = 250
_HEAVY_ITEMS: Final = 64  # in that time
_HEAVY_SHARE: Final = 3  # and a third of all
_BESIDE_S: Final = 1.0  # how long those who bring little count as being there: what is read at a time may be one burst


class FairQueue(Generic[K, T]):
    """A queue per key, a ring of the keys that have something, and one of the heavy ones among them.

    Heavy is who brings a third of everything, and more than a few, beside others of the last second; and stays so while
    more than a few wait. Unbounded: who puts in asks for the length before.
    """

    __slots__ = (
        "_counted",
        "_counted_since",
        "_counts",
        "_heavy",
        "_heavy_ring",
        "_others_at",
        "_queues",
        "_ring",
        "_size",
        "sole_key",
    )

    def __init__(self) -> None:
        self._queues: dict[K, deque[T]] = {}
        self._ring: deque[K] = deque()
        self._heavy_ring: deque[K] = deque()
        self._size = 0
        self._counts: dict[K, int] = {}
        self._counted = 0
        self._counted_since = 0.0
        self._heavy: frozenset[K] = frozenset()
        self._others_at = float("-inf")  # when somebody who is not heavy was last counted
        self.sole_key: SoleKeyDetector[K] = SoleKeyDetector()  #: of the keys that something is put in for

    def __len__(self) -> int:
        return self._size

    @property
    def has_light(self) -> bool:
        """Whether `take` may have something. What has become heavy since is among it."""
        return bool(self._ring)

    @property
    def has_heavy(self) -> bool:
        """Whether `take_heavy` has something."""
        return bool(self._heavy_ring)

    def put(self, key: K, item: T, now: float) -> None:
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = deque()
            self._ring.append(key)
        queue.append(item)
        self._size += 1
        self.sole_key.note(key, now)
        self._counts[key] = self._counts.get(key, 0) + 1
        self._counted += 1

    def take(self, now: float) -> tuple[K, T] | None:
        """The next item of the light key whose turn it is; None when only heavy ones have something."""
        if self._counted >= _COUNTED_ITEMS or now - self._counted_since >= _COUNTED_S:
            self._weigh(now)
        while self._ring:
            key = self._ring.popleft()
            if key not in self._heavy:
                return self._take_of(key)
            self._heavy_ring.append(key)
        return None

    def take_heavy(self) -> tuple[K, T] | None:
        """The next item of the heavy key whose turn it is; None when none has anything that `take` has passed over."""
        return self._take_of(self._heavy_ring.popleft()) if self._heavy_ring else None

    def is_crowding(self, key: K, least: int, now: float) -> bool:
        """Whether at least `least` items of this key wait, half or more of all that do, and others come too."""
        waiting = len(self._queues.get(key, ()))
        return waiting >= least and 2 * waiting >= self._size and not self.sole_key.is_sole(key, now)

    def _take_of(self, key: K) -> tuple[K, T]:
        queue = self._queues[key]
        item = queue.popleft()
        self._size -= 1
        if not queue:
            del self._queues[key]
        else:
            (self._heavy_ring if key in self._heavy else self._ring).append(key)
        return key, item

    def _weigh(self, now: float) -> None:
        least = max(_HEAVY_ITEMS, self._counted / _HEAVY_SHARE)
        heavy = {key for key, count in self._counts.items() if count >= least}
        heavy.update(key for key in self._heavy if len(self._queues.get(key, ())) >= _HEAVY_ITEMS)
        if self._counts.keys() - heavy:
            self._others_at = now
        self._heavy = frozenset(heavy) if now - self._others_at <= _BESIDE_S else frozenset()
        self._counts = {}
        self._counted, self._counted_since = 0, now
