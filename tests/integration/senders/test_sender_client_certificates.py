"""Client certificates: each webhook's own is sent, on connections of its own, and a refusal is explained."""

import datetime as dt
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from scripted import OK, Line, answering, blocking_server, post, server_context

from go2hooks.core.domain.outcome import Answer, Failure, NoAnswer, Response
from go2hooks.core.errors import ClientIdentityError, SealError
from services.dispatcher.http.tls import client_context, load_identity

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
YESTERDAY = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
REQUIRED = {"1.2": "or asks for a client certificate.", "1.3": "The receiver asks for a TLS client certificate."}


class Named:
    """An identity whose context is at hand."""

    def __init__(self, context: ssl.SSLContext, webhook_id: str = "wh_1", digest: bytes = b"1") -> None:
        self.name = (webhook_id, digest)
        self._context = context

    async def context(self) -> ssl.SSLContext:
        return self._context


class Unfit:
    """An identity that cannot be opened."""

    name = ("wh_1", b"1")

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def context(self) -> ssl.SSLContext:
        raise self._error


@pytest.fixture(scope="session")
def client_authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def identify(ca_file: Path, client_authority: trustme.CA) -> Callable[..., Named]:
    """`identify("one.test")`: an identity with a certificate of that name."""

    def make(
        name: str, webhook_id: str = "wh_1", authority: trustme.CA = client_authority, not_after: Any = None
    ) -> Named:
        leaf = authority.issue_cert(name, not_after=not_after)
        context = client_context(ca_file)
        chain = "".join(part.bytes().decode() for part in leaf.cert_chain_pems)
        load_identity(context, chain, leaf.private_key_pem.bytes().decode())
        return Named(context, webhook_id, name.encode())

    return make


