"""The reference sender, on aiohttp.ClientSession: slower, but on code that many others use.

It differs from the fast one:

- aiohttp limits idle connections by time, not by number, and does not tell how many there are.
- Through an egress proxy it sends no plain http, for which aiohttp has no tunnel, and it takes a receiver that is slow
  with its TLS handshake for a slow proxy.
- It does not tell the address that a request went to: aiohttp has dropped it by the end of a short answer.
"""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any, Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.http_exceptions import TransferEncodingError
from yarl import URL

from go2hooks.core.domain.outcome import Answer, NoAnswer, Response
from go2hooks.core.security.egress import ProxyAddress, meaning
from go2hooks.core.security.request import SignedRequest
from services.dispatcher.http import failures, wire
from services.dispatcher.http.failures import Cause, Phase
from services.dispatcher.http.guard import Guard
from services.dispatcher.http.identity import Identity
from services.dispatcher.http.proxy import EgressProxy, judged_host
from services.dispatcher.http.resolver import Resolver
from services.dispatcher.http.response import ExchangeLimits

_OWN_HEADERS: Final = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


class AiohttpSender:
    """Belongs to one event loop; the caller bounds how many requests are under way."""

    def __init__(
        self,
        limits: ExchangeLimits,
        *,
        resolver: Resolver,
        guard: Guard,
        ssl_context: ssl.SSLContext,
        proxy: EgressProxy | None = None,
        pool_idle_s: float = 60.0,
    ) -> None:
        self._limits = limits
        self._resolver = resolver
        self._guard = guard
        self._ssl_context = ssl_context
        self._proxy = None if proxy is None else proxy.address
        self._pool_idle_s = pool_idle_s
        self._busy = 0
        self._pooled: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None

    async def send(self, request: SignedRequest, identity: Identity | None = None) -> Response:
        """POST it and read the answer, within the timeout in all. Raises nothing but CancelledError."""
        attempt = _Attempt(self._limits)
        self._busy += 1
        try:
            wire.serialize(request)  # the same refusals as the fast sender's
            async with attempt.deadline:
                context = self._ssl_context if identity is None else await identity.context()
                return await self._send_twice_if_stale(request, context, attempt)
        except wire.UnsendableError:
            return attempt.no_answer(failures.UNSENDABLE)
        except TimeoutError:
            return attempt.no_answer(failures.timeout(self._limits.timeout_s, attempt.phase))
        except Exception as error:  # noqa: BLE001  # whatever aiohttp raises is an outcome, not a crash
            cause = None if self._proxy is None else _explain_proxied(error, attempt.phase, self._proxy)
            return attempt.no_answer(cause or _explain(error, attempt.phase))
        finally:
            self._busy -= 1

    def send_now(self, request: SignedRequest, on_response: Callable[[Response], None]) -> bool:  # noqa: ARG002
        """Always False: aiohttp needs a task for each request."""
        return False

    def cork(self) -> None:
        """Nothing to do, since `send_now` sends nothing."""

    def uncork(self) -> None:
        """Nothing to do, likewise."""

    async def close(self) -> None:
        for session in (self._pooled, self._fresh):
            if session is not None:
                await session.close()
        await self._resolver.close()

    def connections(self) -> dict[str, int]:
        """Busy connections, those that are being made included: aiohttp does not tell the idle ones. Any thread."""
        return {"busy": self._busy}

    async def _send_twice_if_stale(
        self, request: SignedRequest, context: ssl.SSLContext, attempt: "_Attempt"
    ) -> Response:
        if self._pooled is None:
            self._pooled = self._session(keep=True)
        try:
            return await self._post(self._pooled, request, context, attempt)
        except aiohttp.ClientError as error:
            if not attempt.is_stale(error):
                raise
        if self._fresh is None:
            self._fresh = self._session(keep=False)
        attempt.reused = False
        return await self._post(self._fresh, request, context, attempt)

    async def _post(
        self, session: aiohttp.ClientSession, request: SignedRequest, context: ssl.SSLContext, attempt: "_Attempt"
    ) -> Response:
        target = request.target
        if self._proxy is not None:
            if target.scheme != "https":
                raise failures.ProxyError(failures.PROXY_WITHOUT_TLS)
            judged_host(target, self._guard)
            attempt.phase = Phase.PROXY_WAITING
        async with session.post(
            URL(f"{target.scheme}://{target.authority}{target.path}", encoded=True),
            data=request.body,
            headers=[("Host", target.authority), *request.headers],
            allow_redirects=False,
            ssl=context,  # aiohttp shares connections by context, too
            trace_request_ctx=attempt,
            **_through(self._proxy),
        ) as response:
            refusal = _refusal(response, self._limits.head_bytes)
            if refusal is not None:
                response.close()
                return attempt.no_answer(refusal)
            answer = _answer(response, attempt.elapsed_ms())
            return answer._replace(excerpt=await self._excerpt(response, attempt))

    async def _excerpt(self, response: aiohttp.ClientResponse, attempt: "_Attempt") -> bytes:
        """The beginning of the body, when it has ended or time is up. Raises nothing but CancelledError."""
        excerpt, size = b"", 0
        attempt.deadline.reschedule(None)
        with contextlib.suppress(Exception):  # it has answered, whatever becomes of the body
            async with asyncio.timeout(min(self._limits.body_timeout_s, attempt.left_s())):
                while size <= self._limits.body_bytes:
                    chunk = await response.content.readany()
                    if not chunk:
                        return excerpt
                    size += len(chunk)
                    excerpt += chunk[: max(0, self._limits.excerpt_bytes - len(excerpt))]
        response.close()
        return excerpt

    def _session(self, *, keep: bool) -> aiohttp.ClientSession:
        way: dict[str, Any] = {"resolver": aiohttp.ThreadedResolver()}  # the proxy is the operator's: no guard
        if self._proxy is None:
            guarded = _GuardedResolver(self._resolver, self._guard)
            way = {"resolver": guarded, "use_dns_cache": False, "socket_factory": self._guard.open_socket}
        connector = aiohttp.TCPConnector(
            limit=0,
            **way,
            **({"keepalive_timeout": self._pool_idle_s} if keep else {"force_close": True}),
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            auto_decompress=False,
            skip_auto_headers=_OWN_HEADERS,
            timeout=aiohttp.ClientTimeout(total=None),  # one timeout over both tries, above
            # The limit on a head is checked afterwards; until then these, with the next one, bound its memory.
            max_line_size=32768,
            max_field_size=32768,
            max_headers=512,
            trace_configs=[_tracing()],
        )


