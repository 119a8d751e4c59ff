"""Which offset of a partition may be committed, when deliveries finish out of order.

A partition's messages are begun in offset order and completed in any order. The committable offset is the lowest one
that is still incomplete: after a crash, reading restarts there, so nothing unfinished is skipped. Messages above it
that were completed may be read again; the recorded attempts tell which.
"""

from collections import deque


class OffsetTracker:
    """Offsets of one partition during one assignment. Not thread-safe.

    `begin` must be called in ascending order. `begin` and `complete` are O(1) amortised: a deque of begun offsets,
    whose head is dropped once it is complete.
    """

    __slots__ = ("_begun", "_committed", "_incomplete", "_next")

    def __init__(self) -> None:
        self._begun: deque[int] = deque()
        self._incomplete: set[int] = set()
        self._next = -1  # the offset after the highest one begun
        self._committed = -1

    @property
    def incomplete(self) -> int:
        """How many messages are begun and not complete."""
        return len(self._incomplete)

    @property
    def oldest_incomplete(self) -> int | None:
        """The lowest offset that is not complete; None when all are."""
        return self._begun[0] if self._begun else None

    @property
    def resume_at(self) -> int | None:
        """Next offset to read after a restart, whether it has been stored or not; None when none has begun."""
        if self._next < 0:
            return None
        return self._begun[0] if self._begun else self._next

    def begin(self, offset: int) -> None:
        """Note that `offset` is being worked on. Raises ValueError when it is not above all earlier ones."""
        if offset < self._next:
            msg = f"offset {offset} begun after {self._next - 1}"
            raise ValueError(msg)
        self._begun.append(offset)
        self._incomplete.add(offset)
        self._next = offset + 1

    def skip_to(self, offset: int) -> None:
        """Note that no message lies before `offset` that was not begun."""
        self._next = max(self._next, offset)

    def complete(self, offset: int) -> None:
        """Note that `offset` is finished. Raises KeyError when it was completed before, or never begun."""
        self._incomplete.remove(offset)
        while self._begun and self._begun[0] not in self._incomplete:
            self._begun.popleft()

    def committable(self) -> int | None:
        """Next offset to read after a restart; None when nothing is new since `committed`."""
        offset = self.resume_at
        return offset if offset is not None and offset > self._committed else None

    def committed(self, offset: int) -> None:
        """Note that Kafka has stored `offset`."""
        self._committed = max(self._committed, offset)
