"""Scripted receivers, and both senders on both event loops: every test here runs for each of the six."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop
from name_server import NameServer
from scripted import HANGING_S, Receiver, Script, answering, server_context

from go2hooks.core.domain.outcome import Response
from go2hooks.core.security.addresses import AddressPolicy
from go2hooks.core.security.request import SignedRequest
from services.dispatcher.http import ExchangeLimits, Guard, HttpClient, Resolver, Sender
from services.dispatcher.http.aiohttp_sender import AiohttpSender
from services.dispatcher.http.identity import Identity
from services.dispatcher.http.resolver import AresLookup
from services.dispatcher.http.tls import client_context


class TasklessSender:
    """The fast sender as the pipeline uses it: no task if a connection is idle; every other request is corked."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._sender = HttpClient(*args, **options)
        self._corks = False

    async def send(self, request: SignedRequest, identity: Identity | None = None) -> Response:
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        if identity is None and self._send_now(request, future.set_result):
            return await future
        return await self._sender.send(request, identity)

    def _send_now(self, request: SignedRequest, on_response: Callable[[Response], None]) -> bool:
        self._corks = not self._corks
        if not self._corks:
            return self._sender.send_now(request, on_response)
        self._sender.cork()
        try:
            return self._sender.send_now(request, on_response)
        finally:
            self._sender.uncork()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sender, name)


SENDERS = {"protocol": HttpClient, "taskless": TasklessSender, "aiohttp": AiohttpSender}


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Mapping[str, Callable[[], Any]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
async def receive() -> AsyncIterator[Callable[..., Awaitable[Receiver]]]:
    """Starts receivers, each with a script of its own. A script may be bytes: the answer to every request."""
    receivers: list[Receiver] = []

    async def start(script: Script | bytes, **options: Any) -> Receiver:
        receiver = Receiver(answering(script) if isinstance(script, bytes) else script)
        receivers.append(await receiver.start(**options))
        return receiver

    yield start
    for receiver in receivers:
        await receiver.stop()


@pytest.fixture(params=SENDERS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def make_sender(kind: str, ca_file: Path) -> AsyncIterator[Callable[..., Sender]]:
    """`make_sender(timeout_s=…, body_bytes=…, policy=…, lookup=…, …)`; closed after the test, nothing left open."""
    senders: list[Sender] = []

    def make(
        timeout_s: float = HANGING_S,
        body_bytes: int = 16384,
        excerpt_bytes: int = 64,
        body_timeout_s: float = HANGING_S,
        policy: AddressPolicy | None = None,
        names: Mapping[str, list[str]] | None = None,
        lookup: Callable[[str], Awaitable[list[str]]] | None = None,
        deny_ports: Sequence[int] = (),
        ssl_context: ssl.SSLContext | None = None,
        **options: Any,
    ) -> Sender:
        known = {"localhost": ["127.0.0.1"], **(names or {})}

        async def look_up(host: str) -> list[str]:
            return known[host]

        sender = SENDERS[kind](
            ExchangeLimits(timeout_s, body_bytes, excerpt_bytes, body_timeout_s),
            resolver=Resolver(lookup or look_up, ttl_s=0.0),
            guard=Guard(policy or AddressPolicy(allow_insecure=True), deny_ports),
            ssl_context=ssl_context or client_context(ca_file),
            **options,
        )
        senders.append(sender)
        return sender

    yield make
    for sender in senders:
        await sender.close()


@pytest.fixture
def sender(make_sender: Callable[..., Sender]) -> Sender:
    return make_sender()


@pytest.fixture
async def name_server() -> AsyncIterator[NameServer]:
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(
        NameServer, local_addr=("127.0.0.1", 0)
    )
    yield server
    transport.close()


@pytest.fixture
async def resolving(
    name_server: NameServer, make_sender: Callable[..., Sender]
) -> AsyncIterator[Callable[..., Sender]]:
    """Makes senders that ask our name server."""
    lookups = []

    def make(policy: AddressPolicy, **options: Any) -> Sender:
        lookup = AresLookup([f"127.0.0.1:{name_server.port}"], timeout_s=0.2, tries=2)
        lookups.append(lookup)
        return make_sender(policy=policy, lookup=lookup, **options)

    yield make
    for lookup in lookups:
        await lookup.close()


@pytest.fixture
def full_backlog() -> Iterator[int]:
    """A port where connects are neither taken nor refused."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, contextlib.ExitStack() as stack:
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)  # noqa: FBT003
            filler.connect_ex(server.getsockname())
        yield server.getsockname()[1]


@pytest.fixture(scope="session")
def ca_file(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("authority") / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture(scope="session")
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    """A server's TLS with a certificate for localhost that the senders trust."""
    return server_context(authority.issue_cert("localhost"))
