"""What the router writes, until Kafka has it: an event's offset may be stored when all that came of it is kept."""

from collections.abc import Callable
from functools import partial
from typing import Final

import structlog
from confluent_kafka import KafkaError, Message

from go2hooks.core.errors import EventError, UnkeepableEventError
from go2hooks.kafka.partitions import position_of
from go2hooks.kafka.producing import Headers, InternalProducer, enqueue
from go2hooks.kafka.topics import MAX_INTERNAL_MESSAGE_BYTES, TopicNames
from go2hooks.telemetry import metrics
from services.router.batch import Batch

log = structlog.get_logger(__name__)

# Of a larger event only its place is kept: compressed, an event may be larger than Kafka takes from us. 4 KiB are for
# headers.
_KEPT_BYTES: Final = MAX_INTERNAL_MESSAGE_BYTES - 4096


class Writer:
    """Writes with the router's producer. Not thread-safe."""

    def __init__(self, kafka: InternalProducer, topics: TopicNames, stopping: Callable[[], bool]) -> None:
        """`stopping` is asked while librdkafka has no room: one event's fan-out may be more than it holds."""
        self._kafka = kafka
        self._topics = topics
        self._stopping = stopping

    def write(
        self,
        batch: Batch,
        event: Message,
        topic: str,
        key: str | bytes | None,
        value: bytes | None,
        headers: Headers | None = None,
    ) -> None:
        """Have Kafka keep what came of an event of this batch. While the process stops, it may find no room: then the
        batch stays unfinished, so its events are routed again.
        """

        def acknowledge(error: KafkaError | None, sent: Message) -> None:
            if error is None:
                batch.unacknowledged -= 1
            else:
                self._kafka.send_again(error, sent, headers, partial(self._settle, batch, event))

        batch.unacknowledged += 1
        enqueue(self._kafka.client, topic, key, value, acknowledge, headers, self._stopping)

    def bury(self, batch: Batch, event: Message, error: EventError) -> None:
        """Keep a bad event as it came, with where it came from and why it is bad; of a very large one only these."""
        metrics.EVENTS_DEAD.add(1, error.reason)
        key, value = event.key(), event.value()
        size = len(key or b"") + len(value or b"")
        if size > _KEPT_BYTES:
            self._bury_place(batch, event, error)
        else:
            self.write(batch, event, self._topics.events_dead, key, value, _origin(event, error))

    def _bury_place(self, batch: Batch, event: Message, error: EventError) -> None:
        size = len(event.key() or b"") + len(event.value() or b"")
        headers = [*_origin(event, error), ("go2hooks-left-out", str(size))]
        self.write(batch, event, self._topics.events_dead, None, None, headers)

    def _settle(self, batch: Batch, event: Message, error: KafkaError | None, sent: Message) -> None:
        """Kafka has the message now, or refuses it for what it is: then what it holds goes where it is kept."""
        if error is not None:
            self._redirect(batch, event, error, sent)
        batch.unacknowledged -= 1

    def _redirect(self, batch: Batch, event: Message, error: KafkaError, sent: Message) -> None:
        topic, origin = str(sent.topic()), position_of(event)
        metrics.REFUSED.add(1, topic)
        log.error("kafka refuses a message", topic=topic, bytes=len(sent), origin=tuple(origin), error=error.str())
        unkeepable = UnkeepableEventError(f"{topic} does not take what came of it: {error.str()}")
        if topic == self._topics.overflow:
            self.write(batch, event, self._topics.deliveries, sent.key(), sent.value())
        elif topic != self._topics.events_dead:
            if origin not in batch.buried:  # once, whatever the number of its deliveries
                batch.buried.add(origin)
                self.bury(batch, event, unkeepable)
        elif sent.value() is not None:
            self._bury_place(batch, event, unkeepable)


def _origin(event: Message, error: EventError) -> list[tuple[str, str]]:
    topic, partition, offset = position_of(event)
    return [
        ("go2hooks-reason", error.reason),
        ("go2hooks-detail", str(error)[:500]),
        ("go2hooks-topic", topic),
        ("go2hooks-partition", str(partition)),
        ("go2hooks-offset", str(offset)),
    ]
