"""Host names to addresses: asynchronously, cached for seconds, one lookup per name at a time.

c-ares asks the name servers without a thread per lookup, so names whose servers are dead do not delay other names,
however many they are. The guard judges every address, again right before each connect.

Names are absolute. The search list in resolv.conf is not used: with it, a customer's name could lead to a host in the
operator's own domain.
"""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

import aiodns
import pycares
from aiodns import error as ares

from services.dispatcher.http.failures import DnsError
from services.dispatcher.http.guard import AddrInfo

Lookup = Callable[[str], Awaitable[Sequence[str]]]  #: host name → numeric addresses; raises DnsError

# EDNS is c-ares' own default, which setting any flag replaces.
_FLAGS: Final = pycares.ARES_FLAG_NOSEARCH | pycares.ARES_FLAG_EDNS
# c-ares caches answers too, for up to an hour: also that a name has no address, or none of one family. This is shorter
# than the least time for which a Resolver keeps an answer, so that its next question reaches a name server.
_FORGET_AFTER_S: Final = 0.5
_PERMANENT: Final = frozenset({ares.ARES_ENOTFOUND, ares.ARES_ENODATA, ares.ARES_EBADNAME})


class AresLookup:
    """Lookups by c-ares, which reads /etc/hosts and /etc/resolv.conf. Belongs to the event loop that first uses it."""

    def __init__(self, nameservers: Sequence[str] | None = None, *, timeout_s: float = 2.0, tries: int = 2) -> None:
        self._nameservers = nameservers
        self._timeout_s = timeout_s
        self._tries = tries
        self._channel: aiodns.DNSResolver | None = None
        self._forgetting: asyncio.TimerHandle | None = None

    async def __call__(self, host: str) -> Sequence[str]:
        """Numeric addresses, most preferred first (RFC 6724). Raises DnsError within seconds."""
        channel = self._channel = self._channel or aiodns.DNSResolver(
            self._nameservers, timeout=self._timeout_s, tries=self._tries, flags=_FLAGS
        )
        try:
            result = await channel.getaddrinfo(host, family=socket.AF_UNSPEC, type=socket.SOCK_STREAM)
        except UnicodeError:
            raise DnsError(temporary=False) from None
        except ares.DNSError as error:
            raise DnsError(temporary=error.args[0] not in _PERMANENT) from None
        finally:
            self._forget_soon()
        return [_text(node.addr[0]) for node in result.nodes]

    async def close(self) -> None:
        if self._forgetting is not None:
            self._forgetting.cancel()
            self._forgetting = None
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    def _forget_soon(self) -> None:
        """Replace the channel by a new one, with an empty cache: aiodns cannot switch c-ares' cache off.

        A new channel takes 0.4 ms of CPU, so not after every answer. The old one closes when its last lookup has ended.
        """
        if self._forgetting is None and self._channel is not None:
            self._forgetting = asyncio.get_running_loop().call_later(_FORGET_AFTER_S, self._forget)

    def _forget(self) -> None:
        self._forgetting = self._channel = None


class _Entry(NamedTuple):
    """One finished lookup."""

    until: float  #: monotonic seconds
    addresses: tuple[str, ...]  #: empty: the lookup failed
    temporary: bool


class Resolver:
    """Caches lookups. Failed ones are cached for less long, so that a dead name is not asked for at every attempt."""

    def __init__(
        self,
        lookup: Lookup,
        *,
        close_lookup: Callable[[], Awaitable[None]] | None = None,
        ttl_s: float = 10.0,
        failure_ttl_s: float = 1.0,
        max_entries: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lookup = lookup
        self._close_lookup = close_lookup
        self._ttl_s = ttl_s
        self._failure_ttl_s = failure_ttl_s
        self._max_entries = max_entries
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        self._lookups: dict[str, asyncio.Task[_Entry]] = {}

    async def resolve(self, host: str, port: int) -> list[AddrInfo]:
        """Addresses of `host`, which may be an IP literal in any notation. Raises DnsError."""
        literal = numeric(host, port)
        if literal is not None:
            return [literal]
        entry = self._entries.get(host)
        if entry is None or entry.until <= self._clock():
            entry = await self._refresh(host)
        infos = [info for address in entry.addresses if (info := numeric(address, port)) is not None]
        if not infos:
            raise DnsError(temporary=entry.temporary)
        return infos

    async def close(self) -> None:
        """Cancel what is under way, and close the lookup."""
        tasks = list(self._lookups.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._close_lookup is not None:
            await self._close_lookup()

    async def _refresh(self, host: str) -> _Entry:
        task = self._lookups.get(host)
        if task is None:
            task = self._lookups[host] = asyncio.create_task(self._ask(host))
        return await asyncio.shield(task)  # others may wait for it too

    async def _ask(self, host: str) -> _Entry:
        try:
            addresses, temporary = _first_of_each_family(await self._lookup(host)), False
        except DnsError as error:
            addresses, temporary = (), error.temporary
        finally:
            del self._lookups[host]
        ttl_s = self._ttl_s if addresses else self._failure_ttl_s
        if len(self._entries) >= self._max_entries:
            del self._entries[next(iter(self._entries))]
        self._entries.pop(host, None)
        self._entries[host] = entry = _Entry(self._clock() + ttl_s, addresses, temporary)
        return entry


def _first_of_each_family(addresses: Sequence[str], limit: int = 4) -> tuple[str, ...]:
    """`limit` of each family, in their order. All are tried, in parallel while none answers: without a limit, a name
    server could make us connect to thousands of other people's machines.
    """
    families = ([address for address in addresses if (":" in address) is is_v6] for is_v6 in (True, False))
    kept = {address for family in families for address in family[:limit]}
    return tuple(address for address in dict.fromkeys(addresses) if address in kept)


@lru_cache(10_000)
def numeric(host: str, port: int) -> AddrInfo | None:
    """An IP literal as a socket address, in any notation (`127.1`, `0x7f000001`, `::1`); None for names."""
    try:
        infos = socket.getaddrinfo(
            host,
            port,
            type=socket.SOCK_STREAM,
            proto=socket.IPPROTO_TCP,
            flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
        )
    except (socket.gaierror, UnicodeError):
        return None
    return infos[0]


def _text(address: bytes | str) -> str:
    return address if isinstance(address, str) else address.decode("ascii")
