"""SQL of `attempts`, as operators' commands ask it: how deliveries stand, by their keys."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from psycopg import Connection

from go2hooks.core.delivery import Delivery
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


def standings(conn: Connection[Any], deliveries: Sequence[Delivery]) -> dict[str, Standing]:
    """By delivery id; those without any record are left out."""
    parameters = [
        [d.webhook_id for d in deliveries],
        [from_ms(d.origin_ms) for d in deliveries],
        [d.id for d in deliveries],
    ]
    rows = conn.execute(_STANDING, parameters).fetchall()
    return {deliveries[n - 1].id: Standing(attempt, state) for n, attempt, state in rows}


def last_attempt(conn: Connection[Any], delivery: Delivery) -> int:
    """The number of its last recorded attempt; 0 when there is none."""
    found = standings(conn, [delivery]).get(delivery.id)
    return found.attempt if found is not None else 0
