"""SQL of `replays` and `replay_batches`, as replayers ask it: each call is a transaction of its own.

A replay is leased to one replayer, which renews the lease every second. Before a batch is sent, it is stored with the
numbers of its attempts and with the position that the reading has reached. A replayer that takes over sends the last
batch again under the same numbers, which dispatchers recognise as duplicates, and reads on behind it.
"""

# ruff: noqa: S608  # what is put together are constants of this module; every value is a parameter

import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from psycopg import Connection

from go2hooks.core.domain.delivery import Position
from go2hooks.core.domain.event import ABOUT_WEBHOOKS, Event
from go2hooks.core.domain.filters import Filter, compile_filter
from go2hooks.core.domain.outcome import State
from go2hooks.core.domain.replay import FINAL, Planned, is_wanted
from go2hooks.core.encoding.fanout import others
from go2hooks.core.errors import FilterError
from go2hooks.postgres.attempts import from_ms
from go2hooks.postgres.attempts.standings import Key, standings

_LEASE: Final = timedelta(seconds=3)
KEEP_S: Final = 0.75  #: how often leases are to be renewed
_FIRST_LOOK: Final = timedelta(seconds=0.5)
_LAST_LOOK: Final = timedelta(seconds=30)

_JOB: Final = """r.id, r.webhook_id, r.account_id, r.selection, r.events, r.from_at, r.to_at, r.progress, r.batch, r.unsent,
    w.events, w.is_active, w.filter"""
_CLAIM: Final = f"""
UPDATE replays r SET status = 'running', holder = %(holder)s, leased_until = clock_timestamp() + %(lease)s
FROM webhooks w
WHERE w.id = r.webhook_id AND r.id = (
    SELECT id FROM replays WHERE finished_at IS NULL AND NOT all_sent
        AND (leased_until IS NULL OR leased_until < clock_timestamp() OR holder = %(holder)s) AND id <> ALL(%(held)s)
    ORDER BY created_at LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING {_JOB}"""
_RENEW: Final = f"""
UPDATE replays r SET leased_until = clock_timestamp() + %(lease)s FROM webhooks w
WHERE w.id = r.webhook_id AND r.id = %(id)s AND r.holder = %(holder)s AND r.finished_at IS NULL AND w.deleted_at IS NULL
RETURNING {_JOB}"""
_OURS: Final = "id = %(id)s AND holder = %(holder)s AND finished_at IS NULL"
_WRITE: Final = f"""
UPDATE replays SET progress = %(progress)s, position_at = coalesce(%(position_at)s, position_at), unread = %(unread)s,
    matched = matched + %(planned)s + %(expired)s, expired = expired + %(expired)s,
    batch = batch + (%(planned)s > 0)::int, unsent = %(planned)s, leased_until = clock_timestamp() + %(lease)s
WHERE {_OURS} RETURNING batch"""
_DUE_BATCHES: Final = """
SELECT b.replay_id, b.batch, b.deliveries, b.written_at, r.webhook_id, r.finished_at IS NOT NULL, clock_timestamp()
FROM replay_batches b JOIN replays r ON r.id = b.replay_id
WHERE b.look_at <= clock_timestamp() ORDER BY b.look_at LIMIT %s FOR UPDATE OF b SKIP LOCKED"""
_COUNT_DECIDED: Final = (
    """UPDATE replays SET delivered = delivered + %s, failed = failed + %s, skipped = skipped + %s WHERE id = %s"""
)
_FINISH: Final = """
UPDATE replays r SET status = 'done', finished_at = clock_timestamp()
WHERE finished_at IS NULL AND all_sent AND NOT EXISTS (SELECT 1 FROM replay_batches b WHERE b.replay_id = r.id)"""

_ABANDON: Final = """
UPDATE replays r SET status = 'stopped', finished_at = clock_timestamp() FROM webhooks w
WHERE finished_at IS NULL AND w.id = r.webhook_id AND w.deleted_at IS NOT NULL"""


