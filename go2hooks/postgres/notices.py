"""SQL of `webhook_notices`: events about a webhook for the account's other webhooks, on their way to Kafka.

A notice is written in the transaction that causes it, which has locked the webhook's row: so each transition has one
notice, whichever dispatchers record the attempts. It is sent at least once.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from psycopg import AsyncConnection

from go2hooks.core.domain.event import Event

_WRITE: Final = """
INSERT INTO webhook_notices (account_id, event, data)
SELECT w.account_id, n.event, json_build_object('webhookId', w.id, 'name', w.name, 'url', w.url, 'reason', n.reason,
       'consecutiveFailures', n.failures, 'lastError', n.error, 'since', n.since)
FROM unnest(%s::text[], %s::text[], %s::text[], %s::int[], %s::text[], %s::text[]) AS n(id, event, reason, failures, error, since)
JOIN webhooks w ON w.id = n.id"""
#: Longer than Kafka takes to acknowledge; when a dispatcher dies, its notices wait for so long.
_CLAIM: Final = """
UPDATE webhook_notices SET claimed_until = clock_timestamp() + interval '30 s'
WHERE id IN (SELECT id FROM webhook_notices WHERE claimed_until < clock_timestamp() ORDER BY id LIMIT 100 FOR UPDATE SKIP LOCKED)
RETURNING id, event_id, account_id, event, (extract(epoch FROM happened_at) * 1000)::bigint, data"""
_FORGET: Final = "DELETE FROM webhook_notices WHERE id = ANY(%s)"


class Notice(NamedTuple):
    """One transition of a webhook."""

    webhook_id: str
    event: str
    reason: str
    failures: int
    last_error: str | None
    since: str | None  #: when the streak began, as events write it


async def write_notices(connection: AsyncConnection[Any], notices: Sequence[Notice]) -> None:
    """Insert them, in the transaction of the change that they are about."""
    if notices:
        await connection.execute(_WRITE, [list(column) for column in zip(*map(_storable, notices), strict=True)])


def _storable(notice: Notice) -> Notice:
    """Replace NUL and lone surrogates, which Postgres refuses: a receiver may have put them into the error."""
    error = notice.last_error
    if error is None:
        return notice
    return notice._replace(
        last_error=error.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
    )


async def claim_notices(connection: AsyncConnection[Any]) -> list[tuple[int, Event]]:
    """Claim up to 100 notices, oldest first. No other dispatcher gets them for half a minute."""
    async with connection.transaction():
        rows = await (await connection.execute(_CLAIM)).fetchall()
    return [(number, Event(*event)) for number, *event in sorted(rows, key=lambda row: row[0])]


async def forget_notices(connection: AsyncConnection[Any], numbers: Sequence[int]) -> None:
    """Kafka has them."""
    async with connection.transaction():
        await connection.execute(_FORGET, [list(numbers)])
