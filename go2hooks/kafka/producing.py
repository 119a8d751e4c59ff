"""What all our producers do: wait for room in librdkafka's queue, send again what was refused in a batch, keep the
first failure.

Brokers refuse a whole batch. Which messages share a batch is chance, so a refused one is sent again, in a batch of its
own, before it counts as refused for what it is: then no broker will take it the next time either, and nobody may wait
for that.
"""

import threading
import time
from collections.abc import Callable
from typing import Any, Final

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from go2hooks.kafka.client import report
from go2hooks.kafka.codes import INVALID_DIFFERENT_RECORD

log = structlog.get_logger(__name__)

Headers = list[tuple[str, str]] | list[tuple[str, bytes]]
OnDelivery = Callable[[KafkaError | None, Message], None]

_ROOM_S: Final = 0.05  # between two looks for room
_ABOUT_THE_MESSAGE: Final = frozenset(
    (
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_TIMESTAMP,
        INVALID_DIFFERENT_RECORD,
    )
)


def is_about_the_message(error: KafkaError) -> bool:
    """Whether it was refused for what it is: too large, or not as the topic's configuration wants it."""
    return error.code() in _ABOUT_THE_MESSAGE


class RefusedError(Exception):
    """librdkafka itself does not take a message."""

    def __init__(self, reason: KafkaError) -> None:
        super().__init__(reason.str())
        self.reason = reason


def never() -> bool:
    return False


def enqueue(
    producer: Producer,
    topic: str,
    key: str | bytes | None,
    value: bytes | None,
    on_delivery: OnDelivery,
    headers: Headers | None = None,
    give_up: Callable[[], bool] = never,
) -> bool:
    """Hand a message to librdkafka. While its queue is full, block, and serve delivery reports.

    False when the queue stayed full until `give_up`, which is asked every 50 ms, said yes. Raises RefusedError.
    """
    while True:
        try:
            producer.produce(topic, value, key, on_delivery=on_delivery, headers=headers)  # type: ignore[arg-type]  # a list
        except BufferError:
            if give_up():
                return False
            producer.poll(_ROOM_S)
        except KafkaException as error:
            raise RefusedError(error.args[0]) from error
        else:
            return True


class InternalProducer:
    """A producer of a service, which never gives up: see `producer_config`. Any thread may `enqueue` to its client; one
    polls.

    An error that a delivery report tells belongs to `send_again`.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self.client = Producer(config | {"error_cb": self._on_error})
        self._alone: Producer | None = None  # of which each message has a batch of its own; connects when there is one
        self._lock = threading.Lock()
        #: The first reason for which Kafka refuses a message for good, though not for what it is. The process is
        #: expected to stop, since nothing that depends on the message may be committed.
        self.failure: str | None = None

    @property
    def in_flight(self) -> int:
        """Messages that are written, and whose delivery reports have not been served."""
        return len(self.client) if self._alone is None else len(self.client) + len(self._alone)

    def send_again(self, error: KafkaError, message: Message, headers: Headers | None, settle: OnDelivery) -> None:
        """A broker has refused the message. Where that may be another's fault, send it again, alone; else keep the
        failure.

        `settle` gets None once Kafka has the message, or why it refuses it for what it is. A report does not tell its
        headers.
        """
        if not is_about_the_message(error):
            self._fail(error, message)
            return

        def settle_or_fail(again: KafkaError | None, sent: Message) -> None:
            if again is None or is_about_the_message(again):
                settle(again, sent)
            else:
                self._fail(again, sent)

        with self._lock:
            alone = self._alone = self._alone or Producer(self._config | {"batch.num.messages": 1, "linger.ms": 0})
        enqueue(alone, str(message.topic()), message.key(), message.value(), settle_or_fail, headers)

    def poll(self, timeout_s: float) -> None:
        """Serve delivery reports. Blocks for `timeout_s` when there is none."""
        self.client.poll(timeout_s)
        if self._alone is not None:
            self._alone.poll(0)

    def flush(self, timeout_s: float) -> int:
        """Wait until every report is served, for `timeout_s` at most. Returns how many messages have none."""
        until = time.monotonic() + timeout_s
        left: int = self.client.flush(timeout_s)
        return left if self._alone is None else left + int(self._alone.flush(max(0.0, until - time.monotonic())))

    def _fail(self, error: KafkaError, message: Message) -> None:
        log.error("kafka refused a message for good", topic=message.topic(), error=error.str())
        self.failure = self.failure or f"{message.topic()}: {error.str()}"

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self.failure = self.failure or error.str()
        report(error, self.client)
