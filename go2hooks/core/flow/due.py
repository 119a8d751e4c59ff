"""Holds retries that are not due yet: a bounded buffer per partition of a retry tier.

A tier's delay is constant, so its partitions are almost in order of due time; a heap sorts the rest. When a buffer is
full, in items or bytes, its owner pauses the partition, and resumes it when the buffer is half empty. Meanwhile further
messages stay in Kafka.
"""

from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import count
from typing import Generic, TypeVar

T = TypeVar("T")


class DueBuffer(Generic[T]):
    """Items of one partition, sorted by due time in milliseconds since the epoch. Not thread-safe."""

    __slots__ = ("_heap", "_order", "bytes", "capacity", "capacity_bytes", "paused")

    def __init__(self, capacity: int, capacity_bytes: int) -> None:
        self.capacity = capacity
        self.capacity_bytes = capacity_bytes
        self.bytes = 0
        self.paused = False  #: whether the owner has paused the partition
        self._heap: list[tuple[int, int, int, T]] = []
        self._order = count()  # breaks ties, so that items are never compared

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, due_ms: int, size: int, item: T) -> None:
        """`size` in bytes."""
        self.bytes += size
        heappush(self._heap, (due_ms, next(self._order), size, item))

    def next_due_ms(self) -> int | None:
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now_ms: int) -> Iterator[T]:
        """Take out the items that are due, earliest first, one for each step of the iterator."""
        while self._heap and self._heap[0][0] <= now_ms:
            _due_ms, _order, size, item = heappop(self._heap)
            self.bytes -= size
            yield item

    def should_pause(self) -> bool:
        return not self.paused and (len(self._heap) >= self.capacity or self.bytes >= self.capacity_bytes)

    def should_resume(self) -> bool:
        return self.paused and len(self._heap) <= self.capacity // 2 and self.bytes <= self.capacity_bytes // 2
