"""HTTP/1.1 as bytes: writes a request, and finds the few headers of a response that are needed."""

import re
from functools import lru_cache
from typing import Final

from go2hooks.core.security.request import SignedRequest
from go2hooks.core.security.target import Target

_END_OF_HEAD: Final = re.compile(rb"\r?\n\r?\n")
_INTERIM: Final = re.compile(rb"\s*HTTP/\d\.\d 1")
# Two adjacent repetitions must not match the same bytes: a head of 64 KiB of them would block the process for a minute.
_RETRY_AFTER: Final = re.compile(rb"^retry-after[ \t]*:([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
_LOCATION: Final = re.compile(rb"^location[ \t]*:([^\r\n]*)", re.IGNORECASE | re.MULTILINE)


class UnsendableError(ValueError):
    """The request would break HTTP's framing."""


def serialize(request: SignedRequest) -> bytes:
    """The whole request, head and body. Raises UnsendableError when a value would break out of its line."""
    body = request.body
    lines = [f"{name}: {value}" for name, value in request.headers]
    lines.append(f"Content-Length: {len(body)}\r\n\r\n")
    head = f"{_request_lines(request.target)}\r\n" + "\r\n".join(lines)
    breaks = len(lines) + 3
    if head.count("\n") != breaks or head.count("\r") != breaks:
        raise UnsendableError
    try:
        return head.encode("latin-1") + body
    except UnicodeEncodeError:
        raise UnsendableError from None


@lru_cache(maxsize=10_000)
def _request_lines(target: Target) -> str:
    """Request line and Host: the same for every delivery to a target."""
    if any(character <= " " or character > "~" for character in target.path + target.authority):
        raise UnsendableError
    return f"POST {target.path} HTTP/1.1\r\nHost: {target.authority}"


def final_head(received: bytes) -> bytes:
    """The head of the final response in the first bytes of a connection's answer; interim (1xx) heads are skipped."""
    while True:
        head, *rest = _END_OF_HEAD.split(received, maxsplit=1)
        if not rest or not _INTERIM.match(head):
            return head
        received = rest[0]


def retry_after(head: bytes, max_bytes: int = 128) -> str | None:
    """The raw value of Retry-After, several as one list; None above `max_bytes`, of which a date needs 29."""
    values = _RETRY_AFTER.findall(head)
    text: bytes = b", ".join([value.strip(b" \t") for value in values])
    return text.decode("latin-1") if values and len(text) <= max_bytes else None


def location(head: bytes, max_bytes: int = 1024) -> str | None:
    """The beginning of Location, as it came: as much as anybody is shown."""
    found = _LOCATION.search(head)
    return None if found is None else found[1].strip(b" \t")[:max_bytes].decode("latin-1")
