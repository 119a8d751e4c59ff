"""One connection to a receiver: writes a request at once, reads an answer, says whether it may be used again.

The life of an exchange: `exchange` writes the request; the parser's callbacks note status and body; `_settle` or
`_give_up` report the response exactly once. Whatever the receiver sends, memory stays bounded: the head by
`HEAD_LIMIT_BYTES`, the body by the limit, after which the connection is closed and the answer stands as it is.

A head that has arrived is an answer, whatever becomes of its body: its end is waited for, for `body_timeout_s`.

Only an answer that is complete, asks for no close, and is followed by nothing leaves the connection fit for another one.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol, cast

import httptools

from go2hooks.core.domain.outcome import Answer, NoAnswer, Response
from go2hooks.core.flow.serving import Opening
from services.dispatcher.http import failures, wire
from services.dispatcher.http.deadlines import Bucket
from services.dispatcher.http.failures import Cause, Phase
from services.dispatcher.http.identity import IdentityName
from services.dispatcher.http.lenient import INTERIM_LIMIT, LenientReader, UnreadableError

HEAD_LIMIT_BYTES: Final = 65536  #: of all heads that an answer may have, interim ones included
MAX_AGE_S: Final = 300.0  #: then a connection is not used again, so that changes of DNS get through

#: Scheme, host, port, and the client certificate, if any: requests to the same origin may share a connection.
Origin = tuple[str, str, int, IdentityName | None]

#: Told the response of an exchange, or None when the connection ended before the first byte of one. Must not raise.
Report = Callable[[Response | None], None]


class Limits(NamedTuple):
    """What a connection reads and keeps of an answer."""

    timeout_s: float
    body_bytes: int  #: read at most; then the connection is closed
    excerpt_bytes: int  #: kept of them
    body_timeout_s: float  #: the end of a body is waited for, once its head has arrived; then the connection is closed


class Owner(Protocol):
    """Who keeps connections between exchanges."""

    def release(self, connection: "Connection") -> None:
        """The connection is idle and fit for another exchange."""

    def forget(self, connection: "Connection") -> None:
        """The connection is gone."""

    def body_deadline(self) -> Bucket:
        """What expires `body_timeout_s` from now; to be entered at once."""
        ...


class Connection(asyncio.BaseProtocol):
    """One exchange at a time. Belongs to one event loop. Made as a `PlainConnection` or a `TlsConnection`."""

    __slots__ = (
        "_body_bucket",
        "_body_size",
        "_bucket",
        "_complete",
        "_excerpt",
        "_head",
        "_head_at",
        "_interim",
        "_keep_alive",
        "_lenient",
        "_limits",
        "_loss",
        "_owner",
        "_parser",
        "_received",
        "_report",
        "_started",
        "_status",
        "_transport",
        "asked_at",
        "connected_at",
        "idle_since",
        "is_alone",
        "opening",
        "origin",
        "remote_address",
    )

    def __init__(self, owner: Owner, origin: Origin, limits: Limits) -> None:
        self.origin = origin
        self.connected_at = self.asked_at = self.idle_since = 0.0
        self.opening: Opening | None = None  #: until it has been answered on, and stays open
        self.remote_address: str | None = None  #: whom it was made to; None where a proxy made it
        self.is_alone = False  #: the receiver had not shown to serve another one beside it when it became idle
        self._owner = owner
        self._limits = limits
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._report: Report | None = None  # of the exchange that is under way
        self._bucket: Bucket | None = None
        self._body_bucket: Bucket | None = None  # while the body's end is waited for
        self._lenient: LenientReader | None = None  # once the parser has refused the head
        self._loss: Exception | None = None
        self._started = self._head_at = 0.0
        self._reset()

    def _reset(self) -> None:
        self._status = self._interim = self._received = self._body_size = 0
        self._head: bytes | bytearray = b""
        self._excerpt = b""
        self._complete = self._keep_alive = False

    # --- what the sender calls

    async def ready(self) -> None:
        """Wait until there may be exchanges. Raises what keeps them from coming about."""

    def exchange(self, message: bytes, started: float, bucket: Bucket, report: Report) -> None:
        """Write one request; `started` is when the attempt began (monotonic seconds). `report` is called once."""
        self._started = started
        self._bucket = bucket
        bucket.add(self)
        self._report = report
        if bucket.expired:  # its time was up between its being given this connection and its getting to run
            self.expire()
        elif self._transport is None:  # lost since it was made or taken
            self.connection_lost(self._loss)
        else:
            self._write(message)

    def abandon(self, report: Report) -> None:
        """Nobody waits for this exchange any more. Another one that has begun since is left alone."""
        if self._report is report:
            self._conclude(None)
            self.abort()

    def expire(self) -> None:
        """The attempt's time is up, or the body's."""
        phase = Phase.READING if self._received else Phase.WAITING
        self._give_up(failures.timeout(self._limits.timeout_s, phase))

    def interrupt(self) -> None:
        """The sender closes: end whatever is going on."""
        self._give_up(failures.SHUT_DOWN)

    def abort(self) -> None:
        """Close at once, without a farewell."""
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Close politely; only when idle."""
        if self._transport is not None:
            self._transport.close()

    def _write(self, message: bytes) -> None:
        self._transport.write(message)  # type: ignore[union-attr]  # connected

    # --- what the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.connected_at = time.monotonic()
        self._parser = self._new_parser()

    def data_received(self, data: bytes) -> None:
        if self._report is None:  # bytes that nobody asked for
            self._owner.forget(self)
            self.abort()
            return
        if not self._status:
            room = HEAD_LIMIT_BYTES - self._received
            if len(data) > room:
                self._take(data[:room], is_all=False)
                self.data_received(data[room:])
                return
            self._remember(data)
        self._take(data)

    def eof_received(self) -> None:
        """The receiver sends no more: the transport closes itself, and must not be chosen meanwhile."""
        if self._report is None:
            self._owner.forget(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None and self._is_refusal(exc):
            exc = failures.RefusedHandshakeError()
        self._transport = self._parser = None  # the parser refers to us
        self._loss = exc
        self._owner.forget(self)
        if self._report is None:
            return
        if self._received:
            self._give_up(failures.CLOSED_EARLY if self._lenient is None else failures.NOT_HTTP)
        elif exc is None or isinstance(exc, ConnectionError):
            self._conclude(None)
        else:
            self._give_up(failures.explain(exc, Phase.WAITING))

    def _is_refusal(self, exc: Exception | None) -> bool:  # noqa: ARG002
        """Whether the receiver ended the TLS handshake, for which we took it to be done."""
        return False

    # --- what the parser calls

    def on_message_begin(self) -> None:
        if self._complete:
            raise ValueError("bytes after the answer")  # stops the parser

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()  # type: ignore[union-attr]  # it is the parser that calls
        if status >= 200:  # noqa: PLR2004  # final, not interim
            self._status = status
            self._head_at = time.monotonic()
        elif status < 100:  # noqa: PLR2004
            raise ValueError("no status at all")  # stops the parser
        else:
            self._interim += 1

    def on_body(self, body: bytes) -> None:
        self._body_size += len(body)
        room = self._limits.excerpt_bytes - len(self._excerpt)
        if room > 0:
            self._excerpt += body[:room]

    def on_message_complete(self) -> None:
        if self._status:
            self._complete = True
            self._keep_alive = self._parser.should_keep_alive()  # type: ignore[union-attr]  # forgotten right after this

    # --- the rest is ours

    def _remember(self, data: bytes) -> None:
        """Keep raw bytes until the head is complete; a bytearray only for heads that come in pieces."""
        if not self._head:
            self._head = data
            return
        if isinstance(self._head, bytes):
            self._head = bytearray(self._head)
        self._head += data

    def _take(self, data: bytes, *, is_all: bool = True) -> None:
        """Parse, then decide whether the exchange is over. `is_all` when nothing more has arrived."""
        self._received += len(data)
        fault = self._feed(data)
        if self._complete:
            self._settle(fit=fault is None and self._keep_alive and is_all)
        elif fault is not None:
            self._give_up(fault)
        elif self._status:
            if self._has_enough():
                self._settle(fit=False)
            elif self._body_bucket is None:
                self._body_bucket = self._owner.body_deadline()
                self._body_bucket.add(self)
        elif self._received >= HEAD_LIMIT_BYTES:
            self._give_up(failures.HEAD_TOO_LARGE)

    def _new_parser(self) -> httptools.HttpResponseParser:
        parser = httptools.HttpResponseParser(self)
        # As lenient as browsers and aiohttp are; what frames a message stays strict.
        parser.set_dangerous_leniencies(lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True)
        return parser

    def _feed(self, data: bytes) -> Cause | None:
        if self._lenient is not None:
            return self._read_leniently(self._lenient)
        try:
            self._parser.feed_data(data)  # type: ignore[union-attr]  # set while connected
        except httptools.HttpParserUpgrade:
            return failures.UPGRADE
        except httptools.HttpParserError:
            if self._status:
                return failures.NOT_HTTP
            self._lenient = LenientReader()
            return self._read_leniently(self._lenient)
        return failures.TOO_MANY_INTERIM if self._interim > INTERIM_LIMIT else None

    def _read_leniently(self, reader: LenientReader) -> Cause | None:
        """The parser has refused the head: once it is whole, a new parser goes on with what it says in other words."""
        try:
            head = reader.read(self._head)
        except UnreadableError:
            return failures.NOT_HTTP
        if head is None:
            return None
        body, self._head = bytes(self._head[head.end :]), head.fields
        self._lenient, self._parser = None, self._new_parser()
        return self._feed(head.strict + body)

    def _has_enough(self) -> bool:
        """Whether the body's limit is reached; raw bytes count too, for bodies in tiny chunks and endless trailers."""
        limit = self._limits.body_bytes
        return self._body_size > limit or self._received > limit + HEAD_LIMIT_BYTES

    def _settle(self, *, fit: bool) -> None:
        """The answer stands. The connection is in its place again before anybody hears of it."""
        status = self._status
        duration_ms = (self._head_at - self._started) * 1000.0
        answer = Answer(status, duration_ms, None, self._excerpt, None, self.remote_address)
        if status >= 300:  # noqa: PLR2004  # no success
            head = wire.final_head(bytes(self._head))
            answer = answer._replace(retry_after=wire.retry_after(head), location=wire.location(head))
        report = self._leave()
        if fit and self._is_lasting():
            self.idle_since = self._head_at
            self._reset()
            self._owner.release(self)
        else:
            self.abort()
        if report is not None:
            report(answer)

    def _is_lasting(self) -> bool:
        """Whether the connection is young enough for another exchange, and has nothing of this one left to write."""
        transport = self._transport
        if transport is None or transport.is_closing() or self._head_at - self.connected_at > MAX_AGE_S:
            return False
        return transport.get_write_buffer_size() == 0

    def _give_up(self, cause: Cause) -> None:
        """Nothing more is to be had of this connection: the answer stands if its head has arrived, else `cause` does."""
        if self._status:
            self._settle(fit=False)
            return
        duration_ms = (time.monotonic() - self._started) * 1000.0
        self._conclude(NoAnswer(cause.failure, cause.message, duration_ms, self.remote_address))
        self.abort()

    def _conclude(self, response: Response | None) -> None:
        """Report, unless that has happened or nobody waits any more."""
        report = self._leave()
        if report is not None:
            report(response)

    def _leave(self) -> Report | None:
        """End the exchange: its deadline, and who waits for it."""
        report, self._report = self._report, None
        if self._bucket is not None:
            self._bucket.discard(self)
            self._bucket = None
        if self._body_bucket is not None:
            self._body_bucket.discard(self)
            self._body_bucket = None
        return report


class PlainConnection(Connection, asyncio.Protocol):
    """Over TCP."""

    __slots__ = ()
