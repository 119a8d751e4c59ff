"""SQL of `attempts`, as the API asks it: a webhook's deliveries, newest first, each as its last row.

Every page is read off an index in the order of the primary key, and reads a bounded number of rows: its cost grows neither
with the table nor with what the filters leave out. The conditions of the partial indexes are spelled out: a parameter
alone would not let the planner prove that they apply.
"""

from datetime import datetime
from typing import Any, Final, NamedTuple

from psycopg import Connection, sql
from psycopg.rows import class_row

from go2hooks.core.domain.delivery import Position
from go2hooks.core.domain.event import EventType
from go2hooks.core.domain.outcome import State
from go2hooks.core.domain.record import timestamptz

COLUMNS: Final = sql.SQL("""delivery_id, created_at, attempt, event_id, event, kind, state, status_code, duration_ms,
    error_code, error_message, next_attempt_at, attempted_at, response_excerpt""")
ORDER: Final = sql.SQL("ORDER BY created_at DESC, delivery_id DESC, attempt DESC")
# The rows to look through are limited before the filters, which are outside: with the filters inside the LIMIT, a page
# would read on until enough rows pass. It is one index range, so a page that is full early stops there. The limits are
# no parameters: a generic plan would have to guess them, and Postgres would then plan over all partitions for each page.
_LOOKED_THROUGH: Final = sql.SQL("SELECT webhook_id, {columns} FROM attempts WHERE {conditions} {order}")
_PAGE: Final = sql.SQL("""SELECT DISTINCT ON (created_at, delivery_id) {columns}
    FROM ({looked_through} LIMIT {most}) a WHERE {filters} {order} LIMIT {limit}""")
_END: Final = sql.SQL("""SELECT created_at, delivery_id FROM ({looked_through} LIMIT 1 OFFSET {most} - 1) a""")
_LATEST: Final = sql.SQL("""SELECT {columns} FROM attempts
    WHERE webhook_id = %s AND created_at = %s::timestamptz AND delivery_id = %s ORDER BY attempt DESC LIMIT 1""")
# The expression is that of the index. The id alone is looked up first: with the webhook's id as well, the planner might
# read all rows of the webhook. An event that was accepted twice is two deliveries with one id: the later one is meant.
_PLACED: Final = """WITH found AS MATERIALIZED (SELECT webhook_id, created_at FROM attempts WHERE delivery_id || '' = %s)
    SELECT max(created_at) FROM found WHERE webhook_id = %s"""
_ATTEMPTS: Final = sql.SQL("""SELECT {columns}, location, retry_after, remote_address, kafka_topic, kafka_partition, kafka_offset
    FROM attempts WHERE webhook_id = %s AND created_at = %s AND delivery_id = %s ORDER BY attempt DESC LIMIT {most}""")
_NO_LATER: Final = """NOT EXISTS (SELECT 1 FROM attempts later WHERE later.webhook_id = a.webhook_id
    AND later.created_at = a.created_at AND later.delivery_id = a.delivery_id AND later.attempt > a.attempt)"""
# Use the index whatever the statistics say: for a webhook that they do not know yet, Postgres
# might read and sort all rows.
ALONG_INDEXES: Final = "SET LOCAL enable_sort = off"
# Of two filters with an index, one chooses the index and the other is checked per row. These states choose it, since most
# webhooks have few such deliveries; the other states are as frequent as all deliveries, or more.
_LEADING: Final = (State.FAILED, State.SKIPPED)
#: How many rows a page looks through: 0.15 s even with each one's later attempts, far from the statement timeout where they
#: have to come from the disk. A filter that finds less than a page in so many rows gives a short page and a cursor.
MOST_READ: Final = 20_000
#: Rows that are shown of one delivery, however often somebody sends it again.
MOST_ATTEMPTS: Final = 200


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
    response_excerpt: str | None


class AttemptRow(NamedTuple):
    """One row of a delivery, whole."""

    delivery: DeliveryRow  #: as it stood after it
    location: str | None
    retry_after: str | None
    remote_address: str | None
    position: Position | None  #: where its message lies in Kafka


class LatestRow(NamedTuple):
    """How a delivery's last attempt ended."""

    delivery_id: str
    attempt: int
    state: str
    status_code: int | None
    duration_ms: float | None
    error_code: str | None
    error_message: str | None
    response_excerpt: str | None


class Place(NamedTuple):
    """Where a page ended: the next one begins below."""

    created_at: datetime
    delivery_id: str


class Page(NamedTuple):
    """Some deliveries, and where the next page begins; None when there are no more."""

    rows: list[DeliveryRow]
    ended: Place | None


class DeliveryFilter(NamedTuple):
    """Which deliveries; None leaves out none."""

    status: str | None = None
    event: str | None = None
    since: datetime | None = None  #: created at this time or later
    until: datetime | None = None  #: created before this time


