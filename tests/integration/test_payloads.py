"""Deliveries read back from the log: as they were written, while the log has them, by many threads at once."""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from go2hooks.codec import encode_delivery
from go2hooks.core.domain.delivery import Delivery, Position, delivery_id
from go2hooks.core.errors import UnavailableError
from go2hooks.devstack.processes import free_port
from go2hooks.kafka.payloads import KafkaPayloadReader
from go2hooks.settings import load_settings


def a_delivery(number, body=b"{}", attempt=1):
    event_id = f"evt_{number}"
    return Delivery(
        delivery_id(event_id, "wh_1"), "wh_1", "acme", event_id, "click", "2024-01-01T12:00:00Z", body, attempt, 0, "event",
        1_700_000_000_000, suspect=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def producer(kafka_bootstrap):
    return Producer({"bootstrap.servers": kafka_bootstrap, "message.max.bytes": 2_000_000})


@pytest.fixture
def write(producer):
    """`write(topic, delivery…)` returns where they lie."""

    def write(topic, *values):
        places = {}
        for number, value in enumerate(values):
            raw = encode_delivery(value) if isinstance(value, Delivery) else value
            note = partial(lambda n, _error, m: places.update({n: Position(topic, m.partition(), m.offset())}), number)
            producer.produce(topic, raw, on_delivery=note)
        assert producer.flush(10) == 0
        return [places[number] for number in range(len(values))]

    return write


@pytest.fixture(scope="module")
def reader(kafka_bootstrap):
    reader = KafkaPayloadReader(load_settings(kafka_bootstrap_servers=kafka_bootstrap), consumers=3)
    yield reader
    reader.close()


def expire(kafka_bootstrap, topic, below):
    """As retention does."""
    place = TopicPartition(topic, 0, below)
    admin = AdminClient({"bootstrap.servers": kafka_bootstrap})
    admin.delete_records([place])[place].result(20)


def test_a_delivery_is_read_back_from_its_place_whatever_its_size(reader, write, create_topic):
    deliveries = [a_delivery(n, b'"%b"' % (b"x" * size)) for n, size in enumerate((3, 200_000, 1_000_000, 5, 70_000))]
    places = write(create_topic(max_message_bytes="2097152"), *deliveries)
    for n in (4, 0, 2, 1, 3, 2):  # in any order, and again
        assert reader.read(deliveries[n].id, [places[n]]) == deliveries[n]


def test_many_threads_read_at_once_and_each_gets_its_own(reader, write, create_topic):
    deliveries = [a_delivery(n, b'"%d"' % n) for n in range(60)]
    places = write(create_topic(), *deliveries)
    with ThreadPoolExecutor(12) as threads:
        found = threads.map(lambda pair: reader.read(pair[0].id, [pair[1]]), zip(deliveries, places, strict=True))
        assert list(found) == deliveries


def test_what_has_expired_is_found_at_its_next_place_or_not_at_all(reader, write, create_topic, kafka_bootstrap):
    first, second = a_delivery(1), a_delivery(1, attempt=2)
    topic, tier = create_topic(), create_topic()
    [lost] = write(topic, first)
    write(topic, a_delivery(2))
    [kept] = write(tier, second)
    expire(kafka_bootstrap, topic, 1)
    assert reader.read(first.id, [lost]) is None
    assert reader.read(first.id, [lost, kept]) == second
    assert reader.read(first.id, []) is None


def test_another_delivery_at_that_place_is_not_taken_for_it(reader, write, create_topic):
    """A topic was made anew, and its offsets begin again."""
    places = write(create_topic(), a_delivery(1), b"no delivery")
    assert [reader.read(a_delivery(2).id, [place]) for place in places] == [None, None]


def test_what_lies_beyond_the_log_or_in_no_topic_is_gone_and_said_soon(reader, write, create_topic):
    topic = create_topic()
    write(topic, a_delivery(1))
    began = time.monotonic()
    for place in (Position(topic, 0, 1), Position(topic, 0, 9), Position(topic, 7, 0), Position("nowhere", 0, 0)):
        assert reader.read(a_delivery(1).id, [place]) is None, place
    assert time.monotonic() - began < 10


def test_a_kafka_that_is_away_is_unavailable_within_seconds():
    reader = KafkaPayloadReader(load_settings(kafka_bootstrap_servers=f"127.0.0.1:{free_port()}"))
    began = time.monotonic()
    with pytest.raises(UnavailableError, match="Kafka does not give the message"):
        reader.read(a_delivery(1).id, [Position("go2.deliveries", 0, 0)])
    assert time.monotonic() - began < 15
    reader.close()
