"""Partitions as consumers see them: an assignment, where to read on, which offset may be committed, how much lies
ahead.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple

import structlog
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaException, Message, TopicPartition

from go2hooks.core.domain.delivery import Position
from go2hooks.core.errors import UnavailableError
from go2hooks.core.flow.lag import UnfinishedAge
from go2hooks.core.flow.offsets import OffsetTracker

log = structlog.get_logger(__name__)

_MEASURE_S: Final = 0.5  # for the ends of paused logs; nothing is read meanwhile


class PartitionKey(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int


class Assignment(NamedTuple):
    """A partition that has come to this process."""

    key: PartitionKey
    suspect_until: int  #: messages below this offset may have been handled before: by us or by an earlier owner
    is_anew: bool = False  #: begins at its start: what was committed is about a topic that is no more


class ResumePoint(NamedTuple):
    """Where the group reads on in a partition that was assigned to this process."""

    start: TopicPartition  #: the first message to read, as `incremental_assign` takes it
    end: int  #: where the log ended at that time


class Partition:
    """One assignment of one partition: which of its messages this process holds, and which offset may be committed.

    Not thread-safe. It lives as long as the assignment: after another one, completions of the first reach an object
    that nobody asks any more.
    """

    __slots__ = ("gone", "held", "key", "leaving", "suspect_until", "tracker", "unfinished")

    def __init__(self, assignment: Assignment) -> None:
        self.key = assignment.key
        self.suspect_until = assignment.suspect_until  # messages below this offset may have been handled before
        self.tracker = OffsetTracker()
        self.unfinished = UnfinishedAge()
        self.held = 0  # messages that were read, and that their owner has not let go yet
        self.gone = False  # revoked or lost: what has not started must not; the next owner reads it again
        self.leaving = False  # being revoked: what is finished now is still committed

    def begin(self, offset: int) -> None:
        """Note that a message was read. Raises UnavailableError when it lies before one that was read already."""
        try:
            self.tracker.begin(offset)
        except ValueError:
            raise UnavailableError(
                f"{self.key.topic}/{self.key.partition} begins again before what was read: the topic was deleted and made again, "
                "or lost its end; ending, to ask Kafka where to read on"
            ) from None

    def hold(self, offset: int, due_ms: int) -> None:
        """Note that a message, begun just now, waits in this process. It is late from `due_ms` on."""
        self.unfinished.begin(offset, due_ms)
        self.held += 1

    def unfinished_s(self, now_ms: int) -> float:
        """Seconds since the oldest message that is begun and not finished was due; 0 without one."""
        return self.unfinished.seconds(self.tracker.oldest_incomplete, now_ms)


def take_committable(partitions: Mapping[PartitionKey, Partition]) -> dict[PartitionKey, int]:
    """The offsets that may be committed now, of the partitions where they have changed since the last call."""
    offsets: dict[PartitionKey, int] = {}
    for key, partition in partitions.items():
        offset = partition.tracker.committable()
        if offset is not None:
            partition.tracker.committed(offset)
            offsets[key] = offset
    return offsets


def position_of(message: Message) -> Position:
    """Where a consumed message lies."""
    return Position(message.topic(), message.partition(), message.offset())  # type: ignore[arg-type]  # consumed: has all three


def is_data(message: Message) -> bool:
    """Whether this is a message of the log. A report of librdkafka's is logged; a fatal one is raised as
    KafkaException.
    """
    error = message.error()
    if error is None:
        return True
    if error.fatal():
        raise KafkaException(error)
    log.warning("kafka reports", error=error.str())
    return False


def ask_resume_points(
    consumer: Consumer, keys: Collection[PartitionKey], timeout_s: float
) -> dict[PartitionKey, ResumePoint]:
    """Where the group reads on in each partition; without those that Kafka does not tell of.

    Two questions, each of which may take `timeout_s`.

    One question for all partitions: asked one by one, each would wait behind a fetch that waits for messages, 200 ms a
    partition, while nothing is read.
    """
    asked = [TopicPartition(*key) for key in keys]
    if not asked:  # a rebalance that brings nothing new; librdkafka refuses the question
        return {}
    try:
        starts = consumer.committed(asked, timeout=timeout_s)
        ends = _ask_ends(consumer, keys, timeout_s)
    except KafkaException as error:
        log.warning("kafka does not say where to read on; asking again", partitions=len(asked), error=str(error))
        return {}
    points: dict[PartitionKey, ResumePoint] = {}
    for start in starts:
        key = PartitionKey(start.topic, start.partition)
        if start.error is None and key in ends:
            if start.offset < 0:  # nothing was committed
                start.offset = OFFSET_BEGINNING
            points[key] = ResumePoint(start, ends[key])
    return points


def measure_lags(
    consumer: Consumer, points: Mapping[PartitionKey, ResumePoint], paused: Iterable[PartitionKey] = ()
) -> dict[PartitionKey, int]:
    """Messages between what was read and the end of the log, as far as librdkafka has heard, for all of `points`.

    librdkafka hears nothing of the `paused` ones: Kafka is asked, for half a second at most.
    """
    try:
        ends = _ask_ends(consumer, paused, _MEASURE_S)
    except KafkaException as error:
        log.info("ends of paused logs unavailable; their lag is as it was", error=str(error))
        ends = {}
    lags: dict[PartitionKey, int] = {}
    for partition in consumer.position([TopicPartition(*key) for key in points]) if points else ():
        key = PartitionKey(partition.topic, partition.partition)
        point = points[key]
        heard = consumer.get_watermark_offsets(partition, cached=True)[1]
        # Before its first read a partition has no position; 0 overstates the lag of a log whose first part has expired.
        position = partition.offset if partition.offset >= 0 else max(0, point.start.offset)
        lags[key] = max(0, ends.get(key, max(heard, point.end)) - position)
    return lags


def _ask_ends(consumer: Consumer, keys: Iterable[PartitionKey], timeout_s: float) -> dict[PartitionKey, int]:
    """Raises KafkaException when Kafka does not say in time."""
    asked = [TopicPartition(key.topic, key.partition, OFFSET_END) for key in keys]
    found = consumer.offsets_for_times(asked, timeout=timeout_s) if asked else []
    return {PartitionKey(p.topic, p.partition): int(p.offset) for p in found if p.error is None}
