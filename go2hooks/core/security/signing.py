"""Both signatures of a delivery, and what a receiver does to verify them.

The page's own: hex HMAC-SHA256 of the raw body, keyed with the whole secret string. Standard Webhooks 1.0.0: base64
HMAC-SHA256 of `id.timestamp.body`, keyed with the bytes that the secret's base64 part stands for.
"""

import base64
import hmac
from binascii import b2a_base64
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

SECRET_PREFIX: Final = "whsec_"  # noqa: S105  # what a secret starts with
SECRET_BYTES: Final = 32  #: as many as SHA-256 gives out; Standard Webhooks allows 24 to 64

_BODY_PREFIX: Final = "sha256="
_STANDARD_PREFIX: Final = "v1,"


def generate_secret(random: bytes) -> str:
    """`whsec_` and the base64 of 32 bytes, which the caller draws from a cryptographic source."""
    if len(random) != SECRET_BYTES:
        raise ValueError(f"a secret is made of {SECRET_BYTES} random bytes, not {len(random)}")
    return SECRET_PREFIX + base64.b64encode(random).decode()


def body_signature(secret: str, body: bytes) -> str:
    """The value of `X-Webhook-Signature`."""
    mac = _body_mac(secret).copy()
    mac.update(body)
    return _BODY_PREFIX + mac.finalize().hex()


def standard_signature(secrets: Sequence[str], message_id: str, timestamp_s: int, body: bytes) -> str:
    """The value of `webhook-signature`: one signature per secret, the current one first, separated by spaces.

    Raises ValueError when a secret is not base64 after its prefix.
    """
    return " ".join([_standard(secret, message_id, timestamp_s, body) for secret in secrets])


def verify_body_signature(secret: str, body: bytes, header: str) -> bool:
    """Whether `X-Webhook-Signature` is that of this body. Takes the same time wherever they differ."""
    return _equal(body_signature(secret, body), header)


def verify_standard(secrets: Sequence[str], message_id: str, timestamp: int | str, body: bytes, header: str) -> bool:
    """Whether any signature in `webhook-signature` was made with any of the secrets.

    The age of `timestamp` (seconds since the epoch, as the header gives it) is the caller's to judge. Raises
    ValueError when a secret is not base64 after its prefix.
    """
    expected = [_standard(secret, message_id, timestamp, body) for secret in secrets]
    matches = [_equal(ours, theirs) for ours in expected for theirs in header.split(" ")]
    return any(matches)


def _standard(secret: str, message_id: str, timestamp: int | str, body: bytes) -> str:
    mac = _standard_mac(secret).copy()
    mac.update(f"{message_id}.{timestamp}.".encode())
    mac.update(body)
    return _STANDARD_PREFIX + b2a_base64(mac.finalize(), newline=False).decode()


# Contexts that have taken in their key, to be copied: setting one up costs more than hashing a payload. 0.8 KiB each.


@lru_cache(4096)
def _body_mac(secret: str) -> HMAC:
    return HMAC(secret.encode(), SHA256())


@lru_cache(4096)
def _standard_mac(secret: str) -> HMAC:
    return HMAC(base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True), SHA256())


def _equal(ours: str, theirs: str) -> bool:
    # As bytes: compare_digest refuses strings beyond ASCII, and a header may hold anything.
    return hmac.compare_digest(ours.encode(), theirs.encode("utf-8", "surrogatepass"))
