"""`examples/outbox` on a real database and a real broker: what was committed arrives, whoever is killed when."""

import os
import random
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from contextlib import contextmanager
from importlib import util
from pathlib import Path

import psycopg
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from psycopg import errors as sql_errors
from usable_topics import configure, make_topics, watermarks
from waiting import eventually

from go2hooks.codec import EventCodec
from go2hooks.core.domain.event import Event, EventType
from go2hooks.core.domain.samples import example_payload
from go2hooks.core.errors import InvalidEventError
from go2hooks.devstack.broker import Broker
from go2hooks.kafka.topics import TopicNames
from go2hooks.producer import new_event_id
from go2hooks.settings import Settings

NAMES = TopicNames("go2")

EXAMPLE = Path(__file__).parents[2] / "examples" / "outbox"
TOPIC = NAMES.of_event[EventType.LINK_CREATED]
CODEC = EventCodec()


def load(name):
    spec = util.spec_from_file_location(f"outbox_{name}", EXAMPLE / f"{name}.py")
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


links, relay = load("links"), load("relay")


@pytest.fixture
def outbox(database_url):
    """A connection to a database that has the example's tables."""
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute((EXAMPLE / "outbox.sql").read_text())
        conn.execute(links.LINKS)
        yield conn


@pytest.fixture
def account():
    """The topics are shared by all tests: accounts that begin like this are ours."""
    return f"acc_{secrets.token_hex(6)}"


@pytest.fixture
def kafka(kafka_bootstrap):
    make_topics(Settings(kafka_bootstrap_servers=kafka_bootstrap))
    return kafka_bootstrap


@pytest.fixture
def start_relay(database_url, tmp_path):
    """`start_relay(kafka)`: the example as a process of its own."""
    running = []

    def start(kafka):
        command = [sys.executable, str(EXAMPLE / "relay.py"), "--database", database_url, "--kafka", kafka]
        with (tmp_path / "relay.log").open("ab") as log:
            running.append(subprocess.Popen(command, stdout=log, stderr=log))
        return running[-1]

    yield start
    for process in running:
        process.kill()
        process.wait()


def is_empty(outbox):
    return outbox.execute("SELECT count(*) FROM outbox").fetchone() == (0,)


def write(conn, account, number):
    with conn.transaction():
        return links.create_link(conn, account, f"slug-{number}")


@contextmanager
def reader(kafka):
    """Reads the topic from its beginning."""
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": "nobody", "enable.auto.commit": False})
    partitions = consumer.list_topics(TOPIC, timeout=20).topics[TOPIC].partitions
    consumer.assign([TopicPartition(TOPIC, number, OFFSET_BEGINNING) for number in partitions])
    try:
        yield consumer
    finally:
        consumer.close()


def arrived(kafka, account):
    """Ids of all events of accounts that begin so, by account, in the order of their arrival."""
    ids = defaultdict(list)
    with reader(kafka) as consumer:
        ends = {p.partition: watermarks(consumer, p)[1] for p in consumer.assignment()}
        while any(
            p.offset < ends[p.partition] for p in consumer.position(consumer.assignment()) if ends[p.partition] > 0
        ):
            message = consumer.poll(1.0)
            if message is not None and message.error() is None and message.key().startswith(account.encode()):
                ids[message.key().decode()].append(CODEC.decode(message.value()).id)
    return ids


def first_seen(ids):
    return list(dict.fromkeys(ids))


def test_a_link_and_its_event_are_committed_together_and_the_event_arrives(outbox, kafka, account, start_relay):
    written = [write(outbox, account, number) for number in range(20)]
    start_relay(kafka)
    eventually(lambda: is_empty(outbox))
    assert arrived(kafka, account) == {account: written}
    assert outbox.execute("SELECT count(*) FROM links").fetchone() == (20,)


