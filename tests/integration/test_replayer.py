"""Replays on a real Kafka and a real Postgres: what is selected, sent, counted, and taken up again after a crash."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from confluent_kafka import Producer
from environment import clean_environment
from pydantic import SecretStr
from usable_topics import make_topics
from waiting import eventually, step_until

from go2hooks.codec import EventCodec, decode_delivery, encode_delivery
from go2hooks.core.domain.delivery import Delivery, Kind, delivery_id
from go2hooks.core.domain.event import Event
from go2hooks.core.domain.samples import example_payload
from go2hooks.kafka.partitions import position_of
from go2hooks.kafka.reading import LogReader, OffsetRange
from go2hooks.kafka.topics import TopicNames
from go2hooks.postgres import replaying
from go2hooks.postgres.pool import open_pool
from go2hooks.producer import new_event_id
from go2hooks.settings import Settings
from services.router.replay.finding import BATCH, Log
from services.router.replay.outbox import Outbox
from services.router.replay.pacing import Throttle
from services.router.replay.replayer import Replayer

PREFIX = f"replays{secrets.token_hex(4)}"
NAMES = TopicNames(PREFIX)
CODEC = EventCodec()
SAMPLES = {name: example_payload(name).data for name in ("click", "link.created")}


@pytest.fixture
def settings(kafka_bootstrap, database_url, secret_key):
    settings = Settings(
        kafka_bootstrap_servers=kafka_bootstrap, database_url=SecretStr(database_url), secret_keys=secret_key,
        kafka_prefix=PREFIX, topic_partitions=3,
    )  # fmt: skip
    make_topics(settings)
    return settings


class World:
    """An account with a webhook, its events and its records, and a replayer that takes a step when it is told to."""

    def __init__(self, settings, database, pool, reader):
        self.settings, self.database, self.reader = settings, database, reader
        self.account = f"acc_{secrets.token_hex(6)}"
        database.execute("INSERT INTO accounts (id) VALUES (%s)", [self.account])
        self.webhook_id = self.new_webhook()
        self.ends = self._ends()
        self.producer = Producer(
            {"bootstrap.servers": settings.kafka_bootstrap_servers, "partitioner": "murmur2_random"}
        )
        self.replayer = self.new_replayer(pool)

    def new_replayer(self, pool):
        log = Log(self.reader, NAMES, CODEC, "dep_1")
        outbox = Outbox(self.settings, lambda: False)
        return Replayer(
            pool, log, outbox, Throttle(10**6, lambda: 0), retention_days=30, pause=lambda s: time.sleep(s / 20)
        )

    def new_webhook(self, events="{click,link.created}"):
        webhook_id = f"wh_{secrets.token_hex(8)}"
        self.database.execute(
            "INSERT INTO webhooks (id, account_id, name, url, events, sealed_secret) VALUES (%s, %s, '', 'https://a.example/', %s, '')",
            [webhook_id, self.account, events],
        )
        return webhook_id

    def event(self, name="click", account=None, key=None):
        """One event in its topic. Returns the id of its delivery to the webhook."""
        event = Event(new_event_id(), account or self.account, name, time.time_ns() // 10**6, SAMPLES[name])
        self.producer.produce(NAMES.of_event[name], CODEC.encode(event), key or event.account_id)
        return delivery_id(event.id, self.webhook_id)

    def recorded(self, state, *, attempt=1, event="click", topic=NAMES.deliveries, hours_ago=1, kind="event"):
        """A delivery in its topic, and the record of how it stands."""
        event_id = new_event_id()
        at = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=hours_ago)
        delivery = Delivery(
            delivery_id(event_id, self.webhook_id), self.webhook_id, self.account, event_id, event, "2024-01-01T12:00:00Z",
            b'{"n":1}', attempt, 0, kind, round(at.timestamp() * 1000), suspect=False,
        )  # fmt: skip
        where = []
        self.producer.produce(
            topic, encode_delivery(delivery), self.webhook_id, on_delivery=lambda _, m: where.append(position_of(m))
        )
        assert self.producer.flush(20) == 0
        self.record(delivery, state, attempt, where[0], kind)
        return delivery

    def record(self, delivery, state, attempt, position=(None, None, None), kind="event"):
        self.database.execute(
            """INSERT INTO attempts (webhook_id, created_at, delivery_id, attempt, account_id, event_id, event, kind, state, attempted_at,
               kafka_topic, kafka_partition, kafka_offset) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, now(), %s, %s, %s)""",
            [delivery.webhook_id, datetime.fromtimestamp(delivery.origin_ms / 1000, UTC), delivery.id, attempt, self.account,
             delivery.event_id, delivery.event, kind, state, *position],
        )  # fmt: skip

    def replay(self, only, *, events=None, since=timedelta(days=1), until=timedelta(0), webhook_id=None):
        assert self.producer.flush(20) == 0
        now, replay_id = datetime.now(UTC), f"rpl_{secrets.token_hex(12)}"
        time.sleep(0.005)  # what was written a millisecond ago lies before the end
        self.database.execute(
            "INSERT INTO replays (id, webhook_id, account_id, selection, events, from_at, to_at) VALUES (%s, %s, %s, %s, %s, %s, %s)",
            [
                replay_id,
                webhook_id or self.webhook_id,
                self.account,
                only,
                events,
                now - since,
                datetime.now(UTC) - until,
            ],
        )
        return replay_id

    def shown(self, replay_id, *columns):
        return self.database.execute(f"SELECT {', '.join(columns)} FROM replays WHERE id = %s", [replay_id]).fetchone()

    def run(self, replay_id):
        """Until all is sent."""
        step_until(self.replayer.step, lambda: self.shown(replay_id, "all_sent OR finished_at IS NOT NULL")[0])

    def sent(self):
        """What replays have written since the test began, to webhooks of its account."""
        ends = self._ends()
        messages = self.reader.read([OffsetRange(key, self.ends[key], end) for key, end in ends.items()])
        deliveries = [decode_delivery(message.value()) for message in messages]
        return [d for d in deliveries if d.account_id == self.account and d.kind == Kind.REPLAY]

    def _ends(self):
        return self.reader.ends(self.reader.partitions([NAMES.deliveries]))


@pytest.fixture
def world(settings, database):
    with open_pool(settings, service="replayer", max_size=2) as pool, LogReader(settings) as reader:
        world = World(settings, database, pool, reader)
        world.pool = pool
        yield world
        world.replayer.close()


def test_failed_deliveries_are_sent_again_from_where_their_records_say(world):
    failed = world.recorded("failed", attempt=6, topic=NAMES.retry(5.0))
    for state in ("delivered", "skipped", "retrying"):
        world.recorded(state)
    world.recorded("failed", kind="test")
    replay = world.replay("failed")
    world.run(replay)
    assert world.sent() == [
        failed._replace(attempt=7, first_attempt=7, kind=Kind.REPLAY, suspect=True, deployment="dep_1")
    ]
    assert world.shown(replay, "matched", "sent", "expired") == (1, 1, 0)


def test_skipped_deliveries_are_sent_again_in_the_order_of_their_events(world):
    skipped = [world.recorded("skipped", hours_ago=hours) for hours in (3, 5, 4)]
    world.run(world.replay("skipped"))
    assert [d.id for d in world.sent()] == [skipped[n].id for n in (1, 2, 0)]
    assert {(d.attempt, d.first_attempt) for d in world.sent()} == {(2, 2)}


def test_a_delivery_counts_by_its_last_attempt(world):
    again = world.recorded("failed", attempt=6)
    world.record(again, "delivered", 7)
    twice = world.recorded("skipped")
    world.record(twice, "skipped", 2, (NAMES.deliveries, 0, 10**9))  # whose message has expired
    world.run(world.replay("failed"))
    replay = world.replay("skipped", webhook_id=world.webhook_id) if _end(world) else None
    world.run(replay)
    assert world.sent() == []
    assert world.shown(replay, "matched", "sent", "expired") == (1, 0, 1)


def _end(world):
    """Let the replay that is sent come to its end."""
    step_until(
        world.replayer.step,
        lambda: not world.database.execute("SELECT 1 FROM replays WHERE finished_at IS NULL").fetchall(),
    )
    return True


def test_only_what_was_asked_for_and_is_subscribed_to_is_sent(world):
    world.recorded("failed", event="qr.scanned")  # not subscribed to any more
    world.recorded("failed", hours_ago=30)  # before the range
    world.recorded("failed", hours_ago=2)  # after it
    wanted = world.recorded("failed", event="link.created", hours_ago=5)
    world.recorded("failed", hours_ago=5)
    world.run(world.replay("failed", events=["link.created"], until=timedelta(hours=3)))
    assert [d.id for d in world.sent()] == [wanted.id]


def test_a_new_webhook_gets_the_events_that_lie_in_the_log(world):
    missed = [world.event() for _ in range(3)]
    created = world.event("link.created")
    known = world.event()
    for _ in range(3):
        world.event(account="somebody else")
    world.producer.flush(20)
    late = world.new_webhook("{link.created}")
    replay = world.replay("missed")
    before = next(d for d in _events(world) if d.id == known)
    world.record(before, "delivered", 1)
    world.run(replay)
    sent = world.sent()
    clicks = [d.id for d in sent if d.event == "click"]
    assert clicks == missed
    assert [d.id for d in sent if d.event != "click"] == [created]
    assert {(d.attempt, d.kind, d.webhook_id) for d in sent} == {(1, "replay", world.webhook_id)}
    assert world.shown(replay, "matched", "sent", "unread") == (4, 4, 0)
    world.run(world.replay("missed", webhook_id=late))
    assert [d.event for d in world.sent() if d.webhook_id == late] == ["link.created"]


def test_a_webhook_s_filter_holds_for_what_it_missed(world):
    wanted = world.event()
    world.event("link.created")
    country = SAMPLES["click"]["country"]
    world.database.execute(
        "UPDATE webhooks SET filter = %s WHERE id = %s", [json.dumps({"country": [country]}), world.webhook_id]
    )
    world.run(world.replay("missed"))
    assert [d.id for d in world.sent()] == [wanted]


def _events(world):
    """What the events in the log ask for."""
    log, reader = Log(world.reader, NAMES, CODEC, "dep_1"), world.reader
    keys = reader.partitions(NAMES.events)
    starts, ends = reader.starts(keys), reader.ends(keys)
    messages = list(reader.read([OffsetRange(key, starts[key], ends[key]) for key in keys]))
    return [
        log.delivery_of(message, world.webhook_id) for message in messages if message.key() == world.account.encode()
    ]


def test_everything_is_sent_again_but_for_what_is_still_under_way(world):
    ids = [world.event() for _ in range(4)]
    world.producer.flush(20)
    found = {d.id: d for d in _events(world)}
    for id_, state, attempt in zip(ids, ("delivered", "failed", "retrying"), (1, 6, 2), strict=False):
        world.record(found[id_], state, attempt)
    world.run(world.replay("all"))
    assert {(d.id, d.attempt) for d in world.sent()} == {(ids[0], 2), (ids[1], 7), (ids[3], 1)}


def test_a_replay_is_done_when_all_that_it_sent_is_decided(world):
    failed = [world.recorded("failed", attempt=6) for _ in range(4)]
    replay = world.replay("failed")
    world.run(replay)
    assert world.shown(replay, "status", "sent", "delivered") == ("running", 4, 0)
    for delivery, state in zip(failed, ("delivered", "failed", "skipped", "retrying"), strict=True):
        world.record(delivery, state, 7, kind="replay")
    step_until(world.replayer.step, lambda: world.shown(replay, "delivered + failed + skipped")[0] == 3)
    assert world.shown(replay, "status", "delivered", "failed", "skipped") == ("running", 1, 1, 1)
    world.record(failed[3], "delivered", 8, kind="replay")
    step_until(world.replayer.step, lambda: world.shown(replay, "status")[0] == "done")
    assert world.shown(replay, "delivered", "failed", "skipped", "finished_at IS NULL") == (2, 1, 1, False)


def test_nothing_is_sent_of_a_replay_that_was_stopped(world):
    world.recorded("failed")
    replay = world.replay("failed")
    world.database.execute("UPDATE replays SET status = 'stopped', finished_at = now() WHERE id = %s", [replay])
    for _ in range(5):
        world.replayer.step()
    assert world.sent() == []


def test_a_webhook_that_is_disabled_meanwhile_ends_its_replay_with_the_reason(world):
    world.recorded("failed")
    world.database.execute("UPDATE webhooks SET is_active = false WHERE id = %s", [world.webhook_id])
    replay = world.replay("failed")
    world.run(replay)
    status, error = world.shown(replay, "status", "error")
    assert (status, world.sent()) == ("failed", [])
    assert "disabled" in error


def test_a_deleted_webhook_s_replay_ends(world):
    world.recorded("failed")
    world.database.execute("UPDATE webhooks SET deleted_at = now() WHERE id = %s", [world.webhook_id])
    replay = world.replay("failed")
    world.run(replay)
    assert (world.shown(replay, "status")[0], world.sent()) == ("stopped", [])


def test_a_batch_that_kafka_may_not_have_is_sent_under_the_same_numbers(world):
    """As after a crash between writing down and sending; meanwhile one of its deliveries was made."""
    failed = [world.recorded("failed", attempt=6) for _ in range(3)]
    replay = world.replay("failed")
    world.replayer._outbox.write = lambda _: False  # it ends there
    step_until(world.replayer.step, lambda: world.shown(replay, "unsent")[0] == 3)
    world.replayer.close()
    world.record(failed[0], "failed", 7, kind="replay")  # by a former life's message
    world.replayer = world.new_replayer(world.pool)
    world.run(replay)
    attempts = Counter((d.id, d.attempt) for d in world.sent())
    assert set(attempts) >= {(failed[1].id, 7), (failed[2].id, 7)}
    assert all(attempt == 7 for _, attempt in attempts)
    assert world.shown(replay, "matched", "sent", "unsent") == (3, 3, 0)


def test_somebody_else_goes_on_once_a_lease_has_ended(world):
    world.recorded("failed")
    replay = world.replay("failed")
    with world.pool.connection() as connection:
        assert replaying.claim(connection, "one that dies", []).id == replay
        for _ in range(3):
            world.replayer.step()
        assert world.sent() == []
        world.database.execute("UPDATE replays SET leased_until = now() WHERE id = %s", [replay])
        world.run(replay)
        assert len(world.sent()) == 1
        assert replaying.renew(connection, replay, "one that dies") is None


def test_messages_far_apart_are_read_one_by_one_and_expired_ones_are_left_out(settings, world):
    where = []
    for n in range(6000):
        world.producer.produce(
            NAMES.retry(3600.0), str(n), partition=n % 2, on_delivery=lambda _, m: where.append(position_of(m))
        )
        world.producer.poll(0)
    assert world.producer.flush(30) == 0
    wanted = [where[0], where[1], where[2], where[5998], where[5999], where[-1]._replace(offset=10**9)]
    found = [position_of(message) for message in world.reader.read_at(wanted)]
    assert sorted(found) == sorted(set(wanted[:-1]))


def test_a_replayer_that_is_killed_twice_loses_nothing_and_repeats_only_what_is_recognised(world):
    count = 4000
    ids = {world.event() for _ in range(count)}
    replay = world.replay("missed")
    env = clean_environment() | {
        "GO2HOOKS_KAFKA_BOOTSTRAP_SERVERS": world.settings.kafka_bootstrap_servers,
        "GO2HOOKS_DATABASE_URL": world.settings.database_url.get_secret_value(),
        "GO2HOOKS_KAFKA_PREFIX": PREFIX,
        "GO2HOOKS_METRICS_PORT": "0",
        "GO2HOOKS_REPLAY_PER_S": "100000",
    }
    for enough in (count // 4, count // 2, count):
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "services.router.replay"], env=env, stderr=subprocess.DEVNULL
        )
        try:
            eventually(lambda enough=enough: world.shown(replay, "sent")[0] >= enough)
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        world.database.execute("UPDATE replays SET leased_until = now() WHERE id = %s", [replay])
    sent = Counter((d.id, d.attempt) for d in world.sent())
    assert {id_ for id_, _ in sent} == ids  # nothing is lost, and each under one number
    assert len(sent) == count
    assert sum(sent.values()) - count <= 2 * BATCH  # a batch for each time that it was killed
    assert world.shown(replay, "matched", "sent") == (count, count)
