"""Router and dispatcher under watch, and every delivery accounted for by its id."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import psutil
import report
from peers import TimingReceiver
from running import BenchError, Hook, Stack, wait_until
from usage import peak_rss_mib

from go2hooks.core.domain.delivery import delivery_id

BOUNDS_MIB = {"router": 200.0, "dispatcher": 250.0}  #: as docs/operators.md promises them
GROUP = "healthy"
WEBHOOKS = 100
_EVERY_S = 1.0


@dataclass(frozen=True)
class Sample:
    """A process at a moment, in seconds of the monotonic clock."""

    at: float
    rss_mib: float
    descriptors: int
    threads: int


@dataclass
class Watch:
    """Samples of router and dispatcher, taken every second by a thread."""

    pids: dict[str, int]
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    peaks_mib: dict[str, float] = field(default_factory=dict)  #: by the kernel's account, once the watch is over
    began: float = field(default_factory=time.monotonic)

    def take(self) -> None:
        for name, pid in self.pids.items():
            with suppress(psutil.NoSuchProcess):
                process = psutil.Process(pid)
                sample = Sample(
                    time.monotonic(),
                    process.memory_info().rss / 2**20,
                    process.num_fds(),
                    process.num_threads(),
                )
                self.samples.setdefault(name, []).append(sample)

    def figures(self) -> report.Figures:
        """What each held first, at most and last; its memory's peak is the kernel's figure."""
        found: report.Figures = {}
        for name, samples in self.samples.items():
            found[f"{name}.rss_mib.first"] = samples[0].rss_mib
            found[f"{name}.rss_mib.peak"] = self.peaks_mib[name]
            found[f"{name}.rss_mib.last"] = samples[-1].rss_mib
            for what in ("descriptors", "threads"):
                values = [getattr(sample, what) for sample in samples]
                found |= {f"{name}.{what}.first": values[0], f"{name}.{what}.peak": max(values)}
                found[f"{name}.{what}.last"] = values[-1]
        return found

    def lines(self) -> dict[str, list[tuple[float, float]]]:
        return {name: [(s.at - self.began, s.rss_mib) for s in samples] for name, samples in self.samples.items()}


@contextmanager
def watching(running: Stack) -> Iterator[Watch]:
    """Sample the one router and the one dispatcher that run, until the end of the block."""
    watch = Watch({kind: running.pids()[kind][0] for kind in BOUNDS_MIB})
    over = threading.Event()

    def sample() -> None:
        while not over.wait(_EVERY_S):
            watch.take()

    thread = threading.Thread(target=sample, daemon=True)
    watch.take()
    thread.start()
    try:
        yield watch
    finally:
        over.set()
        thread.join()
        watch.peaks_mib = {name: peak_rss_mib(pid) for name, pid in watch.pids.items()}


@dataclass(frozen=True)
class Outcome:
    """What a scenario came to."""

    figures: report.Figures
    watch: Watch
    marks: dict[str, float] = field(default_factory=dict)  #: name → seconds since the watch began
    breaches: list[str] = field(default_factory=list)


def account(
    running: Stack, receiver: TimingReceiver, webhooks: Sequence[str], produced: dict[str, Any]
) -> tuple[report.Figures, list[str]]:
    """Compare, by id, what must have been delivered once with what arrived and what is recorded as delivered."""
    first, count = produced["first_number"], produced["events"]
    due = {delivery_id(f"evt_{first + n:032x}", webhooks[n % len(webhooks)]) for n in range(count)}
    arrived = receiver.ids(GROUP)
    requests = receiver.counts()[GROUP]
    statement = (
        "SELECT delivery_id, count(*) FROM attempts WHERE state = 'delivered' AND webhook_id = ANY(%s) GROUP BY 1"
    )
    rows: dict[str, int] = dict(running.query(statement, list(webhooks)))  # type: ignore[arg-type]  # pairs
    failed = running.query(
        "SELECT count(*) FROM attempts WHERE state <> 'delivered' AND webhook_id = ANY(%s)", list(webhooks)
    )
    figures = {
        "deliveries": float(count),
        "requests": float(requests),
        "duplicates": float(requests - len(arrived)),
        "not_arrived": float(len(due - arrived)),
        "not_recorded": float(len(due - rows.keys())),
        "unexpected": float(len(arrived - due) + len(rows.keys() - due)),
        "recorded_twice": float(sum(n - 1 for n in rows.values())),
        "failed_attempts": float(failed[0][0]),
    }
    wrong = ("not_arrived", "not_recorded", "unexpected", "recorded_twice")
    return figures, [f"{figures[name]:.0f} {name.replace('_', ' ')}" for name in wrong if figures[name]]


def within_bounds(figures: report.Figures) -> list[str]:
    return [
        f"{name} held {figures[f'{name}.rss_mib.peak']:.0f} MiB, more than {bound:.0f}"
        for name, bound in BOUNDS_MIB.items()
        if figures[f"{name}.rss_mib.peak"] > bound
    ]


def healthy(running: Stack, receiver: TimingReceiver) -> list[str]:
    """An account and a webhook each, all answering 200; their ids, in the order of the accounts."""
    return running.create_webhooks([Hook(name, receiver.url("http", f"/{GROUP}/ok/{name}")) for name in accounts()])


def accounts() -> list[str]:
    return [f"acc_{n}" for n in range(WEBHOOKS)]


def up_to_date(running: Stack, webhooks: Sequence[str], count: int, within_s: float) -> bool:
    """Whether so many deliveries are recorded in time."""
    with suppress(BenchError):
        wait_until(lambda: running.recorded(webhooks) >= count, within_s, "the records", 0.5)
        return True
    return False
