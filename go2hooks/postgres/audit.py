"""SQL of `audit_log`: who changed what, written in the transaction that changes it, and read newest first.

It never holds a secret: `fingerprint` takes its place.
"""

import getpass
import os
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Annotated, Any, Final, NamedTuple

from psycopg import AsyncConnection, Connection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb
from pydantic import Field
from typing_extensions import TypedDict

from go2hooks.postgres import idempotency

_Before = Annotated[Any, Field(description="What it was; null where there was none.")]
_After = Annotated[Any, Field(description="What it is now; null where there is none.")]
FieldChange = TypedDict("FieldChange", {"from": _Before, "to": _After})
Changes = dict[str, FieldChange]  #: by field: {"from": …, "to": …}
_INSERT: Final = """INSERT INTO audit_log (account_id, webhook_id, actor_type, actor_id, action, changes, address)
    VALUES (%s, %s, %s, %s, %s, %s, %s)"""
_PAGE: Final = """SELECT at, id, webhook_id, actor_type, actor_id, action, changes, address FROM audit_log
    WHERE account_id = %(account)s AND (%(below)s::timestamptz IS NULL OR (at, id) < (%(below)s, %(below_id)s))
    ORDER BY at DESC, id DESC LIMIT %(limit)s"""
# Forces the webhook's index: in the account's index a webhook's entries are scattered.
_PAGE_OF_WEBHOOK: Final = _PAGE.replace(
    "account_id = %(account)s", "webhook_id = %(webhook)s AND (account_id = %(account)s) IS TRUE"
)
# Runs in the recorder's transaction, and reads the rows as it has just written them.
_DISABLED: Final = """INSERT INTO audit_log (account_id, webhook_id, actor_type, actor_id, action, changes)
    SELECT account_id, id, 'system', 'dispatcher', 'webhook.disabled', jsonb_build_object(
        'isActive', jsonb_build_object('from', true, 'to', false),
        'disabledReason', jsonb_build_object('from', NULL, 'to', disabled_reason))
    FROM webhooks WHERE id = ANY(%s)"""


class Action(StrEnum):
    """What was done."""

    WEBHOOK_CREATED = "webhook.created"
    WEBHOOK_UPDATED = "webhook.updated"
    WEBHOOK_ENABLED = "webhook.enabled"
    WEBHOOK_DISABLED = "webhook.disabled"
    WEBHOOK_DELETED = "webhook.deleted"
    SECRET_ROTATED = "webhook.secret_rotated"  # noqa: S105  # an action's name
    SECRET_RESEALED = "webhook.secret_resealed"  # noqa: S105
    CERTIFICATE_PUT = "webhook.client_certificate_put"
    CERTIFICATE_REMOVED = "webhook.client_certificate_removed"
    REPLAY_STARTED = "webhook.replay_started"
    REPLAY_STOPPED = "webhook.replay_stopped"
    KEY_CREATED = "key.created"
    KEY_REVOKED = "key.revoked"
    DEAD_LETTERS_SENT_BACK = "dead_letters.sent_back"


class Actor(NamedTuple):
    """Who makes a change."""

    type: str  #: key, cli, system
    id: str
    address: str | None = None  #: that a request came from


class Change(NamedTuple):
    """What was changed."""

    account_id: str
    action: Action
    changes: Changes
    webhook_id: str | None = None


class AuditRow(NamedTuple):
    """An entry as it is shown."""

    at: datetime
    id: int
    webhook_id: str | None
    actor_type: str
    actor_id: str
    action: str
    changes: Changes
    address: str | None


def command_line() -> Actor:
    """The operating system's user who runs this command, by name or number."""
    try:
        return Actor("cli", getpass.getuser())
    except (KeyError, OSError):  # a container's user may have no name
        return Actor("cli", str(os.getuid()))


def fingerprint(secret: str | bytes) -> str:
    """The first 8 hex digits of the secret's SHA-256: enough to tell secrets apart."""
    raw = secret.encode() if isinstance(secret, str) else bytes(secret)
    return sha256(raw).hexdigest()[:8]


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> Changes:
    """The fields that differ. A field that is missing on one side counts as null there."""
    names = dict.fromkeys((*before, *after))
    pairs = {name: (before.get(name), after.get(name)) for name in names}
    return {name: {"from": old, "to": new} for name, (old, new) in pairs.items() if old != new}


def record(conn: Connection[Any], actor: Actor, change: Change) -> None:
    """Write an entry, in the transaction of the change."""
    values = (change.account_id, change.webhook_id, actor.type, actor.id, change.action)
    conn.execute(_INSERT, [*values, Jsonb(change.changes), actor.address])


async def record_disabled(connection: AsyncConnection[Any], webhook_ids: list[str]) -> None:
    """Write that these webhooks were disabled for their failures, in the transaction that disabled them."""
    await connection.execute(_DISABLED, [webhook_ids])


def page(
    conn: Connection[Any], account_id: str, webhook_id: str | None, limit: int, below: tuple[datetime, int] | None
) -> list[AuditRow]:
    """An account's entries, or those of one of its webhooks, newest first; read along an index."""
    at, entry_id = below or (None, None)
    values = {"account": account_id, "webhook": webhook_id, "limit": limit, "below": at, "below_id": entry_id}
    with conn.cursor(row_factory=class_row(AuditRow)) as cursor:
        return cursor.execute(_PAGE if webhook_id is None else _PAGE_OF_WEBHOOK, values).fetchall()


async def forget_old(connection: AsyncConnection[Any], retention_days: int) -> None:
    """Delete entries past the retention, and answers to repeated POSTs that are no longer kept."""
    async with connection.transaction():
        await connection.execute("SELECT forget_old_changes(%s, %s)", [retention_days, idempotency.KEPT])
