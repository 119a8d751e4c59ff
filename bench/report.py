"""Rounds into medians with their spread; tables, a JSON file and charts out of those."""

import json
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from usage import machine

Figures = dict[str, float]  #: metric → value, of one scenario in one round
RESULTS = Path(__file__).parent / "results"
console = Console(width=160 if not sys.stdout.isatty() else None, highlight=False)


@dataclass(frozen=True)
class Spread:
    """A metric over the rounds."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(statistics.median(values), min(values), max(values), len(values))

    def __str__(self) -> str:
        if self.count == 1:
            return _short(self.median)
        return f"{_short(self.median)} ({_short(self.low)}-{_short(self.high)})"


Summary = dict[str, dict[str, Spread]]  #: scenario → metric → spread


def summarise(rounds: Iterable[Mapping[str, Figures]]) -> Summary:
    """By scenario and metric, in the order of the first appearance."""
    values: dict[str, dict[str, list[float]]] = {}
    for each in rounds:
        for scenario, figures in each.items():
            for metric, value in figures.items():
                values.setdefault(scenario, {}).setdefault(metric, []).append(value)
    return {
        scenario: {metric: Spread.of(found) for metric, found in metrics.items()}
        for scenario, metrics in values.items()
    }


def table(title: str, summary: Summary, columns: Mapping[str, str]) -> None:
    """Print the scenarios that have at least one of the columns (metric → heading)."""
    rows = {name: metrics for name, metrics in summary.items() if columns.keys() & metrics.keys()}
    if not rows:
        return
    printed = Table(title=title, title_justify="left")
    printed.add_column("")
    for metric, heading in columns.items():
        if any(metric in metrics for metrics in rows.values()):
            printed.add_column(heading, justify="right")
    shown = [metric for metric in columns if any(metric in metrics for metrics in rows.values())]
    for name, metrics in rows.items():
        printed.add_row(name, *[str(metrics[metric]) if metric in metrics else "" for metric in shown])
    console.print(printed)


def write(name: str, options: Mapping[str, Any], rounds: Sequence[Mapping[str, Figures]], directory: Path) -> Path:
    """`<name>.json`: the machine, what was asked for, medians, and every round."""
    directory.mkdir(parents=True, exist_ok=True)
    summary = summarise(rounds)
    path = directory / f"{name}.json"
    content = {
        "machine": machine(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        # Where it was written to is nobody's business but this machine's.
        "options": {key: value for key, value in options.items() if not isinstance(value, Path)},
        "summary": {
            scenario: {metric: _rounded(asdict(spread)) for metric, spread in metrics.items()}
            for scenario, metrics in summary.items()
        },
        "rounds": [{scenario: _rounded(figures) for scenario, figures in each.items()} for each in rounds],
    }
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path


def chart(name: str, svg: str, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.svg").write_text(svg)


def say_machine() -> None:
    found = machine()
    console.print(
        f"{found['processor']}, {found['cores']} cores, {found['memory_gib']} GiB, "
        f"Python {found['python']}, {found['modules']} modules, load {found['load']}"
    )


def _rounded(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: float(f"{value:.5g}") for name, value in figures.items()}


def _short(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
