"""The router on a real broker: one delivery per match, offsets committed behind what Kafka has, replays marked."""

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from routing import BOUNDS, webhook
from waiting import step_until

from go2hooks.codec import EventCodec, decode_delivery
from go2hooks.core.domain.delivery import Delivery, delivery_id
from go2hooks.core.domain.event import Event
from go2hooks.core.domain.filters import compile_filter
from go2hooks.core.domain.matching import SubscriptionIndex
from go2hooks.core.domain.samples import example_payload
from go2hooks.core.domain.webhook import Webhook, WebhookOptions
from go2hooks.core.encoding.payload import render
from go2hooks.core.errors import UnavailableError
from go2hooks.kafka.client import consumer_config, producer_config
from go2hooks.kafka.dead import DeadMessage, WayBack, read_dead
from go2hooks.kafka.partitions import Assignment, Partition, PartitionKey
from go2hooks.kafka.reading import LogReader
from go2hooks.kafka.topics import TopicNames
from go2hooks.producer import EventProducer, new_event_id
from go2hooks.settings import Settings
from services.router.batch import Batch, ReadEvent
from services.router.router import Router

NAMES = TopicNames("go2")


@pytest.fixture
def emit(settings: Settings, account: str) -> Callable[[int], list[Event]]:
    def send(count: int) -> list[Event]:
        data = example_payload("click").data
        events = [Event(new_event_id(), account, "click", 1_704_110_400_000 + n, data) for n in range(count)]
        with EventProducer(settings.kafka_bootstrap_servers) as producer:
            for event in events:
                producer.send(event)
        return events

    return send


@pytest.fixture
def deliveries(settings: Settings, account: str) -> Iterator[Callable[[Router, int], list[Delivery]]]:
    """Step the router until it has written that many deliveries for the account, and a moment longer."""
    consumer = Consumer({"bootstrap.servers": settings.kafka_bootstrap_servers, "group.id": "tests.deliveries"})
    partitions = consumer.list_topics(NAMES.deliveries, timeout=10).topics[NAMES.deliveries].partitions
    found: list[Delivery] = []

    def step(router: Router, count: int) -> list[Delivery]:
        if not consumer.assignment():
            consumer.assign([TopicPartition(NAMES.deliveries, partition, 0) for partition in partitions])
        deadline, quiet_at = time.monotonic() + 60, None
        while quiet_at is None or time.monotonic() < quiet_at:
            assert time.monotonic() < deadline, f"{len(found)} of {count} deliveries"
            router.step()
            read = [m.value() for m in consumer.consume(500, 0.01) if m.error() is None]
            # The topic is shared with tests that write what nobody can decode.
            found.extend(decode_delivery(raw) for raw in read if account.encode() in raw)
            if quiet_at is None and len(found) >= count:
                quiet_at = time.monotonic() + 0.5
        return found

    yield step
    consumer.close()


def buried(settings: Settings, wanted: Callable[[DeadMessage], bool]) -> list[DeadMessage]:
    with LogReader(settings) as reader:
        return list(filter(wanted, read_dead(reader, NAMES.events_dead)))


def filtered(webhook_id: str, account: str, pattern: object) -> Webhook:
    return webhook(webhook_id, account, "*")._replace(options=WebhookOptions(filter=compile_filter(pattern)))


def test_an_event_becomes_one_delivery_per_webhook_that_wants_it(build, emit, deliveries, account):
    router = build(
        webhook("wh_named", account, "click"),
        webhook("wh_wild", account, "*", "click"),
        webhook("wh_disabled", account, "click", is_active=False),
        webhook("wh_other_event", account, "link.created"),
        webhook("wh_other_account", "acc_other", "*"),
        filtered("wh_filtered_out", account, {"slug": ["of another link"]}),
        filtered("wh_filtered_in", account, {"linkId": [{"exists": True}]}),
    )
    (event,) = emit(1)
    found = deliveries(router, 4)
    assert sorted(d.webhook_id for d in found) == ["wh_disabled", "wh_filtered_in", "wh_named", "wh_wild"]
    rendered = render(event)
    for delivery in found:
        assert delivery.id == delivery_id(event.id, delivery.webhook_id)
        assert (delivery.event_id, delivery.event, delivery.kind, delivery.attempt) == (event.id, "click", "event", 1)
        assert (delivery.body, delivery.timestamp) == (rendered.body, rendered.timestamp)
        assert abs(delivery.origin_ms / 1000 - time.time()) < 30


def test_a_restart_goes_on_behind_what_was_routed(build, emit, deliveries, account):
    first = build(webhook("wh_1", account, "*"))
    before = emit(50)
    deliveries(first, 50)
    first.close(5.0)
    after = emit(50)
    found = deliveries(build(webhook("wh_1", account, "*")), 100)
    assert [d.event_id for d in found] == [e.id for e in before + after]


