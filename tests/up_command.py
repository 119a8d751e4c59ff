"""`go2hooks up` as its users run it: a process with a data directory of its own."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import psutil
from environment import clean_environment

GO2HOOKS = Path(sys.executable).with_name("go2hooks")
READY_S = 300


class UpCommand:
    """A `go2hooks up` of the test's own, started at once."""

    def __init__(
        self, data_dir: Path, *arguments: str, program: Path = GO2HOOKS, prefix: Sequence[str] = (), **env: str
    ) -> None:
        """`prefix` is put before the command."""
        self.dir = data_dir
        command = [*prefix, program, "up", "--data-dir", data_dir, *arguments]
        self.log = data_dir.with_suffix(".log")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, env=clean_environment() | env, stdout=log, stderr=log, start_new_session=True
            )

    def endpoints(self, accept: Callable[[dict[str, Any]], bool] = lambda _: True) -> dict[str, Any]:
        """Wait until endpoints.json is there and acceptable."""
        path, deadline = self.dir / "endpoints.json", time.monotonic() + READY_S
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            if path.exists() and accept(endpoints := json.loads(path.read_bytes())):
                return endpoints
            time.sleep(0.05)
        raise AssertionError(self.log.read_text())

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


def children(endpoints: dict[str, Any]) -> list[psutil.Process]:
    """Every process that the endpoints name."""
    pids = [pid for found in endpoints["pids"].values() for pid in (found if isinstance(found, list) else [found])]
    return [psutil.Process(pid) for pid in pids if pid is not None]


def wait_gone(processes: list[psutil.Process], timeout_s: float = 10) -> list[psutil.Process]:
    """Those that still run after `timeout_s`; what init has not yet reaped has ended."""
    deadline = time.monotonic() + timeout_s
    while left := [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]:
        if time.monotonic() > deadline:
            return left
        time.sleep(0.05)
    return []


def call_api(endpoints: dict[str, Any], path: str, body: Any = None, key: str | None = None) -> Any:
    """What the API answers to a GET, or to a POST of `body`; by the stack's own key unless another is named."""
    headers = {"Authorization": f"Bearer {key or endpoints['apiKey']}", "Content-Type": "application/json"}
    content = None if body is None else json.dumps(body).encode()
    with urlopen(Request(f"{endpoints['api']}{path}", content, headers), timeout=10) as response:
        return json.load(response)
