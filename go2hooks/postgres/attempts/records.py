"""SQL that writes `attempts`: batches with the failure counts in one transaction, and rows for deliveries to be sent."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import orjson
import psycopg
from psycopg import AsyncConnection, Connection

from go2hooks.core.domain.event import EventType
from go2hooks.core.domain.failures import Streak
from go2hooks.core.domain.outcome import Failure
from go2hooks.core.domain.record import AttemptRecord, copy_line, failing_and_others, timestamptz
from go2hooks.core.domain.rollup import roll_up
from go2hooks.core.encoding.payload import format_timestamp
from go2hooks.postgres.audit import record_disabled
from go2hooks.postgres.notices import Notice, write_notices

_COLUMNS: Final = (
    "webhook_id, created_at, delivery_id, attempt, account_id, event_id, event, kind, state, status_code, duration_ms, "
    "error_code, error_message, next_attempt_at, attempted_at, response_excerpt, kafka_topic, kafka_partition, kafka_offset, "
    "location, retry_after, remote_address"
)
_COPY: Final = f"COPY attempts ({_COLUMNS}) FROM STDIN"
_STAGE: Final = "CREATE TEMP TABLE staged_attempts (LIKE attempts) ON COMMIT DROP"
_COPY_STAGED: Final = f"COPY staged_attempts ({_COLUMNS}) FROM STDIN"
_UNSTAGE: Final = f"""INSERT INTO attempts ({_COLUMNS}) SELECT {_COLUMNS} FROM staged_attempts
    ON CONFLICT DO NOTHING
    RETURNING webhook_id, (extract(epoch FROM created_at) * 1000)::bigint, delivery_id, attempt"""  # noqa: S608  # our columns

# Rows are locked in the order of ids, so that two dispatchers cannot deadlock. Webhooks that succeeded and were not
# failing, nearly all, are not locked. A webhook that is already disabled keeps its count.
# The batch's statistics are inserted by the same statement: a round trip of its own would cost more than the insert.
_ROLL_UP_AND_FIND_FAILING: Final = """
WITH rolled AS (INSERT INTO attempt_deltas (delta) VALUES (%(delta)s))
SELECT id, CASE WHEN consecutive_failures > 0 THEN failure_starts ELSE '{}' END, floor(extract(epoch FROM updated_at) * 1000)::bigint FROM webhooks
WHERE (id = ANY(%(failing)s) OR (id = ANY(%(others)s) AND consecutive_failures > 0)) AND is_active AND deleted_at IS NULL
ORDER BY id FOR UPDATE"""

# Successes are looked up only when a webhook would be disabled: one that was recorded while it was not failing has left no
# trace in its row. It happens after a pause of Kafka: a success is recorded at once, a failure once its retry is there.
_SUCCEEDED: Final = """
SELECT s.id, (extract(epoch FROM max(r.attempted_at)) * 1000)::bigint
FROM unnest(%(ids)s::text[], %(created)s::timestamptz[]) AS s(id, created),
LATERAL (SELECT state, kind, attempted_at FROM attempts
         WHERE webhook_id = s.id AND created_at >= s.created ORDER BY created_at DESC LIMIT %(rows)s) r
WHERE r.state = 'delivered' AND r.kind NOT IN ('test', 'redeliver') GROUP BY s.id"""
# Without this, the planner may read and sort the rows of hours instead of following the index.
NO_BITMAP_NO_SORT: Final = "SELECT set_config('enable_bitmapscan', 'off', true), set_config('enable_sort', 'off', true)"
#: With the default delays, all retries of a delivery are over by then.
_LONGEST_RETRIED: Final = timedelta(hours=2)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_RECENT_ROWS: Final = 20_000

_SETTLE: Final = """
UPDATE webhooks w SET
    consecutive_failures = cardinality(s.starts::bigint[]),
    failure_starts = s.starts::bigint[],
    failing_since = s.since,
    is_active = s.reason IS NULL,
    disabled_at = CASE WHEN s.reason IS NOT NULL THEN clock_timestamp() END,
    disabled_reason = s.reason
