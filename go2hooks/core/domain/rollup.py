"""Statistics of attempts: counts by outcome, and a mergeable histogram of response times.

The histogram's buckets are logarithmic: each is a tenth wider than the previous one. So a percentile from the histogram
is within 5 % of the exact one, also after merging. A response time is measured for an answered attempt, from the first
step (pool or connect) to the end of the response's head.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final

from go2hooks.core.domain.outcome import State
from go2hooks.core.domain.record import AttemptRecord

#: The steps of rollups, in seconds. Each divides the next one, and a day.
STEPS_S: Final = (60, 300, 3600, 86400)
MINUTE_MS: Final = 60_000

_GROWTH: Final = 1.1
_PER_BUCKET: Final = 1 / math.log(_GROWTH)
_FIRST_MS: Final = 0.01  # response times are recorded in hundredths
_FIRST_LOG: Final = math.log(_FIRST_MS)
_WITHIN: Final = 2 * _GROWTH / (_GROWTH + 1)  # times a bucket's lower end: as far from both ends, relatively
_DELIVERED: Final = State.DELIVERED
_FAILED: Final = State.FAILED
_RETRYING: Final = State.RETRYING
_SKIPPED: Final = State.SKIPPED
_HISTOGRAM: Final = 6  # index at which a line's buckets begin


class Rollup:
    """Totals of one webhook's attempts in one step."""

    __slots__ = ("delivered", "failed", "histogram", "retried", "skipped")

    def __init__(self) -> None:
        self.delivered = 0
        self.failed = 0  #: last attempts that failed
        self.skipped = 0
        self.retried = 0  #: attempts that failed and had a retry
        self.histogram: dict[int, int] = {}  #: number of response times by bucket

    def add(self, state: State, duration_ms: float | None) -> None:
        """Count one attempt. `duration_ms` is None when it was not answered."""
        if state is _DELIVERED:
            self.delivered += 1
        elif state is _RETRYING:
            self.retried += 1
        elif state is _FAILED:
            self.failed += 1
        elif state is _SKIPPED:
            self.skipped += 1
        if duration_ms is not None:
            bucket = bucket_of(duration_ms)
            self.histogram[bucket] = self.histogram.get(bucket, 0) + 1

    def count(self, delivered: int, failed: int, skipped: int, retried: int) -> None:
        self.delivered += delivered
        self.failed += failed
        self.skipped += skipped
        self.retried += retried

    def merge(self, other: "Rollup") -> None:
        self.count(other.delivered, other.failed, other.skipped, other.retried)
        for bucket, count in other.histogram.items():
            self.histogram[bucket] = self.histogram.get(bucket, 0) + count

    def percentiles(self, fractions: Sequence[float]) -> list[float | None]:
        """Percentiles (nearest rank) in milliseconds for these ascending fractions; None without response times."""
        found: list[float | None] = []
        total, seen, at = sum(self.histogram.values()), 0, -1
        buckets = sorted(self.histogram)
        for fraction in fractions:
            while seen < fraction * total and at + 1 < len(buckets):
                at += 1
                seen += self.histogram[buckets[at]]
            found.append(value_of(buckets[at]) if at >= 0 else None)
        return found


def bucket_of(duration_ms: float) -> int:
    """The bucket of a response time, from 0."""
    if duration_ms <= _FIRST_MS:
        return 0
    return int((math.log(duration_ms) - _FIRST_LOG) * _PER_BUCKET)


def value_of(bucket: int) -> float:
    """A response time in milliseconds that is within 5 % of all in the bucket."""
    return float(_FIRST_MS * _GROWTH**bucket * _WITHIN)


# --- lines: webhook, minute, delivered, failed, skipped, retried, then pairs of bucket and count


def roll_up(records: Sequence[AttemptRecord]) -> list[list[Any]]:
    """A line for each webhook and minute in which attempts of the batch began. Pending records are no attempts."""
    rollups: dict[tuple[str, int], Rollup] = {}
    for record in records:
        state, status, duration_ms = record.state, record.status_code, record.duration_ms
        if state is State.PENDING:
            continue
        key = (record.webhook_id, record.attempted_ms // MINUTE_MS)
        rollup = rollups.get(key)
        if rollup is None:
            rollup = rollups[key] = Rollup()
        rollup.add(state, duration_ms if status is not None else None)
    return [_line(webhook_id, minute, rollup) for (webhook_id, minute), rollup in rollups.items()]


def _line(webhook_id: str, minute: int, rollup: Rollup) -> list[Any]:
    # Our own ids are printable. JSON or Postgres could refuse other characters in a foreign id.
    name = webhook_id if webhook_id.isprintable() else ascii(webhook_id)
    line: list[Any] = [name, minute, rollup.delivered, rollup.failed, rollup.skipped, rollup.retried]
    for bucket, count in rollup.histogram.items():
        line.append(bucket)
        line.append(count)
    return line


class Gathered:
    """Lines of many batches, merged by webhook and minute."""

    __slots__ = ("_rollups",)

    def __init__(self) -> None:
        self._rollups: dict[tuple[str, int], Rollup] = {}

    def add(self, lines: list[list[Any]]) -> None:
        for line in lines:
            webhook_id, minute, delivered, failed, skipped, retried = line[:_HISTOGRAM]
            key = (webhook_id, minute)
            rollup = self._rollups.get(key)
            if rollup is None:
                rollup = self._rollups[key] = Rollup()
            rollup.count(delivered, failed, skipped, retried)
            histogram = rollup.histogram
            for at in range(_HISTOGRAM, len(line), 2):
                bucket: int = line[at]
                count: int = line[at + 1]
                histogram[bucket] = histogram.get(bucket, 0) + count

    def steps(self) -> Iterator[tuple[str, int, int, Rollup]]:
        """Webhook, step in seconds, begin of the step in seconds since the epoch, totals; sorted, for every step."""
        by_step: dict[tuple[str, int, int], Rollup] = {}
        for (webhook_id, minute), rollup in self._rollups.items():
            for step_s in STEPS_S:
                at_s = minute * 60
                key = (webhook_id, step_s, at_s - at_s % step_s)
                merged = by_step.get(key)
                if merged is None:
                    merged = by_step[key] = Rollup()
                merged.merge(rollup)
        for (webhook_id, step_s, at_s), rollup in sorted(by_step.items(), key=_key):
            yield webhook_id, step_s, at_s, rollup


def _key(item: tuple[tuple[str, int, int], Rollup]) -> tuple[str, int, int]:
    return item[0]
