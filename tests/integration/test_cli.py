"""The command line against a real Kafka and a real Postgres."""

import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import psycopg
import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType
from environment import clean_environment
from usable_topics import configure, make_topics, watermarks

from go2hooks.codec import EventCodec
from go2hooks.core.domain.event import PRODUCED, Event
from go2hooks.core.domain.samples import sample_data
from go2hooks.core.security.signing import body_signature, standard_signature
from go2hooks.devstack.processes import free_port
from go2hooks.kafka.topics import TopicNames
from go2hooks.postgres.client_certificates import StoredCertificate, put
from go2hooks.postgres.secrets import SecretBox
from go2hooks.settings import Settings

NAMES = TopicNames("go2")

GO2HOOKS = Path(sys.executable).with_name("go2hooks")
KEY = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE="
SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="

Cli = Callable[..., subprocess.CompletedProcess]


@pytest.fixture
def cli(kafka_bootstrap: str, database_url: str, tmp_path: Path) -> Cli:
    """`cli("topics")` runs it against this test's servers."""
    env = clean_environment() | {
        "GO2HOOKS_KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap,
        "GO2HOOKS_DATABASE_URL": database_url,
        "GO2HOOKS_SECRET_KEYS": KEY,
        "GO2HOOKS_TOPIC_PARTITIONS": "2",
        "COLUMNS": "200",
    }

    def run(*arguments: str, stdin: str = "", **more_env: str) -> subprocess.CompletedProcess:
        command = [GO2HOOKS, *arguments]
        return subprocess.run(
            command,
            cwd=tmp_path,
            env=env | more_env,
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=90,
            check=False,
        )

    return run


@pytest.fixture
def topics(kafka_bootstrap: str) -> None:
    """As `cli("topics")` leaves them."""
    make_topics(Settings(kafka_bootstrap_servers=kafka_bootstrap, topic_partitions=2))


def events_of(kafka_bootstrap: str, account: str) -> list[Event]:
    """Every event of the account that is in Kafka now."""
    consumer = Consumer({"bootstrap.servers": kafka_bootstrap, "group.id": "reader", "auto.offset.reset": "earliest"})
    metadata = consumer.list_topics(timeout=10).topics
    ends = {
        (topic, partition): watermarks(consumer, TopicPartition(topic, partition))[1]
        for topic in NAMES.events
        for partition in metadata[topic].partitions
    }
    consumer.assign([TopicPartition(topic, partition, 0) for (topic, partition), end in ends.items() if end])
    messages, codec = [], EventCodec()
    while len(messages) < sum(ends.values()):
        message = consumer.poll(10)
        assert message is not None
        messages.append(message)
    consumer.close()
    return [codec.decode(message.value()) for message in messages if message.key() == account.encode()]


@pytest.mark.usefixtures("topics")
def test_made_up_events_of_every_type_arrive(cli: Cli, kafka_bootstrap: str):
    result = cli("emit", "all", "--account", "made-up", "--count", "12")
    assert result.returncode == 0, result.stderr
    assert sorted(event.type for event in events_of(kafka_bootstrap, "made-up")) == sorted([*PRODUCED, *PRODUCED])


@pytest.mark.usefixtures("topics")
def test_a_bad_line_is_named_and_the_others_are_sent(cli: Cli, kafka_bootstrap: str):
    good = {"qrId": "qr_1", "linkId": "l", "slug": "s", "domain": "d", "destinationUrl": "https://example.com"}
    lines = [
        {"data": good},
        {"data": {"nonsense": 1}},
        {"id": "evt_2", "timestamp": "2024-01-01T12:00:00Z", "data": good},
    ]
    stdin = "\n".join([json.dumps(lines[0]), "{oops", json.dumps(lines[1]), "", json.dumps(lines[2])])
    result = cli("emit", "qr.scanned", "--account", "from-lines", "--file", "-", stdin=stdin)
    assert result.returncode == 1
    assert "line 2: not JSON" in result.stderr
    assert "2 were not sent" in result.stderr
    events = events_of(kafka_bootstrap, "from-lines")
    assert len(events) == 2
    assert {event.timestamp_ms for event in events} >= {1_704_110_400_000}


@pytest.mark.parametrize("file", ["-", "lines.jsonl"])
@pytest.mark.usefixtures("topics")
def test_a_line_that_no_parser_survives_is_named_like_any_other(
    cli: Cli, kafka_bootstrap: str, tmp_path: Path, file: str
):
    good = json.dumps({"data": sample_data("click", random.Random(1))}).encode()
    lines = b"\n".join([good, b"[" * 100_000, b'{"data": {"slug": "\xff"}}', good])
    (tmp_path / "lines.jsonl").write_bytes(lines)
    account = f"unreadable-{file}"
    result = cli("emit", "click", "--account", account, "--file", file, stdin=lines.decode("utf-8", "surrogateescape"))
    assert result.returncode == 1
    assert "line 2: nested too deeply" in result.stderr
    assert "line 3: not UTF-8" in result.stderr
    assert "2 were not sent" in result.stderr
    assert len(events_of(kafka_bootstrap, account)) == 2


