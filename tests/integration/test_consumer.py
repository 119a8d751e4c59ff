"""The polled consumer on a real broker: what it hands over, what it commits, how it waits and moves."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from waiting import until

from go2hooks.kafka.client import consumer_config
from go2hooks.kafka.consumer import PolledConsumer
from go2hooks.kafka.partitions import Assignment, PartitionKey
from go2hooks.settings import Settings


class Keeper:
    """A sink that keeps all it gets, and finishes when told."""

    def __init__(self) -> None:
        self.consumer: PolledConsumer
        self.assignments: dict[PartitionKey, int] = {}
        self.messages: list[Message] = []
        self.finished: dict[PartitionKey, int] = {}
        self.revocations: list[set[PartitionKey]] = []
        self.slow_s = 0.0

    def on_assigned(self, assignments: Sequence[Assignment]) -> None:
        self.assignments |= {assignment.key: assignment.suspect_until for assignment in assignments}

    def receive(self, messages: list[Message]) -> None:
        for message in messages:
            assert PartitionKey(message.topic(), message.partition()) in self.assignments, "before its assignment"
        self.messages += messages

    async def on_revoked(self, keys: Sequence[PartitionKey]) -> dict[PartitionKey, int]:
        await asyncio.sleep(self.slow_s)
        self.revocations.append(set(keys))
        for key in keys:
            self.assignments.pop(key, None)
        return {key: offset for key, offset in self.finished.items() if key in keys}

    def on_lost(self, keys: Sequence[PartitionKey]) -> None:
        for key in keys:
            self.assignments.pop(key, None)

    def finish(self, messages: Sequence[Message], *, store: bool = True, weight: int | None = None) -> None:
        for message in messages:
            key = PartitionKey(message.topic(), message.partition())
            self.finished[key] = max(self.finished.get(key, 0), message.offset() + 1)
        self.consumer.release(len(messages) if weight is None else weight)
        if store:
            self.consumer.store(self.finished)


Open = Callable[..., Awaitable[Keeper]]


@pytest.fixture
def group() -> str:
    return f"tests.{secrets.token_hex(6)}"


@pytest.fixture
async def open_consumer(kafka_bootstrap: str, group: str) -> AsyncIterator[Open]:
    """Joins the test's group, as often as it is called, and leaves it when the test ends."""
    async with AsyncExitStack() as stack:

        @asynccontextmanager
        async def running(topic: str, window: int) -> AsyncIterator[Keeper]:
            keeper = Keeper()
            config = consumer_config(Settings(kafka_bootstrap_servers=kafka_bootstrap), group)
            keeper.consumer = PolledConsumer(
                config,
                [topic],
                asyncio.get_running_loop(),
                window=window,
                unit_bytes=1024,
                revoke_timeout_s=5.0,
            )
            keeper.consumer.start(keeper)
            yield keeper
            await keeper.consumer.stop()
            assert keeper.consumer.failure is None

        async def join(topic: str, window: int = 100) -> Keeper:
            keeper = await stack.enter_async_context(running(topic, window))
            await until(lambda: keeper.consumer.ready)
            return keeper

        yield join


@pytest.fixture
def produce(kafka_bootstrap: str) -> Callable[..., None]:
    producer = Producer({"bootstrap.servers": kafka_bootstrap})

    def send(topic: str, count: int, partition: int = 0) -> None:
        for n in range(count):
            producer.produce(topic, str(n).encode(), partition=partition)
        assert producer.flush(20) == 0

    return send


@pytest.fixture
def committed(kafka_bootstrap: str, group: str) -> Callable[[str, int], int]:
    def read(topic: str, partition: int) -> int:
        consumer = Consumer({"bootstrap.servers": kafka_bootstrap, "group.id": group})
        (found,) = consumer.committed([TopicPartition(topic, partition)], timeout=10)
        consumer.close()
        return found.offset

    return read


async def test_messages_come_in_order_after_their_assignment(create_topic, open_consumer, produce):
    topic = create_topic()
    produce(topic, 50)
    keeper = await open_consumer(topic)
    produce(topic, 50)
    await until(lambda: len(keeper.messages) == 100)
    assert [message.offset() for message in keeper.messages] == list(range(100))


async def test_what_lay_in_the_log_at_assignment_is_suspect(create_topic, open_consumer, produce):
    topic = create_topic(2)
    produce(topic, 7)
    keeper = await open_consumer(topic)
    await until(lambda: keeper.assignments)
    assert keeper.assignments == {PartitionKey(topic, 0): 7, PartitionKey(topic, 1): 0}


