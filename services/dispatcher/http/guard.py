"""The SSRF guard: no connection is opened to an address that the policy does not permit.

It judges twice. `permitted` removes forbidden addresses from those of a name, so that a name with mixed answers works
by its permitted ones. `open_socket` judges the address that `connect` gets, IP literals included, so that nothing that
happens between a lookup and a connect (DNS rebinding, a stale cache) can bypass it.
"""

import socket
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Protocol

from aiohappyeyeballs import AddrInfoType

AddrInfo = AddrInfoType  #: as getaddrinfo returns it: family, type, protocol, canonical name, socket address


class Policy(Protocol):
    """Decides about one address: `core.security.addresses.AddressPolicy`."""

    def permits(self, address: str, /) -> bool: ...


class RememberingPolicy:
    """Remembers the verdicts of a policy that does not change: to judge an address takes 7 to 20 microseconds."""

    def __init__(self, policy: Policy) -> None:
        self.permits: Callable[[str], bool] = lru_cache(10_000)(policy.permits)


class BlockedAddressError(PermissionError):
    """The policy forbids the address. An OSError, so that connection code treats it as a failed connect."""


class Guard:
    """Applies an address policy, and a list of forbidden ports, where connections are made."""

    def __init__(self, policy: Policy, deny_ports: Iterable[int] = ()) -> None:
        self._policy = policy
        self._deny_ports = frozenset(deny_ports)

    def permitted(self, infos: Sequence[AddrInfo]) -> list[AddrInfo]:
        """Those of `infos` that may be connected to. Raises BlockedAddressError when none is left."""
        allowed = [info for info in infos if self._permits(info)]
        if not allowed:
            raise BlockedAddressError
        return allowed

    def judge_port(self, port: int) -> None:
        """For a name that a proxy resolves. Raises BlockedAddressError when no delivery may go to this port."""
        if port in self._deny_ports:
            raise BlockedAddressError

    def open_socket(self, info: AddrInfo) -> socket.socket:
        """A new socket for exactly this address; its caller connects it there and nowhere else.

        Raises BlockedAddressError, and OSError when the process is out of descriptors.
        """
        if not self._permits(info):
            raise BlockedAddressError
        family, kind, protocol, *_ = info
        opened = socket.socket(family, kind, protocol)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return opened

    def _permits(self, info: AddrInfo) -> bool:
        address, port = info[4][:2]
        if port in self._deny_ports:
            return False
        try:
            return self._policy.permits(address)
        except ValueError:  # not a numeric address, so it cannot be judged
            return False