@pytest.fixture
def asking(authority: trustme.CA, client_authority: trustme.CA) -> Callable[..., ssl.SSLContext]:
    """A server's TLS that requires a certificate of `client_authority`."""

    def make(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
        context = server_context(authority.issue_cert("localhost"))
        context.minimum_version = context.maximum_version = version
        client_authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    return make


def peer_of(line: Line) -> str:
    """The name in the certificate that a connection's client showed."""
    shown = line.writer.get_extra_info("ssl_object").getpeercert() or {}
    return next((name for _, name in shown.get("subjectAltName", ())), "")


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_receiver_that_asks_for_a_certificate_gets_it(
    receive: Any, sender: Any, identify: Any, asking: Any, version: str
) -> None:
    receiver = await receive(OK, context=asking(VERSIONS[version]))
    for _ in range(3):
        response = await sender.send(post(receiver.target()), identify("one.test"))
        assert isinstance(response, Answer), response
    assert {peer_of(line) for line in receiver.lines} == {"one.test"}


async def test_a_receiver_that_does_not_ask_is_served_as_ever(
    receive: Any, sender: Any, identify: Any, server_tls: ssl.SSLContext
) -> None:
    receiver = await receive(OK, context=server_tls)
    assert isinstance(await sender.send(post(receiver.target()), identify("one.test")), Answer)
    assert peer_of(receiver.lines[0]) == ""


def assert_quoted(response: Response, kind: str, version: str, message: str) -> None:
    """The attempt failed with this sentence.

    In TLS 1.3 the receiver judges our certificate when our handshake is done already. Where its alert arrives before
    aiohttp has written the request, aiohttp says that it cannot write, and has dropped why.
    """
    assert isinstance(response, NoAnswer), response
    if kind == "aiohttp" and version == "1.3" and response.failure == Failure.CONNECTION_ERROR:
        return
    assert response.failure == Failure.TLS_ERROR
    assert response.message.endswith(message)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("size", [20, 900_000], ids=["small", "large"])
async def test_without_the_certificate_that_is_asked_for_the_attempt_fails_and_says_so(
    sender: Any, kind: str, asking: Any, version: str, size: int
) -> None:
    with blocking_server(asking(VERSIONS[version])) as target:
        response = await sender.send(post(target, b"x" * size))
    assert_quoted(response, kind, version, REQUIRED[version])


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_certificate_of_an_authority_that_the_receiver_does_not_know_is_said_to_be_one(
    sender: Any, kind: str, identify: Any, asking: Any, version: str
) -> None:
    with blocking_server(asking(VERSIONS[version])) as target:
        response = await sender.send(post(target), identify("one.test", authority=trustme.CA()))
    message = "The receiver does not know the authority that issued the TLS client certificate."
    assert_quoted(response, kind, version, message)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_certificate_that_the_receiver_holds_to_have_expired_is_said_to_be_one(
    sender: Any, kind: str, identify: Any, asking: Any, version: str
) -> None:
    with blocking_server(asking(VERSIONS[version])) as target:
        response = await sender.send(post(target), identify("one.test", not_after=YESTERDAY))
    assert_quoted(response, kind, version, "The receiver holds the TLS client certificate to have expired.")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("size", [20, 900_000], ids=["small", "large"])
async def test_a_refusal_that_is_cut_short_is_still_one_of_tls(
    sender: Any, kind: str, asking: Any, version: str, size: int
) -> None:
    if kind == "aiohttp":
        pytest.skip("does not tell that from a receiver that hangs up on the request")
    with blocking_server(asking(VERSIONS[version]), abrupt=True) as target:
        response = await sender.send(post(target, b"x" * size))
    assert isinstance(response, NoAnswer), response
    assert response.failure == Failure.TLS_ERROR
    cut = "during the TLS handshake." if version == "1.2" else "it may ask for another client certificate."
    assert response.message.endswith((REQUIRED[version], cut))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("with_one", [False, True], ids=["none", "wrong"])
async def test_a_receiver_that_refuses_without_a_word_is_understood(
    receive: Any, sender: Any, kind: str, identify: Any, asking: Any, version: str, with_one: bool
) -> None:
    """As asyncio's servers do: uvicorn, hypercorn, aiohttp."""
    receiver = await receive(OK, context=asking(VERSIONS[version]))
    response = await sender.send(
        post(receiver.target()), identify("one.test", authority=trustme.CA()) if with_one else None
    )
    assert isinstance(response, NoAnswer), response
    assert response.failure == (Failure.TLS_ERROR if kind != "aiohttp" else Failure.CONNECTION_ERROR)
    if kind != "aiohttp":
        assert "TLS handshake" in response.message


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("with_one", [False, True], ids=["none", "right"])
async def test_a_receiver_that_hangs_up_on_the_request_has_not_refused_the_handshake(
    receive: Any, sender: Any, identify: Any, authority: trustme.CA, asking: Any, version: str, with_one: bool
) -> None:
    async def script(line: Line) -> None:
        await line.request()

    context = asking(VERSIONS[version])
    if not with_one:
        context.verify_mode = ssl.CERT_NONE
    receiver = await receive(script, context=context)
    response = await sender.send(post(receiver.target()), identify("one.test") if with_one else None)
    assert isinstance(response, NoAnswer), response
    assert response.failure == Failure.CONNECTION_ERROR
    assert response.message == "The receiver closed the connection without a response."


async def test_a_connection_is_used_under_the_certificate_that_it_was_made_with_and_no_other(
    receive: Any, sender: Any, identify: Any, asking: Any
) -> None:
    async def script(line: Line) -> None:
        while True:
            request = await line.request()
            wanted.add((request.split(b"\r\n\r\n")[1].decode(), peer_of(line), line.number))
            await line.send(OK)

    wanted: set[tuple[str, str, int]] = set()
    context = asking()
    context.verify_mode = ssl.CERT_OPTIONAL
    receiver = await receive(script, context=context)
    one, two = identify("one.test"), identify("two.test", "wh_2")
    for _ in range(3):
        for identity, name in ((one, "one.test"), (None, ""), (two, "two.test"), (None, "")):
            response = await sender.send(post(receiver.target(), name.encode()), identity)
            assert isinstance(response, Answer), response
    assert all(expected == seen for expected, seen, _ in wanted)
    assert len(wanted) == len(receiver.lines) == 3


async def test_two_webhooks_with_the_same_certificate_share_no_connection(
    receive: Any, sender: Any, identify: Any, asking: Any, kind: str
) -> None:
    if kind == "aiohttp":
        pytest.skip("shares by context, of which each webhook has its own")
    receiver = await receive(OK, context=asking())
    context = await identify("one.test").context()
    for webhook_id in ("wh_1", "wh_2", "wh_1", "wh_2"):
        await sender.send(post(receiver.target()), Named(context, webhook_id))
    assert len(receiver.lines) == 2


async def test_a_new_certificate_makes_a_new_connection(receive: Any, sender: Any, identify: Any, asking: Any) -> None:
    receiver = await receive(answering(OK), context=asking())
    for identity in (identify("old.test"), identify("new.test")):
        assert isinstance(await sender.send(post(receiver.target()), identity), Answer)
    assert [peer_of(line) for line in receiver.lines] == ["old.test", "new.test"]


@pytest.mark.parametrize(
    ("error", "failure", "message"),
    [
        (SealError("x"), Failure.SECRET_UNAVAILABLE, "The client certificate's private key could not be read."),
        (ClientIdentityError("x"), Failure.TLS_ERROR, "The webhook's client certificate cannot be used."),
    ],
)
async def test_an_identity_that_cannot_be_opened_fails_the_attempt_before_anything_is_sent(
    receive: Any, sender: Any, asking: Any, error: Exception, failure: Failure, message: str
) -> None:
    receiver = await receive(OK, context=asking())
    response = await sender.send(post(receiver.target()), Unfit(error))
    assert isinstance(response, NoAnswer)
    assert (response.failure, response.message) == (failure, message)
    assert receiver.lines == []


def test_a_key_that_openssl_refuses_is_an_error_of_ours_and_leaves_nothing_open(client_authority: trustme.CA) -> None:
    one, other = (client_authority.issue_cert("one.test") for _ in range(2))
    chain = one.cert_chain_pems[0].bytes().decode()
    loaded = serialization.load_pem_private_key(one.private_key_pem.bytes(), None)
    encrypted = loaded.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"password"),
    ).decode()
    before = len(list(Path("/dev/fd").iterdir()))
    for key in (other.private_key_pem.bytes().decode(), encrypted, "", "x" * 100_000):
        with pytest.raises(ClientIdentityError):
            load_identity(client_context(), chain, key)
    assert len(list(Path("/dev/fd").iterdir())) == before
