"""Events that nobody can deliver: kept aside with the reason, and the stream goes on."""

import time
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from running import Account, Stack

from go2hooks.codec import EventCodec
from go2hooks.kafka.topics import TopicNames

NAMES = TopicNames("go2")


def read_dead(stack: Stack, key: bytes, count: int) -> list[Any]:
    """The first `count` dead events with this key."""
    consumer = Consumer({"bootstrap.servers": stack.broker.bootstrap, "group.id": "tests.dead-events"})
    consumer.assign([TopicPartition(NAMES.events_dead, 0, 0)])
    found: list[Any] = []
    deadline = time.monotonic() + 20
    while len(found) < count and time.monotonic() < deadline:
        message = consumer.poll(0.2)
        if message is not None and message.error() is None and message.key() == key:
            found.append(message)
    consumer.close()
    return found


def invalid(account: Account) -> bytes:
    return EventCodec().encode(account.event()._replace(timestamp_ms=0))


def cut_off(account: Account) -> bytes:
    return EventCodec().encode(account.event())[:-5]


@pytest.mark.parametrize(
    ("poison", "reason"),
    [
        (lambda _: b"{}", b"undecodable"),
        (lambda _: b"", b"undecodable"),
        (lambda _: None, b"undecodable"),
        (lambda _: b"\xc3\x01" + bytes(8), b"undecodable"),
        (lambda _: b"\0\0\0\0\1" + bytes(20), b"undecodable"),
        (cut_off, b"undecodable"),
        (invalid, b"invalid"),
    ],
    ids=["json", "empty", "tombstone", "unknown-schema", "registry", "cut-off", "invalid"],
)
def test_a_poison_event_is_kept_with_its_reason_and_the_next_one_is_delivered(stack, account, receiver, poison, reason):
    endpoint = receiver.endpoint()
    webhook = account.subscribe(endpoint.url)
    raw = poison(account)
    places = []
    producer = Producer({"bootstrap.servers": stack.broker.bootstrap, "partitioner": "murmur2_random"})
    producer.produce(
        NAMES.of_event["click"], raw, account.id, on_delivery=lambda _error, message: places.append(message)
    )
    assert producer.flush(20) == 0
    account.emit()  # the same key, so the same partition: it lies behind the poison
    endpoint.wait(1)
    account.wait_history(webhook, "delivered")

    (dead,) = read_dead(stack, account.id.encode(), 1)
    assert (dead.value() or b"") == (raw or b"")
    headers = dict(dead.headers())
    assert headers.pop("go2hooks-detail")
    assert headers == {
        "go2hooks-reason": reason,
        "go2hooks-topic": NAMES.of_event["click"].encode(),
        "go2hooks-partition": str(places[0].partition()).encode(),
        "go2hooks-offset": str(places[0].offset()).encode(),
    }
