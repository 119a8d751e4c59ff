"""A subscription as router and dispatcher see it: one immutable row of the replica."""

from typing import NamedTuple

from go2hooks.core.domain.event import WILDCARD
from go2hooks.core.domain.filters import Filter


class WebhookOptions(NamedTuple):
    """What few webhooks have, and the data plane acts on."""

    headers: tuple[
        tuple[str, str | None], ...
    ] = ()  #: the customer's own; None where the value is among the sealed ones
    sealed_headers: bytes | None = None  #: JSON of the secret values by name
    rate_limit: float | None = None  #: requests per second
    max_concurrency: int | None = None  #: requests under way at once
    filter: Filter | None = None

    @property
    def is_limited(self) -> bool:
        """Whether the customer allows only so many requests."""
        return self.rate_limit is not None or self.max_concurrency is not None


class Webhook(NamedTuple):
    """One customer's endpoint. Secrets stay sealed (encrypted) here and are opened only to sign."""

    id: str
    account_id: str
    url: str
    events: frozenset[str]
    is_active: bool
    is_deleted: bool
    sealed_secret: bytes
    sealed_previous_secret: bytes | None  #: signs too until the overlap ends
    previous_secret_expires_ms: int  #: milliseconds since the epoch; 0 without a previous secret
    client_certificate: bytes | None = None  #: digest of the chain that it identifies itself by; most have none
    options: WebhookOptions | None = None  #: None when it has none of them

    def wants(self, event: str) -> bool:
        return event in self.events or WILDCARD in self.events