def test_what_a_killed_router_routes_again_has_the_same_ids_and_is_marked(build, emit, deliveries, account, settings):
    hook = webhook("wh_1", account, "*")
    emit(20)
    first = Router(
        consumer_config(settings, f"tests.{secrets.token_hex(6)}"), producer_config(settings), NAMES,
        index := SubscriptionIndex(), EventCodec(), BOUNDS,
    )  # fmt: skip
    index.apply(hook)
    first.start()
    once = [(d.id, d.suspect) for d in deliveries(first, 20)]
    second = build(hook)  # of a group that has committed nothing: as after a kill before the commit
    again = [(d.id, d.suspect) for d in deliveries(second, 40)[20:]]
    first.close(5.0)
    assert [each for each, _ in again] == [each for each, _ in once]
    assert {suspect for _, suspect in again} == {True}


def test_nothing_is_committed_that_kafka_has_not_acknowledged(build, emit, deliveries, account, settings, group):
    nowhere = Settings(kafka_bootstrap_servers="127.0.0.1:1")  # its deliveries are never acknowledged
    index = SubscriptionIndex()
    index.apply(hook := webhook("wh_1", account, "*"))
    cut_off = Router(consumer_config(settings, group), producer_config(nowhere), NAMES, index, EventCodec(), BOUNDS)
    emit(20)
    cut_off.start()
    step_until(cut_off.step, lambda: cut_off._kafka.in_flight >= 20, 20)
    committing_until = time.monotonic() + 1.5  # three times the interval of commits
    while time.monotonic() < committing_until:
        cut_off.step()
    cut_off.close(0.1)
    assert len(deliveries(build(hook), 20)) == 20


def test_a_router_that_is_to_stop_does_not_wait_for_room(build, emit, deliveries, account, settings, group):
    """One event's deliveries are more than librdkafka holds, and none is acknowledged."""
    nowhere = producer_config(Settings(kafka_bootstrap_servers="127.0.0.1:1")) | {"queue.buffering.max.messages": 5}
    hooks = [webhook(f"wh_{n}", account, "click") for n in range(10)]
    index = SubscriptionIndex()
    for hook in hooks:
        index.apply(hook)
    asked: list[int] = []

    def stopping() -> bool:
        asked.append(len(asked))
        return len(asked) > 2

    router = Router(consumer_config(settings, group), nowhere, NAMES, index, EventCodec(), BOUNDS, stopping)
    emit(1)
    router.start()
    step_until(router.step, lambda: asked)
    router.close(0.1)
    assert len(asked) == 2 + 5  # twice there was still time, then each of the five that found no place was given up
    assert len(deliveries(build(*hooks), 10)) == 10


@pytest.mark.parametrize(
    ("accepted_ms", "is_credible"),
    [(-1, False), (0, False), (946_684_799_999, False), (946_684_800_000, True), (253_402_300_800_000, False)],
)
def test_an_event_that_kafka_does_not_date_is_dated_by_itself(build, deliveries, account, accepted_ms, is_credible):
    """Its records would lie where nobody looks for them: a topic of somebody else's making may have any time, or none."""
    event = Event(new_event_id(), account, "click", 1_704_110_400_000, example_payload("click").data)
    partition = Partition(Assignment(PartitionKey("t", 0), 0))
    undated = SimpleNamespace(value=lambda: EventCodec().encode(event))

    router = build(webhook("wh_1", account, "click"))
    router._fan_out.route(ReadEvent(undated, partition, b"", 0, accepted_ms, 0), Batch(), crowding=False)
    (delivery,) = deliveries(router, 1)
    assert delivery.origin_ms == (accepted_ms if is_credible else event.timestamp_ms)


def test_what_a_router_was_about_when_its_partitions_move_is_routed_once(build, deliveries, account, settings, group):
    """What it has written it commits, however long Kafka takes to say so; what waits it leaves to their next owner."""
    hook, ids = webhook("wh_1", account, "*"), []
    codec, data = EventCodec(), example_payload("click").data
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers})
    index = SubscriptionIndex()
    index.apply(hook)
    slow = producer_config(settings) | {"linger.ms": 1000}
    first = Router(consumer_config(settings, group), slow, NAMES, index, codec, replace(BOUNDS, window=100))
    first.start()

    def lags() -> dict[PartitionKey, int]:
        return first._membership.lags

    step_until(
        first.step, lambda: len(lags()) == len(NAMES.events) * settings.topic_partitions and not any(lags().values())
    )
    step_until(first.step, lambda: not first._scheduler)  # nothing of the tests before, which would wait among ours
    routers = [first]

    def step() -> None:
        for router in routers:
            router.step()

    def step_while_more_comes() -> None:
        if len(first._scheduler) < 200:  # it writes a hundred, and waits for a second
            for partition in [*range(settings.topic_partitions)] * 10:
                event = Event(new_event_id(), account, "click", 1_704_110_400_000, data)
                producer.produce(NAMES.of_event["click"], codec.encode(event), account, partition=partition)
                ids.append(event.id)
            producer.poll(0)
        step()

    step_until(step_while_more_comes, lambda: first._scheduler and first._kafka.in_flight)
    routers.append(second := build(hook))
    step_until(step_while_more_comes, lambda: second.ready and second._membership.owned)
    assert producer.flush(10) == 0
    found = deliveries(SimpleNamespace(step=step), len(ids))
    first.close(5.0)
    assert sorted(delivery.event_id for delivery in found) == sorted(ids)


