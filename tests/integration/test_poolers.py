"""Through a real PgBouncer: API, replica, recorder, migrations and commands work as without one, in both of its modes."""

import asyncio
import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta

import psycopg
import pytest
from calling import Caller
from click.testing import CliRunner
from pgbouncer import needs_pgbouncer, pgbouncer
from psycopg import sql
from pydantic import SecretStr
from test_recorder import record
from waiting import until

from go2hooks.cli import main
from go2hooks.postgres.api_keys import create_key
from go2hooks.postgres.attempts import AttemptKey, DisablePolicy, find_states, maintain_partitions
from go2hooks.postgres.attempts.standings import overdue_deliveries
from go2hooks.postgres.migrate import migrate, pending_migrations
from go2hooks.postgres.pool import open_pool
from go2hooks.postgres.reconnecting import ReconnectingConnection
from go2hooks.postgres.replica import WebhookFollower, find_webhook
from go2hooks.postgres.session import Session, is_pooled
from go2hooks.settings import Settings
from services.api import create_app
from services.dispatcher.recorder import Recorder

pytestmark = needs_pgbouncer
ELSEWHERE = "options=-csearch_path%3Delsewhere"


@pytest.fixture(params=["transaction", "session"])
def mode(request):
    return request.param


@pytest.fixture
def pooled_url(database_url, servers_dir, mode):
    """A migrated database behind a pooler, its tables in a schema that only the URL names."""
    with psycopg.connect(database_url, autocommit=True) as admin:
        admin.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA elsewhere")
    with pgbouncer(database_url, servers_dir / f"pgbouncer-{secrets.token_hex(4)}", mode) as url:
        migrate(f"{url}?{ELSEWHERE}")
        yield f"{url}?{ELSEWHERE}"


@pytest.fixture
def pooled_settings(pooled_url, secret_key):
    return Settings(database_url=SecretStr(pooled_url), secret_keys=secret_key)


@pytest.fixture
def pooled_api(pooled_settings, secret_box, outbox):
    """From a number of connections to an account's way to an API that has so many."""

    @contextmanager
    def api(connections):
        with open_pool(pooled_settings, max_size=connections) as pool:
            app = create_app(pooled_settings, pool, secret_box, outbox, outbox)
            with Session.connect(pooled_settings.database_url.get_secret_value(), name="test") as session:
                key = create_key(session, "acme").key
            yield Caller(app.test_client(), "acme", key)

    return api


def test_migrations_find_what_they_have_applied(pooled_url, database):
    assert pending_migrations(pooled_url) == ()
    migrate(pooled_url)
    where = database.execute("SELECT relnamespace::regnamespace::text FROM pg_class WHERE relname = 'webhooks'")
    assert where.fetchall() == [("elsewhere",)]


def test_no_call_to_the_api_fails_however_many_come_at_once(pooled_api):
    with pooled_api(8) as acme:
        webhook_id = acme.create()["id"]

        def call(n):
            caller = Caller(acme.client.application.test_client(), "acme", acme.key)
            path = f"/webhooks/{webhook_id}"
            if n % 3 == 0:
                return caller("PATCH", path, {"name": f"name {n}"}).status_code
            return caller("GET", f"{path}/deliveries" if n % 3 == 1 else path).status_code

        with ThreadPoolExecutor(8) as threads:
            assert set(threads.map(call, range(240))) == {200}
        assert acme("POST", f"/webhooks/{webhook_id}/rotate-secret").status_code == 200
        assert acme("POST", f"/webhooks/{webhook_id}/test").status_code == 202
        assert acme("DELETE", f"/webhooks/{webhook_id}").status_code == 200


def test_a_change_is_in_force_within_a_second(pooled_settings, pooled_api):
    """By looking for it: no notification gets through a pooler in transaction mode."""
    seen, known = threading.Event(), {}

    def apply(webhook):
        known[webhook.id] = webhook
        if not webhook.is_active:
            seen.set()

    follower = WebhookFollower(pooled_settings, apply)
    follower.start()
    try:
        with pooled_api(1) as acme:
            webhook_id = acme.create()["id"]
            acme("PATCH", f"/webhooks/{webhook_id}", {"isActive": False})
            began = time.monotonic()
            assert seen.wait(5)
            assert time.monotonic() - began < 1.0
            assert follower.age_s() < 1.0
    finally:
        follower.stop()


