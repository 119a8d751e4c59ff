"""What a webhook got before, to be received again on this machine alone."""

from go2hooks.core.security.signing import body_signature, standard_signature
from go2hooks.listening.api_client import ApiClient
from go2hooks.listening.receiver import Received


def last_deliveries(api: ApiClient, webhook_id: str, number: int) -> list[str]:
    """Ids of the webhook's last deliveries, the oldest first; 100 at most. Raises ApiRefusedError or UnavailableError."""
    page = api.call("GET", f"/webhooks/{webhook_id}/deliveries?perPage={number}")
    return [delivery["id"] for delivery in reversed(page["data"])]


def receive_again(api: ApiClient, webhook_id: str, delivery_id: str, secret: str, now_s: int) -> Received | None:
    """The last request of a delivery, signed anew; None when its payload is not kept any more.

    Raises ApiRefusedError or UnavailableError.
    """
    request = api.call("GET", f"/webhooks/{webhook_id}/deliveries/{delivery_id}")["data"]["request"]
    if request["payload"] is None:
        return None
    body = request["payload"].encode()
    headers = request["headers"] | {
        "X-Webhook-Signature": body_signature(secret, body),
        "webhook-timestamp": str(now_s),
        "webhook-signature": standard_signature([secret], delivery_id, now_s, body),
    }
    return Received("/", {name.lower(): value for name, value in headers.items()}, body, tuple(headers.items()))
