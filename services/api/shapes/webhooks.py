"""Webhooks, as answers show them."""

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from services.api.shapes.fields import Moment, Subscribed, described
from services.api.shapes.stats import Stats


@described
class SecretHeader(TypedDict):
    """A header whose value is never shown."""

    value: None
    """Never shown."""
    secret: Literal[True]
    """It is one."""


@described
class WebhookSettings(TypedDict):
    """What a webhook may be given besides name, URL and events."""

    description: str | None
    """What its owner says about it."""
    metadata: dict[str, str]
    """Its owner's own; nothing here reads it."""
    headers: dict[str, str | SecretHeader]
    """Headers of its owner's on every request; a secret value is null."""
    rateLimit: float | None
    """Requests per second at most; null for no limit."""
    maxConcurrency: int | None
    """Requests under way at once at most; null for no limit of its own."""
    filter: dict[str, list[Any]] | None
    """What an event's data must be for it to be delivered; null for all events."""


@described
class Webhook(WebhookSettings):
    """A webhook as its owner sees it."""

    id: str
    """`wh_…`"""
    name: str
    """What its owner calls it."""
    url: str
    """Where deliveries are posted to."""
    events: list[Subscribed]
    """The event types that it gets; `*` for all."""
    isActive: bool
    """Whether deliveries are sent. What arrives while it is not is recorded as skipped."""
    consecutiveFailures: int
    """Failed attempts in the order in which they began, since the last success."""
    disabledAt: Moment | None
    """When it was disabled, by failures or by its owner; null while it is active."""
    disabledReason: str | None
    """Why it was disabled; `disabled_by_user` where its owner did it, null while it is active."""
    createdAt: Moment
    """When it was made."""
    updatedAt: Moment
    """When its owner changed it last."""


@described
class WebhookWithSecret(Webhook):
    """A webhook, this once with its signing secret."""

    secret: str
    """`whsec_…`: what its deliveries are signed with. Shown this once: keep it."""


@described
class RotatedWebhook(WebhookWithSecret):
    """A webhook with its new secret."""

    previousSecretExpiresAt: Moment | None
    """Until when the previous secret signs too."""


@described
class DeletedWebhook(TypedDict):
    """What is left of it."""

    id: str
    """`wh_…`"""
    deleted: Literal[True]
    """It is gone; deliveries under way are dropped and recorded."""


@described
class ClientCertificate(TypedDict):
    """What its owner may see of a webhook's client certificate; never the key."""

    subject: str
    """Whom it names, as an RFC 4514 string."""
    issuer: str
    """Who issued it."""
    serialNumber: str
    """Hexadecimal."""
    notBefore: Moment
    """When it begins to be valid."""
    notAfter: Moment
    """When it expires: receivers refuse it from then on."""
    fingerprint: str
    """SHA-256 of the certificate, hexadecimal."""


@described
class WebhookInList(Webhook):
    """A webhook as its owner sees it, with what was asked for besides."""

    stats: NotRequired[Stats]
    """With `include=stats`: the last 24 hours, hour by hour; the last of them is the present one."""
