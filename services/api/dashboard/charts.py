"""Charts of a webhook's statistics as shapes to draw, from what `GET …/stats` answers. Pure.

A chart is as many units wide as it has steps, and 100 high, with 0 at the top: templates draw it as SVG that is stretched to
the room that there is.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, Final, NamedTuple

from services.api.dashboard.words import milliseconds

HEIGHT: Final = 100.0
#: From the bottom up, with what they are called.
OUTCOMES: Final = {
    "delivered": "delivered",
    "retried": "failed, to be retried",
    "failed": "failed for good",
    "skipped": "skipped",
}
PERCENTILES: Final = {"p50Ms": "p50", "p95Ms": "p95", "p99Ms": "p99"}
_TOPS: Final = (2, 4, 6, 8, 10)
_COMPACT: Final = ((1_000_000, "M"), (1000, "k"))


class Range(NamedTuple):
    """A time range in whole steps, which ends with the present step."""

    name: str  #: as a sentence has it
    length: timedelta
    step_s: int
    marks: int  #: the axis is divided into so many parts; divides the number of steps
    form: str  #: of the times at these


RANGES: Final = {
    "1h": Range("the last hour", timedelta(hours=1), 60, 6, "time"),
    "24h": Range("the last 24 hours", timedelta(days=1), 3600, 6, "time"),
    "7d": Range("the last 7 days", timedelta(days=7), 3600, 7, "moment"),
    "30d": Range("the last 30 days", timedelta(days=30), 86400, 6, "day"),
}
#: As `strftime` has them; `Intl` in the browser writes the same in the reader's zone.
FORMS: Final = {"time": "%H:%M", "moment": "%d %b %H:%M", "day": "%d %b"}


class Segment(NamedTuple):
    """One outcome's part of a bar."""

    outcome: str
    y: float
    height: float


class Bar(NamedTuple):
    """One step: what it holds in words, and its segments; none when nothing happened."""

    x: int  #: its left end; it is one unit wide
    at: str
    told: str
    segments: list[Segment]


class Curve(NamedTuple):
    """One percentile over time, as the `d` of a path; with gaps where nothing was answered."""

    percentile: str
    path: str


class Scale(NamedTuple):
    """What 100 units stand for, and what is written at the top, in the middle and at the bottom."""

    top: float
    marks: list[str]


class AxisMark(NamedTuple):
    """A time below the axis."""

    at: str
    text: str


class Chart(NamedTuple):
    """All that the two charts of a webhook show."""

    counts: Scale
    bars: list[Bar]
    times: Scale
    lines: list[Curve]
    marks: list[AxisMark]
    is_empty: bool  #: nothing happened
    is_silent: bool  #: nothing was answered


def span(range_name: str, now: datetime) -> dict[str, str]:
    """The query of `GET …/stats` for one of `RANGES`."""
    wanted = RANGES[range_name]
    step = timedelta(seconds=wanted.step_s)
    end = now + (datetime.fromtimestamp(0, now.tzinfo) - now) % step
    return {"from": (end - wanted.length).isoformat(), "to": end.isoformat(), "step": str(wanted.step_s)}


def chart(stats: dict[str, Any], range_name: str) -> Chart:
    series = stats["series"]
    wanted = RANGES[range_name]
    times = time_scale(series)
    return Chart(
        counts=count_scale(series),
        bars=bars(series),
        times=times,
        lines=[Curve(PERCENTILES[key], path([point[key] for point in series], times.top)) for key in PERCENTILES],
        marks=_marks(series, wanted),
        is_empty=not any(map(total, series)),
        is_silent=all(point["p50Ms"] is None for point in series),
    )


def bars(series: Sequence[dict[str, Any]]) -> list[Bar]:
    """Stacked bars on the scale of `count_scale`."""
    top = count_scale(series).top
    return [Bar(x, point["at"], told(point), list(_segments(point, top))) for x, point in enumerate(series)]


def spark(series: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """The same bars, small: for each outcome, the `d` of one path with all of its segments."""
    parts: dict[str, list[str]] = {}
    for bar in bars(series):
        for part in bar.segments:
            parts.setdefault(part.outcome, []).append(f"M{bar.x}.1 {part.y:g}h.8v{part.height:g}h-.8z")
    return [(outcome, "".join(drawn)) for outcome, drawn in parts.items()]


def total(point: dict[str, Any]) -> int:
    return sum(point[outcome] for outcome in OUTCOMES)


def told(point: dict[str, Any]) -> str:
    """One step in words."""
    counts = [f"{point[outcome]:,} {name}" for outcome, name in OUTCOMES.items() if point[outcome]]
    took = [f"p95 {milliseconds(point['p95Ms'])}"] if point["p95Ms"] is not None else []
    return ", ".join(counts + took) or "nothing"


def count_scale(series: Sequence[dict[str, Any]]) -> Scale:
    top = _nice(max(map(total, series), default=0))
    return Scale(top, [_compact(top), _compact(top / 2), "0"])


def time_scale(series: Sequence[dict[str, Any]]) -> Scale:
    slowest = max((point[key] for point in series for key in PERCENTILES if point[key] is not None), default=0.0)
    top = _nice(slowest)
    return Scale(top, [duration(top), duration(top / 2), "0"])


def path(values: Sequence[float | None], top: float) -> str:
    """A line through the middle of the steps. A value between two gaps is a dot: a line of no length, with round ends."""
    drawn: list[str] = []
    known = ((x, value) for x, value in enumerate(values))
    for is_gap, run in groupby(known, lambda each: each[1] is None):
        if not is_gap:
            points = [f"{x + 0.5:g} {_short(HEIGHT - HEIGHT * (value or 0) / top):g}" for x, value in run]
            drawn.append(f"M{points[0]}h0" if len(points) == 1 else "M" + "L".join(points))
    return "".join(drawn)


def success_rate(counts: dict[str, Any]) -> float | None:
    """Of the attempts that were made, the share that succeeded; None without any."""
    made: int = counts["delivered"] + counts["failed"] + counts["retried"]
    return counts["delivered"] / made if made else None


def percent(share: float | None) -> str:
    """`99.95 %`; empty for None. It shows 100 only for all, and 0 only for none."""
    if share is None:
        return ""
    if share in (0, 1):
        return f"{share:.0%}".replace("%", " %")
    return f"{min(99.99, max(0.01, share * 100)):.4g} %"


def duration(ms: float) -> str:
    return f"{ms / 1000:g} s" if ms >= 1000 else f"{ms:g} ms"  # noqa: PLR2004  # a second


def _segments(point: dict[str, Any], top: float) -> Iterator[Segment]:
    y = HEIGHT
    for outcome in OUTCOMES:
        if point[outcome]:
            least = 3.0  # what happened once in ten thousand times is still to be seen
            height = min(y, max(least, HEIGHT * point[outcome] / top))
            y -= height
            yield Segment(outcome, _short(y), _short(height))


def _marks(series: Sequence[dict[str, Any]], wanted: Range) -> list[AxisMark]:
    every = len(series) // wanted.marks or 1
    return [
        AxisMark(point["at"], datetime.fromisoformat(point["at"]).strftime(FORMS[wanted.form]))
        for point in series[::every]
    ]


def _nice(most: float) -> float:
    """The next higher round number, whose half is round too."""
    unit = 1.0
    while most > _TOPS[-1] * unit:
        unit *= 10
    return next(top * unit for top in _TOPS if top * unit >= most)


def _compact(number: float) -> str:
    for size, letter in _COMPACT:
        if number >= size:
            return f"{number / size:g}{letter}"
    return f"{number:g}"


def _short(number: float) -> float:
    return round(number, 2)
