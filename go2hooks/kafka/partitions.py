"""Partitions as consumers see them: what one is called, from where to where there is something to read, how much lies ahead."""

from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple

import structlog
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaException, Message, TopicPartition

from go2hooks.core.domain.delivery import Position
from go2hooks.core.errors import UnavailableError

log = structlog.get_logger(__name__)

_MEASURE_S: Final = 0.5


class PartitionKey(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int


class Assignment(NamedTuple):
    """A partition that has come to this process."""

    key: PartitionKey
    suspect_until: int  #: messages below this offset may have been handled before: by us or by an earlier owner
    is_anew: bool = False  #: begins at its start: what was committed is about a topic that is no more


class Span(NamedTuple):
    """What lay in a log when it came to us."""

    start: TopicPartition  #: the first message to read, as `incremental_assign` takes it
    end: int


def position_of(message: Message) -> Position:
    """Where a consumed message lies."""
    return Position(message.topic(), message.partition(), message.offset())  # type: ignore[arg-type]  # consumed: has all three


def went_back(key: PartitionKey) -> UnavailableError:
    """For who got a message from before those that it had read: what it knows of this log is no longer so."""
    return UnavailableError(
        f"{key.topic}/{key.partition} begins again before what was read: the topic was deleted and made again, or lost its end; "
        "ending, to ask Kafka where to read on"
    )


def is_data(message: Message) -> bool:
    """Whether it is a message, and no report of librdkafka's, which is logged. Raises KafkaException for one that is fatal."""
    error = message.error()
    if error is None:
        return True
    if error.fatal():
        raise KafkaException(error)
    log.warning("kafka reports", error=error.str())
    return False


def ask_spans(consumer: Consumer, keys: Collection[PartitionKey], timeout_s: float) -> dict[PartitionKey, Span]:
    """Where the group goes on in each log, and where the log ends; without those that Kafka says nothing of.

    Two questions, each of which may take `timeout_s`.

    One question for all of them: asked one by one, each would wait behind a fetch that waits for messages, 200 ms a
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
    spans: dict[PartitionKey, Span] = {}
    for start in starts:
        key = PartitionKey(start.topic, start.partition)
        if start.error is None and key in ends:
            if start.offset < 0:  # nothing was committed
                start.offset = OFFSET_BEGINNING
            spans[key] = Span(start, ends[key])
    return spans


def backlog(
    consumer: Consumer, spans: Mapping[PartitionKey, Span], quiet: Iterable[PartitionKey] = ()
) -> dict[PartitionKey, int]:
    """Messages between what was read and the end of the log, as far as librdkafka has heard, for all of `spans`.

    Of `quiet` ones, which are paused, it hears nothing: Kafka is asked, for half a second at most.
    """
    try:
        ends = _ask_ends(consumer, quiet, _MEASURE_S)
    except KafkaException as error:
        log.info("ends of paused logs unavailable; their lag is as it was", error=str(error))
        ends = {}
    lags: dict[PartitionKey, int] = {}
    for partition in consumer.position([TopicPartition(*key) for key in spans]) if spans else ():
        key = PartitionKey(partition.topic, partition.partition)
        span = spans[key]
        heard = consumer.get_watermark_offsets(partition, cached=True)[1]
        # It has no position until a first read; 0 overstates the lag of a log whose first part has expired.
        position = partition.offset if partition.offset >= 0 else max(0, span.start.offset)
        lags[key] = max(0, ends.get(key, max(heard, span.end)) - position)
    return lags


def _ask_ends(consumer: Consumer, keys: Iterable[PartitionKey], timeout_s: float) -> dict[PartitionKey, int]:
    """Raises KafkaException when Kafka does not say in time."""
    asked = [TopicPartition(key.topic, key.partition, OFFSET_END) for key in keys]
    found = consumer.offsets_for_times(asked, timeout=timeout_s) if asked else []
    return {PartitionKey(p.topic, p.partition): int(p.offset) for p in found if p.error is None}