def test_a_transaction_that_is_rolled_back_sends_nothing(outbox, kafka, account, start_relay):
    start_relay(kafka)
    with pytest.raises(sql_errors.DivisionByZero), outbox.transaction():  # noqa: PT012  # the block is what is tested
        links.create_link(outbox, account, "never")
        outbox.execute("SELECT 1 / 0")
    written = write(outbox, account, 1)  # a later one: once it is there, the other would have been
    eventually(lambda: is_empty(outbox))
    assert arrived(kafka, account) == {account: [written]}
    assert outbox.execute("SELECT slug FROM links").fetchall() == [("slug-1",)]


def test_a_relay_killed_between_acknowledgement_and_delete_sends_again_with_the_same_ids(
    outbox, kafka, account, start_relay
):
    written = [write(outbox, account, number) for number in range(10)]
    with hung_delete(outbox):
        first = start_relay(kafka)
        eventually(lambda: is_deleting(outbox))
        assert arrived(kafka, account) == {account: written}  # so Kafka has acknowledged, and no row is gone
        first.send_signal(signal.SIGKILL)
        first.wait()
        eventually(lambda: not is_deleting(outbox, terminate=True))
    assert outbox.execute("SELECT count(*) FROM outbox").fetchone() == (10,)
    start_relay(kafka)
    eventually(lambda: is_empty(outbox))
    assert arrived(kafka, account) == {account: written * 2}


@contextmanager
def hung_delete(outbox):
    """Whoever deletes from the outbox stays there."""
    outbox.execute("""CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN PERFORM pg_sleep(300); RETURN OLD; END'""")
    outbox.execute("CREATE TRIGGER hang BEFORE DELETE ON outbox FOR EACH STATEMENT EXECUTE FUNCTION hang()")
    yield
    outbox.execute("DROP TRIGGER hang ON outbox")


def is_deleting(outbox, *, terminate=False):
    """A server process notices that its client is gone only once it has something to say: asked to, end it."""
    action = "pg_terminate_backend(pid)" if terminate else "pid"
    found = outbox.execute(
        f"SELECT {action} FROM pg_stat_activity WHERE query LIKE 'DELETE FROM outbox%' AND state = 'active'"
        " AND datname = current_database()"
    )
    return bool(found.fetchall())


def test_relays_killed_at_random_moments_lose_nothing_and_keep_each_accounts_order(
    outbox, kafka, account, start_relay, database_url
):
    source = random.Random(20261124)
    written = defaultdict(list)
    over = threading.Event()

    def produce():
        with psycopg.connect(database_url, autocommit=True) as conn:
            while not over.is_set():
                each = f"{account}-{source.randrange(5)}"
                written[each].append(write(conn, each, len(written[each])))

    producing = threading.Thread(target=produce)
    producing.start()
    kills = random.Random(7)
    for _ in range(8):
        relays = [start_relay(kafka) for _ in range(2)]
        before = left_so_far(outbox)
        eventually(lambda before=before: left_so_far(outbox) > before)
        time.sleep(kills.uniform(0, 0.3))
        for process in relays:
            process.kill()
            process.wait()
    over.set()
    producing.join()
    start_relay(kafka)
    eventually(lambda: is_empty(outbox))
    seen = arrived(kafka, account)
    assert {each: first_seen(ids) for each, ids in seen.items()} == written


def left_so_far(outbox):
    """How many events have left the outbox: those ever written, less those that are there."""
    return outbox.execute("SELECT (SELECT count(*) FROM links) - (SELECT count(*) FROM outbox)").fetchone()[0]


