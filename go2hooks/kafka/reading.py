"""Reads parts of a log beside the services: joins no group, commits nothing."""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence, Sized
from contextlib import closing, contextmanager
from typing import Any, Final, NamedTuple, Self

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaException, Message, TopicPartition

from go2hooks.core.domain.delivery import Position
from go2hooks.core.errors import UnavailableError
from go2hooks.kafka import codes
from go2hooks.kafka.client import GroupNames, consumer_config
from go2hooks.kafka.diagnosis import explain, why_away
from go2hooks.kafka.partitions import PartitionKey
from go2hooks.settings import Settings

_TIMEOUT_S: Final = 10.0
_BATCH: Final = 500
_FAR: Final = 2000  # messages; to read so many takes about as long as a seek


class OffsetRange(NamedTuple):
    """A part of a partition: the offsets from `start` to below `end`."""

    key: PartitionKey
    start: int
    end: int


class LogReader:
    """Asks Kafka where logs begin and end, and reads them. Blocks. Every method raises UnavailableError.

    Close it, or use it as a context manager.
    """

    def __init__(self, settings: Settings, timeout_s: float = _TIMEOUT_S) -> None:
        """Kafka has `timeout_s` for each answer. Without one, it takes up to ten seconds more to find out why."""
        self._settings = settings
        self._timeout_s = timeout_s
        self._reader = GroupNames(settings.kafka_prefix).reader
        self._consumer = self._consumer_of(self._reader)
        self._of_groups: dict[str, Consumer] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        for consumer in (self._consumer, *self._of_groups.values()):
            consumer.close()

    def partitions(self, topics: Iterable[str]) -> list[PartitionKey]:
        """The partitions of these topics; a topic that does not exist has none."""
        with self._asking():
            there = self._consumer.list_topics(timeout=self._timeout_s).topics
        return [PartitionKey(name, number) for name in topics if name in there for number in there[name].partitions]

    def starts(self, keys: Sequence[PartitionKey]) -> dict[PartitionKey, int]:
        return self._look_up(keys, OFFSET_BEGINNING)

    def ends(self, keys: Sequence[PartitionKey]) -> dict[PartitionKey, int]:
        return self._look_up(keys, OFFSET_END)

    def offsets_at(self, keys: Sequence[PartitionKey], time_ms: int) -> dict[PartitionKey, int]:
        """The first message of each that was written at this time or later; the end of the log when there is none."""
        return self._look_up(keys, time_ms)

    def committed(self, group: str, keys: Sequence[PartitionKey]) -> dict[PartitionKey, int]:
        """The committed offsets of this group; 0 where it has committed nothing."""
        consumer = self._of_groups.get(group) or self._of_groups.setdefault(group, self._consumer_of(group))
        with self._asking():
            found = consumer.committed([TopicPartition(*key) for key in keys], timeout=self._timeout_s) if keys else []
        return {PartitionKey(p.topic, p.partition): max(0, p.offset) for p in found}

    def read(self, ranges: Collection[OffsetRange]) -> Iterator[Message]:
        """The messages in these ranges, in order within each; without those that have expired."""
        left = {each.key: each for each in ranges if each.start < each.end}
        starts = [TopicPartition(*each.key, each.start) for each in left.values()]
        return self._read_while(left, starts, lambda message, _: _belongs(message, left))

    def read_at(self, positions: Iterable[Position]) -> Iterator[Message]:
        """The messages at these positions, in order within each partition; without those that have expired.

        It seeks between positions that lie far apart.
        """
        wanted: dict[PartitionKey, deque[int]] = {}
        for position in sorted(set(positions)):
            wanted.setdefault(PartitionKey(position.topic, position.partition), deque()).append(position.offset)
        starts = [TopicPartition(*key, offsets[0]) for key, offsets in wanted.items()]
        return self._read_while(wanted, starts, lambda message, consumer: _is_wanted(message, wanted, consumer))

    def _read_while(
        self, left: Sized, starts: list[TopicPartition], is_wanted: Callable[[Message, Consumer], bool]
    ) -> Iterator[Message]:
        """The wanted messages from there on, until nothing is `left`. A new consumer has nothing left over from an
        earlier read.
        """
        if not left:
            return
        with self._asking(), closing(self._consumer_of(self._reader)) as consumer:
            consumer.assign(starts)
            while left:
                # `consume` would wait until it has as many as it is allowed to give.
                first = consumer.poll(self._timeout_s)
                if first is None:
                    raise UnavailableError(why_away(self._config(self._reader)))
                messages = (first, *consumer.consume(_BATCH, 0))
                yield from [message for message in messages if is_wanted(message, consumer)]

    def _look_up(self, keys: Sequence[PartitionKey], when: int) -> dict[PartitionKey, int]:
        asked = [TopicPartition(*key, when) for key in keys]
        with self._asking():
            found = self._consumer.offsets_for_times(asked, timeout=self._timeout_s) if asked else []
            for partition in found:
                if partition.error is not None:
                    raise KafkaException(partition.error)
        offsets = {PartitionKey(p.topic, p.partition): p.offset for p in found}
        if any(offset < 0 for offset in offsets.values()):  # nothing was written since
            return {key: offsets[key] if offsets[key] >= 0 else end for key, end in self.ends(keys).items()}
        return offsets

    def _config(self, group: str) -> dict[str, Any]:
        quiet = {"enable.auto.commit": False, "enable.partition.eof": True, "log_level": 0}
        return consumer_config(self._settings, group, prefetch_kib=16_384) | quiet

    def _consumer_of(self, group: str) -> Consumer:
        return Consumer(self._config(group))

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except KafkaException as error:
            raise UnavailableError(explain(error, self._config(self._reader))) from error


def _is_wanted(message: Message, wanted: dict[PartitionKey, deque[int]], consumer: Consumer) -> bool:
    """Whether it lies at one of these positions. Drops the positions that it has passed, and seeks to the next one."""
    error = message.error()
    if error is not None and error.code() != codes.PARTITION_EOF:
        raise KafkaException(error)
    key, offset = PartitionKey(str(message.topic()), int(message.partition() or 0)), int(message.offset() or 0)
    offsets = wanted.get(key)
    if offsets is None:
        return False
    before = len(offsets)
    while offsets and offsets[0] < offset:  # expired
        offsets.popleft()
    is_there = error is None and bool(offsets) and offsets[0] == offset
    if is_there:
        offsets.popleft()
    if error is not None or not offsets:
        del wanted[key]
        consumer.pause([TopicPartition(*key)])
    elif len(offsets) < before and offsets[0] - offset > _FAR:
        consumer.seek(TopicPartition(*key, offsets[0]))
    return is_there


def _belongs(message: Message, left: dict[PartitionKey, OffsetRange]) -> bool:
    """Whether the message lies in its range. Drops a range from `left` when it, or its log, is read to the end."""
    error = message.error()
    if error is not None and error.code() != codes.PARTITION_EOF:
        raise KafkaException(error)
    key, offset = PartitionKey(str(message.topic()), int(message.partition() or 0)), int(message.offset() or 0)
    span = left.get(key)
    if span is None:
        return False
    if error is not None or offset >= span.end - 1:
        del left[key]
    return error is None and span.start <= offset < span.end
