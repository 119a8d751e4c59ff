"""SQL of `attempts`: deliveries whose next attempt should long have been made."""

from collections.abc import Generator
from datetime import datetime
from typing import Any, Final, NamedTuple

from psycopg import Connection

from go2hooks.core.delivery import Position

# `state <> 'delivered'` is spelled out so that the partial index applies. Tests are left out: they are not retried, and
# one that Kafka never took has nothing that could be sent again. The last attempt is a subquery of its own, so that it is
# an index look-up per row: joined, all of `attempts` might be read for it.
_OVERDUE: Final = """
SELECT a.delivery_id, a.webhook_id, a.created_at, a.state, a.attempt, coalesce(a.next_attempt_at, a.attempted_at),
       a.kafka_topic, a.kafka_partition, a.kafka_offset
FROM attempts a
WHERE a.state <> 'delivered' AND a.state IN ('pending', 'retrying') AND a.kind <> 'test' AND a.created_at >= %(since)s
  AND coalesce(a.next_attempt_at, a.attempted_at) < %(before)s
  AND a.attempt = (SELECT last.attempt FROM attempts last WHERE last.webhook_id = a.webhook_id
                   AND last.created_at = a.created_at AND last.delivery_id = a.delivery_id
                   ORDER BY last.attempt DESC LIMIT 1)"""


class Overdue(NamedTuple):
    """A delivery that has been waiting for too long."""

    delivery_id: str
    webhook_id: str
    accepted: datetime  #: when Kafka accepted its event: part of its records' key
    state: str  #: pending or retrying; `unrecorded` for one without any record
    attempt: int  #: the last that is recorded, 0 for none
    since: datetime  #: when its next attempt was due
    position: Position | None  #: a message that holds it, though perhaps expired


def overdue_deliveries(
    conn: Connection[Any], since: datetime, before: datetime, page: int
) -> Generator[list[Overdue], None, None]:
    """All deliveries of events since `since` whose next attempt was due before `before`: `page` at a time, to be closed.

    They are looked for once, at the first page. The caller may take its time between two: in autocommit mode Postgres
    keeps what it found apart, without a lock or a snapshot.
    """
    with conn.cursor(name="overdue", withhold=True) as cursor:
        cursor.execute(_OVERDUE, {"since": since, "before": before})
        while rows := cursor.fetchmany(page):
            yield [_overdue(*row) for row in rows]


def _overdue(
    delivery_id: str, webhook_id: str, accepted: datetime, state: str, attempt: int, since: datetime,
    topic: str | None, partition: int, offset: int,
) -> Overdue:  # fmt: skip
    position = None if topic is None else Position(topic, partition, offset)
    return Overdue(delivery_id, webhook_id, accepted, state, attempt, since, position)
