"""Reads single deliveries back from Kafka: the log is the payload store, and a record names the position.

Consumers are kept open, since to make one takes longer than to read. They join no group and commit nothing.
"""

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from go2hooks.codec import decode_delivery
from go2hooks.core.domain.delivery import Delivery, Position
from go2hooks.core.errors import UnavailableError, UndecodableEventError
from go2hooks.kafka import codes
from go2hooks.kafka.client import GroupNames, consumer_config, reporting_consumer
from go2hooks.kafka.diagnosis import Diagnosis
from go2hooks.kafka.event_spans import count_events, topics_of
from go2hooks.kafka.partitions import position_of
from go2hooks.kafka.reading import LogReader
from go2hooks.kafka.topics import TopicNames
from go2hooks.settings import Settings

_TIMEOUT_S: Final = 5.0
_POLL_S: Final = 0.25
_SILENT_S: Final = 1.0  # after that, look whether the topic still exists: librdkafka does not say so
_MOST_TRIED: Final = 8  # positions; once the newest messages of a delivery have expired, the older ones have too
#: What Kafka answers for an offset without a message: it is the end of the log, or lies outside of it.
_NOTHING_THERE: Final = frozenset((codes.PARTITION_EOF, codes.AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE))
_REFUSED: Final = frozenset((KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED))


class KafkaPayloadReader:
    """Safe to share between threads. Has `consumers` consumers at most; each reads for one thread at a time."""

    def __init__(self, settings: Settings, consumers: int = 4) -> None:
        """Connects to nothing yet: a consumer is made when all others are in use."""
        quiet = {
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",  # an expired message is reported, instead of the next one that exists
            "log_level": 0,
        }
        self._settings = settings
        group = GroupNames(settings.kafka_prefix).reader
        self._config: dict[str, Any] = consumer_config(settings, group, prefetch_kib=4096) | quiet
        self._diagnosis = Diagnosis(self._config)
        self._places = threading.Semaphore(consumers)
        self._idle: list[Consumer] = []  # append and pop are atomic

    def read(self, delivery_id: str, positions: Iterable[Position]) -> Delivery | None:
        """The delivery from the first of these positions where it still lies; None when all its messages have expired.

        The messages of a delivery differ in attempt number and due time, not in payload. Blocks for five seconds at
        most. Raises UnavailableError when Kafka does not answer in time, or refuses.
        """
        deadline = time.monotonic() + _TIMEOUT_S
        with self._consumer() as consumer:
            for position in islice(positions, _MOST_TRIED):
                message = self._read_at(consumer, position, deadline)
                delivery = None if message is None else _decode(message)
                if delivery is not None and delivery.id == delivery_id:
                    return delivery
        return None

    def count_events(self, account_id: str, events: Iterable[str], begin: datetime, end: datetime) -> int:
        """How many messages lie in the partitions of the account's events of these types, other accounts' included.

        Blocks for some seconds at most. Raises UnavailableError.
        """
        topics = topics_of(TopicNames(self._settings.kafka_prefix), events)
        with LogReader(self._settings) as reader:
            return count_events(reader, topics, account_id, *(round(each.timestamp() * 1000) for each in (begin, end)))

    def close(self) -> None:
        """Call it once no thread reads any more."""
        while self._idle:
            self._idle.pop().close()

    @contextmanager
    def _consumer(self) -> Iterator[Consumer]:
        """One of the kept consumers. After an error it is closed, and the next read makes another one."""
        if not self._places.acquire(timeout=_TIMEOUT_S):
            raise UnavailableError("too many others wait for Kafka at the moment")
        try:
            consumer = self._idle.pop() if self._idle else reporting_consumer(self._config)
            try:
                yield consumer
                consumer.unassign()  # or it would go on reading what comes after
            except KafkaException as error:
                consumer.close()
                self._diagnosis.look()
                raise UnavailableError(f"Kafka does not give the message: {error.args[0].str()}") from error
            except BaseException:
                consumer.close()
                raise
            self._idle.append(consumer)
        finally:
            self._places.release()

    def _read_at(self, consumer: Consumer, position: Position, deadline: float) -> Message | None:
        """The message at this position; None when it has expired, or never existed. Raises UnavailableError,
        KafkaException.
        """
        consumer.assign([TopicPartition(*position)])
        silent_since: float | None = time.monotonic()
        while (left_s := deadline - time.monotonic()) > 0:
            message = consumer.poll(min(left_s, _POLL_S))
            if message is not None and (message.topic(), message.partition()) == position[:2]:
                error = message.error()
                if error is None:
                    return message if position_of(message) == position else None
                if error.code() in _NOTHING_THERE:
                    return None
                if error.code() in _REFUSED or error.fatal():
                    raise KafkaException(error)
            if silent_since is not None and time.monotonic() - silent_since > _SILENT_S:
                silent_since = None
                there = consumer.list_topics(timeout=left_s).topics
                if position.topic not in there or position.partition not in there[position.topic].partitions:
                    return None
        raise KafkaException(KafkaError(codes.TIMED_OUT))


def _decode(message: Message) -> Delivery | None:
    value = message.value()
    try:
        return decode_delivery(value if isinstance(value, bytes) else b"")
    except UndecodableEventError:
        return None