@pytest.mark.usefixtures("topics")
def test_a_byte_order_mark_is_no_fault_and_utf_16_is_said_once(cli: Cli, kafka_bootstrap: str, tmp_path: Path):
    line = json.dumps({"data": sample_data("click", random.Random(1))}) + "\n"
    (tmp_path / "bom.jsonl").write_text(line * 2, encoding="utf-8-sig")
    assert cli("emit", "click", "--account", "bom", "--file", "bom.jsonl").returncode == 0
    assert len(events_of(kafka_bootstrap, "bom")) == 2
    (tmp_path / "wide.jsonl").write_text(line * 2, encoding="utf-16")
    wide = cli("emit", "click", "--account", "wide", "--file", "wide.jsonl")
    assert wide.returncode == 1
    assert wide.stderr.count("UTF-16: save it as UTF-8") == 1
    assert "line 1" not in wide.stderr


@pytest.mark.usefixtures("topics")
def test_a_rate_is_kept(cli: Cli):
    result = cli("emit", "click", "--account", "paced", "--count", "11", "--rate", "10")
    seconds = float(re.search(r"after ([\d.]+) s", result.stderr)[1])
    assert 1.0 <= seconds < 30.0


def test_the_life_of_a_key(cli: Cli):
    created = cli("keys", "create", "--account", "acme", "--name", "ci")
    key_id = re.search(r"key_\w+", created.stderr)[0]
    assert created.stdout.startswith("go2_")
    listed = cli("keys", "list", "--account", "acme").stdout
    assert key_id in listed
    assert created.stdout.strip() not in listed
    assert cli("keys", "revoke", key_id).returncode == 0
    again = cli("keys", "revoke", key_id)
    assert (again.returncode, "revoked before" in again.stderr) == (1, True)


def test_a_key_can_be_made_with_scopes_and_an_end(cli: Cli):
    created = cli("keys", "create", "--account", "acme", "--scope", "write", "--scope", "read", "--expires-in", "30d")
    assert created.returncode == 0, created.stderr
    listed = cli("keys", "list").stdout
    assert "write read" in listed
    assert f"{datetime.now(UTC) + timedelta(days=30):%Y-%m-%d}" in listed
    for wrong in ("30", "0d", "9999d", "soon"):
        refused = cli("keys", "create", "--account", "acme", "--expires-in", wrong)
        assert (refused.returncode, "--expires-in" in refused.stderr) == (2, True)
    assert cli("keys", "create", "--account", "acme", "--scope", "root").returncode == 2


def test_names_with_brackets_are_listed_as_they_are(cli: Cli):
    created = cli("keys", "create", "--account", "a[/b]", "--name", "[bold]x\\")
    assert created.returncode == 0, created.stderr
    listed = cli("keys", "list")
    assert listed.returncode == 0, listed.stderr
    assert "a[/b]" in listed.stdout
    assert "[bold]x\\" in listed.stdout


def test_migrate_says_that_nothing_is_left(cli: Cli):
    assert cli("migrate").stdout == "The database is up to date.\n"


def test_topics_are_made_once(cli: Cli):
    cli("topics")
    assert cli("topics").stdout == "The topics are as they should be.\n"


def test_topics_are_reconciled_and_never_shrunk(cli: Cli, kafka_bootstrap: str):
    """More partitions and a longer retention than wanted stay; what would lose messages is put right."""
    cli("topics", GO2HOOKS_RETRY_DELAYS="11s", GO2HOOKS_TOPIC_PARTITIONS="3", GO2HOOKS_LOG_RETENTION_DAYS="9")
    admin = AdminClient({"bootstrap.servers": kafka_bootstrap})
    topic = ConfigResource(ResourceType.TOPIC, "go2.deliveries.retry.11s")
    wrong = {"cleanup.policy": "compact", "retention.bytes": "1000000", "unclean.leader.election.enable": "true"}
    configure(kafka_bootstrap, topic.name, wrong)

    found = cli("doctor", GO2HOOKS_RETRY_DELAYS="11s").stdout
    for name in wrong:
        assert f"go2.deliveries.retry.11s has {name}=" in found

    assert "Configured: go2.deliveries.retry.11s" in cli("topics", GO2HOOKS_RETRY_DELAYS="11s").stdout
    config = admin.describe_configs([topic])[topic].result(20)
    kept = {"cleanup.policy": "delete", "retention.bytes": "-1", "unclean.leader.election.enable": "false",
            "retention.ms": str(9 * 86_400_000)}  # fmt: skip
    assert {name: config[name].value for name in kept} == kept
    assert len(admin.list_topics(timeout=20).topics[topic.name].partitions) == 3


