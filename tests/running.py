"""The whole stack, each part a process that a test may kill: Kafka, Postgres, API, router, dispatchers. For acceptance and the browser."""

import http.client
import json
import os
import re
import secrets
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psycopg
from usable_topics import make_topics
from waiting import eventually

from go2hooks.core.domain.event import Event
from go2hooks.core.domain.samples import example_payload
from go2hooks.devstack.broker import Broker
from go2hooks.devstack.data_dir import DataDir
from go2hooks.devstack.database import Database
from go2hooks.devstack.service import ServiceProcess
from go2hooks.postgres.api_keys import create_key
from go2hooks.postgres.migrate import migrate
from go2hooks.producer import EventProducer, new_event_id
from go2hooks.settings import Settings

DELAYS = "300ms,400ms,500ms,600ms,700ms"
DELAYS_S = (0.3, 0.4, 0.5, 0.6, 0.7)
TIMEOUT_S = 3.0  # a busy machine's receiver answers within it
IN_FORCE_S = (
    2.0  # by then every change of a webhook is in force everywhere: the contract's 1 s, twice for a busy machine
)


def assert_not_early(failed: float, again: float, delay_s: float) -> None:
    """An attempt at `again` came its delay after the failure; both in seconds since the epoch.

    Exact, since the dispatcher reads its clock likewise: in whole milliseconds, cut off.
    """
    assert int(again * 1000) >= int(failed * 1000) + round(delay_s * 1000), (failed, again, delay_s)


@dataclass(frozen=True)
class Answer:
    """What the API said."""

    status: int
    body: Any

    @property
    def data(self) -> Any:
        assert self.body["success"], self.body
        return self.body["data"]


