"""One message at a time, each waited for: for operators' commands, which want to know where it lies."""

import time
from typing import Final

from confluent_kafka import KafkaException, Message, Producer

from go2hooks.core.domain.delivery import Position
from go2hooks.core.errors import UnavailableError
from go2hooks.kafka.client import producer_config
from go2hooks.kafka.partitions import position_of
from go2hooks.kafka.producer import Headers
from go2hooks.settings import Settings

GIVE_UP_S: Final = 30.0


class Sender:
    """A producer that gives up after 30 s, or as it is told."""

    def __init__(self, settings: Settings, give_up_s: float = GIVE_UP_S) -> None:
        self._give_up_s = give_up_s
        patience = {"message.timeout.ms": round(give_up_s * 1000), "log_level": 0}
        self._producer = Producer(producer_config(settings) | patience)

    def send(self, topic: str, key: bytes | None, value: bytes, headers: Headers = ()) -> Position:
        """Return where it lies once every in-sync replica has it. Raises UnavailableError when Kafka does not take it."""
        kept: list[Position] = []
        failed: list[str] = []

        def report(error: object, message: Message) -> None:
            if error is None:
                kept.append(position_of(message))
            else:
                failed.append(str(error))

        try:
            self._producer.produce(topic, value, key, on_delivery=report, headers=list(headers))
        except (BufferError, KafkaException) as error:
            raise UnavailableError(f"Kafka takes nothing: {error}") from error
        deadline = time.monotonic() + self._give_up_s + 1.0
        while not kept and not failed and time.monotonic() < deadline:
            self._producer.poll(0.1)
        if not kept:
            raise UnavailableError(f"Kafka did not take it: {failed[0] if failed else 'no answer'}")
        return kept[0]
