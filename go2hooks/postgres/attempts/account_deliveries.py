"""SQL of `attempts`, as the API asks it of all webhooks of an account: their deliveries, newest first."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from psycopg import Connection, sql

from go2hooks.core.domain.delivery import delivery_id
from go2hooks.postgres.attempts.deliveries import (
    ALONG_INDEXES,
    COLUMNS,
    MOST_READ,
    ORDER,
    DeliveryFilter,
    DeliveryRow,
    Place,
    all_of,
    conditions_of,
    looked_through,
    row_filters,
)

# A page of `most` deliveries can only come from the `most` webhooks with the newest rows: rows of all others are older.
# Some rows of each webhook are read. The page ends where the last webhook's rows begin, and not below the end of what was
# read of any webhook: below that there may be rows that were not read.
_PAGE: Final = sql.SQL("""
WITH newest AS MATERIALIZED (
    SELECT w.id, r.created_at, r.delivery_id
    FROM webhooks w, LATERAL (SELECT created_at, delivery_id FROM attempts WHERE {conditions} {order} LIMIT 1) r
    WHERE w.account_id = %(account_id)s AND w.deleted_at IS NULL
    ORDER BY r.created_at DESC, r.delivery_id DESC LIMIT {most}
), looked AS MATERIALIZED (
    SELECT r.*, row_number() OVER (PARTITION BY r.webhook_id
        ORDER BY r.created_at DESC, r.delivery_id DESC, r.attempt DESC) AS place
    FROM newest w, LATERAL ({looked_through} LIMIT {each}) r
), floor AS MATERIALIZED (
    SELECT created_at, delivery_id FROM looked WHERE place = {each}
    UNION ALL (SELECT created_at, delivery_id FROM newest ORDER BY created_at DESC, delivery_id DESC OFFSET {most} - 1)
    ORDER BY created_at DESC, delivery_id DESC LIMIT 1
), page AS (
    SELECT DISTINCT ON (created_at, delivery_id) webhook_id, {columns} FROM looked a
    WHERE {filters} AND NOT EXISTS (SELECT FROM floor f WHERE (a.created_at, a.delivery_id) < (f.created_at, f.delivery_id))
    {order} LIMIT {most}
) SELECT (SELECT count(*) FROM newest), floor.created_at, floor.delivery_id, page.*
    FROM (VALUES (0)) always LEFT JOIN floor ON true LEFT JOIN page ON true
    ORDER BY page.created_at DESC, page.delivery_id DESC""")
# Each id is looked for by the index of ids. OFFSET 0 keeps that apart: for many ids at once, the planner would rather read the
# whole table.
_BY_ID: Final = sql.SQL("""SELECT DISTINCT ON (created_at, delivery_id) webhook_id, {columns} FROM unnest(%(ids)s::text[]) wanted (id),
    LATERAL (SELECT * FROM attempts WHERE delivery_id || '' = wanted.id OFFSET 0) a
    WHERE webhook_id = ANY(%(owned)s) AND {filters} {order} LIMIT {limit}""")
# In how much time before a page's upper end each webhook's newest row is looked for first, then in all. A partition holds a day,
# and each takes 3 us for a webhook: 0.1 s for a thousand of them and a month.
_RECENT: Final = (timedelta(hours=1), timedelta(days=1), None)


class AccountDelivery(NamedTuple):
    """A delivery and its webhook."""

    webhook_id: str
    row: DeliveryRow


class Ids(NamedTuple):
    """Which ids deliveries must have; None leaves out none."""

    delivery_id: str | None = None
    event_id: str | None = None

    def of(self, webhook_ids: list[str]) -> list[str]:
        """The delivery ids to look for. An id is computed from event and webhook, so every possible id is known."""
        if self.event_id is None:
            return [] if self.delivery_id is None else [self.delivery_id]
        made = [delivery_id(self.event_id, each) for each in webhook_ids]
        return made if self.delivery_id is None else [each for each in made if each == self.delivery_id]


class AccountPage(NamedTuple):
    """Some deliveries of an account, and where the next page begins; None when there are no more."""

    deliveries: list[AccountDelivery]
    ended: Place | None


def account_page(
    conn: Connection[Any], account_id: str, wanted: DeliveryFilter, limit: int, below: Place | None = None
) -> AccountPage:
    """Like `deliveries.page`, of all the account's webhooks.

    Reads one row of each webhook, and of the newest ones first as few as a page needs; where these give less, up to
    `MOST_READ` in all.
    """
    conn.execute(ALONG_INDEXES)
    most = limit + 1
    upper = min(filter(None, (below and below.created_at, wanted.until, datetime.now(UTC))))
    windows = iter(_RECENT)
    window = next(windows)
    each = most
    while True:
        recent = None if window is None else upper - window
        rows = conn.execute(*_page_query(account_id, wanted, most, each, below, recent)).fetchall()
        webhooks, *floor = rows[0][:3]
        found = [_account_delivery(row[3:]) for row in rows if row[3] is not None]
        if webhooks < most and window is not None:
            window = next(windows)
        elif len(found) < most and floor[0] is not None and each < MOST_READ // most:
            each = MOST_READ // most
        else:
            break
    if len(found) > limit:
        return AccountPage(found[:limit], _place(found[limit - 1]))
    return AccountPage(found, None if floor[0] is None else Place(*floor))


def _page_query(
    account_id: str, wanted: DeliveryFilter, most: int, each: int, below: Place | None, recent: datetime | None
) -> tuple[sql.Composed, dict[str, Any]]:
    conditions, values = conditions_of(None, wanted, below)
    newest = conditions if recent is None else [*conditions, "created_at >= %(recent)s"]
    query = _PAGE.format(
        conditions=all_of(newest), looked_through=looked_through(conditions), most=most, each=each,
        columns=COLUMNS, filters=all_of(row_filters(wanted)), order=ORDER,
    )  # fmt: skip
    return query, values | {"account_id": account_id, "recent": recent}


def page_by_id(
    conn: Connection[Any],
    account_id: str,
    ids: Ids,
    wanted: DeliveryFilter,
    limit: int,
    below: Place | None = None,
    webhook_id: str | None = None,
) -> AccountPage:
    """The deliveries that have these ids, newest first; only to one of the account's webhooks, if it is named."""
    rows = conn.execute(
        """SELECT id FROM webhooks WHERE account_id = %(account_id)s AND deleted_at IS NULL
           AND (%(id)s::text IS NULL OR id = %(id)s)""",
        {"account_id": account_id, "id": webhook_id},
    )
    owned = [each for (each,) in rows]
    values = wanted._asdict() | {"owned": owned, "ids": ids.of(owned)}
    filters = row_filters(wanted)
    filters += ["created_at >= %(since)s"] if wanted.since is not None else []
    filters += ["created_at < %(until)s"] if wanted.until is not None else []
    if below is not None:
        filters.append("(created_at, delivery_id) < (%(below_at)s, %(below_id)s)")
        values |= {"below_at": below.created_at, "below_id": below.delivery_id}
    query = _BY_ID.format(columns=COLUMNS, filters=all_of(filters), order=ORDER, limit=limit + 1)
    found = [_account_delivery(row) for row in conn.execute(query, values)]
    return AccountPage(found[:limit], _place(found[limit - 1]) if len(found) > limit else None)


def _account_delivery(row: tuple[Any, ...]) -> AccountDelivery:
    return AccountDelivery(row[0], DeliveryRow(*row[1:]))


def _place(delivery: AccountDelivery) -> Place:
    return Place(delivery.row.created_at, delivery.row.delivery_id)
