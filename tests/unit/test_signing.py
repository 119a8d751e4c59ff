"""Both signatures, against the specifications and against independent computations."""

import base64
import hashlib
import hmac
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from go2hooks.core.domain.event import EventType
from go2hooks.core.domain.samples import example_payload
from go2hooks.core.encoding.canonical import dumps
from go2hooks.core.encoding.payload import render
from go2hooks.core.security.signing import (
    body_signature,
    generate_secret,
    standard_signature,
    verify_body_signature,
    verify_standard,
)

secrets = st.binary(min_size=32, max_size=32).map(generate_secret)
moments = st.integers(0, 2**40)

# From the Standard Webhooks reference libraries.
SPEC = {
    "secrets": ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"],
    "message_id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "timestamp_s": 1614265330,
    "body": b'{"test": 2432232314}',
}
SPEC_SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_vector_of_the_standard_webhooks_specification() -> None:
    assert standard_signature(**SPEC) == SPEC_SIGNATURE


def test_the_vector_of_rfc_4231() -> None:
    """Test case 2: the key is the whole secret string, whatever it looks like."""
    assert (
        body_signature("Jefe", b"what do ya want for nothing?")
        == "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )


def test_a_secret_is_the_prefix_and_32_bytes_in_base64() -> None:
    secret = generate_secret(bytes(range(32)))
    assert secret == "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
    assert base64.b64decode(secret.removeprefix("whsec_")) == bytes(range(32))


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_secret_is_made_of_nothing_but_32_bytes(length: int) -> None:
    with pytest.raises(ValueError, match="32 random bytes"):
        generate_secret(b"x" * length)


@given(secrets, st.binary())
def test_the_body_signature_is_hmac_sha256_in_hex(secret: str, body: bytes) -> None:
    inner = hmac.new(secret.encode(), body, hashlib.sha256)
    assert body_signature(secret, body) == "sha256=" + inner.hexdigest()


@given(st.lists(secrets, min_size=1, max_size=2), st.text(st.characters(codec="ascii")), moments, st.binary())
def test_the_standard_signature_is_one_hmac_per_secret(
    keys: list[str], message_id: str, moment: int, body: bytes
) -> None:
    signed = f"{message_id}.{moment}.".encode() + body
    expected = [hmac.new(base64.b64decode(key[6:]), signed, hashlib.sha256).digest() for key in keys]
    header = standard_signature(keys, message_id, moment, body)
    assert header.split(" ") == ["v1," + base64.b64encode(digest).decode() for digest in expected]


@pytest.mark.parametrize("event_type", EventType)
def test_the_pages_own_verifier_accepts_what_we_sign(
    javascript: Callable[[dict[str, str]], str], event_type: EventType
) -> None:
    secret = generate_secret(b"s" * 32)
    body = render(example_payload(event_type)).body
    assert javascript({"text": body.decode(), "secret": secret}) == body_signature(secret, body)


@given(secrets, st.text(), st.text())
def test_the_pages_own_verifier_accepts_any_text(
    javascript: Callable[[dict[str, str]], str], secret: str, key: str, text: str
) -> None:
    body = dumps({"data": {key: text}})
    assert javascript({"text": body.decode(), "secret": secret}) == body_signature(secret, body)


@given(secrets, st.binary())
def test_our_own_signatures_verify(secret: str, body: bytes) -> None:
    assert verify_body_signature(secret, body, body_signature(secret, body))
    assert verify_standard(
        [secret], "dlv_1", "1700000000", body, standard_signature([secret], "dlv_1", 1700000000, body)
    )


@given(secrets, secrets, st.binary(), st.text())
def test_nothing_else_verifies(secret: str, other: str, body: bytes, noise: str) -> None:
    header = body_signature(secret, body)
    assert not verify_body_signature(secret, body + b"x", header)
    assert not verify_body_signature(secret, body, header.removeprefix("sha256="))
    assert not verify_body_signature(secret, body, noise)
    assert verify_body_signature(other, body, header) == (other == secret)


@pytest.mark.parametrize(
    "change",
    [
        {"message_id": "msg_other"},
        {"timestamp": "1614265331"},
        {"body": b'{"test":2432232314}'},
        {"secrets": [generate_secret(b"o" * 32)]},
        {"secrets": []},
        {"header": SPEC_SIGNATURE.replace("v1,", "v2,")},
        {"header": ""},
        {"header": "v1, " + "é\ud800"},
        {"header": SPEC_SIGNATURE[:-1]},
    ],
    ids=str,
)
def test_a_standard_signature_covers_id_time_body_and_version(change: dict[str, object]) -> None:
    right = {
        "secrets": SPEC["secrets"],
        "message_id": SPEC["message_id"],
        "timestamp": "1614265330",
        "body": SPEC["body"],
        "header": SPEC_SIGNATURE,
    }
    assert verify_standard(**right)
    assert not verify_standard(**(right | change))


@given(secrets, secrets)
def test_during_the_overlap_either_secret_verifies(new: str, old: str) -> None:
    header = standard_signature([new, old], "dlv_1", 1, b"{}")
    assert verify_standard([new], "dlv_1", 1, b"{}", header)
    assert verify_standard([old], "dlv_1", 1, b"{}", header)


def test_a_secret_that_is_not_base64_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="base64"):
        standard_signature(["whsec_***"], "dlv_1", 1, b"")
