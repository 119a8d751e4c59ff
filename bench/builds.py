"""What a delivery costs as `go2hooks up` runs everything, compiled and plain, beside a bare `aiohttp.ClientSession` loop.

Two stacks are up all the time, one of each build; in each round either delivers clicks to one webhook at full speed while the
other waits, and the loop signs and posts as many requests to the same receiver. Counted is the processor time of Kafka, Postgres,
all services and `go2hooks up` itself, until the last record is written; rates drift with the machine, this hardly does.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import ceilings
import psycopg
import report
from peers import Nginx, Receiver, TimingReceiver, certificates, has_nginx, produce, receiver_core
from running import BenchError, bounded, script, wait_until
from usage import Meter, machine

from go2hooks.build import VARIABLE
from go2hooks.demo.control import Control

_GO2HOOKS = Path(sys.executable).with_name("go2hooks")
_LOOP = "ClientSession loop"
_LOOP_CONNECTIONS = 16
_READY_S = 180.0
_QUIET_S = 60.0  # for all deliveries of a round
_STOP_S = 60.0


class UpCommand:
    """A `go2hooks up` with one webhook, in a directory of its own."""

    def __init__(self, build: str, directory: Path) -> None:
        self.build = build
        self._log = directory / "up.log"
        env = os.environ | {VARIABLE: build, "GO2HOOKS_ALLOW_INSECURE_TARGETS": "true"}
        with self._log.open("wb") as log:
            command = [_GO2HOOKS, "up", "--data-dir", directory / "data"]
            self._process = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        self._endpoints = directory / "data" / "endpoints.json"

    def wait_ready(self, receiver: Receiver) -> None:
        """Raises BenchError when it does not come up."""
        wait_until(self._is_ready, _READY_S, f"a ready stack; {self._log.read_text()}", 0.1)
        self._found: dict[str, Any] = json.loads(self._endpoints.read_bytes())
        url = receiver.url("http", f"/{self.build}/ok/0")
        Control(self._found["api"], self._found["apiKey"]).create("bench", url, ["click"])

    def deliver(self, receiver: Receiver, count: int) -> report.Figures:
        """Produce clicks, wait for all arrivals and records. Raises BenchError when one is missing or doubled."""
        before = self._recorded()
        pids = {name: group if isinstance(group, list) else [group] for name, group in self._found["pids"].items()}
        meter = Meter(pids | {"all": [self._process.pid]})
        receiver.reset()
        meter.start()
        began = time.monotonic()
        produce(self._found["kafka"], [{"accounts": [self._found["account"]], "count": count}], linger_ms=5)
        wait_until(lambda: receiver.count() >= count, _QUIET_S, f"{count} arrivals")
        seconds = time.monotonic() - began
        wait_until(lambda: self._recorded() - before >= count, _QUIET_S, f"{count} records", 0.1)
        used = meter.used()
        if (arrived := receiver.count()) != count:
            raise BenchError(f"expected {count} deliveries, {arrived} arrived")
        per_10k = {f"cpu_s_per_10k.{name}": s / count * 1e4 for name, s in used.items()}
        return per_10k | {"per_s": count / seconds}

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _is_ready(self) -> bool:
        if self._process.poll() is not None:
            raise BenchError(f"go2hooks up ended: {self._log.read_text()}")
        return self._endpoints.exists()

    def _recorded(self) -> int:
        with psycopg.connect(self._found["postgres"]) as connection:
            row = connection.execute("SELECT count(*) FROM attempts WHERE state = 'delivered'").fetchone()
        assert row is not None
        count: int = row[0]
        return count


@contextmanager
def stacks(builds: list[str], receiver: Receiver) -> Iterator[list[UpCommand]]:
    """One of each build, all ready; gone with all that they started at the end of the block."""
    with ExitStack() as opened:
        directory = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="go2hooks-bench-")))
        started = []
        for build in builds:
            (directory / build).mkdir()
            started.append(UpCommand(build, directory / build))
            opened.callback(started[-1].stop)
        for stack in started:
            stack.wait_ready(receiver)
        yield started


def loop(receiver: Receiver, ca: Path, count: int) -> report.Figures:
    """The same requests from a bare loop."""
    done = ceilings.session_loop(receiver.url("http", "/loop/ok/0"), ca, _LOOP_CONNECTIONS, count)
    return {"cpu_s_per_10k.all": done["cpu_us"] / 100, "per_s": done["per_s"]}


def measure(receiver: Receiver, ca: Path, options: argparse.Namespace) -> list[dict[str, report.Figures]]:
    rounds = []
    with stacks(options.builds.split(","), receiver) as started:
        for stack in started:
            stack.deliver(receiver, options.warm_up)
        for number in range(1, options.repeat + 1):
            round_ = {_LOOP: loop(receiver, ca, options.count)}
            for stack in started:
                round_[stack.build] = stack.deliver(receiver, options.count)
            for figures in round_.values():
                figures["to_loop"] = figures["cpu_s_per_10k.all"] / round_[_LOOP]["cpu_s_per_10k.all"]
            shown = (f"{name} {figures['cpu_s_per_10k.all']:.2f}" for name, figures in round_.items())
            report.console.print(f"round {number}/{options.repeat}, CPU-s per 10,000: {', '.join(shown)}")
            rounds.append(round_)
    return rounds


def present(rounds: list[dict[str, report.Figures]], options: argparse.Namespace) -> None:
    parts = ("all", "router", "dispatcher", "kafka", "postgres", "api")
    columns = {"to_loop": "CPU / loop's", "per_s": "deliveries/s"} | {f"cpu_s_per_10k.{name}": name for name in parts}
    report.table("CPU-seconds per 10,000 deliveries: medians (lowest-highest)", report.summarise(rounds), columns)
    path = report.write("builds", vars(options), rounds, options.out)
    report.console.print(f"load after {machine()['load']}; written: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--builds", default="compiled,plain", help="of GO2HOOKS_BUILD, comma separated")
    parser.add_argument("--count", type=int, default=40_000, help="deliveries of a round, by each")
    parser.add_argument("--warm-up", type=int, default=20_000, help="deliveries before the first round, by each")
    parser.add_argument("--repeat", type=int, default=3, help="rounds; medians are shown")
    parser.add_argument("--time-limit", type=float, default=900.0, help="seconds after which everything is ended")
    parser.add_argument("--out", type=Path, default=report.RESULTS)
    options = parser.parse_args()
    report.say_machine()
    core = receiver_core()
    with bounded(options.time_limit), certificates() as directory:
        receiver = Nginx(directory, core) if has_nginx() else TimingReceiver(None, core)
        try:
            rounds = measure(receiver, directory / "ca.pem", options)
        finally:
            receiver.close()
    present(rounds, options)


if __name__ == "__main__":
    script(main)
