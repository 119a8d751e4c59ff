"""The real stack under measurement: Kafka, Postgres, router and dispatchers as `go2hooks up` runs them."""

import base64
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn
from urllib.request import urlopen

import psycopg

from go2hooks.core.security.signing import generate_secret
from go2hooks.devstack.broker import Broker
from go2hooks.devstack.data_dir import DataDir
from go2hooks.devstack.database import Database
from go2hooks.devstack.errors import StackError
from go2hooks.devstack.service import ServiceProcess
from go2hooks.kafka.admin import ensure_topics
from go2hooks.postgres.migrate import migrate
from go2hooks.postgres.secrets import SecretBox
from go2hooks.settings import load_settings, parse_duration_s

_DELAYS = "5s,30s,2m,10m,1h"


class BenchError(Exception):
    """A measurement that did not come about."""


def script(main: Callable[[], int | None]) -> NoReturn:
    """Run it and exit. What keeps it from measuring is told in a line, not by a traceback."""
    try:
        sys.exit(main())
    except (BenchError, StackError) as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


@dataclass(frozen=True)
class Hook:
    """A webhook to create."""

    account: str
    url: str
    events: tuple[str, ...] = ("click",)


def wait_until(check: Callable[[], bool], within_s: float, what: str, every_s: float = 0.02) -> None:
    """Raises BenchError when `check` is not true in time."""
    deadline = time.monotonic() + within_s
    while not check():
        if time.monotonic() > deadline:
            raise BenchError(f"{what}: not within {within_s:g} s")
        time.sleep(every_s)


