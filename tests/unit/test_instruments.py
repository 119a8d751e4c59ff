"""The instruments, as Prometheus reads them."""

import re

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import CollectorRegistry

from go2hooks import __version__
from go2hooks.build import BUILD
from go2hooks.telemetry import metrics
from go2hooks.telemetry.instruments import LATENCY_BUCKETS_S, REQUEST_BUCKETS_S, Counter, Gauge, Histogram


def exposed(instrument: Counter | Gauge | Histogram) -> dict[tuple[str, ...], float]:
    """From sample name and label values to value, after a round through the text format."""
    registry = CollectorRegistry()
    registry.register(metrics.Instruments(instrument))
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def test_a_counter_without_labels_is_there_before_it_counts():
    counter = Counter("sent_total", "Sent")
    assert exposed(counter) == {("sent_total",): 0}
    counter.add()
    counter.add(2.5)
    assert exposed(counter) == {("sent_total",): 3.5}


def test_a_counter_shows_known_label_values_at_zero_and_takes_others():
    counter = Counter("sent_total", "Sent", ("why",), ("first", "second"))
    counter.add(1, "second")
    counter.add(1, "third")
    assert exposed(counter) == {("sent_total", "first"): 0, ("sent_total", "second"): 1, ("sent_total", "third"): 1}
    assert [counter.value("second"), counter.value("never")] == [1, 0]


def test_a_gauge_is_set_or_read_at_each_scrape():
    gauge = Gauge("depth", "Depth", ("place",))
    gauge.set(4, "lanes")
    gauge.set(3, "lanes")
    assert exposed(gauge) == {("depth", "lanes"): 3}
    depths = {("due",): 1.0}
    gauge.read_from(lambda: depths)
    assert exposed(gauge) == {("depth", "due"): 1}
    depths["due",] = 2.0
    assert exposed(gauge) == {("depth", "due"): 2}


def test_a_bucket_counts_all_that_is_not_above_its_bound():
    histogram = Histogram("took_seconds", "Took", (0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 1.0, 7.0):
        histogram.observe(value)
    assert exposed(histogram) == {
        ("took_seconds_bucket", "0.1"): 2,
        ("took_seconds_bucket", "1.0"): 4,
        ("took_seconds_bucket", "+Inf"): 5,
        ("took_seconds_count",): 5,
        ("took_seconds_sum",): pytest.approx(8.65),
    }


def test_every_metric_is_exposed_by_a_service():
    made = {m for m in vars(metrics).values() if isinstance(m, Counter | Gauge | Histogram)}
    assert made == {metrics.BUILD_INFO, *metrics._BOTH, *metrics._ROUTER, *metrics._REPLAYER, *metrics._DISPATCHER}


def test_every_service_tells_its_version_and_its_build():
    shown = generate_latest(metrics.service_registry()).decode()
    assert f'go2hooks_build_info{{build="{BUILD.kind}",version="{__version__}"}} 1.0\n' in shown


def test_all_buckets_ascend():
    for bounds in (LATENCY_BUCKETS_S, REQUEST_BUCKETS_S):
        assert list(bounds) == sorted(set(bounds))


@pytest.mark.parametrize("registry", [metrics.router_registry(), metrics.dispatcher_registry()])
def test_no_metric_has_a_label_that_grows_with_customers(registry: CollectorRegistry):
    """A label per webhook, account or URL would make the metrics as large as the database, and leak it."""
    allowed = {
        "event",
        "reason",
        "outcome",
        "state",
        "tier",
        "place",
        "why",
        "topic",
        "le",
        "version",
        "build",
        "libraries",
    }
    for family in registry.collect():
        if family.name.startswith("go2hooks_"):
            assert {label for sample in family.samples for label in sample.labels} <= allowed, family.name


@pytest.mark.parametrize("registry", [metrics.router_registry(), metrics.dispatcher_registry()])
def test_names_say_kind_and_unit(registry: CollectorRegistry):
    for family in registry.collect():
        if family.name.startswith("go2hooks_"):
            assert re.fullmatch("[a-z0-9_]+", family.name)
            assert family.documentation
            assert not family.name.endswith(("_total", "_count", "_sum", "_bucket", "_ms", "_milliseconds"))
            if family.type == "histogram":
                assert family.name.endswith(("_seconds", "_rows"))
