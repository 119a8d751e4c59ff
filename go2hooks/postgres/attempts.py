"""SQL of `attempts`: write batches and failure counts in one transaction, find what was recorded, keep day partitions."""

from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, timedelta
from operator import attrgetter
from typing import Any, Final, NamedTuple

import psycopg
import structlog
from psycopg import AsyncConnection

from go2hooks.core.failures import Streak, fold
from go2hooks.core.outcome import OUR_FAILURES
from go2hooks.core.record import AttemptRecord, copy_line, failing_and_others

log = structlog.get_logger(__name__)

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

_TRIPS: Final = """(peak >= %(threshold)s
    AND (%(min_span)s::interval = interval '0' OR clock_timestamp() - since >= %(min_span)s) IS TRUE)"""

# Locked in the order of ids, so that two dispatchers cannot deadlock. A webhook that is already disabled keeps its count.
# Those that would be disabled are left as they are, and returned: the history has a say in that.
_COUNT_FAILURES: Final = f"""
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
    SELECT l.id, l.failing_since AS failing_before,
        CASE WHEN b.succeeded THEN b.tail ELSE l.consecutive_failures + b.head END AS failures,
        CASE WHEN b.succeeded THEN CASE WHEN b.tail > 0 THEN b.tail_since END
             WHEN l.consecutive_failures = 0 THEN b.head_since
             ELSE coalesce(l.failing_since, b.head_since) END AS since,
        greatest(CASE WHEN b.head > 0 THEN l.consecutive_failures + b.head ELSE 0 END, b.longest) AS peak
    FROM locked l JOIN batch b USING (id)
), judged AS (
    SELECT *, {_TRIPS} AS trips FROM counted
), updated AS (
    UPDATE webhooks w SET consecutive_failures = j.failures, failing_since = j.since FROM judged j WHERE w.id = j.id AND NOT j.trips
)
SELECT id, failing_before FROM judged WHERE trips"""  # noqa: S608  # ours

# An attempt that failed is recorded once Kafka has its retry, one that succeeded at once, and dispatchers know nothing of each
# other: while Kafka stands still failures gather that were no row. So who is to be disabled is judged by when attempts ended.
# Failures are looked up by an index of their own: thousands that wait meanwhile may be recorded between them. What is not found
# (an attempt for a delivery that is older, or behind too many) does not count: it takes another failure, and disables nobody.
_ENDED_AT: Final = "attempted_at + duration_ms * interval '1 millisecond'"
_RECENT: Final = f"""
SELECT s.id, r.failed, r.ended_at FROM unnest(%(ids)s::text[], %(since)s::timestamptz[], %(created)s::timestamptz[]) AS s(id, since, created),
LATERAL (
    (SELECT true AS failed, kind, error_code, {_ENDED_AT} AS ended_at FROM attempts
     WHERE webhook_id = s.id AND state = 'retrying' AND created_at >= s.created ORDER BY created_at DESC LIMIT %(rows)s)
    UNION ALL
    (SELECT true, kind, error_code, {_ENDED_AT} FROM attempts
     WHERE webhook_id = s.id AND state = 'failed' AND created_at >= s.created ORDER BY created_at DESC LIMIT %(rows)s)
    UNION ALL
    SELECT false, kind, NULL, {_ENDED_AT} FROM (
        SELECT * FROM attempts WHERE webhook_id = s.id AND created_at >= s.created ORDER BY created_at DESC LIMIT %(rows)s
    ) newest WHERE state = 'delivered'
) r WHERE r.kind <> 'test' AND (r.error_code = ANY(%(ours)s)) IS NOT TRUE AND r.ended_at >= s.since ORDER BY r.ended_at, r.failed DESC"""  # noqa: S608  # ours
# Whatever the statistics promise: with the rows of hours before it, it would rather read and sort them all than follow the index.
_ALONG_INDEXES: Final = "SELECT set_config('enable_bitmapscan', 'off', true), set_config('enable_sort', 'off', true)"
#: The retries of a delivery are over by then, with the default delays.
_LONGEST_RETRIED: Final = timedelta(hours=2)
_RECENT_ROWS: Final = 20_000

