"""The metrics of a running stack under traffic of every kind: what they count, and what Prometheus makes of them."""

import itertools
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import psutil
import pytest
import yaml
from confluent_kafka import Producer
from prometheus_client.parser import text_string_to_metric_families
from up_command import UpCommand
from waiting import eventually

from go2hooks.core.domain.event import Event, EventType
from go2hooks.core.domain.samples import sample_data
from go2hooks.listening.receiver import Received, Receiver
from go2hooks.producer import EventProducer, new_event_id

CHECK = Path(__file__).parents[2] / "deploy" / "check_dashboard.py"
BURST = 4000
NO_PROMETHEUS = "no prometheus on the PATH (Debian: apt-get install prometheus)"


class Traffic:
    """Events of all types to receivers that answer, fail now and then, always fail, and are slow; until `stop`."""

    def __init__(self, endpoints: dict[str, Any]) -> None:
        self._endpoints = endpoints
        self._counts: dict[str, int] = {}
        self._source = random.Random(7)
        self._stop = threading.Event()
        self._receiver = Receiver("127.0.0.1", 0, self._answer)
        self._threads = [threading.Thread(target=target) for target in (self._receiver.serve, self._send)]

    def start(self) -> None:
        for name, events in {
            "all": ["*"],
            "flaky": ["domain.verified"],
            "failing": ["link.created"],
            "slow": ["qr.scanned"],
        }.items():
            url = f"http://127.0.0.1:{self._receiver.port}/{name}"
            self.call("POST", "/webhooks", {"name": name, "url": url, "events": events})
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._threads[1].join(30)
        self._receiver.close()

    def call(self, method: str, path: str, body: Any = None) -> None:
        headers = {"Authorization": f"Bearer {self._endpoints['apiKey']}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        with urlopen(Request(self._endpoints["api"] + path, data, headers, method=method), timeout=10) as response:
            response.read()

    def _answer(self, received: Received) -> int:
        count = self._counts[received.path] = self._counts.get(received.path, 0) + 1
        if received.path == "/slow":
            time.sleep(0.05)
        return 500 if received.path == "/failing" or (received.path == "/flaky" and count % 3 == 0) else 200

    def _send(self) -> None:
        """100 events a second; now and then a burst that overflows the slow webhook's lane, and what is no event."""
        raw = Producer({"bootstrap.servers": self._endpoints["kafka"]})
        with EventProducer(self._endpoints["kafka"]) as producer:
            for number, kind in enumerate(itertools.cycle(EventType)):
                if self._stop.wait(0.01):
                    break
                producer.send(self._event(kind))
                if number % 1000 == 0:
                    for _ in range(BURST):
                        producer.send(self._event(EventType.QR_SCANNED))
                if number % 100 == 0:
                    producer.flush(10)
                    raw.produce("go2.events.click", b"no event")
                    self.call("GET", "/webhooks")
        raw.flush(10)

    def _event(self, kind: EventType) -> Event:
        now_ms = time.time_ns() // 1_000_000
        return Event(new_event_id(), self._endpoints["account"], kind, now_ms, sample_data(kind, self._source))


class Figures:
    """The metrics of a running stack, summed over its processes of a kind."""

    def __init__(self, endpoints: dict[str, Any]) -> None:
        self._urls: dict[str, Any] = endpoints["metrics"]

    def get(self, kind: str, name: str, **labels: str) -> float:
        return sum(
            sample.value
            for text in self.texts(kind)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == f"go2hooks_{name}" and labels.items() <= sample.labels.items()
        )

    def lines(self, kind: str, *words: str) -> str:
        """What there is of these words, for the message of a test that fails."""
        lines = (line for text in self.texts(kind) for line in text.splitlines() if not line.startswith("#"))
        return "\n".join(line for line in lines if any(word in line for word in words) and "_bucket" not in line)

    def texts(self, kind: str) -> list[str]:
        urls = self._urls[kind]
        return [urlopen(url, timeout=10).read().decode() for url in ([urls] if isinstance(urls, str) else urls)]


@pytest.fixture(scope="module")
def endpoints() -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="go2hooks-metrics-", ignore_cleanup_errors=True) as directory:
        settings = {
            "GO2HOOKS_ALLOW_INSECURE_TARGETS": "true",
            "GO2HOOKS_RETRY_DELAYS": "500ms,1s",
            "GO2HOOKS_CIRCUIT_PROBE_MS": "300",
            "GO2HOOKS_STRAY_CHECK_S": "3",
        }
        stack = UpCommand(Path(directory) / "stack", "--dispatchers", "2", **settings)
        try:
            endpoints = stack.endpoints()
            traffic = Traffic(endpoints)
            traffic.start()
            try:
                yield endpoints
            finally:
                traffic.stop()
        finally:
            stack.end()


