"""SQL of `webhooks`, as the API asks it, in transactions that it begins and ends.

Every statement names the account: another account's webhook does not exist. Only the operators' page sees all accounts: it
asks for `counts_by_state` and `troubled`.
"""

# ruff: noqa: S608  # what is put together are constants of this module; every value is a parameter

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, Literal, NamedTuple

from psycopg import Connection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from go2hooks.core.domain.event import WILDCARD
from go2hooks.postgres import accounts, client_certificates

DISABLED_BY_USER: Final = "disabled_by_user"

_COLUMNS: Final = """id, name, url, events, is_active, consecutive_failures, disabled_at, disabled_reason,
    created_at, updated_at, previous_secret_expires_at, description, metadata, headers, rate_limit, max_concurrency, filter"""
SettingColumn = Literal[
    "description", "metadata", "headers", "sealed_headers", "rate_limit", "max_concurrency", "filter"
]
_JSON_COLUMNS: Final = ("metadata", "headers", "filter")
_OWN: Final = "id = %(id)s AND account_id = %(account)s AND deleted_at IS NULL"
_TROUBLED: Final = """
SELECT id, account_id, name, url, is_active, consecutive_failures, disabled_reason,
       coalesce(disabled_at, failing_since) AS since FROM webhooks
WHERE deleted_at IS NULL AND (NOT is_active OR consecutive_failures > 0)
ORDER BY since DESC NULLS LAST, id LIMIT %s"""
_COUNTS: Final = """
SELECT count(*) FILTER (WHERE is_active AND consecutive_failures = 0), count(*) FILTER (WHERE is_active AND consecutive_failures > 0),
       count(*) FILTER (WHERE NOT is_active) FROM webhooks WHERE deleted_at IS NULL"""


class WebhookRow(NamedTuple):
    """A webhook as its owner sees it; its secrets stay in the database."""

    id: str
    name: str
    url: str
    events: list[str]
    is_active: bool
    consecutive_failures: int
    disabled_at: datetime | None
    disabled_reason: str | None
    created_at: datetime
    updated_at: datetime
    previous_secret_expires_at: datetime | None
    description: str | None = None
    metadata: dict[str, str] | None = None
    headers: list[tuple[str, str | None]] | None = None  #: in their order; None where the value is secret
    rate_limit: float | None = None
    max_concurrency: int | None = None
    filter: dict[str, Any] | None = None


class WebhookFilter(NamedTuple):
    """Which webhooks; None leaves out none."""

    search: str | None = None  #: part of the name, the URL or the id, in any case
    event: str | None = None  #: subscribed to by its name or by `*`
    state: str | None = None  #: one of `STATES`


_STATES: Final = {
    "active": "is_active",
    "failing": "is_active AND consecutive_failures > 0",
    "disabled": "NOT is_active",
}
_SORT_BY: Final = {
    "createdAt": "created_at",
    "updatedAt": "updated_at",
    "name": "lower(name)",
    "consecutiveFailures": "consecutive_failures",
}
STATES: Final = tuple(_STATES)
SORTS: Final = tuple(f"{sign}{field}" for field in _SORT_BY for sign in ("", "-"))


class NewWebhook(NamedTuple):
    """The values of a new webhook."""

    id: str
    account_id: str
    name: str
    url: str
    events: list[str]
    sealed_secret: bytes


class WebhookChange(NamedTuple):
    """What to change; None leaves as it is."""

    name: str | None = None
    url: str | None = None
    events: list[str] | None = None
    is_active: bool | None = None


def create(conn: Connection[Any], new: NewWebhook, limit: int) -> WebhookRow | None:
    """Insert it, in the caller's transaction, unless its account has `limit` webhooks; then None."""
    accounts.lock(conn, new.account_id)
    with conn.cursor(row_factory=class_row(WebhookRow)) as cursor:
        return cursor.execute(
            f"""INSERT INTO webhooks (id, account_id, name, url, events, sealed_secret)
                SELECT %(id)s, %(account_id)s, %(name)s, %(url)s, %(events)s, %(sealed_secret)s
                WHERE (SELECT count(*) FROM webhooks WHERE account_id = %(account_id)s AND deleted_at IS NULL) < %(limit)s
                RETURNING {_COLUMNS}""",
            new._asdict() | {"limit": limit},
        ).fetchone()


