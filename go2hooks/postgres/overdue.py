"""SQL of `attempts`: deliveries whose next attempt should long have been made."""

from collections.abc import Generator
from datetime import datetime
from typing import Any, Final, NamedTuple

from psycopg import Connection

from go2hooks.core.domain.delivery import Position

# `state <> 'delivered'` is spelled out so that the partial index applies. Tests are left out: they are not retried, and
# one that Kafka never took has nothing that could be sent again. The last attempt is a subquery of its own, so that it is
# an index look-up per row: joined, all of `attempts` might be read for it.
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
    """All deliveries of events since `since` whose next attempt was due before `before`: oldest first, `page` at a time.

    The caller may take its time between two: each page is a transaction of its own, without a lock or a snapshot after it.
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
