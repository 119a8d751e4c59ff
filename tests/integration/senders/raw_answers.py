"""Raw answers of receivers, and what each means. Both senders, curl and Node are compared with it."""

from typing import Literal, NamedTuple

from go2hooks.core.domain.outcome import Failure

INVALID, CLOSED = Failure.INVALID_RESPONSE, Failure.CONNECTION_ERROR

Then = Literal["closes", "holds", "resets"]


class Raw(NamedTuple):
    """What a receiver sends, and what it does then."""

    data: bytes
    outcome: int | Failure  #: the status that counts, or why there is none
    then: Then = "closes"
    excerpt: bytes | None = None  #: where it matters that the body was framed as it was meant
    retry_after: str = ""


def _bytes(text: str) -> bytes:
    return text.encode("latin-1")


def with_head(lines: str, body: bytes = b"ok", status_line: str = "HTTP/1.1 200 OK") -> bytes:
    """Lines separated by "|", each ended by CRLF."""
    return _bytes("\r\n".join([status_line, *filter(None, lines.split("|")), "", ""])) + body


CHUNKS = b"2\r\nok\r\n0\r\n\r\n"
LENGTH = "Content-Length: 2"
CHUNKED = "Transfer-Encoding: chunked"


def begun(status_line: str) -> bytes:
    return with_head(LENGTH, status_line=status_line)


def field(line: str) -> bytes:
    return with_head(f"{line}|{LENGTH}")


#: Whatever becomes of the body, the head has arrived.
BODIES: dict[str, Raw] = {
    "a length": Raw(with_head(LENGTH), 200, excerpt=b"ok"),
    "no length, and an open connection": Raw(with_head(""), 200, "holds"),
    "a body as long as is kept, and longer": Raw(with_head("Content-Length: 100", b"x" * 100), 200, excerpt=b"x" * 64),
    "no length, and the end": Raw(with_head(""), 200, excerpt=b"ok"),
    "two bytes of ten, and silence": Raw(with_head("Content-Length: 10"), 200, "holds"),
    "two bytes of ten, and the end": Raw(with_head("Content-Length: 10"), 200),
    "two bytes of ten, and a reset": Raw(with_head("Content-Length: 10"), 200, "resets"),
    "none of two bytes, and silence": Raw(with_head(LENGTH, b""), 200, "holds"),
    "one chunk, and silence": Raw(with_head(CHUNKED, b"2\r\nok\r\n"), 200, "holds"),
    "one chunk, and the end": Raw(with_head(CHUNKED, b"2\r\nok\r\n"), 200),
    "half a chunk, and a reset": Raw(with_head(CHUNKED, b"ff\r\nok"), 200, "resets"),
    "chunks without their last line": Raw(with_head(CHUNKED, b"2\r\nok\r\n0\r\n"), 200, "holds"),
    "a chunk size that is no number": Raw(with_head(CHUNKED, b"zz\r\nok\r\n"), 200),
    "a chunk size that overflows": Raw(with_head(CHUNKED, b"ffffffffffffffffff\r\nok\r\n"), 200, "holds"),
    "a chunk extension": Raw(with_head(CHUNKED, b"2;a=b\r\nok\r\n0\r\n\r\n"), 200, excerpt=b"ok"),
    "spaces after a chunk size": Raw(with_head(CHUNKED, b"2  \r\nok\r\n0\r\n\r\n"), 200, excerpt=b"ok"),
    "chunks that end in LF alone": Raw(with_head(CHUNKED, b"2\nok\n0\n\n"), 200),
    "a trailer": Raw(with_head(CHUNKED, b"2\r\nok\r\n0\r\nX: y\r\n\r\n"), 200, excerpt=b"ok"),
    "garbage after the body": Raw(with_head(LENGTH, b"okgarbage\r\n\r\n"), 200, excerpt=b"ok"),
    "a second answer": Raw(with_head(LENGTH) + begun("HTTP/1.1 500 No"), 200, excerpt=b"ok"),
    "a body after a length of 0": Raw(with_head("Content-Length: 0"), 200),
    "an error, cut short": Raw(with_head("Content-Length: 10", status_line="HTTP/1.1 500 Oh"), 500),
    "a redirect, cut short": Raw(with_head("Location: /x|Content-Length: 9", status_line="HTTP/1.1 302 F"), 302),
    "a 204 with a body": Raw(begun("HTTP/1.1 204 No Content"), 204),
    "a chunked 204": Raw(with_head(CHUNKED, CHUNKS, "HTTP/1.1 204 No Content"), 204),
    "a 205 and an open connection": Raw(with_head("", b"", "HTTP/1.1 205 Reset"), 205, "holds"),
    "a 304 with a length": Raw(with_head(LENGTH, b"", "HTTP/1.1 304 Not Modified"), 304),
    "a body that is no gzip": Raw(with_head(f"Content-Encoding: gzip|{LENGTH}"), 200, excerpt=b"ok"),
}