def test_a_delivery_that_kafka_refuses_for_good_ends_the_router(emit, account, settings, group):
    """It would be lost without a trace: nothing is committed past it, and a restart routes it again."""
    index = SubscriptionIndex()
    index.apply(webhook("wh_1", account, "click"))
    given_up_soon = producer_config(Settings(kafka_bootstrap_servers="127.0.0.1:1")) | {"message.timeout.ms": 300}
    router = Router(consumer_config(settings, group), given_up_soon, NAMES, index, EventCodec(), BOUNDS)
    emit(1)
    router.start()
    with pytest.raises(UnavailableError, match="Kafka refused a delivery for good"):
        step_until(router.step, lambda: False, 20)
    router.close(0.1)


def test_an_event_that_is_larger_than_kafka_takes_of_us_is_buried_without_what_it_holds(
    build, emit, deliveries, account, settings
):
    """Kafka's limit is on what was compressed: three megabytes of nothing are a few kilobytes. Kept whole it could not be."""
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers, "compression.type": "gzip",
                         "message.max.bytes": 10_000_000})  # fmt: skip
    producer.produce(NAMES.of_event["click"], bytes(3_000_000), account, partition=0)
    assert producer.flush(20) == 0
    router = build(webhook("wh_1", account, "click"))
    events = emit(5)
    assert {delivery.event_id for delivery in deliveries(router, 5)} == {event.id for event in events}
    (letter,) = step_until(router.step, lambda: buried(settings, lambda letter: letter.left_out > 0))
    assert letter.left_out == 3_000_000 + len(account)
    assert (letter.reason, letter.key, letter.value) == ("undecodable", None, b"")
    assert (letter.origin.topic, letter.origin.partition) == (NAMES.of_event["click"], 0)
    back = WayBack(settings, lambda _: 1)
    assert back.send(letter) is None


def test_what_waits_is_weighed_with_its_keys_and_headers(account, settings, group):
    """By itself a message says how large its value is."""
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers})
    key = account + "k" * 30_000
    for _ in range(20):
        producer.produce(NAMES.of_event["click"], b"", key, headers={"h": bytes(20_000)})
    assert producer.flush(20) == 0
    router = Router(
        consumer_config(settings, group), producer_config(settings), NAMES, SubscriptionIndex(), EventCodec(),
        replace(BOUNDS, window=0),  # nothing is routed
    )  # fmt: skip
    router.start()
    step_until(router.step, lambda: len(router._scheduler._queue._queues.get(key[:512].encode(), ())) == 20)
    assert router._scheduler._bytes >= 20 * 50_000
    router._bounds = router._scheduler._bounds = BOUNDS
    step_until(router.step, lambda: not router._scheduler)
    assert router._scheduler._bytes == 0
    router.close(5.0)


def test_poison_is_buried_with_its_reason_and_the_stream_goes_on(build, emit, deliveries, account, settings):
    """Two hundred bad messages of every kind lie before good ones, in every partition."""
    seed = secrets.token_bytes(8)
    partitions = range(settings.topic_partitions)
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers})
    header = b"\xc3\x01"
    bad = [seed + bytes([n % 256]) * (n % 90) for n in range(100)] + [
        header + seed + bytes([n]) * n for n in range(100)
    ]
    for n, value in enumerate(bad):
        producer.produce(NAMES.of_event["click"], value, account, partition=partitions[n % len(partitions)])
    producer.produce(NAMES.of_event["click"], None, account, partition=0)
    assert producer.flush(10) == 0
    router = build(webhook("wh_1", account, "click"))
    events = emit(5)
    assert {delivery.event_id for delivery in deliveries(router, 5)} == {event.id for event in events}
    # Those of other partitions may come later than the deliveries.
    ours = partial(buried, settings, lambda letter: letter.key == account.encode())
    step_until(router.step, lambda: len(ours()) == len(bad) + 1)
    letters = ours()
    assert sorted(letter.value for letter in letters) == sorted([*bad, b""])
    assert {(letter.reason, letter.origin.topic) for letter in letters} == {("undecodable", NAMES.of_event["click"])}
    assert all(letter.detail for letter in letters)
