"""Classifies the response to an attempt: only 2xx is success."""

import math
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

from go2hooks.core.domain.outcome import Answer, Delivered, Failed, Failure, NoAnswer, Outcome, Response

_SUCCESSES: Final = {status: Delivered(status) for status in range(200, 300)}  # HTTP's success class
_LONGEST_WAIT_S: Final = 3600.0  # the longest wait that a receiver may ask for
_SECONDS: Final = re.compile(r"\d+(?:\.\d+)?", re.ASCII)
_USER: Final = re.compile(r"^([a-z][a-z0-9+.-]*:[/\\]*|[/\\]{2,})[^/\\]*@", re.IGNORECASE)
_SHOWN_CHARACTERS: Final = 200  # a longer redirect target is cut
_UNESCAPED: Final = "/:@!$&*+,;=()[]%~"  # besides letters, digits and "_.-"; no quotes, and no brackets of markup


def classify(response: Response, now_ms: int) -> Outcome:
    """The outcome of an attempt that ended at `now_ms`, with or without an answer."""
    match response:
        case Answer(status) if status in _SUCCESSES:
            return _SUCCESSES[status]
        case NoAnswer(failure, message):
            return Failed(failure, message)
        case Answer(status) if status == HTTPStatus.GONE:
            return Failed(Failure.GONE, f"The receiver answered {_named(status)}: it wants no more events.", status)
        case Answer(status) if 300 <= status < 400 and status != HTTPStatus.NOT_MODIFIED:  # noqa: PLR2004  # redirection
            to = f" (to {target})" if (target := shown_target(response.location)) else ""
            message = f"The receiver answered {_named(status)}{to}; redirects are not followed."
            return Failed(Failure.REDIRECT, message, status)
        case Answer(status, _, retry_after):
            wait_s = retry_after_s(retry_after, now_ms) if 400 <= status < 600 else None  # noqa: PLR2004  # its errors
            return Failed(Failure.BAD_STATUS, f"The receiver answered {_named(status)}.", status, wait_s)


def retry_after_s(header: str | None, now_ms: int) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110 10.2.3), an hour at most; None for an unusable value.

    Lenient: a fraction is rounded up, and the largest number of a list counts.
    """
    if header is None:
        return None
    items = [item.strip() for item in header.split(",")]
    if all(_SECONDS.fullmatch(item) for item in items):
        return float(math.ceil(min(max(map(float, items)), _LONGEST_WAIT_S)))
    try:
        when = parsedate_to_datetime(header.strip())
    except (ValueError, OverflowError):  # OverflowError: a number that does not fit a C int
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    wait_s = (when - datetime.fromtimestamp(now_ms / 1000, UTC)).total_seconds()
    return min(max(0.0, wait_s), _LONGEST_WAIT_S)


def shown_target(location: str | None) -> str:
    """A Location header's target, safe to show: cut, escaped, without query, fragment and credentials."""
    if location is None:
        return ""
    address = _USER.sub(r"\1", re.split("[?#]", location, maxsplit=1)[0])
    text = quote(address.encode("latin-1", "replace"), safe=_UNESCAPED)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"


def _named(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