async def test_only_what_is_finished_is_committed(create_topic, open_consumer, produce, committed, group):
    topic = create_topic()
    produce(topic, 10)
    keeper = await open_consumer(topic)
    await until(lambda: len(keeper.messages) == 10)
    assert committed(topic, 0) < 0
    keeper.finish(keeper.messages[:4])
    await until(lambda: committed(topic, 0) == 4)


async def test_a_restart_goes_on_behind_what_was_finished(create_topic, open_consumer, produce):
    topic = create_topic()
    produce(topic, 10)
    keeper = await open_consumer(topic)
    await until(lambda: len(keeper.messages) == 10)
    keeper.finish(keeper.messages[:6], store=False)  # finished on revocation only
    await keeper.consumer.stop()
    again = await open_consumer(topic)
    await until(lambda: len(again.messages) == 4)
    assert [message.offset() for message in again.messages] == [6, 7, 8, 9]
    assert keeper.revocations == [{PartitionKey(topic, 0)}]


async def test_no_more_is_handed_over_than_the_window_holds(create_topic, open_consumer, produce):
    topic = create_topic()
    produce(topic, 100)
    keeper = await open_consumer(topic, window=20)
    await until(lambda: len(keeper.messages) >= 20)
    await asyncio.sleep(1.5)  # long enough for the partitions to be paused
    assert len(keeper.messages) <= 21  # one may have been on its way when the pause came
    while len(keeper.messages) < 100:
        seen = len(keeper.messages)
        keeper.finish(keeper.messages[sum(keeper.finished.values()) : seen])
        await until(lambda seen=seen: len(keeper.messages) > seen)
    assert [message.offset() for message in keeper.messages] == list(range(100))


async def test_a_paused_partition_rests_alone(create_topic, open_consumer, produce):
    topic = create_topic(2)
    keeper = await open_consumer(topic)
    await until(lambda: keeper.assignments)
    keeper.consumer.pause(PartitionKey(topic, 0))
    await asyncio.sleep(0.5)
    produce(topic, 5, partition=0)
    produce(topic, 5, partition=1)
    await until(lambda: len(keeper.messages) == 5)
    await asyncio.sleep(0.5)
    assert {message.partition() for message in keeper.messages} == {1}
    keeper.consumer.resume(PartitionKey(topic, 0))
    await until(lambda: len(keeper.messages) == 10)


async def test_a_full_window_does_not_wake_a_partition_that_the_sink_has_paused(create_topic, open_consumer, produce):
    topic = create_topic(2)
    keeper = await open_consumer(topic, window=10)
    await until(lambda: keeper.assignments)
    keeper.consumer.pause(PartitionKey(topic, 0))
    await asyncio.sleep(0.3)
    produce(topic, 5, partition=0)
    produce(topic, 30, partition=1)
    await until(lambda: len(keeper.messages) >= 10)
    await asyncio.sleep(1.5)  # the window stays full: everything is paused
    while len(keeper.messages) < 30:
        seen = len(keeper.messages)
        keeper.finish(keeper.messages[keeper.finished.get(PartitionKey(topic, 1), 0) :])
        await until(lambda seen=seen: len(keeper.messages) > seen)
    await asyncio.sleep(0.5)
    assert {message.partition() for message in keeper.messages} == {1}


@pytest.mark.parametrize("how", ["resumed", "joined"])
async def test_what_begins_to_be_read_while_the_window_is_full_waits_for_room_too(
    create_topic, open_consumer, produce, how
):
    """A partition that the sink resumes, or that another process has left."""
    topic = create_topic(2)
    keeper = await open_consumer(topic, window=10)
    await until(lambda: len(keeper.assignments) == 2)
    other = await open_consumer(topic) if how == "joined" else keeper
    await until(lambda: len(other.assignments) == (1 if how == "joined" else 2))
    late = PartitionKey(topic, 0) if how == "resumed" else next(iter(other.assignments))
    if how == "resumed":
        keeper.consumer.pause(late)
        await asyncio.sleep(0.3)
    produce(topic, 30, partition=1 - late.partition)
    await until(lambda: keeper.consumer._pauses.stalled)
    if how == "resumed":
        await asyncio.sleep(0.3)  # all are paused by now
        keeper.consumer.resume(late)
    else:
        await other.consumer.stop()
        await until(lambda: late in keeper.assignments)
    produce(topic, 30, partition=late.partition)
    await asyncio.sleep(0.7)
    assert len(keeper.messages) <= 12  # of each partition one may have been on its way
    done = 0
    while done < 60:
        await until(lambda done=done: len(keeper.messages) > done)
        messages, done = keeper.messages[done:], len(keeper.messages)
        keeper.finish(messages)


