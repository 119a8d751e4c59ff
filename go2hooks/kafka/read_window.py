"""How much a sink holds of what a consumer has read: the poll thread takes room, the event loop releases it."""

import threading
from collections.abc import Sequence


class ReadWindow:
    """Messages that weigh `size` together, at most, are handed over and not yet released; beyond that Kafka has to
    wait.

    A message weighs 1 for every `unit_bytes` that it has begun, so the window is bounded by messages and by bytes.
    """

    def __init__(self, size: int, unit_bytes: int) -> None:
        self.size = size  #: may be changed at any time
        self._unit_bytes = unit_bytes
        # Each counter has one writer (poll thread, event loop), so their difference needs no lock.
        self._taken = 0
        self._released = 0
        self._freed = threading.Event()

    @property
    def room(self) -> int:
        """What may still be taken. Not positive while the window is full."""
        return self.size - self._taken + self._released

    def weigh(self, size: int) -> int:
        """What a message of so many bytes counts for."""
        return 1 if size <= self._unit_bytes else -(-size // self._unit_bytes)

    def take(self, sizes: Sequence[int]) -> None:
        """Messages of these sizes are handed over. Poll thread."""
        self._taken += len(sizes) if max(sizes) <= self._unit_bytes else sum(map(self.weigh, sizes))

    def release(self, weight: int = 1) -> None:
        """Messages of this weight are done with. Event loop."""
        self._released += weight
        if not self._freed.is_set():  # to set it again would take half a microsecond, for every delivery
            self._freed.set()

    def wait(self, timeout_s: float) -> None:
        """Wait for a release, or for `wake`. Poll thread; it is to look at `room` afterwards, so that none in between
        is missed.
        """
        self._freed.wait(timeout_s)
        self._freed.clear()

    def wake(self) -> None:
        """End a wait."""
        self._freed.set()
