"""`/webhooks/{id}/deliveries`: what was sent, what came of it."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final

from flask import Blueprint, Response
from psycopg import IsolationLevel
from pydantic import BeforeValidator, Field

from go2hooks.core.domain.event import EventType
from go2hooks.core.domain.outcome import State
from go2hooks.postgres.attempts import deliveries
from go2hooks.postgres.attempts.deliveries import DeliveryFilter, DeliveryRow, Place
from services.api.answers import iso, success
from services.api.bodies import Query
from services.api.context import services
from services.api.cursors import Mark, read_cursor, write_cursor
from services.api.operations import Returns, operation
from services.api.shapes.answers import CursorMeta
from services.api.shapes.deliveries import Delivery, DeliveryFacts
from services.api.shapes.fields import EventName, Status
from services.api.webhooks import URL_PREFIX, admit, own_webhook

blueprint = Blueprint("deliveries", __name__, url_prefix=URL_PREFIX)
blueprint.before_request(admit)

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_YEAR: Final = 9998  # in any zone still a year that Python knows
DELIVERY_ID: Final = re.compile(r"dlv_[0-9A-Za-z_]{1,64}")


def read_time(text: Any) -> datetime:
    """ISO 8601 with a zone, within the years 1970 to 9998."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("must be a time such as 2024-01-01T12:00:00Z") from None
    if moment.tzinfo is None:
        raise ValueError("must end in Z or an offset such as +02:00 (in a URL, %2B02:00)")
    if not _EPOCH.year <= moment.year <= _LAST_YEAR:
        raise ValueError(f"must lie in the years {_EPOCH.year} to {_LAST_YEAR}")
    return moment


def _read_status(text: Any) -> str:
    if text not in tuple(State):
        raise ValueError(f"must be one of {', '.join(State)}")
    return str(text)


def _read_event(text: Any) -> str:
    if text not in tuple(EventType):
        raise ValueError(f"must be one of {', '.join(EventType)}")
    return str(text)


Time = Annotated[datetime, BeforeValidator(read_time)]


class DeliveriesQuery(Query):
    """Query string: ?cursor=&perPage=&status=&event=&since=&until=, all optional."""

    cursor: str | None = None
    """`meta.nextCursor` of the page before."""
    per_page: int = Field(20, ge=1, le=100, alias="perPage")
    """How many items a page has at most."""
    status: Annotated[Status, BeforeValidator(_read_status)] | None = None
    """Those that have come to this."""
    event: Annotated[EventName, BeforeValidator(_read_event)] | None = None
    """Those of this event type."""
    since: Time | None = None
    """Those whose event was accepted at this time or later."""
    until: Time | None = None
    """Those whose event was accepted before this time."""


@blueprint.get("/<webhook_id>/deliveries")
@operation("What was sent to a webhook", Returns(list[Delivery], meta=CursorMeta))
def list_deliveries(webhook_id: str, query: DeliveriesQuery) -> Response:
    """Newest first. `meta.nextCursor` continues where this page ended, whatever has arrived since.

    A page reads a bounded part of the history. With `status` or `event` it may therefore have fewer deliveries than `perPage`,
    or none, though there are more: go on while `meta.hasMore` is true.
    """
    below = None if query.cursor is None else Place(*read_cursor(query.cursor, webhook_id, DELIVERY_ID))
    wanted = DeliveryFilter(query.status, query.event, query.since, query.until)
    with services().pool.transaction(IsolationLevel.REPEATABLE_READ) as conn:
        own_webhook(conn, webhook_id)
        page = deliveries.page(conn, webhook_id, wanted, query.per_page, below)
        cursor = None if page.ended is None else write_cursor(webhook_id, Mark(*page.ended))
        meta: CursorMeta = {"perPage": query.per_page, "hasMore": cursor is not None, "nextCursor": cursor}
        return success([shown(row) for row in page.rows], meta=meta)


def shown(row: DeliveryRow) -> Delivery:
    """A delivery as its last record describes it."""
    return {**shown_facts(row), "attempts": row.attempt - 1 if row.state == State.SKIPPED else row.attempt}


def shown_facts(row: DeliveryRow) -> DeliveryFacts:
    attempted = row.attempt > 0 and row.state != State.SKIPPED
    return {
        "id": row.delivery_id,
        "event": row.event,
        "eventId": row.event_id,
        "kind": row.kind,
        "status": row.state,
        "statusCode": row.status_code,
        "responseTimeMs": milliseconds(row.duration_ms),
        "errorCode": row.error_code,
        "errorMessage": _message(row),
        "createdAt": iso(row.created_at),
        "lastAttemptAt": iso(row.attempted_at) if attempted else None,
        "nextRetryAt": iso(row.next_attempt_at),
    }


def _message(row: DeliveryRow) -> str | None:
    """The recorded error, with the first 200 characters of the receiver's answer."""
    if row.error_message is None or row.response_excerpt is None:
        return row.error_message
    clean = "".join(char if char.isprintable() else " " for char in row.response_excerpt)
    said = " ".join(clean.split())
    shown = said[:200] + ("…" if said[200:] else "")
    return f"{row.error_message.removesuffix('.')}: {shown}" if shown else row.error_message


def milliseconds(duration_ms: float | None) -> float | None:
    return None if duration_ms is None else round(duration_ms, 2)
