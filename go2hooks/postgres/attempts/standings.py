"""SQL of `attempts`, as replayers and operators' commands ask it: how deliveries stand, and which are overdue."""

from collections.abc import Generator, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from psycopg import Connection

from go2hooks.core.domain.delivery import Delivery, Position
from go2hooks.postgres.attempts.records import from_ms

# LATERAL with LIMIT: an index look-up per key, whatever the statistics say.
_STANDING: Final = """
SELECT k.n, last.attempt, last.state FROM unnest(%s::text[], %s::timestamptz[], %s::text[]) WITH ORDINALITY AS k(w, c, d, n),
LATERAL (SELECT attempt, state FROM attempts t WHERE t.webhook_id = k.w AND t.created_at = k.c AND t.delivery_id = k.d
         ORDER BY attempt DESC LIMIT 1) last"""
# `state <> 'delivered'` is spelled out so that the partial index applies. Tests are left out: they are not retried, and
# one that Kafka never took has no message to send again. The last attempt is a subquery of its own, so that it is an
# index look-up per row: a join might read all of `attempts`.
_OVERDUE: Final = """
SELECT a.delivery_id, a.webhook_id, a.created_at, a.state, a.attempt, coalesce(a.next_attempt_at, a.attempted_at),
       a.kafka_topic, a.kafka_partition, a.kafka_offset
FROM attempts a
WHERE a.state <> 'delivered' AND a.state IN ('pending', 'retrying') AND a.kind NOT IN ('test', 'redeliver') AND a.created_at >= %(since)s
  AND coalesce(a.next_attempt_at, a.attempted_at) < %(before)s
  AND a.attempt = (SELECT last.attempt FROM attempts last WHERE last.webhook_id = a.webhook_id
                   AND last.created_at = a.created_at AND last.delivery_id = a.delivery_id
                   ORDER BY last.attempt DESC LIMIT 1)
  AND (a.created_at, a.webhook_id, a.delivery_id) > (%(after)s, %(after_webhook)s, %(after_delivery)s)
ORDER BY a.created_at, a.webhook_id, a.delivery_id LIMIT %(page)s"""


class LastRecord(NamedTuple):
    """The last record of a delivery."""

    attempt: int
    state: str


class Key(NamedTuple):
    """The columns that all records of a delivery share."""

    webhook_id: str
    accepted: datetime
    delivery_id: str


class Overdue(NamedTuple):
    """A delivery that has been waiting for too long."""

    delivery_id: str
    webhook_id: str
    accepted: datetime  #: when Kafka accepted its event: part of its records' key
    state: str  #: pending or retrying; `unrecorded` for one without any record
    attempt: int  #: the last that is recorded, 0 for none
    since: datetime  #: when its next attempt was due
    position: Position | None  #: a message that holds it, though perhaps expired


def key_of(delivery: Delivery) -> Key:
    return Key(delivery.webhook_id, from_ms(delivery.origin_ms), delivery.id)


def standings(conn: Connection[Any], keys: Sequence[Key]) -> dict[str, LastRecord]:
    """The last records by delivery id; deliveries without any record are left out."""
    parameters = [[key[column] for key in keys] for column in range(len(Key._fields))]
    with conn.transaction():
        rows = conn.execute(_STANDING, parameters).fetchall()
    return {keys[n - 1].delivery_id: LastRecord(attempt, state) for n, attempt, state in rows}


def last_attempt(conn: Connection[Any], delivery: Delivery) -> int:
    """The number of its last recorded attempt; 0 when there is none."""
    found = standings(conn, [key_of(delivery)]).get(delivery.id)
    return found.attempt if found is not None else 0


def overdue_deliveries(
    conn: Connection[Any], since: datetime, before: datetime, page: int
) -> Generator[list[Overdue], None, None]:
    """All deliveries of events since `since` whose next attempt was due before `before`: oldest first, `page` at a time.

    The caller may pause between two pages: each page is a transaction of its own and leaves neither lock nor snapshot.
    """
    values = {"since": since, "before": before, "page": page, "after": since, "after_webhook": "", "after_delivery": ""}
    while found := _page(conn, values):
        yield found
        last = found[-1]
        values |= {"after": last.accepted, "after_webhook": last.webhook_id, "after_delivery": last.delivery_id}


def _page(conn: Connection[Any], values: dict[str, Any]) -> list[Overdue]:
    with conn.transaction():
        return [_overdue(*row) for row in conn.execute(_OVERDUE, values)]


def _overdue(
    delivery_id: str, webhook_id: str, accepted: datetime, state: str, attempt: int, since: datetime,
    topic: str | None, partition: int, offset: int,
) -> Overdue:  # fmt: skip
    position = None if topic is None else Position(topic, partition, offset)
    return Overdue(delivery_id, webhook_id, accepted, state, attempt, since, position)
