"""A topic of events that is deleted and made again: what is written to the second is routed from its start."""

import secrets
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient
from remaking import delete, make_again, topic_id
from routing import BOUNDS, webhook
from usable_topics import make_topics
from waiting import step_until

from go2hooks.codec import EventCodec, decode_delivery
from go2hooks.core.domain.event import Event
from go2hooks.core.domain.matching import SubscriptionIndex
from go2hooks.core.domain.samples import example_payload
from go2hooks.core.errors import UnavailableError
from go2hooks.kafka import topic_ids
from go2hooks.kafka.client import GroupNames, consumer_config, producer_config
from go2hooks.kafka.reading import LogReader, OffsetRange
from go2hooks.kafka.topics import TopicNames
from go2hooks.producer import EventProducer, new_event_id
from go2hooks.settings import Settings
from go2hooks.telemetry import metrics
from services.router.router import Router


@pytest.fixture
def settings(kafka_bootstrap: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Of a deployment of its own."""
    monkeypatch.setattr(topic_ids, "_LOOK_S", 0.2)
    prefix = f"remade{secrets.token_hex(4)}"
    settings = Settings(kafka_bootstrap_servers=kafka_bootstrap, kafka_prefix=prefix, topic_partitions=1)
    make_topics(settings)
    return settings


@pytest.fixture
def names(settings: Settings) -> TopicNames:
    return TopicNames(settings.kafka_prefix)


@pytest.fixture
def group(settings: Settings) -> str:
    return GroupNames(settings.kafka_prefix).router


@pytest.fixture
def clicks(names: TopicNames) -> str:
    return names.of_event["click"]


@pytest.fixture
def start(settings: Settings, names: TopicNames, group: str) -> Iterator[Callable[[], Router]]:
    routers: list[Router] = []
    index = SubscriptionIndex()
    index.apply(webhook("wh_1", "acme", "*"))

    def begin() -> Router:
        config = consumer_config(settings, group)
        routers.append(router := Router(config, producer_config(settings), names, index, EventCodec(), BOUNDS))
        router.start()
        return router

    yield begin
    for router in routers:
        router.close(5.0)


@pytest.fixture
def emit(settings: Settings) -> Callable[[int], list[str]]:
    """Write so many events and return their ids."""

    def send(count: int) -> list[str]:
        data = example_payload("click").data
        events = [Event(new_event_id(), "acme", "click", 1_704_110_400_000 + n, data) for n in range(count)]
        with EventProducer(settings.kafka_bootstrap_servers, prefix=settings.kafka_prefix) as producer:
            for event in events:
                producer.send(event)
        return [event.id for event in events]

    return send


@pytest.fixture
def routed(settings: Settings, names: TopicNames) -> Iterator[Callable[[], list[str]]]:
    """The ids of the events that deliveries were written of."""
    with LogReader(settings) as reader:
        keys = reader.partitions([names.deliveries])

        def read() -> list[str]:
            ends = reader.ends(keys)
            return [
                decode_delivery(m.value()).event_id for m in reader.read([OffsetRange(k, 0, ends[k]) for k in keys])
            ]

        yield read


@pytest.fixture
def committed(settings: Settings, group: str, clicks: str) -> Iterator[Callable[[], TopicPartition]]:
    consumer = Consumer({"bootstrap.servers": settings.kafka_bootstrap_servers, "group.id": group})
    yield lambda: consumer.committed([TopicPartition(clicks, 0)], timeout=20)[0]
    consumer.close()


@pytest.mark.parametrize("anew", [150, 30], ids=["longer", "shorter"])
def test_what_is_written_to_a_topic_made_again_while_it_is_read_is_all_routed(
    start, emit, routed, settings, clicks, anew
):
    """The second log is longer than the position in the first, or shorter. The router ends with one sentence, and starts again."""
    router = start()
    before = emit(100)
    step_until(router.step, lambda: len(routed()) == 100)
    make_again(settings.kafka_bootstrap_servers, clicks)
    after = emit(anew)
    with pytest.raises(UnavailableError, match="deleted and made again"):
        step_until(router.step, lambda: False)
    router.close(5.0)
    again = start()
    step_until(again.step, lambda: set(routed()) == {*before, *after})


def test_a_position_in_the_topic_before_is_not_taken_for_one_in_this(
    start, emit, routed, settings, clicks, committed, group
):
    """As it is left where brokers keep the commits of a topic that was deleted, or a process commits after that."""
    router = start()
    emit(20)
    step_until(router.step, lambda: committed().offset == 20)
    kept = committed()
    router.close(5.0)
    make_again(settings.kafka_bootstrap_servers, clicks)
    late = Consumer({"bootstrap.servers": settings.kafka_bootstrap_servers, "group.id": group})
    late.commit(offsets=[kept], asynchronous=False)
    late.close()
    anew = metrics.PARTITIONS_ANEW.value()
    after = emit(30)
    again = start()
    step_until(again.step, lambda: set(routed()) >= set(after))
    assert metrics.PARTITIONS_ANEW.value() == anew + 1
    step_until(again.step, lambda: committed().offset == 30)
    assert committed().metadata != kept.metadata


def test_a_commit_that_names_no_topic_is_taken_as_it_is_and_names_it_from_then_on(
    start, emit, routed, settings, clicks, committed, group
):
    """Of a former version, or of `kafka-consumer-groups --reset-offsets`."""
    events = emit(20)
    other = Consumer({"bootstrap.servers": settings.kafka_bootstrap_servers, "group.id": group})
    other.commit(offsets=[TopicPartition(clicks, 0, 15)], asynchronous=False)
    other.close()
    assert committed().metadata is None
    router = start()
    step_until(router.step, lambda: committed().metadata)
    step_until(router.step, lambda: routed() == events[15:])
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    step_until(router.step, lambda: committed().offset == 20)
    assert topic_id(admin, clicks) in committed().metadata


def test_a_topic_that_is_deleted_while_it_is_read_ends_the_router_with_what_to_do(
    start, emit, routed, settings, clicks
):
    router = start()
    emit(1)
    step_until(router.step, routed)
    delete(AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers}), clicks)
    with pytest.raises(UnavailableError, match=f"topic {clicks} was deleted while it was read: run go2hooks topics"):
        step_until(router.step, lambda: False)
