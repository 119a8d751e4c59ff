"""SQL of `replays`, as the API asks it, in transactions that it begins and ends."""

# ruff: noqa: S608  # what is put together are constants of this module; every value is a parameter

from datetime import datetime
from typing import Any, Final, NamedTuple

from psycopg import Connection
from psycopg.rows import class_row

_COLUMNS: Final = """id, webhook_id, from_at, to_at, events, selection, status, error, matched, sent, expired, delivered, failed,
    skipped, position_at, unread, created_at, finished_at"""
_OWN: Final = "account_id = %(account)s AND webhook_id = %(webhook)s"


class ReplayRow(NamedTuple):
    """A replay as its owner sees it."""

    id: str
    webhook_id: str
    from_at: datetime
    to_at: datetime
    events: list[str] | None
    selection: str
    status: str
    error: str | None
    matched: int
    sent: int
    expired: int
    delivered: int
    failed: int
    skipped: int
    position_at: datetime | None
    unread: int | None
    created_at: datetime
    finished_at: datetime | None


class NewReplay(NamedTuple):
    """What is asked for."""

    id: str
    webhook_id: str
    account_id: str
    from_at: datetime
    to_at: datetime
    events: list[str] | None
    selection: str


def running(conn: Connection[Any], account_id: str) -> dict[str, str]:
    """The account's replays that are not over: their ids by webhook."""
    sql = "SELECT webhook_id, id FROM replays WHERE account_id = %s AND finished_at IS NULL"
    return dict(conn.execute(sql, [account_id]).fetchall())


def create(conn: Connection[Any], new: NewReplay) -> ReplayRow:
    """Insert a replay. The caller has called `accounts.lock`, and `running` has returned none of this webhook."""
    row = _one(
        conn,
        f"""INSERT INTO replays (id, webhook_id, account_id, from_at, to_at, events, selection)
            VALUES (%(id)s, %(webhook_id)s, %(account_id)s, %(from_at)s, %(to_at)s, %(events)s, %(selection)s)
            RETURNING {_COLUMNS}""",
        new._asdict(),
    )
    if row is None:
        raise RuntimeError("INSERT … RETURNING returned nothing")
    return row


def count(conn: Connection[Any], account_id: str, webhook_id: str) -> int:
    sql = f"SELECT count(*) FROM replays WHERE {_OWN}"
    row = conn.execute(sql, {"account": account_id, "webhook": webhook_id}).fetchone()
    return int(row[0]) if row else 0


def page(conn: Connection[Any], account_id: str, webhook_id: str, limit: int, offset: int) -> list[ReplayRow]:
    """The webhook's replays, newest first."""
    with conn.cursor(row_factory=class_row(ReplayRow)) as cursor:
        return cursor.execute(
            f"""SELECT {_COLUMNS} FROM replays WHERE {_OWN} ORDER BY created_at DESC, id DESC
                LIMIT %(limit)s OFFSET %(offset)s""",
            {"account": account_id, "webhook": webhook_id, "limit": limit, "offset": offset},
        ).fetchall()


def find(conn: Connection[Any], account_id: str, webhook_id: str, replay_id: str) -> ReplayRow | None:
    values = {"account": account_id, "webhook": webhook_id, "id": replay_id}
    return _one(conn, f"SELECT {_COLUMNS} FROM replays WHERE {_OWN} AND id = %(id)s", values)


def stop(conn: Connection[Any], account_id: str, webhook_id: str, replay_id: str) -> ReplayRow | None:
    """Stop a replay. One that is over is left unchanged."""
    values = {"account": account_id, "webhook": webhook_id, "id": replay_id}
    return _one(
        conn,
        f"""UPDATE replays SET status = CASE WHEN finished_at IS NULL THEN 'stopped' ELSE status END,
                finished_at = coalesce(finished_at, clock_timestamp())
            WHERE {_OWN} AND id = %(id)s RETURNING {_COLUMNS}""",
        values,
    )


def _one(conn: Connection[Any], sql: str, values: dict[str, Any]) -> ReplayRow | None:
    with conn.cursor(row_factory=class_row(ReplayRow)) as cursor:
        return cursor.execute(sql, values).fetchone()
