"""The services as they are deployed: each with a login of its own that may do what it needs, behind a pooler where there is one."""

import contextlib
import http.client
import json
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from environment import clean_environment
from pgbouncer import BINARY, pgbouncer
from psycopg import sql
from usable_topics import make_topics
from waiting import eventually

from go2hooks.core.domain.event import Event
from go2hooks.core.domain.samples import example_payload
from go2hooks.postgres.api_keys import create_key
from go2hooks.postgres.rights import Role, grants
from go2hooks.postgres.session import Session
from go2hooks.producer import EventProducer, new_event_id
from go2hooks.settings import Settings


class _Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append(self.headers["X-Webhook-Event"])  # type: ignore[attr-defined]
        self.send_response(500 if self.path == "/failing" else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def receiver() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Receiver) as server:
        server.got = []  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def logins(database: psycopg.Connection[Any], database_url: str, servers_dir: Path) -> Iterator[dict[Role, str]]:
    """A URL for each service, with the rights that it is said to need and no others."""
    suffix, parts = secrets.token_hex(4), urlsplit(database_url)
    dbname = sql.Identifier(database.info.dbname)
    database.execute(
        sql.SQL("REVOKE ALL ON SCHEMA public FROM PUBLIC; REVOKE ALL ON DATABASE {} FROM PUBLIC").format(dbname)
    )
    users = {role: f"{role}_{suffix}" for role in Role}
    with Session.connect(database_url, name="test") as session, session.transaction():
        for role, user in users.items():
            session.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'secret'").format(sql.Identifier(user)))
            for statement in grants(session, role, user):
                session.execute(statement)
    with contextlib.ExitStack() as stack:
        if BINARY is not None:
            entries = dict.fromkeys(users.values(), "secret")
            url = stack.enter_context(pgbouncer(database_url, servers_dir / f"pgb-{suffix}", "transaction", entries))
            parts = urlsplit(url)
        yield {
            role: urlunsplit(parts._replace(netloc=f"{user}:secret@{parts.hostname}:{parts.port}"))
            for role, user in users.items()
        }
    for user in users.values():
        database.execute(sql.SQL("DROP OWNED BY {user}; DROP ROLE {user}").format(user=sql.Identifier(user)))


@pytest.fixture
def stack(logins, kafka_bootstrap, secret_key, tmp_path) -> Iterator[dict[str, Any]]:
    """API, router, replayer and dispatcher as processes: their ports, logs and settings."""
    prefix = f"roles{secrets.token_hex(4)}"
    settings = Settings(
        kafka_bootstrap_servers=kafka_bootstrap, kafka_prefix=prefix, topic_partitions=1, retry_delays="300ms"
    )
    make_topics(settings)
    processes, files = [], {role: tmp_path / f"{role}.json" for role in Role}
    for role, url in logins.items():
        env = clean_environment() | {
            "GO2HOOKS_KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap, "GO2HOOKS_KAFKA_PREFIX": prefix,
            "GO2HOOKS_DATABASE_URL": url, "GO2HOOKS_SECRET_KEYS": secret_key, "GO2HOOKS_RETRY_DELAYS": "300ms",
            "GO2HOOKS_METRICS_PORT": "0", "GO2HOOKS_API_PORT": "0", "GO2HOOKS_PORT_FILE": str(files[role]),
            "GO2HOOKS_ALLOW_INSECURE_TARGETS": "true", "GO2HOOKS_DISABLE_AFTER_FAILURES": "2",
        }  # fmt: skip
        with (tmp_path / f"{role}.log").open("wb") as log:
            command = [sys.executable, "-P", "-m", f"services.{'router.replay' if role == Role.REPLAYER else role}"]
            processes.append(subprocess.Popen(command, env=env, stdout=log, stderr=log))
    try:
        ports = {role: eventually(lambda role=role: _port(files[role])) for role in Role}
        eventually(lambda: all(call(port, "GET", "/readyz")[0] == 200 for port in ports.values()))
        yield {"api": ports[Role.API], "settings": settings}
    except Exception as error:
        error.add_note("\n".join((tmp_path / f"{role}.log").read_text()[-2000:] for role in Role))
        raise
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(40)


def _port(path: Path) -> int | None:
    return json.loads(path.read_bytes())["port"] if path.exists() and path.stat().st_size else None


def call(port: int, method: str, path: str, body: Any = None, key: str = "") -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    content = json.loads(answer.read() or b"null")
    connection.close()
    return answer.status, content


def test_the_services_do_all_they_do_with_the_rights_that_are_printed(stack, receiver, database, database_url):
    with Session.connect(database_url, name="test") as session:
        key = create_key(session, "acme").key
    api = f"http://127.0.0.1:{receiver.server_port}"

    def ask(method: str, path: str, body: Any = None, status: int = 200) -> Any:
        answered, content = call(stack["api"], method, f"/api/v1{path}", body, key)
        assert answered == status, content
        return content["data"]

    hook = ask("POST", "/webhooks", {"name": "a", "url": f"{api}/", "events": ["click"]}, 201)
    failing = ask("POST", "/webhooks", {"name": "b", "url": f"{api}/failing", "events": ["link.created"]}, 201)
    time.sleep(1.0)  # what "in force within a second" means behind a pooler: no notification tells of it
    with EventProducer.from_environment(stack["settings"]) as producer:
        for event in ("click", "link.created"):
            now_ms = time.time_ns() // 1_000_000
            producer.send(Event(new_event_id(), "acme", event, now_ms, example_payload(event).data))
    eventually(lambda: ask("GET", f"/webhooks/{hook['id']}/deliveries")[0:1] and receiver.got.count("click") == 1)
    eventually(lambda: not ask("GET", f"/webhooks/{failing['id']}")["isActive"])
    assert ask("POST", f"/webhooks/{hook['id']}/test?wait=true")["delivered"]
    ask("PATCH", f"/webhooks/{failing['id']}", {"isActive": True})
    ask("POST", f"/webhooks/{hook['id']}/rotate-secret")
    since = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    replay = ask("POST", f"/webhooks/{hook['id']}/replays", {"from": since, "only": "all"}, 202)
    path = f"/webhooks/{hook['id']}/replays/{replay['id']}"
    eventually(lambda: ask("GET", path)["status"] == "done" and receiver.got.count("click") >= 2)
    ask("DELETE", f"/webhooks/{hook['id']}")
    partitions = database.execute(
        "SELECT count(*) FROM pg_class WHERE relname ~ '^attempts_[0-9]{8}$' AND relkind = 'r'"
    )
    assert partitions.fetchone() == (5,)