def page(
    conn: Connection[Any], webhook_id: str, wanted: DeliveryFilter, limit: int, below: Place | None = None
) -> Page:
    """At most `limit` deliveries, newest first, starting below a place.

    Fewer, or none, does not mean that there are no more: with a filter, a page also ends after `MOST_READ` rows.
    `conn` is in a transaction of its own, REPEATABLE READ: both statements must see the same rows. Otherwise a row that
    is inserted or deleted between them shifts the count, and the second statement names another place than the one at
    which the first stopped reading.
    """
    with conn.cursor(row_factory=class_row(DeliveryRow)) as cursor:
        cursor.execute(ALONG_INDEXES)
        rows = cursor.execute(*page_query(webhook_id, wanted, limit + 1, below)).fetchall()
        if len(rows) > limit:
            return Page(rows[:limit], Place(rows[limit - 1].created_at, rows[limit - 1].delivery_id))
        end = conn.execute(*end_query(webhook_id, wanted, below)).fetchone()
    # A delivery's newest row comes first, so the next page begins after the delivery at which this one stopped reading.
    return Page(rows, None if end is None else Place(*end))


def page_query(
    webhook_id: str, wanted: DeliveryFilter, limit: int, below: Place | None = None
) -> tuple[sql.Composed, dict[str, Any]]:
    conditions, values = conditions_of(webhook_id, wanted, below)
    query = _PAGE.format(
        columns=COLUMNS, looked_through=looked_through(conditions), most=MOST_READ,
        filters=all_of(row_filters(wanted)), order=ORDER, limit=limit,
    )  # fmt: skip
    return query, values


def end_query(
    webhook_id: str, wanted: DeliveryFilter, below: Place | None = None
) -> tuple[sql.Composed, dict[str, Any]]:
    """Where `page_query` stops reading, if there is that much."""
    conditions, values = conditions_of(webhook_id, wanted, below)
    return _END.format(looked_through=looked_through(conditions), most=MOST_READ), values


def looked_through(conditions: list[str]) -> sql.Composed:
    """Rows in the order of an index, whatever is left out of them later; without a limit."""
    return _LOOKED_THROUGH.format(columns=COLUMNS, conditions=all_of(conditions), order=ORDER)


def conditions_of(
    webhook_id: str | None, wanted: DeliveryFilter, below: Place | None
) -> tuple[list[str], dict[str, Any]]:
    """The conditions that choose an index and a range of it; without an id, for each webhook `w` of an outer query."""
    whose = "webhook_id = w.id" if webhook_id is None else "webhook_id = %(webhook_id)s"
    conditions = [whose, *_leading(wanted)]
    values: dict[str, Any] = {"webhook_id": webhook_id} | wanted._asdict()
    if wanted.since is not None:
        conditions.append("created_at >= %(since)s")
    if wanted.until is not None:
        conditions.append("created_at < %(until)s")
    if below is not None:
        # The first alone would do; the second is what leaves out whole partitions.
        conditions += ["(created_at, delivery_id) < (%(below_at)s, %(below_id)s)", "created_at <= %(below_at)s"]
        values |= {"below_at": below.created_at, "below_id": below.delivery_id}
    return conditions, values


def _leading(wanted: DeliveryFilter) -> list[str]:
    """The condition that a partial index answers, and that index's own. Empty for common values, which none holds."""
    by_event = wanted.event not in (None, EventType.CLICK)
    by_state = wanted.status not in (None, State.DELIVERED)
    if by_state and (wanted.status in _LEADING or not by_event):
        return ["state = %(status)s", "state <> 'delivered'"]
    return ["event = %(event)s", "event <> 'click'"] if by_event else []


def row_filters(wanted: DeliveryFilter) -> list[str]:
    """A delivery's status is that of its last row: a later attempt overtakes retries and failures."""
    status = ["state = %(status)s", _NO_LATER] if wanted.status is not None else []
    event = ["event = %(event)s"] if wanted.event is not None else []
    return [*status, *event] or ["true"]


def all_of(conditions: list[str]) -> sql.Composed:
    return sql.SQL(" AND ").join(map(sql.SQL, conditions))


def latest(conn: Connection[Any], webhook_id: str, created_ms: int, delivery_id: str) -> LatestRow | None:
    """One delivery's last row."""
    with conn.cursor(row_factory=class_row(LatestRow)) as cursor:
        query = _LATEST.format(columns=sql.SQL(", ").join(map(sql.Identifier, LatestRow._fields)))
        return cursor.execute(query, [webhook_id, timestamptz(created_ms), delivery_id]).fetchone()


def attempts(conn: Connection[Any], webhook_id: str, delivery_id: str) -> list[AttemptRow]:
    """All rows of one delivery, the last attempt's first; the newest `MOST_ATTEMPTS`. None for a delivery that is not there."""
    [created_at] = conn.execute(_PLACED, [delivery_id, webhook_id]).fetchone() or [None]
    if created_at is None:
        return []
    query = _ATTEMPTS.format(columns=COLUMNS, most=MOST_ATTEMPTS)
    return [_attempt_row(row) for row in conn.execute(query, [webhook_id, created_at, delivery_id])]


def _attempt_row(row: tuple[Any, ...]) -> AttemptRow:
    width = len(DeliveryRow._fields)
    location, retry_after, remote_address, topic, partition, offset = row[width:]
    position = None if topic is None else Position(topic, partition, offset)
    return AttemptRow(DeliveryRow(*row[:width]), location, retry_after, remote_address, position)