_SETTLE: Final = f"""
UPDATE webhooks w SET
    consecutive_failures = CASE WHEN j.trips THEN j.peak ELSE j.failures END,
    failing_since = j.since,
    is_active = NOT j.trips,
    disabled_at = CASE WHEN j.trips THEN clock_timestamp() END,
    disabled_reason = CASE WHEN j.trips THEN j.peak || ' consecutive failed attempts' END
FROM (
    SELECT *, {_TRIPS} AS trips
    FROM unnest(%(ids)s::text[], %(peaks)s::int[], %(failures)s::int[], %(since)s::timestamptz[]) AS s(id, peak, failures, since)
) j WHERE w.id = j.id
RETURNING w.id, j.trips"""  # noqa: S608  # ours

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
    counting = sorted((r for r in records if r.counts and r.webhook_id in failing), key=attrgetter("ended_ms"))
    streaks = fold((r.webhook_id, r.failed, r.ended_ms) for r in counting)
    parameters = _parameters(streaks) | policy._asdict() | {"others": list(others)}
    suspects = await (await connection.execute(_COUNT_FAILURES, parameters)).fetchall()
    if not suspects:
        return []
    return await _settle(connection, dict(suspects), [r for r in counting if r.failed], policy)


def _parameters(streaks: dict[str, Streak]) -> dict[str, Any]:
    values = streaks.values()
    return {
        "ids": list(streaks),
        "succeeded": [s.succeeded for s in values],
        "leading": [s.leading for s in values],
        "longest": [s.longest for s in values],
        "trailing": [s.trailing for s in values],
        "leading_since": [from_ms(s.leading_since_ms) for s in values],
        "trailing_since": [from_ms(s.trailing_since_ms) for s in values],
    }


async def _settle(
    connection: AsyncConnection[Any],
    suspects: dict[str, datetime | None],
    failures: Sequence[AttemptRecord],
    policy: DisablePolicy,
) -> list[str]:
    """Disable those that failed so often without a success between, or give them their true count.

    `suspects` says since when each was failing before these failures, which are in the order of their ends.
    """
    first_ended: dict[str, datetime] = {}
    first_created: dict[str, datetime] = {}
    for record in failures:
        created_at = from_ms(record.created_ms)
        first_ended.setdefault(record.webhook_id, from_ms(record.ended_ms))
        first_created[record.webhook_id] = min(first_created.get(record.webhook_id, created_at), created_at)
    since = {webhook_id: before or first_ended[webhook_id] for webhook_id, before in suspects.items()}
    parameters = {
        "ids": list(since),
        "since": list(since.values()),
        "created": [min(at, first_created[webhook_id]) - _LONGEST_RETRIED for webhook_id, at in since.items()],
        "ours": sorted(OUR_FAILURES),
        "rows": _RECENT_ROWS,
    }
    await connection.execute(_ALONG_INDEXES)
    recent = await (await connection.execute(_RECENT, parameters)).fetchall()
    streaks = fold((webhook_id, failed, int(ended_at.timestamp() * 1000)) for webhook_id, failed, ended_at in recent)
    settled = {
        "ids": list(streaks),
        "peaks": [s.peak for s in streaks.values()],
        "failures": [s.trailing for s in streaks.values()],
        "since": [from_ms(s.trailing_since_ms) if s.trailing else None for s in streaks.values()],
    }
    cursor = await connection.execute(_SETTLE, settled | policy._asdict())
    return [webhook_id for webhook_id, trips in await cursor.fetchall() if trips]


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
_DO_NOT_WAIT: Final = "SET LOCAL lock_timeout = '200ms'"
_MAINTENANCE_LOCK: Final = 0x60_2A77
DAYS_AHEAD: Final = 3


async def maintain_partitions(connection: AsyncConnection[Any], today: date, retention_days: int) -> tuple[int, int]:
    """Create the partitions of yesterday to three days ahead, drop those past the retention, forget old tombstones.

    Returns how many were created and dropped. Any process may call it at any time: an advisory lock lets one work. None
    are while somebody reads the table for long, as a backup does: what waits for such a lock keeps all others waiting
    behind it, records among them, and there are three days in which to try again.
    """
    try:
        return await _maintain(connection, today, retention_days)
    except psycopg.errors.LockNotAvailable:
        log.info("attempts is being read for long, as by a backup: its partitions are made and dropped later")
        return 0, 0


async def _maintain(connection: AsyncConnection[Any], today: date, retention_days: int) -> tuple[int, int]:
    async with connection.transaction():
        await connection.execute(_DO_NOT_WAIT)
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
