"""What the router writes, until Kafka has it: an event's offset may be stored when all that came of it is kept."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import structlog
from confluent_kafka import KafkaError, Message, Producer

from go2hooks.core.errors import EventError, UnkeepableEventError
from go2hooks.kafka.client import report
from go2hooks.kafka.partitions import position_of
from go2hooks.kafka.refusals import AloneProducer, is_about_the_message
from go2hooks.kafka.topics import MAX_INTERNAL_MESSAGE_BYTES, TopicNames
from go2hooks.telemetry import metrics
from services.router.batch import Batch

log = structlog.get_logger(__name__)

Headers = list[tuple[str, str | bytes | None]]

# A compressed event may be larger than Kafka takes of us. What is larger is not kept a second time.
_KEPT_BYTES: Final = MAX_INTERNAL_MESSAGE_BYTES - 4096
_POLL_S: Final = 0.05


class Writer:
    """The router's producer. Not thread-safe."""

    def __init__(self, config: dict[str, Any], topics: TopicNames, stopping: Callable[[], bool]) -> None:
        """`stopping` is asked while librdkafka takes no more: one event's fan-out may be more than it holds."""
        self._producer = Producer(config | {"error_cb": self._on_error})
        self._alone = AloneProducer(config)
        self._topics = topics
        self._stopping = stopping
        self.in_flight = 0  #: written and not yet acknowledged
        self.failure: str | None = None  #: what Kafka refuses for good, though not for what it is

    def poll(self, timeout_s: float) -> None:
        """Serve what was reported."""
        self._producer.poll(timeout_s)
        self._alone.poll()

    def flush(self, timeout_s: float) -> int:
        """Wait until all is acknowledged. Returns how many messages are not."""
        until = time.monotonic() + timeout_s
        left: int = self._producer.flush(timeout_s)
        return left + self._alone.flush(max(0.0, until - time.monotonic()))

    def write(
        self,
        batch: Batch,
        event: Message,
        topic: str,
        key: str | bytes | None,
        value: bytes | None,
        headers: Headers | None = None,
    ) -> None:
        """Have Kafka keep what came of an event of this batch."""

        def acknowledge(error: KafkaError | None, sent: Message) -> None:
            if error is None:
                self.in_flight -= 1
                batch.unacknowledged -= 1
            elif is_about_the_message(error):
                self._alone.send_again(sent, headers, partial(self._settle, batch, event))
            else:
                self.failure = error.str()

        batch.unacknowledged += 1
        self.in_flight += 1
        while True:
            try:
                self._producer.produce(topic, value, key, on_delivery=acknowledge, headers=headers)
            except BufferError:
                if self._stopping():
                    return  # the batch stays unfinished, so its events are routed again
                self._producer.poll(_POLL_S)
            else:
                return

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
        """Kafka has it now, or refuses it for what it is: then it goes where it is kept."""
        if error is not None and not is_about_the_message(error):
            self.failure = error.str()
            return
        if error is not None:
            self._redirect(batch, event, error, sent)
        self.in_flight -= 1
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

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self.failure = error.str()
        report(error, self._producer)


def _origin(event: Message, error: EventError) -> Headers:
    topic, partition, offset = position_of(event)
    return [
        ("go2hooks-reason", error.reason),
        ("go2hooks-detail", str(error)[:500]),
        ("go2hooks-topic", topic),
        ("go2hooks-partition", str(partition)),
        ("go2hooks-offset", str(offset)),
    ]
