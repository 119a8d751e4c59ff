"""How far a consumer is behind, in seconds: two ages that a log does not tell by itself.

Kafka says how many messages lie ahead, not how old they are, and to ask would cost a read. Both ages are bounds that
follow from the messages that were seen: exact to a second, and never more than that below the truth. Pure: time comes
in as `now_ms`.
"""

from collections import deque
from typing import Final

_MARK_EVERY_MS: Final = 250  # exact enough for ages in seconds


class UnreadAge:
    """Age of the oldest message that lies ahead in a topic.

    It is younger than the message that was read last, and than the moment when nothing lay ahead: after an idle night,
    the first event is not a night old. Not thread-safe, but for `read`, which may run on another thread.
    """

    def __init__(self) -> None:
        self._read_ms: dict[str, int] = {}
        self._empty_ms: dict[str, int] = {}

    def read(self, topic: str, timestamp_ms: int) -> None:
        """Note that a message was read, which Kafka dates `timestamp_ms`."""
        self._read_ms[topic] = timestamp_ms

    def seconds(self, topic: str, backlog: int, now_ms: int) -> float:
        """The age, while `backlog` messages lie ahead. To be called every second or so: it is exact to the time between
        two calls.
        """
        if not backlog:
            self._empty_ms[topic] = now_ms
            return 0.0
        since_ms = max(self._read_ms.get(topic, 0), self._empty_ms.setdefault(topic, now_ms))
        return max(0, now_ms - since_ms) / 1000


class UnfinishedAge:
    """Age of the oldest message of a partition that was begun and is not finished, counted from its due time.

    Remembers one offset in 250 ms, not all of them: a mark stands for the offsets up to the next one.
    """

    __slots__ = ("_marks",)

    def __init__(self) -> None:
        self._marks: deque[tuple[int, int]] = deque()  # offset, due time

    def begin(self, offset: int, due_ms: int) -> None:
        """Note that `offset` was begun. It is higher than all earlier ones."""
        if not self._marks or due_ms - self._marks[-1][1] >= _MARK_EVERY_MS:
            self._marks.append((offset, due_ms))

    def seconds(self, oldest_unfinished: int | None, now_ms: int) -> float:
        """The age of that offset; 0 when all are finished (None), or the message is not due yet."""
        if oldest_unfinished is None:
            self._marks.clear()
            return 0.0
        while len(self._marks) > 1 and self._marks[1][0] <= oldest_unfinished:
            self._marks.popleft()
        return max(0, now_ms - self._marks[0][1]) / 1000 if self._marks else 0.0