@pytest.fixture
def figures(endpoints: dict[str, Any]) -> Figures:
    return Figures(endpoints)


@pytest.mark.parametrize(
    ("kind", "name", "labels"),
    [
        *(("router", "events_total", {"event": kind.value}) for kind in EventType),
        ("router", "events_dead_total", {"reason": "undecodable"}),
        ("router", "deliveries_created_total", {}),
        ("dispatcher", "attempts_total", {"outcome": "delivered"}),
        ("dispatcher", "attempts_total", {"outcome": "bad_status"}),
        ("dispatcher", "deliveries_finished_total", {"state": "delivered"}),
        ("dispatcher", "deliveries_finished_total", {"state": "skipped"}),
        ("dispatcher", "retries_total", {"tier": "500ms"}),
        ("dispatcher", "deliveries_overflowed_total", {"why": "busy"}),
        ("dispatcher", "request_duration_seconds_count", {}),
        ("dispatcher", "event_to_delivery_seconds_count", {}),
        ("dispatcher", "deferred_delivery_seconds_count", {}),
        ("dispatcher", "retry_lateness_seconds_count", {}),
        ("dispatcher", "record_batch_seconds_count", {}),
        ("dispatcher", "record_batch_rows_sum", {}),
        ("dispatcher", "webhooks_disabled_total", {}),
        ("dispatcher", "webhooks", {"state": "active"}),
        ("dispatcher", "webhooks", {"state": "disabled"}),
        ("dispatcher", "connections", {"state": "idle"}),
        ("api", "api_requests_total", {"route": "/api/v1/webhooks", "status": "200"}),
    ],
)
def test_it_moves_under_traffic(figures: Figures, kind: str, name: str, labels: dict[str, str]):
    eventually(lambda: figures.get(kind, name, **labels) > 0)


def test_every_attempt_is_counted_once_and_timed(figures: Figures):
    before = figures.get("dispatcher", "attempts_total")
    timed = figures.get("dispatcher", "request_duration_seconds_count")
    after = figures.get("dispatcher", "attempts_total")
    assert before <= timed <= after + 2  # a scrape may come between the two, once in each of two processes


@pytest.mark.parametrize("kind", ["api", "router", "dispatcher"])
def test_no_label_names_a_customer_or_a_secret(endpoints: dict[str, Any], figures: Figures, kind: str):
    for text in figures.texts(kind):
        assert endpoints["apiKey"] not in text
        for trace in ("whsec_", "wh_", "dlv_", "evt_", f'"{endpoints["account"]}"', "127.0.0.1"):
            assert trace not in text


@pytest.mark.parametrize("kind", ["api", "router", "dispatcher"])
@pytest.mark.skipif(shutil.which("promtool") is None, reason=NO_PROMETHEUS)
def test_promtool_finds_nothing_to_say(figures: Figures, kind: str):
    for text in figures.texts(kind):
        done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(("what", "path"), [("config", "prometheus.yml"), ("rules", "rules.yml")])
