"""The producer against a real broker, and against none."""

import json
import secrets
import subprocess
import sys
import time
from typing import Any

import pytest
from confluent_kafka import Consumer, Message
from confluent_kafka.admin import AdminClient, NewTopic
from waiting import eventually

from go2hooks.codec import EventCodec
from go2hooks.core.domain.event import Event, EventType
from go2hooks.core.domain.samples import example_payload
from go2hooks.core.errors import InvalidEventError, UnavailableError
from go2hooks.kafka.topics import TopicNames
from go2hooks.producer import EventProducer, new_event_id

NAMES = TopicNames("go2")

NOWHERE = "127.0.0.1:1"  # nothing listens there
DEADLINE_S = 30.0


_IMPORTS = """
import sys
from go2hooks.producer import EventProducer, new_event_id
from go2hooks.core.domain.event import Event
from go2hooks.core.domain.samples import example_payload
"""
_EVENT = 'Event(new_event_id(), "{account}", "click", 1_700_000_000_000, example_payload("click").data)'


@pytest.fixture(scope="module")
def bootstrap(kafka_bootstrap: str) -> str:
    """A broker that has the event topics."""
    admin = AdminClient({"bootstrap.servers": kafka_bootstrap})
    existing = admin.list_topics(timeout=DEADLINE_S).topics
    missing = [NewTopic(name, num_partitions=4) for name in NAMES.events if name not in existing]
    for created in admin.create_topics(missing).values() if missing else ():
        created.result(DEADLINE_S)
    return kafka_bootstrap


@pytest.fixture
def account() -> str:
    """The topics are shared by all tests: an account of our own tells our events apart."""
    return f"acc_{secrets.token_hex(6)}"


def received(bootstrap: str, account: str, count: int) -> list[Message]:
    """The first `count` messages keyed by the account, over all event topics."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": f"test-{account}", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe(list(NAMES.events))
    deadline = time.monotonic() + DEADLINE_S
    messages: list[Message] = []
    try:
        while len(messages) < count and time.monotonic() < deadline:
            message = consumer.poll(0.2)
            if message is not None and message.error() is None and message.key() == account.encode():
                messages.append(message)
    finally:
        consumer.close()
    return messages


def own(kind: str, account: str) -> Event:
    return example_payload(kind)._replace(id=new_event_id(), account_id=account)


def test_every_type_arrives_in_its_topic_keyed_by_account(bootstrap: str, account: str) -> None:
    events = [own(kind, account) for kind in EventType]
    reports: list[Exception | None] = []
    with EventProducer(bootstrap) as producer:
        for event in events:
            producer.send(event, reports.append)
    assert reports == [None] * len(events)
    codec = EventCodec()
    messages = received(bootstrap, account, len(events))
    arrived = [(codec.decode(message.value()), message.topic()) for message in messages]
    assert sorted(arrived, key=lambda pair: pair[0].id) == sorted(
        ((event, NAMES.of_event[event.type]) for event in events), key=lambda pair: pair[0].id
    )


def test_the_events_of_one_account_keep_their_order(bootstrap: str, account: str) -> None:
    events = [own("click", account) for _ in range(500)]
    with EventProducer(bootstrap) as producer:
        for event in events:
            producer.send(event)
    assert producer.delivered == 500
    messages = received(bootstrap, account, 500)
    assert [EventCodec().decode(message.value()).id for message in messages] == [event.id for event in events]
    assert len({message.partition() for message in messages}) == 1


def test_a_burst_is_sent_in_batches_that_are_read_quickly(bootstrap: str, account: str) -> None:
    """Though all of it waits to be sent together. Sizes are librdkafka's own statistics, of what it sent within an interval."""
    largest: list[int] = []

    def note(statistics: str) -> None:
        of_topic = json.loads(statistics)["topics"].get("go2.events.click", {})
        largest.append(of_topic.get("batchsize", {}).get("max", 0))

    def told() -> bool:
        producer._client.producer.poll(0.05)  # what statistics come by
        return any(largest)

    config = {"linger.ms": 300, "statistics.interval.ms": 50, "stats_cb": note}
    with EventProducer(bootstrap, config=config) as producer:
        for _ in range(1000):
            producer.send(own("click", account))
        assert producer.flush(DEADLINE_S) == 0
        eventually(told)
    assert 32_768 < max(largest) <= 65_536 + 1000


def test_a_queue_smaller_than_the_burst_makes_send_wait_instead_of_fail(bootstrap: str, account: str) -> None:
    with EventProducer(bootstrap, config={"queue.buffering.max.messages": 5}) as producer:
        for _ in range(200):
            producer.send(own("click", account))
    assert (producer.delivered, producer.failed) == (200, 0)


def test_an_invalid_event_is_refused_before_it_is_queued(bootstrap: str, account: str) -> None:
    with EventProducer(bootstrap) as producer:
        for broken in (
            own("click", account)._replace(id=""),
            own("click", account)._replace(type="link.moved"),
            own("click", account)._replace(data={}),
        ):
            with pytest.raises(InvalidEventError):
                producer.send(broken)
        assert producer.flush(0) == 0


def test_an_event_too_large_for_kafka_is_invalid(bootstrap: str, account: str) -> None:
    event = own("click", account)
    with EventProducer(bootstrap) as producer, pytest.raises(InvalidEventError, match="too large for Kafka"):
        producer.send(event._replace(data=event.data | {"slug": "x" * 2_000_000}))