FROM unnest(%(ids)s::text[], %(starts)s::text[], %(since)s::timestamptz[], %(reasons)s::text[]) AS s(id, starts, since, reason)
WHERE w.id = s.id"""
GONE_REASON: Final = "the receiver answered 410 Gone"

# LATERAL with LIMIT: an index look-up per key, whatever the statistics say about a table that grows by the second.
_FIND_STATES: Final = """
SELECT k.n, found.state FROM unnest(%s::text[], %s::timestamptz[], %s::text[], %s::smallint[]) WITH ORDINALITY AS k(w, c, d, a, n),
LATERAL (SELECT t.state FROM attempts t WHERE t.webhook_id = k.w AND t.created_at = k.c AND t.delivery_id = k.d AND t.attempt = k.a LIMIT 1) found"""


class DisablePolicy(NamedTuple):
    """When consecutive failures disable a webhook."""

    threshold: int
    min_span: timedelta = timedelta(0)  #: the failures must span at least this long

    def disables(self, streak: Streak) -> bool:
        """Whether the streak has as many failures, over as long a time, as disable a webhook."""
        if len(streak) < self.threshold:
            return False
        return not self.min_span or datetime.now(UTC) - from_ms(int(streak.starts[0])) >= self.min_span

    def begins_to_fail(self, failures_before: int, streak: Streak) -> bool:
        """Whether the streak has just reached half of the threshold."""
        return failures_before < self.threshold // 2 <= len(streak)


class AttemptKey(NamedTuple):
    """The key of an attempt, recorded or not."""

    webhook_id: str
    created_ms: int
    delivery_id: str
    attempt: int


async def write_batch(
    connection: AsyncConnection[Any], records: Sequence[AttemptRecord], policy: DisablePolicy
) -> list[str]:
    """Write the rows and move the failure counts, in one transaction. Returns ids of webhooks that it disabled.

    An attempt that is recorded already is not counted again. That is rare: the rows are copied straight into the table.
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
    """Add to the statistics, and move the counts of consecutive failures. Returns ids of webhooks that are disabled.

    A 410 to an attempt that began before the owner's last change (another URL, enabled again) does not disable it.
    """
    lines = roll_up(records)
    if not lines:
        return []
    failing, others = failing_and_others(records)
    values = {"delta": orjson.dumps(lines).decode(), "failing": list(failing), "others": list(others)}
    rows = await (await connection.execute(_ROLL_UP_AND_FIND_FAILING, values)).fetchall()
    if not rows:
        return []
    most = max(policy.threshold, 1000)  # as many count only where they must span some time, too
    streaks = {webhook_id: Streak(most, starts) for webhook_id, starts, _ in rows}
    before = {webhook_id: len(starts) for webhook_id, starts, _ in rows}
    errors: dict[str, str | None] = {}
    changed_ms = {webhook_id: at_ms for webhook_id, _, at_ms in rows}
    gone = set()
    for record in records:
        if record.counts and (streak := streaks.get(record.webhook_id)) is not None:
            streak.fail(record.attempted_ms) if record.failed else streak.succeed(record.attempted_ms)
            if record.failed:
                errors[record.webhook_id] = record.error_message
            if record.error_code == Failure.GONE and record.attempted_ms >= changed_ms[record.webhook_id]:
                gone.add(record.webhook_id)
    reasons = await _settle(connection, streaks, gone, policy)
    begun = [webhook_id for webhook_id, streak in streaks.items() if policy.begins_to_fail(before[webhook_id], streak)]
    notices = [_notice(EventType.WEBHOOK_DISABLED, each, reasons[each], streaks[each], errors) for each in reasons]
    notices += [
        _notice(EventType.WEBHOOK_FAILING, each, _failed(len(streaks[each])), streaks[each], errors)
        for each in begun
        if each not in reasons
    ]
    await write_notices(connection, notices)
    return list(reasons)


def _notice(event: str, webhook_id: str, reason: str, streak: Streak, errors: dict[str, str | None]) -> Notice:
    since = format_timestamp(int(streak.starts[0])) if streak.starts else None
    return Notice(webhook_id, event, reason, len(streak), errors.get(webhook_id), since)


