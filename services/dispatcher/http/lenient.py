"""Heads that a strict parser refuses, read as curl reads them and written again as the parser takes them.

A receiver that answered is not to be asked again because its answer is oddly written. What is read leniently here frames
the body alone, and the connection is closed after it, so no later answer can be mistaken. What stays refused: a version
or status that is none, lengths that differ, a line without a colon, a NUL.
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
_MOST_DIGITS: Final = 18  # what an unsigned 64-bit number holds whatever they are


class UnreadableError(ValueError):
    """No client would make out a status."""


class Head(NamedTuple):
    """The head of a final response."""

    fields: bytes  #: as they came, each on one line, after the status line and without the empty line
    strict: bytes  #: the same status and framing as any parser takes them, with `Connection: close` and the empty line
    end: int  #: where the body begins in what was received


class LenientReader:
    """Finds the final head in what a connection has received. Looks at each byte a bounded number of times."""

    def __init__(self) -> None:
        self._start = 0  # of the head that is not whole yet
        self._searched = 0
        self._status = b""  # of that head, once its first line is whole
        self._interim = 0

    def read(self, received: bytes | bytearray) -> Head | None:
        """The final head; None while it is not whole. Raises UnreadableError. `received` is everything, and only grows."""
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
        """Refuse at once what does not begin as a response does: its end may never come."""
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
    """The one header that says where the body ends; none where the connection's end does."""
    codings = b",".join(_ENCODING.findall(fields)).lower().split(b",")
    if any(coding.partition(b";")[0].strip() == b"chunked" for coding in codings):
        return b"Transfer-Encoding: chunked\r\n"
    lengths = {length for value in _LENGTH.findall(fields) for length in _lengths(value)}
    if len(lengths) > 1:
        raise UnreadableError
    length = lengths.pop() if lengths else b""
    return b"Content-Length: %s\r\n" % length if 0 < len(length) <= _MOST_DIGITS else b""


def _lengths(value: bytes) -> list[bytes]:
    """The numbers of a list, each as far as it is one; the first has to be."""
    found = [_DIGITS.match(part) for part in value.split(b",")]
    if found[0] is None:
        raise UnreadableError
    return [digits[1] for digits in found if digits is not None]
