"""Dead letters: to be listed, looked at, and sent back after a fix, once."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from burying import writer
from click.testing import CliRunner, Result
from usable_topics import make_topics

from go2hooks.cli import main
from go2hooks.codec import EventCodec, encode_delivery
from go2hooks.core.domain.delivery import Delivery, delivery_id
from go2hooks.core.domain.event import Event, EventType
from go2hooks.core.domain.samples import example_payload
from go2hooks.kafka.reading import LogReader, OffsetRange
from go2hooks.kafka.topics import TopicNames
from go2hooks.postgres.webhooks import NewWebhook, create
from go2hooks.producer import new_event_id
from go2hooks.settings import load_settings

NAMES = TopicNames("go2")

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="


@pytest.fixture
def settings(kafka_bootstrap, database_url, monkeypatch):
    monkeypatch.setenv("GO2HOOKS_KAFKA_BOOTSTRAP_SERVERS", kafka_bootstrap)
    monkeypatch.setenv("GO2HOOKS_DATABASE_URL", database_url)
    monkeypatch.setenv("GO2HOOKS_RETRY_DELAYS", "200ms")
    monkeypatch.setenv("GO2HOOKS_TOPIC_PARTITIONS", "2")
    make_topics(found := load_settings())
    return found


@pytest.fixture
def cli(settings) -> Callable[..., Result]:
    return lambda *arguments, color=False: CliRunner(env={"COLUMNS": "300"}).invoke(
        main, ["dead", *arguments], color=color
    )


@pytest.fixture
def write(kafka_bootstrap):
    """`write(topic, key, value, headers)` returns the message's place as the commands name it."""
    return writer(kafka_bootstrap)


def messages(settings, topic):
    with LogReader(settings) as reader:
        keys = reader.partitions([topic])
        starts, ends = reader.starts(keys), reader.ends(keys)
        return list(reader.read([OffsetRange(key, starts[key], ends[key]) for key in keys]))


def an_event(event_id=None):
    data = example_payload(EventType.CLICK).data
    return Event(event_id or new_event_id(), "acme", EventType.CLICK, 1_700_000_000_000, data)


def a_delivery(webhook_id, attempt, event_id=None):
    event_id = event_id or new_event_id()
    return Delivery(
        delivery_id(event_id, webhook_id), webhook_id, "acme", event_id, "click", "2024-01-01T12:00:00Z", b'{"event":"click"}',
        attempt, 0, "event", time.time_ns() // 1_000_000, suspect=False,
    )  # fmt: skip


def test_an_event_goes_back_as_it_came_and_only_once(cli, settings, write):
    raw = EventCodec().encode(an_event(event_id := new_event_id()))
    where = write(NAMES.events_dead, b"acme", raw, reason="undecodable", detail="no such schema",
                  topic=NAMES.of_event["click"], partition=1, offset=7)  # fmt: skip
    listed = cli("list", "events")
    assert listed.exit_code == 0, listed.output
    [line] = [line for line in listed.output.splitlines() if where in line]
    assert event_id in line
    assert "undecodable" in line

    before = len(messages(settings, NAMES.of_event["click"]))
    asked = cli("requeue", where)
    assert (asked.exit_code, "1 would be sent back. Add --yes" in asked.output) == (0, True), asked.output
    assert len(messages(settings, NAMES.of_event["click"])) == before

    done = cli("requeue", where, "--yes")
    assert (done.exit_code, "1 sent back" in done.output) == (0, True), done.output
    back = [m for m in messages(settings, NAMES.of_event["click"]) if m.value() == raw]
    assert [m.key() for m in back] == [b"acme"]

    assert "0 sent back" in cli("requeue", where, "--yes").output
    assert "1 sent back" in cli("requeue", where, "--yes", "--again").output
    assert re.search(r"sent back:\s+20\d\d-", cli("show", where).output)


def test_what_a_producer_wrote_steers_no_terminal_and_makes_up_no_line(cli, write):
    raw = EventCodec().encode(an_event("evt_\x1b]0;x\x07\nevents/0/0"))
    where = write(NAMES.events_dead, b"\x1b[2J", raw, reason="invalid", detail="\x1b[31m",
                  topic=NAMES.of_event["click"], partition=1, offset=7)  # fmt: skip
    for command in ("list", "events"), ("show", where), ("requeue", where):
        shown = cli(*command, color=True).output
        assert r"evt_\x1b]0;x\x07\nevents/0/0" in shown
        assert not {"\x1b", "\x07"} & set(shown)