class _Attempt:
    """How far one attempt has come; aiohttp's tracing keeps it up to date."""

    def __init__(self, limits: ExchangeLimits) -> None:
        self.started = time.monotonic()
        self.deadline = asyncio.timeout(limits.timeout_s)  #: until the response's head has arrived
        self.phase = Phase.CONNECTING
        self.reused = False
        self._limits = limits

    def left_s(self) -> float:
        return max(0.0, self._limits.timeout_s - self.elapsed_ms() / 1000.0)

    def elapsed_ms(self) -> float:
        return (time.monotonic() - self.started) * 1000.0

    def no_answer(self, cause: Cause) -> NoAnswer:
        return NoAnswer(cause.failure, cause.message, self.elapsed_ms())

    def is_stale(self, error: aiohttp.ClientError) -> bool:
        """Whether a reused connection was closed before any byte of an answer, so that a second try is due."""
        silent = isinstance(error, aiohttp.ServerDisconnectedError) and isinstance(error.message, str)
        reset = isinstance(error, aiohttp.ClientOSError | aiohttp.ClientConnectionResetError)
        return self.reused and (silent or reset) and self.elapsed_ms() <= self._limits.stale_within_s * 1000.0


class _GuardedResolver(AbstractResolver):
    """Our resolver and guard, as aiohttp asks for them."""

    def __init__(self, resolver: Resolver, guard: Guard) -> None:
        self._resolver = resolver
        self._guard = guard

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002  # the guard and happy eyeballs choose
    ) -> list[ResolveResult]:
        infos = self._guard.permitted(await self._resolver.resolve(host, port))
        return [
            ResolveResult(
                hostname=host,
                host=info[4][0],
                port=port,
                family=info[0],
                proto=info[2],
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for info in infos
        ]

    async def close(self) -> None:
        """The sender closes the resolver itself: two sessions share it."""


def _through(proxy: ProxyAddress | None) -> dict[str, Any]:
    """How aiohttp is told about a proxy."""
    if proxy is None:
        return {}
    url = URL.build(scheme="https" if proxy.is_tls else "http", host=proxy.host, port=proxy.port)
    identified = {"Proxy-Authorization": proxy.authorization} if proxy.authorization is not None else None
    return {"proxy": url, "proxy_headers": identified}


def _tracing() -> aiohttp.TraceConfig:
    """Notes in the `_Attempt` of a request which phase it has reached."""
    tracing = aiohttp.TraceConfig()
    tracing.on_dns_resolvehost_start.append(_note(Phase.LOOKING_UP))
    tracing.on_dns_resolvehost_end.append(_note(Phase.CONNECTING))
    tracing.on_connection_create_end.append(_note(Phase.WAITING))
    tracing.on_connection_reuseconn.append(_note(Phase.WAITING, reused=True))
    return tracing


def _note(phase: Phase, *, reused: bool = False) -> Callable[..., Awaitable[None]]:
    async def note(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
        context.trace_request_ctx.phase = phase
        context.trace_request_ctx.reused |= reused

    return note


def _refusal(response: aiohttp.ClientResponse, head_limit_bytes: int) -> Cause | None:
    """What is wrong with a head that aiohttp accepts; interim (1xx) heads it has skipped."""
    if response.status < 200:  # noqa: PLR2004  # so it is 101, or no status at all
        return failures.UPGRADE if response.status == HTTPStatus.SWITCHING_PROTOCOLS else failures.NOT_HTTP
    size = sum(len(name) + len(value) + 4 for name, value in response.raw_headers)
    return failures.HEAD_TOO_LARGE if size > head_limit_bytes else None


def _answer(response: aiohttp.ClientResponse, duration_ms: float) -> Answer:
    """What the head says."""
    if response.status < 300:  # noqa: PLR2004  # success
        return Answer(response.status, duration_ms, None, b"")
    head = b"".join(b"\n%s: %s" % header for header in response.raw_headers)
    return Answer(response.status, duration_ms, wire.retry_after(head), b"", wire.location(head))


def _explain(error: Exception, phase: Phase) -> Cause:  # noqa: PLR0911  # one per clause
    """The system's errors say what happened; aiohttp's wrap them."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return failures.explain(error.certificate_error, Phase.HANDSHAKE)
        case aiohttp.ClientConnectorError():
            return failures.explain(error.os_error, phase)
        case aiohttp.ClientOSError() if isinstance(error.__cause__, OSError):
            return failures.explain(error.__cause__, phase)
        case aiohttp.ServerDisconnectedError():
            return failures.CLOSED_SILENT if isinstance(error.message, str) else failures.CLOSED_EARLY
        case aiohttp.ClientPayloadError() if isinstance(error.__cause__, TransferEncodingError):
            return failures.CLOSED_EARLY if "Not enough data" in error.__cause__.message else failures.NOT_HTTP
        case aiohttp.ClientPayloadError():
            return failures.CLOSED_EARLY
        case aiohttp.ClientResponseError():
            return failures.NOT_HTTP
        case aiohttp.InvalidURL():
            return failures.UNSENDABLE
        case _:
            return failures.explain(error, phase)


def _explain_proxied(error: Exception, phase: Phase, proxy: ProxyAddress) -> Cause | None:
    """What is the proxy's among errors; None when it is the receiver's."""
    match error:
        case aiohttp.ClientHttpProxyError():
            is_challenge = "Proxy-Authenticate" in (error.headers or ())
            return failures.refused_by_proxy(meaning(error.status, is_challenge=is_challenge), error.status)
        case aiohttp.ClientProxyConnectionError() | aiohttp.ClientConnectorDNSError():
            return failures.explain_proxy(error.os_error)
        case aiohttp.ClientConnectorError():
            return failures.PROXY_TLS if (error.host, error.port) == (proxy.host, proxy.port) else None
        case aiohttp.ClientError() if phase is Phase.PROXY_WAITING:
            is_answer = isinstance(error, aiohttp.ClientResponseError)
            return failures.PROXY_GARBAGE if is_answer else failures.PROXY_CLOSED
        case _:
            return failures.PROXY_AWAY if phase is Phase.PROXY_WAITING else None
