"""A consumer's place in its group, on a broker that fails it: it reads again, says that it does not read, or ends."""

import asyncio
import json
import math
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Message, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from coordinator import JOIN_GROUP, CoordinatedBroker
from usable_topics import make_topics
from waiting import step_until

from go2hooks.codec import EventCodec
from go2hooks.core.domain.matching import SubscriptionIndex
from go2hooks.core.errors import UnavailableError
from go2hooks.kafka import standstill
from go2hooks.kafka.client import consumer_config, producer_config
from go2hooks.kafka.consumer import PolledConsumer
from go2hooks.kafka.membership import Membership
from go2hooks.kafka.partitions import Assignment, PartitionKey
from go2hooks.kafka.standstill import StandstillLimits
from go2hooks.kafka.topics import TopicNames
from go2hooks.settings import Settings
from go2hooks.telemetry import metrics
from services.router.router import Router
from services.router.scheduling import RouterBounds

NAMES = TopicNames("go2")

ALWAYS = 1_000_000


class Reader:
    """Owns the partitions, and remembers what happened."""

    def __init__(self, broker: CoordinatedBroker, topic: str, group: str) -> None:
        settings = Settings(kafka_bootstrap_servers=f"127.0.0.1:{broker.proxy.port}")
        self.membership = Membership(consumer_config(settings, group), [topic], self, finish_s=0.0)
        self.began_at: list[Assignment] = []
        self.losses: list[set[PartitionKey]] = []
        self.messages: list[Message] = []

    def on_assigned(self, assignments: Sequence[Assignment]) -> None:
        self.began_at += assignments

    def on_revoked(self, _keys: Sequence[PartitionKey]) -> dict[PartitionKey, int]:
        return {}

    def on_lost(self, keys: Sequence[PartitionKey]) -> None:
        self.losses.append(set(keys))

    def read_until(self, check: Callable[[], object], within_s: float = 60.0) -> None:
        step_until(self.read, check, within_s)

    def read(self) -> None:
        self.membership.tend()
        message = self.membership.consumer.poll(0.1)
        if message is not None and message.error() is None:
            self.messages.append(message)


@pytest.fixture(scope="module")
def broker(servers_dir: Path) -> Iterator[CoordinatedBroker]:
    with CoordinatedBroker(servers_dir / "proxied-kafka") as broker:
        yield broker
        broker.proxy.close()


@pytest.fixture
def topic(broker: CoordinatedBroker) -> Iterator[str]:
    name = f"test.{secrets.token_hex(6)}"
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([NewTopic(name, num_partitions=2, replication_factor=1)])[name].result(timeout=60)
    yield name
    broker.proxy.moved = 0
    broker.proxy.swallowed.clear()
    broker.proxy.delay_s = 0.0


@pytest.fixture
def produce(broker: CoordinatedBroker, topic: str) -> Callable[[int], None]:
    producer = Producer({"bootstrap.servers": broker.bootstrap})

    def send(count: int) -> None:
        for n in range(count):
            producer.produce(topic, str(n).encode(), partition=n % 2)
        assert producer.flush(30) == 0

    return send


@contextmanager
def reading(broker: CoordinatedBroker, topic: str, group: str = "") -> Iterator[Reader]:
    reader = Reader(broker, topic, group or f"tests.{secrets.token_hex(6)}")
    reader.membership.subscribe()
    yield reader
    reader.membership.consumer.close()


def test_partitions_are_read_though_the_coordinator_had_moved_when_it_was_asked_where_to_read_on(
    broker, topic, produce
):
    """Librdkafka asks once: the partitions stayed assigned and unread, for good, with no lag and nothing said."""
    produce(20)
    broker.proxy.moved = 3
    with reading(broker, topic) as reader:
        reader.read_until(lambda: broker.proxy.moved == 0)
        assert not reader.membership.assigned
        assert reader.membership.lag_unknown_s() > 0
        reader.read_until(lambda: len(reader.messages) == 20)
        assert reader.membership.assigned
        assert reader.membership.lag_unknown_s() == 0
        assert sorted(a.suspect_until for a in reader.began_at) == [10, 10]


def test_partitions_that_cannot_be_read_end_the_process_while_brokers_answer(broker, topic, monkeypatch):
    monkeypatch.setattr(
        standstill, "_LIMITS", StandstillLimits(rebalance_s=-4.0)
    )  # two seconds in all, with the session's six
    broker.proxy.moved = ALWAYS
    with reading(broker, topic) as reader, pytest.raises(UnavailableError, match="cannot read its partitions"):
        reader.read_until(lambda: False)


def test_a_consumer_that_does_not_get_into_its_group_ends_while_brokers_answer(broker, topic, monkeypatch):
    monkeypatch.setattr(standstill, "_LIMITS", StandstillLimits(rebalance_s=-4.0))
    broker.proxy.swallowed.add(JOIN_GROUP)
    with reading(broker, topic) as reader, pytest.raises(UnavailableError, match="is no member of its group"):
        reader.read_until(lambda: False)