def test_two_relays_at_once_send_each_event_once_and_in_order(outbox, kafka, account, start_relay, database_url):
    """Also while four writers race for the same accounts: an account's order is that of its commits."""
    started = [start_relay(kafka) for _ in range(2)]
    committed = defaultdict(list)

    def produce():
        with psycopg.connect(database_url, autocommit=True) as conn:
            for number in range(150):
                each = f"{account}-{number % 3}"
                with conn.transaction():
                    event_id = links.create_link(conn, each, f"slug-{number}")
                    conn.execute("INSERT INTO commits (account_id, event_id) VALUES (%s, %s)", [each, event_id])

    outbox.execute("CREATE TABLE commits (n bigserial, account_id text, event_id text)")
    writers = [threading.Thread(target=produce) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    eventually(lambda: is_empty(outbox))
    for each, event_id in outbox.execute("SELECT account_id, event_id FROM commits ORDER BY n").fetchall():
        committed[each].append(event_id)
    assert arrived(kafka, account) == committed
    assert [process.poll() for process in started] == [None, None]


def test_relays_share_accounts_and_never_one_account(outbox, account, database_url):
    """Who has an account's oldest event has all of that account's; the others get the next accounts."""
    for number in range(6):
        write(outbox, f"{account}-{number % 2}", number)
    with psycopg.connect(database_url) as one, psycopg.connect(database_url) as other:
        held = one.execute(relay.TAKE.replace("LIMIT 100", "LIMIT 1")).fetchall()
        rest = other.execute(relay.TAKE).fetchall()
        nothing = outbox.execute(relay.TAKE).fetchall()
    assert [len({row[1] for row in rows}) for rows in (held, rest)] == [1, 1]
    assert (len(held), len(rest), nothing) == (3, 3, [])
    assert held[0][1] != rest[0][1]


def test_while_kafka_is_away_the_outbox_keeps_and_then_all_of_it_arrives_once(
    outbox, account, start_relay, servers_dir
):
    broker = Broker(servers_dir / "kafka-of-the-outbox")
    with broker:
        make_topics(Settings(kafka_bootstrap_servers=broker.bootstrap))
        process = start_relay(broker.bootstrap)
        written = [write(outbox, account, 0)]
        eventually(lambda: is_empty(outbox))
        broker.stop()
        written += [write(outbox, account, number) for number in range(1, 21)]
        time.sleep(2.0)  # it tries, and must neither delete nor die
        assert outbox.execute("SELECT count(*) FROM outbox").fetchone() == (20,)
        assert process.poll() is None
        broker.start()
        broker.wait_ready()
        eventually(lambda: is_empty(outbox))
        assert arrived(broker.bootstrap, account) == {account: written}


def test_a_relay_asked_to_stop_while_kafka_is_away_ends_and_leaves_all_in_the_outbox(outbox, account, start_relay):
    write(outbox, account, 1)
    process = start_relay("127.0.0.1:1")  # nothing listens there
    eventually(lambda: is_taken(outbox))
    process.terminate()
    assert process.wait(20) == 0
    assert outbox.execute("SELECT count(*) FROM outbox").fetchone() == (1,)


def is_taken(outbox):
    return outbox.execute(relay.TAKE).fetchall() == []


def test_a_relay_survives_the_end_of_its_database_session(outbox, kafka, account, start_relay):
    process = start_relay(kafka)
    written = [write(outbox, account, 1)]
    eventually(lambda: is_empty(outbox))
    outbox.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                   " AND datname = current_database()")  # fmt: skip
    written.append(write(outbox, account, 2))
    eventually(lambda: is_empty(outbox))
    assert first_seen(arrived(kafka, account)[account]) == written
    assert process.poll() is None


def test_an_event_that_could_never_be_sent_ends_its_transaction(outbox, account):
    bad = example_payload("click")._replace(account_id=account, data={"linkId": 1})
    with pytest.raises(InvalidEventError), outbox.transaction():
        links.put(outbox, bad)
    assert is_empty(outbox)


