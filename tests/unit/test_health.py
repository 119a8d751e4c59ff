"""/metrics, /healthz and /readyz, asked as a kubelet and Prometheus ask."""

import json
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from prometheus_client.registry import CollectorRegistry
from waiting import eventually

from go2hooks.core.errors import SettingsError
from go2hooks.telemetry import health
from go2hooks.telemetry.health import HealthServer, announce_port
from go2hooks.telemetry.instruments import Counter
from go2hooks.telemetry.metrics import Instruments

CHECKS = {"kafka": True, "postgres": True}


@pytest.fixture
def checks() -> dict[str, bool]:
    return dict(CHECKS)


@pytest.fixture
def url(checks: dict[str, bool]) -> Iterator[str]:
    registry = CollectorRegistry()
    registry.register(Instruments(Counter("sent_total", "Sent")))
    server = HealthServer("127.0.0.1", 0, registry, lambda: checks)
    server.start()
    yield f"http://127.0.0.1:{server.port}"
    server.close()


def get(url: str) -> tuple[int, str, bytes]:
    try:
        with urlopen(url, timeout=5) as response:
            return response.status, response.headers["Content-Type"], response.read()
    except HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read()


def test_metrics_are_what_prometheus_reads(url: str):
    status, content_type, body = get(f"{url}/metrics")
    assert status == 200
    assert content_type.startswith("text/plain; version=")
    assert b"sent_total 0.0" in body


def test_callers_who_say_nothing_keep_others_waiting_for_a_while_only(url: str, monkeypatch: pytest.MonkeyPatch):
    """Nor do they take more threads than a few, however many they are."""
    monkeypatch.setattr(health._Server, "request_s", 1.0)
    host, port = url.removeprefix("http://").split(":")
    before = threading.active_count()
    with ExitStack() as stack:
        for _ in range(100):
            caller = stack.enter_context(socket.create_connection((host, int(port))))
            with suppress(OSError):  # closed by then
                caller.send(b"G")
        assert threading.active_count() - before <= 17
        assert eventually(lambda: answers(url), 20)
    eventually(lambda: threading.active_count() <= before + 1)


def answers(url: str) -> bool:
    try:
        return get(f"{url}/healthz")[0] == 200
    except OSError:
        return False


def test_a_caller_who_hangs_up_is_no_defect(url: str, capfd: pytest.CaptureFixture[str]):
    host, port = url.removeprefix("http://").split(":")
    for _ in range(5):
        caller = socket.create_connection((host, int(port)))
        caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        caller.send(b"GET /metrics HTTP/1.1\r\n")
        caller.close()
    assert answers(url)
    assert "Traceback" not in capfd.readouterr().err


def test_it_is_ready_only_while_every_check_holds(url: str, checks: dict[str, bool]):
    assert (get(f"{url}/readyz")[0], json.loads(get(f"{url}/readyz")[2])) == (200, CHECKS)
    checks["kafka"] = False
    assert (get(f"{url}/readyz")[0], json.loads(get(f"{url}/readyz")[2])) == (503, {"kafka": False, "postgres": True})


def test_it_is_alive_while_it_is_not_ready(url: str, checks: dict[str, bool]):
    checks["postgres"] = False
    assert get(f"{url}/healthz")[0] == 200


def test_an_unknown_path_and_a_query_string(url: str):
    assert get(f"{url}/secrets")[0] == 404
    assert get(f"{url}/metrics?x=1")[0] == 200


def test_a_silent_caller_does_not_keep_others_waiting(url: str):
    port = int(url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)):
        assert get(f"{url}/healthz")[0] == 200


def test_a_port_that_is_taken_names_the_setting_to_change():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"{port}.*GO2HOOKS_METRICS_PORT"):
            HealthServer("127.0.0.1", port, CollectorRegistry(), dict)


def test_the_port_is_announced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    announce_port(1)  # nobody asked
    monkeypatch.setenv("GO2HOOKS_PORT_FILE", str(tmp_path / "port.json"))
    announce_port(4711)
    assert [file.name for file in tmp_path.iterdir()] == ["port.json"]
    assert json.loads((tmp_path / "port.json").read_text()) == {"port": 4711}


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_a_load_balancer_may_ask_with_head(url: str, path: str):
    with urlopen(Request(f"{url}{path}", method="HEAD"), timeout=5) as response:
        assert (response.status, response.read()) == (200, b"")
        assert int(response.headers["Content-Length"]) > 0


@pytest.mark.parametrize("method", ["POST", "DELETE", "BREW"])
def test_another_method_is_refused_in_json_and_nothing_is_said_of_python(url: str, method: str):
    with pytest.raises(HTTPError) as refused:
        urlopen(Request(f"{url}/metrics", method=method), timeout=5)
    with refused.value as answer:
        assert (answer.code, answer.headers["Allow"]) == (405, "GET, HEAD")
        assert json.loads(answer.read()) == {"status": "method not allowed"}
        assert "ython" not in str(answer.headers)


@pytest.mark.parametrize("host", ["::1", "::"])
def test_it_listens_on_ipv6(host: str):
    server = HealthServer(host, 0, CollectorRegistry(), dict)
    server.start()
    assert get(f"http://[::1]:{server.port}/healthz")[0] == 200
    server.close()


def test_an_address_that_is_not_ours_names_the_setting_to_change():
    with pytest.raises(SettingsError, match="check GO2HOOKS_METRICS_HOST"):
        HealthServer("192.0.2.1", 0, CollectorRegistry(), dict)


def test_the_port_is_announced_by_a_pipe_where_nothing_can_be_written(monkeypatch: pytest.MonkeyPatch):
    reading, writing = os.pipe()
    monkeypatch.setenv("GO2HOOKS_PORT_PIPE", str(writing))
    announce_port(4711)
    os.close(writing)
    with os.fdopen(reading) as said:
        assert said.read() == "4711\n"
