"""`GET /webhooks/{id}/stats`: how many attempts ended how, and how long answers took, step by step."""

import time
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from flask import Blueprint, Response
from pydantic import BeforeValidator, Field, WithJsonSchema

from go2hooks.core.domain.rollup import STEPS_S
from go2hooks.postgres import rollups
from go2hooks.postgres.rollups import StepRange
from services.api.answers import success
from services.api.bodies import Query
from services.api.context import services
from services.api.deliveries import Time
from services.api.errors import invalid
from services.api.operations import Returns, operation
from services.api.series import EPOCH, told, whole_steps
from services.api.shapes.stats import Stats
from services.api.webhooks import URL_PREFIX, admit, own_webhook

blueprint = Blueprint("stats", __name__, url_prefix=URL_PREFIX)
blueprint.before_request(admit)

_MOST_POINTS: Final = 1000
_DAY: Final = timedelta(days=1)
_STEPS: Final = ", ".join(map(str, STEPS_S))


def _read_step(text: Any) -> int:
    if text not in tuple(map(str, STEPS_S)):
        raise ValueError(f"must be one of {_STEPS}")
    return int(text)


Step = Annotated[int, BeforeValidator(_read_step), WithJsonSchema({"type": "integer", "enum": list(STEPS_S)})]


class StatsQuery(Query):
    """Query string: ?from=&to=&step=, all optional."""

    begin: Time | None = Field(None, alias="from")
    """The first step is the one with this time; without it, a day before `to`."""
    to: Time | None = None
    """Attempts that began before this time, up to the end of its step; without it, now."""
    step: Step | None = None
    """The length of a step, in seconds; without it, the shortest that gives at most 1,000 steps."""


@blueprint.get("/<webhook_id>/stats")
@operation("A webhook's statistics", Returns(Stats))
def get_stats(webhook_id: str, query: StatsQuery) -> Response:
    """Attempts by outcome and percentiles of response times, for steps that begin at multiples of their length (UTC).

    An attempt, test events included, counts in the minute in which it began; it is in the statistics within about five
    seconds, and as long as in the list of deliveries. Counts are exact. Percentiles are those of attempts that were
    answered, within 5 %; null where there was none.
    """
    span = _span(query)
    with services().pool.transaction() as conn:
        own_webhook(conn, webhook_id)
        found = rollups.series(conn, [webhook_id], span)
    return success(told(found[webhook_id], span))


def _span(query: StatsQuery) -> StepRange:
    """Whole steps. Raises ApiError 422 for a time that ends before it begins, and for too many steps."""
    to = query.to or datetime.fromtimestamp(time.time(), UTC)
    begin = query.begin or max(to - _DAY, EPOCH)
    if begin >= to:
        raise invalid({"to": "must be later than from"})
    if query.step is not None:
        spans = [whole_steps(begin, to, query.step)]
    else:
        spans = [whole_steps(begin, to, step_s) for step_s in STEPS_S]
    for span in spans:
        if _points(span) <= _MOST_POINTS:
            return span
    says = f"there would be {_points(spans[-1])} steps, and {_MOST_POINTS} are allowed: ask for less time"
    raise invalid({"step": f"{says}, or for longer steps ({_STEPS})"} if query.step is not None else {"from": says})


def _points(span: StepRange) -> int:
    return int((span.end - span.begin) / timedelta(seconds=span.step_s))
