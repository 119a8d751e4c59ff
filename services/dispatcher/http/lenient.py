"""Reads heads that a strict parser refuses, as curl does, and writes them again as the parser accepts them.

A receiver that answered must not get the delivery again because of how it writes its answers. What is read leniently
decides only where the body ends, and the connection is closed after it, so no later answer can be misread. Still
refused are an unknown version or status, lengths that differ, a line without a colon, and NUL.
"""

import re
from typing import Final, NamedTuple

INTERIM_LIMIT: Final = 16  #: 1xx responses before the final one

_END_OF_HEAD: Final = re.compile(rb"\r?\n\r?\n")
_STATUS_LINE: Final = re.compile(rb"HTTP/(?:1\.[01]|2|2\.0) +([1-9]\d\d)(?!\d)", re.IGNORECASE)
_FOLDED_FIRST_LINE: Final = re.compile(rb"[^\n]*\n[ \t]")
_START: Final = b"HTTP/"
_NO_FIELD: Final = re.compile(rb"\n[^:\n]*(?:\n|$)|\0")
_FOLD: Final = re.compile(rb"\r?\n[ \t]+")
_LENGTH: Final = re.compile(rb"^content-length[ \t]*:([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
_ENCODING: Final = re.compile(rb"^transfer-encoding[ \t]*:([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
_DIGITS: Final = re.compile(rb"[ \t]*\+?0*(\d+)")
_MOST_DIGITS: Final = 18  # any number of so many digits fits into 64 bits


class UnreadableError(ValueError):
    """No client would find a status in it."""


class Head(NamedTuple):
    """The head of a final response."""

    fields: bytes  #: as they came, each on one line; the status line precedes them, no empty line follows
    strict: bytes  #: the same status and framing in strict form, with `Connection: close` and the empty line
    end: int  #: where the body begins in what was received


class LenientReader:
    """Finds the final head in what a connection has received. Looks at each byte a bounded number of times."""

    def __init__(self) -> None:
        self._start = 0  # of the head that is incomplete
        self._searched = 0
        self._status = b""  # of that head, once its first line is complete
        self._interim = 0

    def read(self, received: bytes | bytearray) -> Head | None:
        """The final head; None while it is incomplete. `received` is all that has arrived. Raises UnreadableError."""
        while True:
            self._read_first_line(received)
            found = _END_OF_HEAD.search(received, max(self._start, self._searched - len(b"\r\n\r\n")))
            if found is None:
                self._searched = len(received)
                return None
            if not self._status.startswith(b"1"):
                fields = _unfold(bytes(received[self._start : found.start()]))
                return Head(fields, _strict(self._status, fields), found.end())
            self._interim += 1
            if self._status == b"101" or self._interim > INTERIM_LIMIT:
                raise UnreadableError
            self._start = self._searched = found.end()
            self._status = b""

    def _read_first_line(self, received: bytes | bytearray) -> None:
        """Refuse at once what does not begin like a response: its end may never come."""
        if self._status:
            return
        while received[self._start : self._start + 1] in (b"\r", b"\n"):
            self._start += 1
        begun = bytes(received[self._start : self._start + len(_START)]).upper()
        if not _START.startswith(begun):
            raise UnreadableError
        if received.find(b"\n", max(self._start, self._searched)) < 0:
            return
        found = _STATUS_LINE.match(received, self._start)
        if found is None:
            raise UnreadableError
        self._status = bytes(found[1])


def _unfold(head: bytes) -> bytes:
    if _FOLDED_FIRST_LINE.match(head):
        raise UnreadableError
    return _FOLD.sub(b" ", head)


def _strict(status: bytes, fields: bytes) -> bytes:
    if _NO_FIELD.search(fields):
        raise UnreadableError
    return b"HTTP/1.1 %s\r\nConnection: close\r\n%s\r\n" % (status, _framing(fields))


def _framing(fields: bytes) -> bytes:
    """The header that says where the body ends; empty if the end of the connection does."""
    codings = b",".join(_ENCODING.findall(fields)).lower().split(b",")
    if any(coding.partition(b";")[0].strip() == b"chunked" for coding in codings):
        return b"Transfer-Encoding: chunked\r\n"
    lengths = {length for value in _LENGTH.findall(fields) for length in _lengths(value)}
    if len(lengths) > 1:
        raise UnreadableError
    length = lengths.pop() if lengths else b""
    return b"Content-Length: %s\r\n" % length if 0 < len(length) <= _MOST_DIGITS else b""


def _lengths(value: bytes) -> list[bytes]:
    """The leading digits of each item of a list. The first item must have some."""
    found = [_DIGITS.match(part) for part in value.split(b",")]
    if found[0] is None:
        raise UnreadableError
    return [digits[1] for digits in found if digits is not None]
