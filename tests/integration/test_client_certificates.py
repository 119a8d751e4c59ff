"""Client certificates as accounts use them: uploaded through the API, in force at the dispatcher, told in the history."""

import asyncio
import datetime as dt
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
import trustme
from certificates import issued, path_of
from confluent_kafka import Producer
from pydantic import SecretStr
from usable_topics import make_topics
from waiting import until

from go2hooks.codec import encode_delivery
from go2hooks.core.domain.delivery import Delivery, Kind, delivery_id
from go2hooks.core.domain.outcome import NoAnswer
from go2hooks.core.domain.webhook import Webhook
from go2hooks.kafka.topics import TopicNames
from go2hooks.postgres.reconnecting import ReconnectingConnection
from go2hooks.settings import Settings
from services.dispatcher.app import Dispatcher
from services.dispatcher.http import build_sender
from services.dispatcher.http.tls import client_context
from services.dispatcher.identities import Identities

NAMES = TopicNames("go2")

IN_FORCE_S = 1.0


@pytest.fixture(params=["protocol", "aiohttp"])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def api_settings(database_url, secret_key, kafka_bootstrap, authority, tmp_path, kind) -> Settings:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return Settings(
        kafka_bootstrap_servers=kafka_bootstrap,
        database_url=SecretStr(database_url),
        secret_keys=secret_key,
        allow_insecure_targets=True,
        target_ca_file=tmp_path / "ca.pem",
        retry_delays="300ms,300ms,300ms,300ms,300ms,300ms,300ms",
        circuit_failures=100,
        circuit_probe_ms=100,
        delivery_timeout_s=5.0,
        disable_after_failures=100,
        sender=kind,
    )


@dataclass
class Receiver:
    """Answers 200, and notes who asked: the connection, the path, the name in the client's certificate."""

    context: ssl.SSLContext
    port: int = 0
    seen: list[tuple[int, str, str]] = field(default_factory=list)
    connections: int = 0

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        shown = writer.get_extra_info("ssl_object").getpeercert() or {}
        name = next((value for _, value in shown.get("subjectAltName", ())), "")
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(line for line in head.split(b"\r\n") if line.startswith(b"Content-Length:"))
                await reader.readexactly(int(length.split()[1]))
                self.seen.append((number, head.split()[1].decode(), name))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            writer.close()


