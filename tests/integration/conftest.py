"""The API on a real database, called as its users call it; and what stands in for Kafka where Kafka is not the point."""

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psycopg
import pytest
import trustme
from browsing import acme_browser, browser, key  # noqa: F401  # fixtures of the dashboard's tests
from calling import Caller, Described
from environment import clean_environment
from flask import Flask
from pydantic import SecretStr

from go2hooks.core.domain.delivery import Delivery, Position
from go2hooks.core.errors import UnavailableError
from go2hooks.postgres.api_keys import create_key
from go2hooks.postgres.pool import Pool, open_pool
from go2hooks.postgres.secrets import SecretBox
from go2hooks.settings import Settings
from services.api import create_app


@dataclass
class Outbox:
    """Keeps what is written to it, as Kafka would; or is away."""

    deliveries: list[Delivery] = field(default_factory=list)
    is_away: bool = False
    log: dict[Position, Delivery] = field(default_factory=dict)
    on_write: Callable[[Delivery], None] | None = None
    counted: list[tuple[str, list[str], datetime, datetime]] = field(default_factory=list)

    def write(self, delivery: Delivery) -> None:
        if self.is_away:
            raise UnavailableError("Kafka is away")
        self.deliveries.append(delivery)
        if self.on_write is not None:
            self.on_write(delivery)

    def read(self, delivery_id: str, positions: Iterable[Position]) -> Delivery | None:
        if self.is_away:
            raise UnavailableError("Kafka is away")
        found = (self.log.get(position) for position in positions)
        return next((each for each in found if each is not None and each.id == delivery_id), None)

    def count_events(self, account_id: str, events: Iterable[str], begin: datetime, end: datetime) -> int:
        if self.is_away:
            raise UnavailableError("Kafka is away")
        self.counted.append((account_id, [*events], begin, end))
        return 12_345

    def is_reachable(self) -> bool:
        return not self.is_away


@pytest.fixture
def run_service(
    kafka_bootstrap: str, database_url: str, secret_key: str, tmp_path: Path
) -> Iterator[Callable[..., Path]]:
    """`run_service("dispatcher", GO2HOOKS_…=…)`: a service as a process of its own, ready; drained at the test's end.

    Returns its log. With `wait=False`, as soon as it is started.
    """
    running: list[subprocess.Popen[bytes]] = []

    def run(name: str, *, wait: bool = True, **variables: str) -> Path:
        port_file, log = tmp_path / f"{name}-port.json", tmp_path / f"{name}.log"
        env = clean_environment() | {
            "GO2HOOKS_KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap,
            "GO2HOOKS_DATABASE_URL": database_url,
            "GO2HOOKS_SECRET_KEYS": secret_key,
            "GO2HOOKS_METRICS_PORT": "0",
            "GO2HOOKS_PORT_FILE": str(port_file),
        }
        command = [sys.executable, "-P", "-m", f"services.{name}"]
        with log.open("wb") as output:
            running.append(subprocess.Popen(command, env=env | variables, stdout=output, stderr=output))
        deadline = time.monotonic() + 60
        while wait and not _is_ready(port_file):
            assert running[-1].poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        return log

    yield run
    for process in running:
        process.terminate()
    for process in running:
        process.wait(40)


def _is_ready(port_file: Path) -> bool:
    try:
        port = json.loads(port_file.read_bytes())["port"]
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """Vouches for receivers and for clients."""
    return trustme.CA()


@pytest.fixture
def secret_key() -> str:
    return base64.b64encode(os.urandom(32)).decode()


@pytest.fixture
def api_settings(database_url: str, secret_key: str) -> Settings:
    return Settings(database_url=SecretStr(database_url), secret_keys=secret_key, delivery_timeout_s=0.2)


@pytest.fixture
def pool(api_settings: Settings) -> Iterator[Pool]:
    with open_pool(api_settings, max_size=8) as pool:
        yield pool


@pytest.fixture
def secret_box(api_settings: Settings) -> SecretBox:
    return SecretBox(api_settings.encryption_keys())


@pytest.fixture
def outbox() -> Outbox:
    return Outbox()


@pytest.fixture
def app(api_settings: Settings, pool: Pool, secret_box: SecretBox, outbox: Outbox) -> Flask:
    app = create_app(api_settings, pool, secret_box, outbox, outbox)
    app.test_client_class = Described
    return app


@pytest.fixture
def database(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def caller(app: Flask, database: psycopg.Connection[Any]) -> Callable[[str], Caller]:
    """From an account's id to its way to the API."""
    return lambda account: Caller(app.test_client(), account, create_key(database, account).key)


@pytest.fixture
def acme(caller: Callable[[str], Caller]) -> Caller:
    return caller("acme")


@pytest.fixture
def rival(caller: Callable[[str], Caller]) -> Caller:
    return caller("rival")
