"""SQL of `attempt_deltas` and `attempt_rollups`: merge what batches of records add, and read a webhook's statistics."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from struct import Struct
from typing import Any, Final, NamedTuple

import orjson
from psycopg import AsyncConnection, Connection

from go2hooks.core.domain.rollup import Gathered, Rollup
from go2hooks.postgres.locks import Lock

_BATCHES: Final = 200  # in one transaction: what a dispatcher writes in ten seconds
_PAIR: Final = Struct("<HI")

_IS_DUE: Final = (
    "SELECT written_at < clock_timestamp() - %s * interval '1 second' FROM attempt_deltas ORDER BY id LIMIT 1"
)
_TAKE: Final = """DELETE FROM attempt_deltas
WHERE id = ANY(ARRAY(SELECT id FROM attempt_deltas ORDER BY id LIMIT %s)) RETURNING delta"""
# LATERAL with LIMIT: an index look-up per key, whatever the statistics say.
_FIND: Final = """
SELECT k.n, found.* FROM unnest(%s::text[], %s::int[], %s::bigint[]) WITH ORDINALITY AS k(w, s, a, n),
LATERAL (SELECT r.delivered, r.failed, r.skipped, r.retried, r.histogram FROM attempt_rollups r
         WHERE r.webhook_id = k.w AND r.step = k.s AND r.at = to_timestamp(k.a) LIMIT 1) found"""
_SAVE: Final = """
INSERT INTO attempt_rollups (webhook_id, step, at, delivered, failed, skipped, retried, histogram)
SELECT w, s, to_timestamp(a), delivered, failed, skipped, retried, histogram FROM unnest(%s::text[], %s::int[], %s::bigint[],
    %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bytea[]) AS k(w, s, a, delivered, failed, skipped, retried, histogram)
ON CONFLICT (webhook_id, step, at) DO UPDATE SET delivered = excluded.delivered, failed = excluded.failed,
    skipped = excluded.skipped, retried = excluded.retried, histogram = excluded.histogram"""
# An index range per webhook, whatever the statistics say.
_SERIES: Final = """
SELECT w.id, found.* FROM unnest(%(webhook_ids)s::text[]) AS w(id),
LATERAL (SELECT r.at, r.delivered, r.failed, r.skipped, r.retried, r.histogram FROM attempt_rollups r
         WHERE r.webhook_id = w.id AND r.step = %(step_s)s AND r.at >= %(begin)s AND r.at < %(end)s
         ORDER BY r.at LIMIT %(most)s) found"""

# LATERAL with LIMIT: an index look-up per webhook, whatever the statistics say. The key begins with the webhook.
_MINUTE: Final = """
SELECT coalesce(sum(r.delivered), 0)::bigint, coalesce(sum(r.failed), 0)::bigint, coalesce(sum(r.skipped), 0)::bigint,
       coalesce(sum(r.retried), 0)::bigint
FROM (SELECT id FROM webhooks WHERE deleted_at IS NULL) w,
     LATERAL (SELECT delivered, failed, skipped, retried FROM attempt_rollups
                          WHERE webhook_id = w.id AND step = 60 AND at = %s LIMIT 1) r"""
_GATHERED: Final = timedelta(seconds=15)  # by then the rollups hold a minute's last batches

_Step = tuple[str, int, int, Rollup]


class StepRange(NamedTuple):
    """A time range in steps of `step_s` seconds, which begin at multiples of it."""

    begin: datetime
    end: datetime
    step_s: int


class Minute(NamedTuple):
    """The outcomes of the attempts that began in a minute."""

    at: datetime
    delivered: int
    failed: int
    skipped: int
    retried: int


def series(
    conn: Connection[Any], webhook_ids: Sequence[str], span: StepRange
) -> defaultdict[str, dict[datetime, Rollup]]:
    """Statistics by webhook and by the beginning of each step; steps without any attempt are left out."""
    most = (span.end - span.begin) // timedelta(seconds=span.step_s)
    values = span._asdict() | {"webhook_ids": list(webhook_ids), "most": most}
    found: defaultdict[str, dict[datetime, Rollup]] = defaultdict(dict)
    for webhook_id, at, *counts in conn.execute(_SERIES, values):
        found[webhook_id][at] = _rollup(*counts)
    return found


def last_minute(conn: Connection[Any], now: datetime) -> Minute:
    """The last full minute whose attempts are all counted."""
    at = (now.astimezone(UTC) - _GATHERED).replace(second=0, microsecond=0) - timedelta(minutes=1)
    return Minute(at, *(conn.execute(_MINUTE, [at]).fetchone() or (0, 0, 0, 0)))


async def gather(connection: AsyncConnection[Any], min_age_s: float) -> bool:
    """Merge deltas into the rollups once the oldest is `min_age_s` old. Returns whether there may be more.

    Any process may call it at any time: an advisory lock lets one work, so two never write one row of a rollup.
    """
    async with connection.transaction():
        due = await (await connection.execute(_IS_DUE, [min_age_s])).fetchone()
        if due != (True,):
            return False
        is_free = await (await connection.execute("SELECT pg_try_advisory_xact_lock(%s)", [Lock.ROLLUPS])).fetchone()
        if is_free != (True,):
            return False
        rows = await (await connection.execute(_TAKE, [_BATCHES])).fetchall()
        gathered = Gathered()
        for (delta,) in rows:
            gathered.add(orjson.loads(delta))
            await asyncio.sleep(0)  # lets the event loop run: a batch may be about thousands of webhooks
        steps = gathered.steps()
        while chunk := list(islice(steps, 250)):  # a millisecond or two of the event loop
            await _merge(connection, chunk)
    return len(rows) == _BATCHES


async def _merge(connection: AsyncConnection[Any], chunk: list[_Step]) -> None:
    keys = [[each[0] for each in chunk], _array(each[1] for each in chunk), _array(each[2] for each in chunk)]
    for n, *counts in await (await connection.execute(_FIND, keys)).fetchall():
        chunk[n - 1][3].merge(_rollup(*counts))
    rollups = [each[3] for each in chunk]
    counts = [_array(each.delivered for each in rollups), _array(each.failed for each in rollups),
              _array(each.skipped for each in rollups), _array(each.retried for each in rollups)]  # fmt: skip
    histograms = _array(rf'"\\x{_packed(each).hex()}"' for each in rollups)
    await connection.execute(_SAVE, [*keys, *counts, histograms])


def _array(values: Iterable[object]) -> str:
    """An array in Postgres' text form: it takes a fraction of the time that the driver needs for numbers."""
    return f"{{{','.join(map(str, values))}}}"


def _rollup(delivered: int, failed: int, skipped: int, retried: int, histogram: bytes) -> Rollup:
    rollup = Rollup()
    rollup.count(delivered, failed, skipped, retried)
    rollup.histogram = dict(_PAIR.iter_unpack(histogram))
    return rollup


def _packed(rollup: Rollup) -> bytes:
    return b"".join(_PAIR.pack(bucket, min(count, 2**32 - 1)) for bucket, count in sorted(rollup.histogram.items()))