#: What frames the body, written oddly.
FRAMING: dict[str, Raw] = {
    "the same length twice": Raw(with_head(f"{LENGTH}|{LENGTH}"), 200, "holds", excerpt=b"ok"),
    "the same length three times": Raw(with_head(f"{LENGTH}|{LENGTH}|{LENGTH}"), 200, excerpt=b"ok"),
    "the same length as a list": Raw(with_head("Content-Length: 2, 2"), 200, "holds", excerpt=b"ok"),
    "the same length as a dense list": Raw(with_head("Content-Length: 2,2"), 200, excerpt=b"ok"),
    "the same length, once with a zero": Raw(with_head(f"Content-Length: 02|{LENGTH}"), 200, excerpt=b"ok"),
    "two different lengths": Raw(with_head("Content-Length: 2|Content-Length: 3"), INVALID),
    "different lengths as a list": Raw(with_head("Content-Length: 2, 3"), INVALID),
    "a length, then chunked": Raw(with_head(f"Content-Length: 5|{CHUNKED}", CHUNKS), 200, excerpt=b"ok"),
    "chunked, then a length": Raw(with_head(f"{CHUNKED}|Content-Length: 5", CHUNKS), 200, excerpt=b"ok"),
    "chunked, a length, held open": Raw(with_head(f"{CHUNKED}|{LENGTH}", CHUNKS), 200, "holds", excerpt=b"ok"),
    "identity": Raw(with_head("Transfer-Encoding: identity"), 200, excerpt=b"ok"),
    "identity, held open": Raw(with_head("Transfer-Encoding: identity"), 200, "holds"),
    "identity in capitals": Raw(with_head("Transfer-Encoding: Identity"), 200, excerpt=b"ok"),
    "identity, then a length": Raw(with_head(f"Transfer-Encoding: identity|{LENGTH}"), 200, "holds", excerpt=b"ok"),
    "a length, then identity": Raw(with_head(f"{LENGTH}|Transfer-Encoding: identity"), 200, "holds", excerpt=b"ok"),
    "identity in 1.0": Raw(with_head("Transfer-Encoding: identity", status_line="HTTP/1.0 200 OK"), 200, excerpt=b"ok"),
    "identity and a length in 1.0": Raw(
        with_head(f"Transfer-Encoding: identity|{LENGTH}", status_line="HTTP/1.0 200 OK"), 200, "holds", excerpt=b"ok"
    ),
    "identity, chunked": Raw(with_head("Transfer-Encoding: identity, chunked", CHUNKS), 200, excerpt=b"ok"),
    "chunked, identity": Raw(with_head("Transfer-Encoding: chunked, identity", CHUNKS), 200),
    "chunked twice": Raw(with_head(f"{CHUNKED}|{CHUNKED}", CHUNKS), 200),
    "chunked in capitals": Raw(with_head("Transfer-Encoding: CHUNKED", CHUNKS), 200, excerpt=b"ok"),
    "chunked in 1.0": Raw(with_head(CHUNKED, CHUNKS, "HTTP/1.0 200 OK"), 200, excerpt=b"ok"),
    "an encoding that is none": Raw(with_head("Transfer-Encoding: foo"), 200),
    "an empty encoding and a length": Raw(with_head(f"Transfer-Encoding:|{LENGTH}"), 200),
    "gzip, chunked": Raw(with_head("Transfer-Encoding: gzip, chunked", CHUNKS), 200, excerpt=b"ok"),
    "spaces around a length": Raw(with_head("Content-Length:   2  "), 200, "holds", excerpt=b"ok"),
    "a tab before a length": Raw(with_head("Content-Length:\t2"), 200, "holds", excerpt=b"ok"),
    "a length with a sign": Raw(with_head("Content-Length: +2"), 200, excerpt=b"ok"),
    "a length with words": Raw(with_head("Content-Length: 2 bytes"), 200, excerpt=b"ok"),
    "a length that overflows": Raw(with_head("Content-Length: 99999999999999999999999"), 200),
    "a negative length": Raw(with_head("Content-Length: -1"), INVALID),
    "a length that is a word": Raw(with_head("Content-Length: abc"), INVALID),
    "an empty length": Raw(with_head("Content-Length:"), INVALID),
}

