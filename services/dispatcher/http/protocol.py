"""The fast sender: one write, one call back, one set operation for the deadline per request."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

from go2hooks.core.domain.outcome import NoAnswer, Response
from go2hooks.core.flow.serving import Opening
from go2hooks.core.security.request import SignedRequest
from go2hooks.core.security.target import Target
from services.dispatcher.http import failures, wire
from services.dispatcher.http.connect_queue import ConnectQueue
from services.dispatcher.http.connection import Connection, Origin, PlainConnection, Report
from services.dispatcher.http.deadlines import Bucket, DeadlineQueue
from services.dispatcher.http.dial import Dial, Dialer
from services.dispatcher.http.failures import Cause, Phase
from services.dispatcher.http.guard import Guard
from services.dispatcher.http.identity import Identity
from services.dispatcher.http.line import Times
from services.dispatcher.http.pool import IdlePool
from services.dispatcher.http.proxy import EgressProxy
from services.dispatcher.http.resolver import Resolver
from services.dispatcher.http.response import Limits
from services.dispatcher.http.tls_connection import TlsConnection

#: A receiver that closes an idle connection while our request is on its way shows within a round trip. One that closes
#: later has had the request, so sending it again would be a second attempt that nobody recorded.
STALE_WITHIN_S: Final = 1.0
_CLOSE_WITHIN_S: Final = 2.0
#: Requests written one right after the other while corked: receivers are woken once for them all, not once for each.
BURST: Final = 16

_Corked = tuple[Connection, bytes, float, Bucket, Report]  # what `Connection.exchange` is to get


class HttpClient:
    """HTTP/1.1 on asyncio's transports. Belongs to one event loop; the caller bounds how many requests are under way.

    A connection that comes from the pool may be closed by the receiver just as the request leaves. Then the request is
    sent once more, on a fresh connection: only if no byte of an answer came, and only within `STALE_WITHIN_S`.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        resolver: Resolver,
        guard: Guard,
        ssl_context: ssl.SSLContext,
        proxy: EgressProxy | None = None,
        pool_max_idle: int = 2000,
        pool_idle_s: float = 60.0,
        tick_s: float = 0.05,
    ) -> None:
        self._limits = limits
        self._dialer = Dialer(resolver, guard, ssl_context, proxy)
        self._wheel = DeadlineQueue(limits.timeout_s, tick_s)
        self._body_wheel = DeadlineQueue(limits.body_timeout_s, tick_s)
        times = Times.within(limits.timeout_s, pool_idle_s)
        self._connect_queue = ConnectQueue(times)
        self._pool = IdlePool(
            pool_max_idle, pool_idle_s, self._connect_queue.one_idle_s, min(1.0, times.brief_s, pool_idle_s / 2)
        )
        self._connect_queue.close_idle = self._pool.close_first
        self._dials: set[Dial] = set()
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._corked: list[_Corked] | None = None  # None: requests are written at once
        self._closing: asyncio.Event | None = None  # once closing: set when the last connection is gone

    # --- Sender

    async def send(self, request: SignedRequest, identity: Identity | None = None) -> Response:
        """POST it and read the answer, within the timeout in all. Raises nothing but CancelledError."""
        started = time.monotonic()
        try:
            message = wire.serialize(request)
        except wire.UnsendableError:
            return _no_answer(failures.UNSENDABLE, started)
        bucket = self._wheel.bucket()
        origin = _origin(request.target, identity)
        connection = self._pool.take(origin)
        if connection is not None and connection.is_alone and self._connect_queue.wants_another(origin):
            self._pool.put(connection)
            connection = None
        if connection is None:
            return await self._send_in_turn(request.target, identity, message, started, bucket)
        return await self._send_on_used(connection, request.target, identity, message, started, bucket)

    def send_now(self, request: SignedRequest, on_response: Callable[[Response], None]) -> bool:
        """See `Sender.send_now`."""
        target = request.target
        try:
            message = wire.serialize(request)
        except wire.UnsendableError:
            return False
        connection = self._pool.take(_origin(target, None))
        if connection is None:
            return False
        if connection.is_alone:  # another one may have to be opened beside it
            self._pool.put(connection)
            return False
        started, bucket = time.monotonic(), self._wheel.bucket()
        connection.asked_at = started

        def report(response: Response | None) -> None:
            if response is not None:
                on_response(response)
            else:
                self._spawn(self._respond_again(target, message, started, bucket, on_response))

        if self._corked is None:
            connection.exchange(message, started, bucket, report)
            return True
        self._corked.append((connection, message, started, bucket, report))
        if len(self._corked) == BURST:
            self._write_corked(self._corked)
        return True

    def cork(self) -> None:
        """See `Sender.cork`."""
        self._corked = []

    def uncork(self) -> None:
        """See `Sender.uncork`."""
        corked, self._corked = self._corked, None
        if corked:
            self._write_corked(corked)

    async def close(self) -> None:
        """Interrupt what is under way, close all connections, and wait until they are gone."""
        self._closing = asyncio.Event()
        for dial in tuple(self._dials):
            dial.expire()
        self._connect_queue.close()
        self._wheel.close()
        self._body_wheel.close()
        self._pool.close()
        for connection in tuple(self._connections):
            connection.end(failures.SHUT_DOWN)
        if self._connections:
            # Aborted ones are gone within an iteration; should one not be, the process must still end.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_WITHIN_S):
                    await self._closing.wait()
        await self._dialer.close()

    def connections(self) -> dict[str, int]:
        """Connections to receivers, by state. Any thread."""
        idle = len(self._pool)
        return {"idle": idle, "busy": max(0, len(self._connections) - idle), "connecting": len(self._dials)}

    @staticmethod
    def _write_corked(corked: list[_Corked]) -> None:
        for connection, message, started, bucket, report in corked:
            connection.exchange(message, started, bucket, report)
        corked.clear()

    # --- Owner of connections

    def release(self, connection: Connection) -> None:
        if not self._connect_queue.release(connection):
            self._pool.put(connection)

    def forget(self, connection: Connection) -> None:
        self._pool.discard(connection)
        if connection in self._connections:
            self._connections.discard(connection)
            self._connect_queue.lost(connection)
        if self._closing is not None and not self._connections:
            self._closing.set()

    def body_deadline(self) -> Bucket:
        return self._body_wheel.bucket()

    # --- the slower path: no connection was idle, or the one that was had been closed

    async def _send_in_turn(
        self, target: Target, identity: Identity | None, message: bytes, started: float, bucket: Bucket
    ) -> Response:
        """On the next connection that becomes idle, or on one that is opened, whichever comes first."""
        turn = await self._connect_queue.enter(_origin(target, identity), bucket)
        if isinstance(turn, Connection):
            return await self._send_on_used(turn, target, identity, message, started, bucket)
        if turn is None:
            return _no_answer(self._why_not(bucket, self._queued_behind(target)), started)
        return await _send_on(await self._open(target, identity, bucket, turn), message, started, bucket)

    async def _send_on_used(
        self,
        connection: Connection,
        target: Target,
        identity: Identity | None,
        message: bytes,
        started: float,
        bucket: Bucket,
    ) -> Response:
        """On a connection that has been used before, and once more if it turns out to have been closed."""
        connection.asked_at = written = time.monotonic()
        response = await _exchange(connection, message, started, bucket)
        if response is not None:
            return response
        return await self._send_again(target, identity, message, started, written, bucket)

    async def _send_again(
        self, target: Target, identity: Identity | None, message: bytes, started: float, written: float, bucket: Bucket
    ) -> Response:
        """The connection had been used before, and ended without a byte of an answer: on a fresh one, if it was quick.

        `started` is when the attempt began, `written` when the request left (monotonic seconds).
        """
        if time.monotonic() - written > STALE_WITHIN_S:
            return _no_answer(failures.CLOSED_SILENT, started)
        opening = self._connect_queue.begin(_origin(target, identity))
        return await _send_on(await self._open(target, identity, bucket, opening), message, started, bucket)

    async def _respond_again(
        self, target: Target, message: bytes, started: float, bucket: Bucket, on_response: Callable[[Response], None]
    ) -> None:
        on_response(await self._send_again(target, None, message, started, started, bucket))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open(
        self, target: Target, identity: Identity | None, bucket: Bucket, opening: Opening
    ) -> Connection | Cause:
        connection: Connection | Cause | None = None
        try:
            connection = await self._connect(target, identity, bucket)
            return connection
        finally:
            if isinstance(connection, Connection):
                self._connect_queue.made(connection, opening)
            else:
                self._connect_queue.failed(_origin(target, identity), opening)

    async def _connect(self, target: Target, identity: Identity | None, bucket: Bucket) -> Connection | Cause:
        if self._closing is not None or bucket.expired:
            return self._why_not(bucket, Phase.CONNECTING)
        origin = _origin(target, identity)
        dial = self._dialer.dial(target, partial(self._make, origin), identity)
        self._dials.add(dial)
        bucket.add(dial)
        try:
            return self._admit(await dial.task, bucket)
        except asyncio.CancelledError:
            dial.abandon()
            if _is_cancelled():
                raise
            return self._why_not(bucket, dial.phase)
        except Exception as error:  # noqa: BLE001  # whatever a connect raises is an outcome, not a crash
            return failures.explain(error, dial.phase)
        finally:
            bucket.discard(dial)
            self._dials.discard(dial)

    def _make(self, origin: Origin, context: ssl.SSLContext | None) -> Connection:
        if context is None:
            return PlainConnection(self, origin, self._limits)
        return TlsConnection(self, origin, self._limits, context)

    def _admit(self, connection: Connection, bucket: Bucket) -> Connection | Cause:
        """A connection that was made, unless time ran out or the sender closed at that moment."""
        if bucket.expired or self._closing is not None:
            connection.abort()
            return self._why_not(bucket, Phase.CONNECTING)
        self._connections.add(connection)
        return connection

    def _queued_behind(self, target: Target) -> Phase:
        """What an attempt waits for that waits for a connection: the egress proxy, where that keeps those before it waiting."""
        phases = (dial.phase for dial in self._dials if dial.host == target.host and dial.port == target.port)
        return next((phase for phase in phases if phase in failures.AT_PROXY), Phase.QUEUED)

    def _why_not(self, bucket: Bucket, phase: Phase) -> Cause:
        """Why there is no connection: time ran out in this phase, or the sender closes."""
        return failures.timeout(self._limits.timeout_s, phase) if bucket.expired else failures.SHUT_DOWN


def _origin(target: Target, identity: Identity | None) -> Origin:
    return target.scheme, target.host, target.port, None if identity is None else identity.name


async def _send_on(connection: Connection | Cause, message: bytes, started: float, bucket: Bucket) -> Response:
    """On a fresh connection, if there is one."""
    if not isinstance(connection, Connection):
        return _no_answer(connection, started)
    response = await _exchange(connection, message, started, bucket)
    return response if response is not None else _no_answer(failures.CLOSED_SILENT, started)


async def _exchange(connection: Connection, message: bytes, started: float, bucket: Bucket) -> Response | None:
    """The response on this connection; None when it ended before the first byte of one."""
    future: asyncio.Future[Response | None] = asyncio.get_running_loop().create_future()

    def report(response: Response | None) -> None:
        if not future.done():
            future.set_result(response)

    connection.exchange(message, started, bucket, report)
    try:
        return await future
    except asyncio.CancelledError:
        connection.abandon(report)
        raise


def _is_cancelled() -> bool:
    """Whether it is the current task itself that is being cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _no_answer(cause: Cause, started: float) -> NoAnswer:
    return NoAnswer(cause.failure, cause.message, (time.monotonic() - started) * 1000.0)
