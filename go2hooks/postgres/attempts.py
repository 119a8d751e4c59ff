"""SQL of `attempts`: write batches and failure counts in one transaction, find what was recorded, keep day partitions."""

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import AsyncConnection

from go2hooks.core.failures import Streak, fold
from go2hooks.core.record import AttemptRecord, copy_line, failing_and_others

_COLUMNS: Final = (
    "webhook_id, created_at, delivery_id, attempt, account_id, event_id, event, kind, state, status_code, duration_ms, "
    "error_code, error_message, next_attempt_at, attempted_at, response_excerpt, kafka_topic, kafka_partition, kafka_offset"
)
_COPY: Final = f"COPY attempts ({_COLUMNS}) FROM STDIN"
_STAGE: Final = "CREATE TEMP TABLE staged_attempts (LIKE attempts) ON COMMIT DROP"
_COPY_STAGED: Final = f"COPY staged_attempts ({_COLUMNS}) FROM STDIN"
_UNSTAGE: Final = f"""INSERT INTO attempts ({_COLUMNS}) SELECT {_COLUMNS} FROM staged_attempts
    ON CONFLICT DO NOTHING
    RETURNING webhook_id, (extract(epoch FROM created_at) * 1000)::bigint, delivery_id, attempt"""  # noqa: S608  # our columns

# Locked in the order of ids, so that two dispatchers cannot deadlock. A webhook that is already disabled keeps its count.
_COUNT_FAILURES: Final = """
WITH batch AS (
    SELECT * FROM unnest(%(ids)s::text[], %(succeeded)s::bool[], %(leading)s::int[], %(longest)s::int[], %(trailing)s::int[],
                         %(leading_since)s::timestamptz[], %(trailing_since)s::timestamptz[])
        AS b(id, succeeded, head, longest, tail, head_since, tail_since)
    UNION ALL SELECT id, true, 0, 0, 0, NULL, NULL FROM unnest(%(others)s::text[]) AS o(id)
), locked AS (
    SELECT w.id, w.consecutive_failures, w.failing_since FROM webhooks w JOIN batch b USING (id)
    WHERE w.is_active AND w.deleted_at IS NULL AND (b.head > 0 OR b.longest > 0 OR w.consecutive_failures > 0)
    ORDER BY w.id FOR UPDATE OF w
), counted AS (
    SELECT l.id,
        CASE WHEN b.succeeded THEN b.tail ELSE l.consecutive_failures + b.head END AS failures,
        CASE WHEN b.succeeded THEN CASE WHEN b.tail > 0 THEN b.tail_since END
             WHEN l.consecutive_failures = 0 THEN b.head_since
             ELSE coalesce(l.failing_since, b.head_since) END AS since,
        greatest(CASE WHEN b.head > 0 THEN l.consecutive_failures + b.head ELSE 0 END, b.longest) AS peak
    FROM locked l JOIN batch b USING (id)
), judged AS (
    SELECT *, peak >= %(threshold)s
        AND (%(min_span)s::interval = interval '0' OR clock_timestamp() - since >= %(min_span)s) IS TRUE AS trips FROM counted
)
UPDATE webhooks w SET
    consecutive_failures = CASE WHEN j.trips THEN j.peak ELSE j.failures END,
    failing_since = j.since,
    is_active = NOT j.trips,
    disabled_at = CASE WHEN j.trips THEN clock_timestamp() END,
    disabled_reason = CASE WHEN j.trips THEN j.peak || ' consecutive failed attempts' END
FROM judged j WHERE w.id = j.id
RETURNING w.id, j.trips"""

# The same for a batch without a failure, which nearly all are. Filling the seven arrays above for every webhook took a tenth
# of a dispatcher at a thousand deliveries a second: they hold only those that failed.
_FORGET_FAILURES: Final = """
UPDATE webhooks w SET consecutive_failures = 0, failing_since = NULL FROM (
    SELECT id FROM webhooks WHERE id = ANY(%s) AND is_active AND deleted_at IS NULL AND consecutive_failures > 0
    ORDER BY id FOR UPDATE
) failing WHERE w.id = failing.id"""

# LATERAL with LIMIT: an index look-up per key, whatever the statistics say about a table that grows by the second.
_FIND_STATES: Final = """
SELECT k.n, found.state FROM unnest(%s::text[], %s::timestamptz[], %s::text[], %s::smallint[]) WITH ORDINALITY AS k(w, c, d, a, n),
LATERAL (SELECT t.state FROM attempts t WHERE t.webhook_id = k.w AND t.created_at = k.c AND t.delivery_id = k.d AND t.attempt = k.a LIMIT 1) found"""


class DisablePolicy(NamedTuple):
    """When consecutive failures disable a webhook."""

    threshold: int
    min_span: timedelta = timedelta(0)  #: the failures must span at least this long


class AttemptKey(NamedTuple):
    """Names an attempt, recorded or not."""

    webhook_id: str
    created_ms: int
    delivery_id: str
    attempt: int


async def write_batch(
    connection: AsyncConnection[Any], records: Sequence[AttemptRecord], policy: DisablePolicy
) -> list[str]:
    """Write the rows and move the failure counts, in one transaction. Returns ids of webhooks that it disabled.

    An attempt that is already there counts once. Almost never is one, so the rows go straight into the table first.
    """
    try:
        async with connection.transaction():
            await _copy(connection, _COPY, records)
            return await _count(connection, records, policy)
    except psycopg.errors.UniqueViolation:
        async with connection.transaction():
            new = await _write_new(connection, records)
            return await _count(connection, new, policy)


