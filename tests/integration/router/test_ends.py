"""Logs that end with what is no message, and logs that are added: by the group's own positions, as Kafka's tools show them."""

import secrets

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions
from routing import BOUNDS, webhook
from usable_topics import make_topics
from waiting import step_until

from go2hooks.codec import EventCodec, decode_delivery
from go2hooks.core.domain.event import Event
from go2hooks.core.domain.matching import SubscriptionIndex
from go2hooks.core.domain.samples import example_payload
from go2hooks.kafka.client import GroupNames, consumer_config, producer_config
from go2hooks.kafka.reading import LogReader, OffsetRange
from go2hooks.kafka.topics import TopicNames
from go2hooks.producer import new_event_id
from go2hooks.settings import Settings
from services.router.router import Router

CODEC = EventCodec()


@pytest.fixture
def settings(kafka_bootstrap):
    """Of a deployment of its own."""
    prefix = f"ends{secrets.token_hex(4)}"
    settings = Settings(kafka_bootstrap_servers=kafka_bootstrap, kafka_prefix=prefix, topic_partitions=1)
    make_topics(settings)
    return settings


@pytest.fixture
def names(settings):
    return TopicNames(settings.kafka_prefix)


@pytest.fixture
def router(settings, names):
    index = SubscriptionIndex()
    index.apply(webhook("wh_1", "acme", "*"))
    # Kafka is asked for new partitions more often than in production, where it is every half minute.
    config = consumer_config(settings, GroupNames(settings.kafka_prefix).router) | {
        "topic.metadata.refresh.interval.ms": 300
    }
    router = Router(config, producer_config(settings), names, index, CODEC, BOUNDS)
    router.start()
    yield router
    router.close(5.0)


@pytest.fixture
def routed(settings, names):
    """The ids of the events that deliveries were written of."""
    with LogReader(settings) as reader:
        keys = reader.partitions([names.deliveries])

        def read():
            ends = reader.ends(keys)
            return {
                decode_delivery(m.value()).event_id for m in reader.read([OffsetRange(k, 0, ends[k]) for k in keys])
            }

        yield read


def event():
    return Event(new_event_id(), "acme", "click", 1_704_110_400_000, example_payload("click").data)


def test_no_lag_is_left_behind_transactions(settings, names, router, routed):
    """Each leaves a marker behind its messages; one that is aborted leaves messages that nobody reads, too."""
    clicks, group = TopicPartition(names.of_event["click"], 0), GroupNames(settings.kafka_prefix).router
    config = {"bootstrap.servers": settings.kafka_bootstrap_servers, "transactional.id": secrets.token_hex(8)}
    producer = Producer(config)
    producer.init_transactions(60)
    sent = []
    for ends in (producer.commit_transaction, producer.commit_transaction, producer.abort_transaction):
        producer.begin_transaction()
        events = [event() for _ in range(5)]
        for each in events:
            producer.produce(clicks.topic, CODEC.encode(each), each.account_id)
        producer.flush(20)
        ends(60)
        sent += events if ends == producer.commit_transaction else []
    asked = Consumer({"bootstrap.servers": settings.kafka_bootstrap_servers, "group.id": group})
    end = asked.get_watermark_offsets(clicks, timeout=20)[1]
    assert end == 18
    step_until(router.step, lambda: asked.committed([clicks], timeout=20)[0].offset == end)
    assert routed() == {each.id for each in sent}
    asked.close()


def test_events_in_partitions_that_are_added_are_routed_without_a_restart(settings, names, router, routed):
    clicks = names.of_event["click"]
    producer = Producer(
        {"bootstrap.servers": settings.kafka_bootstrap_servers, "topic.metadata.refresh.interval.ms": 300}
    )
    first = event()
    producer.produce(clicks, CODEC.encode(first), partition=0)
    producer.flush(20)
    step_until(router.step, lambda: routed() == {first.id})
    admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers})
    admin.create_partitions([NewPartitions(clicks, 3)])[clicks].result(20)
    late = [event() for _ in range(3)]

    def written():
        """Once its own producer knows of the partitions."""
        return len(producer.list_topics(clicks, timeout=20).topics[clicks].partitions) == 3

    step_until(router.step, written)
    for partition, each in enumerate(late):
        producer.produce(clicks, CODEC.encode(each), partition=partition)
    producer.flush(20)
    step_until(router.step, lambda: routed() == {first.id, *(each.id for each in late)})
