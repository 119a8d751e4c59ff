"""`python -m services.api` as a process: how it starts, what its server refuses, how it lives through outages, how it stops."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from api_process import HANGING_S, Gate, Process, through
from environment import clean_environment
from usable_topics import make_topics
from waiting import eventually

from go2hooks.postgres.api_keys import create_key
from go2hooks.settings import Settings

HOOK = {"name": "Click Tracker", "url": "https://your-server.com/webhooks/go2", "events": ["click"]}


def environment_of(kafka_bootstrap: str, database_url: str, directory: Path) -> dict[str, str]:
    return clean_environment() | {
        "GO2HOOKS_DATABASE_URL": database_url,
        "GO2HOOKS_SECRET_KEYS": b64encode(os.urandom(32)).decode(),
        "GO2HOOKS_KAFKA_BOOTSTRAP_SERVERS": kafka_bootstrap,
        "GO2HOOKS_API_PORT": "0",
        "GO2HOOKS_PORT_FILE": str(directory / "port.json"),
    }


@pytest.fixture(scope="module")
def kafka(kafka_bootstrap: str) -> str:
    make_topics(Settings(kafka_bootstrap_servers=kafka_bootstrap))
    return kafka_bootstrap


@pytest.fixture
def environment(kafka: str, database_url: str, tmp_path: Path) -> dict[str, str]:
    return environment_of(kafka, database_url, tmp_path)


@pytest.fixture
def start(environment, database_url, tmp_path) -> Iterator[Callable[..., Process]]:
    with running(environment, database_url, tmp_path) as start:
        yield start


@pytest.fixture(scope="module")
def api(kafka, new_database, tmp_path_factory) -> Iterator[Process]:
    """One for all tests that leave it as they found it."""
    directory = tmp_path_factory.mktemp("api")
    with new_database() as url, running(environment_of(kafka, url, directory), url, directory) as start:
        yield start()


@contextmanager
def running(environment: dict[str, str], database_url: str, directory: Path) -> Iterator[Callable[..., Process]]:
    started: list[subprocess.Popen[bytes]] = []
    log = directory / "api.log"
    with psycopg.connect(database_url, autocommit=True) as connection:
        key = create_key(connection, "acme").key

    def start(**changes: str) -> Process:
        port_file = directory / "port.json"
        with log.open("wb") as stderr:
            popen = subprocess.Popen([sys.executable, "-m", "services.api"], env=environment | changes, stderr=stderr)
        started.append(popen)
        eventually(lambda: port_file.exists() or popen.poll() is not None, HANGING_S)
        assert popen.poll() is None, log.read_text()
        return Process(popen, json.loads(port_file.read_text())["port"], key, log)

    yield start
    for popen in started:
        popen.kill()
        popen.wait()


# --- start


def test_it_takes_a_free_port_says_which_and_becomes_ready(api):
    eventually(lambda: api.call("GET", "/readyz")[0] == 200, HANGING_S)
    assert api.call("GET", "/readyz")[1] == {"postgres": True, "kafka": True}
    assert api.call("GET", "/healthz")[1] == {"status": "ok"}
    status, answer, _ = api.call("POST", "/api/v1/webhooks", HOOK)
    assert (status, answer["data"]["name"]) == (201, "Click Tracker")


def test_a_port_that_is_taken_is_named_with_its_variable(environment):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = subprocess.run(
            [sys.executable, "-m", "services.api"],
            env=environment | {"GO2HOOKS_API_PORT": port}, capture_output=True, timeout=120, check=False, text=True,
        )  # fmt: skip
    assert result.returncode not in (0, None)
    assert "GO2HOOKS_API_PORT" in result.stderr
    assert port in result.stderr
    assert "Traceback" not in result.stderr


def test_a_missing_secret_key_is_named_with_its_remedy(environment):
    del environment["GO2HOOKS_SECRET_KEYS"]
    result = subprocess.run(
        [sys.executable, "-m", "services.api"],
        env=environment,
        capture_output=True,
        timeout=120,
        check=False,
        text=True,
    )
    assert result.returncode == 2
    assert "GO2HOOKS_SECRET_KEYS" in result.stderr


# --- metrics and logs


def test_requests_are_counted_by_route_and_logged_without_secrets(start):
    api = start()
    _, created, _ = api.call("POST", "/api/v1/webhooks", HOOK)
    hook = created["data"]["id"]
    _, rotated, _ = api.call("POST", f"/api/v1/webhooks/{hook}/rotate-secret")
    api.call("GET", f"/api/v1/webhooks/{hook}")
    api.call("GET", "/api/v1/nothing/here")
    api.call("BREW", "/api/v1/webhooks")
    metrics = api.call("GET", "/metrics")[1].decode()
    template = "/api/v1/webhooks/<webhook_id>"
    assert f'go2hooks_api_requests_total{{method="GET",route="{template}",status="200"}} 1.0' in metrics
    assert 'go2hooks_api_requests_total{method="GET",route="unmatched",status="404"} 1.0' in metrics
    assert 'method="other"' in metrics
    assert f'go2hooks_api_request_duration_seconds_count{{method="GET",route="{template}",status="200"}} 1.0' in metrics
    assert hook not in metrics
    lines = [json.loads(line) for line in api.log.read_text().splitlines()]
    [shown] = [line for line in lines if line.get("route") == template]
    assert (shown["method"], shown["status"], shown["account"], shown["service"]) == ("GET", 200, "acme", "api")
    written = api.log.read_text() + metrics
    for secret in (api.key, created["data"]["secret"], rotated["data"]["secret"]):
        assert secret not in written
        assert secret.partition("_")[2] not in written


# --- what the server itself refuses


def head(method: str, path: str, *headers: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (head("POST", "/api/v1/webhooks", "Content-Length: 10485760") + b"x" * 10_485_760, 413),
        (head("POST", "/api/v1/webhooks", "Transfer-Encoding: chunked") + b"ffff\r\n" + b"x" * 65535 + b"\r\nffff\r\n" + b"x" * 65535, 413),
        (head("GET", "/api/v1/webhooks", "X: " + "x" * 100_000), 431),
        (head("GET", "/" + "x" * 100_000), 431),
        (b"nonsense\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (head("POST", "/api/v1/webhooks", "Content-Length: -1"), 400),
        (head("POST", "/api/v1/webhooks", "Content-Length: 1, 2"), 400),
        (head("POST", "/api/v1/webhooks", "Transfer-Encoding: gzip"), 400),
        (head("GET", "/api/v1/webhooks", "Bad Header: x"), 400),
        (head("POST", "/api/v1/webhooks", "Content-Length: " + "9" * 5000), 400),
        (head("GET", "http://[::1/api"), 400),
        (head("GET", "http://[zz]/x"), 400),
        (head("GET", "http://a]/"), 400),
    ],
    ids=["10 MiB", "endless chunks", "long header", "long address", "nonsense", "TLS", "negative length", "two lengths", "gzip", "bad header",
         "endless length", "half an IPv6 address", "no IPv6 address", "end of one"],
)  # fmt: skip
def test_what_the_server_refuses_is_refused_in_the_envelope_too(api, request_bytes, status):
    answer_head, _, body = api.raw(request_bytes).partition(b"\r\n\r\n")
    assert answer_head.startswith((f"HTTP/1.1 {status} ".encode(), f"HTTP/1.0 {status} ".encode()))
    assert b"application/json" in answer_head
    error = json.loads(body)
    assert error["success"] is False
    assert error["error"]["code"]
    assert "Traceback" not in api.log.read_text()


def test_a_body_of_exactly_the_limit_is_read_and_one_byte_more_is_not(start):
    api = start(GO2HOOKS_API_MAX_BODY_BYTES="1000")
    body = json.dumps(HOOK).encode()
    assert api.call("POST", "/api/v1/webhooks", body.ljust(1000))[0] == 201
    assert api.call("POST", "/api/v1/webhooks", body.ljust(1001))[0] == 413


def test_a_chunked_body_is_read_like_any_other(api):
    body = json.dumps(HOOK).encode()
    lines = (
        f"Authorization: Bearer {api.key}",
        "Content-Type: application/json",
        "Transfer-Encoding: chunked",
        "Connection: close",
    )
    request = head("POST", "/api/v1/webhooks", *lines) + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    assert api.raw(request).startswith(b"HTTP/1.1 201 ")


def test_clients_that_trickle_are_ended_and_do_not_delay_the_others(start):
    api = start()
    slow = [socket.create_connection(("127.0.0.1", api.port), timeout=30) for _ in range(200)]
    for each in slow:
        each.sendall(b"POST /api/v1/webhooks HTTP/1.1\r\nHost: x\r\n")
    started = time.monotonic()
    ended = 0
    while ended < len(slow) and time.monotonic() - started < 90:
        for each in slow:
            with suppress(OSError):  # those that were ended
                each.sendall(b"X-Slow: 1\r\n")
        asked = time.monotonic()
        assert api.call("GET", "/api/v1/webhooks")[0] == 200
        assert time.monotonic() - asked < HANGING_S
        time.sleep(1)
        ended = sum(has_ended(each) for each in slow)
    for each in slow:
        each.close()
    assert ended == len(slow)


def refuses_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=HANGING_S).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # it was waiting to be accepted when the listener was closed
        return False
    return False


def has_ended(connection: socket.socket) -> bool:
    connection.settimeout(0)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


# --- outages


def test_it_answers_503_while_postgres_is_away_and_recovers_by_itself(start, database_url):
    parts = urlsplit(database_url)
    gate = Gate(parts.hostname, parts.port)
    api = start(GO2HOOKS_DATABASE_URL=through(database_url, gate))
    assert api.call("GET", "/api/v1/webhooks")[0] == 200
    gate.shut()
    for _ in range(3):
        started = time.monotonic()
        status, answer, headers = api.call("GET", "/api/v1/webhooks")
        assert (status, answer["error"]["code"]) == (503, "unavailable")
        assert int(headers["Retry-After"]) > 0
        assert time.monotonic() - started < HANGING_S
    assert api.call("GET", "/healthz")[0] == 200
    eventually(lambda: api.call("GET", "/readyz")[1] == {"postgres": False, "kafka": True}, HANGING_S)
    gate.open()
    eventually(lambda: api.call("GET", "/api/v1/webhooks")[0] == 200, HANGING_S)
    eventually(lambda: api.call("GET", "/readyz")[0] == 200, HANGING_S)
    gate.close()


def test_connections_that_died_while_idle_are_no_callers_problem(start, database_url):
    api = start()
    assert api.call("GET", "/api/v1/webhooks")[0] == 200
    with psycopg.connect(database_url, autocommit=True) as connection:
        ended = connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'go2hooks-api'"
        ).fetchall()
    assert ended
    assert set(ended) == {(True,)}
    assert api.call("GET", "/api/v1/webhooks")[0] == 200


def test_it_starts_without_postgres_and_serves_once_it_is_there(start, database_url):
    parts = urlsplit(database_url)
    gate = Gate(parts.hostname, parts.port)
    gate.shut()
    api = start(GO2HOOKS_DATABASE_URL=through(database_url, gate))
    assert api.call("GET", "/api/v1/webhooks")[0] == 503
    gate.open()
    eventually(lambda: api.call("GET", "/api/v1/webhooks")[0] == 200, HANGING_S)
    gate.close()


def test_while_kafka_is_away_only_what_needs_it_answers_503(start):
    api = start(GO2HOOKS_KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    status, created, _ = api.call("POST", "/api/v1/webhooks", HOOK)
    assert status == 201
    started = time.monotonic()
    status, answer, headers = api.call("POST", f"/api/v1/webhooks/{created['data']['id']}/test")
    assert (status, answer["error"]["code"]) == (503, "unavailable")
    assert int(headers["Retry-After"]) > 0
    assert time.monotonic() - started < HANGING_S
    assert api.call("GET", "/readyz")[1] == {"postgres": True, "kafka": False}
    assert api.call("GET", f"/api/v1/webhooks/{created['data']['id']}/deliveries")[1]["data"] == []


# --- stop


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_zero_even_with_idle_connections_open(start, number):
    api = start()
    idle = http.client.HTTPConnection("127.0.0.1", api.port, timeout=10)
    idle.request("GET", "/healthz")
    idle.getresponse().read()
    api.popen.send_signal(number)
    assert api.popen.wait(10) == 0, api.log.read_text()
    idle.close()


def test_connections_that_wait_to_be_accepted_are_answered_before_it_stops(start):
    api = start()
    os.kill(api.popen.pid, signal.SIGSTOP)  # so that it finds all of them at once, and the signal with them
    waiting = [http.client.HTTPConnection("127.0.0.1", api.port, timeout=HANGING_S) for _ in range(20)]
    for each in waiting:
        each.request("GET", "/healthz")
    api.popen.send_signal(signal.SIGTERM)
    os.kill(api.popen.pid, signal.SIGCONT)
    assert [each.getresponse().status for each in waiting] == [200] * len(waiting)
    assert api.popen.wait(HANGING_S) == 0
    for each in waiting:
        each.close()


def test_what_has_arrived_is_answered_before_it_stops_even_what_waits_for_a_thread(start):
    api = start(GO2HOOKS_DELIVERY_TIMEOUT_S="1", GO2HOOKS_API_THREADS="1")
    hook = api.call("POST", "/api/v1/webhooks", HOOK)[1]["data"]["id"]
    answers = []

    def call(*request: str) -> threading.Thread:
        thread = threading.Thread(target=lambda: answers.append(api.call(*request)[0]))
        thread.start()
        return thread

    under_way = call("POST", f"/api/v1/webhooks/{hook}/test?wait=true")  # no dispatcher is there, so it waits for 4 s
    time.sleep(1)  # the only thread is taken by now, which can't be asked: it would need a thread
    queued = [call("GET", f"/api/v1/webhooks/{hook}") for _ in range(3)]
    time.sleep(0.5)
    api.popen.send_signal(signal.SIGTERM)
    eventually(lambda: refuses_connections(api.port), HANGING_S)
    assert api.popen.wait(HANGING_S) == 0
    for thread in (under_way, *queued):
        thread.join(5)
    assert sorted(answers) == [200, 200, 200, 202]