@pytest.mark.usefixtures("topics")
def test_an_event_topic_that_takes_too_little_is_noticed_and_put_right(cli: Cli, kafka_bootstrap: str):
    admin = AdminClient({"bootstrap.servers": kafka_bootstrap})
    topic = ConfigResource(ResourceType.TOPIC, "go2.events.qr")

    def largest() -> int:
        return int(admin.describe_configs([topic])[topic].result(20)["max.message.bytes"].value)

    configure(kafka_bootstrap, topic.name, {"max.message.bytes": "500000"})
    assert "go2.events.qr has max.message.bytes=500000, 1048588 is wanted" in cli("doctor").stdout
    assert "Configured: go2.events.qr" in cli("topics").stdout
    assert largest() == 1_048_588
    configure(kafka_bootstrap, topic.name, {"max.message.bytes": "5000000"})  # more than wanted stays
    assert cli("topics").stdout == "The topics are as they should be.\n"
    assert largest() == 5_000_000


@pytest.mark.usefixtures("topics")
def test_the_doctor_finds_nothing_wrong_where_nothing_is(cli: Cli):
    result = cli("doctor")
    assert result.returncode == 0, result.stdout
    assert result.stdout.count("✓") == 13
    assert "one broker: nothing is replicated, which is for development alone" in result.stdout


@pytest.mark.usefixtures("topics")
def test_the_doctor_names_what_is_wrong_and_the_remedy(cli: Cli):
    result = cli(
        "doctor", GO2HOOKS_KAFKA_SESSION_TIMEOUT_MS="3000", GO2HOOKS_RETRY_DELAYS="7s", GO2HOOKS_TOPIC_PARTITIONS="64"
    )
    assert result.returncode == 1
    assert "GO2HOOKS_KAFKA_SESSION_TIMEOUT_MS here" in result.stdout
    assert "go2.deliveries.retry.7s is missing" in result.stdout
    assert "64 are wanted" in result.stdout


@pytest.mark.usefixtures("topics")
def test_the_doctor_finds_a_secret_that_the_key_does_not_open(cli: Cli, database_url: str):
    sealed = SecretBox([b"another key, 32 bytes in length.."[:32]]).seal(SECRET, "wh_1")
    with psycopg.connect(database_url) as connection:
        connection.execute("INSERT INTO accounts (id) VALUES ('acme')")
        connection.execute(
            "INSERT INTO webhooks (id, account_id, name, url, events, sealed_secret) VALUES (%s, %s, %s, %s, %s, %s)",
            ["wh_1", "acme", "n", "https://example.com", ["click"], sealed],
        )
        key = StoredCertificate("wh_1", bytes(32), "the chain", sealed, datetime(2030, 1, 1, tzinfo=UTC))
        assert put(connection, "acme", key)
    result = cli("doctor")
    assert result.returncode == 1
    assert "2 of 2 webhook secrets and client keys do not open" in result.stdout


def test_the_doctor_reads_the_operators_schemas(cli: Cli, tmp_path: Path):
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "click.avsc").write_text("{oops")
    result = cli("doctor", GO2HOOKS_SCHEMA_DIR=str(tmp_path / "schemas"))
    assert result.returncode == 1
    assert "GO2HOOKS_SCHEMA_DIR" in result.stdout


def test_the_doctor_quotes_what_has_brackets(cli: Cli):
    result = cli("doctor", GO2HOOKS_SCHEMA_DIR="schemas[/b]")
    assert "schemas[/b]" in result.stdout, result.stderr


def test_the_doctor_survives_servers_that_are_away(cli: Cli):
    away = {"GO2HOOKS_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9", "GO2HOOKS_DATABASE_URL": "postgresql://127.0.0.1:9/x"}
    result = cli("doctor", **away)
    assert result.returncode == 1
    assert "Connection refused. Start it, or correct" in " ".join(result.stdout.split())
    assert "correct host and port in GO2HOOKS_DATABASE_URL." in " ".join(result.stdout.split())
    assert "Traceback" not in result.stderr


