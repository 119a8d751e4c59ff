"""`POST /webhooks/{id}/test`: one example event to one webhook, through Kafka and the dispatcher like any other."""

import secrets
import time
from typing import Annotated, Any, Final

import psycopg
import structlog
from flask import Blueprint, Response
from pydantic import AfterValidator, BeforeValidator, ConfigDict

from go2hooks.core.delivery import Delivery, Kind, delivery_id
from go2hooks.core.event import WILDCARD, Event, EventType
from go2hooks.core.outcome import State
from go2hooks.core.payload import render
from go2hooks.core.record import AttemptRecord, record_pending
from go2hooks.core.samples import example_payload
from go2hooks.postgres import deliveries
from go2hooks.postgres.deliveries import LatestRow
from go2hooks.postgres.webhooks import WebhookRow
from services.api.answers import success
from services.api.bodies import Body, Query
from services.api.context import account_id, services
from services.api.deliveries import milliseconds
from services.api.errors import busy
from services.api.operations import Answer, operation
from services.api.shapes import AcceptedTest, EventName, TestResult
from services.api.webhooks import URL_PREFIX, admit, own_webhook

log = structlog.get_logger(__name__)

blueprint = Blueprint("testing", __name__, url_prefix=URL_PREFIX)
blueprint.before_request(admit)

_GRACE_S: Final = 3.0  # beyond the attempt's own timeout: the way through Kafka and into the record
_NEXT_PLACE_S: Final = 1
_NOT_WAITED_FOR: Final = (
    "The event is sent. Too many others are waiting for a result at the moment, so this one is not waited for: "
    "it will be in the webhook's deliveries."
)
_NOT_IN_TIME: Final = "The event is sent, but there is no result yet: it will be in the webhook's deliveries."
_FIRST_PAUSE_S: Final = 0.01
_LONGEST_PAUSE_S: Final = 0.25


def _known(event: str) -> str:
    if event not in tuple(EventType):
        raise ValueError(f"unknown; known are {', '.join(EventType)}")
    return event


def _read_flag(text: Any) -> bool:
    if text not in ("true", "false"):
        raise ValueError("must be true or false")
    return bool(text == "true")


class SendBody(Body):
    """Optional: without it, the first event type that the webhook subscribes to."""

    may_be_missing = True
    model_config = ConfigDict(json_schema_extra={"examples": [{"event": "click"}]})
    event: Annotated[EventName, AfterValidator(_known)] = ""
    """The event type; the first that the webhook subscribes to where it is left out."""


class SendQuery(Query):
    """Query string: ?wait=true, optional."""

    wait: Annotated[bool, BeforeValidator(_read_flag)] = False
    """Whether to answer with the attempt's result."""


@blueprint.post("/<webhook_id>/test")
@operation("Send a test event", Answer(TestResult), Answer(AcceptedTest, 202, may_retry=True))
def send_test_event(webhook_id: str, query: SendQuery, body: SendBody) -> Response:
    """202 with the delivery's id; with `wait=true` 200 with the attempt's result, if there is one in time.

    Only so many requests wait at once, and no account has more than half of their places. Without a place the answer is 202
    at once: the event is sent, `message` says that its result is not waited for, and `Retry-After` when to ask for one again.
    """
    with services().pool.transaction() as conn:
        webhook = own_webhook(conn, webhook_id)
    delivery = _new_delivery(webhook, body.event or _first_event(webhook))
    _send(delivery)
    if not query.wait:
        return _accepted(delivery)
    with services().watching.taken_by(account_id()) as has_place:
        if not has_place:
            return _accepted(delivery, _NOT_WAITED_FOR, retry_after_s=_NEXT_PLACE_S)
        result = _watch(delivery)
    return _accepted(delivery, _NOT_IN_TIME) if result is None else success(_shown(result))


def _accepted(delivery: Delivery, message: str | None = None, retry_after_s: int | None = None) -> Response:
    accepted: AcceptedTest = {"id": delivery.id, "status": State.PENDING}
    if message is not None:
        accepted["message"] = message
    answer = success(accepted, 202)
    if retry_after_s is not None:
        answer.headers["Retry-After"] = str(retry_after_s)
    return answer


def _first_event(webhook: WebhookRow) -> str:
    return next((name for name in webhook.events if name != WILDCARD), EventType.CLICK)


def _new_delivery(webhook: WebhookRow, event_type: str) -> Delivery:
    now_ms = time.time_ns() // 1_000_000
    event_id = f"evt_test_{secrets.token_hex(12)}"
    rendered = render(Event(event_id, account_id(), event_type, now_ms, example_payload(event_type).data))
    return Delivery(
        id=delivery_id(event_id, webhook.id),
        webhook_id=webhook.id,
        account_id=account_id(),
        event_id=event_id,
        event=event_type,
        timestamp=rendered.timestamp,
        body=rendered.body,
        attempt=1,
        due_ms=0,
        kind=Kind.TEST,
        origin_ms=now_ms,
        suspect=False,
    )


def _send(delivery: Delivery) -> None:
    """Record it as pending, then hand it to Kafka. Raises UnavailableError, and forgets it, when Kafka won't have it."""
    with services().writing.taken_by(account_id()) as has_place:
        if not has_place:
            raise busy("Too many test events are being sent at the moment; try again in a second.")
        _record_and_write(delivery, record_pending(delivery, None, delivery.origin_ms))


def _record_and_write(delivery: Delivery, pending: AttemptRecord) -> None:
    with services().pool.transaction() as conn:
        deliveries.insert_pending(conn, pending)
    try:
        services().delivery_writer.write(delivery)
    except Exception:
        with services().pool.transaction() as conn:
            deliveries.forget_pending(conn, pending)
        raise


def _watch(delivery: Delivery) -> LatestRow | None:
    """The attempt's record; None when it is not there in time."""
    deadline = time.monotonic() + services().settings.delivery_timeout_s + _GRACE_S
    pause_s = _FIRST_PAUSE_S
    while time.monotonic() < deadline:
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)
        try:
            with services().pool.transaction() as conn:
                row = deliveries.latest(conn, delivery.webhook_id, delivery.origin_ms, delivery.id)
        except psycopg.Error as error:  # it was accepted: the caller learns that, whatever happens now
            log.warning("Postgres is away; a test's result is waited for", error=type(error).__name__)
            continue
        if row is not None and row.state != State.PENDING:
            return row
    return None


def _shown(row: LatestRow) -> TestResult:
    return {
        "id": row.delivery_id,
        "status": row.state,
        "delivered": row.state == State.DELIVERED,
        "statusCode": row.status_code,
        "responseTimeMs": milliseconds(row.duration_ms),
        "errorCode": row.error_code,
        "errorMessage": row.error_message,
        "responseBody": row.response_excerpt,
    }
