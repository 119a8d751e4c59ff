"""How to connect to Postgres, and the keys that encrypt secrets in it."""

import base64
import binascii
from typing import Annotated

from pydantic import AfterValidator, Field, PositiveInt, SecretStr

from go2hooks.core.errors import SettingsError
from go2hooks.database_url import is_connection, read_url
from go2hooks.settings.environment import CommaSeparated, Environment


def _checked_url(value: SecretStr) -> SecretStr:
    """Refuse what libpq cannot read, in our words: libpq's own messages quote the text, and a password with it."""
    if not is_connection(value.get_secret_value()):
        raise ValueError("this is no connection URL: write it as postgresql://user:password@host:5432/database")
    read_url(value.get_secret_value())
    return value


def _decode_key(key: SecretStr) -> bytes:
    try:
        raw = base64.b64decode(key.get_secret_value(), validate=True)
    except binascii.Error:
        raise ValueError("a key is not base64") from None
    if len(raw) != 32:  # noqa: PLR2004  # AES-256
        raise ValueError("a key must be base64 of exactly 32 bytes")
    return raw


def _checked_keys(keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    for key in keys:
        _decode_key(key)
    return keys


_Url = Annotated[SecretStr, AfterValidator(_checked_url)]


class DatabaseSettings(Environment):
    database_url: _Url = Field(
        SecretStr("postgresql://postgres@localhost:5432/go2hooks"), description="Postgres connection URL"
    )
    database_direct_url: _Url | None = Field(
        None,
        description="the same past a pooler, for migrations and for being told of changes; without it they are looked for "
        "every GO2HOOKS_RECONCILE_INTERVAL_MS behind a pooler",
    )
    reconcile_interval_ms: PositiveInt = Field(
        800, description="how often the replica of webhooks checks for missed changes"
    )
    secret_keys: Annotated[CommaSeparated[SecretStr], AfterValidator(_checked_keys)] = Field(
        (),
        description="keys that encrypt webhook secrets at rest: base64 of 32 bytes each, comma separated; "
        "the first encrypts, all decrypt",
    )

    def direct_url(self) -> str:
        """The URL past a pooler; where none is set, the usual one."""
        return (self.database_direct_url or self.database_url).get_secret_value()

    def encryption_keys(self) -> tuple[bytes, ...]:
        """The raw 32-byte keys, first one first. Raises SettingsError when none is set."""
        if not self.secret_keys:
            raise SettingsError(
                "GO2HOOKS_SECRET_KEYS is not set: it encrypts webhook secrets. "
                "Make a key with: python -c 'import base64,os; print(base64.b64encode(os.urandom(32)).decode())'"
            )
        return tuple(_decode_key(key) for key in self.secret_keys)
