"""The event types, and one event: something that happened to a link, a domain, a QR code or a webhook."""

from enum import StrEnum
from typing import Any, Final, NamedTuple

WILDCARD: Final = "*"  #: subscribes to every event type, also to types added later


class EventType(StrEnum):
    """All event types, in the order of the API page."""

    CLICK = "click"
    LINK_CREATED = "link.created"
    LINK_UPDATED = "link.updated"
    LINK_DELETED = "link.deleted"
    DOMAIN_VERIFIED = "domain.verified"
    QR_SCANNED = "qr.scanned"
    WEBHOOK_DISABLED = "webhook.disabled"
    WEBHOOK_FAILING = "webhook.failing"


#: Events about a webhook, for the account's other webhooks: the webhook in `data.webhookId` never gets them.
ABOUT_WEBHOOKS: Final = frozenset({EventType.WEBHOOK_DISABLED, EventType.WEBHOOK_FAILING})
PRODUCED: Final = tuple(kind for kind in EventType if kind not in ABOUT_WEBHOOKS)  #: what producers write
SUBSCRIBABLE: Final = (*EventType, WILDCARD)  #: every name that a webhook may subscribe to


class Event(NamedTuple):
    """One decoded event. `data` has the fields of its schema, in their order."""

    id: str  #: evt_…, set by the producer: the idempotency key
    account_id: str
    type: str
    timestamp_ms: int  #: when it happened, milliseconds since the epoch, UTC
    data: dict[str, Any]