def _failed(attempts: int) -> str:
    return f"{attempts} consecutive failed attempts"


async def _settle(
    connection: AsyncConnection[Any], streaks: dict[str, Streak], gone: set[str], policy: DisablePolicy
) -> dict[str, str]:
    """Write the counts, and disable webhooks that have failed too often or are `gone`. Returns the reasons, by id."""
    suspects = {webhook_id: streak for webhook_id, streak in streaks.items() if policy.disables(streak)}
    if suspects:
        await _heed_successes(connection, suspects)
    failed = _failed(policy.threshold)
    reasons = {webhook_id: failed for webhook_id, streak in suspects.items() if policy.disables(streak)}
    reasons |= dict.fromkeys(gone, GONE_REASON)
    await connection.execute(_SETTLE, _settled(streaks, reasons))
    if reasons:
        await record_disabled(connection, list(reasons))
    return reasons


async def _heed_successes(connection: AsyncConnection[Any], suspects: dict[str, Streak]) -> None:
    """Apply successes that were recorded before the batch."""
    since = [from_ms(int(streak.starts[0])) for streak in suspects.values()]
    parameters = {"ids": list(suspects), "created": [at - _LONGEST_RETRIED for at in since], "rows": _RECENT_ROWS}
    await connection.execute(NO_BITMAP_NO_SORT)
    for webhook_id, began_ms in await (await connection.execute(_SUCCEEDED, parameters)).fetchall():
        suspects[webhook_id].succeed(began_ms)


def _settled(streaks: dict[str, Streak], reasons: dict[str, str]) -> dict[str, Any]:
    starts = [[int(start) for start in streak.starts] for streak in streaks.values()]
    return {
        "ids": list(streaks),
        "starts": [f"{{{','.join(map(str, each))}}}" for each in starts],
        "since": [from_ms(each[0]) if each else None for each in starts],
        "reasons": [reasons.get(webhook_id) for webhook_id in streaks],
    }


async def find_states(connection: AsyncConnection[Any], keys: Sequence[AttemptKey]) -> dict[AttemptKey, str]:
    """The states of these attempts, as far as they are recorded."""
    parameters = [
        [k.webhook_id for k in keys],
        [from_ms(k.created_ms) for k in keys],
        [k.delivery_id for k in keys],
        [k.attempt for k in keys],
    ]
    async with connection.transaction():
        rows = await (await connection.execute(_FIND_STATES, parameters)).fetchall()
    return {keys[n - 1]: state for n, state in rows}


def insert_pending(conn: Connection[Any], record: AttemptRecord) -> None:
    """Record that a delivery waits for its first attempt."""
    conn.execute(
        """INSERT INTO attempts (webhook_id, created_at, delivery_id, attempt, account_id, event_id, event, kind, state,
                                 attempted_at)
           VALUES (%s, %s::timestamptz, %s, %s, %s, %s, %s, %s, %s, %s::timestamptz) ON CONFLICT DO NOTHING""",
        [
            record.webhook_id, timestamptz(record.created_ms), record.delivery_id, record.attempt, record.account_id,
            record.event_id, record.event, record.kind, record.state, timestamptz(record.attempted_ms),
        ],
    )  # fmt: skip


def forget_pending(conn: Connection[Any], record: AttemptRecord) -> None:
    """Take back `insert_pending`: Kafka did not take the delivery."""
    conn.execute(
        """DELETE FROM attempts WHERE webhook_id = %s AND created_at = %s::timestamptz AND delivery_id = %s
           AND attempt = %s AND state = 'pending'""",
        [record.webhook_id, timestamptz(record.created_ms), record.delivery_id, record.attempt],
    )


def from_ms(ms: int) -> datetime:
    """Milliseconds as a datetime, exactly: a float's rounding would miss the row."""
    return datetime.fromtimestamp(ms // 1000, UTC) + timedelta(milliseconds=ms % 1000)


def to_ms(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(milliseconds=1)
