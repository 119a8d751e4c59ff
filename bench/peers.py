"""Producer and receivers as child processes: driven by lines, ended with us."""

import contextlib
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import trustme
from running import BenchError

from go2hooks.devstack.processes import Child, Command, accepts_connections, free_port

_HERE = Path(__file__).parent
_NGINX = """
daemon off; master_process off; worker_processes 1; pid {dir}/pid; error_log stderr crit;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 1000000000; keepalive_timeout 3600; client_body_temp_path {dir}/body;
  proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f; uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  server {{ listen 127.0.0.1:{http} backlog=4096; location / {{ return 200 "ok"; }} location = /status {{ stub_status; }} }}
  server {{ listen 127.0.0.1:{https} ssl backlog=4096; ssl_certificate {dir}/cert.pem; ssl_certificate_key {dir}/cert.pem;
            location / {{ return 200 "ok"; }} }}
}}
"""


class LineChild:
    """A script of ours that answers each line with a line of JSON. It ends when its stdin does."""

    def __init__(self, script: str, *arguments: str, core: int | None = None, nice: int = 0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(_HERE / script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if core is not None:
            os.sched_setaffinity(self._process.pid, {core})
        if nice:
            os.setpriority(os.PRIO_PROCESS, self._process.pid, nice)

    @property
    def pid(self) -> int:
        return self._process.pid

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def hear(self) -> str:
        """Its next line; blocks. Raises BenchError when it has died."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise BenchError(f"{self._process.args!r} died with status {self._process.wait()}")
        return line

    def ask(self, line: str) -> Any:
        self.say(line)
        return json.loads(self.hear())

    def close(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has died already
            self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Producer(LineChild):
    """`load.py` with its orders, ready to go."""

    def __init__(self, bootstrap: str, parts: Sequence[dict[str, Any]], *, nice: int = 0, **orders: float) -> None:
        """`orders`: `linger_ms`; `keep_s`, how long an event waits for a Kafka that is away."""
        super().__init__("load.py", nice=nice)
        self.say(json.dumps({"bootstrap": bootstrap, "parts": list(parts), **orders}))
        self.hear()

    def go(self) -> None:
        self.say("go")

    def result(self) -> dict[str, Any]:
        """How it went; blocks until Kafka has acknowledged all. Raises BenchError when it has not."""
        result: dict[str, Any] = json.loads(self.hear())
        self.close()
        if result["failed"]:
            raise BenchError(f"{result['failed']} events did not reach Kafka")
        return result


def produce(bootstrap: str, parts: Sequence[dict[str, Any]], **orders: float) -> dict[str, Any]:
    """Start a `Producer`, let it go, and wait for its result."""
    producer = Producer(bootstrap, parts, **orders)
    try:
        producer.go()
        return producer.result()
    finally:
        producer.close()


class Receiver(Protocol):
    """What deliveries go to. Counts begin anew with `reset`."""

    pid: int

    def url(self, scheme: str, path: str) -> str: ...

    def reset(self) -> None: ...

    def count(self) -> int:
        """Requests that have arrived since `reset`."""

    def report(self) -> dict[str, Any]:
        """By group: arrivals, times, latencies, as far as this receiver knows them."""


class TimingReceiver:
    """`arrivals.py`: knows groups, behaviours, latencies and delivery ids."""

    kind = "python (uvloop)"

    def __init__(
        self, certificate: Path | None, core: int | None, *, every_address: bool = False, nice: int = 0
    ) -> None:
        arguments = [] if certificate is None else ["--certificate", str(certificate)]
        addresses = ["--every-address"] if every_address else []
        self._child = LineChild("arrivals.py", *arguments, *addresses, core=core, nice=nice)
        self.ports: dict[str, int] = json.loads(self._child.hear())["ports"]
        self.pid = self._child.pid

    def url(self, scheme: str, path: str, host: str = "127.0.0.1") -> str:
        return f"{scheme}://{host}:{self.ports[scheme]}{path}"

    def reset(self) -> None:
        self._child.ask("reset")

    def count(self) -> int:
        return sum(self.counts().values())

    def counts(self) -> dict[str, int]:
        counts: dict[str, int] = self._child.ask("count")
        return counts

    def report(self) -> dict[str, Any]:
        report: dict[str, Any] = self._child.ask("report")
        return report

    def traced(self, group: str) -> list[tuple[int, int]]:
        """When each request of a group arrived, and its latency: microseconds."""
        return [(at, late) for at, late in self._child.ask(f"traced {group}")]

    def ids(self, group: str) -> set[str]:
        """The deliveries that arrived for a group."""
        return set(self._child.ask(f"ids {group}"))

    def close(self) -> None:
        self._child.close()


class Nginx:
    """One nginx process that answers 200; it counts, and knows no more."""

    kind = "nginx"

    def __init__(self, directory: Path, core: int | None) -> None:
        self.ports = {"http": free_port(), "https": free_port()}
        (directory / "nginx.conf").write_text(_NGINX.format(dir=directory, **self.ports))
        command: tuple[str, ...] = (_nginx(), "-p", str(directory), "-c", str(directory / "nginx.conf"))
        if os.geteuid() == 0:
            command += ("-g", "user root;")
        self._child = Child.start(Command(argv=command, log=directory / "nginx.log"))
        self.pid = self._child.pid
        if core is not None:
            os.sched_setaffinity(self.pid, {core})
        deadline = time.monotonic() + 10
        while not accepts_connections(self.ports["https"]):
            if time.monotonic() > deadline:
                raise BenchError(f"nginx does not answer: {self._child.last_lines()}")
            time.sleep(0.05)
        self._status = http.client.HTTPConnection("127.0.0.1", self.ports["http"], timeout=10)
        self._asked = 0
        self.reset()

    def url(self, scheme: str, path: str) -> str:
        return f"{scheme}://127.0.0.1:{self.ports[scheme]}{path}"

    def reset(self) -> None:
        self._base = 0
        self._base = self.count()

    def count(self) -> int:
        self._status.request("GET", "/status")
        found = re.search(r"\d+ \d+ (\d+)", self._status.getresponse().read().decode())
        self._asked += 1
        assert found is not None
        return int(found[1]) - self._asked - self._base

    def report(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        self._status.close()
        self._child.wait_or_kill(0)


def _nginx() -> str:
    """Its path: it lives in sbin, which is not on everybody's PATH."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/bin") or ""


def has_nginx() -> bool:
    return bool(_nginx())


def receiver_core() -> int | None:
    """The last core, kept for the receiver, where there are two or more; the others may use it too when it is idle."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    cores = sorted(os.sched_getaffinity(0))
    return cores[-1] if len(cores) > 1 else None


@contextmanager
def certificates() -> Iterator[Path]:
    """A directory with `ca.pem`, and `cert.pem` (key and chain) for 127.0.0.1 and localhost."""
    with tempfile.TemporaryDirectory(prefix="go2hooks-bench-tls-") as name:
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(Path(name) / "ca.pem"))
        issued = authority.issue_cert("127.0.0.1", "localhost")
        issued.private_key_and_cert_chain_pem.write_to_path(str(Path(name) / "cert.pem"))
        yield Path(name)
