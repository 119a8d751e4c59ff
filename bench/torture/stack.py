"""Every process of the run: Kafka behind a fault proxy, Postgres, receivers, and the services, which are tended: what
dies is started again. All die with us.
"""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final
from urllib.request import urlopen

import psycopg

from bench.torture.plan import DELAYS, DISABLE_AFTER, TIMEOUT_S, Hook, Options
from bench.torture.proxy import FaultProxy, start_loop
from go2hooks.devstack.broker import Broker
from go2hooks.devstack.database import Database
from go2hooks.devstack.processes import Child, Command, free_port
from go2hooks.devstack.quorum import Node, Quorum
from go2hooks.kafka.admin import ensure_topics
from go2hooks.postgres.migrate import migrate
from go2hooks.settings import Settings

_HERE: Final = Path(__file__).parent
_READY_S: Final = 180.0
_RESTART_S: Final = 0.5
_CALL_S: Final = 120.0  # the API may be away, and Postgres with it


class ProxiedBroker(Broker):
    """A broker with a second listener, which tells its clients to come through a proxy."""

    def __init__(self, data_dir: Path, log: Path | None = None) -> None:
        super().__init__(data_dir, jvm_options=("-XX:TieredStopAtLevel=1",), log=log)
        self.proxied_port = free_port()
        self.advertised_port = 0

    def _write_properties(self, quorum: Quorum, node: Node) -> Path:
        path = super()._write_properties(quorum, node)
        lines = dict(line.split("=", 1) for line in path.read_text().splitlines())
        direct, controller = lines["listeners"].split(",")
        lines["listeners"] = f"{direct},PROXIED://127.0.0.1:{self.proxied_port},{controller}"
        lines["advertised.listeners"] = f"{direct},PROXIED://127.0.0.1:{self.advertised_port}"
        lines["listener.security.protocol.map"] = "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT"
        lines["inter.broker.listener.name"] = "PLAINTEXT"
        path.write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
        return path

    def fill_disk(self, left_bytes: int) -> None:
        """Let no file grow beyond the largest log segment and so much more: a write there ends half done, then fails.

        The kernel says "File too large" where a full disk says "No space left on device"; Kafka treats both the same.
        """
        assert self.pid is not None
        largest = max(path.stat().st_size for path in (self._dir / "log").glob("go2.*/*.log"))
        _soft, hard = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (largest + left_bytes, hard))

    def free_disk(self) -> None:
        """What a broker that did not halt meanwhile writes from now on succeeds."""
        assert self.pid is not None
        _soft, hard = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (hard, hard))


class TimedDatabase(Database):
    """A Postgres that remembers when each row was committed."""

    def _prepare(self) -> Command:
        command = super()._prepare()
        return replace(command, argv=(*command.argv, "-c", "track_commit_timestamp=on"))


