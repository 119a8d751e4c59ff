"""What happened to a link, a domain, a QR code or a webhook: the event types and one event."""

from enum import StrEnum
from typing import Any, Final, NamedTuple

WILDCARD: Final = "*"  #: subscribes to every event type, those added later included


class EventType(StrEnum):
    """The catalogue, in the order of the contract."""

    CLICK = "click"
    LINK_CREATED = "link.created"
    LINK_UPDATED = "link.updated"
    LINK_DELETED = "link.deleted"
    DOMAIN_VERIFIED = "domain.verified"
    QR_SCANNED = "qr.scanned"
    WEBHOOK_DISABLED = "webhook.disabled"
    WEBHOOK_FAILING = "webhook.failing"


#: What we tell about a webhook to the account's others: `data.webhookId` never gets it.
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