def test_a_broker_that_is_away_ends_nobody_and_is_read_again_when_it_is_back(broker, topic, produce):
    produce(20)
    with reading(broker, topic) as reader:
        reader.read_until(lambda: len(reader.messages) == 20)
        assert broker.pid is not None
        patience_s, reader.membership._standstill._patience_s = reader.membership._standstill._patience_s, 2.0
        os.kill(broker.pid, signal.SIGSTOP)
        try:
            reader.read_until(lambda: reader.losses)
            assert not reader.membership.assigned
            away_until = time.monotonic() + 5.0  # more than what ends a process while brokers answer
            reader.read_until(lambda: time.monotonic() > away_until)
        finally:
            os.kill(broker.pid, signal.SIGCONT)
            reader.membership._standstill._patience_s = patience_s  # the group waits for the end of our own old session
        reader.read_until(lambda: reader.membership.assigned)
        read = len(reader.messages)
        produce(10)
        reader.read_until(lambda: len(reader.messages) == read + 10)


def test_who_has_no_partitions_ends_when_it_is_alone_and_stays_ready_beside_those_that_have_all(broker, topic):
    group = f"tests.{secrets.token_hex(6)}"
    with ExitStack() as stack:
        readers = [stack.enter_context(reading(broker, topic, group)) for _ in range(3)]  # of two partitions

        def read() -> None:
            for reader in readers:
                reader.read()

        def each_has_its_own() -> bool:
            return sorted(len(r.membership.owned) for r in readers) == [0, 1, 1] and all(
                r.membership.assigned for r in readers
            )

        step_until(read, each_has_its_own)
        for reader in readers:
            reader.membership._standstill._patience_s = 2.0
        long_enough = time.monotonic() + 6.0
        while time.monotonic() < long_enough:
            read()
            assert each_has_its_own()
    with reading(broker, topic) as alone:
        alone.read_until(lambda: alone.membership.assigned)
        alone.membership._standstill._patience_s = 2.0
        alone.membership._read.clear()  # as if the group's leader, which it is, had not known of the topic
        with pytest.raises(UnavailableError, match="has no partitions, the only member of its group"):
            alone.read_until(lambda: False)


COUNTING = """
import sys
from go2hooks.kafka.client import consumer_config
from go2hooks.kafka.membership import Membership
from go2hooks.settings import Settings

config = consumer_config(Settings(kafka_bootstrap_servers=sys.argv[1]), sys.argv[2])
membership = Membership(config, ["any"], None, finish_s=0.0)
print([membership._standstill._count_members() for _ in range(3)])
"""


@pytest.mark.parametrize("delay_s", [0.2, 0.35, 0.5])
def test_a_kafka_that_is_slow_to_say_who_belongs_to_the_group_ends_nobody(broker, topic, delay_s):
    """It ended the process by SIGABRT, by an assertion of librdkafka's: so in a process of its own."""
    group = f"tests.{secrets.token_hex(6)}"
    with reading(broker, topic, group) as reader:
        reader.read_until(lambda: reader.membership.assigned)
        broker.proxy.delay_s = delay_s
        command = [sys.executable, "-c", COUNTING, f"127.0.0.1:{broker.proxy.port}", group]
        counting = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert counting.returncode == 0, counting.stderr
    assert set(json.loads(counting.stdout)) <= {0, 1}


async def test_the_poll_thread_of_a_consumer_that_does_not_get_into_its_group_fails(broker, topic, monkeypatch):
    monkeypatch.setattr(standstill, "_LIMITS", StandstillLimits(rebalance_s=-9.0))
    broker.proxy.swallowed.add(JOIN_GROUP)
    settings = Settings(kafka_bootstrap_servers=f"127.0.0.1:{broker.proxy.port}")
    consumer = PolledConsumer(
        consumer_config(settings, f"tests.{secrets.token_hex(6)}"), [topic], asyncio.get_running_loop(),
        window=10, unit_bytes=1000, revoke_timeout_s=5.0,
    )  # fmt: skip
    consumer.start(None)
    async with asyncio.timeout(60):
        while consumer.failure is None:  # noqa: ASYNC110  # a thread sets it
            await asyncio.sleep(0.05)
    assert isinstance(consumer.failure, UnavailableError)
    assert not consumer.ready
    await consumer.stop()


def test_a_router_that_cannot_read_is_not_ready_and_claims_no_lag(broker):
    """Its lag is not known: 0 would say that all is well."""
    settings = Settings(kafka_bootstrap_servers=f"127.0.0.1:{broker.proxy.port}")
    make_topics(Settings(kafka_bootstrap_servers=broker.bootstrap))
    group = f"tests.{secrets.token_hex(6)}"
    router = Router(
        consumer_config(settings, group),
        producer_config(settings),
        NAMES,
        SubscriptionIndex(),
        EventCodec(),
        RouterBounds(1000, 1000, 1 << 24, 0.0),
    )
    broker.proxy.moved = ALWAYS

    def lag() -> tuple[float, float]:
        return tuple(gauge._values[(NAMES.of_event["click"],)] for gauge in (metrics.LAG_MESSAGES, metrics.LAG_SECONDS))

    router.start()
    try:
        step_until(router.step, lambda: broker.proxy.moved < ALWAYS)
        blind_until = time.monotonic() + 2.5
        step_until(router.step, lambda: time.monotonic() > blind_until)
        messages, seconds = lag()
        assert math.isnan(messages)
        assert seconds > 1.0
        assert not router.ready
        broker.proxy.moved = 0
        step_until(router.step, lambda: router.ready and lag() == (0, 0))
    finally:
        broker.proxy.moved = 0
        router.close(5.0)
