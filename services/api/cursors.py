"""Cursors: where a page of a list ended, with a checksum for this list."""

import base64
import re
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Final, NamedTuple

from services.api.errors import ApiError, invalid

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_CHECK_BYTES: Final = 6
_PLACE: Final = re.compile(r"(0|[1-9][0-9]{0,17})\.([0-9a-z_]+)")  # microseconds, and an id


class Mark(NamedTuple):
    """Where a page ended: the time and the id of its last row."""

    at: datetime
    id: str


def write_cursor(list_name: str, ended: Mark) -> str:
    place = f"{(ended.at - _EPOCH) // _MICROSECOND}.{ended.id}".encode()
    return base64.urlsafe_b64encode(_check(place, list_name) + place).rstrip(b"=").decode()


def read_cursor(cursor: str, list_name: str, id_form: re.Pattern[str]) -> Mark:
    """Raises ApiError 422 for what `write_cursor` did not write for this list, or with an id of another form."""
    try:
        raw = base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        check, place = raw[:_CHECK_BYTES], raw[_CHECK_BYTES:]
        found = _PLACE.fullmatch(place.decode("ascii")) if check == _check(place, list_name) else None
        if found is None or not id_form.fullmatch(found[2]):
            raise _foreign()
        return Mark(_EPOCH + int(found[1]) * _MICROSECOND, found[2])
    except (ValueError, OverflowError):
        raise _foreign() from None


def _foreign() -> ApiError:
    return invalid({"cursor": "is not one that this list gave"})


def _check(place: bytes, list_name: str) -> bytes:
    """A checksum against mistakes, not against attacks: a forged cursor only shows rows of the same account.

    Therefore its content is validated as well.
    """
    return blake2b(place, digest_size=_CHECK_BYTES, key=list_name.encode()[:64]).digest()
