"""The replica of webhooks: complete before anybody reads it, then never more than a second behind.

A thread listens for NOTIFY (within milliseconds of a commit). Since a notification can be missed while a connection is
down, it also queries for changes every `reconcile_interval_ms`. Behind a pooler it only queries, as NOTIFY does not pass.

A query returns what was written by transactions that the query before could not see. It compares transaction ids, since
`changed_at` is taken before the commit and may be earlier than the query before. `changed_at` only keeps a query from
reading the whole table: no transaction that has yet to commit has an earlier one. So a query that finds nothing costs
nothing, however many webhooks were changed a moment ago, and a transaction may take any time to commit.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import psycopg
import structlog
from psycopg import AsyncConnection

from go2hooks.core.domain.filters import Filter, compile_filter
from go2hooks.core.domain.webhook import Webhook, WebhookOptions
from go2hooks.core.errors import FilterError
from go2hooks.postgres.away import Outage
from go2hooks.postgres.deployment import find_deployment
from go2hooks.postgres.session import Session, is_pooled
from go2hooks.settings import Settings

log = structlog.get_logger(__name__)

CHANNEL: Final = "go2hooks_webhooks"
_OVERLAP = timedelta(seconds=10)  # a row is dated before its transaction has an id, mostly by microseconds

_COLUMNS = """SELECT id, account_id, url, events, is_active, deleted_at IS NOT NULL, sealed_secret, sealed_previous_secret,
    coalesce((extract(epoch FROM previous_secret_expires_at) * 1000)::bigint, 0), client_certificate,
    CASE WHEN num_nonnulls(headers, rate_limit, max_concurrency, filter) > 0
         THEN jsonb_build_array(headers, rate_limit, max_concurrency, filter) END, sealed_headers FROM webhooks """
_ALL = _COLUMNS + "WHERE deleted_at IS NULL"
_BY_ID = _COLUMNS + "WHERE id = ANY(%s)"
# Transaction ids: all below the first have ended; the second is the next to be assigned. The time is taken before both.
_LOOK = """SELECT statement_timestamp(), pg_snapshot_xmin(now)::text::bigint, pg_snapshot_xmax(now)::text::bigint
    FROM pg_current_snapshot() AS now"""
# The transaction that wrote a row: `xmin` has the lower 32 bits of its id, and the latest id with these bits is meant.
WRITER: Final = "upcoming - ((upcoming - xmin::text::bigint) & 4294967295)"
_CHANGED_SINCE = f"""{_COLUMNS}, (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS upcoming) AS ids
    WHERE changed_at > %s AND {WRITER} >= %s ORDER BY changed_at"""


def _webhook(row: Sequence[Any], events: frozenset[str], account_id: str) -> Webhook:
    webhook = Webhook(row[0], account_id, row[2], events, *row[4:10])
    return webhook if row[10] is None else webhook._replace(options=_options(row[0], row[10], row[11]))


def _options(webhook_id: str, columns: list[Any], sealed_headers: bytes | None) -> WebhookOptions:
    """A filter that cannot be read (a later version's, or somebody's by hand) lets everything pass: nothing gets lost."""
    headers, rate_limit, max_concurrency, pattern = columns
    compiled: Filter | None = None
    try:
        compiled = None if pattern is None else compile_filter(pattern)
    except FilterError as error:
        log.error("filter cannot be read; events pass without it", webhook_id=webhook_id, error=str(error))  # noqa: TRY400  # the traceback says nothing more
    own = tuple([(name, value) for name, value in headers or ()])
    rate = None if rate_limit is None else float(rate_limit)  # JSON has whole numbers too
    return WebhookOptions(own, sealed_headers, rate, max_concurrency, compiled)


async def find_webhook(connection: AsyncConnection[Any], webhook_id: str) -> Webhook | None:
    """One webhook as it is now; None when there is none or it is deleted."""
    async with connection.transaction():
        row = await (await connection.execute(_BY_ID, [[webhook_id]])).fetchone()
    return None if row is None or row[5] else _webhook(row, frozenset(row[3]), row[1])


class WebhookFollower:
    """Calls `apply` with every webhook in `start`, then, on a thread, with each that changes (tombstones included)."""

    def __init__(self, settings: Settings, apply: Callable[[Webhook], None]) -> None:
        self._url = settings.direct_url()
        self._interval_s = settings.reconcile_interval_ms / 1000
        self._apply = apply
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow_for_ever, name="live-copy", daemon=True)
        self._began: datetime | None = None  # the first look before a load
        self._horizon = 0  # changes by transactions with ids below this are known
        self._since = datetime.fromtimestamp(0, UTC)  # no open transaction has an earlier `changed_at`
        self._mark = self._since, 0  # a time, and the first transaction id that had not begun then
        self._interned: dict[frozenset[str], frozenset[str]] = {}
        self._accounts: dict[str, str] = {}
        self._heard = 0.0
        self._outage = Outage("live")
        self.deployment = ""  #: which deployment this database is; known when `start` has returned

    def start(self) -> None:
        """Load everything, then follow. Blocks until the copy is complete; waits for a Postgres that is away."""
        while (connection := self._connect_patiently()) is not None:
            try:
                self._load(connection)
            except psycopg.Error as error:
                connection.close()
                self._stop.wait(self._outage.tell(error))
            else:
                self._outage.end()
                self._first = connection
                self._thread.start()
                return

    def abandon(self) -> None:
        """Stop waiting and following; does not block."""
        self._stop.set()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def age_s(self) -> float:
        """Seconds since the copy last agreed with Postgres."""
        return time.monotonic() - self._heard

    # --- thread

    def _follow_for_ever(self) -> None:
        connection: Session | None = self._first
        while connection is not None:
            try:
                with connection:
                    self._follow(connection)
            except psycopg.Error as error:
                self._stop.wait(self._outage.tell(error))
            connection = self._connect_patiently()  # None once stopped

    def _follow(self, connection: Session) -> None:
        self._horizon = 0  # a new connection may reach another server, whose transaction ids differ
        while not self._stop.is_set():
            with connection.transaction():
                self._reconcile(connection)
            self._heard = time.monotonic()
            self._outage.end()
            until = time.monotonic() + self._interval_s
            while not self._stop.is_set() and (left := until - time.monotonic()) > 0:
                changed = {note.payload for note in connection.notifies(timeout=min(left, 0.25), stop_after=1)}
                if changed:
                    with connection.transaction():
                        self._take(connection.execute(_BY_ID, [list(changed)]))

    def _reconcile(self, connection: Session) -> None:
        now, oldest, upcoming = self._look(connection)
        self._take(connection.execute(_CHANGED_SINCE, [self._since, self._horizon]))
        self._horizon = oldest
        marked_at, marked = self._mark
        if oldest >= marked:  # every open transaction began after the mark
            self._since = marked_at - _OVERLAP
            self._mark = now, upcoming

    def _load(self, connection: Session) -> None:
        """Read all webhooks. A change by a transaction that is open for more than 10 s comes by its notification."""
        with connection.transaction():
            self.deployment = find_deployment(connection)
            now, _oldest, upcoming = self._look(connection)
        # A webhook that an earlier load read may be deleted since: changes are queried from the first load on.
        began = self._began = now if self._began is None else self._began
        with connection.transaction(), connection.cursor(name="webhooks") as cursor:
            cursor.itersize = 5000
            cursor.execute(_ALL)
            self._take(cursor)
        self._since, self._mark = began - _OVERLAP, (now, upcoming)
        self._heard = time.monotonic()

    @staticmethod
    def _look(connection: Session) -> tuple[datetime, int, int]:
        """The database's time; the oldest transaction that is not over; the next to begin."""
        ((now, oldest, upcoming),) = connection.execute(_LOOK)
        return now, oldest, upcoming

    def _take(self, rows: Iterable[Sequence[Any]]) -> None:
        for row in rows:
            events = frozenset(row[3])
            events = self._interned.setdefault(events, events)
            account = self._accounts.setdefault(row[1], row[1])
            self._apply(_webhook(row, events, account))

    def _connect_patiently(self) -> Session | None:
        """Connect, however long it takes, and LISTEN unless a pooler is in between; None when stopped meanwhile."""
        while not self._stop.is_set():
            try:
                connection = Session.connect(self._url, name="live", connect_timeout_s=3)
                with connection.transaction():
                    if not is_pooled(connection):
                        connection.execute(f"LISTEN {CHANNEL}")
            except psycopg.Error as error:
                self._stop.wait(self._outage.tell(error))
            else:
                return connection
        return None
