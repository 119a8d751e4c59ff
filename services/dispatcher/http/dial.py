"""Makes connections: name → addresses → guard → connect → TLS; or guard → egress proxy → TLS."""

import asyncio
import ssl
from collections.abc import Callable

from aiohappyeyeballs import start_connection

from go2hooks.core.security.target import Target
from services.dispatcher.http.connection import Connection
from services.dispatcher.http.failures import Phase
from services.dispatcher.http.guard import Guard
from services.dispatcher.http.identity import Identity
from services.dispatcher.http.proxy import HAPPY_EYEBALLS_DELAY_S, EgressProxy, judged_host
from services.dispatcher.http.resolver import Resolver


class Dialer:
    """Makes the connections of one client."""

    def __init__(
        self, resolver: Resolver, guard: Guard, ssl_context: ssl.SSLContext, proxy: EgressProxy | None = None
    ) -> None:
        self._resolver = resolver
        self._guard = guard
        self._ssl_context = ssl_context
        self._proxy = proxy

    def dial(
        self, target: Target, make: Callable[[ssl.SSLContext | None], Connection], identity: Identity | None = None
    ) -> "Dial":
        """Begin to connect to `target`. `make` gets a TLS context for https, and None for http."""
        return Dial(target, lambda dial: self._connect(dial, target, make, identity))

    async def close(self) -> None:
        """Stop looking up names."""
        await self._resolver.close()
        if self._proxy is not None:
            await self._proxy.close()

    async def _connect(
        self,
        dial: "Dial",
        target: Target,
        make: Callable[[ssl.SSLContext | None], Connection],
        identity: Identity | None,
    ) -> Connection:
        context = self._ssl_context if identity is None else await identity.context()
        is_secure = target.scheme == "https"

        def make_one() -> Connection:
            return make(context if is_secure else None)

        if self._proxy is None:
            connection = await self._connect_directly(dial, target, make_one)
        else:
            connection = make_one()
            host = judged_host(target, self._guard)
            await self._proxy.open_tunnel(host, target.port, connection, dial.enter)
        if is_secure:
            dial.enter(Phase.HANDSHAKE)
        try:
            await connection.ready()
        except BaseException:
            connection.abort()
            raise
        return connection

    async def _connect_directly(self, dial: "Dial", target: Target, make: Callable[[], Connection]) -> Connection:
        loop = asyncio.get_running_loop()
        infos = self._guard.permitted(await self._resolver.resolve(target.host, target.port))
        dial.enter(Phase.CONNECTING)
        sock = await start_connection(
            infos, happy_eyeballs_delay=HAPPY_EYEBALLS_DELAY_S, loop=loop, socket_factory=self._guard.open_socket
        )
        address = str(sock.getpeername()[0])
        _, connection = await loop.create_connection(make, sock=sock)
        connection.remote_address = address
        return connection


class Dial:
    """One connection that is being made, in a task of its own: a deadline cancels this task and not the caller's."""

    def __init__(self, target: Target, connect: "Callable[[Dial], asyncio._CoroutineLike[Connection]]") -> None:
        self.host, self.port = target.host, target.port
        self.phase = Phase.LOOKING_UP
        self.task = asyncio.create_task(connect(self))

    def enter(self, phase: Phase) -> None:
        self.phase = phase

    def expire(self) -> None:
        self.task.cancel()

    def abandon(self) -> None:
        """Nobody waits any more: stop, and close the connection if it was made just now."""
        self.task.cancel()
        self.task.add_done_callback(_abort_result)


def _abort_result(task: asyncio.Task[Connection]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().abort()