class Job(NamedTuple):
    """A replay as its holder sees it."""

    id: str
    webhook_id: str
    account_id: str
    selection: str
    asked: frozenset[str] | None  #: events that were asked for; None for all
    from_at: datetime
    to_at: datetime
    progress: Any  #: what was written last; None before the first batch
    batch: int
    unsent: int  #: deliveries of that batch, if Kafka has not acknowledged it
    subscribed: frozenset[str]
    is_active: bool
    filter: Filter | None  #: of the webhook, on an event's data

    def wants(self, event: str) -> bool:
        """Whether the event was requested, and the webhook still subscribes to it."""
        return is_wanted(event, self.subscribed, self.asked)

    def is_for(self, event: Event) -> bool:
        """Whether the router would send the event to the webhook, and it was requested."""
        if event.account_id != self.account_id or not self.wants(event.type):
            return False
        if event.type in ABOUT_WEBHOOKS and not others((self.webhook_id,), event):
            return False
        return self.filter is None or self.filter.matches(event.data)


class Step(NamedTuple):
    """How far the reading has come."""

    progress: Any
    position_at: datetime | None
    unread: int
    expired: int  #: deliveries that were selected since, but are no longer in Kafka


def claim(conn: Connection[Any], holder: str, held: Collection[str]) -> Job | None:
    """Take the oldest replay that nobody works on, other than those `held`; None when there is none."""
    with conn.transaction():
        return _job(conn, _CLAIM, holder=holder, held=list(held))


def renew(conn: Connection[Any], replay_id: str, holder: str) -> Job | None:
    """Renew the lease of a replay; None when it was stopped, or another replayer has it."""
    with conn.transaction():
        return _job(conn, _RENEW, holder=holder, id=replay_id)


def keep(conn: Connection[Any], holder: str) -> None:
    """Renew all leases of a replayer."""
    with conn.transaction():
        conn.execute(
            """UPDATE replays SET leased_until = clock_timestamp() + %(lease)s
               WHERE finished_at IS NULL AND holder = %(holder)s AND leased_until IS NOT NULL""",
            {"holder": holder, "lease": _LEASE},
        )


def release(conn: Connection[Any], replay_id: str, holder: str) -> None:
    """Give the lease back, so that another replayer can take it at once."""
    with conn.transaction():
        conn.execute(f"UPDATE replays SET leased_until = NULL WHERE {_OURS}", {"id": replay_id, "holder": holder})


def write_batch(
    conn: Connection[Any], replay_id: str, holder: str, step: Step, planned: Sequence[Planned]
) -> int | None:
    """Store what is about to be sent and how far the reading has come. The batch's number; None when another replayer
    has the lease.
    """
    values = step._asdict() | {
        "progress": json.dumps(step.progress),
        "id": replay_id,
        "holder": holder,
        "lease": _LEASE,
    }
    with conn.transaction():
        row = conn.execute(_WRITE, values | {"planned": len(planned)}).fetchone()
        if row is None:
            return None
        if planned:
            conn.execute(
                """INSERT INTO replay_batches (replay_id, batch, deliveries, look_at)
                   VALUES (%s, %s, %s, clock_timestamp() + %s)""",
                [replay_id, row[0], _packed(planned), _FIRST_LOOK],
            )
        return int(row[0])


def unsent(conn: Connection[Any], replay_id: str, batch: int) -> list[Planned]:
    """The deliveries of a batch that have no outcome yet, and may not have been sent."""
    with conn.transaction():
        row = conn.execute(
            "SELECT deliveries FROM replay_batches WHERE replay_id = %s AND batch = %s", [replay_id, batch]
        ).fetchone()
    return [] if row is None else _unpacked(row[0])


def sent(conn: Connection[Any], replay_id: str, holder: str, batch: int, expired: Collection[str] = ()) -> None:
    """Record that Kafka has the batch, except for deliveries that had `expired` before. A stopped replay is updated too."""
    with conn.transaction():
        if expired:
            _take_out(conn, replay_id, batch, expired)
        conn.execute(
            """UPDATE replays SET sent = sent + unsent - %(expired)s, expired = expired + %(expired)s, unsent = 0
               WHERE id = %(id)s AND holder = %(holder)s""",
            {"id": replay_id, "holder": holder, "expired": len(expired)},
        )


def all_sent(conn: Connection[Any], replay_id: str, holder: str) -> None:
    """Record that there is nothing more to send. The replay is done once every delivery has an outcome."""
    with conn.transaction():
        conn.execute(
            f"UPDATE replays SET all_sent = true, leased_until = NULL, unread = 0, position_at = to_at WHERE {_OURS}",
            {"id": replay_id, "holder": holder},
        )


def fail(conn: Connection[Any], replay_id: str, holder: str, why: str) -> None:
    """End it, with a sentence for its owner."""
    with conn.transaction():
        conn.execute(
            f"UPDATE replays SET status = 'failed', error = %(why)s, finished_at = clock_timestamp() WHERE {_OURS}",
            {"id": replay_id, "holder": holder, "why": why},
        )


