"""Batches of deliveries to Kafka, each of which is there when the next is written."""

from collections.abc import Callable, Sequence
from typing import Final

from confluent_kafka import KafkaError, Message, Producer

from go2hooks.codec import encode_delivery
from go2hooks.core.domain.delivery import Delivery
from go2hooks.core.errors import UnavailableError
from go2hooks.kafka.client import producer_config, report
from go2hooks.kafka.topics import TopicNames
from go2hooks.settings import Settings

_POLL_S: Final = 0.1


class Outbox:
    """Writes to `go2.deliveries`, a few at a time: where the router writes, too, so that copies of a delivery meet in one process."""

    def __init__(self, settings: Settings, stopping: Callable[[], bool]) -> None:
        self._topic = TopicNames(settings.kafka_prefix).deliveries
        self._stopping = stopping
        self._failure: str | None = None
        self._unacknowledged = 0
        self._producer = Producer(producer_config(settings, linger_ms=5) | {"error_cb": self._on_error})

    def write(self, deliveries: Sequence[Delivery]) -> bool:
        """Return once every in-sync replica has them all; False when the process is to stop before that.

        Waits for a Kafka that is away. Raises UnavailableError when it refuses one for good.
        """
        for delivery in deliveries:
            while not self._produce(delivery):
                self._producer.poll(_POLL_S)
                if self._stopping():
                    return False
        while self._unacknowledged and self._failure is None:
            self._producer.poll(_POLL_S)
            if self._unacknowledged and self._stopping():
                return False
        if self._failure is not None:
            raise UnavailableError(f"Kafka refused a delivery for good: {self._failure}")
        return True

    def _produce(self, delivery: Delivery) -> bool:
        """False while librdkafka has no room."""
        try:
            self._producer.produce(
                self._topic, encode_delivery(delivery), delivery.webhook_id, on_delivery=self._acknowledge
            )
        except BufferError:
            return False
        self._unacknowledged += 1
        return True

    def _acknowledge(self, error: KafkaError | None, _message: Message) -> None:
        self._unacknowledged -= 1
        if error is not None:
            self._failure = error.str()

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._failure = error.str()
        report(error, self._producer)
