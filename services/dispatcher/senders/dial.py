"""Connections made: name → addresses → guard → connect → TLS."""

import asyncio
import ssl
from collections.abc import Callable
from typing import Final

from aiohappyeyeballs import start_connection

from go2hooks.core.target import Target
from services.dispatcher.guard import Guard
from services.dispatcher.senders.connection import Connection
from services.dispatcher.senders.failures import Phase
from services.dispatcher.senders.identity import Identity
from services.dispatcher.senders.resolver import Resolver

_HAPPY_EYEBALLS_DELAY_S: Final = 0.25  # RFC 8305's recommendation


class Dialer:
    """How connections are made; the same for all."""

    def __init__(self, resolver: Resolver, guard: Guard, ssl_context: ssl.SSLContext) -> None:
        self._resolver = resolver
        self._guard = guard
        self._ssl_context = ssl_context

    def dial(
        self, target: Target, make: Callable[[ssl.SSLContext | None], Connection], identity: Identity | None = None
    ) -> "Dial":
        """Begin to connect to `target`, for a connection that `make` gives, under `identity`; with a context for https."""
        return Dial(lambda dial: self._connect(dial, target, make, identity))

    async def _connect(
        self,
        dial: "Dial",
        target: Target,
        make: Callable[[ssl.SSLContext | None], Connection],
        identity: Identity | None,
    ) -> Connection:
        loop = asyncio.get_running_loop()
        context = self._ssl_context if identity is None else await identity.context()
        infos = self._guard.permitted(await self._resolver.resolve(target.host, target.port))
        dial.phase = Phase.CONNECTING
        sock = await start_connection(
            infos, happy_eyeballs_delay=_HAPPY_EYEBALLS_DELAY_S, loop=loop, socket_factory=self._guard.open_socket
        )
        is_secure = target.scheme == "https"
        if is_secure:
            dial.phase = Phase.HANDSHAKE
        _, connection = await loop.create_connection(lambda: make(context if is_secure else None), sock=sock)
        try:
            await connection.ready()
        except BaseException:
            connection.abort()
            raise
        return connection


class Dial:
    """One connection being made, in a task of its own, so that a deadline can end it without touching who waits."""

    def __init__(self, connect: "Callable[[Dial], asyncio._CoroutineLike[Connection]]") -> None:
        self.phase = Phase.LOOKING_UP
        self.task = asyncio.create_task(connect(self))

    def expire(self) -> None:
        self.task.cancel()

    def abandon(self) -> None:
        """Nobody waits any more: stop, and close what may have been made just now."""
        self.task.cancel()
        self.task.add_done_callback(_abort_result)


def _abort_result(task: asyncio.Task[Connection]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().abort()
