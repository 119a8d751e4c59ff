"""One message at a time, each waited for: for operators' commands, which want to know where it lies."""

import time
from typing import Final

from confluent_kafka import KafkaError, Message, Producer

from go2hooks.core.domain.delivery import Position
from go2hooks.core.errors import UnavailableError
from go2hooks.kafka.client import producer_config
from go2hooks.kafka.partitions import position_of
from go2hooks.kafka.producing import Headers, RefusedError, enqueue
from go2hooks.settings import Settings

GIVE_UP_S: Final = 30.0  # an operator waits for it
_REPORT_S: Final = 1.0  # for the report that a message was given up


class WaitingProducer:
    """A producer that gives up after 30 s, or as it is told."""

    def __init__(self, settings: Settings, give_up_s: float = GIVE_UP_S) -> None:
        self._give_up_s = give_up_s
        patience = {"message.timeout.ms": round(give_up_s * 1000), "log_level": 0}
        self._producer = Producer(producer_config(settings) | patience)

    def send(self, topic: str, key: bytes | None, value: bytes, headers: Headers | None = None) -> Position:
        """Return its position once every in-sync replica has it. Raises UnavailableError when Kafka refuses it."""
        reports: list[tuple[KafkaError | None, Message]] = []
        until = time.monotonic() + self._give_up_s
        try:
            enqueue(
                self._producer, topic, key, value, lambda *report: reports.append(report), headers,
                give_up=lambda: time.monotonic() >= until,
            )  # fmt: skip
        except RefusedError as error:
            raise UnavailableError(f"Kafka takes nothing: {error}") from error
        self._producer.flush(self._give_up_s + _REPORT_S)
        if not reports:
            raise UnavailableError("Kafka did not take it: no answer")
        refused, message = reports[0]
        if refused is not None:
            raise UnavailableError(f"Kafka did not take it: {refused}")
        return position_of(message)