@pytest.mark.skipif(shutil.which("promtool") is None, reason=NO_PROMETHEUS)
def test_promtool_accepts_the_configuration(what: str, path: str):
    command = ["promtool", "check", what, str(CHECK.parent / "prometheus" / path)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(
    ("counts", "alerts"),
    [
        (("NaN", "NaN"), ["absent(go2hooks_deliveries_orphaned >= 0)"]),
        (("NaN", "0"), []),  # each counts all
        (("NaN", "2"), ["max(go2hooks_deliveries_orphaned) > 0"]),
        (("0", "0"), []),
        ((), ["absent(go2hooks_deliveries_orphaned >= 0)"]),
    ],
)
@pytest.mark.skipif(shutil.which("promtool") is None, reason=NO_PROMETHEUS)
def test_what_the_operators_guide_alerts_on_tells_none_lost_from_none_counted(tmp_path: Path, counts, alerts):
    page = (CHECK.parents[1] / "docs/operators.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| `([^`]*go2hooks_deliveries_orphaned[^`]*)`", page, re.MULTILINE)
    assert set(alerts) < set(documented)
    rules = [{"alert": f"a{number}", "expr": expr} for number, expr in enumerate(documented)]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": rules}]}))
    series = [
        {"series": f'go2hooks_deliveries_orphaned{{process="{number}"}}', "values": " ".join([count] * 5)}
        for number, count in enumerate(counts)
    ]
    fires = [
        {"eval_time": "3m", "alertname": rule["alert"], "exp_alerts": [{}] * (rule["expr"] in alerts)} for rule in rules
    ]
    test = {
        "rule_files": ["rules.yml"],
        "tests": [{"interval": "1m", "input_series": series, "alert_rule_test": fires}],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(test))
    done = subprocess.run(
        ["promtool", "test", "rules", str(tmp_path / "test.yml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("prometheus") is None, reason=NO_PROMETHEUS)
def test_every_query_of_the_dashboard_has_data(endpoints: dict[str, Any], figures: Figures):
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "endpoints.json").write_text(json.dumps(endpoints))
        command = [sys.executable, CHECK, "--data-dir", directory, "--port", "0", "--within", "90"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    words = ("webhooks", "retr", "attempts_total", "overflowed", "lag_")
    assert done.returncode == 0, f"{done.stderr}\n{figures.lines('dispatcher', *words)}"


def test_what_waits_shows_its_age_when_the_records_cannot_be_written(endpoints: dict[str, Any], figures: Figures):
    """Nothing lies ahead in Kafka then: only what is taken up and not recorded tells."""
    postgres = psutil.Process(endpoints["pids"]["postgres"])
    processes = [postgres, *postgres.children(recursive=True)]
    for process in processes:
        process.suspend()
    try:
        eventually(lambda: figures.get("dispatcher", "unfinished_seconds", topic="go2.deliveries") > 3)
        assert figures.get("dispatcher", "dispatcher_queued", place="records") > 0
    finally:
        for process in processes:
            process.resume()
    eventually(lambda: figures.get("dispatcher", "unfinished_seconds", topic="go2.deliveries") < 3)


def test_what_waited_while_the_dispatchers_stood_still_shows_its_age(endpoints: dict[str, Any], figures: Figures):
    dispatchers = [psutil.Process(pid) for pid in endpoints["pids"]["dispatcher"]]
    for process in dispatchers:
        process.suspend()
    try:
        created = figures.get("router", "deliveries_created_total")
        eventually(lambda: figures.get("router", "deliveries_created_total") > created + 300)
    finally:
        for process in dispatchers:
            process.resume()
    ages: list[float] = []

    def seen() -> bool:
        lag = figures.get("dispatcher", "lag_seconds", topic="go2.deliveries")
        ages.append(max(lag, figures.get("dispatcher", "unfinished_seconds", topic="go2.deliveries")))
        return ages[-1] > 1

    eventually(seen, within_s=60)
    eventually(lambda: not seen())
