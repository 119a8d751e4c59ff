"""Produces deliveries of the API. There are few; each request waits until Kafka has its delivery."""

import threading
from collections.abc import Callable
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from go2hooks.codec import encode_delivery
from go2hooks.core.domain.delivery import Delivery
from go2hooks.core.errors import UnavailableError
from go2hooks.kafka.client import producer_config, report
from go2hooks.kafka.deployment import own
from go2hooks.kafka.diagnosis import Diagnosis
from go2hooks.kafka.topics import TopicNames
from go2hooks.settings import Settings

_GIVE_UP_MS: Final = 5000


class KafkaDeliveryWriter:
    """Writes to `go2.deliveries`, keyed by webhook. Safe to share between threads."""

    def __init__(self, settings: Settings, deployment: Callable[[], str]) -> None:
        """`deployment` returns the deployment's id, and may raise psycopg.Error."""
        self._settings = settings
        self._deployment = deployment
        self._is_ours = False
        config = producer_config(settings) | {"message.timeout.ms": _GIVE_UP_MS}
        self._producer = Producer(config | {"error_cb": self._on_error})
        self._topic = TopicNames(settings.kafka_prefix).deliveries
        self._diagnosis = Diagnosis(config)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="delivery-reports", daemon=True)
        self._thread.start()

    def write(self, delivery: Delivery) -> None:
        """Return once every in-sync replica has it. Raises UnavailableError when none does within 5 s, or these topics
        are another deployment's.
        """
        self._check_owner()
        delivery = delivery._replace(deployment=self._deployment())
        reported = threading.Event()
        errors: list[KafkaError] = []

        def acknowledge(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                errors.append(error)
            reported.set()

        try:
            self._producer.produce(self._topic, encode_delivery(delivery), delivery.webhook_id, on_delivery=acknowledge)
        except (BufferError, KafkaException) as error:
            raise UnavailableError(f"Kafka takes nothing: {error}") from error
        if not reported.wait(_GIVE_UP_MS / 1000 + 1.0):  # librdkafka reports a moment after it gave up
            raise UnavailableError("Kafka did not acknowledge in time")
        if errors:
            raise UnavailableError(f"Kafka did not acknowledge: {errors[0].str()}")

    def is_reachable(self) -> bool:
        """Whether a broker answers within a second and a half."""
        try:
            return bool(self._producer.list_topics(timeout=1.5).brokers)
        except KafkaException:
            self._diagnosis.look()
            return False

    def _check_owner(self) -> None:
        if not self._is_ours:
            own(self._settings, self._deployment())
            self._is_ours = True

    def close(self, timeout_s: float) -> None:
        self._producer.flush(timeout_s)
        self._stop.set()
        self._thread.join()

    def _on_error(self, error: KafkaError) -> None:
        report(error, self._producer)

    def _serve(self) -> None:
        while not self._stop.is_set():
            self._producer.poll(0.1)
