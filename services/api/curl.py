"""`/webhooks/{id}/deliveries/{deliveryId}/curl`: a delivery's request to try a receiver with, from a terminal."""

import time

from flask import Blueprint, Response

from go2hooks.core.domain.delivery import Delivery
from go2hooks.core.errors import SealError
from go2hooks.core.security.curl import curl_command
from go2hooks.core.security.request import SignedRequest, prepare
from go2hooks.postgres import webhooks
from go2hooks.postgres.webhooks import Sealed, WebhookRow
from services.api.answers import success
from services.api.context import account_id, services
from services.api.delivery import find_delivery, read_back
from services.api.errors import ApiError, webhook_not_found
from services.api.operations import Returns, operation
from services.api.shapes.deliveries import CurlCommand
from services.api.webhooks import URL_PREFIX, NoBody, admit

blueprint = Blueprint("curl", __name__, url_prefix=URL_PREFIX)
blueprint.before_request(admit)


@blueprint.post("/<webhook_id>/deliveries/<delivery_id>/curl")
@operation("A delivery as a curl command", Returns(CurlCommand), errors=(409, 410))
def make_curl(webhook_id: str, delivery_id: str, body: NoBody) -> Response:  # noqa: ARG001  # read, to refuse what it holds
    """Signed at this moment, with the number of the last attempt. Nothing is sent, and nothing is recorded.

    Who has it can send it, as long as its receiver takes the signature: so it needs the scope `write`. It holds neither the
    signing secret nor the webhook's own headers that are secret.
    """
    webhook, rows = find_delivery(webhook_id, delivery_id)
    kept = read_back(delivery_id, rows)
    if kept is None:
        raise ApiError(410, "payload_expired", "Kafka no longer has the payload of this delivery.")
    with services().pool.transaction() as conn:
        sealed = webhooks.sealed(conn, account_id(), webhook_id)
    if sealed is None:
        raise webhook_not_found()
    last = rows[0].delivery
    signed = _sign(kept._replace(attempt=max(1, last.attempt)), webhook, sealed)
    command: CurlCommand = {
        "command": curl_command(signed, webhook.url),
        "secretHeaders": [name for name, value in webhook.headers or () if value is None],
        "needsClientCertificate": sealed.has_certificate,
    }
    return success(command)


def _sign(delivery: Delivery, webhook: WebhookRow, sealed: Sealed) -> SignedRequest:
    """Raises ApiError 409 when no key of the deployment opens the secret."""
    try:
        secrets = [services().secret_box.open(sealed.secret, webhook.id)]
    except SealError:
        message = "The webhook's secret cannot be read: rotate it, and this works again."
        raise ApiError(409, "secret_unavailable", message) from None
    if sealed.previous_secret is not None:
        secrets += _opened(sealed.previous_secret, webhook.id)
    own = tuple((name, value) for name, value in webhook.headers or () if value is not None)
    now_ms = time.time_ns() // 1_000_000
    return prepare(delivery, webhook.url, secrets, now_ms, services().settings.webhook_id_header, own)


def _opened(sealed: bytes, webhook_id: str) -> list[str]:
    """As in dispatchers, a previous secret that no key opens does not sign."""
    try:
        return [services().secret_box.open(sealed, webhook_id)]
    except SealError:
        return []