#: Fields that no parser needs to like.
FIELDS: dict[str, Raw] = {
    "a folded field": Raw(field("X-A: b|  c"), 200, "holds", excerpt=b"ok"),
    "a field folded by a tab": Raw(field("X-A: b|\tc"), 200, excerpt=b"ok"),
    "a field folded thrice": Raw(field("X-A: b| c| d| e"), 200, excerpt=b"ok"),
    "an empty fold": Raw(field("X-A: b| "), 200, excerpt=b"ok"),
    "a folded length": Raw(with_head("Content-Length:| 2"), 200, excerpt=b"ok"),
    "a folded encoding": Raw(with_head("Transfer-Encoding:| chunked", CHUNKS), 200, excerpt=b"ok"),
    "a fold after LF alone": Raw(b"HTTP/1.1 200 OK\nX-A: b\n c\nContent-Length: 2\n\nok", 200, excerpt=b"ok"),
    "a folded Retry-After": Raw(
        with_head(f"Retry-After:| 120|{LENGTH}", status_line="HTTP/1.1 503 Busy"), 503, retry_after="120"
    ),
    "a folded date in Retry-After": Raw(
        with_head(f"Retry-After: Wed, 21 Oct 2026|  07:28:00 GMT|{LENGTH}", status_line="HTTP/1.1 429 Many"),
        429,
        retry_after="Wed, 21 Oct 2026 07:28:00 GMT",
    ),
    "a Retry-After beside a fold": Raw(
        with_head(f"X-A: b| c|Retry-After: 7|{LENGTH}", status_line="HTTP/1.1 503 Busy"), 503, retry_after="7"
    ),
    "a fold before the first field": Raw(with_head(f" X-A: b|{LENGTH}"), INVALID),
    "a space before a colon": Raw(with_head("Content-Length : 2"), 200, excerpt=b"ok"),
    "a space in a name": Raw(field("X A: b"), 200, excerpt=b"ok"),
    "a bracket in a name": Raw(field("X(A): b"), 200, excerpt=b"ok"),
    "bytes beyond ASCII in a name": Raw(field("X-Ä: b"), 200, excerpt=b"ok"),
    "bytes beyond ASCII in a value": Raw(field("X: ä"), 200, excerpt=b"ok"),
    "an empty name": Raw(field(": b"), 200, excerpt=b"ok"),
    "an empty value": Raw(field("X:"), 200, excerpt=b"ok"),
    "a colon in a value": Raw(field("A:B: c"), 200, excerpt=b"ok"),
    "a control character in a value": Raw(field("X: a\x01b"), 200, excerpt=b"ok"),
    "a CR in a value": Raw(field("X: a\rb"), 200, excerpt=b"ok"),
    "a NUL in a value": Raw(field("X: a\0b"), INVALID),
    "a line without a colon": Raw(field("Nonsense"), INVALID),
    "lines that end in LF alone": Raw(b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", 200, excerpt=b"ok"),
    "lines that end in LF or CRLF": Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2\n\r\nok", 200, excerpt=b"ok"),
    "lines that end in CR alone": Raw(b"HTTP/1.1 200 OK\rContent-Length: 2\r\rok", INVALID),
    "five hundred fields": Raw(field("|".join(f"X-{n}: y" for n in range(500))), 200, excerpt=b"ok"),
    "a field of 15 KB": Raw(field("X: " + "y" * 15000), 200, excerpt=b"ok"),
    "a field of 30 KB": Raw(field("X: " + "y" * 30000), 200, excerpt=b"ok"),
    "a head of 80 KB": Raw(field("|".join(f"X-{n}: {'y' * 1000}" for n in range(80))), INVALID),
    "no fields": Raw(b"HTTP/1.1 200 OK\r\n\r\n", 200),
    "an upgrade that is only offered": Raw(field("Connection: upgrade|Upgrade: h2c"), 200, excerpt=b"ok"),
    "half a field, and the end": Raw(b"HTTP/1.1 200 OK\r\nContent-Le", CLOSED),
    "a head without its empty line": Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", CLOSED),
    "a folded head without its empty line": Raw(b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n", INVALID),
}

#: First lines, and what may come before them.
FIRST_LINES: dict[str, Raw] = {
    "no reason phrase": Raw(begun("HTTP/1.1 200"), 200, excerpt=b"ok"),
    "a space and no reason phrase": Raw(begun("HTTP/1.1 200 "), 200, excerpt=b"ok"),
    "a reason beyond ASCII": Raw(begun("HTTP/1.1 200 Grüße"), 200, excerpt=b"ok"),
    "a control character in the reason": Raw(begun("HTTP/1.1 200 O\x01K"), 200, excerpt=b"ok"),
    "two spaces before the status": Raw(begun("HTTP/1.1  200 OK"), 200, excerpt=b"ok"),
    "no space after the status": Raw(begun("HTTP/1.1 200OK"), 200, excerpt=b"ok"),
    "small letters": Raw(begun("http/1.1 200 OK"), 200, excerpt=b"ok"),
    "HTTP/1.0": Raw(begun("HTTP/1.0 200 OK"), 200, excerpt=b"ok"),
    "HTTP/2": Raw(begun("HTTP/2 200"), 200, excerpt=b"ok"),
    "HTTP/2.0": Raw(begun("HTTP/2.0 200 OK"), 200, excerpt=b"ok"),
    "HTTP/1.2": Raw(begun("HTTP/1.2 200 OK"), INVALID),
    "HTTP/3.0": Raw(begun("HTTP/3.0 200 OK"), INVALID),
    "HTTP/1": Raw(begun("HTTP/1 200 OK"), INVALID),
    "no version": Raw(begun("HTTP 200 OK"), INVALID),
    "another protocol": Raw(begun("ICY 200 OK"), INVALID),
    "a space before the first line": Raw(begun(" HTTP/1.1 200 OK"), INVALID),
    "a byte order mark": Raw(b"\xef\xbb\xbf" + begun("HTTP/1.1 200 OK"), INVALID),
    "a tab before the status": Raw(begun("HTTP/1.1\t200 OK"), INVALID),
    "a status of two digits": Raw(begun("HTTP/1.1 20 OK"), INVALID),
    "a status of four digits": Raw(begun("HTTP/1.1 2000 OK"), INVALID),
    "a status of 0": Raw(begun("HTTP/1.1 000 OK"), INVALID),
    "a status below 100": Raw(begun("HTTP/1.1 099 OK"), INVALID),
    "a negative status": Raw(begun("HTTP/1.1 -200 OK"), INVALID),
    "a status that is a word": Raw(begun("HTTP/1.1 abc OK"), INVALID),
    "a status of 600": Raw(begun("HTTP/1.1 600 Odd"), 600, excerpt=b"ok"),
    "a status of 999": Raw(begun("HTTP/1.1 999 Denied"), 999, excerpt=b"ok"),
    "410": Raw(begun("HTTP/1.1 410 Gone"), 410),
    "cookies": Raw(field("Set-Cookie: a=b"), 200, excerpt=b"ok"),
    "HTTP/1.0 with keep-alive": Raw(
        with_head(f"Connection: keep-alive|{LENGTH}", status_line="HTTP/1.0 200 OK"), 200, "holds", excerpt=b"ok"
    ),
    "half a first line": Raw(b"HTTP/1.1 2", CLOSED),
    "NULs": Raw(bytes(64), INVALID),
    "102 and 103 first": Raw(
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Hints\r\nLink: a\r\n\r\n" + with_head(LENGTH), 200, excerpt=b"ok"
    ),
    "100 first": Raw(b"HTTP/1.1 100 Continue\r\n\r\n" + with_head(LENGTH), 200, excerpt=b"ok"),
    "103 first, folded": Raw(b"HTTP/1.1 103 Hints\r\nLink: a\r\n b\r\n\r\n" + with_head(LENGTH), 200, excerpt=b"ok"),
    "103 first, then a fold": Raw(b"HTTP/1.1 103 Hints\r\nLink: a\r\n\r\n" + field("X: a| b"), 200, excerpt=b"ok"),
    "199 first": Raw(b"HTTP/1.1 199 Odd\r\n\r\n" + with_head(LENGTH), 200, excerpt=b"ok"),
    "100 and nothing else": Raw(b"HTTP/1.1 100 Continue\r\n\r\n", CLOSED),
    "102 and then no HTTP": Raw(b"HTTP/1.1 102 Processing\r\n\r\njunk\r\n\r\n", INVALID),
    "101": Raw(with_head("Connection: upgrade|Upgrade: websocket", status_line="HTTP/1.1 101 Switching"), INVALID),
    "nothing": Raw(b"", CLOSED),
    "a reset instead": Raw(b"", CLOSED, "resets"),
    "a page without a head": Raw(b"<html>hello</html>\r\n\r\n", INVALID),
    "SSH": Raw(b"SSH-2.0-OpenSSH_9.2\r\n", INVALID),
    "an HTTP/2 preface": Raw(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x80", INVALID),
    "a TLS alert": Raw(b"\x15\x03\x01\x00\x02\x02\x46", INVALID),
}

#: The aiohttp sender reads less: its parser refuses these, if what it cannot read arrives together with the head.
REFERENCE: dict[str, int | Failure] = {
    "a fold before the first field": 200,
    "a folded head without its empty line": CLOSED,
    **dict.fromkeys(
        (
            "a chunk size that is no number",
            "a chunk size that overflows",
            "chunks that end in LF alone",
            "garbage after the body",
            "a body after a length of 0",
            "a 204 with a body",
            "a chunked 204",
            "the same length twice",
            "the same length three times",
            "the same length as a list",
            "the same length as a dense list",
            "the same length, once with a zero",
            "a length, then chunked",
            "chunked, then a length",
            "chunked, a length, held open",
            "identity, then a length",
            "a length, then identity",
            "identity and a length in 1.0",
            "a length with a sign",
            "a length with words",
            "a length that overflows",
            "a space in a name",
            "a bracket in a name",
            "bytes beyond ASCII in a name",
            "an empty name",
            "a CR in a value",
            "two spaces before the status",
            "no space after the status",
            "small letters",
            "HTTP/2",
        ),
        INVALID,
    ),
}

ANSWERS: dict[str, Raw] = BODIES | FRAMING | FIELDS | FIRST_LINES
