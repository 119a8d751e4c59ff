"""SQL of `attempts`: deliveries whose next attempt should long have been made."""

from datetime import datetime
from typing import Any, Final, NamedTuple

from psycopg import Connection

from go2hooks.core.delivery import Position

# `state <> 'delivered'` is spelled out so that the partial index applies. Tests are left out: they are not retried, and
# one that Kafka never took has nothing that could be sent again.
_OVERDUE: Final = """
SELECT a.delivery_id, a.webhook_id, a.state, a.attempt, coalesce(a.next_attempt_at, a.attempted_at),
       a.kafka_topic, a.kafka_partition, a.kafka_offset
FROM attempts a
WHERE a.state <> 'delivered' AND a.state IN ('pending', 'retrying') AND a.kind <> 'test' AND a.created_at >= %(since)s
  AND coalesce(a.next_attempt_at, a.attempted_at) < %(before)s
  AND NOT EXISTS (SELECT 1 FROM attempts later WHERE later.webhook_id = a.webhook_id AND later.created_at = a.created_at
                  AND later.delivery_id = a.delivery_id AND later.attempt > a.attempt)
LIMIT %(limit)s"""


class Overdue(NamedTuple):
    """A delivery that has been waiting for too long."""

    delivery_id: str
    webhook_id: str
    state: str  #: pending or retrying; `unrecorded` for one without any record
    attempt: int  #: the last that is recorded, 0 for none
    since: datetime  #: when its next attempt was due
    position: Position | None  #: a message that holds it, though perhaps expired


def overdue_deliveries(conn: Connection[Any], since: datetime, before: datetime, limit: int) -> list[Overdue]:
    """Deliveries of events since `since` whose next attempt was due before `before`, at most `limit` of them."""
    rows = conn.execute(_OVERDUE, {"since": since, "before": before, "limit": limit}).fetchall()
    return [_overdue(*row) for row in rows]


def _overdue(
    delivery_id: str, webhook_id: str, state: str, attempt: int, since: datetime,
    topic: str | None, partition: int, offset: int,
) -> Overdue:  # fmt: skip
    position = None if topic is None else Position(topic, partition, offset)
    return Overdue(delivery_id, webhook_id, state, attempt, since, position)
