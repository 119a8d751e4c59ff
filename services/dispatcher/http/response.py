"""Reads one HTTP/1.1 response after the other from a connection's bytes, in bounded memory.

`ExchangeLimits` says how long a head and a body may be. A head that has arrived is an answer, even if its body is not.
"""

import time
from dataclasses import dataclass

import httptools

from go2hooks.core.domain.outcome import Answer
from services.dispatcher.http import failures, wire
from services.dispatcher.http.failures import Cause
from services.dispatcher.http.lenient import INTERIM_LIMIT, LenientReader, UnreadableError


@dataclass(frozen=True, slots=True)
class ExchangeLimits:
    """How long an exchange may take, what is read and kept of its answer, and when a connection may be used for it."""

    timeout_s: float
    body_bytes: int  #: read at most; then the connection is closed
    excerpt_bytes: int  #: kept of them
    body_timeout_s: float  #: how long to wait for the end of a body after its head; then the connection is closed
    head_bytes: int = 65536  #: of all heads of an answer, interim (1xx) ones included; real ones have a few KiB
    #: An older connection is not used again, so that changes of DNS take effect within minutes.
    connection_age_s: float = 300.0
    #: A receiver that closes an idle connection while our request is on its way shows within a round trip. One that
    #: closes later has had the request, so sending it again would be a second attempt that nobody recorded.
    stale_within_s: float = 1.0


class ResponseReader:
    """Parses what a connection receives. `feed` until it returns True, then `reset` for the next response."""

    __slots__ = (
        "_body_bytes", "_body_limit", "_excerpt", "_excerpt_bytes", "_head", "_head_limit", "_interim", "_is_complete",
        "_lenient", "_parser", "_received", "cause", "head_at", "is_reusable", "status",
    )  # fmt: skip

    def __init__(self, limits: ExchangeLimits) -> None:
        self._head_limit = limits.head_bytes
        self._body_limit = limits.body_bytes
        self._excerpt_bytes = limits.excerpt_bytes
        self._parser: httptools.HttpResponseParser | None = None
        self._lenient: LenientReader | None = None  # from when the parser refuses a head until that head is complete
        self.head_at = 0.0  #: when the final head was complete, in monotonic seconds
        self.reset()

    def reset(self) -> None:
        """Expect the next response on the same connection."""
        self.status = 0  #: of the final head; 0 until it has arrived
        self.cause = failures.CLOSED_EARLY  #: why there is no answer, if the connection ends now
        self.is_reusable = False  #: the response is complete, and neither it nor what follows forbids another exchange
        self._is_complete = False
        self._interim = self._received = self._body_bytes = 0
        self._head: bytes | bytearray = b""
        self._excerpt = b""

    def open(self) -> None:
        """The connection is made. `close` has to follow: the parser and this object refer to each other."""
        self._parser = self._new_parser()

    def close(self) -> None:
        self._parser = None

    def feed(self, data: bytes) -> bool:
        """Read what has arrived. True when nothing more is to be read: it is an answer if it has a `status`."""
        if not self.status:
            room = self._head_limit - self._received
            if len(data) > room:
                return self._feed_head_and_rest(data, room)
            self._remember(data)
        self._received += len(data)
        fault = self._parse(data)
        if fault is None and not self.status and self._received >= self._head_limit:
            fault = failures.HEAD_TOO_LARGE
        if fault is not None:
            self.cause = fault
            self.is_reusable = False
            return True
        return self._is_complete or (self.status > 0 and self._has_enough())

    def answer(self, started: float, remote_address: str | None) -> Answer:
        """What the response says; `started` is when the attempt began (monotonic seconds). Only with a `status`."""
        answer = Answer(self.status, (self.head_at - started) * 1000.0, None, self._excerpt, None, remote_address)
        if self.status < 300:  # noqa: PLR2004  # success
            return answer
        head = wire.final_head(bytes(self._head))
        return answer._replace(retry_after=wire.retry_after(head), location=wire.location(head))

    @property
    def has_begun(self) -> bool:
        """Whether any byte has arrived."""
        return self._received > 0

    # --- called by the parser

    def on_message_begin(self) -> None:
        if self._is_complete:
            raise ValueError("bytes after the answer")  # stops the parser

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()  # type: ignore[union-attr]  # the parser makes this call
        if status >= 200:  # noqa: PLR2004  # final, not interim
            self.status = status
            self.head_at = time.monotonic()
        elif status < 100:  # noqa: PLR2004
            raise ValueError("no status at all")  # stops the parser
        else:
            self._interim += 1

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        room = self._excerpt_bytes - len(self._excerpt)
        if room > 0:
            self._excerpt += body[:room]

    def on_message_complete(self) -> None:
        if self.status:
            self._is_complete = True
            self.is_reusable = self._parser.should_keep_alive()  # type: ignore[union-attr]  # forgotten right after

    # --- internal

    def _feed_head_and_rest(self, data: bytes, room: int) -> bool:
        """More has arrived than a head may have: parse that much, then the rest if it belongs to a body."""
        if not self.feed(data[:room]):
            return self.feed(data[room:])
        self.is_reusable = False  # bytes follow the answer
        return True

    def _remember(self, data: bytes) -> None:
        """Keep raw bytes until the head is complete. A head in one piece, which is the usual case, is not copied."""
        if not self._head:
            self._head = data
            return
        if isinstance(self._head, bytes):
            self._head = bytearray(self._head)
        self._head += data

    def _new_parser(self) -> httptools.HttpResponseParser:
        parser = httptools.HttpResponseParser(self)
        # As lenient as browsers and aiohttp are; what frames a message stays strict.
        parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True)
        return parser

    def _parse(self, data: bytes) -> Cause | None:
        if self._lenient is not None:
            return self._parse_leniently(self._lenient)
        try:
            self._parser.feed_data(data)  # type: ignore[union-attr]  # set while connected
        except httptools.HttpParserUpgrade:
            return failures.UPGRADE
        except httptools.HttpParserError:
            if self.status:
                return failures.NOT_HTTP
            self._lenient, self.cause = LenientReader(), failures.NOT_HTTP
            return self._parse_leniently(self._lenient)
        return failures.TOO_MANY_INTERIM if self._interim > INTERIM_LIMIT else None

    def _parse_leniently(self, reader: LenientReader) -> Cause | None:
        """The parser has refused the head. When the head is complete, a new parser continues with its strict form."""
        try:
            head = reader.read(self._head)
        except UnreadableError:
            return failures.NOT_HTTP
        if head is None:
            return None
        body, self._head = bytes(self._head[head.end :]), head.fields
        self._lenient, self._parser, self.cause = None, self._new_parser(), failures.CLOSED_EARLY
        return self._parse(head.strict + body)

    def _has_enough(self) -> bool:
        """Whether the body's limit is reached. Raw bytes count, too: of tiny chunks, or endless trailers."""
        return self._body_bytes > self._body_limit or self._received > self._body_limit + self._head_limit
