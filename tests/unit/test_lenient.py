"""Heads that a strict parser refuses. What counts of each is seen with real sockets, in `integration/senders`."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.dispatcher.http.lenient import Head, LenientReader, UnreadableError


def read(received: bytes) -> Head | None:
    return LenientReader().read(received)


@pytest.mark.parametrize(
    ("received", "fields", "strict", "body"),
    [
        (
            b"HTTP/1.1 200 OK\r\nX: a\r\n  b\r\n\tc\r\nContent-Length: 2, 2\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nX: a b c\r\nContent-Length: 2, 2",
            b"HTTP/1.1 200\r\nConnection: close\r\nContent-Length: 2\r\n\r\n",
            b"ok",
        ),
        (
            b"\r\nhttp/2 503\nTransfer-Encoding: gzip, Chunked\nContent-Length: 1\nContent-Length: 2\n\n0\r\n\r\n",
            b"http/2 503\nTransfer-Encoding: gzip, Chunked\nContent-Length: 1\nContent-Length: 2",
            b"HTTP/1.1 503\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"0\r\n\r\n",
        ),
        (
            b"HTTP/1.1 103 H\r\nLink: a\r\n b\r\n\r\nHTTP/1.0 404 N\r\nTransfer-Encoding: identity\r\n\r\n",
            b"HTTP/1.0 404 N\r\nTransfer-Encoding: identity",
            b"HTTP/1.1 404\r\nConnection: close\r\n\r\n",
            b"",
        ),
    ],
)
def test_a_head_is_written_again_as_every_parser_takes_it(
    received: bytes, fields: bytes, strict: bytes, body: bytes
) -> None:
    head = read(received)
    assert head is not None
    assert (head.fields, head.strict, received[head.end :]) == (fields, strict, body)


_PIECES = [
    b"HTTP/1.1 200 OK", b"HTTP/1.1 100 C", b"HTTP/1.1 2", b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"X: y", b"Content-Length: 2",
    b"Content-Length: 3", b"Transfer-Encoding: chunked", b",", b"2", b"\0", b"HTTP/", b"z",
]  # fmt: skip


@given(st.lists(st.sampled_from(_PIECES), max_size=30), st.data())
def test_it_makes_no_difference_in_which_pieces_a_head_arrives(pieces: list[bytes], data: st.DataObject) -> None:
    received = b"HTTP/1.1 " + b"".join(pieces)
    reader, arrived = LenientReader(), bytearray()

    def outcome(reader: LenientReader, received: bytes | bytearray) -> Head | str | None:
        try:
            return reader.read(received)
        except UnreadableError:
            return "unreadable"

    whole = outcome(LenientReader(), received)
    found: Head | str | None = None
    while found is None and len(arrived) < len(received):
        size = data.draw(st.integers(1, 5))
        arrived += received[len(arrived) : len(arrived) + size]
        found = outcome(reader, arrived)
    assert found == whole


def test_a_row_of_interim_heads_ends() -> None:
    assert read(b"HTTP/1.1 102 P\r\n\r\n" * 16) is None
    with pytest.raises(UnreadableError):
        read(b"HTTP/1.1 102 P\r\n\r\n" * 17)


_LONG = {
    "spaces": b"HTTP/1.1 " + b" " * 65_000 + b"x\r\n\r\n",
    "folds": b"HTTP/1.1 200\r\nX: a" + b"\r\n \t" * 16_000 + b"\r\n\r\n",
    "empty lines": b"\n" * 65_000,
    "zeros": b"HTTP/1.1 200\r\nContent-Length: " + b"0" * 65_000 + b"x\r\n\r\n",
    "digits": b"HTTP/1.1 200\r\nContent-Length: " + b"9" * 65_000 + b"\r\n\r\n",
    "lengths": b"HTTP/1.1 200\r\nContent-Length:" + b"2," * 32_000 + b"\r\n\r\n",
    "encodings": b"HTTP/1.1 200\r\n" + b"Transfer-Encoding:,\r\n" * 3_000 + b"\r\n",
    "a name without an end": b"HTTP/1.1 200\r\ncontent-length" + b" " * 65_000 + b"\r\n\r\n",
    "fields": b"HTTP/1.1 200\r\n" + b"a:\r\n" * 16_000 + b"\r\n",
}


@pytest.mark.parametrize("name", _LONG)
def test_no_head_keeps_anybody_waiting_however_it_arrives(name: str) -> None:
    """While a head is read nothing else runs, and a receiver chooses what it is and in which pieces it comes."""
    arrived, reader = bytearray(), LenientReader()
    began = time.process_time()
    for byte in _LONG[name]:
        arrived.append(byte)
        try:
            if reader.read(arrived) is not None:
                break
        except UnreadableError:
            break
    assert time.process_time() - began < 2.0