def settle(conn: Connection[Any], batches: int) -> int:
    """Look up the outcome of sent deliveries, of at most `batches` batches; count those that are decided, and end
    replays of which all are decided. Returns how many batches were looked at.
    """
    with conn.transaction():
        due = conn.execute(_DUE_BATCHES, [batches]).fetchall()
        decided: dict[str, Counter[str]] = {}
        for replay_id, batch, packed, written_at, webhook_id, is_over, now in due:
            planned = [] if is_over else _unpacked(packed)
            states = _decided(conn, webhook_id, planned)
            decided.setdefault(replay_id, Counter()).update(states.values())
            left = [each for each in planned if each.delivery_id not in states]
            look_at = now + _pause(now - written_at)
            _keep(conn, replay_id, batch, left, look_at, is_changed=len(left) < len(planned))
        _count_decided(conn, decided)
        conn.execute(_FINISH)
        conn.execute(_ABANDON)
    return len(due)


def forget(conn: Connection[Any], retention_days: int) -> None:
    """Delete replays that ended before the retention."""
    with conn.transaction():
        conn.execute("DELETE FROM replays WHERE finished_at < now() - make_interval(days => %s)", [retention_days])


def _job(conn: Connection[Any], sql: str, **values: Any) -> Job | None:
    row = conn.execute(sql, values | {"lease": _LEASE}).fetchone()
    if row is None:
        return None
    job = Job._make(row)
    asked = None if job.asked is None else frozenset(job.asked)
    return job._replace(asked=asked, subscribed=frozenset(job.subscribed), filter=_filter(row[-1]))


def _filter(pattern: Any) -> Filter | None:
    """Compile a filter. One that cannot be read lets everything pass, as in the replica."""
    try:
        return None if pattern is None else compile_filter(pattern)
    except FilterError:
        return None


def _decided(conn: Connection[Any], webhook_id: str, planned: Sequence[Planned]) -> dict[str, str]:
    """The final states, by delivery id, of the deliveries that have one."""
    if not planned:
        return {}
    found = standings(conn, [Key(webhook_id, from_ms(each.created_ms), each.delivery_id) for each in planned])
    states = {each.delivery_id: found.get(each.delivery_id) for each in planned}
    first = {each.delivery_id: each.attempt for each in planned}
    return {id_: s.state for id_, s in states.items() if s is not None and s.attempt >= first[id_] and s.state in FINAL}


def _pause(age: timedelta) -> timedelta:
    return min(_LAST_LOOK, max(_FIRST_LOOK, age / 2))


def _keep(
    conn: Connection[Any],
    replay_id: str,
    batch: int,
    left: list[Planned],
    look_at: datetime,
    *,
    is_changed: bool = True,
) -> None:
    """Keep what is left of a batch until the next look. An unchanged batch is not written again."""
    if not left:
        conn.execute("DELETE FROM replay_batches WHERE replay_id = %s AND batch = %s", [replay_id, batch])
        return
    conn.execute(
        "UPDATE replay_batches SET deliveries = coalesce(%s, deliveries), look_at = %s WHERE replay_id = %s AND batch = %s",
        [_packed(left) if is_changed else None, look_at, replay_id, batch],
    )


def _take_out(conn: Connection[Any], replay_id: str, batch: int, expired: Collection[str]) -> None:
    row = conn.execute(
        "SELECT deliveries, look_at FROM replay_batches WHERE replay_id = %s AND batch = %s FOR UPDATE",
        [replay_id, batch],
    ).fetchone()
    if row is not None:
        left = [each for each in _unpacked(row[0]) if each.delivery_id not in expired]
        _keep(conn, replay_id, batch, left, row[1])


def _count_decided(conn: Connection[Any], decided: dict[str, Counter[str]]) -> None:
    for id_, counts in sorted(decided.items()):  # locked in one order, whoever settles
        if counts:
            states = (State.DELIVERED, State.FAILED, State.SKIPPED)
            conn.execute(_COUNT_DECIDED, [*(counts[state] for state in states), id_])


def _packed(planned: Iterable[Planned]) -> str:
    return json.dumps([[each.delivery_id, each.created_ms, each.attempt, *each.position] for each in planned])


def _unpacked(packed: list[list[Any]]) -> list[Planned]:
    return [Planned(id_, created_ms, attempt, Position(*place)) for id_, created_ms, attempt, *place in packed]