async def _copy(connection: AsyncConnection[Any], statement: str, records: Iterable[AttemptRecord]) -> None:
    async with connection.cursor() as cursor, cursor.copy(statement) as copy:
        await copy.write("".join(map(copy_line, records)))


async def _write_new(connection: AsyncConnection[Any], records: Sequence[AttemptRecord]) -> list[AttemptRecord]:
    await connection.execute(_STAGE)
    await _copy(connection, _COPY_STAGED, records)
    rows = await (await connection.execute(_UNSTAGE)).fetchall()
    written = {tuple(row) for row in rows}
    unique = {record.key: record for record in records}
    return [record for key, record in unique.items() if key in written]


async def _count(
    connection: AsyncConnection[Any], records: Sequence[AttemptRecord], policy: DisablePolicy
) -> list[str]:
    failing, others = failing_and_others(records)
    if not failing:
        if others:
            await connection.execute(_FORGET_FAILURES, [list(others)])
        return []
    streaks = fold((r.webhook_id, r.failed, r.attempted_ms) for r in records if r.counts and r.webhook_id in failing)
    cursor = await connection.execute(_COUNT_FAILURES, _parameters(streaks, policy) | {"others": list(others)})
    return [webhook_id for webhook_id, trips in await cursor.fetchall() if trips]


def _parameters(streaks: dict[str, Streak], policy: DisablePolicy) -> dict[str, Any]:
    values = streaks.values()
    return {
        "ids": list(streaks),
        "succeeded": [s.succeeded for s in values],
        "leading": [s.leading for s in values],
        "longest": [s.longest for s in values],
        "trailing": [s.trailing for s in values],
        "leading_since": [from_ms(s.leading_since_ms) for s in values],
        "trailing_since": [from_ms(s.trailing_since_ms) for s in values],
        "threshold": policy.threshold,
        "min_span": policy.min_span,
    }


async def find_states(connection: AsyncConnection[Any], keys: Sequence[AttemptKey]) -> dict[AttemptKey, str]:
    """States of those of these attempts that are recorded."""
    parameters = [
        [k.webhook_id for k in keys],
        [from_ms(k.created_ms) for k in keys],
        [k.delivery_id for k in keys],
        [k.attempt for k in keys],
    ]
    rows = await (await connection.execute(_FIND_STATES, parameters)).fetchall()
    return {keys[n - 1]: state for n, state in rows}


def from_ms(ms: int) -> datetime:
    """Exactly the millisecond: a float's rounding would miss the row."""
    return datetime.fromtimestamp(ms // 1000, UTC) + timedelta(milliseconds=ms % 1000)


# --- partitions

_PARTITIONS: Final = """SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
    WHERE i.inhparent = 'attempts'::regclass AND c.relname ~ '^attempts_[0-9]{8}$'"""
_MOVE: Final = (
    "LOCK TABLE attempts_default IN ACCESS EXCLUSIVE MODE",
    "CREATE TABLE {name} (LIKE attempts INCLUDING ALL)",
    """WITH moved AS (DELETE FROM attempts_default WHERE created_at >= {first} AND created_at < {after} RETURNING *)
       INSERT INTO {name} SELECT * FROM moved""",
    "ALTER TABLE attempts ATTACH PARTITION {name} FOR VALUES FROM ({first}) TO ({after})",
)
_MAINTENANCE_LOCK: Final = 0x60_2A77
DAYS_AHEAD: Final = 3


async def maintain_partitions(connection: AsyncConnection[Any], today: date, retention_days: int) -> tuple[int, int]:
    """Create the partitions of yesterday to three days ahead, drop those past the retention, forget old tombstones.

    Returns how many were created and dropped. Any process may call it at any time: an advisory lock lets one work.
    """
    async with connection.transaction():
        cursor = await connection.execute("SELECT pg_try_advisory_xact_lock(%s)", [_MAINTENANCE_LOCK])
        if (await cursor.fetchone()) != (True,):
            return 0, 0
        created = 0
        for ahead in range(-1, DAYS_AHEAD + 1):
            created += await _create_partition(connection, today + timedelta(days=ahead))
        expired = await _expired(connection, today - timedelta(days=retention_days))
        for name in expired:
            await connection.execute(psycopg.sql.SQL("DROP TABLE {}").format(psycopg.sql.Identifier(name)))
        await connection.execute(
            "DELETE FROM webhooks WHERE deleted_at < now() - make_interval(days => %s)", [retention_days]
        )
    return created, len(expired)


async def _create_partition(connection: AsyncConnection[Any], day: date) -> bool:
    """Whether it was not there. Rows of that day that came before their partition (a test event sent while no
    dispatcher has run yet) move from the default partition into it, where retention finds them.
    """
    try:
        async with connection.transaction():
            row = await (await connection.execute("SELECT attempts_create_partition(%s)", [day])).fetchone()
    except psycopg.errors.CheckViolation:
        name = psycopg.sql.Identifier(f"attempts_{day:%Y%m%d}")
        first, after = (datetime(d.year, d.month, d.day, tzinfo=UTC) for d in (day, day + timedelta(days=1)))
        for statement in _MOVE:
            query = psycopg.sql.SQL(statement).format(name=name, first=first, after=after)
            await connection.execute(query)
        return True
    return row == (True,)


async def _expired(connection: AsyncConnection[Any], first_kept: date) -> list[str]:
    rows = await (await connection.execute(_PARTITIONS)).fetchall()
    return [name for (name,) in rows if datetime.strptime(name[-8:], "%Y%m%d").date() < first_kept]  # noqa: DTZ007  # a date
