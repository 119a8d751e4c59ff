"""SQL of `redeliveries`: who sends a delivery again, so that nobody else does meanwhile."""

from typing import Any, Final

from psycopg import Connection

#: The highest number that an attempt may have.
LAST_ATTEMPT: Final = 32767
# One that is as old was lost, or waits for dispatchers that are away: the same attempt may be asked for once more. A second
# message for it is a duplicate, which dispatchers recognise.
_BEGIN: Final = """
INSERT INTO redeliveries (webhook_id, delivery_id, attempt) VALUES (%s, %s, %s)
ON CONFLICT (webhook_id, delivery_id) DO UPDATE SET attempt = excluded.attempt, asked_at = clock_timestamp()
WHERE redeliveries.attempt < excluded.attempt OR redeliveries.asked_at < clock_timestamp() - interval '5 minutes'
RETURNING attempt"""
_FORGET: Final = "DELETE FROM redeliveries WHERE webhook_id = %s AND delivery_id = %s AND attempt = %s"


def begin(conn: Connection[Any], webhook_id: str, delivery_id: str, attempt: int) -> bool:
    """Take this attempt, the one after the last that is recorded. False when somebody else has, and it is not recorded yet."""
    return conn.execute(_BEGIN, [webhook_id, delivery_id, attempt]).fetchone() is not None


def forget(conn: Connection[Any], webhook_id: str, delivery_id: str, attempt: int) -> None:
    """Take back `begin`: Kafka did not take the delivery."""
    conn.execute(_FORGET, [webhook_id, delivery_id, attempt])