def test_what_still_cannot_be_read_is_shown_in_bytes(cli, write):
    where = write(NAMES.events_dead, None, b"\xc3\x01garbage", reason="undecodable", detail="no such schema",
                  topic=NAMES.of_event["click"], partition=1, offset=7)  # fmt: skip
    shown = cli("show", where).output
    assert "undecodable: no such schema" in shown
    assert "came from:   go2.events.click/1/7" in shown
    assert "9 bytes:     c3 01 67 61 72" in shown
    assert cli("show", "events/0/999999").exit_code == 1
    assert cli("show", "somewhere/0/1").exit_code == 2


def test_filters_leave_what_they_name(cli, write):
    hook = f"wh_{time.time_ns()}"
    first = write(NAMES.deliveries_dead, hook, encode_delivery(a_delivery(hook, 6)), reason="timeout", detail="t")
    second = write(NAMES.deliveries_dead, hook, encode_delivery(a_delivery(hook, 6)), reason="bad_status", detail="b")
    other = write(NAMES.deliveries_dead, "wh_x", encode_delivery(a_delivery("wh_x", 6)), reason="timeout", detail="t")

    def listed(*filters):
        output = cli("list", "deliveries", *filters).output
        return [where for where in (first, second, other) if f" {where} " in output]

    assert listed() == [first, second, other]
    assert listed("--webhook", hook) == [first, second]
    assert listed("--webhook", hook, "--reason", "timeout") == [first]
    assert listed("--since", "1h") == [first, second, other]
    assert listed("--until", "1h") == []
    assert listed("--since", "2100-01-01") == []
    assert cli("list", "deliveries", "--since", "yesterday").exit_code == 2


def test_nothing_is_sent_where_a_forged_header_points(cli, write):
    where = write(
        NAMES.events_dead, None, b"x", reason="undecodable", topic="__consumer_offsets", partition=0, offset=1
    )
    done = cli("requeue", where, "--yes")
    assert done.exit_code == 1
    assert f"Nobody knows where these came from, or they were too large to be kept: {where}" in done.output


def test_a_delivery_that_was_unreadable_goes_back_to_its_own_topic(cli, settings, write):
    raw = b"\xc3\x01" + json.dumps(time.time()).encode()
    where = write(NAMES.deliveries_dead, "wh_1", raw, reason="undecodable", position=f"{NAMES.deliveries}/0/3")
    assert cli("requeue", where, "--yes").exit_code == 0
    assert [m.key() for m in messages(settings, NAMES.deliveries) if m.value() == raw] == [b"wh_1"]


class Receiver(ThreadingHTTPServer):
    """Answers 500 until it is mended."""

    daemon_threads = True

    def __init__(self) -> None:
        self.status = 500
        self.attempts: list[str] = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        self.server.attempts.append(self.headers["X-Webhook-Attempt"])
        self.send_response(self.server.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_a_delivery_goes_through_its_schedule_again_with_its_attempts_numbered_on(
    cli, settings, write, run_service, receiver, database, secret_box
):
    hook = f"wh_{time.time_ns()}"
    database.execute("INSERT INTO accounts (id) VALUES ('acme')")
    url = f"http://127.0.0.1:{receiver.server_address[1]}/"
    create(database, NewWebhook(hook, "acme", "n", url, ["*"], secret_box.seal(SECRET, hook)), 10)
    run_service(
        "dispatcher",
        GO2HOOKS_RETRY_DELAYS="200ms", GO2HOOKS_ALLOW_INSECURE_TARGETS="true", GO2HOOKS_CIRCUIT_PROBE_MS="100",
    )  # fmt: skip
    write(NAMES.deliveries, hook, encode_delivery(a_delivery(hook, 1)))

    def rows():
        query = "SELECT attempt, state, kind FROM attempts WHERE webhook_id = %s AND attempt > 0 ORDER BY attempt"
        return database.execute(query, [hook]).fetchall()

    def wait_for(*expected):
        deadline = time.monotonic() + 30
        while rows() != list(expected):
            assert time.monotonic() < deadline, rows()
            time.sleep(0.05)

    first = (1, "retrying", "event"), (2, "failed", "event")
    wait_for(*first)
    assert "1 sent back" in cli("requeue", "--kind", "deliveries", "--webhook", hook, "--yes").output
    second = (3, "retrying", "replay"), (4, "failed", "replay")
    wait_for(*first, *second)
    receiver.status = 200
    assert "1 sent back" in cli("requeue", "--kind", "deliveries", "--webhook", hook, "--yes").output
    wait_for(*first, *second, (5, "delivered", "replay"))
    assert receiver.attempts == ["1", "2", "3", "4", "5"]
