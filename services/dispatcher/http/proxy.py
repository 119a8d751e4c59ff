"""Connections to receivers through the operator's egress proxy: a tunnel (CONNECT) for each, for http and https alike.

The proxy resolves names, so it also judges their addresses. Judged here are ports, and addresses that are written in a
URL.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Final, cast

from aiohappyeyeballs import start_connection

from go2hooks.core.security.egress import Meaning, ProxyAddress, ProxyAnswer, connect_request, read_answer
from go2hooks.core.security.target import Target
from services.dispatcher.http import failures
from services.dispatcher.http.connection import Connection
from services.dispatcher.http.failures import Cause, Phase, ProxyError
from services.dispatcher.http.guard import Guard
from services.dispatcher.http.resolver import Resolver, numeric

HAPPY_EYEBALLS_DELAY_S: Final = 0.25  #: RFC 8305's recommendation


def judged_host(target: Target, guard: Guard) -> str:
    """The host for CONNECT: a name, or the address that was judged. Raises BlockedAddressError."""
    literal = numeric(target.host, target.port)
    if literal is None:
        guard.judge_port(target.port)
        return target.host
    return str(guard.permitted([literal])[0][4][0])


class EgressProxy:
    """The operator's proxy. Belongs to one event loop."""

    def __init__(
        self, address: ProxyAddress, ssl_context: ssl.SSLContext | None, resolver: Resolver | None = None
    ) -> None:
        """`ssl_context` for TLS with the proxy itself. The proxy's own name is looked up by the system."""
        self.address = address
        self._ssl_context = ssl_context
        self._resolver = resolver or Resolver(_look_up_by_system)

    async def open_tunnel(self, host: str, port: int, connection: Connection, enter: Callable[[Phase], None]) -> None:
        """Connect `connection` to `host`; `enter` is told each phase. Raises ProxyError."""
        request = connect_request(self.address, host, port)
        enter(Phase.PROXY_CONNECTING)
        tunnel = await self._connect(lambda: _Tunnel(request, connection))
        enter(Phase.PROXY_WAITING)
        try:
            await tunnel.opened
        except BaseException:
            tunnel.abort()
            raise

    async def close(self) -> None:
        await self._resolver.close()

    async def _connect(self, make: "Callable[[], _Tunnel]") -> "_Tunnel":
        loop = asyncio.get_running_loop()
        context = self._ssl_context
        try:
            infos = await self._resolver.resolve(self.address.host, self.address.port)
            sock = await start_connection(infos, happy_eyeballs_delay=HAPPY_EYEBALLS_DELAY_S, loop=loop)
            _, tunnel = await loop.create_connection(
                make, sock=sock, ssl=context, server_hostname=self.address.host if context is not None else None
            )
        except OSError as error:
            raise ProxyError(failures.explain_proxy(error)) from error
        return tunnel


class _Tunnel(asyncio.Protocol):
    """Asks the proxy for a tunnel. When it is open, the connection takes over the transport."""

    def __init__(self, request: bytes, connection: Connection) -> None:
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._connection = connection
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # --- called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        answer = read_answer(self._received)
        if answer is None or self.opened.done():
            return
        cause = _cause(answer)
        if cause is not None:
            self.opened.set_exception(ProxyError(cause))
            self.abort()
            return
        assert self._transport is not None  # noqa: S101  # the transport makes this call
        self._transport.set_protocol(self._connection)
        self._connection.connection_made(self._transport)
        self.opened.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.opened.done():
            is_refusal = isinstance(exc, ssl.SSLError)  # after the handshake: it may ask for a client certificate
            self.opened.set_exception(ProxyError(failures.PROXY_TLS if is_refusal else failures.PROXY_CLOSED))


def _cause(answer: ProxyAnswer) -> Cause | None:
    """Why there is no tunnel. Bytes after the answer are an error, whether the proxy sent them or the receiver."""
    if answer.meaning is Meaning.OPEN and not answer.rest:
        return None
    return failures.refused_by_proxy(answer.meaning, answer.status)


async def _look_up_by_system(host: str) -> Sequence[str]:
    """A proxy's name may need the operator's search domain or /etc/hosts."""
    try:
        infos = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # the latter for a label of more than 63 characters
        raise failures.DnsError(temporary=True) from None
    return [str(info[4][0]) for info in infos]
