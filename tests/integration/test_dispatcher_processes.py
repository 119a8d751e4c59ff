"""Several dispatcher processes behind one endpoint."""

import base64
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from usable_topics import make_topics
from waiting import eventually

from go2hooks.settings import load_settings


class Dispatchers:
    """`python -m services.dispatcher --processes 2` as a child."""

    def __init__(self, process: subprocess.Popen[bytes], port_file: Path) -> None:
        self.process = process
        self._port_file = port_file

    def get(self, path: str) -> str | None:
        """The body of a 200; None for anything else."""
        try:
            port = json.loads(self._port_file.read_bytes())["port"]
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
                return response.read().decode()
        except (OSError, urllib.error.URLError):
            return None

    def workers(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children()


@pytest.fixture
def dispatchers(kafka_bootstrap: str, database_url: str, tmp_path: Path) -> Iterator[Dispatchers]:
    settings = load_settings(kafka_bootstrap_servers=kafka_bootstrap, topic_replication=1)
    make_topics(settings)
    env = os.environ | {
        "GO2HOOKS_KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap,
        "GO2HOOKS_DATABASE_URL": database_url,
        "GO2HOOKS_SECRET_KEYS": base64.b64encode(bytes(32)).decode(),
        "GO2HOOKS_METRICS_PORT": "0",
        "GO2HOOKS_PORT_FILE": str(tmp_path / "port.json"),
    }
    command = [sys.executable, "-P", "-m", "services.dispatcher", "--processes", "2"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
    running = Dispatchers(process, tmp_path / "port.json")
    try:
        eventually(lambda: running.get("/readyz"), 60)
        yield running
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(40)


def test_one_endpoint_shows_both_processes_and_a_dead_one_comes_back(dispatchers: Dispatchers) -> None:
    """Their metrics are told apart by a label; kill -9 of one is healed; SIGTERM drains all and leaves none behind."""
    metrics = dispatchers.get("/metrics") or ""
    assert 'go2hooks_dispatcher_in_flight{process="0"}' in metrics
    assert 'go2hooks_dispatcher_in_flight{process="1"}' in metrics

    victim, *_ = dispatchers.workers()
    victim.kill()
    eventually(lambda: victim.pid not in {w.pid for w in dispatchers.workers()}, 10)
    eventually(lambda: len(dispatchers.workers()) == 2 and dispatchers.get("/readyz"), 60)

    workers = dispatchers.workers()
    dispatchers.process.terminate()
    assert dispatchers.process.wait(40) == 0
    assert not any(worker.is_running() for worker in workers)


def test_workers_do_not_outlive_a_parent_that_was_killed(dispatchers: Dispatchers) -> None:
    """They notice within a second or so, drain, and go."""
    workers = dispatchers.workers()
    dispatchers.process.send_signal(signal.SIGKILL)
    dispatchers.process.wait(10)
    _gone, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive
