"""The audit log's entries for changes of webhooks."""

from collections.abc import Mapping
from typing import Any, Final

from go2hooks.core.errors import SealError
from go2hooks.postgres import audit
from go2hooks.postgres.audit import Action, Change, Changes, differences, fingerprint
from go2hooks.postgres.session import Session
from services.api.context import account_id, actor, services

_DERIVED: Final = frozenset({"id", "createdAt", "updatedAt", "disabledAt"})  # the entry has these anyway
_COUNTED: Final = "consecutiveFailures"


def record_creation(conn: Session, webhook_id: str, shown: Mapping[str, Any]) -> None:
    record(conn, Action.WEBHOOK_CREATED, webhook_id, _told({}, shown, _DERIVED | {_COUNTED}))


def record_deletion(conn: Session, webhook_id: str, shown: Mapping[str, Any]) -> None:
    record(conn, Action.WEBHOOK_DELETED, webhook_id, _told(shown, {}, _DERIVED | {_COUNTED}))


def record_edit(conn: Session, webhook_id: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Write the fields that differ; no entry when none does."""
    changes = _told(before, after, _DERIVED)
    action = Action.WEBHOOK_UPDATED
    if "isActive" in changes:
        action = Action.WEBHOOK_ENABLED if after["isActive"] else Action.WEBHOOK_DISABLED
    if changes:
        record(conn, action, webhook_id, changes)


def record(conn: Session, action: Action, webhook_id: str, changes: Changes) -> None:
    """Write an entry of this request, in the transaction of the change."""
    audit.record(conn, actor(), Change(account_id(), action, changes, webhook_id))


def fingerprint_of(sealed_secret: bytes, webhook_id: str) -> str | None:
    """A stored secret's fingerprint; None when no key opens it: then it can still be replaced."""
    try:
        return fingerprint(services().secret_box.open(sealed_secret, webhook_id))
    except SealError:
        return None


def _told(before: Mapping[str, Any], after: Mapping[str, Any], left_out: frozenset[str]) -> Changes:
    return {name: pair for name, pair in differences(before, after).items() if name not in left_out}
