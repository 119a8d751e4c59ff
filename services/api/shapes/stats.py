"""Statistics, as answers show them."""

from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from services.api.shapes.fields import Moment, described


@described
class Counts(TypedDict):
    """How attempts ended, and how long receivers took to answer."""

    delivered: int
    """Attempts that were answered with 2xx."""
    failed: int
    """Attempts that failed and were the last of their deliveries."""
    skipped: int
    """Deliveries that were not attempted, since the webhook was disabled, deleted or no longer subscribed."""
    retried: int
    """Attempts that failed and were to be repeated."""
    p50Ms: float | None
    """The median of the response times, in milliseconds; null when nothing was answered."""
    p95Ms: float | None
    """What 95 % of the response times do not exceed."""
    p99Ms: float | None
    """What 99 % of the response times do not exceed."""


@described
class Point(Counts):
    """One step."""

    at: Moment
    """When it begins."""


_FROM = Annotated[Moment, Field(description="When the first step begins.")]
_TO = Annotated[Moment, Field(description="When the last step ends.")]
_STEP = Annotated[int, Field(description="How long each step is.")]
_SERIES = Annotated[list[Point], Field(description="Every step, in order; those without attempts too.")]
_TOTALS = Annotated[Counts, Field(description="All of it together.")]
Stats = TypedDict(
    "Stats", {"from": _FROM, "to": _TO, "stepSeconds": _STEP, "series": _SERIES, "totals": _TOTALS}
)  # `from` is a word of Python's
