"""TLS: what is accepted, what is refused, and the sentence that says why."""

import asyncio
import datetime as dt
import ssl
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from scripted import OK, Line, answering, blocking_server, post, server_context

from go2hooks.core.domain.outcome import Answer, Failure, NoAnswer


def self_signed(directory: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    file = directory / "self-signed.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


def without_intermediate(authority: trustme.CA, directory: Path) -> ssl.SSLContext:
    leaf = authority.create_child_ca().issue_cert("localhost")
    file = directory / "leaf.pem"
    file.write_bytes(leaf.private_key_pem.bytes() + leaf.cert_chain_pems[0].bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


def only_tls_1_1(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # that is the point
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    authority.issue_cert("localhost").configure_cert(context)
    return context


def with_one_cipher(authority: trustme.CA) -> ssl.SSLContext:
    context = server_context(authority.issue_cert("localhost"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("PSK")
    return context


def asking_for_a_client_certificate(authority: trustme.CA) -> ssl.SSLContext:
    context = server_context(authority.issue_cert("localhost"))
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


YESTERDAY = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
TOMORROW = dt.datetime.now(dt.UTC) + dt.timedelta(days=1)
REFUSED: dict[str, tuple[Callable[[trustme.CA, Path], ssl.SSLContext], str]] = {
    "expired": (
        lambda ca, _: server_context(ca.issue_cert("localhost", not_after=YESTERDAY)),
        "The TLS certificate has expired.",
    ),
    "not valid yet": (
        lambda ca, _: server_context(ca.issue_cert("localhost", not_before=TOMORROW)),
        "The TLS certificate is not valid yet.",
    ),
    "another host": (
        lambda ca, _: server_context(ca.issue_cert("other.example")),
        "The TLS certificate is for another host name.",
    ),
    "self-signed": (lambda _, directory: self_signed(directory), "The TLS certificate is self-signed."),
    "unknown authority": (
        lambda _, __: server_context(trustme.CA().issue_cert("localhost")),
        "The TLS certificate was issued by an unknown authority, or an intermediate certificate is missing.",
    ),
    "intermediate missing": (
        without_intermediate,
        "The TLS certificate was issued by an unknown authority, or an intermediate certificate is missing.",
    ),
}
REFUSING: dict[str, tuple[Callable[[trustme.CA], ssl.SSLContext], str]] = {
    "TLS 1.1": (only_tls_1_1, "The receiver offers no TLS version that is accepted (1.2 or later)."),
    "no cipher in common": (
        with_one_cipher,
        (
            "The receiver refused the TLS handshake: "
            "it shares no cipher or curve with the sender, or asks for a client certificate."
        ),
    ),
    "client certificate": (asking_for_a_client_certificate, "The receiver asks for a TLS client certificate."),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_bad_tls_is_refused_with_its_reason(
    receive: Any, sender: Any, authority: trustme.CA, tmp_path: Path, name: str
) -> None:
    make_context, message = REFUSED[name]
    receiver = await receive(OK, context=make_context(authority, tmp_path))
    response = await sender.send(post(receiver.target()))
    assert isinstance(response, NoAnswer), response
    assert response.failure == Failure.TLS_ERROR
    assert response.message == message


@pytest.mark.parametrize("name", REFUSING)
async def test_a_receiver_that_refuses_our_tls_is_quoted(
    sender: Any, kind: str, authority: trustme.CA, name: str
) -> None:
    if kind == "aiohttp" and name == "client certificate":
        pytest.skip("in TLS 1.3 the alert comes after the handshake, and aiohttp may lose it")
    make_context, message = REFUSING[name]
    with blocking_server(make_context(authority)) as target:
        response = await sender.send(post(target))
    assert isinstance(response, NoAnswer), response
    assert response.failure == Failure.TLS_ERROR
    assert response.message == message


async def test_a_trusted_receiver_answers_over_one_kept_connection(
    receive: Any, sender: Any, server_tls: ssl.SSLContext
) -> None:
    receiver = await receive(OK, context=server_tls)
    for _ in range(5):
        response = await sender.send(post(receiver.target()))
        assert isinstance(response, Answer), response
        assert response.excerpt == b"ok"
    assert len(receiver.lines) == 1


async def test_what_follows_an_answer_in_a_record_of_its_own_never_becomes_the_next_one(
    receive: Any, sender: Any, server_tls: ssl.SSLContext, kind: str
) -> None:
    if kind == "aiohttp":
        pytest.skip("aiohttp takes the first answer for broken")

    async def script(line: Line) -> None:
        while True:
            await line.request()
            line.writer.write(OK)  # two records, which travel together
            await line.send(b"HTTP/1.1 500 Forged\r\nContent-Length: 0\r\n\r\n")

    receiver = await receive(script, context=server_tls)
    for _ in range(3):
        response = await sender.send(post(receiver.target()))
        assert isinstance(response, Answer)
        assert response.status == 200
    assert len(receiver.lines) == 3


@pytest.mark.parametrize("size", [16_384, 16_385, 200_000])
async def test_a_body_of_many_records_arrives_whole(
    receive: Any, make_sender: Any, server_tls: ssl.SSLContext, size: int
) -> None:
    """In both directions; a record holds 16 KiB."""
    body = bytes(range(256)) * (size // 256 + 1)
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode() + body[:size]
    arrived: list[bool] = []

    async def script(line: Line) -> None:
        while True:
            arrived.append((await line.request()).endswith(body[:size]))
            await line.send(answer)

    sender = make_sender(body_bytes=1_000_000, excerpt_bytes=1_000_000)
    receiver = await receive(script, context=server_tls)
    for _ in range(2):
        response = await sender.send(post(receiver.target(), body[:size]))
        assert isinstance(response, Answer), response
        assert response.excerpt == body[:size]
    assert arrived == [True, True]
    assert len(receiver.lines) == 1


async def test_tls_1_2_is_accepted(receive: Any, sender: Any, authority: trustme.CA) -> None:
    context = server_context(authority.issue_cert("localhost"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    receiver = await receive(OK, context=context)
    assert isinstance(await sender.send(post(receiver.target())), Answer)


async def test_the_receiver_learns_its_name_by_sni(receive: Any, make_sender: Any, authority: trustme.CA) -> None:
    names = []
    context = server_context(authority.issue_cert("hooks.test"))
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    sender = make_sender(names={"hooks.test": ["127.0.0.1"]})
    receiver = await receive(OK, context=context)
    assert isinstance(await sender.send(post(receiver.target("hooks.test"))), Answer)
    assert names == ["hooks.test"]


async def test_a_certificate_for_an_ip_address_is_accepted_at_that_address(
    receive: Any, sender: Any, authority: trustme.CA
) -> None:
    receiver = await receive(OK, context=server_context(authority.issue_cert("127.0.0.1")))
    assert isinstance(await sender.send(post(receiver.target("127.0.0.1"))), Answer)


async def test_a_certificate_for_another_ip_address_is_refused(
    receive: Any, sender: Any, authority: trustme.CA
) -> None:
    receiver = await receive(OK, context=server_context(authority.issue_cert("127.0.0.2")))
    response = await sender.send(post(receiver.target("127.0.0.1")))
    assert isinstance(response, NoAnswer)
    assert response.message == "The TLS certificate is for another IP address."


async def test_a_receiver_that_speaks_no_tls_is_said_to(receive: Any, sender: Any) -> None:
    async def script(line: Line) -> None:
        await line.reader.read(1)
        await line.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    receiver = await receive(script)
    response = await sender.send(post(receiver.target()._replace(scheme="https")))
    assert isinstance(response, NoAnswer)
    assert response.failure == Failure.TLS_ERROR
    assert response.message == "The receiver does not speak TLS on this port."


@pytest.mark.parametrize("with_reset", [False, True], ids=["closed", "reset"])
async def test_a_receiver_that_hangs_up_in_the_handshake_is_said_to(
    receive: Any, sender: Any, kind: str, with_reset: bool
) -> None:
    async def script(line: Line) -> None:
        await line.reader.read(1)
        if with_reset:
            line.reset()

    receiver = await receive(script)
    response = await sender.send(post(receiver.target()._replace(scheme="https")))
    assert isinstance(response, NoAnswer)
    assert response.failure == (Failure.TLS_ERROR if kind != "aiohttp" else Failure.CONNECTION_ERROR)


@pytest.mark.parametrize("tickets", [0, 8, 5000])
async def test_tls_of_its_own_is_read_within_bounds(
    receive: Any, make_sender: Any, authority: trustme.CA, kind: str, tickets: int
) -> None:
    """OpenSSL works off as much of it as it is given, and all other deliveries stand still meanwhile."""
    if kind == "aiohttp" and tickets > 8:
        pytest.skip("aiohttp reads it all")
    context = server_context(authority.issue_cert("localhost"))
    context.num_tickets = tickets
    receiver = await receive(OK, context=context)
    response = await make_sender().send(post(receiver.target()))
    if tickets > 8:
        assert isinstance(response, NoAnswer)
        assert response.failure == Failure.TLS_ERROR
        assert response.message == "The receiver sent too many TLS messages that are no response."
    else:
        assert isinstance(response, Answer), response


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
async def test_a_receiver_that_closes_after_each_answer_answers_all_the_same(
    receive: Any, make_sender: Any, server_tls: ssl.SSLContext, kind: str, tls: bool
) -> None:
    """It does not say so beforehand, and there are many who wait for a connection."""
    if kind == "aiohttp":
        pytest.skip("aiohttp opens one for each")

    async def script(line: Line) -> None:
        await line.request()
        line.writer.write(OK)
        line.writer.close()

    receiver = await receive(script, context=server_tls if tls else None)
    sender = make_sender()
    responses = await asyncio.gather(*(sender.send(post(receiver.target())) for _ in range(100)))
    assert [response for response in responses if not isinstance(response, Answer)] == []


async def test_a_receiver_without_tickets_that_hangs_up_on_the_request_has_not_refused_the_handshake(
    receive: Any, sender: Any, authority: trustme.CA
) -> None:
    """Who says farewell has taken the handshake for ended."""
    context = server_context(authority.issue_cert("localhost"))
    context.num_tickets = 0

    async def script(line: Line) -> None:
        await line.request()

    receiver = await receive(script, context=context)
    response = await sender.send(post(receiver.target()))
    assert isinstance(response, NoAnswer)
    assert response.failure == Failure.CONNECTION_ERROR


async def test_a_farewell_on_an_idle_connection_is_understood(
    receive: Any, sender: Any, server_tls: ssl.SSLContext
) -> None:
    async def script(line: Line) -> None:
        await line.request()
        await line.send(OK)

    receiver = await receive(script, context=server_tls)
    for _ in range(3):
        assert isinstance(await sender.send(post(receiver.target())), Answer)
        await receiver.until(lambda: receiver.open == 0)
    assert len(receiver.lines) == 3


async def test_a_body_that_ends_with_the_connection_counts_over_tls(
    receive: Any, sender: Any, server_tls: ssl.SSLContext
) -> None:
    async def script(line: Line) -> None:
        await line.request()
        await line.send(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")

    receiver = await receive(script, context=server_tls)
    response = await sender.send(post(receiver.target()))
    assert isinstance(response, Answer)
    assert response.excerpt == b"until the end"


@pytest.mark.parametrize(("sent", "counts"), [(b"\r\n\r\nhalf", True), (b"\r\n", False)], ids=["body", "head"])
async def test_a_connection_cut_without_farewell_over_tls_matters_in_a_head_and_not_in_a_body(
    receive: Any, sender: Any, server_tls: ssl.SSLContext, sent: bytes, counts: bool
) -> None:
    async def script(line: Line) -> None:
        await line.request()
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100" + sent)
        await asyncio.sleep(0.05)  # for it to be read
        line.writer.transport.abort()

    receiver = await receive(script, context=server_tls)
    response = await sender.send(post(receiver.target()))
    if counts:
        assert isinstance(response, Answer), response
    else:
        assert isinstance(response, NoAnswer)
        assert response.failure == Failure.CONNECTION_ERROR


async def test_a_body_that_does_not_end_is_closed_over_tls_too(
    receive: Any, make_sender: Any, server_tls: ssl.SSLContext
) -> None:
    sender = make_sender(body_timeout_s=0.1)

    async def script(line: Line) -> None:
        await line.request()
        await line.send(b"HTTP/1.1 200 OK\r\n\r\nand then nothing")
        await line.until_closed()

    receiver = await receive(script, context=server_tls)
    for connections in (1, 2):
        response = await sender.send(post(receiver.target()))
        assert isinstance(response, Answer), response
        assert response.excerpt == b"and then nothing"
        assert len(receiver.lines) == connections
    await receiver.until(lambda: receiver.open == 0)


async def test_a_receiver_that_ignores_our_farewell_does_not_hold_the_connection(
    receive: Any, make_sender: Any, server_tls: ssl.SSLContext
) -> None:
    sender = make_sender(pool_idle_s=0.1)

    async def script(line: Line) -> None:
        await line.request()
        await line.send(OK)
        line.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await held.wait()
        line.writer.transport.abort()

    held = asyncio.Event()
    receiver = await receive(script, context=server_tls)
    assert isinstance(await sender.send(post(receiver.target())), Answer)
    await asyncio.sleep(0.3)
    async with asyncio.timeout(4):
        await sender.close()
    held.set()


async def test_many_hosts_behind_one_address_are_told_apart(
    receive: Any, make_sender: Any, authority: trustme.CA
) -> None:
    sender = make_sender(names={"one.test": ["127.0.0.1"], "two.test": ["127.0.0.1"]})
    receiver = await receive(answering(OK), context=server_context(authority.issue_cert("one.test")))
    assert isinstance(await sender.send(post(receiver.target("one.test"))), Answer)
    response = await sender.send(post(receiver.target("two.test")))
    assert isinstance(response, NoAnswer)
    assert response.failure == Failure.TLS_ERROR
