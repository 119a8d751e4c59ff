"""Statistics as answers show them: by step, and in total."""

from datetime import UTC, datetime, timedelta
from typing import Final

from go2hooks.core.domain.rollup import Rollup
from go2hooks.postgres.rollups import StepRange
from services.api.answers import iso
from services.api.shapes.stats import Counts, Point, Stats

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR_S: Final = 3600
_DAY: Final = timedelta(days=1)


def whole_steps(begin: datetime, to: datetime, step_s: int) -> StepRange:
    """Whole steps: from the one that holds `begin` to the last that begins before `to`."""
    step = timedelta(seconds=step_s)
    return StepRange(begin - (begin - EPOCH) % step, to + (EPOCH - to) % step, step_s)


def last_day() -> StepRange:
    """The last 24 hours, the present one included."""
    end = whole_steps(EPOCH, datetime.now(UTC), _HOUR_S).end
    return StepRange(end - _DAY, end, _HOUR_S)


def told(found: dict[datetime, Rollup], span: StepRange) -> Stats:
    """Every step of the span; `found` has those with attempts, by their beginning."""
    total, nothing = Rollup(), _counts(Rollup())
    for rollup in found.values():
        total.merge(rollup)
    series: list[Point] = []
    step, at = timedelta(seconds=span.step_s), span.begin
    while at < span.end:
        series.append({"at": iso(at), **(_counts(found[at]) if at in found else nothing)})
        at += step
    return {
        "from": iso(span.begin),
        "to": iso(span.end),
        "stepSeconds": span.step_s,
        "series": series,
        "totals": _counts(total),
    }


def _counts(rollup: Rollup) -> Counts:
    p50, p95, p99 = (_rounded(each) for each in rollup.percentiles((0.5, 0.95, 0.99)))
    return {
        "delivered": rollup.delivered,
        "failed": rollup.failed,
        "skipped": rollup.skipped,
        "retried": rollup.retried,
        "p50Ms": p50,
        "p95Ms": p95,
        "p99Ms": p99,
    }


def _rounded(ms: float | None) -> float | None:
    return None if ms is None else round(ms, 2)