@dataclass
class Account:
    """An account of one test's own, with its key."""

    stack: "Stack"
    id: str
    key: str

    def call(self, method: str, path: str, body: Any = None) -> Answer:
        assert self.stack.api.port is not None
        connection = http.client.HTTPConnection("127.0.0.1", self.stack.api.port, timeout=30)
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        try:
            connection.request(method, f"/api/v1{path}", None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return Answer(answer.status, json.loads(answer.read()))
        finally:
            connection.close()

    def subscribe(self, url: str, *events: str) -> dict[str, Any]:
        """Create a webhook, and wait until the router knows it."""
        webhook = self.call("POST", "/webhooks", {"name": "A test's", "url": url, "events": events or ["click"]}).data
        self.stack.wait_routed()
        return webhook

    def webhook(self, webhook: dict[str, Any]) -> dict[str, Any]:
        return self.call("GET", f"/webhooks/{webhook['id']}").data

    def change(self, webhook: dict[str, Any], **changes: Any) -> dict[str, Any]:
        return self.call("PATCH", f"/webhooks/{webhook['id']}", changes).data

    def history(self, webhook: dict[str, Any]) -> list[dict[str, Any]]:
        """Every delivery of the webhook, newest first."""
        found: list[dict[str, Any]] = []
        cursor = ""
        while True:
            page = self.call("GET", f"/webhooks/{webhook['id']}/deliveries?perPage=100{cursor}")
            found += page.data
            if not page.body["meta"]["hasMore"]:
                return found
            cursor = f"&cursor={page.body['meta']['nextCursor']}"

    def wait_history(self, webhook: dict[str, Any], *statuses: str) -> list[dict[str, Any]]:
        """The history, once these are its statuses, newest first."""

        def check() -> list[dict[str, Any]]:
            nonlocal found
            found = self.history(webhook)
            return found if tuple(each["status"] for each in found) == statuses else []

        found: list[dict[str, Any]] = []
        try:
            return eventually(check, every_s=0.05)
        except AssertionError:
            raise AssertionError(f"wanted {statuses}, got {json.dumps(found, indent=1)}") from None

    def emit(self, event_type: str = "click", **changes: Any) -> Event:
        """Put one event into Kafka; returns it once Kafka has it."""
        event = self.event(event_type, **changes)
        self.stack.producer.send(event)
        assert self.stack.producer.flush(30) == 0
        return event

    def emit_many(self, number: int) -> list[str]:
        """Queue clicks without waiting; returns their ids."""
        events = [self.event() for _ in range(number)]
        for event in events:
            self.stack.producer.send(event)
        return [event.id for event in events]

    def event(self, event_type: str = "click", **changes: Any) -> Event:
        data = example_payload(event_type).data | changes
        return Event(new_event_id(), self.id, event_type, time.time_ns() // 1_000_000, data)


class Stack:
    """Built once, shared by all tests that ask for it; each uses an account of its own. `mend` before each test."""

    def __init__(self, directory: Path, **env: str) -> None:
        """`env` changes settings of all services."""
        self._env = env
        self.dir = DataDir.open(directory)
        # Servers of its own, embedded even where Docker answers: tests stop them, and start them at the same address.
        self.broker = Broker(directory / "kafka")
        self.database = Database(directory / "postgres")  # durable: what it has confirmed outlives its own death, too
        self.producer: EventProducer

    def start(self) -> None:
        for server in (self.database, self.broker):
            server.start()
        for server in (self.database, self.broker):
            server.wait_ready()
        self.database.ensure_database()
        migrate(self.database.url())
        settings = Settings(kafka_bootstrap_servers=self.broker.bootstrap, retry_delays=DELAYS)
        make_topics(settings)
        self.producer = EventProducer(self.broker.bootstrap)
        self.env = {
            "GO2HOOKS_KAFKA_BOOTSTRAP_SERVERS": self.broker.bootstrap,
            "GO2HOOKS_DATABASE_URL": self.database.url(),
            "GO2HOOKS_SECRET_KEYS": self.dir.secret_key(),
            "GO2HOOKS_ALLOW_INSECURE_TARGETS": "true",
            "GO2HOOKS_RETRY_DELAYS": DELAYS,
            "GO2HOOKS_DELIVERY_TIMEOUT_S": str(TIMEOUT_S),
            "GO2HOOKS_CIRCUIT_PROBE_MS": "200",
            "GO2HOOKS_SECRET_OVERLAP_S": "4",
            "GO2HOOKS_LOG_FORMAT": "text",
            "GO2HOOKS_METRICS_PORT": "0",
            "GO2HOOKS_API_PORT": "0",
            **self._env,
        }
        self.api, self.router = self.service("api"), self.service("router")
        self.dispatcher = self.service("dispatcher")
        self.mend()

    def service(self, kind: str, suffix: str = "", **env: str) -> ServiceProcess:
        """One more of a kind, not started. `env` changes its settings."""
        return ServiceProcess(f"{kind}{suffix}", f"services.{kind}", self.dir, self.env | env, drain_timeout_s=25.0)

    def mend(self) -> None:
        """Start again what a test has left dead."""
        for server in (self.database, self.broker, self.api, self.router, self.dispatcher):
            if server.pid is None or server.exit_status() is not None:
                server.start()
        for server in (self.database, self.broker, self.api, self.router, self.dispatcher):
            server.wait_ready()

    def stop(self) -> None:
        services = (self.api, self.router, self.dispatcher)
        for service in services:
            service.ask_to_stop()
        for service in services:
            service.wait_stopped(30)
        self.producer.close()
        self.broker.stop()
        self.database.stop()
        self.dir.close()

    def account(self, name: str | None = None) -> Account:
        name = name or f"acc_{secrets.token_hex(6)}"
        with psycopg.connect(self.database.url()) as connection:
            return Account(self, name, create_key(connection, name).key)

    def query(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database.url(), autocommit=True) as connection:
            return connection.execute(statement, values).fetchall()

    def wait_routed(self) -> None:
        """Until the router's replica has every webhook that there is."""
        statement = "SELECT count(*) FROM webhooks WHERE deleted_at IS NULL"
        eventually(lambda: metric(self.router, 'go2hooks_webhooks{state="routed"}') == self.query(statement)[0][0])


def metric(service: ServiceProcess, series: str) -> float:
    """The present value of one series."""
    with urlopen(f"{service.url}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def kill(service: ServiceProcess) -> None:
    """`kill -9`, and wait until it is dead."""
    assert service.pid is not None
    os.kill(service.pid, signal.SIGKILL)
    service.wait_stopped(10)
