"""SQL of `attempts`, as replays ask it: failed and skipped deliveries of a webhook, to read or to count."""

# ruff: noqa: S608  # what is put together are constants of this module; every value is a parameter

from collections.abc import Collection
from datetime import datetime
from typing import Any, Final, NamedTuple

from psycopg import Connection

from go2hooks.core.domain.delivery import Position
from go2hooks.core.domain.outcome import State
from go2hooks.postgres.attempts.records import NO_BITMAP_NO_SORT
from go2hooks.postgres.replaying import Job

# Failed and skipped deliveries, oldest first. The number of rows to look through is limited; a row that a later attempt has
# overtaken is left out afterwards. The state is part of the text: with a parameter the partial index would not apply.
_RECORDED: Final = """
SELECT a.delivery_id, a.created_at, a.attempt, a.event, a.kind, a.kafka_topic, a.kafka_partition, a.kafka_offset,
    EXISTS (SELECT 1 FROM attempts later WHERE later.webhook_id = %(webhook_id)s AND later.created_at = a.created_at
            AND later.delivery_id = a.delivery_id AND later.attempt > a.attempt)
FROM (SELECT * FROM attempts
      WHERE webhook_id = %(webhook_id)s AND state = '{state}' AND state <> 'delivered'
        AND created_at >= %(from_at)s AND created_at < %(to_at)s
        AND (created_at, delivery_id, attempt) > (%(after_at)s, %(after_id)s, %(after_attempt)s)
      ORDER BY created_at, delivery_id, attempt LIMIT %(limit)s) a
ORDER BY a.created_at, a.delivery_id, a.attempt"""
_COUNT: Final = """
SELECT count(*) FROM (SELECT 1 FROM attempts WHERE webhook_id = %(webhook_id)s AND state = '{state}' AND state <> 'delivered'
    AND created_at >= %(from_at)s AND created_at < %(to_at)s LIMIT %(most)s) counted"""
_STATES: Final = (State.FAILED, State.SKIPPED)  # the only ones that are put into those two
_LOOKED_AT: Final = 5000  #: each of them for a later attempt
_MATCHING_COUNTED: Final = 100_000  #: at most, when there are more


class _Texts(NamedTuple):
    """The statements for one state. It is part of their text: with a parameter the partial index would not apply.

    The range is in both subqueries, so that the planner prunes partitions in both.
    """

    looked_at: str
    counted: str


def _texts(state: State) -> _Texts:
    records = f"""FROM attempts WHERE webhook_id = %(webhook_id)s AND state = '{state}' AND state <> 'delivered'
        AND created_at >= %(begin)s AND created_at < %(end)s"""
    return _Texts(
        f"""SELECT count(*), count(*) FILTER (WHERE kafka_topic IS NOT NULL AND kind <> 'test' AND event = ANY(%(events)s)
                AND NOT EXISTS (SELECT 1 FROM attempts later WHERE later.webhook_id = a.webhook_id
                    AND later.created_at = a.created_at AND later.delivery_id = a.delivery_id AND later.attempt > a.attempt
                    AND later.created_at >= %(begin)s AND later.created_at < %(end)s))
            FROM (SELECT * {records} LIMIT {_LOOKED_AT} + 1) a""",
        f"SELECT count(*) FROM (SELECT 1 {records} LIMIT {_MATCHING_COUNTED}) counted",
    )


_MATCHING: Final = {str(state): _texts(state) for state in (State.FAILED, State.SKIPPED)}


class Record(NamedTuple):
    """A row of `attempts` that may name a delivery to send again."""

    delivery_id: str
    created_at: datetime
    attempt: int
    event: str
    kind: str
    position: Position | None
    is_overtaken: bool  #: by a later attempt: not the delivery's state any more


class Matching(NamedTuple):
    """Records in a range, as far as they were counted, and how many of them name a delivery that would be sent."""

    records: int
    matched: int | None  #: None for so many that it was not looked at each


def recorded(conn: Connection[Any], job: Job, after: tuple[datetime, str, int] | None, limit: int) -> list[Record]:
    """The next rows with the job's state after a place, in order. Fewer than `limit` mean that there are no more."""
    after_at, after_id, after_attempt = after or (job.from_at, "", 0)
    values = {"after_at": after_at, "after_id": after_id, "after_attempt": after_attempt, "limit": limit}
    with conn.transaction():
        conn.execute(NO_BITMAP_NO_SORT)
        rows = conn.execute(_RECORDED.format(state=_state(job)), _range(job) | values).fetchall()
    return [
        Record(
            id_, created, attempt, event, kind, None if topic is None else Position(topic, number, offset), overtaken
        )
        for id_, created, attempt, event, kind, topic, number, offset, overtaken in rows
    ]


def count_recorded(conn: Connection[Any], job: Job) -> int:
    """How many such rows there are, up to a million; overtaken ones are counted too."""
    with conn.transaction():
        row = conn.execute(_COUNT.format(state=_state(job)), _range(job) | {"most": 1_000_000}).fetchone()
    return int(row[0]) if row else 0


def matching(
    conn: Connection[Any], webhook_id: str, state: str, events: Collection[str], begin: datetime, end: datetime
) -> Matching:
    """What a replay of failed or skipped deliveries would find; looks at `_LOOKED_AT` records, counts `_MATCHING_COUNTED`."""
    values = {"webhook_id": webhook_id, "events": list(events), "begin": begin, "end": end}
    texts = _MATCHING[state]
    conn.execute("SET LOCAL enable_seqscan = off")  # of a webhook that the statistics do not know yet
    [records, matched] = conn.execute(texts.looked_at, values).fetchone() or (0, 0)
    if records <= _LOOKED_AT:
        return Matching(records, matched)
    [records] = conn.execute(texts.counted, values).fetchone() or (0,)
    return Matching(records, None)


def _state(job: Job) -> State:
    return _STATES[_STATES.index(State(job.selection))]


def _range(job: Job) -> dict[str, Any]:
    return {"webhook_id": job.webhook_id, "from_at": job.from_at, "to_at": job.to_at}
