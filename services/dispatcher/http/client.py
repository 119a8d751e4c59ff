"""The fast sender: per request one write, one callback, and one set operation for the deadline."""

import asyncio
import ssl
import time
from collections.abc import Callable

from go2hooks.core.domain.outcome import NoAnswer, Response
from go2hooks.core.security.request import SignedRequest
from go2hooks.core.security.target import Target
from services.dispatcher.http import failures, wire
from services.dispatcher.http.connection import Connection
from services.dispatcher.http.connection_pool import ConnectionPool, origin_of
from services.dispatcher.http.corking import Corking
from services.dispatcher.http.deadlines import Bucket, DeadlineQueue
from services.dispatcher.http.dial import Dialer
from services.dispatcher.http.failures import Cause
from services.dispatcher.http.guard import Guard
from services.dispatcher.http.identity import Identity
from services.dispatcher.http.proxy import EgressProxy
from services.dispatcher.http.resolver import Resolver
from services.dispatcher.http.response import ExchangeLimits


class HttpClient:
    """HTTP/1.1 on asyncio's transports. Belongs to one event loop; the caller bounds how many requests are under way.

    A connection that comes from the pool may be closed by the receiver just as the request leaves. Then the request is
    sent once more, on a fresh connection: only if no byte of an answer came, and only within
    `ExchangeLimits.stale_within_s`.
    """

    def __init__(
        self,
        limits: ExchangeLimits,
        *,
        resolver: Resolver,
        guard: Guard,
        ssl_context: ssl.SSLContext,
        proxy: EgressProxy | None = None,
        pool_max_idle: int = 2000,
        pool_idle_s: float = 60.0,
        tick_s: float = 0.05,
    ) -> None:
        dialer = Dialer(resolver, guard, ssl_context, proxy)
        self._pool = ConnectionPool(limits, dialer, max_idle=pool_max_idle, idle_s=pool_idle_s, tick_s=tick_s)
        self._deadlines = DeadlineQueue(limits.timeout_s, tick_s)
        self._stale_within_s = limits.stale_within_s
        self._corking = Corking()
        self._tasks: set[asyncio.Task[None]] = set()

    async def send(self, request: SignedRequest, identity: Identity | None = None) -> Response:
        """POST it and read the answer, within the timeout in all. Raises nothing but CancelledError."""
        started = time.monotonic()
        target = request.target
        try:
            message = wire.serialize(request)
        except wire.UnsendableError:
            return _no_answer(failures.UNSENDABLE, started)
        bucket = self._deadlines.bucket()
        connection: Connection | Cause | None = self._pool.take(origin_of(target, identity))
        if connection is None:
            connection = await self._pool.acquire(target, identity, bucket)
        if not isinstance(connection, Connection) or connection.opening is not None:  # not used yet
            return await _send_on(connection, message, started, bucket)
        connection.asked_at = written = time.monotonic()
        response = await _exchange(connection, message, started, bucket)
        if response is not None:
            return response
        return await self._send_again(target, identity, message, started, written, bucket)

    def send_now(self, request: SignedRequest, on_response: Callable[[Response], None]) -> bool:
        """See `Sender.send_now`."""
        target = request.target
        try:
            message = wire.serialize(request)
        except wire.UnsendableError:
            return False
        connection = self._pool.take(origin_of(target, None))
        if connection is None:
            return False
        started, bucket = time.monotonic(), self._deadlines.bucket()
        connection.asked_at = started

        def report(response: Response | None) -> None:
            if response is not None:
                on_response(response)
            else:
                self._respond_again(target, message, started, bucket, on_response)

        self._corking.exchange(connection, message, started, bucket, report)
        return True

    def cork(self) -> None:
        """See `Sender.cork`."""
        self._corking.cork()

    def uncork(self) -> None:
        """See `Sender.uncork`."""
        self._corking.uncork()

    async def close(self) -> None:
        """Interrupt what is under way, close all connections, and wait until they are closed."""
        self._deadlines.close()
        await self._pool.close()

    def connections(self) -> dict[str, int]:
        """Connections to receivers, by state. Any thread."""
        return self._pool.counts()

    async def _send_again(
        self, target: Target, identity: Identity | None, message: bytes, started: float, written: float, bucket: Bucket
    ) -> Response:
        """The connection had been used before, and ended without a byte of an answer: on a fresh one, if it was quick.

        `started` is when the attempt began, `written` when the request left (monotonic seconds).
        """
        if time.monotonic() - written > self._stale_within_s:
            return _no_answer(failures.CLOSED_SILENT, started)
        return await _send_on(await self._pool.open(target, identity, bucket), message, started, bucket)

    def _respond_again(
        self, target: Target, message: bytes, started: float, bucket: Bucket, on_response: Callable[[Response], None]
    ) -> None:
        """What `_send_again` does, for an attempt without a task."""

        async def work() -> None:
            on_response(await self._send_again(target, None, message, started, started, bucket))

        task = asyncio.create_task(work())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


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


def _no_answer(cause: Cause, started: float) -> NoAnswer:
    return NoAnswer(cause.failure, cause.message, (time.monotonic() - started) * 1000.0)