class Stack:
    """Started by `stack()`. Services are started by `run_services`, again for each change of their number or settings."""

    def __init__(self, directory: Path, partitions: int, env: dict[str, str]) -> None:
        self.dir = DataDir.open(directory)
        self.broker = Broker(directory / "kafka")
        self.database = Database(directory / "postgres")
        self.partitions = partitions
        self._env = env
        self._running: dict[str, list[ServiceProcess]] = {"router": [], "replayer": [], "dispatcher": []}
        self._started_with: tuple[Any, ...] = ()

    def start(self) -> None:
        for server in (self.database, self.broker):
            server.start()
        for server in (self.database, self.broker):
            server.wait_ready()
        self.database.ensure_database()
        migrate(self.database.url())
        delays = self._env.get("GO2HOOKS_RETRY_DELAYS", _DELAYS)
        ensure_topics(
            load_settings(
                kafka_bootstrap_servers=self.broker.bootstrap,
                topic_partitions=self.partitions,
                retry_delays=tuple(parse_duration_s(delay) for delay in delays.split(",")),
            )
        )

    def stop(self) -> None:
        self.stop_services()
        self.broker.wait_stopped(0)  # what it holds is thrown away with the directory
        self.database.wait_stopped(0)
        self.dir.close()

    # --- services

    def run_services(self, *, routers: int = 1, replayers: int = 0, dispatchers: int = 1, **env: str) -> None:
        """As many of each, with these settings, ready; those that run so already stay."""
        wanted = (routers, replayers, dispatchers, tuple(sorted(env.items())))
        if wanted == self._started_with and all(s.exit_status() is None for s in self.services()):
            return
        self.stop_services()
        for kind, count in (("router", routers), ("replayer", replayers), ("dispatcher", dispatchers)):
            self._running[kind] = [self._service(kind, number, env) for number in range(count)]
            for service in self._running[kind]:
                service.start()
        for service in self.services():
            service.wait_ready()
        self._started_with = wanted

    @contextmanager
    def api(self, **env: str) -> Iterator[str]:
        """An API of these settings inside the block; its URL, without a path."""
        service = self._service("api", 0, env)
        service.start()
        try:
            service.wait_ready()
            yield service.url
        finally:
            service.stop()

    def stop_services(self, kind: str | None = None) -> None:
        """All of them, or those of one kind."""
        stopping = self.services() if kind is None else self._running[kind]
        for service in stopping:
            service.ask_to_stop()
        for service in stopping:
            service.wait_stopped(30)
        for name in self._running:
            if kind in {None, name}:
                self._running[name] = []
        self._started_with = ()

    def kill(self, kind: str) -> None:
        """Kill those of one kind, and start them again."""
        for service in self._running[kind]:
            service.wait_stopped(0)
            service.start()
        for service in self._running[kind]:
            service.wait_ready()

    def services(self) -> list[ServiceProcess]:
        return [service for group in self._running.values() for service in group]

    def _service(self, kind: str, number: int, env: dict[str, str]) -> ServiceProcess:
        settings = {
            "GO2HOOKS_KAFKA_BOOTSTRAP_SERVERS": self.broker.bootstrap,
            "GO2HOOKS_DATABASE_URL": self.database.url(),
            "GO2HOOKS_SECRET_KEYS": self.dir.secret_key(),
            "GO2HOOKS_ALLOW_INSECURE_TARGETS": "true",
            "GO2HOOKS_METRICS_PORT": "0",
            "GO2HOOKS_RETRY_DELAYS": _DELAYS,
            **self._env,
            **env,
        }
        module = "router.replay" if kind == "replayer" else kind
        return ServiceProcess(f"{kind}-{number}", f"services.{module}", self.dir, settings, drain_timeout_s=25.0)

    def pids(self) -> dict[str, list[int]]:
        """Process ids by name of part, without producer and receiver."""
        services = {kind: [s.pid for s in group if s.pid is not None] for kind, group in self._running.items()}
        assert self.broker.pid is not None
        assert self.database.pid is not None
        return services | {"kafka": [self.broker.pid], "postgres": [self.database.pid]}

    def metric(self, kind: str, series: str) -> float:
        """The present value of one series, summed over the services of a kind."""
        total = 0.0
        for service in self._running[kind]:
            with urlopen(f"{service.url}/metrics", timeout=10) as answer:
                found = re.search(rf"^{re.escape(series)} (\S+)$", answer.read().decode(), re.MULTILINE)
            total += float(found[1]) if found else 0.0
        return total

    # --- Postgres

    def create_webhooks(self, hooks: Sequence[Hook]) -> list[str]:
        """Replace all webhooks by these, and wait until the router has them; their ids."""
        box = SecretBox((base64.b64decode(self.dir.secret_key()),))
        run = os.urandom(4).hex()
        ids = [f"wh_{run}{n:08x}" for n in range(len(hooks))]
        with psycopg.connect(self.database.url()) as connection, connection.cursor() as cursor:
            cursor.execute("UPDATE webhooks SET deleted_at = now() WHERE deleted_at IS NULL")
            accounts = [(account,) for account in sorted({hook.account for hook in hooks})]
            cursor.executemany("INSERT INTO accounts (id) VALUES (%s) ON CONFLICT DO NOTHING", accounts)
            with cursor.copy("COPY webhooks (id, account_id, name, url, events, sealed_secret) FROM STDIN") as copy:
                for webhook_id, hook in zip(ids, hooks, strict=True):
                    sealed = box.seal(generate_secret(os.urandom(32)), webhook_id)
                    copy.write_row((webhook_id, hook.account, "bench", hook.url, list(hook.events), sealed))
        if self._running["router"]:
            series = 'go2hooks_webhooks{state="routed"}'
            wait_until(lambda: self.metric("router", series) == len(ids) * len(self._running["router"]), 60, "webhooks")
        return ids

    def query(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database.url(), autocommit=True) as connection:
            return connection.execute(statement, values).fetchall()

    def recorded(self, webhook_ids: Sequence[str], state: str = "delivered") -> int:
        statement = "SELECT count(*) FROM attempts WHERE webhook_id = ANY(%s) AND state = %s"
        count: int = self.query(statement, list(webhook_ids), state)[0][0]
        return count

    def complaints(self) -> list[str]:
        """What services logged as an error, at most three lines."""
        lines = [
            line
            for service in self.services()
            for line in self.dir.log(service.name).read_text(errors="replace").splitlines()
            if '"level": "error"' in line or '"level":"error"' in line
        ]
        return lines[:3]


@contextmanager
def stack(*, partitions: int = 8, keep: Path | None = None, **env: str) -> Iterator[Stack]:
    """A stack in a directory of its own, gone with all that it started at the end of the block."""
    directory = keep or Path(tempfile.mkdtemp(prefix="go2hooks-bench-"))
    running = Stack(directory, partitions, env)
    try:
        running.start()
        yield running
    finally:
        running.stop()
        if keep is None:
            shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def bounded(limit_s: float) -> Iterator[None]:
    """End the block with BenchError after `limit_s`, and with KeyboardInterrupt on SIGTERM: so children are ended too."""

    def expired(_number: int, _frame: FrameType | None) -> None:
        raise BenchError(f"the benchmark took longer than {limit_s:g} s (--time-limit)")

    def interrupted(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, expired)
    signal.signal(signal.SIGTERM, interrupted)
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
