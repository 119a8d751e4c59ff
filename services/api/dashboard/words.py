"""How pages write times, numbers and outcomes."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

_UNITS: Final = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def ago(moment: str | None) -> str:
    """`3 min ago`, `in 2 h`; `never` for none."""
    if moment is None:
        return "never"
    seconds = (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()
    size = abs(seconds)
    unit_s, unit = next(((s, name) for s, name in _UNITS if size >= s), (1, "s"))
    text = f"{size / unit_s:.0f} {unit}"
    return f"{text} ago" if seconds >= 0 else f"in {text}"


def exactly(moment: str | None) -> str:
    """`2024-01-01 12:00:00 UTC`, with milliseconds where there are any."""
    return "" if moment is None else f"{moment.replace('T', ' ').removesuffix('Z')} UTC"


def grouped(number: float) -> str:
    return f"{number:,}"


def milliseconds(duration_ms: float | None) -> str:
    return "" if duration_ms is None else f"{duration_ms:,.0f} ms" if duration_ms >= 10 else f"{duration_ms:.1f} ms"  # noqa: PLR2004


def state_of(webhook: dict[str, Any]) -> str:
    """`active`, `failing` or `disabled`."""
    if not webhook["isActive"]:
        return "disabled"
    return "failing" if webhook["consecutiveFailures"] else "active"


def told_of_result(result: dict[str, Any]) -> str:
    """What came of a request that was waited for."""
    if "delivered" not in result:
        return str(result.get("message") or "It is on its way.")
    took = milliseconds(result["responseTimeMs"])
    if result["delivered"]:
        return f"The receiver answered {result['statusCode']} in {took}."
    return f"{result['errorMessage']} ({took})"


FILTERS: Final[dict[str, Callable[..., str]]] = {
    "ago": ago,
    "exactly": exactly,
    "grouped": grouped,
    "milliseconds": milliseconds,
    "state": state_of,
}