async def test_partitions_move_without_a_message_lost_or_repeated(create_topic, open_consumer, produce):
    topic = create_topic(4)
    first = await open_consumer(topic)
    await until(lambda: len(first.assignments) == 4)
    for partition in range(4):
        produce(topic, 5, partition)
    await until(lambda: len(first.messages) == 20)
    first.finish(first.messages, store=False)
    second = await open_consumer(topic)
    await until(lambda: len(second.assignments) == 2 == len(first.assignments))
    for partition in range(4):
        produce(topic, 5, partition)
    await until(lambda: len(first.messages) + len(second.messages) == 40)
    places = [(m.partition(), m.offset()) for m in first.messages + second.messages]
    assert len(set(places)) == 40
    first.finish(first.messages[20:])
    second.finish(second.messages)


async def test_what_is_finished_while_a_partition_leaves_is_not_read_again(create_topic, open_consumer, produce, group):
    """librdkafka, letting go of a partition, commits what was stored last: it must not be older than our own commit."""
    topic = create_topic(2)
    first = await open_consumer(topic)
    await until(lambda: len(first.assignments) == 2)
    for partition in range(2):
        produce(topic, 10, partition)
    await until(lambda: len(first.messages) == 20)
    first.finish([message for message in first.messages if message.offset() < 3])
    await asyncio.sleep(1.0)  # stored, and committed
    first.finish([message for message in first.messages if message.offset() >= 3], store=False)
    second = await open_consumer(topic)
    await until(lambda: len(second.assignments) == 1 == len(first.assignments))
    for partition in range(2):
        produce(topic, 1, partition)
    await until(lambda: second.messages)
    assert [message.offset() for message in second.messages] == [10]
    second.finish(second.messages)


async def test_a_partition_that_was_paused_when_it_left_is_read_when_it_comes_back(
    create_topic, open_consumer, produce
):
    topic = create_topic(2)
    first = await open_consumer(topic)
    await until(lambda: len(first.assignments) == 2)
    for partition in range(2):
        first.consumer.pause(PartitionKey(topic, partition))
    second = await open_consumer(topic)
    await until(lambda: len(second.assignments) == 1 == len(first.assignments))
    (moved,) = second.assignments
    await second.consumer.stop()
    await until(lambda: moved in first.assignments)
    produce(topic, 5, moved.partition)
    await until(lambda: len(first.messages) == 5)


async def test_a_restart_with_many_partitions_takes_less_than_their_fetches(create_topic, open_consumer, produce):
    """Asking each partition for the end of its log, one after the other, cost 200 ms apiece."""
    topic = create_topic(32)
    for partition in range(32):
        produce(topic, 1, partition)
    first = await open_consumer(topic)
    await until(lambda: len(first.messages) == 32)
    first.finish(first.messages)
    await first.consumer.stop()
    began = time.monotonic()
    second = await open_consumer(topic)
    await until(lambda: len(second.assignments) == 32)
    assert time.monotonic() - began < 32 * 0.2


async def test_large_messages_fill_the_window_by_their_bytes_and_all_come_in_the_end(
    create_topic, open_consumer, kafka_bootstrap
):
    """A window of 100 messages and 100 KiB."""
    topic = create_topic()
    producer = Producer({"bootstrap.servers": kafka_bootstrap, "linger.ms": 0})
    for n in range(60):
        producer.produce(topic, bytes(20_000 + n))
    assert producer.flush(20) == 0
    keeper = await open_consumer(topic)
    await until(lambda: keeper.messages)
    await asyncio.sleep(2.5)  # long enough for the partitions to be paused
    done = 0
    while done < 60:
        await until(lambda done=done: len(keeper.messages) > done)
        held = keeper.messages[done:]
        assert sum(map(len, held)) <= 102_400 + 2 * 20_060  # one more than fits, and one that was on its way
        keeper.finish(held, weight=sum(keeper.consumer.weigh(len(message)) for message in held))
        done += len(held)
    assert [message.offset() for message in keeper.messages] == list(range(60))
