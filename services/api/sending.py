"""What test events and redeliveries share: a place to wait for Kafka, and the result if it is requested."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, Final

import psycopg
import structlog
from flask import Response
from pydantic import BeforeValidator

from go2hooks.core.domain.delivery import Delivery
from go2hooks.core.domain.outcome import State
from go2hooks.postgres.attempts import deliveries
from go2hooks.postgres.attempts.deliveries import LatestRow
from services.api.answers import success
from services.api.bodies import Query
from services.api.context import account_id, services
from services.api.deliveries import milliseconds
from services.api.errors import busy
from services.api.shapes.deliveries import TestResult

log = structlog.get_logger(__name__)

_NOT_WAITED_FOR: Final = (
    "The event is sent. Too many others are waiting for a result at the moment, so this one is not waited for: "
    "it will be in the webhook's deliveries."
)
_NOT_IN_TIME: Final = "The event is sent, but there is no result yet: it will be in the webhook's deliveries."


def _read_flag(text: Any) -> bool:
    if text not in ("true", "false"):
        raise ValueError("must be true or false")
    return bool(text == "true")


class WaitQuery(Query):
    """Query string: ?wait=true, optional."""

    wait: Annotated[bool, BeforeValidator(_read_flag)] = False
    """Whether to answer with the attempt's result."""


@contextmanager
def place_at_kafka() -> Iterator[None]:
    """A place to wait for Kafka. Raises ApiError 503 when there is none for this account."""
    with services().writing.taken_by(account_id()) as has_place:
        if not has_place:
            raise busy("Too many requests wait for Kafka at the moment; try again in a second.")
        yield


def answer_sent(
    delivery: Delivery, accepted: Mapping[str, Any], shown: Callable[[LatestRow], Any], *, wait: bool
) -> Response:
    """202 with what was `accepted`; with `wait` 200 and what is `shown` of the attempt's record, if it is there in time."""
    if not wait:
        return success(accepted, 202)
    with services().watching.taken_by(account_id()) as has_place:
        if not has_place:
            answer = success({**accepted, "message": _NOT_WAITED_FOR}, 202)
            answer.headers["Retry-After"] = "1"
            return answer
        result = _watch(delivery)
    return success({**accepted, "message": _NOT_IN_TIME}, 202) if result is None else success(shown(result))


def _watch(delivery: Delivery) -> LatestRow | None:
    """The attempt's record; None when it is not there in time."""
    detour_s = 3.0  # through Kafka, and into the record
    deadline = time.monotonic() + services().settings.delivery_timeout_s + detour_s
    pause_s = 0.01
    while time.monotonic() < deadline:
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, 0.25)
        try:
            with services().pool.transaction() as conn:
                row = deliveries.latest(conn, delivery.webhook_id, delivery.origin_ms, delivery.id)
        except psycopg.Error as error:  # Kafka has the delivery: the caller gets 202 in any case
            log.warning("Postgres is away; a result is waited for", error=type(error).__name__)
            continue
        if row is not None and row.state != State.PENDING and row.attempt >= delivery.attempt:
            return row
    return None


def shown_result(row: LatestRow) -> TestResult:
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
