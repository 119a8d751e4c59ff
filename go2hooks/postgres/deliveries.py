"""SQL of `attempts`, as the API asks it: a webhook's deliveries, newest first, each as its last row.

Every page is read off an index in the order of the primary key, so its cost does not grow with the table. The conditions
of the partial indexes are spelled out: a parameter alone would not let the planner prove that they apply.
"""

from datetime import datetime
from typing import Any, Final, NamedTuple

from psycopg import Connection, sql
from psycopg.rows import class_row

from go2hooks.core.event import EventType
from go2hooks.core.outcome import State
from go2hooks.core.record import AttemptRecord, timestamptz

_COLUMNS: Final = sql.SQL("""delivery_id, created_at, attempt, event_id, event, kind, state, status_code, duration_ms,
    error_code, error_message, next_attempt_at, attempted_at""")
_PAGE: Final = sql.SQL("""SELECT DISTINCT ON (created_at, delivery_id) {columns} FROM attempts a WHERE {conditions}
    ORDER BY created_at DESC, delivery_id DESC, attempt DESC LIMIT %(limit)s""")
_LATEST: Final = sql.SQL("""SELECT {columns} FROM attempts
    WHERE webhook_id = %s AND created_at = %s::timestamptz AND delivery_id = %s ORDER BY attempt DESC LIMIT 1""")
_NO_LATER: Final = """NOT EXISTS (SELECT 1 FROM attempts later WHERE later.webhook_id = a.webhook_id
    AND later.created_at = a.created_at AND later.delivery_id = a.delivery_id AND later.attempt > a.attempt)"""
_NOT_FINAL: Final = (
    State.PENDING,
    State.RETRYING,
)  # a later attempt may have overtaken these rows; the others are last


class DeliveryRow(NamedTuple):
    """The last row of a delivery."""

    delivery_id: str
    created_at: datetime
    attempt: int
    event_id: str
    event: str
    kind: str
    state: str
    status_code: int | None
    duration_ms: float | None
    error_code: str | None
    error_message: str | None
    next_attempt_at: datetime | None
    attempted_at: datetime


class Place(NamedTuple):
    """Where a page ended: the next one begins below."""

    created_at: datetime
    delivery_id: str


class Filter(NamedTuple):
    """Which deliveries; None leaves out none."""

    status: str | None = None
    event: str | None = None
    since: datetime | None = None  #: created at this time or later
    until: datetime | None = None  #: created before this time


def page(
    conn: Connection[Any], webhook_id: str, wanted: Filter, limit: int, below: Place | None = None
) -> list[DeliveryRow]:
    """At most `limit` deliveries, newest first, starting below a place."""
    query, values = page_query(webhook_id, wanted, limit, below)
    with conn.cursor(row_factory=class_row(DeliveryRow)) as cursor:
        return cursor.execute(query, values).fetchall()


def page_query(
    webhook_id: str, wanted: Filter, limit: int, below: Place | None = None
) -> tuple[sql.Composed, dict[str, Any]]:
    conditions = ["webhook_id = %(webhook_id)s", *_status_conditions(wanted.status), *_event_conditions(wanted.event)]
    values: dict[str, Any] = {"webhook_id": webhook_id, "limit": limit} | wanted._asdict()
    if wanted.since is not None:
        conditions.append("created_at >= %(since)s")
    if wanted.until is not None:
        conditions.append("created_at < %(until)s")
    if below is not None:
        # The first alone would do; the second is what leaves out whole partitions.
        conditions += ["(created_at, delivery_id) < (%(below_at)s, %(below_id)s)", "created_at <= %(below_at)s"]
        values |= {"below_at": below.created_at, "below_id": below.delivery_id}
    joined = sql.SQL(" AND ").join(map(sql.SQL, conditions))
    return _PAGE.format(columns=_COLUMNS, conditions=joined), values


def _status_conditions(status: str | None) -> list[str]:
    if status is None:
        return []
    index = ["state <> 'delivered'"] if status != State.DELIVERED else []
    overtaken = [_NO_LATER] if status in _NOT_FINAL else []
    return ["state = %(status)s", *index, *overtaken]


def _event_conditions(event: str | None) -> list[str]:
    if event is None:
        return []
    return ["event = %(event)s", *(["event <> 'click'"] if event != EventType.CLICK else [])]


def latest(conn: Connection[Any], webhook_id: str, created_ms: int, delivery_id: str) -> DeliveryRow | None:
    """One delivery as its last row."""
    with conn.cursor(row_factory=class_row(DeliveryRow)) as cursor:
        query = _LATEST.format(columns=_COLUMNS)
        return cursor.execute(query, [webhook_id, timestamptz(created_ms), delivery_id]).fetchone()


def insert_pending(conn: Connection[Any], record: AttemptRecord) -> None:
    """Record that a delivery waits for its first attempt."""
    conn.execute(
        """INSERT INTO attempts (webhook_id, created_at, delivery_id, attempt, account_id, event_id, event, kind, state,
                                 attempted_at)
           VALUES (%s, %s::timestamptz, %s, %s, %s, %s, %s, %s, %s, %s::timestamptz) ON CONFLICT DO NOTHING""",
        [
            record.webhook_id, timestamptz(record.created_ms), record.delivery_id, record.attempt, record.account_id,
            record.event_id, record.event, record.kind, record.state, timestamptz(record.attempted_ms),
        ],
    )  # fmt: skip


def forget_pending(conn: Connection[Any], record: AttemptRecord) -> None:
    """Take back `insert_pending`: Kafka did not take the delivery."""
    conn.execute(
        """DELETE FROM attempts WHERE webhook_id = %s AND created_at = %s::timestamptz AND delivery_id = %s
           AND attempt = %s AND state = 'pending'""",
        [record.webhook_id, timestamptz(record.created_ms), record.delivery_id, record.attempt],
    )
