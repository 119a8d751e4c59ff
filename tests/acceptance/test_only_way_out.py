"""A stack in a network without another way out than a real Squid. Skipped without root, iproute2 or Squid."""

import json
import os
import socket
import ssl
import subprocess
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.request import Request, urlopen

import psycopg
import pytest
import trustme
from namespaces import Namespace, two_joined, why_not
from squid import MISSING, USERINFO, Squid
from up_command import GO2HOOKS, UpCommand, call_api
from waiting import eventually

RECEIVER = "93.184.215.14"  # public, and nobody's in a network of our own
INSIDE, PROXY = "10.77.0.2", "10.77.0.1"
# The name that the doctor asks for is nobody's; without a name server Squid takes 8 s to find that out.
HOSTS = f"{RECEIVER} hooks.customer.test go2hooks-doctor.invalid\n{INSIDE} inside.customer.test\n"
EVENTS = 200
WITHIN_S = 240.0  # on a machine that has other things to do

WHY_NOT = MISSING or why_not()
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or "")


class Receiver(ThreadingHTTPServer):
    """Answers every request with 200, by TLS as hooks.customer.test."""

    daemon_threads = True

    def __init__(self, authority: trustme.CA) -> None:
        super().__init__((RECEIVER, 443), _Handler)
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("hooks.customer.test").configure_cert(context)
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.deliveries: dict[str, set[str]] = defaultdict(set)  #: by path
        self.peers: set[str] = set()
        Thread(target=self.serve_forever, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    server: Receiver
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.deliveries[self.path].add(self.headers["webhook-id"])
        self.server.peers.add(self.client_address[0])
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        pass


class Network:
    """The stack inside, Squid and the receiver outside."""

    def __init__(self, folder: Path, inside: Namespace, outside: Namespace) -> None:
        self.folder, self.inside, self.outside = folder, inside, outside
        authority = trustme.CA()
        authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        self.receiver = outside.run(lambda: Receiver(authority))
        self.squid = self.start_squid()
        self.env = {
            "GO2HOOKS_EGRESS_PROXY": f"http://{USERINFO}{PROXY}:{self.squid.port}",
            "GO2HOOKS_TARGET_CA_FILE": str(folder / "ca.pem"),
            "GO2HOOKS_TOPIC_PARTITIONS": "2",
            "GO2HOOKS_CIRCUIT_FAILURES": "1000",  # no failure waits for the one before
            "GO2HOOKS_RETRY_DELAYS": "300ms,500ms,1s,2s,4s,8s,16s,30s",
        }
        self.up = UpCommand(folder / "stack", prefix=inside.prefix, **self.env)

    def start_squid(self, port: int | None = None) -> Squid:
        place = self.folder / f"squid{len(list(self.folder.glob('squid*')))}"
        place.mkdir(mode=0o755)
        place.chmod(0o755)
        return Squid(place, PROXY, hosts=HOSTS, prefix=self.outside.prefix, port=port).until_ready()

    def api(self, path: str, body: Any = None) -> Any:
        return self.inside.run(lambda: call_api(self.endpoints, path, body))["data"]

    def try_out(self, webhook: dict[str, Any]) -> dict[str, Any]:
        """What came of a test event."""
        path = f"{self.endpoints['api']}/webhooks/{webhook['id']}/test?wait=true"
        request = Request(path, b"", {"Authorization": f"Bearer {self.endpoints['apiKey']}"}, method="POST")

        def ask() -> dict[str, Any]:
            with urlopen(request, timeout=30) as answer:
                return json.load(answer)["data"]

        return self.inside.run(ask)

    def subscribe(self, url: str, event: str) -> dict[str, Any]:
        return self.api("/webhooks", {"name": "A test's", "url": url, "events": [event]})

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        env = {name: value for name, value in os.environ.items() if not name.startswith("GO2HOOKS_")} | self.env
        command = [*self.inside.prefix, str(GO2HOOKS), *arguments, "--data-dir", str(self.up.dir)]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False)

    def emit(self, count: int) -> None:
        done = self.command("emit", "click", "--account", self.endpoints["account"], "--count", str(count))
        assert done.returncode == 0, done.stderr

    def wait_ready(self) -> None:
        self.endpoints = self.up.endpoints()

    def stop(self) -> None:
        if self.up.process.poll() is None:
            self.up.end()
        self.squid.stop()
        self.receiver.shutdown()
        self.receiver.server_close()


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with (
        tempfile.TemporaryDirectory(prefix="go2hooks-egress-", ignore_cleanup_errors=True) as name,
        two_joined(f"{INSIDE}/30", f"{PROXY}/30", f"{RECEIVER}/32") as (inside, outside),
    ):
        folder = Path(name)
        folder.chmod(0o755)
        running = Network(folder, inside, outside)
        try:
            running.wait_ready()
            yield running
        finally:
            running.stop()


def test_there_is_no_other_way_out(network: Network):
    with pytest.raises(OSError, match="unreachable"):
        network.inside.run(lambda: socket.create_connection((RECEIVER, 443), 5))


def test_deliveries_go_out_by_squid_through_few_tunnels(network: Network):
    webhook = network.subscribe("https://hooks.customer.test/hook", "click")
    result = network.try_out(webhook)
    assert result["delivered"], result
    network.emit(EVENTS)
    eventually(lambda: len(network.receiver.deliveries["/hook"]) >= 1 + EVENTS, WITHIN_S)
    assert network.receiver.peers == {RECEIVER}  # by its own loopback: it is Squid that connects
    assert 0 < len(network.squid.requests()) + open_tunnels(network) <= 64
    assert {line.split(" ")[1] for line in network.squid.requests()} <= {"hooks.customer.test:443"}


def open_tunnels(network: Network) -> int:
    command = [*network.outside.prefix, "ss", "-Htn", "state", "established", f"( sport = :{network.squid.port} )"]
    return len(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines())


def test_a_name_that_leads_back_inside_is_refused_by_squid(network: Network):
    port = network.endpoints["api"].split(":")[2].partition("/")[0]
    result = network.try_out(network.subscribe(f"https://inside.customer.test:{port}/", "qr.scanned"))
    assert (result["delivered"], result["errorCode"]) == (False, "proxy_error"), result
    assert result["errorMessage"] == "Go2's own egress proxy does not let this delivery go there."


def test_the_doctor_finds_nothing_wrong_with_squid(network: Network):
    said = network.command("doctor").stdout
    assert f"{PROXY}:{network.squid.port} answers and takes our credentials" in said
    assert "it refuses 169.254.169.254, as it must" in said


def test_a_squid_that_is_away_disables_nobody_and_everything_arrives_when_it_is_back(network: Network):
    webhook = network.subscribe("https://hooks.customer.test/again", "click")
    port = network.squid.port
    network.squid.stop()
    network.emit(30)

    def failed_in_vain() -> bool:
        with network.inside.run(lambda: psycopg.connect(network.endpoints["postgres"])) as connection:
            [count] = connection.execute(
                "SELECT count(*) FROM attempts WHERE webhook_id = %s AND error_code = 'proxy_error'", [webhook["id"]]
            ).fetchone() or [0]
        return count >= 20

    try:
        eventually(failed_in_vain, WITHIN_S, every_s=0.2)
    finally:
        network.squid = network.start_squid(port)
    eventually(lambda: len(network.receiver.deliveries["/again"]) == 30, WITHIN_S)
    now = network.api(f"/webhooks/{webhook['id']}")
    assert (now["isActive"], now["consecutiveFailures"]) == (True, 0)
