"""API keys and what was done with them, as answers show them."""

from typing import Literal

from typing_extensions import TypedDict

from go2hooks.postgres.audit import FieldChange
from services.api.shapes.fields import ActorType, AuditAction, KeyScope, Moment, described


@described
class ApiKey(TypedDict):
    """A key of the account, without itself."""

    id: str
    """`key_…`: names the key, and opens nothing."""
    name: str
    """What it is for."""
    scopes: list[KeyScope]
    """What it may do: `write` includes `read`, `admin` both."""
    expiresAt: Moment | None
    """Until when it is good; null: until it is deleted."""
    lastUsedAt: Moment | None
    """When it was last used, to a minute; null: never."""
    createdAt: Moment
    """When it was made."""


@described
class ApiKeyShown(ApiKey):
    """A new key, this once with itself."""

    key: str
    """What goes into the header Authorization; never shown again."""


@described
class DeletedKey(TypedDict):
    """A key that opens nothing any more."""

    id: str
    """The key's id."""
    deleted: Literal[True]
    """Always true."""


@described
class AuditActor(TypedDict):
    """Who made a change."""

    type: ActorType
    """An API key, somebody at the operators' command line, or the system itself."""
    id: str
    """The key's id, the user's name, or the service's."""


@described
class AuditEntry(TypedDict):
    """Who changed what."""

    at: Moment
    """When."""
    actor: AuditActor
    """Who."""
    action: AuditAction
    """What was done."""
    webhookId: str | None
    """To which webhook; null for keys."""
    changes: dict[str, FieldChange]
    """Each field that changed, before and after; a secret as the first 8 hex digits of its SHA-256."""
    address: str | None
    """The address that the request came from, if there was one."""
