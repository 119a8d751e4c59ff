"""`POST /webhooks/{id}/test`: one example event to one webhook, through Kafka and the dispatcher like any other."""

import secrets
import time
from typing import Annotated

from flask import Blueprint, Response
from pydantic import AfterValidator, ConfigDict

from go2hooks.core.domain.delivery import Delivery, Kind, delivery_id
from go2hooks.core.domain.event import WILDCARD, Event, EventType
from go2hooks.core.domain.outcome import State
from go2hooks.core.domain.record import AttemptRecord, record_pending
from go2hooks.core.domain.samples import example_payload
from go2hooks.core.encoding.payload import render
from go2hooks.postgres.attempts import records
from go2hooks.postgres.webhooks import WebhookRow
from services.api.bodies import Body
from services.api.context import account_id, services
from services.api.operations import Returns, operation
from services.api.sending import WaitQuery, answer_sent, place_at_kafka, shown_result
from services.api.shapes.deliveries import AcceptedTest, TestResult
from services.api.shapes.fields import EventName
from services.api.webhooks import URL_PREFIX, admit, own_webhook

blueprint = Blueprint("testing", __name__, url_prefix=URL_PREFIX)
blueprint.before_request(admit)


def _known(event: str) -> str:
    if event not in tuple(EventType):
        raise ValueError(f"unknown; known are {', '.join(EventType)}")
    return event


class SendBody(Body):
    """Optional: without it, the first event type that the webhook subscribes to."""

    may_be_missing = True
    model_config = ConfigDict(json_schema_extra={"examples": [{"event": "click"}]})
    event: Annotated[EventName, AfterValidator(_known)] = ""
    """The event type; the first that the webhook subscribes to where it is left out."""


@blueprint.post("/<webhook_id>/test")
@operation("Send a test event", Returns(TestResult), Returns(AcceptedTest, 202, may_retry=True))
def send_test_event(webhook_id: str, query: WaitQuery, body: SendBody) -> Response:
    """202 with the delivery's id; with `wait=true` 200 with the attempt's result, if there is one in time.

    Only so many requests wait at once, and no account has more than half of their places. Without a place the answer is 202
    at once: the event is sent, `message` says that its result is not waited for, and `Retry-After` when to ask for one again.
    """
    with services().pool.transaction() as conn:
        webhook = own_webhook(conn, webhook_id)
    delivery = _new_delivery(webhook, body.event or _first_event(webhook))
    _send(delivery)
    accepted: AcceptedTest = {"id": delivery.id, "status": State.PENDING}
    return answer_sent(delivery, accepted, shown_result, wait=query.wait)


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
    """Record it as pending, then produce it. Raises UnavailableError, and deletes the record, when Kafka refuses it."""
    with place_at_kafka():
        _record_and_write(delivery, record_pending(delivery, None, delivery.origin_ms))


def _record_and_write(delivery: Delivery, pending: AttemptRecord) -> None:
    with services().pool.transaction() as conn:
        records.insert_pending(conn, pending)
    try:
        services().delivery_writer.write(delivery)
    except Exception:
        with services().pool.transaction() as conn:
            records.forget_pending(conn, pending)
        raise
