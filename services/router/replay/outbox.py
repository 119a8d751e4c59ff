"""Writes deliveries to Kafka in batches; a batch is acknowledged before the next one is written."""

from collections.abc import Callable, Sequence
from typing import Final

from confluent_kafka import KafkaError, Message

from go2hooks.codec import encode_delivery
from go2hooks.core.domain.delivery import Delivery
from go2hooks.core.errors import UnavailableError
from go2hooks.kafka.client import producer_config
from go2hooks.kafka.producing import InternalProducer, enqueue
from go2hooks.kafka.topics import TopicNames
from go2hooks.settings import Settings

_POLL_S: Final = 0.1  # a request to stop is seen after that


class Outbox:
    """Writes to `go2.deliveries`, where the router writes too, so that copies of a delivery meet in one process."""

    def __init__(self, settings: Settings, stopping: Callable[[], bool]) -> None:
        self._topic = TopicNames(settings.kafka_prefix).deliveries
        self._stopping = stopping
        self._kafka = InternalProducer(producer_config(settings, linger_ms=5))
        self._refused: KafkaError | None = None

    def write(self, deliveries: Sequence[Delivery]) -> bool:
        """Return True once all in-sync replicas have all deliveries; False if the process has to stop before.

        Waits while Kafka is away. Raises UnavailableError when Kafka refuses a delivery for good.
        """
        kafka, stopping = self._kafka, self._stopping
        for delivery in deliveries:
            value = encode_delivery(delivery)
            if not enqueue(kafka.client, self._topic, delivery.webhook_id, value, self._acknowledge, give_up=stopping):
                return False
        while kafka.in_flight and self._refused is None and kafka.failure is None:
            kafka.poll(_POLL_S)
            if kafka.in_flight and stopping():
                return False
        if self._refused is not None or kafka.failure is not None:
            raise UnavailableError(f"Kafka refused a delivery for good: {self._refused or kafka.failure}")
        return True

    def _acknowledge(self, error: KafkaError | None, _message: Message) -> None:
        self._refused = self._refused or error
