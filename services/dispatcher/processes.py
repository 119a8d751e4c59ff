"""Several dispatcher processes on one machine behind one /metrics, /healthz and /readyz.

A process has one event loop, so one core; the partitions are shared out among processes by Kafka. A process that dies is
started again; one that outlives us (we were killed) notices and drains.
"""

import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import BinaryIO, Final

import structlog
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector, CollectorRegistry

from go2hooks.runtime import PARENT_VARIABLE, Shutdown
from go2hooks.settings import Settings
from go2hooks.telemetry.health import PORT_PIPE, HealthServer, announce_port

log = structlog.get_logger(__name__)

_LOOK_S: Final = 0.2
_SCRAPE_S: Final = 2.0
_BACKOFF_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
_STEADY_S: Final = 30.0  # having lived this long, a process that dies is started again at once


class Worker:
    """One dispatcher process and its successors."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._port: int | None = None
        self._announced: BinaryIO | None = None  # where the process says its port; no file, as nothing may be writable
        self._deaths = 0
        self._started_at = 0.0
        self._start_after = 0.0
        self.process: subprocess.Popen[bytes] | None = None

    def keep_running(self, now: float) -> None:
        """Start it, or start it again once its pause is over. Does not block."""
        if self.process is not None and self.process.poll() is not None:
            self._deaths = 0 if now - self._started_at > _STEADY_S else self._deaths + 1
            self._start_after = now + _BACKOFF_S[min(self._deaths, len(_BACKOFF_S) - 1)]
            log.error("dispatcher process died", number=self.number, status=self.process.returncode)
            self.process = None
        if self.process is None and now >= self._start_after:
            self._start()
            self._started_at = now

    def _start(self) -> None:
        if self._announced is not None:
            self._announced.close()
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        self._announced, self._port = os.fdopen(reading, "rb"), None
        env = os.environ | {
            "GO2HOOKS_METRICS_PORT": "0",
            "GO2HOOKS_METRICS_HOST": "127.0.0.1",
            PORT_PIPE: str(writing),
            PARENT_VARIABLE: str(os.getpid()),
        }
        env.pop("GO2HOOKS_PORT_FILE", None)  # that is ours
        command = [sys.executable, "-P", "-m", "services.dispatcher"]
        try:
            self.process = subprocess.Popen(command, env=env, pass_fds=(writing,))  # noqa: S603  # our own module
        finally:
            os.close(writing)

    def _find_port(self) -> int:
        """Raises OSError while it has not said."""
        if self._port is None:
            said = self._announced.readline() if self._announced is not None else None
            if not said:
                raise ConnectionRefusedError
            self._port = int(said)
        return self._port

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of a GET; status 0 when it does not answer."""
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self._find_port(), timeout=_SCRAPE_S)
            try:
                connection.request("GET", path)
                response = connection.getresponse()
                return response.status, response.read().decode()
            finally:
                connection.close()
        except (OSError, http.client.HTTPException):
            return 0, ""

    def end(self, deadline: float) -> None:
        """Wait for it to have drained; kill it at `deadline` (monotonic)."""
        if self.process is None:
            return
        try:
            self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class WorkersCollector(Collector):
    """Every worker's metrics at each scrape, told apart by the label `process`."""

    def __init__(self, workers: Iterable[Worker]) -> None:
        self._workers = list(workers)

    def collect(self) -> Iterable[Metric]:
        merged: dict[str, Metric] = {}
        for worker in self._workers:
            _status, text = worker.get("/metrics")
            for family in text_string_to_metric_families(text):
                target = merged.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    labels = sample.labels | {"process": str(worker.number)}
                    target.add_sample(sample.name, labels, sample.value)
        yield from merged.values()

    def describe(self) -> Iterable[Metric]:
        """Nothing is known before the workers are: registering must not scrape."""
        return ()


def run_workers(settings: Settings, shutdown: Shutdown, count: int) -> None:
    """Run `count` dispatcher processes until the shutdown; blocks."""
    workers = [Worker(number) for number in range(count)]
    registry = CollectorRegistry()
    registry.register(WorkersCollector(workers))

    def ready() -> dict[str, bool]:
        return {f"process_{worker.number}": worker.get("/readyz")[0] == http.HTTPStatus.OK for worker in workers}

    health = HealthServer(settings.metrics_host, settings.metrics_port, registry, ready)
    health.start()
    announce_port(health.port)
    log.info("dispatchers starting", processes=count, metrics_port=health.port)
    while not shutdown.wait(_LOOK_S):
        for worker in workers:
            worker.keep_running(time.monotonic())
    running = [worker for worker in workers if worker.process is not None]
    for worker in running:
        worker.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]  # just filtered
    deadline = time.monotonic() + shutdown.remaining_s() - 0.5
    for worker in running:
        worker.end(deadline)
    health.close()
    log.info("dispatchers stopped")
