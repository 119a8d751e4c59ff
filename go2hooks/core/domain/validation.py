"""The rules for a decoded event that its schema cannot express."""

import re
from datetime import UTC, datetime
from typing import Final

from go2hooks.core.domain.event import Event, EventType
from go2hooks.core.errors import InvalidEventError

MAX_ID_CHARS: Final = 128

_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # and surrogates: UTF-8 has none
_KNOWN: Final = frozenset(str(kind) for kind in EventType)
_EARLIEST_MS: Final = int(datetime(2000, 1, 1, tzinfo=UTC).timestamp()) * 1000
_LATEST_MS: Final = int(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()) * 1000 + 999


def validate(event: Event) -> None:
    """Return if the event is valid. Raises InvalidEventError otherwise; the message names the rule."""
    _check_id("id", event.id)
    _check_id("accountId", event.account_id)
    if event.type not in _KNOWN:
        raise InvalidEventError(f"unknown event type {event.type!r:.80}; known are {', '.join(EventType)}")
    if not _EARLIEST_MS <= event.timestamp_ms <= _LATEST_MS:
        raise InvalidEventError(f"timestamp {event.timestamp_ms} ms is outside the years 2000 to 9999")


def _check_id(name: str, value: str) -> None:
    if not value:
        raise InvalidEventError(f"{name} is empty")
    if len(value) > MAX_ID_CHARS:
        raise InvalidEventError(f"{name} is {len(value)} characters long; at most {MAX_ID_CHARS} are allowed")
    if _UNPRINTABLE.search(value):
        raise InvalidEventError(f"{name} holds a control character")
