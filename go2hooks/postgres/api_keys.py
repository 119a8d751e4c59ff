"""SQL of `accounts` and `api_keys`. A key is shown once, when it is made; what stays is its SHA-256."""

import hmac
import re
import secrets
import string
from datetime import datetime
from hashlib import sha256
from typing import Any, Final, NamedTuple

from psycopg import Connection
from psycopg.rows import class_row

KEY_PREFIX: Final = "go2_"
_ALPHABET: Final = string.digits + string.ascii_letters
_KEY_LENGTH: Final = 40  # 238 bits
_ID_LENGTH: Final = 16
_ACCOUNT_ID: Final = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,128}")


class CreatedKey(NamedTuple):
    """A new key. `key` is the only copy of it."""

    id: str
    key: str


class ApiKey(NamedTuple):
    """A key as it may be listed: without itself."""

    id: str
    account_id: str
    name: str
    created_at: datetime
    revoked_at: datetime | None


def _random_text(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def hash_key(key: str) -> bytes:
    """What is stored of a key, and may be kept in memory."""
    return sha256(key.encode("utf-8", "surrogatepass")).digest()


def create_key(conn: Connection[Any], account_id: str, name: str = "") -> CreatedKey:
    """Make a key, and the account unless it is there. Raises ValueError for an id that no event could carry."""
    if not _ACCOUNT_ID.fullmatch(account_id):
        raise ValueError("an account id has 1 to 128 characters, none of them a control character")
    created = CreatedKey(f"key_{_random_text(_ID_LENGTH)}", KEY_PREFIX + _random_text(_KEY_LENGTH))
    with conn.transaction():
        conn.execute("INSERT INTO accounts (id) VALUES (%s) ON CONFLICT DO NOTHING", [account_id])
        conn.execute(
            "INSERT INTO api_keys (id, account_id, key_hash, name) VALUES (%s, %s, %s, %s)",
            [created.id, account_id, hash_key(created.key), name],
        )
    return created


def list_keys(conn: Connection[Any], account_id: str | None = None) -> list[ApiKey]:
    """Keys of one account or of all, revoked ones too, oldest first."""
    with conn.transaction(), conn.cursor(row_factory=class_row(ApiKey)) as cursor:
        return cursor.execute(
            """SELECT id, account_id, name, created_at, revoked_at FROM api_keys
               WHERE %(account)s::text IS NULL OR account_id = %(account)s
               ORDER BY account_id, created_at, id""",
            {"account": account_id},
        ).fetchall()


def revoke_key(conn: Connection[Any], key_id: str) -> bool:
    """From now on the key opens nothing. False when there is no such key or it was revoked before."""
    with conn.transaction():
        revoked = conn.execute("UPDATE api_keys SET revoked_at = now() WHERE id = %s AND revoked_at IS NULL", [key_id])
    return revoked.rowcount == 1


def account_of_key(conn: Connection[Any], key: str) -> str | None:
    """The account that the key belongs to; None for a key that is unknown or revoked. Same cost either way."""
    wanted = hash_key(key)
    row = conn.execute(
        "SELECT account_id, key_hash FROM api_keys WHERE key_hash = %s AND revoked_at IS NULL", [wanted]
    ).fetchone()
    account_id, found = row if row is not None else (None, bytes(len(wanted)))
    return account_id if hmac.compare_digest(bytes(found), wanted) else None
