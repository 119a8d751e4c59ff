"""One connection to a receiver: writes a request at once, reports one response, says whether it may be used again.

`exchange` writes the request. What arrives goes to the `ResponseReader`, which says when the response is over. Then
`_settle` or `_fail` ends the exchange and reports exactly once.

A connection may be used again only after an answer that is complete, asks for no close, and is followed by nothing.
"""

import asyncio
import time
from collections.abc import Callable
from enum import Enum
from typing import Protocol, cast

from go2hooks.core.domain.outcome import NoAnswer, Response
from go2hooks.core.flow.serving import Opening
from services.dispatcher.http import failures
from services.dispatcher.http.deadlines import Bucket, Expirable
from services.dispatcher.http.failures import Cause, Phase
from services.dispatcher.http.identity import IdentityName
from services.dispatcher.http.response import ExchangeLimits, ResponseReader

#: Scheme, host, port, and the client certificate, if any: requests to the same origin may share a connection.
Origin = tuple[str, str, int, IdentityName | None]

#: Receives the response of an exchange, or None when the connection ended before the first byte of one. Must not raise.
Report = Callable[[Response | None], None]


class ConnectionState(Enum):
    """Of a connection. Every state may be followed by CLOSED, which is the last."""

    CONNECTING = "connecting"  #: → IDLE, when TCP is connected and the TLS handshake, if any, is complete
    IDLE = "idle"  #: → SENDING, at an exchange
    SENDING = "sending"  #: → READING, at the first byte of a response
    READING = "reading"  #: → IDLE, after a response that leaves the connection usable
    CLOSED = "closed"  #: the transport is closed, or is about to be


class Owner(Protocol):
    """Keeps connections between exchanges."""

    def release(self, connection: "Connection") -> None:
        """The connection is idle and may be used again."""

    def forget(self, connection: "Connection") -> None:
        """The connection is closed. May be called more than once."""

    def body_deadline(self) -> Bucket:
        """The bucket that expires `body_timeout_s` from now; to be entered at once."""
        ...


class Exchange:
    """The exchange that is under way on a connection. Each connection has one such object and uses it again."""

    __slots__ = ("_body_bucket", "_bucket", "report", "started")

    def __init__(self) -> None:
        self.started = 0.0  #: when the attempt began, in monotonic seconds
        self.report: Report | None = None  #: None between exchanges
        self._bucket: Bucket | None = None  # the attempt's deadline
        self._body_bucket: Bucket | None = None  # the deadline for the body's end

    def begin(self, connection: Expirable, started: float, bucket: Bucket, report: Report) -> None:
        self.started = started
        self.report = report
        self._bucket = bucket
        bucket.add(connection)

    def wait_for_body(self, connection: Expirable, owner: Owner) -> None:
        """The head has arrived: from now on the body has a deadline of its own."""
        if self._body_bucket is None:
            self._body_bucket = owner.body_deadline()
            self._body_bucket.add(connection)

    def leave(self, connection: Expirable) -> Report | None:
        """Cancel the deadlines. Returns whom to report to, the first time."""
        report, self.report = self.report, None
        if self._bucket is not None:
            self._bucket.discard(connection)
            self._bucket = None
        if self._body_bucket is not None:
            self._body_bucket.discard(connection)
            self._body_bucket = None
        return report


