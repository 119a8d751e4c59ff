"""A subscription as router and dispatcher see it: one immutable row of the live copy."""

from typing import NamedTuple

from go2hooks.core.event import WILDCARD


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

    def wants(self, event: str) -> bool:
        return event in self.events or WILDCARD in self.events
