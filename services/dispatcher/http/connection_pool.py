"""All connections of a client: those that are idle, those in an exchange, and those that are being made."""

import asyncio
import contextlib
import ssl
from functools import partial

from go2hooks.core.flow.serving import Opening
from go2hooks.core.security.target import Target
from services.dispatcher.http import failures
from services.dispatcher.http.connect_queue import ConnectQueues
from services.dispatcher.http.connection import Connection, Origin, PlainConnection
from services.dispatcher.http.deadlines import Bucket, DeadlineQueue
from services.dispatcher.http.dial import Dial, Dialer
from services.dispatcher.http.failures import Cause, Phase
from services.dispatcher.http.few_workers import QueueLimits
from services.dispatcher.http.identity import Identity
from services.dispatcher.http.pool import IdlePool
from services.dispatcher.http.response import ExchangeLimits
from services.dispatcher.http.tls_connection import TlsConnection


class ConnectionPool:
    """Belongs to one event loop. The owner of its connections."""

    def __init__(self, limits: ExchangeLimits, dialer: Dialer, *, max_idle: int, idle_s: float, tick_s: float) -> None:
        self._limits = limits
        self._dialer = dialer
        self._body_deadlines = DeadlineQueue(limits.body_timeout_s, tick_s)
        queue_limits = QueueLimits.within(limits.timeout_s, idle_s)
        self._idle = IdlePool(max_idle, idle_s, self._one_idle_s, min(1.0, queue_limits.brief_s, idle_s / 2))
        self._queues = ConnectQueues(queue_limits, self._idle.close_first)
        self._dials: set[Dial] = set()
        self._connections: set[Connection] = set()  # that were made and are not closed
        self._closing: asyncio.Event | None = None  # once closing: set when the last connection is closed

    def counts(self) -> dict[str, int]:
        """Connections by state. Any thread."""
        idle = len(self._idle)
        return {"idle": idle, "busy": max(0, len(self._connections) - idle), "connecting": len(self._dials)}

    async def close(self) -> None:
        """Interrupt what is under way, close all connections, and wait until they are closed."""
        self._closing = asyncio.Event()
        for dial in tuple(self._dials):
            dial.expire()
        self._queues.close()
        self._body_deadlines.close()
        self._idle.close()
        for connection in tuple(self._connections):
            connection.end(failures.SHUT_DOWN)
        if self._connections:
            with contextlib.suppress(TimeoutError):  # they are closed within an iteration; a stop ends in any case
                async with asyncio.timeout(2.0):
                    await self._closing.wait()
        await self._dialer.close()

    # --- for an attempt

    def take(self, origin: Origin) -> Connection | None:
        """An idle connection; None when there is none, or when another one is to be opened beside it."""
        connection = self._idle.take(origin)
        if connection is not None and connection.is_alone and self._queues.of(origin).serving.is_unproven:
            self._idle.put(connection)
            return None
        return connection

    async def acquire(self, target: Target, identity: Identity | None, bucket: Bucket) -> Connection | Cause:
        """The next connection that becomes idle, or one that is opened, whichever comes first."""
        if self._closing is not None:
            return self._why_not(bucket, Phase.QUEUED)
        found = await self._queues.of(origin_of(target, identity)).enter(bucket)
        if isinstance(found, Connection):
            return found
        if found is None:
            return self._why_not(bucket, self._queued_behind(target))
        return await self._open(target, identity, bucket, found)

    async def open(self, target: Target, identity: Identity | None, bucket: Bucket) -> Connection | Cause:
        """A fresh connection at once, whoever waits: the connection that was to be used has been closed."""
        return await self._open(target, identity, bucket, self._queues.of(origin_of(target, identity)).begin())

    # --- the owner of connections

    def release(self, connection: Connection) -> None:
        if not self._queues.of(connection.origin).release(connection):
            self._idle.put(connection)

    def forget(self, connection: Connection) -> None:
        self._idle.discard(connection)
        if connection in self._connections:
            self._connections.discard(connection)
            self._queues.of(connection.origin).lost(connection)
        if self._closing is not None and not self._connections:
            self._closing.set()

    def body_deadline(self) -> Bucket:
        return self._body_deadlines.bucket()

    # --- internal

    def _one_idle_s(self, origin: Origin) -> float:
        return self._queues.one_idle_s(origin)

    async def _open(
        self, target: Target, identity: Identity | None, bucket: Bucket, opening: Opening
    ) -> Connection | Cause:
        queue = self._queues.of(origin_of(target, identity))
        connection: Connection | Cause | None = None
        try:
            connection = await self._connect(target, identity, bucket)
            return connection
        finally:
            if isinstance(connection, Connection):
                queue.made(connection, opening)
            else:
                queue.failed(opening)

    async def _connect(self, target: Target, identity: Identity | None, bucket: Bucket) -> Connection | Cause:
        if self._closing is not None or bucket.expired:
            return self._why_not(bucket, Phase.CONNECTING)
        dial = self._dialer.dial(target, partial(self._make, origin_of(target, identity)), identity)
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
        """A connection that was made, unless time ran out or the client closed at that moment."""
        if bucket.expired or self._closing is not None:
            connection.abort()
            return self._why_not(bucket, Phase.CONNECTING)
        self._connections.add(connection)
        return connection

    def _queued_behind(self, target: Target) -> Phase:
        """What an attempt in the connect queue waits for: the egress proxy, if those before it wait for that."""
        phases = (dial.phase for dial in self._dials if dial.host == target.host and dial.port == target.port)
        return next((phase for phase in phases if phase in failures.AT_PROXY), Phase.QUEUED)

    def _why_not(self, bucket: Bucket, phase: Phase) -> Cause:
        """Why there is no connection: time ran out in this phase, or the client closes."""
        return failures.timeout(self._limits.timeout_s, phase) if bucket.expired else failures.SHUT_DOWN


def origin_of(target: Target, identity: Identity | None) -> Origin:
    return target.scheme, target.host, target.port, None if identity is None else identity.name


def _is_cancelled() -> bool:
    """Whether it is the current task itself that is being cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
