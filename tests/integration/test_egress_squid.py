"""Deliveries through a real Squid, configured as docs/operators.md has it. Skipped where none is installed."""

import asyncio
import signal
import socket
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from squid import MISSING, USERINFO, Squid, free_port

from go2hooks.cli.egress_check import check_egress_proxy
from go2hooks.core.domain.outcome import Answer, Failure, NoAnswer
from go2hooks.core.security.request import SignedRequest
from go2hooks.core.security.target import parse_target
from go2hooks.settings import Settings
from services.dispatcher.http import Sender, build_sender

pytestmark = pytest.mark.skipif(MISSING is not None, reason=MISSING or "")

HOSTS = """127.0.0.1 customer.test
10.1.2.3 inside.test
127.0.0.1 mixed.test
169.254.169.254 mixed.test
"""
NO_WAY = "Go2's own egress proxy does not let this delivery go there."


@pytest.fixture(scope="module")
def folder(authority: trustme.CA) -> Iterator[Path]:
    """Not pytest's own directory: Squid, which gives root's rights up, could not enter it."""
    with tempfile.TemporaryDirectory(prefix="go2hooks-squid-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)
        leaf = authority.issue_cert("localhost")
        (folder / "proxy.pem").write_bytes(leaf.private_key_and_cert_chain_pem.bytes())
        authority.cert_pem.write_to_path(str(folder / "ca.pem"))
        yield folder


@pytest.fixture(scope="module")
def squid(folder: Path) -> Iterator[Squid]:
    running = Squid(folder, permit=["127.0.0.1"], hosts=HOSTS, pem=folder / "proxy.pem")
    try:
        yield running.until_ready()
    finally:
        running.stop()


@pytest.fixture(params=["protocol", "aiohttp"])
async def through(request: pytest.FixtureRequest, squid: Squid) -> AsyncIterator[Callable[..., Sender]]:
    """`through("https", userinfo=…)`: a sender that public addresses alone are open to, as the settings build it."""
    senders: list[Sender] = []

    def make(scheme: str = "http", userinfo: str = USERINFO, **options: Any) -> Sender:
        port = squid.tls_port if scheme == "https" else squid.port
        settings = Settings(
            sender=request.param,
            egress_proxy=f"{scheme}://{userinfo}localhost:{port}",  # type: ignore[arg-type]  # as from the environment
            target_ca_file=squid.folder / "ca.pem",
            **options,
        )
        senders.append(build_sender(settings))
        return senders[-1]

    yield make
    for sender in senders:
        await sender.close()


@pytest.fixture
async def receiver(authority: trustme.CA) -> AsyncIterator[int]:
    """The port of one that answers every request with 200, as customer.test."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("customer.test").configure_cert(context)
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        while head := await reader.readuntil(b"\r\n\r\n"):
            assert b"roxy-" not in head
            await reader.readexactly(2)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context) as server:
        yield server.sockets[0].getsockname()[1]
        for writer in writers:
            if not writer.transport.is_closing():
                writer.transport.abort()


def post(url: str) -> SignedRequest:
    return SignedRequest(parse_target(url), (("Content-Type", "application/json"),), b"{}")


async def test_deliveries_leave_by_squid_and_by_names_that_it_alone_knows(
    through: Any, receiver: int, squid: Squid
) -> None:
    for scheme in ("http", "https"):
        before = len(squid.requests())
        sender = through(scheme)
        for _ in range(3):
            response = await sender.send(post(f"https://customer.test:{receiver}/hook"))
            assert isinstance(response, Answer), response
        await sender.close()
        async with asyncio.timeout(10):
            while len(squid.requests()) == before:  # noqa: ASYNC110  # it writes a tunnel's line when that has ended
                await asyncio.sleep(0.02)
        assert squid.requests()[before:] == [f"CONNECT customer.test:{receiver} 200"]


@pytest.mark.parametrize("host", ["inside.test", "mixed.test"])
async def test_a_name_that_leads_inside_is_refused_by_squid(through: Any, host: str) -> None:
    response = await through().send(post(f"https://{host}/"))
    assert isinstance(response, NoAnswer)
    assert (response.failure, response.message) == (Failure.PROXY_ERROR, NO_WAY)


async def test_an_address_inside_is_refused_before_squid_hears_of_it(through: Any, squid: Squid) -> None:
    before = squid.requests()
    response = await through().send(post("https://10.1.2.3/"))
    assert isinstance(response, NoAnswer)
    assert response.failure == Failure.BLOCKED_ADDRESS
    assert squid.requests() == before


@pytest.mark.parametrize("userinfo", ["", "go2:wrong@"])
async def test_squids_refusal_of_credentials_is_told_as_such(through: Any, userinfo: str) -> None:
    response = await through(userinfo=userinfo).send(post("https://customer.test/"))
    assert isinstance(response, NoAnswer)
    assert response.failure == Failure.PROXY_ERROR
    assert response.message == "Go2's own egress proxy refused Go2's credentials; nothing was sent to the receiver."


async def test_what_squid_finds_out_about_a_receiver_is_the_receivers_failure(through: Any) -> None:
    for host in (f"customer.test:{free_port()}", "nobody-has-this-name.invalid"):
        response = await through().send(post(f"https://{host}/"))
        assert isinstance(response, NoAnswer)
        assert response.failure == Failure.CONNECTION_ERROR
        assert response.message.startswith(
            "The receiver could not be reached: the egress proxy on the way there answered 50"
        )


@pytest.mark.parametrize("through", ["protocol"], indirect=True)
async def test_squid_gives_up_on_a_receiver_that_takes_no_connection_before_we_give_up_on_squid(through: Any) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)  # noqa: FBT003
            filler.connect_ex(server.getsockname())
        response = await through().send(post(f"https://customer.test:{server.getsockname()[1]}/"))
        for filler in fillers:
            filler.close()
    assert isinstance(response, NoAnswer)
    assert (response.failure, response.duration_ms < 9000) == (Failure.CONNECTION_ERROR, True), response


async def test_a_squid_that_has_stopped_answering_is_ours(through: Any, squid: Squid) -> None:
    sender = through(delivery_timeout_s=1.0)
    squid.process.send_signal(signal.SIGSTOP)
    try:
        response = await sender.send(post("https://customer.test/"))
    finally:
        squid.process.send_signal(signal.SIGCONT)
    assert isinstance(response, NoAnswer)
    assert (response.failure, response.message.startswith("Timed out after 1 s")) == (Failure.PROXY_ERROR, True)


def findings(proxy: str, folder: Path) -> list[tuple[str, bool]]:
    """What the doctor says, and whether it is content with it."""
    settings = Settings(egress_proxy=proxy, target_ca_file=folder / "ca.pem")  # type: ignore[arg-type]
    return [(finding.detail, not finding.remedy) for finding in check_egress_proxy(settings)]


def test_the_doctor_is_content_with_this_squid(squid: Squid) -> None:
    for scheme, port in (("http", squid.port), ("https", squid.tls_port)):
        assert findings(f"{scheme}://{USERINFO}localhost:{port}", squid.folder) == [
            (f"localhost:{port} answers and takes our credentials", True),
            ("it refuses 169.254.169.254, as it must", True),
        ]


def test_the_doctor_finds_wrong_credentials(squid: Squid) -> None:
    [(detail, content)] = findings(f"http://go2:wrong@localhost:{squid.port}", squid.folder)
    assert (detail, content) == (f"localhost:{squid.port} answers 407", False)


def test_the_doctor_finds_a_squid_that_lets_deliveries_go_inside(folder: Path) -> None:
    inner = folder / "open"
    inner.mkdir()
    inner.chmod(0o755)
    careless = Squid(inner, permit=["0.0.0.0/0"]).until_ready()
    try:
        begun = time.monotonic()
        found = findings(f"http://{USERINFO}127.0.0.1:{careless.port}", folder)
        assert time.monotonic() - begun < 30
    finally:
        careless.stop()
    assert [content for _, content in found] == [True, False]
    assert "does not refuse 169.254.169.254" in found[1][0]
