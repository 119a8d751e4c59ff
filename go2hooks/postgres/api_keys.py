"""SQL of `accounts` and `api_keys`. A key is shown once, when it is made; what stays is its SHA-256."""

# ruff: noqa: S608  # what is put together are constants of this module; every value is a parameter

import hmac
import re
import secrets
import string
from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Any, Final, NamedTuple

from psycopg import Connection
from psycopg.rows import class_row

from go2hooks.core.encoding.payload import format_timestamp
from go2hooks.postgres import accounts, audit
from go2hooks.postgres.audit import Action, Actor, Change, command_line, differences

KEY_PREFIX: Final = "go2_"
_ALPHABET: Final = string.digits + string.ascii_letters
_ACCOUNT_ID: Final = re.compile(r"[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,128}")
_USE_NOTED: Final = timedelta(minutes=1)  # at most so often

_COLUMNS: Final = "id, account_id, name, scopes, expires_at, last_used_at, created_at, revoked_at"
_USABLE: Final = "revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())"
_KNOWN: Final = """SELECT id, account_id, scopes, expires_at, coalesce(expires_at <= now(), false),
        coalesce(last_used_at < now() - %s, true), key_hash FROM api_keys WHERE revoked_at IS NULL AND """
_LOOK_UP: Final = _KNOWN + "key_hash = %s"
_LOOK_UP_ID: Final = _KNOWN + "id = %s"
# SKIP LOCKED: a second session skips the row, so that no request waits for another's update.
_NOTE_USE: Final = """UPDATE api_keys SET last_used_at = now() WHERE id =
    (SELECT id FROM api_keys WHERE id = %s AND coalesce(last_used_at < now() - %s, true) FOR NO KEY UPDATE SKIP LOCKED)"""


class Scope(StrEnum):
    """What a key may do. Each includes those before it."""

    READ = "read"  #: read everything of the account but its keys
    WRITE = "write"  #: change webhooks, send, replay
    ADMIN = "admin"  #: read, make and revoke keys


ALL_SCOPES: Final = tuple(Scope)


class CreatedKey(NamedTuple):
    """A new key. `key` is the only copy of it."""

    id: str
    key: str


class NewKey(NamedTuple):
    """The values of a new key."""

    account_id: str
    name: str
    scopes: Sequence[Scope]
    expires_at: datetime | None  #: None: never


class StoredKey(NamedTuple):
    """A key as it is listed: without the key itself."""

    id: str
    account_id: str
    name: str
    scopes: list[str]
    expires_at: datetime | None
    last_used_at: datetime | None
    created_at: datetime
    revoked_at: datetime | None


class KnownKey(NamedTuple):
    """A key that a caller has presented and that is not revoked."""

    id: str
    account_id: str
    scopes: list[str]
    expires_at: datetime | None
    has_expired: bool
    is_use_to_note: bool  #: `note_use` was not called for a minute

    def may(self, scope: Scope) -> bool:
        """Whether one of its scopes is this one, or above it."""
        return any(ALL_SCOPES.index(Scope(held)) >= ALL_SCOPES.index(scope) for held in self.scopes)