def test_an_event_that_kafka_refuses_stands_in_nobodys_way(outbox, kafka, account, start_relay):
    huge = example_payload("click")
    huge = Event(new_event_id(), account, huge.type, huge.timestamp_ms, huge.data | {"slug": "x" * 2_000_000})
    before = write(outbox, account, 1)
    with outbox.transaction():
        links.put(outbox, huge)
    after = write(outbox, account, 2)
    start_relay(kafka)
    eventually(lambda: len(left(outbox)) == 1)
    [(event_id, refused)] = left(outbox)
    assert event_id == huge.id
    assert "too large" in refused
    assert arrived(kafka, account) == {account: [before, after]}


@pytest.fixture
def narrow(kafka):
    """`narrow(size)`: from now on brokers take no larger batches of these events, as if somebody had changed the topic."""
    yield lambda size: configure(kafka, TOPIC, {"max.message.bytes": str(size)})
    make_topics(Settings(kafka_bootstrap_servers=kafka))


def put_link_of_size(outbox, account, size):
    event = example_payload("link.created")
    event = event._replace(id=new_event_id(), account_id=account, data=event.data | {"slug": "x" * size})
    with outbox.transaction():
        links.put(outbox, event)
    return event.id


def test_an_event_that_a_broker_refuses_stands_in_nobodys_way(outbox, kafka, account, start_relay, narrow):
    narrow(500_000)
    before = write(outbox, account, 1)
    huge = put_link_of_size(outbox, account, 600_000)
    after = [write(outbox, account, number) for number in range(20)]
    start_relay(kafka)
    eventually(lambda: len(left(outbox)) == 1)
    [(event_id, refused)] = left(outbox)
    assert event_id == huge
    assert "too large" in refused
    assert arrived(kafka, account) == {account: [before, *after]}


def test_an_event_in_a_batch_that_a_broker_refuses_arrives_all_the_same(outbox, kafka, account, start_relay, narrow):
    """Together they are too large, and each but one is not."""
    narrow(10_000)
    small = [put_link_of_size(outbox, account, 3_000) for _ in range(20)]
    huge = put_link_of_size(outbox, account, 11_000)
    start_relay(kafka)
    eventually(lambda: len(left(outbox)) == 1)
    assert [event_id for event_id, _ in left(outbox)] == [huge]
    assert set(arrived(kafka, account)[account]) == set(small)


def left(outbox):
    return outbox.execute("SELECT event_id, refused FROM outbox").fetchall()


def test_nothing_behind_an_event_that_kafka_does_not_have_is_deleted():
    rows = [relay.Row(position, account, b"") for position, account in enumerate("aabbab")]
    answers = {0: None, 1: OSError(), 2: None, 3: None, 4: None}  # of 5 nothing was heard
    assert list(relay.acknowledged(rows, answers)) == [0, 2, 3]
    answers[1] = InvalidEventError()  # which it will never have
    assert list(relay.acknowledged(rows, answers)) == [0, 2, 3, 4]


def test_the_example_is_what_the_guide_says(outbox, database_url, account):
    """As a copier would run it: `links.py` writes one row, and prints the event's id."""
    command = [sys.executable, str(EXAMPLE / "links.py"), "--database", database_url, "--account", account]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ, timeout=60).stdout
    assert left(outbox) == [(printed.strip(), None)]


def test_the_query_of_the_guide_tells_how_long_the_oldest_event_waits(outbox, account):
    page = (EXAMPLE.parents[1] / "docs/producers.md").read_text(encoding="utf-8")
    found = re.search(r"`(SELECT now\(\) - .* FROM outbox .*)`", page)
    assert found is not None
    assert outbox.execute(found[1]).fetchone() is None
    refused = write(outbox, account, 1)
    outbox.execute("UPDATE outbox SET refused = 'too large' WHERE event_id = %s", [refused])
    assert outbox.execute(found[1]).fetchone() is None
    oldest = write(outbox, account, 2)
    outbox.execute("UPDATE outbox SET written_at = written_at - interval '1 hour' WHERE event_id = %s", [oldest])
    write(outbox, account, 3)
    [age] = outbox.execute(found[1]).fetchone()
    assert 3600 <= age.total_seconds() < 3660
