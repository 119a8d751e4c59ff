"""The lag of a consumer that cannot read on: librdkafka hears nothing of a paused partition, so the figure used to freeze."""

import asyncio
import secrets
from collections.abc import Callable, Sequence

import pytest
from confluent_kafka import Message, Producer

from go2hooks.kafka.consumer import PolledConsumer
from go2hooks.kafka.partitions import Assignment, PartitionKey


class Hoard:
    """Takes messages and lets none go."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.keys: list[PartitionKey] = []

    def on_assigned(self, assignments: Sequence[Assignment]) -> None:
        self.keys += [assignment.key for assignment in assignments]

    def receive(self, messages: list[Message]) -> None:
        self.messages += messages

    async def on_revoked(self, keys: Sequence[PartitionKey]) -> dict[PartitionKey, int]:
        return {}

    def on_lost(self, keys: Sequence[PartitionKey]) -> None:
        """Nothing to give up."""


async def until(condition: Callable[[], bool], within_s: float = 60.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110  # conditions of all kinds, with a deadline
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("cause", ["full", "paused"])
async def test_the_lag_of_a_consumer_that_stands_still_grows_with_the_log(
    kafka_bootstrap: str, create_topic: Callable[..., str], cause: str
):
    topic = create_topic(partitions=2)
    producer = Producer({"bootstrap.servers": kafka_bootstrap})

    def write(count: int) -> None:
        for number in range(count):
            producer.produce(topic, b"x", partition=number % 2)
        assert producer.flush(10) == 0

    config = {
        "bootstrap.servers": kafka_bootstrap,
        "group.id": f"test-{secrets.token_hex(6)}",
        "auto.offset.reset": "earliest",
        "partition.assignment.strategy": "cooperative-sticky",
        "enable.auto.offset.store": False,
    }
    sink = Hoard()
    window = 10 if cause == "full" else 1000
    loop = asyncio.get_running_loop()
    consumer = PolledConsumer(config, [topic], loop, window=window, unit_bytes=1024, revoke_timeout_s=5.0)
    write(20)
    consumer.start(sink)
    try:
        await until(lambda: len(sink.messages) >= min(window, 20))
        if cause == "paused":
            for key in sink.keys:
                consumer.pause(key)
        await asyncio.sleep(1.5)  # as long as it takes to be sure that nothing is fetched any more
        write(500)
        await until(lambda: sum(consumer.lags.values()) == 520 - len(sink.messages))
        assert sum(consumer.lags.values()) > 400
    finally:
        await consumer.stop()
