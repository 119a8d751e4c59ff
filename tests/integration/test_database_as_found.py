"""Databases as people have them: styles and encodings of their own, roles that may little, rows that cannot be kept."""

import asyncio
import base64
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from calling import HOOK, Caller
from click.testing import CliRunner
from environment import clean_environment
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql
from pydantic import SecretStr
from test_recorder import record
from waiting import until

from go2hooks.cli import main
from go2hooks.cli.checks import check_postgres
from go2hooks.core.domain.delivery import Position
from go2hooks.core.domain.outcome import State
from go2hooks.core.domain.record import AttemptRecord
from go2hooks.core.domain.webhook import Webhook
from go2hooks.core.errors import SettingsError
from go2hooks.postgres.api_keys import create_key
from go2hooks.postgres.attempts import AttemptKey, DisablePolicy, find_states
from go2hooks.postgres.migrate import migrate
from go2hooks.postgres.pool import open_pool
from go2hooks.postgres.reconnecting import ReconnectingConnection
from go2hooks.postgres.replica import WebhookFollower, find_webhook
from go2hooks.postgres.rights import Role, missing_rights
from go2hooks.postgres.session import Session
from go2hooks.settings import Settings
from services.api import create_app
from services.dispatcher.recorder import Recorder

Database = psycopg.Connection[Any]
STYLES = {
    "datestyle": "German", "timezone": "Asia/Kolkata", "client_encoding": "LATIN1", "intervalstyle": "sql_standard",
    "default_transaction_isolation": "serializable", "lock_timeout": "1ms", "array_nulls": "off", "bytea_output": "escape",
    "extra_float_digits": "-15", "standard_conforming_strings": "off", "search_path": "nowhere",
    "idle_in_transaction_session_timeout": "10s",
}  # fmt: skip
EMOJI = "thanks 🎉 ŝ ⚠"


@pytest.fixture
def restyled_url(database: Database, database_url: str) -> str:
    """A database where everything is set that an administrator may set; the URL names the tables' schema."""
    for name, value in STYLES.items():
        statement = sql.SQL("ALTER DATABASE {} SET {} TO {}").format(
            sql.Identifier(database.info.dbname), sql.Identifier(name), sql.Literal(value)
        )
        database.execute(statement)
    return f"{database_url}?options=-csearch_path%3Dpublic"


@contextmanager
def api(url: str, secret_key: str, secret_box: Any, outbox: Any, key: str) -> Iterator[Caller]:
    found = Settings(database_url=SecretStr(url), secret_keys=secret_key)
    with open_pool(found, max_size=2) as pool:
        yield Caller(create_app(found, pool, secret_box, outbox, outbox).test_client(), "acme", key)


def test_the_api_answers_alike_on_a_database_of_any_style(restyled_url, database, secret_key, secret_box, outbox):
    key = create_key(database, "acme").key
    with api(restyled_url, secret_key, secret_box, outbox, key) as acme:
        created = acme.create(name=EMOJI)
        path = f"/webhooks/{created['id']}"
        assert acme("PATCH", path, {"isActive": False}).json["data"]["disabledAt"].endswith("Z")
        assert acme("PATCH", path, {"isActive": True}).json["data"]["disabledReason"] is None
        rotated = acme("POST", f"{path}/rotate-secret")
        assert rotated.status_code == 200
        assert rotated.json["data"]["previousSecretExpiresAt"] > created["createdAt"]
        assert acme("GET", path).json["data"]["name"] == EMOJI
        assert acme("POST", f"{path}/test").status_code == 202
        assert acme("GET", f"{path}/deliveries").json["data"][0]["status"] == "pending"
        assert acme("DELETE", path).status_code == 200


def test_what_was_not_answered_did_not_happen(database, secret_key, secret_box, outbox, database_url, monkeypatch):
    """Whatever goes wrong while an answer is rendered: the secret that nobody saw is not the webhook's."""
    key = create_key(database, "acme").key
    with api(database_url, secret_key, secret_box, outbox, key) as acme:
        path = f"/webhooks/{acme.create()['id']}"
        before = database.execute("SELECT sealed_secret, name, updated_at FROM webhooks").fetchall()

        def broken(*_: Any) -> Any:
            raise RuntimeError("a defect of ours")

        for name in ("shown", "iso"):
            monkeypatch.setattr(f"services.api.webhooks.{name}", broken)
        assert acme("POST", f"{path}/rotate-secret").status_code == 500
        assert acme("PATCH", path, {"name": "another"}).status_code == 500
        assert acme("POST", "/webhooks", HOOK).status_code == 500
        assert database.execute("SELECT sealed_secret, name, updated_at FROM webhooks").fetchall() == before


