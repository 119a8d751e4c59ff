"""SQL of `redeliveries`: it lets one request at a time send a delivery again."""

from typing import Any, Final

from psycopg import Connection

#: The highest number that an attempt may have.
LAST_ATTEMPT: Final = 32767
# After five minutes the message was lost or waits for a dispatcher, and the same attempt may be requested again. A second
# message for the attempt is a duplicate, which dispatchers recognise.
_BEGIN: Final = """
INSERT INTO redeliveries (webhook_id, delivery_id, attempt) VALUES (%s, %s, %s)
ON CONFLICT (webhook_id, delivery_id) DO UPDATE SET attempt = excluded.attempt, asked_at = clock_timestamp()
WHERE redeliveries.attempt < excluded.attempt OR redeliveries.asked_at < clock_timestamp() - interval '5 minutes'
RETURNING attempt"""
_FORGET: Final = "DELETE FROM redeliveries WHERE webhook_id = %s AND delivery_id = %s AND attempt = %s"


def begin(conn: Connection[Any], webhook_id: str, delivery_id: str, attempt: int) -> bool:
    """Reserve this attempt, the one after the last recorded one. False when another request has reserved it."""
    return conn.execute(_BEGIN, [webhook_id, delivery_id, attempt]).fetchone() is not None


def forget(conn: Connection[Any], webhook_id: str, delivery_id: str, attempt: int) -> None:
    """Take back `begin`: Kafka did not take the delivery."""
    conn.execute(_FORGET, [webhook_id, delivery_id, attempt])
