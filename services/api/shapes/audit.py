"""The log of changes, as answers show it."""

from typing import Annotated

from pydantic import WithJsonSchema
from typing_extensions import TypedDict

from go2hooks.postgres.audit import Action, FieldChange
from services.api.shapes.fields import Moment, described

ActorType = Annotated[str, WithJsonSchema({"type": "string", "enum": ["key", "cli", "system"]})]
AuditAction = Annotated[str, WithJsonSchema({"type": "string", "enum": [str(action) for action in Action]})]


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
