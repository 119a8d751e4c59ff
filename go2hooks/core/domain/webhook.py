"""A webhook as router and dispatcher see it: one immutable row of the replica."""

from typing import NamedTuple

from go2hooks.core.domain.event import WILDCARD
from go2hooks.core.domain.filters import Filter


class WebhookOptions(NamedTuple):
    """Optional settings that router or dispatcher use; few webhooks have any."""

    #: The customer's headers; the value is None if it is in `sealed_headers`.
    headers: tuple[tuple[str, str | None], ...] = ()
    sealed_headers: bytes | None = None  #: encrypted JSON of the secret values by name
    rate_limit: float | None = None  #: requests per second
    max_concurrency: int | None = None  #: requests under way at once
    filter: Filter | None = None

    @property
    def is_limited(self) -> bool:
        """Whether the customer limits rate or concurrency."""
        return self.rate_limit is not None or self.max_concurrency is not None


class Webhook(NamedTuple):
    """One customer's endpoint. Secrets are encrypted ("sealed") here, and decrypted only to sign."""

    id: str
    account_id: str
    url: str
    events: frozenset[str]
    is_active: bool
    is_deleted: bool
    sealed_secret: bytes
    sealed_previous_secret: bytes | None  #: requests carry a signature by it too, until it expires
    previous_secret_expires_ms: int  #: milliseconds since the epoch; 0 without a previous secret
    client_certificate: bytes | None = None  #: digest of its certificate chain; most webhooks have none
    options: WebhookOptions | None = None  #: None without any

    def wants(self, event: str) -> bool:
        return event in self.events or WILDCARD in self.events
