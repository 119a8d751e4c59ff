"""JSON lines to events, for `go2hooks emit --file`: pure, so that each rule has its test."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from go2hooks.core.domain.event import Event
from go2hooks.core.domain.validation import validate
from go2hooks.core.errors import InvalidEventError

ANY: Final = "all"

_KNOWN_FIELDS: Final = {"id", "event", "timestamp", "data"}


def parse_line(line: str, *, expected: str, account_id: str, new_id: Callable[[], str], now_ms: int) -> Event:
    """One line, either `{"id"?, "timestamp"?, "data"}` or the payload form `{"event", "timestamp", "data"}`.

    `expected` is the event type of lines that name none; with `all` each has to. Bytes that are not UTF-8 are expected as
    `surrogateescape` leaves them. Raises InvalidEventError.
    """
    fields = _json(line)
    if not isinstance(fields, dict) or not isinstance(fields.get("data"), dict):
        raise InvalidEventError('no event: expected {"id"?, "event"?, "timestamp"?, "data": {…}}')
    if unknown := sorted(fields.keys() - _KNOWN_FIELDS):
        raise InvalidEventError(f"unknown field {', '.join(map(repr, unknown))}")
    event_type = _event_type(fields.get("event"), expected)
    identity = fields.get("id") or new_id()
    timestamp_ms = _timestamp_ms(fields["timestamp"]) if "timestamp" in fields else now_ms
    event = Event(_text("id", identity), account_id, event_type, timestamp_ms, fields["data"])
    validate(event)
    return event


def _json(line: str) -> Any:
    try:
        line.encode()
    except UnicodeEncodeError as error:
        raise InvalidEventError(f"not UTF-8 from character {error.start + 1} on") from None
    try:
        return json.loads(line)
    except ValueError as error:
        raise InvalidEventError(f"not JSON: {error}") from None
    except RecursionError:
        raise InvalidEventError("nested too deeply") from None


def _event_type(named: Any, expected: str) -> str:
    if named is None:
        if expected == ANY:
            raise InvalidEventError('which event is it? Add "event" to the line, or name one instead of "all"')
        return expected
    if expected not in (ANY, named):
        raise InvalidEventError(f'it is a {named!r}, not a {expected!r}: use "all" to send lines of several events')
    return _text("event", named)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidEventError(f"{name} is no string")
    return value


def _timestamp_ms(value: Any) -> int:
    """ISO 8601 with a zone, or milliseconds since the epoch."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    try:
        moment = datetime.fromisoformat(_text("timestamp", value))
    except ValueError:
        raise InvalidEventError(f"timestamp {value!r} is not ISO 8601, such as 2024-01-01T12:00:00Z") from None
    if moment.tzinfo is None:
        raise InvalidEventError(f"timestamp {value!r} names no time zone: append Z for UTC")
    since_epoch = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since_epoch.days * 86_400 + since_epoch.seconds) * 1000 + since_epoch.microseconds // 1000
