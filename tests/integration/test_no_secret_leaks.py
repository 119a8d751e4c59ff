"""Canaries: known secrets go through a whole stack, by its good ways and its bad ones, and turn up nowhere else.

Looked through afterwards: every log, every /metrics, every answer of the API but the two that show a secret, every key,
value and header of every Kafka topic, every table of the database as text, and the command lines of the processes.
"""

import base64
import json
import os
import secrets
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import psutil
import psycopg
import pytest
import trustme
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from connect_proxy import REFUSED, ConnectProxy, connect_proxy
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from psycopg import sql
from up_command import GO2HOOKS, UpCommand, children
from usable_topics import watermarks
from waiting import eventually

from go2hooks.cli.stack import find_settings
from go2hooks.core.domain.event import Event, EventType
from go2hooks.core.domain.samples import example_payload
from go2hooks.devstack.security import kept_security
from go2hooks.kafka.client import consumer_config, producer_config
from go2hooks.kafka.topics import TopicNames
from go2hooks.producer import EventProducer, new_event_id
from go2hooks.settings import Settings

NAMES = TopicNames("go2")

DEADLINE_S = 300


@dataclass
class Canaries:
    """What was planted: a name and every form in which it could turn up."""

    forms: dict[str, list[bytes]] = field(default_factory=dict)

    def plant(self, name: str, secret: str) -> str:
        forms = [secret.encode()]
        encoded = secret.removeprefix("whsec_")
        if secret.startswith("whsec_") or name == "encryption key":
            raw = base64.b64decode(encoded)
            forms += [encoded.encode(), raw, raw.hex().encode(), base64.urlsafe_b64encode(raw)]
        self.forms[name] = forms
        return secret

    def plant_key(self, name: str, pem: str) -> str:
        """A private key on a curve: its PEM by the line, its DER, and the number itself. The PEM's first line says what it is."""
        key = load_pem_private_key(pem.encode(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        number = key.private_numbers().private_value
        encodings = ((Encoding.PEM, PrivateFormat.PKCS8), (Encoding.PEM, PrivateFormat.TraditionalOpenSSL))
        lines = [line for how in encodings for line in key.private_bytes(*how, NoEncryption()).splitlines()[1:2]]
        raw = number.to_bytes(32, "big")
        self.forms[name] = [*lines, raw, raw.hex().encode(), str(number).encode()]
        return pem

    def found_in(self, place: str, content: bytes) -> list[str]:
        return [f"{name} in {place}" for name, forms in self.forms.items() if any(form in content for form in forms)]


class Receiver(ThreadingHTTPServer):
    """Answers `/ok` with 200, everything else with 500 and a body of its own."""

    daemon_threads = True

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.paths: list[str] = []
        super().__init__(("127.0.0.1", 0), _Handler)
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.url = f"{'https' if context else 'http'}://localhost:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.paths.append(self.path)
        body = b"no, thank you"
        self.send_response(200 if self.path == "/ok" else 500)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_args: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def canaries() -> Canaries:
    return Canaries()


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def proxy(canaries: Canaries) -> Iterator[ConnectProxy]:
    """What all deliveries leave by."""
    password = secrets.token_hex(16)
    canaries.forms["egress proxy's password"] = [password.encode(), base64.b64encode(f"go2:{password}".encode())]
    with connect_proxy("go2", password) as running:
        yield running


@pytest.fixture
def stack(canaries: Canaries, authority: trustme.CA, proxy: ConnectProxy) -> Iterator[UpCommand]:
    key = canaries.plant("encryption key", base64.b64encode(os.urandom(32)).decode())
    with tempfile.TemporaryDirectory(prefix="go2hooks-canary-", ignore_cleanup_errors=True) as directory:
        authority.cert_pem.write_to_path(str(Path(directory) / "ca.pem"))
        running = UpCommand(
            Path(directory) / "stack",
            "--secure",
            GO2HOOKS_SECRET_KEYS=key,
            GO2HOOKS_LOG_LEVEL="debug",
            GO2HOOKS_ALLOW_INSECURE_TARGETS="true",
            GO2HOOKS_RETRY_DELAYS="200ms,300ms",
            GO2HOOKS_TOPIC_PARTITIONS="2",
            GO2HOOKS_TARGET_CA_FILE=str(Path(directory) / "ca.pem"),
            GO2HOOKS_EGRESS_PROXY=proxy.url,
        )
        yield running
        if running.process.poll() is None:
            running.end()


class Api:
    """Calls the API and keeps every answer, but for the secrets that it is meant to show."""

    def __init__(self, endpoints: dict[str, Any], canaries: Canaries) -> None:
        self.base = endpoints["api"]
        self.key = canaries.plant("API key", endpoints["apiKey"])
        self.answers: list[bytes] = []

    def __call__(self, method: str, path: str, body: Any = None, key: str | None = None) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {key or self.key}", "Content-Type": "application/json"}
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            with urlopen(Request(self.base + path, data, headers, method=method), timeout=20) as response:
                raw, head = response.read(), response.headers
        except HTTPError as error:
            raw, head = error.read(), error.headers
        answer = json.loads(raw or b"{}")
        shown = answer.get("data", {})
        if not (isinstance(shown, dict) and "secret" in shown):
            self.answers.append(str(head).encode() + raw)
        return answer


def use_client_certificates(stack: UpCommand, api: Api, authority: trustme.CA, canaries: Canaries) -> None:
    """One that delivers, one that does not open, and uploads that are refused."""
    leaf, other = authority.issue_cert("client.test"), authority.issue_cert("other.test")
    keys = [
        canaries.plant_key(f"client key {n}", each.private_key_pem.bytes().decode())
        for n, each in enumerate((leaf, other))
    ]
    chain = leaf.cert_chain_pems[0].bytes().decode()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    with Receiver(context) as receiver:
        Thread(target=receiver.serve_forever, daemon=True).start()
        hook = api("POST", "/webhooks", {"name": "mtls", "url": f"{receiver.url}/ok", "events": ["qr.scanned"]})["data"]
        canaries.plant("secret of mtls", hook["secret"])
        path = f"/webhooks/{hook['id']}/client-certificate"
        for upload in (
            {"certificate": chain, "privateKey": keys[1]},
            {"certificate": chain + keys[0], "privateKey": keys[0]},
            {"certificate": chain, "privateKey": keys[0] + keys[1]},
            {"certificate": chain, "privateKey": [keys[0]]},
            {"certificate": chain, "key": keys[0]},
            {"certificate": chain, "privateKey": keys[0]},
        ):
            api("PUT", path, upload)
        assert "fingerprint" in api("GET", path)["data"]
        assert api("POST", f"/webhooks/{hook['id']}/test?wait=true")["data"]["delivered"]
        with psycopg.connect(stack.endpoints()["postgres"], autocommit=True) as connection:
            connection.execute(
                "UPDATE client_certificates SET sealed_key = set_byte(sealed_key, 40, get_byte(sealed_key, 40) # 1)"
            )
            connection.execute("UPDATE client_certificates SET digest = sha256(digest)")  # so that it is fetched again
            connection.execute("UPDATE webhooks SET client_certificate = sha256(client_certificate)")
        path = f"/webhooks/{hook['id']}/test?wait=true"
        eventually(lambda: api("POST", path)["data"].get("errorCode") == "secret_unavailable", DEADLINE_S)
        receiver.shutdown()


def use_proxy(api: Api, canaries: Canaries) -> None:
    """A delivery that the proxy refuses, telling whoever asks all that it was told."""
    hook = api("POST", "/webhooks", {"name": "r", "url": f"https://{REFUSED}/", "events": ["qr.scanned"]})["data"]
    canaries.plant("secret of refused", hook["secret"])
    result = api("POST", f"/webhooks/{hook['id']}/test?wait=true")["data"]
    assert result["errorCode"] == "proxy_error", result
    api("GET", f"/webhooks/{hook['id']}/deliveries")


def said_by_commands(stack: UpCommand, proxy: ConnectProxy) -> Iterator[tuple[str, bytes]]:
    """What `config` and `doctor` show an operator, whatever is wrong."""
    wrong = proxy.url.replace("@127.0.0.1:", "/@127.0.0.1:")
    for url in (proxy.url, wrong, proxy.url.replace("http:", "https:")):
        for command in (["config"], ["doctor", "--data-dir", stack.dir]):
            env = os.environ | {"GO2HOOKS_EGRESS_PROXY": url}
            done = subprocess.run([GO2HOOKS, *command], env=env, capture_output=True, check=False)
            yield f"go2hooks {command[0]}", done.stdout + done.stderr


def use_everything(stack: UpCommand, api: Api, receiver: Receiver, canaries: Canaries) -> None:
    """Create, change, test, deliver, fail, retry, dead-letter, disable, rotate, delete; and every refusal we know."""
    endpoints = stack.endpoints()
    hooks = {}
    for name in ("ok", "fails", "broken"):
        token = canaries.plant(f"header of {name}", "Bearer " + secrets.token_hex(20))
        headers = {"Authorization": {"value": token, "secret": True}, "X-Plain": "shown"}
        body = {"name": name, "url": f"{receiver.url}/{name}", "events": ["*"], "headers": headers}
        hooks[name] = api("POST", "/webhooks", body)["data"]
        canaries.plant(f"secret of {name}", hooks[name]["secret"])
    rotated = api("POST", f"/webhooks/{hooks['ok']['id']}/rotate-secret")["data"]
    canaries.plant("rotated secret", rotated["secret"])
    with psycopg.connect(endpoints["postgres"], autocommit=True) as connection:  # a secret that does not open
        connection.execute(
            "UPDATE webhooks SET sealed_secret = set_byte(sealed_secret, 40, get_byte(sealed_secret, 40) # 1) WHERE id = %s",
            [hooks["broken"]["id"]],
        )
    with EventProducer.from_environment(find_settings(stack.dir)) as producer:
        for _ in range(3):
            data = example_payload(EventType.CLICK).data
            producer.send(
                Event(new_event_id(), endpoints["account"], EventType.CLICK, time.time_ns() // 1_000_000, data)
            )
    poison = Producer(producer_config(find_settings(stack.dir)))
    poison.produce(NAMES.of_event["click"], b"\xc3\x01 no event at all")
    assert poison.flush(10) == 0
    api("POST", f"/webhooks/{hooks['ok']['id']}/test?wait=true")
    api("POST", f"/webhooks/{hooks['fails']['id']}/test?wait=true")
    provoke_refusals(api, hooks["ok"]["id"], hooks["ok"]["secret"], canaries)

    def settled() -> bool:
        with psycopg.connect(endpoints["postgres"]) as connection:
            rows = connection.execute(
                "SELECT state, count(*) FROM attempts WHERE event = 'click' AND kind = 'event' GROUP BY 1"
            ).fetchall()
        counts = dict(rows)
        return counts.get("delivered", 0) == 3 and counts.get("failed", 0) + counts.get("skipped", 0) == 6

    eventually(settled, DEADLINE_S)
    for hook in hooks.values():
        api("GET", f"/webhooks/{hook['id']}")
        api("GET", f"/webhooks/{hook['id']}/deliveries")
    api("GET", "/webhooks")
    api("DELETE", f"/webhooks/{hooks['fails']['id']}")


def provoke_refusals(api: Api, webhook_id: str, secret: str, canaries: Canaries) -> None:
    wrong = canaries.plant("wrong API key", "go2_" + secrets.token_hex(20))
    password = canaries.plant("password in a URL", "hunter2" + secrets.token_hex(8))
    api("GET", "/webhooks", key=wrong)
    api("POST", "/webhooks", {"name": "n", "url": f"https://user:{password}@example.com/", "events": ["click"]})
    api("PATCH", f"/webhooks/{webhook_id}", {"secret": secret})
    api("PATCH", f"/webhooks/{webhook_id}", b'{"secret": "' + secret.encode() + b'", oops')
    api("POST", "/webhooks", {"name": "n", "url": "https://example.com/", "events": [secret[:45]]})
    api("GET", f"/webhooks?cursor={api.key}")
    for header in (
        f"{password}\n",
        [password],
        {"value": password, "secret": 1},
        {"value": password + "ä", "secret": True},
    ):
        api("PATCH", f"/webhooks/{webhook_id}", {"headers": {"Authorization": header}})
    where = urlsplit(api.base)
    for header in (f"Basic {wrong}", f"Bearer {api.key} {api.key}", f"Bearer  {api.key}x"):
        connection = HTTPConnection(where.hostname or "", where.port, timeout=10)
        connection.request("GET", "/api/v1/webhooks", headers={"Authorization": header})
        api.answers.append(connection.getresponse().read())
        connection.close()


def messages_of(settings: Settings) -> Iterator[tuple[str, bytes]]:
    """Everything that every topic holds."""
    consumer = Consumer(consumer_config(settings, "canary") | {"enable.auto.commit": False})
    topics = consumer.list_topics(timeout=10).topics
    partitions = [TopicPartition(name, n, OFFSET_BEGINNING) for name, topic in topics.items() for n in topic.partitions]
    spans = [(p, watermarks(consumer, p)) for p in partitions]
    unread = {(p.topic, p.partition): high - 1 for p, (low, high) in spans if high > low}  # offset of the last one
    consumer.assign(partitions)
    quiet = 0
    while unread and quiet < 10:  # compacted topics may end before their last offset
        message = consumer.poll(0.5)
        quiet = quiet + 1 if message is None else 0
        if message is not None and message.error() is None:
            where = (message.topic(), message.partition())
            if message.offset() >= unread.get(where, message.offset() + 1):
                del unread[where]
            headers = b"".join(name.encode() + b"=" + (value or b"") for name, value in message.headers() or [])
            yield message.topic(), (message.key() or b"") + b"|" + (message.value() or b"") + b"|" + headers
    consumer.close()


def dump_of(url: str) -> Iterator[tuple[str, bytes]]:
    """Every table as text, and byte columns as the bytes that they are."""
    with psycopg.connect(url) as connection:
        names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        for (name,) in names:
            table = sql.Identifier(name)
            with connection.cursor().copy(sql.SQL("COPY (SELECT * FROM {}) TO STDOUT").format(table)) as copy:
                text = b"".join(bytes(chunk) for chunk in copy)
            hexed = b"".join(
                bytes.fromhex(part.split(b"\t")[0].split(b"\n")[0].decode()) for part in text.split(b"\\\\x")[1:]
            )
            yield name, text + hexed


def commands_of(endpoints: dict[str, Any], supervisor: int) -> bytes:
    processes = [*children(endpoints), psutil.Process(supervisor)]
    return "\n".join(" ".join(process.cmdline()) for process in processes).encode()


def test_no_secret_leaves_its_place(
    stack: UpCommand, canaries: Canaries, receiver: Receiver, authority: trustme.CA, proxy: ConnectProxy
):
    endpoints = stack.endpoints()
    canaries.plant("Kafka password", kept_security(stack.dir).password)
    canaries.plant("database password", urlsplit(endpoints["postgres"]).password or "")
    api = Api(endpoints, canaries)
    use_client_certificates(stack, api, authority, canaries)
    use_everything(stack, api, receiver, canaries)
    use_proxy(api, canaries)
    assert set(proxy.hosts) == {"localhost", REFUSED}

    places: list[tuple[str, bytes]] = [(f"answer {n}", answer) for n, answer in enumerate(api.answers)]
    places.append(("the processes' command lines", commands_of(endpoints, stack.process.pid)))
    for urls in endpoints["metrics"].values():
        places += [(url, urlopen(url, timeout=10).read()) for url in ([urls] if isinstance(urls, str) else urls)]
    said = list(said_by_commands(stack, proxy))
    topics = list(messages_of(find_settings(stack.dir)))
    tables = list(dump_of(endpoints["postgres"]))
    assert stack.end() == 0
    logs = [(str(path), path.read_bytes()) for path in (stack.log, *(stack.dir / "logs").rglob("*")) if path.is_file()]
    places += said + topics + tables + logs

    assert len(canaries.forms) == 18
    assert b"http://go2:***@127.0.0.1:" in said[0][1]
    assert b"takes our credentials" in said[1][1]
    assert {topic for topic, _ in topics} >= {
        "go2.events.click",
        "go2.events.dead",
        "go2.deliveries",
        "go2.deliveries.dead",
    }
    assert {name for name, _ in tables} >= {"webhooks", "api_keys", "attempts", "client_certificates"}
    assert any(b"secret cannot be opened" in content for _, content in logs)
    assert any(b"client key cannot be opened" in content for _, content in logs)
    assert [leak for place, content in places for leak in canaries.found_in(place, content)] == []


def test_the_search_finds_what_is_there(canaries: Canaries):
    secret = canaries.plant("secret", "whsec_" + base64.b64encode(os.urandom(32)).decode())
    raw = base64.b64decode(secret.removeprefix("whsec_"))
    for leaked in (secret.encode(), b"x" + raw + b"y", raw.hex().encode(), secret[6:].encode()):
        assert canaries.found_in("here", leaked) == ["secret in here"]
    assert canaries.found_in("here", b"whsec_***") == []
    pem = canaries.plant_key("key", trustme.CA().issue_cert("a.test").private_key_pem.bytes().decode())
    assert canaries.found_in("here", json.dumps(pem).encode()) == ["key in here"]
