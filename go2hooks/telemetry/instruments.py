"""Counters, gauges and histograms for hot paths, exposed through prometheus-client.

prometheus-client's own take a lock and walk the buckets at every observation: several microseconds per delivery, where
a whole delivery costs some fifty. These have one writer (a loop thread), so they need no lock; a scrape may see a
histogram's sum one observation ahead of its count. They are no collectors themselves, which a compiled class cannot
be: `metrics.Instruments` makes them known to a registry.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

Labels = tuple[str, ...]
LATENCY_BUCKETS_S: Final[tuple[float, ...]] = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    300.0,
)
#: Close together around an attempt's timeout (10 s by default), so that a quantile tells 10 s from 30 s.
REQUEST_BUCKETS_S: Final[tuple[float, ...]] = (
    *(b for b in LATENCY_BUCKETS_S if b < 10.0),  # noqa: PLR2004
    7.5,
    9.5,
    10.5,
    15.0,
    30.0,
    60.0,
)
#: Deferred deliveries may wait for as long as their receiver is down.
DEFERRED_BUCKETS_S: Final[tuple[float, ...]] = (*LATENCY_BUCKETS_S, 1800.0, 7200.0, 43200.0)
ROWS_BUCKETS: Final[tuple[float, ...]] = (1, 5, 10, 50, 100, 500, 1000, 2000)


class Counter:
    """Only grows. `name` ends in `_total`; it has one label or none.

    The known values of its label are there from the start, at 0: a series that begins at 1 hides its
    first event from `rate()`.
    """

    def __init__(self, name: str, documentation: str, labels: Labels = (), known: Iterable[str] = ()) -> None:
        self._name, self._documentation, self._labels = name, documentation, labels
        self._values: dict[str, float] = {str(value): 0 for value in known} if labels else {"": 0}

    def add(self, amount: float = 1, label: str = "") -> None:
        self._values[label] = self._values.get(label, 0) + amount

    def value(self, label: str = "") -> float:
        return self._values.get(label, 0)

    def collect(self) -> Iterable[Metric]:
        family = CounterMetricFamily(self._name, self._documentation, labels=self._labels)
        for label, value in list(self._values.items()):
            family.add_metric((label,) if self._labels else (), value)
        yield family


class Gauge:
    """Goes up and down: set, or read from a function at each scrape."""

    def __init__(self, name: str, documentation: str, labels: Labels = ()) -> None:
        self._name, self._documentation, self._labels = name, documentation, labels
        self._values: dict[Labels, float] = {}
        self._read: Callable[[], dict[Labels, float]] | None = None

    def set(self, value: float, *labels: str) -> None:
        self._values[labels] = value

    def read_from(self, read: Callable[[], dict[Labels, float]]) -> None:
        """At each scrape, take the values from `read`: label values → value."""
        self._read = read

    def values(self) -> dict[Labels, float]:
        return self._read() if self._read else dict(self._values)

    def collect(self) -> Iterable[Metric]:
        family = GaugeMetricFamily(self._name, self._documentation, labels=self._labels)
        for labels, value in self.values().items():
            family.add_metric(labels, value)
        yield family


class Histogram:
    """Distribution over fixed buckets (upper bounds, ascending). Seconds unless the name says otherwise."""

    def __init__(self, name: str, documentation: str, buckets: Sequence[float] = LATENCY_BUCKETS_S) -> None:
        self._name, self._documentation = name, documentation
        self._bounds = tuple(buckets)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def collect(self) -> Iterable[Metric]:
        cumulative, buckets = 0, []
        for bound, count in zip((*map(str, self._bounds), "+Inf"), list(self._counts), strict=True):
            cumulative += count
            buckets.append((bound, cumulative))
        family = HistogramMetricFamily(self._name, self._documentation)
        family.add_metric([], buckets, self._sum)
        yield family
