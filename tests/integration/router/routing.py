"""What tests of the router begin with."""

from go2hooks.core.domain.webhook import Webhook
from services.router.scheduling import RouterBounds

BOUNDS = RouterBounds(window=1000, lookahead=5000, lookahead_bytes=1 << 24, gather_s=0.0)


def webhook(webhook_id: str, account: str, *events: str, is_active: bool = True) -> Webhook:
    return Webhook(webhook_id, account, "https://a.example", frozenset(events), is_active, False, b"", None, 0)  # noqa: FBT003
