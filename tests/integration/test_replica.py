"""The replica of webhooks: complete at start, never more than a second behind, whatever happens to its connection."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr
from waiting import eventually

from go2hooks.core.domain.webhook import Webhook, WebhookOptions
from go2hooks.postgres.replica import WRITER, WebhookFollower
from go2hooks.settings import Settings

Database = psycopg.Connection[Any]
INSERT = "INSERT INTO webhooks (id, account_id, name, url, events, sealed_secret) VALUES (%s, 'acc', '', 'https://a.example', '{click}', '\\x01')"


class Copy:
    """A follower, and what it has told."""

    def __init__(self, url: str, reconcile_ms: int) -> None:
        self.webhooks: dict[str, Webhook] = {}
        self.told = 0
        self.at_each: Callable[[Webhook], object] = lambda _: None
        self.at_start: set[str] = set()  #: ids that it told of before `start` returned; later ones come from its thread
        settings = Settings(database_url=SecretStr(url), reconcile_interval_ms=reconcile_ms)
        self.follower = WebhookFollower(settings, self._apply)

    def _apply(self, webhook: Webhook) -> None:
        self.webhooks[webhook.id] = webhook
        self.told += 1
        self.at_each(webhook)
        if threading.current_thread() is threading.main_thread():
            self.at_start.add(webhook.id)

    def wait(self, check: Callable[[dict[str, Webhook]], bool], within_s: float = 20.0) -> None:
        deadline = time.monotonic() + within_s
        while not check(self.webhooks):
            assert time.monotonic() < deadline, self.webhooks
            time.sleep(0.005)


@pytest.fixture
def accounts(database: Database) -> Database:
    database.execute("INSERT INTO accounts (id) VALUES ('acc')")
    return database


@pytest.fixture
def follow(database_url: str) -> Iterator[Callable[..., Copy]]:
    copies: list[Copy] = []

    def start(reconcile_ms: int = 60_000) -> Copy:
        copies.append(copy := Copy(database_url, reconcile_ms))
        copy.follower.start()
        return copy

    yield start
    for copy in copies:
        copy.follower.stop()


def test_it_is_complete_before_start_returns_and_leaves_out_the_deleted(accounts, follow):
    for n in range(50):
        accounts.execute(INSERT, [f"wh_{n}"])
    accounts.execute("UPDATE webhooks SET deleted_at = now() WHERE id = 'wh_7'")
    assert follow().at_start == {f"wh_{n}" for n in range(50)} - {"wh_7"}


def test_every_kind_of_change_arrives_within_a_second_by_notification_alone(accounts, follow):
    copy = follow(reconcile_ms=60_000)
    accounts.execute(INSERT, ["wh_1"])
    copy.wait(lambda known: "wh_1" in known)
    assert copy.webhooks["wh_1"] == Webhook(
        "wh_1", "acc", "https://a.example", frozenset({"click"}), True, False, b"\x01", None, 0  # noqa: FBT003
    )  # fmt: skip
    changes: list[tuple[str, Callable[[Webhook], bool]]] = [
        ("url = 'https://b.example'", lambda w: w.url == "https://b.example"),
        ("events = '{*,click}'", lambda w: w.events == {"*", "click"}),
        ("is_active = false", lambda w: not w.is_active),
        (
            "sealed_secret = '\\x02', sealed_previous_secret = '\\x01', previous_secret_expires_at = '2031-01-01 00:00:00.25Z'",
            lambda w: (
                (w.sealed_secret, w.sealed_previous_secret, w.previous_secret_expires_ms)
                == (b"\x02", b"\x01", 1_924_992_000_250)
            ),
        ),
        (
            'headers = \'[["X-Tenant", "acme"], ["X-Token", null]]\', sealed_headers = \'\\x03\'',
            lambda w: w.options == WebhookOptions((("X-Tenant", "acme"), ("X-Token", None)), b"\x03"),
        ),
        (
            "headers = NULL, sealed_headers = NULL, rate_limit = 5",
            lambda w: w.options == WebhookOptions(rate_limit=5.0),
        ),
        (
            "rate_limit = NULL, max_concurrency = 2",
            lambda w: w.options == WebhookOptions(max_concurrency=2),
        ),
        (
            """max_concurrency = NULL, filter = '{"country": ["DE"]}'""",
            lambda w: w.options and w.options.filter and w.options.filter.matches({"country": "DE"}),
        ),
        ("filter = NULL", lambda w: w.options is None),
        ("deleted_at = now()", lambda w: w.is_deleted),
    ]
    for change, shows in changes:
        accounts.execute(f"UPDATE webhooks SET {change} WHERE id = 'wh_1'")
        copy.wait(lambda known, shows=shows: shows(known["wh_1"]))


def test_a_filter_that_cannot_be_read_lets_everything_pass(accounts, follow):
    accounts.execute(INSERT, ["wh_1"])
    accounts.execute("""UPDATE webhooks SET rate_limit = 5, filter = '{"country": [{"from-a-later-version": 1}]}'""")
    assert follow().webhooks["wh_1"].options == WebhookOptions(rate_limit=5.0)


def test_what_nobody_acts_on_is_no_change_worth_telling(accounts):
    accounts.execute(INSERT, ["wh_1"])
    dated = accounts.execute("SELECT changed_at FROM webhooks").fetchone()
    accounts.execute("""UPDATE webhooks SET description = 'd', metadata = '{"a": "b"}' WHERE id = 'wh_1'""")
    assert accounts.execute("SELECT changed_at FROM webhooks").fetchone() == dated


def test_a_change_that_was_never_notified_arrives_by_reconciling(accounts, follow):
    accounts.execute(INSERT, ["wh_1"])
    copy = follow(reconcile_ms=200)
    accounts.execute("ALTER TABLE webhooks DISABLE TRIGGER webhooks_changed")
    accounts.execute("UPDATE webhooks SET url = 'https://b.example', changed_at = clock_timestamp() WHERE id = 'wh_1'")
    copy.wait(lambda known: known["wh_1"].url == "https://b.example")


def test_a_transaction_that_commits_late_is_not_overlooked(accounts, follow, database_url):
    accounts.execute(INSERT, ["wh_1"])
    accounts.execute(INSERT, ["wh_2"])
    copy = follow(reconcile_ms=100)
    accounts.execute("ALTER TABLE webhooks DISABLE TRIGGER webhooks_changed")  # no notifications
    change = "UPDATE webhooks SET url = 'https://b.example', changed_at = clock_timestamp() WHERE id = %s"
    with psycopg.connect(database_url) as slow:
        slow.execute(change, ["wh_1"])  # dated now, committed later
        accounts.execute(change, ["wh_2"])
        copy.wait(lambda known: known["wh_2"].url == "https://b.example")
        assert copy.webhooks["wh_1"].url == "https://a.example"
        slow.commit()
    copy.wait(lambda known: known["wh_1"].url == "https://b.example")


def test_what_is_known_is_not_read_again_by_every_look(accounts, follow):
    """Many webhooks that were changed at once, as by an import, would cost everybody's threads their time for ever."""
    copy = follow(reconcile_ms=50)
    accounts.execute("ALTER TABLE webhooks DISABLE TRIGGER webhooks_changed")  # no notifications
    with accounts.transaction():
        for n in range(20):
            accounts.execute(INSERT, [f"wh_{n}"])
    copy.wait(lambda known: len(known) == 20)
    for n in range(5):  # looks that find this and nothing else
        accounts.execute(INSERT, [f"later_{n}"])
        copy.wait(lambda known, n=n: f"later_{n}" in known)
    assert copy.told <= 20 + 20 + 2 * 5  # once more at most: what was committed while a look was under way