def count(conn: Connection[Any], account_id: str, wanted: WebhookFilter) -> int:
    conditions, values = _conditions(account_id, wanted)
    row = conn.execute(f"SELECT count(*) FROM webhooks WHERE {conditions}", values).fetchone()
    return int(row[0]) if row else 0


def page(
    conn: Connection[Any], account_id: str, wanted: WebhookFilter, sort: str, limit: int, offset: int
) -> list[WebhookRow]:
    """The account's webhooks, in the order of one of `SORTS`. Reads all of the account's, but for the default order."""
    conditions, values = _conditions(account_id, wanted)
    direction = "DESC" if sort.startswith("-") else "ASC"
    order = f"{_SORT_BY[sort.removeprefix('-')]} {direction}, id {direction}"
    with conn.cursor(row_factory=class_row(WebhookRow)) as cursor:
        return cursor.execute(
            f"""SELECT {_COLUMNS} FROM webhooks WHERE {conditions}
                ORDER BY {order} LIMIT %(limit)s OFFSET %(offset)s""",
            values | {"limit": limit, "offset": offset},
        ).fetchall()


def _conditions(account_id: str, wanted: WebhookFilter) -> tuple[str, dict[str, Any]]:
    conditions = ["account_id = %(account)s", "deleted_at IS NULL"]
    if wanted.search is not None:
        conditions.append("(name ILIKE %(like)s OR url ILIKE %(like)s OR id ILIKE %(like)s)")
    if wanted.event is not None:
        conditions.append("events && %(subscribed)s::text[]")
    if wanted.state is not None:
        conditions.append(_STATES[wanted.state])
    literal = re.sub(r"[\\%_]", r"\\\g<0>", wanted.search or "")
    values = {"account": account_id, "like": f"%{literal}%", "subscribed": [wanted.event, WILDCARD]}
    return " AND ".join(conditions), values


def try_reading(conn: Connection[Any]) -> None:
    """Raises psycopg.Error where the table is missing or may not be read."""
    conn.execute("SELECT 1 FROM webhooks LIMIT 1")


def find(conn: Connection[Any], account_id: str, webhook_id: str) -> WebhookRow | None:
    return _one(conn, f"SELECT {_COLUMNS} FROM webhooks WHERE {_OWN}", account_id, webhook_id)


def names(conn: Connection[Any], account_id: str, webhook_ids: list[str]) -> dict[str, str]:
    """Names by id."""
    sql = "SELECT id, name FROM webhooks WHERE account_id = %s AND id = ANY(%s)"
    return dict(conn.execute(sql, [account_id, webhook_ids]).fetchall())


def lock(conn: Connection[Any], account_id: str, webhook_id: str) -> WebhookRow | None:
    """As `find`, and lock the row until the caller's transaction ends."""
    return _one(conn, f"SELECT {_COLUMNS} FROM webhooks WHERE {_OWN} FOR NO KEY UPDATE", account_id, webhook_id)


def sealed_secret(conn: Connection[Any], webhook_id: str) -> bytes:
    """The present secret of a webhook that the caller has locked."""
    row = conn.execute("SELECT sealed_secret FROM webhooks WHERE id = %s", [webhook_id]).fetchone()
    return bytes(row[0]) if row else b""


def change(conn: Connection[Any], account_id: str, webhook_id: str, wanted: WebhookChange) -> WebhookRow | None:
    """Apply the change in one statement. Activating clears the count of failures, even of an active webhook."""
    return _one(
        conn,
        f"""UPDATE webhooks SET
                name = coalesce(%(name)s, name),
                url = coalesce(%(url)s, url),
                events = coalesce(%(events)s::text[], events),
                is_active = coalesce(%(is_active)s::bool, is_active),
                consecutive_failures = CASE WHEN %(is_active)s::bool THEN 0 ELSE consecutive_failures END,
                failing_since = CASE WHEN %(is_active)s::bool THEN NULL ELSE failing_since END,
                disabled_at = CASE WHEN %(is_active)s::bool THEN NULL
                    WHEN NOT %(is_active)s::bool AND is_active THEN clock_timestamp() ELSE disabled_at END,
                disabled_reason = CASE WHEN %(is_active)s::bool THEN NULL
                    WHEN NOT %(is_active)s::bool AND is_active THEN %(by_user)s ELSE disabled_reason END,
                updated_at = clock_timestamp()
            WHERE {_OWN} RETURNING {_COLUMNS}""",
        account_id,
        webhook_id,
        **wanted._asdict(),
        by_user=DISABLED_BY_USER,
    )


