"""Deliveries that Kafka refuses for their size: their events are buried, and the others go on."""

import secrets
from collections.abc import Callable

import pytest
from confluent_kafka import Producer
from routing import BOUNDS, webhook
from usable_topics import configure, make_topics
from waiting import step_until

from go2hooks.codec import EventCodec, decode_delivery
from go2hooks.core.domain.event import Event
from go2hooks.core.domain.matching import SubscriptionIndex
from go2hooks.core.domain.samples import example_payload
from go2hooks.core.flow.fair_queue import FairQueue
from go2hooks.kafka.client import consumer_config, producer_config
from go2hooks.kafka.dead import DeadMessage, read_dead
from go2hooks.kafka.partitions import PartitionKey
from go2hooks.kafka.reading import LogReader, OffsetRange
from go2hooks.kafka.topics import TopicNames
from go2hooks.producer import new_event_id
from go2hooks.settings import Settings
from services.router.router import Router


@pytest.fixture
def settings(kafka_bootstrap: str) -> Settings:
    """Of a deployment of its own, whose topics of deliveries take 4 KB."""
    prefix = f"small{secrets.token_hex(4)}"
    settings = Settings(kafka_bootstrap_servers=kafka_bootstrap, kafka_prefix=prefix, topic_partitions=1)
    make_topics(settings)
    configure(kafka_bootstrap, TopicNames(prefix).deliveries, {"max.message.bytes": "4000"})
    return settings


@pytest.fixture
def names(settings: Settings) -> TopicNames:
    return TopicNames(settings.kafka_prefix)


@pytest.fixture
def emit(settings: Settings, names: TopicNames) -> Callable[[int, int], list[str]]:
    """So many events, with a URL of so many bytes."""
    codec, producer = EventCodec(), Producer({"bootstrap.servers": settings.kafka_bootstrap_servers})

    def send(count: int, size: int) -> list[str]:
        data = example_payload("click").data | {"destinationUrl": "https://a.example/" + "x" * size}
        events = [Event(new_event_id(), "acme", "click", 1_704_110_400_000 + n, data) for n in range(count)]
        for event in events:
            producer.produce(names.of_event["click"], codec.encode(event), "acme")
        assert producer.flush(20) == 0
        return [event.id for event in events]

    return send


def deliveries(settings: Settings, topic: str) -> set[tuple[str, str]]:
    with LogReader(settings) as reader:
        key = PartitionKey(topic, 0)
        (end,) = reader.ends([key]).values()
        found = [decode_delivery(message.value()) for message in reader.read([OffsetRange(key, 0, end)])]
    return {(delivery.event_id, delivery.webhook_id) for delivery in found}


def letters(settings: Settings) -> list[DeadMessage]:
    with LogReader(settings) as reader:
        return list(read_dead(reader, TopicNames(settings.kafka_prefix).events_dead))


@pytest.mark.parametrize("grave_is_small", [False, True])
def test_an_event_whose_deliveries_are_too_large_is_buried_once_and_the_others_are_routed(
    settings, names, emit, grave_is_small
):
    """Of the small ones no batch is taken that is as large as what is written at once: each is, alone."""
    if grave_is_small:
        configure(settings.kafka_bootstrap_servers, names.events_dead, {"max.message.bytes": "2000"})
    hooks = ("wh_1", "wh_2", "wh_3")
    index = SubscriptionIndex()
    for hook in hooks:
        index.apply(webhook(hook, "acme", "*"))
    (large,), small = emit(1, 6000), emit(40, 300)
    group = f"tests.{secrets.token_hex(6)}"
    router = Router(consumer_config(settings, group), producer_config(settings), names, index, EventCodec(), BOUNDS)
    router.start()
    wanted = {(event, hook) for event in small for hook in hooks}
    step_until(router.step, lambda: deliveries(settings, names.deliveries) == wanted and letters(settings))
    key = PartitionKey(names.of_event["click"], 0)
    with LogReader(settings) as reader:
        step_until(router.step, lambda: reader.committed(group, [key]) == {key: 41})
    router.close(5.0)
    (letter,) = letters(settings)
    assert letter.reason == "unkeepable"
    assert (large.encode() in letter.value) is not grave_is_small
    assert router._kafka.in_flight == 0


@pytest.mark.plain
def test_what_the_overflow_refuses_goes_to_the_others_at_once(settings, names, emit, monkeypatch):
    configure(settings.kafka_bootstrap_servers, names.overflow, {"max.message.bytes": "300"})
    index = SubscriptionIndex()
    index.apply(webhook("wh_1", "acme", "*"))
    events = emit(5, 300)
    router = Router(
        consumer_config(settings, f"tests.{secrets.token_hex(6)}"), producer_config(settings), names, index,
        EventCodec(), BOUNDS,
    )  # fmt: skip
    monkeypatch.setattr(FairQueue, "is_crowding", lambda *_: True)
    router.start()
    step_until(router.step, lambda: deliveries(settings, names.deliveries) == {(event, "wh_1") for event in events})
    router.close(5.0)
