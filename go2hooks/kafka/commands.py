"""What a sink on the event loop asks of the poll thread.

One thread at a time may be inside a Consumer: a call from another would wait until poll returns, every time. And a
partition may go, and come back, while a command is on its way: then the command is about an assignment that is over.
"""

import queue
from collections.abc import Callable, Collection, Iterable

from go2hooks.kafka.partitions import PartitionKey

Command = Callable[[Collection[PartitionKey]], None]


class Commands:
    """`put` and `heard` run on the event loop, all else in the poll thread."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[int, Collection[PartitionKey], Command]] = queue.SimpleQueue()
        self._generations: dict[PartitionKey, int] = {}  # which assignment each partition came with
        self._generation = 0  # of the last assignment
        self._heard = 0  # the last one that the sink knows of

    def put(self, keys: Collection[PartitionKey], command: Command) -> None:
        """Have the poll thread call `command` with those of the partitions that are assigned as the sink knows them.
        Does not block.
        """
        self._queue.put((self._heard, keys, command))

    def heard(self, generation: int) -> None:
        """The sink hears of this assignment now."""
        self._heard = generation

    def assigned(self, keys: Iterable[PartitionKey]) -> int:
        """Returns the generation, which the sink is to hear of."""
        self._generation += 1
        self._generations |= dict.fromkeys(keys, self._generation)
        return self._generation

    def gone(self, keys: Iterable[PartitionKey]) -> None:
        for key in keys:
            del self._generations[key]

    def obey(self) -> None:
        """Call what was put."""
        while not self._queue.empty():
            heard, keys, command = self._queue.get()
            known = [key for key in keys if self._generations.get(key, heard + 1) <= heard]
            if known:
                command(known)
