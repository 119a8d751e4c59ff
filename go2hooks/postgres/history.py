"""SQL of `attempts`, as operators' commands ask it: how deliveries stand, by their keys."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from psycopg import Connection

from go2hooks.core.domain.delivery import Delivery
from go2hooks.postgres.attempts import from_ms

# LATERAL with LIMIT: an index look-up per key, whatever the statistics say.
_STANDING: Final = """
SELECT k.n, last.attempt, last.state FROM unnest(%s::text[], %s::timestamptz[], %s::text[]) WITH ORDINALITY AS k(w, c, d, n),
LATERAL (SELECT attempt, state FROM attempts t WHERE t.webhook_id = k.w AND t.created_at = k.c AND t.delivery_id = k.d
         ORDER BY attempt DESC LIMIT 1) last"""


class Standing(NamedTuple):
    """The last record of a delivery."""

    attempt: int
    state: str


class Key(NamedTuple):
    """What all records of a delivery have in common."""

    webhook_id: str
    accepted: datetime
    delivery_id: str


def key_of(delivery: Delivery) -> Key:
    return Key(delivery.webhook_id, from_ms(delivery.origin_ms), delivery.id)


def standings(conn: Connection[Any], keys: Sequence[Key]) -> dict[str, Standing]:
    """By delivery id; those without any record are left out."""
    parameters = [[key[column] for key in keys] for column in range(len(Key._fields))]
    with conn.transaction():
        rows = conn.execute(_STANDING, parameters).fetchall()
    return {keys[n - 1].delivery_id: Standing(attempt, state) for n, attempt, state in rows}


def last_attempt(conn: Connection[Any], delivery: Delivery) -> int:
    """The number of its last recorded attempt; 0 when there is none."""
    found = standings(conn, [key_of(delivery)]).get(delivery.id)
    return found.attempt if found is not None else 0
