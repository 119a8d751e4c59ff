"""A queue that gives each key its turn, so a key with many items does not delay a key with few.

Heavy keys, which bring much beside others, are given out apart: their items may gather for a moment, since items that
are handled together cost less, and what they cost is taken from all keys.

Items of one key keep their order. Pure: time comes in as `now`, in seconds of any monotonic clock.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from go2hooks.core.flow.sole_key import SoleKeyDetector

K = TypeVar("K")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HeavyRule:
    """When a key is heavy."""

    counted_s: float = 0.25  #: items are counted for this long at most: a burst is seen within a fraction of a second
    counted_items: int = 250  #: and for this many at most: what the router reads at a time
    items: int = 64  #: that a heavy key brings in that time; fewer cost little apart
    share: int = 3  #: and the part of all items: a third
    #: Seconds for which light keys count as present after their last item: what is read at a time may be one burst.
    beside_s: float = 1.0


_HEAVY: Final = HeavyRule()


class FairQueue(Generic[K, T]):
    """A queue per key, a ring of the keys that have items, and a ring of the heavy ones among them.

    A key is heavy when it brings a third of all items, and more than a few, beside other keys of the last second. It
    stays heavy while more than a few of its items wait. Unbounded: the caller checks the length before it puts
    something in.
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
        self._others_at = float("-inf")  # when a light key was last counted
        self.sole_key: SoleKeyDetector[K] = SoleKeyDetector()  #: of the keys that items are put in for

    def __len__(self) -> int:
        return self._size

    @property
    def has_light(self) -> bool:
        """Whether `take` may have an item. Keys that have become heavy since count too."""
        return bool(self._ring)

    @property
    def has_heavy(self) -> bool:
        """Whether `take_heavy` has an item."""
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
        """The next item of the light key whose turn it is; None when only heavy keys have items."""
        if self._counted >= _HEAVY.counted_items or now - self._counted_since >= _HEAVY.counted_s:
            self._weigh(now)
        while self._ring:
            key = self._ring.popleft()
            if key not in self._heavy:
                return self._take_of(key)
            self._heavy_ring.append(key)
        return None

    def take_heavy(self) -> tuple[K, T] | None:
        """The next item of the heavy key whose turn it is; None when no heavy key has items that `take` has passed
        over.
        """
        return self._take_of(self._heavy_ring.popleft()) if self._heavy_ring else None

    def is_crowding(self, key: K, least: int, now: float) -> bool:
        """Whether at least `least` items of this key wait, which are half of all or more, while other keys come too."""
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
        least = max(_HEAVY.items, self._counted / _HEAVY.share)
        heavy = {key for key, count in self._counts.items() if count >= least}
        heavy.update(key for key in self._heavy if len(self._queues.get(key, ())) >= _HEAVY.items)
        if self._counts.keys() - heavy:
            self._others_at = now
        self._heavy = frozenset(heavy) if now - self._others_at <= _HEAVY.beside_s else frozenset()
        self._counts = {}
        self._counted, self._counted_since = 0, now