@pytest.fixture
async def receiver(authority: trustme.CA) -> AsyncIterator[Receiver]:
    """Takes clients without a certificate, and those with one of the authority's."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_OPTIONAL
    receiver = Receiver(context)
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, ssl=context)
    receiver.port = server.sockets[0].getsockname()[1]
    yield receiver
    server.close()


@pytest.fixture
async def dispatcher(api_settings: Settings) -> AsyncIterator[Dispatcher]:
    make_topics(api_settings)
    dispatcher = Dispatcher(api_settings, build_sender(api_settings))
    await dispatcher.start()
    await until(lambda: all(dispatcher.ready().values()))
    yield dispatcher
    await dispatcher.drain(10.0)


@pytest.fixture
def deliver(api_settings: Settings, acme: Any) -> Callable[[dict[str, Any]], Delivery]:
    producer = Producer({"bootstrap.servers": api_settings.kafka_bootstrap_servers, "partitioner": "murmur2_random"})

    def write(webhook: dict[str, Any]) -> Delivery:
        event_id = f"evt_{secrets.token_hex(8)}"
        delivery = Delivery(
            delivery_id(event_id, webhook["id"]), webhook["id"], "acme", event_id, "click", "2024-01-01T12:00:00Z", b"{}",
            1, 0, Kind.EVENT, round(time.time() * 1000), False,  # noqa: FBT003
        )  # fmt: skip
        producer.produce(NAMES.deliveries, encode_delivery(delivery), webhook["id"])
        assert producer.flush(20) == 0
        return delivery

    return write


@pytest.fixture
def history(database: psycopg.Connection[Any]) -> Callable[[Delivery], list[tuple[str, str, str]]]:
    def read(delivery: Delivery) -> list[tuple[str, str, str]]:
        query = "SELECT state, error_code, error_message FROM attempts WHERE delivery_id = %s ORDER BY attempt"
        return database.execute(query, [delivery.id]).fetchall()

    return read


async def test_an_upload_a_rotation_and_a_removal_are_in_force_within_a_second(
    dispatcher, receiver, acme, authority, deliver, history
):
    webhook = acme.create(url=f"{receiver.url}/x")

    async def seen_as(name: str) -> None:
        await asyncio.sleep(IN_FORCE_S)
        delivery = deliver(webhook)
        await until(lambda: history(delivery) == [("delivered", None, None)])
        assert receiver.seen[-1][2] == name

    await seen_as("")
    for name in ("one.test", "two.test"):
        assert acme("PUT", path_of(webhook), issued(authority, name)).status_code == 200
        await seen_as(name)
    assert acme("DELETE", path_of(webhook)).status_code == 200
    await seen_as("")


async def test_a_receiver_that_requires_one_is_told_in_the_history_and_served_after_the_upload(
    dispatcher, receiver, acme, authority, deliver, history, kind
):
    receiver.context.verify_mode = ssl.CERT_REQUIRED
    receiver.context.maximum_version = ssl.TLSVersion.TLSv1_2
    webhook = acme.create(url=receiver.url)
    delivery = deliver(webhook)
    ((state, code, message),) = await until(lambda: history(delivery)[:1])
    assert state == "retrying"
    if kind == "protocol":
        assert (code, "TLS handshake" in message) == ("tls_error", True)
    assert acme("PUT", path_of(webhook), issued(authority, "one.test")).status_code == 200
    await until(lambda: history(delivery)[-1][0] == "delivered")
    assert receiver.seen == [(receiver.connections, "/", "one.test")]


async def test_webhooks_at_the_same_address_never_share_a_connection(dispatcher, receiver, acme, authority, deliver):
    names = {"/one": "one.test", "/two": "two.test", "/none": ""}
    webhooks = {path: acme.create(url=receiver.url + path) for path in names}
    for path, name in names.items():
        if name:
            acme("PUT", path_of(webhooks[path]), issued(authority, name))
    await asyncio.sleep(IN_FORCE_S)
    for turn in range(1, 6):
        for webhook in webhooks.values():
            deliver(webhook)
        await until(lambda turn=turn: len(receiver.seen) == 3 * turn)
    assert {(path, name) for _, path, name in receiver.seen} == set(names.items())
    assert len({(number, name) for number, _, name in receiver.seen}) == receiver.connections


async def test_an_expired_certificate_is_told_in_the_history_and_nothing_is_sent(
    dispatcher, receiver, acme, authority, deliver, history, database
):
    webhook = acme.create(url=receiver.url)
    acme("PUT", path_of(webhook), issued(authority, "one.test"))
    database.execute("UPDATE client_certificates SET not_after = '2026-01-02T03:04:05Z'")
    await asyncio.sleep(IN_FORCE_S)  # else it may go out as the webhook was before the upload
    delivery = deliver(webhook)
    message = "The webhook's client certificate expired at 2026-01-02T03:04:05Z."
    await until(lambda: history(delivery)[:1] == [("retrying", "tls_error", message)])
    assert receiver.connections == 0
    acme("PUT", path_of(webhook), issued(authority, "two.test"))
    await until(lambda: history(delivery)[-1][0] == "delivered")
    assert receiver.seen[-1][2] == "two.test"


async def test_a_key_that_does_not_open_is_told_in_the_history_and_healed_by_the_same_upload(
    dispatcher, receiver, acme, authority, deliver, history, database
):
    webhook, body = acme.create(url=receiver.url), issued(authority, "one.test")
    acme("PUT", path_of(webhook), body)
    database.execute(
        "UPDATE client_certificates SET sealed_key = set_byte(sealed_key, 40, get_byte(sealed_key, 40) # 1)"
    )
    await asyncio.sleep(IN_FORCE_S)  # else it may go out as the webhook was before the upload
    delivery = deliver(webhook)
    message = "The client certificate's private key could not be read."
    await until(lambda: history(delivery)[:1] == [("retrying", "secret_unavailable", message)])
    assert receiver.connections == 0
    acme("PUT", path_of(webhook), body)
    await until(lambda: history(delivery)[-1][0] == "delivered")


async def test_what_is_wrong_with_a_receivers_own_certificate_is_told_in_the_history(
    dispatcher, acme, authority, deliver, history
):
    past = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    faults = {
        "The TLS certificate has expired.": authority.issue_cert("localhost", not_after=past),
        "The TLS certificate is for another host name.": authority.issue_cert("other.test"),
    }
    for message, certificate in faults.items():
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        certificate.configure_cert(context)
        async with await asyncio.start_server(Receiver(context).serve, "127.0.0.1", 0, ssl=context) as server:
            webhook = acme.create(url=f"https://localhost:{server.sockets[0].getsockname()[1]}/")
            delivery = deliver(webhook)
            first = [("retrying", "tls_error", message)]
            await until(lambda delivery=delivery, first=first: history(delivery)[:1] == first)


@pytest.mark.parametrize("kind", ["protocol"], indirect=True)
async def test_certificates_are_fetched_and_opened_once_and_only_so_many_are_kept(
    acme, authority, database, database_url, secret_box
):
    hooks = [acme.create() for _ in range(3)]
    for hook in hooks:
        assert acme("PUT", path_of(hook), issued(authority, "one.test")).status_code == 200
    rows = database.execute("SELECT id, client_certificate FROM webhooks").fetchall()
    webhooks = [Webhook(i, "acme", "", frozenset(), True, False, b"", None, 0, digest) for i, digest in rows]  # noqa: FBT003
    made: list[ssl.SSLContext] = []

    def make() -> ssl.SSLContext:
        made.append(client_context())
        return made[-1]

    connection = ReconnectingConnection(database_url, "test")
    identities = Identities(secret_box, connection, make, max_contexts=2)

    async def open_one(webhook: Webhook) -> ssl.SSLContext:
        identity = await identities.find(webhook)
        assert identity is not None
        assert not isinstance(identity, NoAnswer)
        assert identity.name == (webhook.id, webhook.client_certificate)
        return await identity.context()

    try:
        first, second, third = webhooks
        assert len(set(await asyncio.gather(*(open_one(first) for _ in range(10))))) == len(made) == 1
        await open_one(second)
        await open_one(first)
        assert len(made) == 2
        await open_one(third)  # in the place of the second
        await open_one(first)
        assert len(made) == 3
        await open_one(second)
        assert len(made) == 4
        database.execute("DELETE FROM client_certificates WHERE webhook_id = %s", [first.id])
        assert await identities.find(first._replace(client_certificate=bytes(32))) is None
    finally:
        await connection.close()
