"""Certificates of private authorities, as curl, Node and Go judge them; by every Python alike."""

import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme
from chains import Chain
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from scripted import OK, Line, blocking_server, post, server_context

from go2hooks.core.domain.outcome import Answer, Failure, NoAnswer
from services.dispatcher.http.tls import client_context

#: What VERIFY_X509_STRICT refuses, which is in the default context from Python 3.13 on.
UNSTRICT = {
    "no authority key identifier": {"leaf_has_authority_key_id": False},
    "a root without key usage": {"root_has_key_usage": False},
    "basic constraints that are not critical": {"root_says_so_critically": False},
}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "for clients": (
        {"leaf_usage": ExtendedKeyUsageOID.CLIENT_AUTH},
        "The TLS certificate is not meant for servers.",
    ),
    "issued by anybody": (
        {"root_is_authority": False},
        "The TLS certificate chain holds an issuer that is no certificate authority.",
    ),
    "a short key": (
        {"leaf_key": rsa.generate_private_key(65537, 1024)},
        "The TLS certificate's key is too short.",
    ),
}


@pytest.mark.parametrize("flaw", UNSTRICT)
async def test_what_curl_accepts_is_accepted_whatever_python_asks_for_by_default(
    receive: Any, make_sender: Any, tmp_path: Path, flaw: str
) -> None:
    context, ca_file = Chain(**UNSTRICT[flaw]).write(tmp_path)
    target = (await receive(OK, context=context)).target()
    strict = client_context(ca_file)
    strict.verify_flags |= ssl.VERIFY_X509_STRICT
    assert isinstance(await make_sender(ssl_context=strict).send(post(target)), NoAnswer)
    response = await make_sender(ssl_context=client_context(ca_file)).send(post(target))
    assert isinstance(response, Answer), response


@pytest.mark.parametrize("flaw", REFUSED)
async def test_a_certificate_that_is_no_good_is_refused_with_its_reason(
    receive: Any, make_sender: Any, tmp_path: Path, flaw: str
) -> None:
    fields, message = REFUSED[flaw]
    context, ca_file = Chain(**fields).write(tmp_path)
    receiver = await receive(OK, context=context)
    response = await make_sender(ssl_context=client_context(ca_file)).send(post(receiver.target()))
    assert isinstance(response, NoAnswer)
    assert (response.failure, response.message) == (Failure.TLS_ERROR, message)


async def test_an_intermediate_in_the_ca_file_is_trusted_by_itself(
    receive: Any, make_sender: Any, authority: trustme.CA, tmp_path: Path
) -> None:
    intermediate = authority.create_child_ca()
    ca_file = tmp_path / "intermediate.pem"
    intermediate.cert_pem.write_to_path(str(ca_file))
    receiver = await receive(OK, context=server_context(intermediate.issue_cert("localhost")))
    response = await make_sender(ssl_context=client_context(ca_file)).send(post(receiver.target()))
    assert isinstance(response, Answer), response


async def test_a_receiver_without_forward_secrecy_is_told_why_it_is_not_reached(
    sender: Any, authority: trustme.CA
) -> None:
    context = server_context(authority.issue_cert("localhost", key_type=trustme.KeyType.RSA))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("kRSA")
    with blocking_server(context) as target:
        response = await sender.send(post(target))
    assert isinstance(response, NoAnswer)
    assert response.failure == Failure.TLS_ERROR
    assert response.message.startswith("The receiver refused the TLS handshake: it shares no cipher")


# --- names with an underscore, which OpenSSL would not let a wildcard stand for


@pytest.mark.parametrize("name", ["*.hooks.test", "my_app.hooks.test"])
async def test_a_name_with_an_underscore_is_the_certificates(
    receive: Any, make_sender: Any, tmp_path: Path, name: str
) -> None:
    context, ca_file = Chain(names=("first.example", name)).write(tmp_path)
    receiver = await receive(OK, context=context)
    sender = make_sender(ssl_context=client_context(ca_file), names={"my_app.hooks.test": ["127.0.0.1"]})
    response = await sender.send(post(receiver.target("my_app.hooks.test")))
    assert isinstance(response, Answer), response


@pytest.mark.parametrize("name", ["*.other.test", "*.test"])
async def test_a_name_with_an_underscore_is_not_anybodys(
    receive: Any, make_sender: Any, tmp_path: Path, name: str
) -> None:
    arrived: list[bytes] = []

    async def script(line: Line) -> None:
        arrived.append(await line.reader.read(65536))

    context, ca_file = Chain(names=(name,)).write(tmp_path)
    receiver = await receive(script, context=context)
    sender = make_sender(ssl_context=client_context(ca_file), names={"my_app.hooks.test": ["127.0.0.1"]})
    response = await sender.send(post(receiver.target("my_app.hooks.test")))
    assert isinstance(response, NoAnswer)
    assert response.failure == Failure.TLS_ERROR
    assert response.message == "The TLS certificate is for another host name."
    await receiver.until(lambda: receiver.open == 0)
    assert not any(arrived)


async def test_other_names_are_checked_after_one_with_an_underscore(
    receive: Any, make_sender: Any, tmp_path: Path
) -> None:
    context, ca_file = Chain(names=("*.hooks.test",)).write(tmp_path)
    receiver = await receive(OK, context=context)
    sender = make_sender(ssl_context=client_context(ca_file), names={"my_app.hooks.test": ["127.0.0.1"]})
    for host, kind in (("my_app.hooks.test", Answer), ("localhost", NoAnswer), ("127.0.0.1", NoAnswer)):
        assert isinstance(await sender.send(post(receiver.target(host))), kind)
