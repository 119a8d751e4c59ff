"""Which responses are success: 2xx, and nothing else."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

from go2hooks.core.outcome import Answer, Delivered, Failed, Failure, NoAnswer, Outcome, Response

_SUCCESSES: Final = {status: Delivered(status) for status in range(200, 300)}  # HTTP's success class
_HONOURS_RETRY_AFTER: Final = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)


def classify(response: Response, now_ms: int) -> Outcome:
    """The outcome of an attempt whose response (or its absence) came at `now_ms`."""
    match response:
        case Answer(status) if status in _SUCCESSES:
            return _SUCCESSES[status]
        case NoAnswer(failure, message):
            return Failed(failure, message)
        case Answer(status) if 300 <= status < 400:  # noqa: PLR2004  # HTTP's redirection class
            return Failed(
                Failure.REDIRECT, f"The receiver answered {_named(status)}; redirects are not followed.", status
            )
        case Answer(status, _, retry_after):
            wait_s = retry_after_s(retry_after, now_ms) if status in _HONOURS_RETRY_AFTER else None
            return Failed(Failure.BAD_STATUS, f"The receiver answered {_named(status)}.", status, wait_s)


def retry_after_s(header: str | None, now_ms: int) -> float | None:
    """Seconds that a Retry-After header asks for (delta or HTTP date, RFC 9110 10.2.3); None when it says nothing usable."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        when = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # the latter for a number that no C int holds
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.fromtimestamp(now_ms / 1000, UTC)).total_seconds())


def _named(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
