"""What Kafka refuses while a log is read, as its reader tells it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaError, Message

from go2hooks.core.domain.delivery import Position
from go2hooks.core.errors import UnavailableError
from go2hooks.kafka.partitions import PartitionKey
from go2hooks.kafka.reading import LogReader, OffsetRange
from go2hooks.settings import Settings


class Report:
    """Of librdkafka's, instead of a message."""

    def error(self) -> KafkaError:
        return KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)


class RefusedConsumer:
    def __init__(self) -> None:
        self.is_closed = False

    def assign(self, _starts: Any) -> None:
        pass

    def poll(self, _timeout_s: float) -> Report:
        return Report()

    def consume(self, _most: int, _timeout_s: float) -> list[Any]:
        return []

    def close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize(
    "read",
    [
        lambda reader: reader.read([OffsetRange(PartitionKey("t", 0), 0, 10)]),
        lambda reader: reader.read_at([Position("t", 0, 3)]),
    ],
    ids=["ranges", "positions"],
)
def test_what_kafka_refuses_while_a_log_is_read_makes_it_unavailable(
    monkeypatch: pytest.MonkeyPatch, read: Callable[[LogReader], Iterator[Message]]
) -> None:
    consumer = RefusedConsumer()
    with LogReader(Settings(kafka_bootstrap_servers="127.0.0.1:1")) as reader:
        monkeypatch.setattr(reader, "_consumer_of", lambda _group: consumer)
        with pytest.raises(UnavailableError, match="refuses"):
            next(read(reader))
    assert consumer.is_closed
