"""SQL of what operators see of all accounts: webhooks in trouble, and what came of the attempts of a minute. Reads alone."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from psycopg import Connection
from psycopg.rows import class_row

_TROUBLED: Final = """
SELECT id, account_id, name, url, is_active, consecutive_failures, disabled_reason,
       coalesce(disabled_at, failing_since) AS since FROM webhooks
WHERE deleted_at IS NULL AND (NOT is_active OR consecutive_failures > 0)
ORDER BY since DESC NULLS LAST, id LIMIT %s"""
_COUNTS: Final = """
SELECT count(*) FILTER (WHERE is_active AND consecutive_failures = 0), count(*) FILTER (WHERE is_active AND consecutive_failures > 0),
       count(*) FILTER (WHERE NOT is_active) FROM webhooks WHERE deleted_at IS NULL"""
# LATERAL with LIMIT: an index look-up per webhook, whatever the statistics say. The key begins with the webhook.
_MINUTE: Final = """
SELECT coalesce(sum(r.delivered), 0)::bigint, coalesce(sum(r.failed), 0)::bigint, coalesce(sum(r.skipped), 0)::bigint,
       coalesce(sum(r.retried), 0)::bigint
FROM (SELECT id FROM webhooks WHERE deleted_at IS NULL) w,
     LATERAL (SELECT delivered, failed, skipped, retried FROM attempt_rollups
                          WHERE webhook_id = w.id AND step = 60 AND at = %s LIMIT 1) r"""
_GATHERED: Final = timedelta(seconds=15)  # by then what a minute's last batches have added is among the rollups


class Troubled(NamedTuple):
    """A webhook that fails or is disabled."""

    id: str
    account_id: str
    name: str
    url: str
    is_active: bool
    consecutive_failures: int
    disabled_reason: str | None
    since: datetime | None  #: when it was disabled, or its present failures began


class WebhookCounts(NamedTuple):
    """All webhooks, by state."""

    active: int
    failing: int
    disabled: int


class Minute(NamedTuple):
    """What came of the attempts that began in a minute."""

    at: datetime
    delivered: int
    failed: int
    skipped: int
    retried: int


def troubled(conn: Connection[Any], limit: int) -> list[Troubled]:
    """Those whose trouble began last come first."""
    with conn.cursor(row_factory=class_row(Troubled)) as cursor:
        return cursor.execute(_TROUBLED, [limit]).fetchall()


def webhook_counts(conn: Connection[Any]) -> WebhookCounts:
    return WebhookCounts(*(conn.execute(_COUNTS).fetchone() or (0, 0, 0)))


def last_minute(conn: Connection[Any], now: datetime) -> Minute:
    """The last full minute whose attempts are all counted."""
    at = (now.astimezone(UTC) - _GATHERED).replace(second=0, microsecond=0) - timedelta(minutes=1)
    return Minute(at, *(conn.execute(_MINUTE, [at]).fetchone() or (0, 0, 0, 0)))
