"""Renders the payload for receivers, once per event; these bytes are signed and sent."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple

from go2hooks.core.domain.event import Event
from go2hooks.core.encoding.canonical import dumps
from go2hooks.core.errors import InvalidEventError

#: The longest payload. JSON's escapes can make an event six times as long as in Kafka, whose limit is a mebibyte.
MAX_BODY_BYTES: Final = 1_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SECONDS_REMEMBERED: Final = 4096  # events of the same second share its text


class Rendered(NamedTuple):
    """An event in the form in which it is sent."""

    timestamp: str  #: as in the body; also the X-Webhook-Timestamp header
    body: bytes  #: canonical JSON in UTF-8


def render(event: Event) -> Rendered:
    """`{"event":…,"timestamp":…,"data":{…}}`. The event must be valid: see `validation.validate`.

    Raises InvalidEventError when the payload is longer than `MAX_BODY_BYTES`.
    """
    timestamp = format_timestamp(event.timestamp_ms)
    body = dumps({"event": event.type, "timestamp": timestamp, "data": event.data})
    if len(body) > MAX_BODY_BYTES:
        raise InvalidEventError(f"its payload would be {len(body)} bytes; {MAX_BODY_BYTES} are allowed")
    return Rendered(timestamp, body)


def format_timestamp(ms: int) -> str:
    """Milliseconds since the epoch as ISO 8601 in UTC; milliseconds appear only if they are not zero.

    Raises OverflowError outside the years 1 to 9999.
    """
    seconds, millis = divmod(ms, 1000)
    return f"{_second(seconds)}.{millis:03d}Z" if millis else f"{_second(seconds)}Z"


@lru_cache(_SECONDS_REMEMBERED)
def _second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).replace(tzinfo=None).isoformat()
