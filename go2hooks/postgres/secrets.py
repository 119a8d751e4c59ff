"""Webhook secrets at rest: AES-256-GCM, bound to the webhook and to the purpose.

A sealed secret is: key id (4 bytes) · nonce (12 bytes) · ciphertext with its tag. The webhook's id and the purpose are
associated data, so a sealed secret that is copied to another row, or to another column, does not open there.
"""

import os
from collections.abc import Sequence
from enum import StrEnum
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from go2hooks.core.errors import SealError, SettingsError

_KEY_ID_BYTES: Final = 4
_NONCE_BYTES: Final = 12
_HEAD_BYTES: Final = _KEY_ID_BYTES + _NONCE_BYTES


class Purpose(StrEnum):
    """What a secret is for: a prefix of the webhook's id in the associated data. No id has a colon."""

    SIGNING = ""
    CLIENT_KEY = "client-key:"
    HEADERS = "headers:"
    ANSWER = "answer:"  #: of the API, which may show a secret; bound to an account and an Idempotency-Key


def key_id(key: bytes) -> bytes:
    """The id of a key: the first four bytes of its SHA-256."""
    return sha256(key).digest()[:_KEY_ID_BYTES]


def sealed_by(sealed: bytes) -> str:
    """The id of the key that sealed it, in hex."""
    return bytes(sealed[:_KEY_ID_BYTES]).hex()


class SecretBox:
    """Encrypts with the first key and decrypts with any, so that keys can be rotated. Safe to share between threads."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        """Keys of 32 bytes each. Raises SettingsError without any, or when two share an id."""
        if not keys:
            raise SettingsError("GO2HOOKS_SECRET_KEYS is empty: name at least one key")
        self._ciphers = {key_id(key): AESGCM(key) for key in keys}
        if len(self._ciphers) != len(keys):
            raise SettingsError("GO2HOOKS_SECRET_KEYS names a key twice")
        self._sealing_id = key_id(keys[0])

    def seal(self, secret: str, webhook_id: str, purpose: Purpose = Purpose.SIGNING) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        bound_to = (purpose + webhook_id).encode()
        return self._sealing_id + nonce + self._ciphers[self._sealing_id].encrypt(nonce, secret.encode(), bound_to)

    def open(self, sealed: bytes, webhook_id: str, purpose: Purpose = Purpose.SIGNING) -> str:
        """The secret. Raises SealError when no key fits, or the bytes, their webhook or their purpose were changed."""
        sealed = bytes(sealed)
        cipher = self._ciphers.get(sealed[:_KEY_ID_BYTES])
        if cipher is None:
            raise SealError(f"the secret of {webhook_id} was sealed with a key that GO2HOOKS_SECRET_KEYS does not name")
        try:
            opened = cipher.decrypt(
                sealed[_KEY_ID_BYTES:_HEAD_BYTES], sealed[_HEAD_BYTES:], (purpose + webhook_id).encode()
            )
        except (InvalidTag, ValueError) as error:  # ValueError: a nonce cut short
            raise SealError(f"the sealed secret of {webhook_id} was altered or belongs to another webhook") from error
        return opened.decode()

    def is_current(self, sealed: bytes) -> bool:
        """Whether the first key encrypted it."""
        return bytes(sealed[:_KEY_ID_BYTES]) == self._sealing_id