class Service:
    """One of our services, in `child.py`, under whatever fault comes."""

    def __init__(self, name: str, module: str, directory: Path, env: dict[str, str]) -> None:
        self.name = name
        self.module = module
        self.arm_file = directory / f"{name}.arm"
        self.fired_file = directory / f"{name}.fired"
        self._log = directory / "logs" / f"{name}.log"
        self._port_file = directory / f"{name}.port"
        self._env = env | {
            "GO2HOOKS_PORT_FILE": str(self._port_file),
            "TORTURE_ARM": str(self.arm_file),
            "TORTURE_NAME": name,
            "TORTURE_PULSE": str(directory / "held_up.jsonl"),
        }
        self._lives = directory / "processes.jsonl"
        self._born = 0.0
        self._child: Child | None = None
        self._start_at = 0.0
        self.stopped = False  # by SIGSTOP
        self.wanted = True

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    def start(self, **extra: str) -> None:
        self._port_file.unlink(missing_ok=True)
        self.arm_file.unlink(missing_ok=True)
        argv = (sys.executable, "-P", str(_HERE / "child.py"), self.module)
        self._child = Child.start(Command(argv=argv, log=self._log, env=self._env | extra))
        self._born = time.time()
        self._note_life(self._child)

    def tend(self, now: float) -> None:
        """Start it again when it has died."""
        if self._child is not None and (status := self._child.exit_status()) is not None:
            self._note_life(self._child, time.time(), status)
            self._child = None
            self.stopped = False
            self._start_at = now + _RESTART_S
        if self._child is None and self.wanted and now >= self._start_at:
            self.start()

    def _note_life(self, child: Child, ended: float | None = None, status: int | None = None) -> None:
        with self._lives.open("a") as file:
            file.write(json.dumps([self.name, child.pid, self._born, ended, status]) + "\n")

    def signal(self, number: signal.Signals) -> None:
        if self._child is not None and self._child.exit_status() is None:
            self._child.send(number)
            self.stopped = number == signal.SIGSTOP or (self.stopped and number != signal.SIGCONT)

    def arm(self, point: str, count: int) -> None:
        self.fired_file.unlink(missing_ok=True)
        self.arm_file.write_text(f"{point} {count}")

    def disarm(self) -> None:
        """Whatever it was armed with: it has a moment to hear of it."""
        self.arm_file.write_text("nothing 1")

    def is_ready(self) -> bool:
        try:
            port = json.loads(self._port_file.read_bytes())["port"]
            with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as response:
                return response.status == 200
        except (OSError, ValueError):
            return False

    @property
    def port(self) -> int:
        return json.loads(self._port_file.read_bytes())["port"]

    def end(self, timeout_s: float) -> None:
        self.wanted = False
        if self._child is not None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            self._child.wait_or_kill(timeout_s)