def test_config_shows_every_setting_and_no_secret(cli: Cli, database_url: str):
    proxy = "http://go2:hunter2@proxy.corp:3128"
    result = cli("config", GO2HOOKS_RETRY_DELAYS="250ms,2m", GO2HOOKS_EGRESS_PROXY=proxy)
    assert "250ms,2m" in result.stdout
    assert KEY not in result.stdout
    assert "http://go2:***@proxy.corp:3128" in result.stdout
    assert "hunter2" not in result.stdout
    assert database_url.split(":")[2].partition("@")[0] not in result.stdout


def test_config_shows_no_other_password_of_the_database_url(cli: Cli):
    result = cli("config", GO2HOOKS_DATABASE_URL="postgresql://db/go2hooks?sslkey=k&sslpassword=hunter22")
    assert "postgresql://db/go2hooks?sslkey=k" in result.stdout
    assert "hunter22" not in result.stdout


@pytest.mark.parametrize("command", [["doctor"], ["migrate"], ["keys", "list"]], ids=" ".join)
def test_a_mistyped_database_url_is_refused_without_its_password(cli: Cli, command: list[str]):
    result = cli(*command, GO2HOOKS_DATABASE_URL="postgresql//u:hunter22@h/d")
    assert result.returncode == 1
    assert "GO2HOOKS_DATABASE_URL" in result.stderr
    assert "hunter22" not in result.stdout + result.stderr


def test_a_wrong_setting_is_one_clear_line(cli: Cli):
    result = cli("config", GO2HOOKS_API_PORT="99999")
    assert result.returncode == 1
    assert "GO2HOOKS_API_PORT" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.fixture(params=["127.0.0.1", "::1"])
def listener(request: pytest.FixtureRequest) -> Iterator[tuple[subprocess.Popen, str]]:
    command = [GO2HOOKS, "listen", "--host", request.param, "--port", "0", "--secret", SECRET, "--fail-first", "1"]
    environment = os.environ | {"COLUMNS": "300", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        yield process, re.search(r"http://\S+", process.stdout.readline())[0]
        process.terminate()


def test_listen_verifies_and_fails_as_told(listener: tuple[subprocess.Popen, str]):
    process, url = listener
    body = b'{"event":"click","timestamp":"2024-01-01T12:00:00Z","data":{}}'
    headers = {
        "X-Webhook-Event": "click",
        "X-Webhook-Signature": body_signature(SECRET, body),
        "webhook-id": "dlv_1",
        "webhook-timestamp": "1704110400",
        "webhook-signature": standard_signature([SECRET], "dlv_1", 1_704_110_400, body),
    }
    with pytest.raises(HTTPError, match="500"):
        urlopen(Request(url, body, headers), timeout=10)
    with urlopen(Request(url, body, headers), timeout=10) as response:
        assert response.status == 200
    with urlopen(Request(url, body + b" ", headers), timeout=10):
        process.terminate()
    said = process.stdout.read()
    assert said.count("both signatures right") == 2
    assert "wrong X-Webhook-Signature, webhook-signature" in said


@pytest.fixture
def web_server() -> Iterator[int]:
    """The port of what is no API: an HTTP server that answers in HTML."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--api", "http://127.0.0.1:1", "--key", "gk_1"], "The API at http://127.0.0.1:1/api/v1 does not answer"),
        (["--api", "http://127.0.0.1:{web}", "--key", "gk_1"], "What answers at http://127.0.0.1:{web}/api/v1 is not"),
        (["--api", "127.0.0.1:{web}", "--key", "gk_1"], "it is no API's address"),
        (["--api", "http://127.0.0.1:{web}", "--key", "gk 1"], "it is no API key"),
        (["--data-dir", "nowhere"], "No stack is up in nowhere"),
        (["--event", "click"], "need an API"),
        (["--api", "http://127.0.0.1:1", "--webhook", "wh_1", "--event", "click"], "leave --event out"),
        (["--api", "http://127.0.0.1:1", "--key", "gk_1", "--last", "2"], "--last needs --webhook"),
        (["--port", "{web}"], "Cannot listen on 127.0.0.1:{web} (Address already in use). Choose another with --port."),
        (["--forward", "localhost:3000"], "it is no address to forward to"),
        (["--forward", "http://localhost:70000/"], "it is no address to forward to"),
        (["--forward", "http://localhost:3000/", "--status", "500"], "leave --status out"),
        (["--port", "{free}", "--forward", "http://localhost:{free}/hook"], "leads back to this listener"),
    ],
)
def test_listen_says_clearly_why_it_does_not_begin(cli: Cli, web_server: int, arguments: list[str], message: str):
    ports = {"web": web_server, "free": free_port()}
    result = cli("listen", "--port", "0", *(argument.format(**ports) for argument in arguments))
    assert result.returncode > 0
    assert message.format(**ports) in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
