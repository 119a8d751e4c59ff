"""`/webhooks/{id}/deliveries/{deliveryId}`: all that is known of one delivery, and the way to send it again."""

from flask import Blueprint, Response

from go2hooks.core.domain.delivery import Delivery, Kind, redelivered
from go2hooks.core.domain.outcome import State
from go2hooks.core.security.request import shown_headers
from go2hooks.postgres import redeliveries
from go2hooks.postgres.attempts import deliveries, to_ms
from go2hooks.postgres.attempts.deliveries import AttemptRow, DeliveryRow, LatestRow
from go2hooks.postgres.webhooks import WebhookRow
from services.api.answers import iso, success
from services.api.context import account_id, services
from services.api.deliveries import DELIVERY_ID, milliseconds, shown_facts
from services.api.errors import ApiError
from services.api.operations import Returns, operation
from services.api.sending import WaitQuery, answer_sent, place_at_kafka, shown_result
from services.api.shapes.deliveries import AcceptedRedelivery, Attempt, DeliveryDetail, RedeliveryResult, SentRequest
from services.api.shapes.fields import TRIGGERS
from services.api.webhooks import URL_PREFIX, NoBody, admit, own_webhook

blueprint = Blueprint("delivery", __name__, url_prefix=URL_PREFIX)
blueprint.before_request(admit)


@blueprint.get("/<webhook_id>/deliveries/<delivery_id>")
@operation("A delivery, with every attempt", Returns(DeliveryDetail))
def get_delivery(webhook_id: str, delivery_id: str) -> Response:
    """Request and payload are as the receiver got them. Kafka keeps the payload, for as long as the operator has it do so."""
    webhook, rows = find_delivery(webhook_id, delivery_id)
    delivery = read_back(delivery_id, rows)
    return success(_detail(webhook, rows, delivery))


@blueprint.post("/<webhook_id>/deliveries/<delivery_id>/redeliver")
@operation(
    "Send a delivery again",
    Returns(RedeliveryResult),
    Returns(AcceptedRedelivery, 202, may_retry=True),
    errors=(409, 410),
)
def redeliver(webhook_id: str, delivery_id: str, query: WaitQuery, body: NoBody) -> Response:  # noqa: ARG001  # read, to refuse what it holds
    """The same bytes under the same id, with the next number in `X-Webhook-Attempt`: one attempt, to a disabled webhook too.

    It counts neither towards disabling the webhook nor against it, and is not retried. 202, or with `wait=true` 200 with the
    attempt's result, as a test event has it.
    """
    _, rows = find_delivery(webhook_id, delivery_id)
    _refuse_unfinished(rows[0].delivery)
    kept = read_back(delivery_id, rows)
    if kept is None:
        raise ApiError(410, "payload_expired", "Kafka no longer has the payload of this delivery.")
    delivery = redelivered(kept, rows[0].delivery.attempt + 1)
    _send(delivery)
    accepted: AcceptedRedelivery = {"id": delivery.id, "status": State.PENDING, "attempt": delivery.attempt}
    return answer_sent(delivery, accepted, _shown_result, wait=query.wait)


def find_delivery(webhook_id: str, delivery_id: str) -> tuple[WebhookRow, list[AttemptRow]]:
    """The account's webhook, and the rows of its delivery, the last one first. Raises ApiError 404."""
    with services().pool.transaction() as conn:
        webhook = own_webhook(conn, webhook_id)
        is_one = DELIVERY_ID.fullmatch(delivery_id) is not None
        rows = deliveries.attempts(conn, webhook_id, delivery_id) if is_one else []
    if not rows:
        raise ApiError(404, "delivery_not_found", "This webhook has no delivery with this id (any more).")
    return webhook, rows


def read_back(delivery_id: str, rows: list[AttemptRow]) -> Delivery | None:
    """The delivery from Kafka; None when Kafka no longer has it, or no place of it is recorded yet."""
    positions = dict.fromkeys(row.position for row in rows if row.position is not None)
    if not positions:
        return None
    with place_at_kafka():
        return services().payload_reader.read(delivery_id, positions)


# --- what is shown


def _detail(webhook: WebhookRow, rows: list[AttemptRow], kept: Delivery | None) -> DeliveryDetail:
    last = rows[0].delivery
    has_place = any(row.position is not None for row in rows)
    made = [_shown_attempt(row) for row in reversed(rows) if row.delivery.attempt > 0]
    request: SentRequest = {
        "url": webhook.url,
        "headers": _headers(webhook, last, kept),
        "payload": None if kept is None else kept.body.decode(),
        "payloadError": "expired" if kept is None and has_place else None,
    }
    return {**shown_facts(last), "attempts": made, "request": request}


def _headers(webhook: WebhookRow, last: DeliveryRow, kept: Delivery | None) -> dict[str, str]:
    sent = Delivery(
        last.delivery_id, webhook.id, account_id(), last.event_id, last.event, "" if kept is None else kept.timestamp, b"",
        max(1, last.attempt), 0, last.kind, to_ms(last.created_at), suspect=False,
    )  # fmt: skip
    return shown_headers(sent, to_ms(last.attempted_at), services().settings.webhook_id_header, webhook.headers or ())


def _shown_attempt(row: AttemptRow) -> Attempt:
    of = row.delivery
    return {
        "number": of.attempt,
        "trigger": _trigger(of),
        "startedAt": iso(of.attempted_at),
        "statusCode": of.status_code,
        "responseTimeMs": milliseconds(of.duration_ms),
        "errorCode": of.error_code,
        "errorMessage": of.error_message,
        "responseBody": of.response_excerpt,
        "responseHeaders": {"location": row.location, "retry-after": row.retry_after},
        "remoteAddress": row.remote_address,
    }


def _trigger(row: DeliveryRow) -> str:
    """The trigger of an attempt. A test has one attempt: one with a higher number was a redelivery."""
    is_test_again = row.kind == Kind.TEST and row.attempt > 1
    return TRIGGERS[Kind.REDELIVER if is_test_again else Kind(row.kind)]


def _shown_result(row: LatestRow) -> RedeliveryResult:
    return {**shown_result(row), "attempt": row.attempt}


# --- what is sent


def _refuse_unfinished(last: DeliveryRow) -> None:
    """Raises ApiError 409 while the delivery has attempts of its own before it."""
    if last.state == State.RETRYING:
        details = {} if last.next_attempt_at is None else {"nextRetryAt": iso(last.next_attempt_at)}
        raise _under_way("It is going to be retried.", details)
    if last.state == State.PENDING:
        raise _under_way("It waits for its first attempt.")
    if last.attempt >= redeliveries.LAST_ATTEMPT:
        raise ApiError(409, "too_many_attempts", "This delivery has been attempted as often as one can be.")


def _under_way(why: str, details: dict[str, str] | None = None) -> ApiError:
    return ApiError(409, "delivery_under_way", f"The delivery is under way. {why}", details=details)


def _send(delivery: Delivery) -> None:
    """Reserve the attempt, then produce it. Raises ApiError 409 when another request has reserved it; UnavailableError, and
    releases it, when Kafka does not take it.
    """
    key = delivery.webhook_id, delivery.id, delivery.attempt
    with place_at_kafka():
        with services().pool.transaction() as conn:
            own_webhook(conn, delivery.webhook_id)  # still
            if not redeliveries.begin(conn, *key):
                raise _under_way("It is being sent again already.")
        try:
            services().delivery_writer.write(delivery)
        except Exception:
            with services().pool.transaction() as conn:
                redeliveries.forget(conn, *key)
            raise