def test_a_transaction_that_takes_long_is_not_overlooked(accounts, follow, database_url, monkeypatch):
    overlap_s = 0.5
    monkeypatch.setattr("go2hooks.postgres.replica._OVERLAP", timedelta(seconds=overlap_s))
    copy = follow(reconcile_ms=20)
    accounts.execute("ALTER TABLE webhooks DISABLE TRIGGER webhooks_changed")  # no notifications
    with psycopg.connect(database_url) as slow, slow.transaction():
        slow.execute(INSERT, ["slow"])
        longer_than_the_overlap = time.monotonic() + 2 * overlap_s
        for n in itertools.count():  # many looks, each of which finds something newer
            accounts.execute(INSERT, [f"quick_{n}"])
            copy.wait(lambda known, n=n: f"quick_{n}" in known)
            if time.monotonic() > longer_than_the_overlap:
                break
        with slow.transaction():  # a savepoint: its id is in no snapshot
            slow.execute(INSERT, ["nested"])
        accounts.execute(INSERT, ["last"])
        copy.wait(lambda known: "last" in known)
        assert not {"slow", "nested"} & set(copy.webhooks)
    copy.wait(lambda known: {"slow", "nested"} <= set(known))


@pytest.mark.parametrize(
    ("xmin", "writer"), [(4_294_967_290, 4_294_967_290), (4, 2**32 + 4), (6, 6)], ids=["before", "after", "long ago"]
)
def test_a_writer_is_told_from_half_an_id_even_when_the_halves_begin_anew(database, xmin, writer):
    half = f"SELECT {WRITER} FROM (SELECT %s::bigint AS upcoming, %s AS xmin) AS row"
    assert database.execute(half, [2**32 + 5, str(xmin)]).fetchone() == (writer,)