def set_settings(
    conn: Connection[Any], account_id: str, webhook_id: str, settings: Mapping[SettingColumn, Any]
) -> WebhookRow | None:
    """Set these columns, each to a value or to None for not set."""
    assignments = ", ".join(f"{column} = %({column})s" for column in settings)
    values = {c: Jsonb(v) if c in _JSON_COLUMNS and v is not None else v for c, v in settings.items()}
    sql = f"UPDATE webhooks SET {assignments}, updated_at = clock_timestamp() WHERE {_OWN} RETURNING {_COLUMNS}"
    return _one(conn, sql, account_id, webhook_id, **values)


class Sealed(NamedTuple):
    """The encrypted values that a webhook's requests are signed with."""

    secret: bytes
    previous_secret: bytes | None  #: None when it does not sign any more
    has_certificate: bool


def sealed(conn: Connection[Any], account_id: str, webhook_id: str) -> Sealed | None:
    """The values at this moment; None when there is no such webhook."""
    sql = f"""SELECT sealed_secret AS secret, client_certificate IS NOT NULL AS has_certificate,
        CASE WHEN previous_secret_expires_at > now() THEN sealed_previous_secret END AS previous_secret
        FROM webhooks WHERE {_OWN}"""
    with conn.cursor(row_factory=class_row(Sealed)) as cursor:
        return cursor.execute(sql, {"account": account_id, "id": webhook_id}).fetchone()


def sealed_headers(conn: Connection[Any], account_id: str, webhook_id: str) -> bytes | None:
    """A webhook's encrypted headers. Locks its row, so that they are unchanged when they are replaced."""
    sql = f"SELECT sealed_headers FROM webhooks WHERE {_OWN} FOR UPDATE"
    row = conn.execute(sql, {"account": account_id, "id": webhook_id}).fetchone()
    return None if row is None or row[0] is None else bytes(row[0])


def rotate_secret(
    conn: Connection[Any], account_id: str, webhook_id: str, sealed_secret: bytes, overlap: timedelta
) -> WebhookRow | None:
    """The present secret becomes the previous one, which signs too until the overlap ends; an older one is forgotten."""
    return _one(
        conn,
        f"""UPDATE webhooks SET
                sealed_previous_secret = sealed_secret,
                previous_secret_expires_at = clock_timestamp() + %(overlap)s::interval,
                sealed_secret = %(sealed_secret)s,
                updated_at = clock_timestamp()
            WHERE {_OWN} RETURNING {_COLUMNS}""",
        account_id,
        webhook_id,
        sealed_secret=sealed_secret,
        overlap=overlap,
    )


def delete(conn: Connection[Any], account_id: str, webhook_id: str) -> bool:
    """Mark the row as deleted, so that deliveries under way are recognised. False when there is no such webhook."""
    own = {"account": account_id, "id": webhook_id}
    sql = f"""UPDATE webhooks SET deleted_at = clock_timestamp(), updated_at = clock_timestamp(), client_certificate = NULL
        WHERE {_OWN}"""
    is_gone = conn.execute(sql, own).rowcount == 1
    if is_gone:  # a statement of its own: it sees a certificate whose upload the first may have waited for
        client_certificates.forget(conn, webhook_id)
    return is_gone


class Troubled(NamedTuple):
    """A webhook that fails or is disabled."""

    id: str
    account_id: str
    name: str
    url: str
    is_active: bool
    consecutive_failures: int
    disabled_reason: str | None
    since: datetime | None  #: when it was disabled, or its present failures began


class WebhookCounts(NamedTuple):
    """All webhooks, by state."""

    active: int
    failing: int
    disabled: int


def troubled(conn: Connection[Any], limit: int) -> list[Troubled]:
    """Failing and disabled webhooks; those whose trouble began last come first."""
    with conn.cursor(row_factory=class_row(Troubled)) as cursor:
        return cursor.execute(_TROUBLED, [limit]).fetchall()


def counts_by_state(conn: Connection[Any]) -> WebhookCounts:
    return WebhookCounts(*(conn.execute(_COUNTS).fetchone() or (0, 0, 0)))


def _one(conn: Connection[Any], sql: str, account_id: str, webhook_id: str, **values: Any) -> WebhookRow | None:
    with conn.cursor(row_factory=class_row(WebhookRow)) as cursor:
        return cursor.execute(sql, {"account": account_id, "id": webhook_id, **values}).fetchone()
