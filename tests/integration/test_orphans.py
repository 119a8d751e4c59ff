"""Deliveries that got lost: told apart from those that wait, counted, and sent again."""

import asyncio
import math
import re
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg
import pytest
from click.testing import CliRunner
from confluent_kafka import Consumer, Producer, TopicPartition
from usable_topics import make_topics
from waiting import eventually

from go2hooks import orphans
from go2hooks.cli import main
from go2hooks.codec import encode_delivery
from go2hooks.core.domain.delivery import Delivery, Position, delivery_id
from go2hooks.kafka.client import GroupNames
from go2hooks.kafka.reading import LogReader
from go2hooks.kafka.topics import TopicNames
from go2hooks.orphans import Bounds, TooManyWaitError, find_orphans
from go2hooks.postgres.webhooks import NewWebhook, create
from go2hooks.producer import new_event_id
from go2hooks.settings import load_settings
from go2hooks.telemetry import metrics
from services.dispatcher.orphans import count_orphans_for_ever

NAMES = TopicNames("go2")
GROUPS = GroupNames("go2")

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
TIER = NAMES.retry(0.3)


class Receiver(ThreadingHTTPServer):
    """Keeps delivery ids with attempt numbers."""

    daemon_threads = True

    def __init__(self):
        self.got = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.got.append((self.headers["X-Webhook-Delivery"], self.headers["X-Webhook-Attempt"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_args):
        pass


@pytest.fixture
def receiver():
    with Receiver() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def settings(kafka_bootstrap, database_url, monkeypatch):
    variables = {"KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap, "DATABASE_URL": database_url, "RETRY_DELAYS": "300ms",
                 "TOPIC_PARTITIONS": "2", "STRAY_GRACE_S": "1"}  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(f"GO2HOOKS_{name}", value)
    make_topics(found := load_settings())
    return found


@pytest.fixture
def cli(settings):
    return lambda *arguments: CliRunner().invoke(main, ["reconcile", *arguments])


@pytest.fixture
def hook(database, secret_box, receiver):
    webhook_id = f"wh_{time.time_ns()}"
    database.execute("INSERT INTO accounts (id) VALUES ('acme')")
    url = f"http://127.0.0.1:{receiver.server_address[1]}/"
    create(database, NewWebhook(webhook_id, "acme", "n", url, ["*"], secret_box.seal(SECRET, webhook_id)), 10)
    return webhook_id


@pytest.fixture
def write(kafka_bootstrap, hook):
    """`write(topic, attempt)`: a delivery in Kafka, and where it lies."""
    producer = Producer({"bootstrap.servers": kafka_bootstrap})

    def produce(topic=NAMES.deliveries, attempt=1, same_as=None):
        event_id = new_event_id()
        delivery = same_as or Delivery(
            delivery_id(event_id, hook), hook, "acme", event_id, "click", "2024-01-01T12:00:00Z", b"{}",
            attempt, 0, "event", time.time_ns() // 1_000_000, suspect=False,
        )  # fmt: skip
        places = []
        delivery = delivery._replace(attempt=attempt)
        producer.produce(topic, encode_delivery(delivery), hook, on_delivery=lambda _e, m: places.append(m))
        assert producer.flush(10) == 0
        return delivery, Position(topic, places[0].partition(), places[0].offset())

    return produce


@pytest.fixture
def record(database):
    """`record(delivery, position, state, attempt)`: its row, overdue for ten seconds."""

    def insert(delivery, position, state, attempt, kind="event", overdue_s=10):
        due = datetime.now(UTC) - timedelta(seconds=overdue_s)
        database.execute(
            """INSERT INTO attempts (webhook_id, created_at, delivery_id, attempt, account_id, event_id, event, kind, state,
                   next_attempt_at, attempted_at, kafka_topic, kafka_partition, kafka_offset)
               VALUES (%s, to_timestamp(%s / 1000.0), %s, %s, 'acme', %s, 'click', %s, %s, %s, %s, %s, %s, %s)""",
            [delivery.webhook_id, delivery.origin_ms, delivery.id, attempt, delivery.event_id, kind, state,
             due if state == "retrying" else None, due, *(position or (None, None, None))],
        )  # fmt: skip

    return insert


def commit_all(settings):
    """As dispatchers would have: everything that is there now is finished."""
    groups = {GROUPS.dispatcher: NAMES.deliveries, GROUPS.retry: TIER, GROUPS.overflow: NAMES.overflow}
    with LogReader(settings) as reader:
        for group, topic in groups.items():
            ends = reader.ends(reader.partitions([topic]))
            consumer = Consumer({"bootstrap.servers": settings.kafka_bootstrap_servers, "group.id": group})
            consumer.commit(offsets=[TopicPartition(*key, end) for key, end in ends.items()], asynchronous=False)
            consumer.close()


def test_what_got_lost_is_told_apart_from_what_waits_and_is_sent_again(
    cli, settings, hook, write, record, receiver, run_service, database
):
    began = datetime.now(UTC)  # the log keeps what other tests wrote, whose records are gone
    retrying, at = write()
    record(retrying, at, "retrying", 1)
    pending, at = write()
    record(pending, at, "pending", 0)
    delivered, at = write()
    record(delivered, at, "retrying", 1)
    record(delivered, at, "delivered", 2)
    young, at = write()
    record(young, at, "retrying", 1, overdue_s=-1000)  # not due yet
    a_test, _ = write()
    record(a_test, None, "pending", 0, kind="test")
    unrecorded, _ = write()
    waits_in_tier, at = write()
    record(waits_in_tier, at, "retrying", 1)
    waits_aside, at = write()
    record(waits_aside, at, "pending", 0)
    commit_all(settings)
    write(TIER, attempt=2, same_as=waits_in_tier)
    write(NAMES.overflow, same_as=waits_aside)

    found = cli()
    assert found.exit_code == 1, found.output
    assert set(re.findall(r"dlv_\w+", found.output)) == {retrying.id, pending.id}
    assert "2 deliveries got lost. Send them again with --send." in found.output
    time.sleep(1.1)  # past the grace of what has just been written
    assert unrecorded.id in cli("--log", "--since", began.isoformat()).output

    sent = cli("--send")
    assert "2 sent again." in sent.output
    run_service("dispatcher", GO2HOOKS_RETRY_DELAYS="300ms", GO2HOOKS_ALLOW_INSECURE_TARGETS="true")
    deadline = time.monotonic() + 90
    wanted = {(retrying.id, "2"), (pending.id, "1"), (waits_in_tier.id, "2"), (waits_aside.id, "1")}
    while not wanted <= set(receiver.got):
        assert time.monotonic() < deadline, receiver.got
        time.sleep(0.05)
    while "Nothing got lost." not in cli().output:  # the last records may still be on their way
        assert time.monotonic() < deadline
    assert len(receiver.got) == len(set(receiver.got))


def test_a_dispatcher_counts_them(settings, write, record, run_service, kafka_bootstrap):
    lost, at = write()
    record(lost, at, "retrying", 1)
    commit_all(settings)
    log = run_service(
        "dispatcher", GO2HOOKS_RETRY_DELAYS="300ms", GO2HOOKS_STRAY_CHECK_S="0.5", GO2HOOKS_STRAY_GRACE_S="1"
    )
    deadline = time.monotonic() + 90
    while "deliveries got lost" not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)


async def test_the_gauge_is_no_number_while_nobody_knows(settings, write, record, database):
    lost, at = write()
    record(lost, at, "retrying", 1)
    commit_all(settings)
    counting = asyncio.create_task(count_orphans_for_ever(settings.model_copy(update={"stray_check_s": 0.3})))

    async def becomes(check):
        async with asyncio.timeout(60):
            while not check(metrics.ORPHANS._values[()]):  # noqa: ASYNC110  # a gauge tells nobody
                await asyncio.sleep(0.02)

    try:
        metrics.ORPHANS.set(0)  # as another test may have left it
        await becomes(math.isnan)
        await becomes(lambda count: count == 1)
        database.execute("ALTER TABLE attempts RENAME TO hidden")
        await becomes(math.isnan)
        database.execute("ALTER TABLE hidden RENAME TO attempts")
        await becomes(lambda count: count == 1)
    finally:
        counting.cancel()


def test_a_payload_that_has_expired_is_named(cli, settings, write, record):
    lost, at = write()
    record(lost, at._replace(offset=at.offset + 1_000_000), "retrying", 1)
    commit_all(settings)
    sent = cli("--send")
    assert sent.exit_code == 1
    assert f"Kafka no longer has the payload of 1: {lost.id}" in sent.output


@pytest.fixture
def find(settings, database_url):
    """What `find_orphans` finds of the last hour, within these bounds."""

    def run(**bounds):
        since = datetime.now(UTC) - timedelta(hours=1)
        with psycopg.connect(database_url, autocommit=True) as connection:
            return find_orphans(settings, connection, Bounds(since, 1.0, **bounds))

    return run


def test_it_says_nothing_rather_than_something_wrong_when_too_many_wait(settings, find, write, record):
    lost, at = write()
    record(lost, at, "retrying", 1)
    commit_all(settings)
    for _ in range(3):
        write()
    with pytest.raises(TooManyWaitError):
        find(messages=2)
    assert [orphan.delivery_id for orphan in find(messages=10_000)] == [lost.id]


def test_however_many_wait_what_got_lost_is_found(settings, find, write, record):
    lost = [write() for _ in range(7)]
    waiting = [write() for _ in range(20)]
    for delivery, at in [*waiting[:10], *lost, *waiting[10:]]:
        record(delivery, at, "retrying", 1)
    commit_all(settings)
    for delivery, _ in waiting:
        write(TIER, attempt=2, same_as=delivery)
    found, some = find(page=3), find(page=3, limit=2)
    ids = {delivery.id for delivery, _ in lost}
    assert sorted(orphan.delivery_id for orphan in found) == sorted(ids)
    assert 2 <= len(some) < 5
    assert {orphan.delivery_id for orphan in some} <= ids


def test_what_is_found_before_too_many_wait_is_lost_all_the_same(settings, find, write, record):
    lost = [write() for _ in range(3)]
    for delivery, at in lost:
        record(delivery, at, "retrying", 1)
    commit_all(settings)
    for _ in range(5):
        write()
    found = find(page=1, messages=12)
    assert len(found) == 2  # five are looked through for each, and then two are left
    assert {orphan.delivery_id for orphan in found} < {delivery.id for delivery, _ in lost}


def test_what_the_router_wrote_to_the_overflow_is_found_without_a_record(cli, settings, write):
    began = datetime.now(UTC)
    lost, _ = write(NAMES.overflow)
    went_round, _ = write(NAMES.overflow)
    moved, _ = write()
    write(NAMES.overflow, same_as=moved)
    commit_all(settings)
    write(NAMES.overflow, same_as=went_round)

    def found():
        return re.findall(r"dlv_\w+", cli("--log", "--since", began.isoformat()).output)

    eventually(lambda: moved.id in found())  # past the grace of what has just been written
    assert sorted(found()) == sorted([lost.id, moved.id])
    assert "2 sent again." in cli("--log", "--since", began.isoformat(), "--send").output
    assert found() == []


def test_what_is_finished_while_it_is_looked_for_is_not_lost(settings, database_url, write, record, monkeypatch):
    now = datetime.now(UTC)
    bounds = Bounds(now.replace(microsecond=now.microsecond // 1000 * 1000), 0.0)  # records have milliseconds
    retrying, retrying_at = write()
    record(retrying, retrying_at, "retrying", 1)
    unrecorded, unrecorded_at = write()
    commit_all(settings)
    ends = [(retrying, retrying_at, "delivered", 2), (unrecorded, unrecorded_at, "delivered", 1)]
    look_through = orphans._waiting_spans

    def look_through_after_an_end(*arguments):
        record(*ends.pop(0))
        return look_through(*arguments)

    with psycopg.connect(database_url, autocommit=True) as connection:
        found = find_orphans(settings, connection, bounds, through_log=True)
        assert [orphan.delivery_id for orphan in found] == [retrying.id, unrecorded.id]
        monkeypatch.setattr(orphans, "_waiting_spans", look_through_after_an_end)
        assert find_orphans(settings, connection, bounds, through_log=True) == []
    assert ends == []