def test_past_the_pooler_a_change_is_told_at_once(pooled_settings, pooled_api, database_url):
    told = threading.Event()
    direct = SecretStr(f"{database_url}?{ELSEWHERE}")
    settings = pooled_settings.model_copy(update={"database_direct_url": direct, "reconcile_interval_ms": 60_000})
    follower = WebhookFollower(settings, lambda _: told.set())
    follower.start()
    try:
        with pooled_api(1) as acme:
            acme.create()
            assert told.wait(5)
    finally:
        follower.stop()


async def test_attempts_are_recorded_found_and_counted_once(pooled_url, database):
    connections = [ReconnectingConnection(pooled_url, f"test-{n}") for n in range(3)]
    policy = DisablePolicy(10)
    recorders = [Recorder(connection, policy, batch_s=0.001, batch_rows=50) for connection in connections]
    running = [asyncio.create_task(recorder.run()) for recorder in recorders]
    done = []
    for n in range(600):  # a third of them twice: the second goes through a temporary table
        recorders[n % 3].add(record(n % 400), lambda: done.append(1))
    await until(lambda: len(done) == 600)
    assert database.execute("SELECT count(*) FROM elsewhere.attempts").fetchone() == (400,)
    key = AttemptKey("wh_1", 1_704_110_400_000, "dlv_7", 1)
    assert await connections[0].run(lambda c: find_states(c, [key])) == {key: "delivered"}
    assert await connections[1].run(lambda c: find_webhook(c, "wh_1")) is None
    assert await connections[2].run(lambda c: maintain_partitions(c, date(2026, 1, 31), 30)) == (5, 0)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, *(connection.close() for connection in connections), return_exceptions=True)


async def test_overdue_deliveries_are_read_a_page_at_a_time(pooled_url):
    connection = ReconnectingConnection(pooled_url, "test")
    recorder = Recorder(connection, DisablePolicy(10), batch_s=0.001, batch_rows=500)
    running = asyncio.create_task(recorder.run())
    waiting = {"state": "retrying", "next_attempt_ms": 1_704_110_405_000}
    for n in range(25):
        recorder.add(record(n, created_ms=1_704_110_400_000 + n // 3, **waiting), lambda: None)
    await until(lambda: recorder.idle)
    running.cancel()
    await asyncio.gather(running, connection.close(), return_exceptions=True)
    since = datetime(2024, 1, 1, tzinfo=UTC)
    with Session.connect(pooled_url, name="test") as session:
        pages = [
            [each.delivery_id for each in page]
            for page in overdue_deliveries(session, since, datetime.now(UTC) - timedelta(days=1), 4)
        ]
    assert [len(page) for page in pages] == [4] * 6 + [1]
    assert sorted(id_ for page in pages for id_ in page) == sorted(f"dlv_{n}" for n in range(25))


def test_commands_work(pooled_url, monkeypatch):
    monkeypatch.setenv("GO2HOOKS_DATABASE_URL", pooled_url)
    for command in (["migrate"], ["keys", "create", "--account", "acme"], ["keys", "list"]):
        outcome = CliRunner().invoke(main, command)
        assert outcome.exit_code == 0, outcome.output


def test_nothing_that_a_transaction_sets_is_left_to_others(pooled_url, mode):
    """In transaction mode the next transaction on that server connection may be another application's."""
    plain = pooled_url.replace(ELSEWHERE, "")
    with Session.connect(pooled_url, name="test") as ours, psycopg.connect(plain, autocommit=True) as others:
        with ours.transaction():
            assert is_pooled(ours)
            assert ours.execute("SHOW search_path").fetchone() == ("elsewhere",)
        for name, value in (("search_path", '"$user", public'), ("statement_timeout", "0")):
            assert others.execute(sql.SQL("SHOW {}").format(sql.Identifier(name))).fetchone() == (value,)


def test_without_a_pooler_none_is_found(database_url):
    with Session.connect(database_url, name="test") as session, session.transaction():
        assert not is_pooled(session)