class Connection(asyncio.BaseProtocol):
    """One exchange at a time. Belongs to one event loop. Made as a `PlainConnection` or a `TlsConnection`."""

    __slots__ = (
        "_exchange", "_limits", "_loss", "_owner", "_response", "_transport", "asked_at", "connected_at", "idle_since",
        "is_alone", "opening", "origin", "remote_address", "state",
    )  # fmt: skip

    def __init__(self, owner: Owner, origin: Origin, limits: ExchangeLimits) -> None:
        self.state = ConnectionState.CONNECTING
        self.origin = origin
        self.connected_at = self.asked_at = self.idle_since = 0.0
        self.opening: Opening | None = None  #: until it has been used: the first answer that leaves it open ends that
        self.remote_address: str | None = None  #: the receiver's; None where a proxy connected to it
        self.is_alone = False  #: when it became idle, the receiver had not yet served two connections at once
        self._owner = owner
        self._limits = limits
        self._exchange = Exchange()
        self._response = ResponseReader(limits)
        self._transport: asyncio.Transport | None = None
        self._loss: Exception | None = None  # why the connection ended

    # --- called by the sender

    async def ready(self) -> None:
        """Wait until there may be exchanges. Raises what prevents them."""

    def exchange(self, message: bytes, started: float, bucket: Bucket, report: Report) -> None:
        """Write one request; `started` is when the attempt began (monotonic seconds). `report` is called once."""
        self._exchange.begin(self, started, bucket, report)
        if bucket.expired:  # between the moment when the attempt got this connection and now
            self.expire()
        elif self.state is ConnectionState.IDLE:
            self.state = ConnectionState.SENDING
            self._write(message)
        else:  # closed since it was made or taken
            self._report_loss()

    def abandon(self, report: Report) -> None:
        """Nobody waits for this exchange any more. An exchange that has begun since is left alone."""
        if self._exchange.report is report:
            self._fail(None)

    def expire(self) -> None:
        """A deadline has passed: the attempt's, or the one for the body's end."""
        phase = Phase.READING if self.state is ConnectionState.READING else Phase.WAITING
        self.end(failures.timeout(self._limits.timeout_s, phase))

    def end(self, cause: Cause) -> None:
        """Read no more: the answer stands if its head has arrived, else `cause` is the outcome."""
        if self._response.status:
            self._settle()
        else:
            duration_ms = (time.monotonic() - self._exchange.started) * 1000.0
            self._fail(NoAnswer(cause.failure, cause.message, duration_ms, self.remote_address))

    def abort(self) -> None:
        """Close at once; what is not written yet is lost."""
        self.state = ConnectionState.CLOSED
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Close in order; only while idle."""
        self.state = ConnectionState.CLOSED
        if self._transport is not None:
            self._transport.close()

    def _write(self, message: bytes) -> None:
        self._transport.write(message)  # type: ignore[union-attr]  # set unless closed

    # --- called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.connected_at = time.monotonic()
        self._response.open()
        self.state = ConnectionState.IDLE

    def data_received(self, data: bytes) -> None:
        if self.state is ConnectionState.SENDING:
            self.state = ConnectionState.READING
        elif self.state is not ConnectionState.READING:  # bytes that no request asked for
            self._lose(None)
            self.abort()
            return
        response = self._response
        if response.feed(data):
            self.end(response.cause)
        elif response.status:
            self._exchange.wait_for_body(self, self._owner)

    def eof_received(self) -> None:
        """The receiver sends no more. The transport closes itself; until then nobody may use the connection."""
        if self.state is ConnectionState.IDLE:
            self._lose(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose(exc)
        self._transport = None
        self._response.close()
        if self._exchange.report is not None:
            self._report_loss()

    def _lose(self, exc: Exception | None) -> None:
        """No exchange can begin any more. The first reason is kept."""
        self.state = ConnectionState.CLOSED
        self._loss = self._loss or exc
        self._owner.forget(self)

    def _report_loss(self) -> None:
        """The connection ended during the exchange, or before it could begin."""
        if self._response.has_begun:
            self.end(self._response.cause)
        elif self._loss is None or isinstance(self._loss, ConnectionError):
            self._fail(None)
        else:
            self.end(failures.explain(self._loss, Phase.WAITING))

    def _fail(self, response: NoAnswer | None) -> None:
        """There is no answer. Report so, unless that has happened or nobody waits."""
        report = self._exchange.leave(self)
        self.abort()
        if report is not None:
            report(response)

    def _settle(self) -> None:
        """The answer stands. The connection is back with its owner before anybody is told."""
        response = self._response
        answer = response.answer(self._exchange.started, self.remote_address)
        report = self._exchange.leave(self)
        if response.is_reusable and self._is_lasting():
            self.state = ConnectionState.IDLE
            self.idle_since = response.head_at
            response.reset()
            self._owner.release(self)
        else:
            self.abort()
        if report is not None:
            report(answer)

    def _is_lasting(self) -> bool:
        """Whether the connection is young enough for another exchange, and the whole request has left."""
        transport = self._transport
        is_young = self._response.head_at - self.connected_at <= self._limits.connection_age_s
        return (
            transport is not None and is_young and not transport.is_closing() and not transport.get_write_buffer_size()
        )


class PlainConnection(Connection, asyncio.Protocol):
    """Over TCP."""

    __slots__ = ()
