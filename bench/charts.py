"""Charts as SVG text: bars with spread, stacked bars, lines. No library, no script, readable in light and dark."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH = 920
_LEFT = 290
_RIGHT = 110
_ROW = 26
_COLOURS = ("#2f6fde", "#e0803a", "#3a9d6a", "#9a5fc9", "#c94f6d", "#7a8699")
_STYLE = (
    "<style>text{font:12px system-ui,sans-serif;fill:#333}.t{font-size:15px;font-weight:600}.n{fill:#777}"
    ".g{stroke:#ddd}.w{stroke:#111;stroke-width:1.5}svg{background:#fff}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}.n{fill:#999}.g{stroke:#444}.w{stroke:#eee}svg{background:#181a1f}}"
    "</style>"
)


@dataclass(frozen=True)
class Bar:
    """One row: a median with the lowest and highest of its repeats."""

    label: str
    value: float
    low: float
    high: float


def bars(title: str, unit: str, rows: Sequence[Bar]) -> str:
    """Horizontal bars from zero; the whisker is the spread."""
    top = max((row.high for row in rows), default=1.0) or 1.0
    scale = (_WIDTH - _LEFT - _RIGHT) / top
    parts = []
    for n, row in enumerate(rows):
        y = 50 + n * _ROW
        parts.append(_row_label(row.label, y))
        parts.append(f'<rect x="{_LEFT}" y="{y}" width="{row.value * scale:.1f}" height="16" fill="{_COLOURS[0]}"/>')
        low, high = _LEFT + row.low * scale, _LEFT + row.high * scale
        parts.append(f'<path class="w" d="M{low:.1f} {y + 8}H{high:.1f}M{low:.1f} {y + 4}v8M{high:.1f} {y + 4}v8"/>')
        parts.append(f'<text x="{high + 6:.1f}" y="{y + 13}">{_number(row.value)} {escape(unit)}</text>')
    return _document(title, 60 + len(rows) * _ROW, parts)


def stacked(title: str, unit: str, rows: Mapping[str, Mapping[str, float]]) -> str:
    """Horizontal bars of several parts each: row label → part → value."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    top = max((sum(row.values()) for row in rows.values()), default=1.0) or 1.0
    scale = (_WIDTH - _LEFT - _RIGHT) / top
    parts = _legend(names, 48)
    for n, (label, row) in enumerate(rows.items()):
        x, y = float(_LEFT), 66 + n * _ROW
        parts.append(_row_label(label, y))
        for name, value in row.items():
            colour = _COLOURS[names.index(name) % len(_COLOURS)]
            tip = f"<title>{escape(name)} {value:.1f} {escape(unit)}</title>"
            width = value * scale
            parts.append(f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="16" fill="{colour}">{tip}</rect>')
            x += width
        parts.append(f'<text x="{x + 6:.1f}" y="{y + 13}">{_number(sum(row.values()))} {escape(unit)}</text>')
    return _document(title, 76 + len(rows) * _ROW, parts)


def lines(title: str, x_name: str, y_name: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Lines over logarithmic axes."""
    points = [(x, max(y, 1e-9)) for line in series.values() for x, y in line if x > 0]
    (x0, x1), (y0, y1) = _decades(x for x, _ in points), _decades(y for _, y in points)
    left, right, above, below = 70, _WIDTH - 50, 70, 330

    def at(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - x0) / (x1 - x0)
        up = (math.log10(max(y, 10**y0)) - y0) / (y1 - y0)
        return left + across * (right - left), below - up * (below - above)

    parts = _legend(list(series), 48)
    for power in range(math.floor(y0), math.ceil(y1) + 1):
        _, y = at(10**x0, 10**power)
        parts.append(f'<path class="g" d="M{left} {y:.1f}H{right}"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{_number(10.0**power)}</text>')
    for x in sorted({x for x, _ in points}):
        parts.append(f'<text x="{at(x, 10**y0)[0]:.1f}" y="{below + 16}" text-anchor="middle">{_number(x)}</text>')
    for n, line in enumerate(series.values()):
        colour = _COLOURS[n % len(_COLOURS)]
        placed = [at(x, y) for x, y in line if x > 0]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in placed]
    parts.append(f'<text class="n" x="{right}" y="{below + 36}" text-anchor="end">{escape(x_name)}</text>')
    parts.append(f'<text class="n" x="{left}" y="{above - 4}">{escape(y_name)}</text>')
    return _document(title, below + 50, parts)


def trace(
    title: str, y_name: str, series: Mapping[str, Sequence[tuple[float, float]]], marks: Mapping[str, float]
) -> str:
    """Lines over seconds, from zero; a mark is a moment with a name, such as the start of an outage."""
    points = [point for line in series.values() for point in line]
    x1 = max((x for x, _ in points), default=1.0) or 1.0
    y1 = max((y for _, y in points), default=1.0) * 1.1 or 1.0
    left, right, above, below = 70, _WIDTH - 30, 70, 330

    def at(x: float, y: float) -> tuple[float, float]:
        return left + x / x1 * (right - left), below - y / y1 * (below - above)

    parts = _legend(list(series), 48)
    for part in range(6):
        (x, _), (_, y) = at(x1 * part / 5, 0), at(0, y1 * part / 5)
        parts.append(f'<path class="g" d="M{left} {y:.1f}H{right}"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{_number(y1 * part / 5)}</text>')
        parts.append(f'<text x="{x:.1f}" y="{below + 16}" text-anchor="middle">{x1 * part / 5:.0f}</text>')
    for name, moment in marks.items():
        x, _ = at(moment, 0)
        parts.append(f'<path class="g" stroke-dasharray="4" d="M{x:.1f} {above}V{below}"/>')
        parts.append(f'<text class="n" x="{x + 4:.1f}" y="{above + 12}">{escape(name)}</text>')
    for n, line in enumerate(series.values()):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in line))
        colour = _COLOURS[n % len(_COLOURS)]
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
    parts.append(f'<text class="n" x="{right}" y="{below + 36}" text-anchor="end">seconds</text>')
    parts.append(f'<text class="n" x="{left}" y="{above - 4}">{escape(y_name)}</text>')
    return _document(title, below + 50, parts)


def _decades(values: object) -> tuple[float, float]:
    """Powers of ten that hold all values, not both the same."""
    logs = [math.log10(value) for value in values]  # type: ignore[attr-defined]
    low, high = math.floor(min(logs, default=0)), math.ceil(max(logs, default=1))
    return low, max(high, low + 1)


def _legend(names: Sequence[str], y: int) -> list[str]:
    parts, x = [], _LEFT
    for n, name in enumerate(names):
        parts.append(f'<rect x="{x}" y="{y - 10}" width="10" height="10" fill="{_COLOURS[n % len(_COLOURS)]}"/>')
        parts.append(f'<text x="{x + 14}" y="{y}">{escape(name)}</text>')
        x += 30 + 7 * len(name)
    return parts


def _row_label(label: str, y: int) -> str:
    return f'<text x="{_LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(label)}</text>'


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _document(title: str, height: int, parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">'
    name = f'<title>{escape(title)}</title><text class="t" x="16" y="26">{escape(title)}</text>'
    return "\n".join([head, _STYLE, name, *parts, "</svg>", ""])