@pytest.fixture
def stranded() -> EventProducer:
    """A producer whose broker is away."""
    return EventProducer(
        NOWHERE,
        config={"queue.buffering.max.messages": 3, "log_level": 0},
        send_timeout_s=0.3,
        close_timeout_s=0.3,
    )


def test_a_full_queue_is_unavailable_after_the_deadline(stranded: EventProducer, account: str) -> None:
    for _ in range(3):
        stranded.send(own("click", account))
    started = time.monotonic()
    with pytest.raises(UnavailableError, match=r"stayed full for 0\.3 s"):
        stranded.send(own("click", account))
    assert 0.3 <= time.monotonic() - started < DEADLINE_S


def test_close_reports_what_was_not_delivered_to_the_caller_and_to_each_callback(
    stranded: EventProducer, account: str
) -> None:
    reports: list[Any] = []
    stranded.send(own("click", account), reports.append)
    stranded.send(own("click", account), reports.append)
    with pytest.raises(UnavailableError, match="2 of 2 events did not reach Kafka"):
        stranded.close()
    assert [type(report) for report in reports] == [UnavailableError, UnavailableError]
    assert stranded.failed == 2


class Stumbling:
    """A callback that keeps what it is told, and raises an error of its own every time."""

    def __init__(self) -> None:
        self.reports: list[Exception | None] = []
        self.errors: list[Exception] = []

    def __call__(self, report: Exception | None) -> None:
        self.reports.append(report)
        self.errors.append(ValueError(f"own fault {len(self.reports)}"))
        raise self.errors[-1]


def test_a_callback_that_raises_keeps_no_event_from_being_sent_and_reported(bootstrap: str, account: str) -> None:
    stumbling, reports = Stumbling(), list[Any]()
    producer = EventProducer(bootstrap, config={"linger.ms": 5000})  # no report is there before `close`
    for number in range(100):
        producer.send(own("click", account), stumbling if number % 50 == 0 else reports.append)
    with pytest.raises(ValueError, match="own fault 1") as caught:
        producer.close()
    assert caught.value is stumbling.errors[0]
    assert reports + stumbling.reports == [None] * 100
    assert (producer.delivered, producer.failed) == (100, 0)
    producer.close()  # as nothing is left to be told


def test_what_was_lost_is_reported_to_each_callback_whatever_the_others_raise(
    stranded: EventProducer, account: str
) -> None:
    stumbling = Stumbling()
    for _ in range(3):
        stranded.send(own("click", account), stumbling)
    with pytest.raises(UnavailableError, match="3 of 3 events did not reach Kafka") as caught:
        stranded.close()
    assert caught.value.__cause__ is stumbling.errors[0]
    assert [type(report) for report in stumbling.reports] == [UnavailableError] * 3
    assert stranded.failed == 3


def test_the_error_that_ended_the_block_is_not_hidden_by_what_was_lost(stranded: EventProducer, account: str) -> None:
    with pytest.raises(KeyError) as caught, stranded:  # noqa: PT012  # the block is what is tested
        stranded.send(own("click", account))
        raise KeyError("own fault")
    [note] = caught.value.__notes__
    assert note.startswith("1 of 1 events did not reach Kafka. Kafka at 127.0.0.1:1 does not answer")


def test_a_setting_that_librdkafka_does_not_know_is_a_value_error() -> None:
    with pytest.raises(ValueError, match=r"no\.such\.setting"):
        EventProducer(NOWHERE, config={"no.such.setting": 1})


def test_event_ids_sort_by_time_and_never_repeat() -> None:
    earlier = [new_event_id() for _ in range(1000)]
    last_ms = time.time_ns() // 1_000_000
    while time.time_ns() // 1_000_000 <= last_ms:
        pass
    later = new_event_id()
    assert len({*earlier}) == 1000
    assert max(earlier) < later
    assert all(len(event_id) == 36 for event_id in earlier)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the names of threads from /proc")
def test_a_producer_that_is_not_used_looks_up_no_address(bootstrap: str, account: str) -> None:
    """Or a fork at that moment would leave glibc's resolver locked in the child."""
    program = f"""
import time
from pathlib import Path
from go2hooks.producer import EventProducer

def name(task):
    try:
        return task.read_text()
    except OSError:  # it has just ended
        return ""

def to_brokers():
    return [task for task in Path("/proc/self/task").glob("*/comm") if name(task).startswith("rdk:broker")]

producer = EventProducer({bootstrap!r})
assert not to_brokers(), to_brokers()
producer.send({_EVENT.format(account=account)})
until = time.monotonic() + 20
while not to_brokers():  # a thread gives itself its name, once it runs
    assert time.monotonic() < until
    time.sleep(0.01)
producer.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", _IMPORTS + program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_producer_that_a_forked_process_inherits_works_there_and_in_the_parent(bootstrap: str, account: str) -> None:
    """As of gunicorn --preload: its threads stay in the parent, so that a client used in the child would send nothing."""
    program = f"""
import os

def event():
    return {_EVENT.format(account=account)}

used, unused, idle = (EventProducer({bootstrap!r}) for _ in range(3))
used.send(event())
assert used.flush(30) == 0  # it is connected
used.send(event())
child = os.fork()
if child == 0:
    used.send(event())
    unused.send(event())
    used.close()
    unused.close()
    sys.exit(0 if (used.delivered, unused.delivered) == (1, 1) else 3)  # as workers end, with what they inherited
assert os.waitpid(child, 0)[1] == 0
used.close()
assert used.delivered == 2, used.delivered
"""
    done = subprocess.run(
        [sys.executable, "-c", _IMPORTS + program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(received(bootstrap, account, 4)) == 4