class Receivers:
    """The receivers' process."""

    def __init__(self, directory: Path, hooks: list[Hook], seed: int) -> None:
        plan = directory / "receivers.json"
        plan.write_text(json.dumps({"seed": f"receivers {seed}", "hooks": [hook.as_dict() for hook in hooks]}))
        self._errors = (directory / "logs" / "receivers.log").open("ab")
        argv = [sys.executable, "-P", str(_HERE / "receivers.py"), str(plan), str(directory / "receivers.jsonl")]
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, start_new_session=True
        )
        assert self._process.stdout is not None
        self.ports: list[int] = json.loads(self._process.stdout.readline())

    def heal(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("heal\n")
        self._process.stdin.flush()

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()  # they end by themselves, also when we are killed
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._errors.close()


class Stack:
    """Built, started and ended in the main thread: the kernel ties children to the thread that started them."""

    def __init__(self, directory: Path, options: Options, hooks: list[Hook]) -> None:
        self.directory = directory
        self._options = options
        (directory / "logs").mkdir(parents=True, exist_ok=True)
        for name in ("processes.jsonl", "held_up.jsonl"):  # which are appended to
            (directory / name).unlink(missing_ok=True)
        self.broker = ProxiedBroker(directory / "kafka", directory / "logs" / "kafka.log")
        self.database = TimedDatabase(directory / "postgres", log=directory / "logs" / "postgres.log")
        loop = start_loop()
        self.broker_proxy = FaultProxy(self.broker.proxied_port, loop)
        self.broker.advertised_port = self.broker_proxy.port
        self.receivers = Receivers(directory, hooks, options.seed)
        self.receiver_proxies = {
            hook.number: FaultProxy(self.receivers.ports[hook.number], loop)
            for hook in hooks
            if hook.temper == "proxied"
        }
        self.services: list[Service] = []

    def url_of(self, hook: Hook) -> str:
        proxy = self.receiver_proxies.get(hook.number)
        return f"http://127.0.0.1:{proxy.port if proxy else self.receivers.ports[hook.number]}/hook/{hook.number}"

    def named(self, module: str) -> list[Service]:
        return [service for service in self.services if service.module == f"services.{module}"]

    @contextlib.contextmanager
    def running(self) -> Iterator["Stack"]:
        try:
            self._start()
            yield self
        finally:
            self._end()

    def tend(self) -> None:
        for service in self.services:
            service.tend(time.monotonic())

    def is_back(self, server: Broker | Database) -> bool:
        """Whether a server that was started again serves; one that died of what lingered of it is started once more."""
        if server.exit_status() is not None:
            server.start()
            return False
        return server.is_ready()

    def wait_ready(self, timeout_s: float = _READY_S) -> bool:
        deadline = time.monotonic() + timeout_s
        while not all(service.is_ready() for service in self.services if service.wanted):
            if time.monotonic() > deadline:
                return False
            self.tend()
            time.sleep(0.1)
        return True

    def add_dispatcher(self, name: str, **extra: str) -> Service:
        service = Service(name, "services.dispatcher", self.directory, self._env("proxied") | extra)
        self.services.append(service)
        return service

    def _start(self) -> None:
        self.broker.start()
        self.database.start()
        self.broker.wait_ready()
        self.database.wait_ready()
        self.database.ensure_database()
        migrate(self.database.url())
        ensure_topics(Settings(kafka_bootstrap_servers=self.broker.bootstrap, retry_delays=DELAYS))  # type: ignore[arg-type]  # parsed
        self.services = [Service("api", "services.api", self.directory, self._env("direct"))]
        for n in range(self._options.routers):
            self.services.append(Service(f"router-{n}", "services.router", self.directory, self._env("direct")))
        for n in range(self._options.dispatchers):
            self.add_dispatcher(f"dispatcher-{n}")
        for service in self.services:
            service.start()
        if not self.wait_ready():
            raise RuntimeError(f"the stack did not become ready; see {self.directory}/logs")

    def _env(self, way: str) -> dict[str, str]:
        kafka = self.broker.bootstrap if way == "direct" else f"127.0.0.1:{self.broker_proxy.port}"
        clean = {key: "" for key in os.environ if key.startswith("GO2HOOKS_")}
        return clean | {
            "GO2HOOKS_BUILD": "plain",  # faults are patched in, which compiled modules refuse
            "GO2HOOKS_KAFKA_BOOTSTRAP_SERVERS": kafka,
            "GO2HOOKS_DATABASE_URL": self.database.url(),
            "GO2HOOKS_SECRET_KEYS": "dG9ydHVyZSB0b3J0dXJlIHRvcnR1cmUgdG9ydHVyZSE=",
            "GO2HOOKS_ALLOW_INSECURE_TARGETS": "true",
            "GO2HOOKS_RETRY_DELAYS": DELAYS,
            "GO2HOOKS_DELIVERY_TIMEOUT_S": str(TIMEOUT_S),
            "GO2HOOKS_REVOKE_TIMEOUT_S": str(TIMEOUT_S + 2),
            "GO2HOOKS_DRAIN_TIMEOUT_S": "10",
            # All receivers are one small process: what works off a backlog must not be more than that can answer in time.
            "GO2HOOKS_MAX_SENDS": "200",
            "GO2HOOKS_WINDOW_DELIVERIES": "1000",
            "GO2HOOKS_DISABLE_AFTER_FAILURES": str(DISABLE_AFTER),
            "GO2HOOKS_CIRCUIT_PROBE_MS": "200",
            "GO2HOOKS_METRICS_PORT": "0",
            "GO2HOOKS_API_PORT": "0",
            "GO2HOOKS_LOG_FORMAT": "text",
            "TORTURE_PLANT": self._options.plant or "",
        }

    def _end(self) -> None:
        for service in self.services:
            service.end(0.0 if service.stopped else 12.0)
        self.receivers.end()
        self.database.stop()
        self.broker.stop()


def api(stack: Stack, key: str, method: str, path: str, body: object = None) -> dict[str, object]:
    """One call to the control API, repeated until it answers: the API is among those that are killed."""
    from http.client import HTTPConnection, HTTPException

    deadline = time.monotonic() + _CALL_S
    while True:
        try:
            connection = HTTPConnection("127.0.0.1", stack.named("api")[0].port, timeout=10)
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            connection.request(method, f"/api/v1{path}", None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            content = json.loads(answer.read())
            if answer.status < 300:
                return content["data"]
            raise RuntimeError(f"{method} {path}: {answer.status} {content}")  # noqa: TRY301  # tried again below
        except (OSError, HTTPException, ValueError, RuntimeError):
            if time.monotonic() > deadline:
                raise
            stack.tend()
            time.sleep(0.2)


def connect(stack: Stack) -> "psycopg.Connection[tuple[object, ...]]":
    return psycopg.connect(stack.database.url(), autocommit=True, connect_timeout=10)