async def test_attempts_are_recorded_and_counted_alike_on_a_database_of_any_style(restyled_url, database):
    database.execute("INSERT INTO accounts (id) VALUES ('acc')")
    insert = "INSERT INTO webhooks (id, account_id, name, url, events, sealed_secret) VALUES ('wh_1', 'acc', '', 'https://a.example', '{click}', %s)"
    database.execute(insert, [b"\x00\xff\\"])
    connection = ReconnectingConnection(restyled_url, "test")
    recorder = Recorder(connection, DisablePolicy(10), batch_s=0.001, batch_rows=50)
    await recorder._write(
        [
            record(1, response_excerpt=EMOJI),
            record(2, state=State.FAILED, duration_ms=123.45, attempted_ms=1_704_110_400_001),
        ]
    )
    kept = database.execute("SELECT response_excerpt, duration_ms::numeric::text FROM attempts ORDER BY delivery_id")
    assert kept.fetchall() == [(EMOJI, "1"), (None, "123.45")]
    counted = database.execute("SELECT consecutive_failures, is_active, disabled_reason FROM webhooks").fetchone()
    assert counted == (1, True, None)
    webhook = await connection.run(lambda c: find_webhook(c, "wh_1"))
    assert webhook is not None
    assert bytes(webhook.sealed_secret) == b"\x00\xff\\"
    key = AttemptKey("wh_1", 1_704_110_400_000, "dlv_1", 1)
    assert await connection.run(lambda c: find_states(c, [key])) == {key: "delivered"}
    await connection.close()


def test_the_replica_reads_alike_from_a_database_of_any_style(restyled_url, database):
    database.execute("INSERT INTO accounts (id) VALUES ('ключ 🎉')")
    insert = "INSERT INTO webhooks (id, account_id, name, url, events, sealed_secret) VALUES ('wh_1', 'ключ 🎉', '', 'https://a.example', '{click}', '\\x01')"
    database.execute(insert)
    seen: list[Webhook] = []
    follower = WebhookFollower(Settings(database_url=SecretStr(restyled_url)), seen.append)
    follower.start()
    follower.stop()
    assert {webhook.account_id for webhook in seen} == {"ключ 🎉"}


# --- encodings


