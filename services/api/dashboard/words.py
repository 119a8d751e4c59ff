"""How pages write times, numbers and outcomes."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from go2hooks.postgres.webhooks import DISABLED_BY_USER

_NO_ZONE: Final = re.compile(r"[\d.:T-]+")
_UNITS: Final = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))

RANGES: Final = {"the last hour": 1, "the last day": 24, "the last 3 days": 72, "the last week": 168}  #: in hours


def ago(moment: str | None) -> str:
    """`3 min ago`, `in 2 h`; `never` for none."""
    if moment is None:
        return "never"
    seconds = (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()
    text = _rounded(abs(seconds))
    return f"{text} ago" if seconds >= 0 else f"in {text}"


def due(moment: str) -> str:
    """When something is due: `in 2 min`, or `any moment now` when it is late."""
    return "any moment now" if datetime.fromisoformat(moment) < datetime.now(UTC) else ago(moment)


def later(before: str, after: str) -> str:
    """The time between two moments, as `5 s`."""
    return _rounded((datetime.fromisoformat(after) - datetime.fromisoformat(before)).total_seconds())


def lasting(seconds: float) -> str:
    """`24 hours`, `90 seconds`."""
    unit_s, unit = next(
        ((s, name) for s, name in ((3600, "hours"), (60, "minutes")) if seconds >= 2 * s), (1, "seconds")
    )
    return f"{seconds / unit_s:g} {unit}"


def _rounded(seconds: float) -> str:
    unit_s, unit = next(((s, name) for s, name in _UNITS if seconds >= s), (1, "s"))
    return f"{seconds / unit_s:.0f} {unit}"


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min`."""
    return f"{seconds:.1f} s" if seconds < 10 else _rounded(seconds)  # noqa: PLR2004


def rate(per_second: float) -> str:
    """`0`, `0.25`, `12.3`, `1,234`."""
    digits = 0 if per_second == 0 or per_second >= 100 else 1 if per_second >= 1 else 2  # noqa: PLR2004
    return f"{per_second:,.{digits}f}"


def exactly(moment: str | None) -> str:
    """`2024-01-01 12:00:00 UTC`, with milliseconds where there are any."""
    return "" if moment is None else f"{moment.replace('T', ' ').removesuffix('Z')} UTC"


def in_utc(typed: str) -> str:
    """A time input's value in UTC. It has no zone, unless a script has converted it."""
    return f"{typed}Z" if _NO_ZONE.fullmatch(typed) else typed


def grouped(number: float) -> str:
    return f"{number:,}"


def milliseconds(duration_ms: float | None) -> str:
    return "" if duration_ms is None else f"{duration_ms:,.0f} ms" if duration_ms >= 10 else f"{duration_ms:.1f} ms"  # noqa: PLR2004


def pretty(payload: str | None) -> str | None:
    """JSON with line breaks for reading."""
    return None if payload is None else json.dumps(json.loads(payload), indent=2, ensure_ascii=False)


def written(value: Any) -> str:
    """A setting's value as text; other types as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def state_of(webhook: dict[str, Any]) -> str:
    """`active`, `failing` or `disabled`."""
    if not webhook["isActive"]:
        return "disabled"
    return "failing" if webhook["consecutiveFailures"] else "active"


def why_disabled(webhook: dict[str, Any]) -> str:
    """The reason, to stand after a colon or alone."""
    reason: str = webhook["disabledReason"] or DISABLED_BY_USER
    return "by its owner" if reason == DISABLED_BY_USER else reason


def told_of_result(result: dict[str, Any]) -> str:
    """A sentence about the result of a test or redelivery."""
    if "delivered" not in result:
        return str(result.get("message") or "It is on its way.")
    took = milliseconds(result["responseTimeMs"])
    if result["delivered"]:
        return f"The receiver answered {result['statusCode']} in {took}."
    return f"{result['errorMessage']} ({took})"


FILTERS: Final[dict[str, Callable[..., str]]] = {
    "ago": ago,
    "due": due,
    "duration": duration,
    "exactly": exactly,
    "grouped": grouped,
    "lasting": lasting,
    "later": later,
    "milliseconds": milliseconds,
    "rate": rate,
    "state": state_of,
    "why_disabled": why_disabled,
    "written": written,
}