def test_counting_failures_is_no_change_worth_telling(accounts, follow):
    accounts.execute(INSERT, ["wh_1"])
    copy = follow(reconcile_ms=60_000)
    copy.wait(lambda _: copy.told >= 2)  # the load, and the reconcile that follows it
    told = copy.told
    accounts.execute("UPDATE webhooks SET consecutive_failures = 3, failing_since = now() WHERE id = 'wh_1'")
    accounts.execute(INSERT, ["wh_2"])
    copy.wait(lambda known: "wh_2" in known)
    assert copy.told == told + 1


def test_a_cut_connection_is_replaced_and_what_was_missed_is_made_up(accounts, follow):
    copy = follow(reconcile_ms=60_000)
    accounts.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'go2hooks-live' AND datname = current_database()"
    )
    accounts.execute(INSERT, ["wh_1"])
    copy.wait(lambda known: "wh_1" in known)
    accounts.execute(INSERT, ["wh_2"])
    copy.wait(lambda known: "wh_2" in known)


def test_a_connection_that_is_cut_while_all_is_read_is_replaced_and_all_is_read_again(accounts, database_url):
    """What was read before it, and is deleted meanwhile, is not there to be read again."""
    rows = "SELECT 'wh_' || n, account_id, name, url, events, sealed_secret FROM webhooks, generate_series(1, 6000) n"
    accounts.execute(INSERT, ["wh_0"])
    accounts.execute(f"INSERT INTO webhooks (id, account_id, name, url, events, sealed_secret) {rows}")
    copy, gone = Copy(database_url, 200), []

    def cut(webhook: Webhook) -> None:
        if not gone:
            gone.append(webhook.id)
            accounts.execute("UPDATE webhooks SET deleted_at = now() WHERE id = %s", gone)
            accounts.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'go2hooks-live'"
            )

    copy.at_each = cut
    copy.follower.start()
    try:
        assert copy.told > 6001
        assert len(copy.webhooks) == 6001
        copy.wait(lambda known: known[gone[0]].is_deleted)
    finally:
        copy.follower.stop()


def test_a_server_that_vanishes_is_to_be_noticed_in_seconds(accounts, follow):
    copy = follow()
    assert copy.follower._first.info.get_parameters()["tcp_user_timeout"] == "10000"


def test_its_age_tells_how_long_ago_it_agreed_with_postgres(accounts, follow):
    copy = follow(reconcile_ms=100)
    time.sleep(0.5)
    eventually(lambda: copy.follower.age_s() < 0.4, 20, every_s=0.01)  # which grows unless it asks again
    copy.follower.stop()
    before = copy.follower.age_s()
    time.sleep(0.05)
    assert copy.follower.age_s() >= before + 0.05