@pytest.fixture(params=["LATIN1", "SQL_ASCII"])
def foreign_url(postgres_url, request) -> Iterator[str]:
    """A database that cannot keep every text."""
    name = sql.Identifier(database := f"foreign_{secrets.token_hex(6)}")
    with psycopg.connect(postgres_url("postgres"), autocommit=True) as admin:
        how = sql.SQL("CREATE DATABASE {} ENCODING {} TEMPLATE template0 LOCALE_PROVIDER libc LOCALE 'C'")
        admin.execute(how.format(name, sql.Literal(request.param)))
        yield postgres_url(database)
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def test_another_encoding_than_utf8_is_refused_by_migrate_doctor_and_at_start(foreign_url, monkeypatch):
    with pytest.raises(SettingsError, match=r"has the encoding .*: make one with CREATE DATABASE"):
        migrate(foreign_url)
    monkeypatch.setenv("GO2HOOKS_DATABASE_URL", foreign_url)
    monkeypatch.setenv("GO2HOOKS_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    told = " ".join(CliRunner().invoke(main, ["doctor"]).output.split())
    assert "has the encoding" in told
    assert "Correct GO2HOOKS_DATABASE_URL." in told
    environment = clean_environment() | {"GO2HOOKS_DATABASE_URL": foreign_url, "GO2HOOKS_METRICS_PORT": "0"}
    command = [sys.executable, "-P", "-m", "services.router"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert "has the encoding" in ended.stderr.splitlines()[-1]


# --- roles


@pytest.fixture
def login(database: Database, database_url: str) -> Iterator[Any]:
    """`login("api")`: the URL of a login that may do nothing yet. Nobody has rights on `public`, nor on the database."""
    made: list[sql.Identifier] = []
    name = sql.Identifier(database.info.dbname)
    database.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    database.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(name))
    suffix = secrets.token_hex(4)

    def make(service: str) -> str:
        role = sql.Identifier(user := f"{service}_{suffix}")
        database.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'secret'").format(role))
        made.append(role)
        parts = urlsplit(database_url)
        return urlunsplit(parts._replace(netloc=f"{user}:secret@{parts.hostname}:{parts.port}"))

    make.pattern = f"{{service}}_{suffix}"  # type: ignore[attr-defined]
    yield make
    for role in made:
        database.execute(sql.SQL("DROP OWNED BY {role}; DROP ROLE {role}").format(role=role))


def grant(database: Database, pattern: str, database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `migrate --print-grants` prints, as it stands."""
    monkeypatch.setenv("GO2HOOKS_DATABASE_URL", database_url)
    printed = CliRunner().invoke(main, ["migrate", "--print-grants", "--role", pattern])
    assert printed.exit_code == 0, printed.output
    database.execute(printed.output)


def test_what_is_printed_is_all_that_a_service_is_found_to_need(login, database, database_url, monkeypatch):
    urls = {role: login(role) for role in Role}
    grant(database, login.pattern, database_url, monkeypatch)
    for role, url in urls.items():
        with Session.connect(url, name="test") as session, session.transaction():
            assert missing_rights(session, role) == []
            others = [missing_rights(session, other) for other in Role if other is not role]
            assert all(others) or role is not Role.ROUTER  # the others may do what the router does
    with (
        Session.connect(urls[Role.DISPATCHER], name="test") as session,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
        session.transaction(),
    ):
        session.execute("CREATE TABLE public.another (id text)")


def test_a_missing_right_makes_the_api_not_ready_and_is_named(
    login, database, database_url, secret_key, secret_box, outbox, monkeypatch, capsys
):
    url = login("api")
    for service in ("router", "replayer", "dispatcher"):
        login(service)
    grant(database, login.pattern, database_url, monkeypatch)
    with Session.connect(url, name="test") as session:
        user = sql.Identifier(session.info.user)
    key = create_key(database, "acme").key
    with api(url, secret_key, secret_box, outbox, key) as acme:
        assert acme.client.get("/readyz").json["postgres"]
    database.execute(sql.SQL("REVOKE UPDATE ON webhooks FROM {}").format(user))
    with api(url, secret_key, secret_box, outbox, key) as acme:
        assert not acme.client.get("/readyz").json["postgres"]
        said = capsys.readouterr().out
        assert "UPDATE on webhooks" in said
        assert "--print-grants" in said
        assert acme("PATCH", "/webhooks/wh_none", {"name": "x"}).status_code == 503
    monkeypatch.setenv("GO2HOOKS_DATABASE_URL", url)
    told = " ".join(CliRunner().invoke(main, ["doctor", "--service", "api"]).output.split())
    assert "the api lacks UPDATE on webhooks" in told


async def test_a_recorder_without_the_right_says_so_once_and_goes_on_when_it_is_granted(
    login, database, database_url, monkeypatch, capsys
):
    urls = {role: login(role) for role in Role}
    grant(database, login.pattern, database_url, monkeypatch)
    user = sql.Identifier(urlsplit(urls[Role.DISPATCHER]).username or "")
    database.execute(sql.SQL("REVOKE INSERT ON attempts FROM {}").format(user))
    connection = ReconnectingConnection(urls[Role.DISPATCHER], "test")
    recorder = Recorder(connection, DisablePolicy(10), batch_s=0.001, batch_rows=50)
    writing = asyncio.create_task(recorder._write([record(1)]))
    await until(lambda: connection._outage._told)
    await asyncio.sleep(0.3)
    database.execute(sql.SQL("GRANT INSERT ON attempts TO {}").format(user))
    await asyncio.wait_for(writing, 20)
    await recorder._write([record(1), record(2)])  # through a temporary table, for the sake of the first
    said = [line for line in capsys.readouterr().out.splitlines() if "permission denied" in line]
    assert len(said) == 1
    assert "--print-grants" in said[0]
    assert database.execute("SELECT count(*) FROM attempts").fetchone() == (2,)
    await connection.close()


# --- what doctor says


def problems(**urls: str) -> list[tuple[str, str]]:
    found = Settings(
        **{name: SecretStr(url) for name, url in urls.items()}, secret_keys=base64.b64encode(bytes(32)).decode()
    )
    return [(each.detail, each.remedy) for each in check_postgres(found) if each.remedy]


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        (lambda url: re.sub(r"//postgres:[^@]*@", "//postgres:wrong@", url), "Correct user and password in {}."),
        (lambda url: re.sub(r"//postgres:", "//nobody:", url), "Correct user and password in {}."),
        (lambda url: re.sub(r"/[^/]*$", "/nowhere", url), "Create it, or correct the name of the database in {}."),
        (lambda url: re.sub(r":\d+/", ":1/", url), "Start it, or correct host and port in {}."),
        (lambda url: re.sub(r"@[^/]*/", "@nowhere.invalid/", url), "Correct the host in {}."),
        (
            lambda url: f"{url}?options=-csearch_path%3Dnowhere",
            "Create it, grant USAGE on it, or correct the search_path in {}.",
        ),
        (lambda url: f"{url}?sslmode=require", "Correct sslmode, sslrootcert or the user in {}, or let pg_hba.conf permit it."),
    ],
)  # fmt: skip
def test_doctor_names_the_setting_that_is_wrong(database_url, monkeypatch, tmp_path, change, remedy):
    wrong = change(database_url)
    assert problems(database_url=database_url) == []
    assert remedy.format("GO2HOOKS_DATABASE_URL") in dict(problems(database_url=wrong)).values()
    told = dict(problems(database_url=database_url, database_direct_url=wrong))
    assert remedy.format("GO2HOOKS_DATABASE_DIRECT_URL") in told.values()
    (file := tmp_path / "url").write_text(wrong)
    monkeypatch.setenv("GO2HOOKS_DATABASE_URL_FILE", str(file))
    told = dict(problems(database_url=wrong))
    assert remedy.format("GO2HOOKS_DATABASE_URL_FILE") in told.values()
    assert "wrong" not in " ".join(told)


def test_doctor_notices_two_databases_where_one_is_meant(database_url, postgres_url, template_database):
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE deployment SET id = 'dep_another'")
    told = problems(database_url=database_url, database_direct_url=postgres_url(template_database))
    assert [remedy for _, remedy in told] == ["Name the same database in both."]


# --- rows that cannot be kept

_text = st.text(st.characters(codec=None), max_size=30) | st.sampled_from(
    ["\0", "\ud800", "\\N", "\t\n", "🎉", "x" * 5000, "é" * 3000]
)
_number = st.integers(-(2**70), 2**70)
_time = st.integers(-(2**60), 2**60) | st.just(1_704_110_400_000)
records = st.builds(
    AttemptRecord, webhook_id=_text, created_ms=_time, delivery_id=_text, attempt=_number, account_id=_text,
    event_id=_text, event=_text, kind=_text, state=st.sampled_from(State), status_code=st.none() | _number,
    duration_ms=st.none() | st.floats(), error_code=st.none() | _text, error_message=st.none() | _text,
    next_attempt_ms=st.none() | _time, attempted_ms=_time, response_excerpt=st.none() | _text,
    position=st.none() | st.builds(Position, _text, _number, _number),
)  # fmt: skip


@pytest.fixture(params=["as usual", "restyled"])
def found_url(request, database_url):
    return request.getfixturevalue("restyled_url") if request.param == "restyled" else database_url


def test_no_row_ends_the_recorder_and_none_is_lost(found_url, database):
    """Whatever is in it, each attempt leaves a row, and the rows beside it are as they were."""
    loop = asyncio.new_event_loop()
    connection = ReconnectingConnection(found_url, "fuzz")
    recorder = Recorder(connection, DisablePolicy(10), batch_s=0.001, batch_rows=50)

    @settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None)
    @given(records)
    def each(odd: AttemptRecord) -> None:
        database.execute("TRUNCATE attempts")
        good = [record(n, response_excerpt=EMOJI) for n in (1, 2)]
        loop.run_until_complete(asyncio.wait_for(recorder._write([good[0], odd, good[1]]), 30))
        kept = database.execute(
            "SELECT response_excerpt, error_message FROM attempts WHERE event_id IN ('evt_1', 'evt_2')"
        )
        assert kept.fetchall()[:2] == [(EMOJI, None)] * 2
        assert database.execute("SELECT count(*) FROM attempts").fetchone() == (3,)

    try:
        each()
    finally:
        loop.run_until_complete(connection.close())
        loop.close()


def test_what_was_refused_is_not_logged(found_url, capsys):
    async def write() -> None:
        connection = ReconnectingConnection(found_url, "test")
        recorder = Recorder(connection, DisablePolicy(10), batch_s=0.001, batch_rows=50)
        await recorder._write([record(1, attempt=99_999, response_excerpt="a customer's secret")])
        await connection.close()

    asyncio.run(write())
    said = capsys.readouterr().out
    assert "record refused by Postgres" in said
    assert "customer's secret" not in said
