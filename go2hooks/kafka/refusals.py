"""What brokers refuse of a message for its own sake: it will not be taken the next time either, and nobody may wait for that.

Brokers refuse by the batch. What others a message came together with is chance, so it is sent again, alone, before it
counts as refused.
"""

import threading
from collections.abc import Callable
from typing import Any, Final

from confluent_kafka import KafkaError, Message, Producer

from go2hooks.kafka.codes import INVALID_DIFFERENT_RECORD

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


class AloneProducer:
    """Sends each message in a batch of its own. Connects when there is one. Any thread."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config | {"batch.num.messages": 1, "linger.ms": 0}
        self._lock = threading.Lock()
        self._producer: Producer | None = None

    def send_again(
        self, message: Message, headers: Any, on_delivery: Callable[[KafkaError | None, Message], None]
    ) -> None:
        """A message that was refused in a batch; a report does not tell its headers. Blocks only while librdkafka's queue is full."""
        with self._lock:
            producer = self._producer = self._producer or Producer(self._config)
        topic = str(message.topic())
        while True:
            try:
                producer.produce(topic, message.value(), message.key(), on_delivery=on_delivery, headers=headers)
            except BufferError:
                producer.poll(0.05)
            else:
                return

    def poll(self) -> None:
        """Serve what was reported."""
        if self._producer is not None:
            self._producer.poll(0)

    def flush(self, timeout_s: float) -> int:
        """Wait until all is reported. Returns how many messages are not."""
        return 0 if self._producer is None else int(self._producer.flush(timeout_s))
