"""Limits how fast replays are sent: to a rate, and to nothing while dispatchers are behind with deliveries."""

import time
from collections.abc import Callable
from typing import Final

from go2hooks.kafka.client import GroupNames
from go2hooks.kafka.partitions import PartitionKey
from go2hooks.kafka.reading import LogReader
from go2hooks.kafka.topics import TopicNames

_LOOK_S: Final = 0.25  # between two looks at the backlog
_AHEAD_S: Final = 2.0  # seconds of the rate that may wait for dispatchers; a replay's own deliveries count too


class Backlog:
    """The number of unfinished deliveries in the main and overflow topics. Raises UnavailableError."""

    def __init__(self, reader: LogReader, topics: TopicNames, groups: GroupNames) -> None:
        self._reader = reader
        self._groups = {groups.dispatcher: topics.deliveries, groups.overflow: topics.overflow}

    def measure(self) -> int:
        committed: dict[PartitionKey, int] = {}
        for group, topic in self._groups.items():
            committed |= self._reader.committed(group, self._reader.partitions([topic]))
        ends, starts = self._reader.ends(list(committed)), self._reader.starts(list(committed))
        return sum(max(0, ends[key] - max(at, starts[key])) for key, at in committed.items())


class Throttle:
    """Says how long to wait before the next batch."""

    def __init__(self, per_s: int, backlog: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._backlog = backlog
        self._clock = clock
        self._next_at = 0.0
        self._looked_at = float("-inf")
        self._is_held = False

    def sent(self, count: int) -> None:
        """Note that so many deliveries were written just now."""
        now = self._clock()
        self._next_at = max(self._next_at, now - _LOOK_S) + count / self._per_s

    def wait_s(self) -> float:
        """Seconds until more may be sent; 0 for at once. Asks Kafka a few times a second."""
        now = self._clock()
        if now - self._looked_at >= _LOOK_S:
            self._is_held = self._backlog() > self._per_s * _AHEAD_S
            self._looked_at = now
        return _LOOK_S if self._is_held else max(0.0, self._next_at - now)

    @property
    def is_held(self) -> bool:
        """Whether it waits for the dispatchers, and not for the rate."""
        return self._is_held