def _random_text(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def hash_key(key: str) -> bytes:
    """The SHA-256 of a key, which is stored and may be kept in memory."""
    return sha256(key.encode("utf-8", "surrogatepass")).digest()


def create_key(
    conn: Connection[Any],
    account_id: str,
    name: str = "",
    scopes: Sequence[Scope] = ALL_SCOPES,
    expires_at: datetime | None = None,
) -> CreatedKey:
    """Create a key, and its account if it does not exist. The audit log names the user who runs this process.

    Raises ValueError for an id that no event could carry.
    """
    if not _ACCOUNT_ID.fullmatch(account_id):
        raise ValueError("an account id has 1 to 128 characters, none of them a control character")
    with conn.transaction():
        accounts.add(conn, account_id)
        return make_key(conn, NewKey(account_id, name, scopes, expires_at), command_line())


def make_key(conn: Connection[Any], new: NewKey, actor: Actor) -> CreatedKey:
    """Make a key of an account that is there, in the caller's transaction."""
    created = CreatedKey(f"key_{_random_text(16)}", KEY_PREFIX + _random_text(40))  # 95 and 238 bits
    conn.execute(
        "INSERT INTO api_keys (id, account_id, key_hash, name, scopes, expires_at) VALUES (%s, %s, %s, %s, %s, %s)",
        [created.id, new.account_id, hash_key(created.key), new.name, list(new.scopes), new.expires_at],
    )
    told = _told(created.id, new.name, new.scopes, new.expires_at)
    audit.record(conn, actor, Change(new.account_id, Action.KEY_CREATED, differences({}, told)))
    return created


def list_keys(conn: Connection[Any], account_id: str | None = None) -> list[StoredKey]:
    """Keys of one account or of all, revoked ones too, oldest first."""
    with conn.transaction(), conn.cursor(row_factory=class_row(StoredKey)) as cursor:
        return cursor.execute(
            f"""SELECT {_COLUMNS} FROM api_keys
               WHERE %(account)s::text IS NULL OR account_id = %(account)s
               ORDER BY account_id, created_at, id""",
            {"account": account_id},
        ).fetchall()


def standing_keys(conn: Connection[Any], account_id: str) -> list[StoredKey]:
    """An account's keys that were not revoked, oldest first."""
    with conn.cursor(row_factory=class_row(StoredKey)) as cursor:
        return cursor.execute(
            f"SELECT {_COLUMNS} FROM api_keys WHERE account_id = %s AND revoked_at IS NULL ORDER BY created_at, id",
            [account_id],
        ).fetchall()


def has_other_admin(conn: Connection[Any], account_id: str, key_id: str) -> bool:
    """Whether another key of the account may make keys."""
    found = conn.execute(
        f"SELECT 1 FROM api_keys WHERE account_id = %s AND id <> %s AND scopes @> ARRAY['admin'] AND {_USABLE} LIMIT 1",
        [account_id, key_id],
    )
    return found.fetchone() is not None


def revoke_key(conn: Connection[Any], key_id: str, actor: Actor | None = None) -> bool:
    """Revoke a key at once. False when there is no such key or it was revoked before.

    Without an actor, the audit log names the user who runs this process.
    """
    with conn.transaction():
        row = conn.execute(
            "UPDATE api_keys SET revoked_at = now() WHERE id = %s AND revoked_at IS NULL RETURNING account_id, name, scopes, expires_at",
            [key_id],
        ).fetchone()
        if row is not None:
            account_id, *rest = row
            change = Change(account_id, Action.KEY_REVOKED, differences(_told(key_id, *rest), {}))
            audit.record(conn, actor or command_line(), change)
    return row is not None


def _told(key_id: str, name: str, scopes: Sequence[str], expires_at: datetime | None) -> dict[str, Any]:
    """What the audit log says about a key."""
    expires = None if expires_at is None else format_timestamp(round(expires_at.timestamp() * 1000))
    return {"id": key_id, "name": name, "scopes": list(map(str, scopes)), "expiresAt": expires}


def look_up(conn: Connection[Any], key: str) -> KnownKey | None:
    """Find a key. None when it is unknown or revoked; both take the same time."""
    wanted = hash_key(key)
    row = conn.execute(_LOOK_UP, [_USE_NOTED, wanted]).fetchone()
    *fields, found = row if row is not None else (bytes(len(wanted)),)
    return KnownKey(*fields) if hmac.compare_digest(bytes(found), wanted) else None


def look_up_id(conn: Connection[Any], key_id: str) -> KnownKey | None:
    """The same by the id of a key that was presented before."""
    row = conn.execute(_LOOK_UP_ID, [_USE_NOTED, key_id]).fetchone()
    return None if row is None else KnownKey(*row[:-1])


def note_use(conn: Connection[Any], key_id: str) -> None:
    """Record that the key was used, unless it was recorded within the last minute or another session is doing so."""
    conn.execute(_NOTE_USE, [key_id, _USE_NOTED])
