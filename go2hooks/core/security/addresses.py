"""What kind of IP address this is, and whether a delivery may be sent to it.

The ranges are those of IANA's special-purpose registries, and the metadata services of the clouds. In IPv6 only
2000::/3 is given out as global unicast, so whatever lies outside it is never public. Addresses that carry an IPv4
address (mapped, compatible, translated, NAT64, 6to4, Teredo) are judged by it, and refused even when it is public: no
public receiver needs to be reached that way.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Verdict(StrEnum):
    """The kind of an address. Only PUBLIC is a place for deliveries."""

    PUBLIC = "public"
    UNSPECIFIED = "unspecified"
    LOOPBACK = "loopback"
    PRIVATE = "private"
    SHARED = "shared"  #: carrier-grade NAT
    LINK_LOCAL = "link_local"
    METADATA = "metadata"  #: a cloud's metadata service, whatever range it lies in
    MULTICAST = "multicast"
    BROADCAST = "broadcast"
    DOCUMENTATION = "documentation"
    BENCHMARK = "benchmark"
    PROTOCOL = "protocol"  #: set aside for the protocols of the IETF
    EMBEDDED = "embedded"  #: carries a public IPv4 address
    RESERVED = "reserved"
    INVALID = "invalid"  #: not an IP address at all


def is_allowed(verdict: Verdict) -> bool:
    """Whether a delivery may go there when the operator has said nothing else."""
    return verdict is Verdict.PUBLIC


def classify(address: str | Address) -> Verdict:
    """The named verdict on an address. A string that is no IP address is INVALID; a zone id changes nothing."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return Verdict.INVALID
    if int(parsed) in _METADATA[parsed.version]:
        return Verdict.METADATA
    verdict = _by_range(parsed)
    if verdict is Verdict.EMBEDDED and isinstance(parsed, IPv6Address):
        inner = (_by_range_or_metadata(carried) for carried in _embedded(parsed))
        return next((kind for kind in inner if kind is not Verdict.PUBLIC), Verdict.EMBEDDED)
    return verdict


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """What the operator permits beyond, or forbids within, the public addresses.

    `deny` wins over everything. `allow` permits its networks, whatever their kind. `allow_insecure` permits every
    unicast address except the metadata services. An address that carries an IPv4 address needs that one permitted too.
    """

    allow: tuple[Network, ...] = ()
    deny: tuple[Network, ...] = ()
    allow_insecure: bool = False

    def permits(self, address: str | Address) -> bool:
        """Whether a connection to this address may be opened."""
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        carried = list(_embedded(parsed)) if isinstance(parsed, IPv6Address) else []
        if _within(parsed, self.deny) or any(_within(inner, self.deny) for inner in carried):
            return False
        if _within(parsed, self.allow):
            return all(map(self.permits, carried))
        verdict = classify(parsed)
        return verdict not in _NEVER_INSECURE if self.allow_insecure else is_allowed(verdict)


_NEVER_INSECURE: Final = frozenset((Verdict.METADATA, Verdict.MULTICAST, Verdict.BROADCAST, Verdict.INVALID))

_METADATA: Final = {
    version: frozenset(int(ip_address(text)) for text in texts)
    for version, texts in {
        4: (
            "169.254.169.254",  # AWS, Azure, Google, Oracle, DigitalOcean and most others
            "169.254.170.2",  # AWS ECS task credentials
            "169.254.170.23",  # AWS EKS pod identity
            "169.254.0.23",  # Tencent
            "169.254.42.42",  # Scaleway
            "100.100.100.200",  # Alibaba
            "168.63.129.16",  # Azure's wire server, in a public range
            "192.0.0.192",  # Oracle, classic
        ),
        6: (
            "fd00:ec2::254",  # AWS
            "fd00:ec2::23",  # AWS EKS pod identity
            "fd20:ce::254",  # Google
            "fd00:42::42",  # Scaleway
        ),
    }.items()
}

# The first range that holds the address decides, so the narrower come before the wider.
_RANGES: Final = (
    ("0.0.0.0/8", Verdict.UNSPECIFIED),
    ("10.0.0.0/8", Verdict.PRIVATE),
    ("100.64.0.0/10", Verdict.SHARED),
    ("127.0.0.0/8", Verdict.LOOPBACK),
    ("169.254.0.0/16", Verdict.LINK_LOCAL),
    ("172.16.0.0/12", Verdict.PRIVATE),
    ("192.0.0.0/24", Verdict.PROTOCOL),
    ("192.0.2.0/24", Verdict.DOCUMENTATION),
    ("192.88.99.0/24", Verdict.RESERVED),  # 6to4 relay anycast, withdrawn
    ("192.168.0.0/16", Verdict.PRIVATE),
    ("198.18.0.0/15", Verdict.BENCHMARK),
    ("198.51.100.0/24", Verdict.DOCUMENTATION),
    ("203.0.113.0/24", Verdict.DOCUMENTATION),
    ("224.0.0.0/4", Verdict.MULTICAST),
    ("255.255.255.255/32", Verdict.BROADCAST),
    ("240.0.0.0/4", Verdict.RESERVED),
    ("0.0.0.0/0", Verdict.PUBLIC),
    ("::/128", Verdict.UNSPECIFIED),
    ("::1/128", Verdict.LOOPBACK),
    ("::/96", Verdict.EMBEDDED),  # IPv4-compatible
    ("::ffff:0:0/96", Verdict.EMBEDDED),  # IPv4-mapped
    ("::ffff:0:0:0/96", Verdict.EMBEDDED),  # IPv4-translated
    ("64:ff9b::/96", Verdict.EMBEDDED),  # NAT64
    ("64:ff9b:1::/48", Verdict.EMBEDDED),  # NAT64, local use
    ("100::/64", Verdict.RESERVED),  # discard-only
    ("2001::/32", Verdict.EMBEDDED),  # Teredo
    ("2001:2::/48", Verdict.BENCHMARK),
    ("2001::/23", Verdict.PROTOCOL),
    ("2001:db8::/32", Verdict.DOCUMENTATION),
    ("2002::/16", Verdict.EMBEDDED),  # 6to4
    ("3fff::/20", Verdict.DOCUMENTATION),
    ("2000::/3", Verdict.PUBLIC),
    ("5f00::/16", Verdict.PROTOCOL),  # segment routing
    ("fc00::/7", Verdict.PRIVATE),  # unique local
    ("fe80::/10", Verdict.LINK_LOCAL),
    ("fec0::/10", Verdict.PRIVATE),  # site-local, withdrawn
    ("ff00::/8", Verdict.MULTICAST),
    ("::/0", Verdict.RESERVED),
)

_NETWORKS: Final = {
    version: tuple(
        (int(network[0]), int(network[-1]), verdict)
        for network, verdict in ((ip_network(text), verdict) for text, verdict in _RANGES)
        if network.version == version
    )
    for version in (4, 6)
}

_LOW_32_BITS: Final = 0xFFFFFFFF
_TEREDO: Final = IPv6Network("2001::/32")
_SIX_TO_FOUR: Final = IPv6Network("2002::/16")


def _by_range(address: Address) -> Verdict:
    value = int(address)
    return next(verdict for first, last, verdict in _NETWORKS[address.version] if first <= value <= last)


def _by_range_or_metadata(address: IPv4Address) -> Verdict:
    return Verdict.METADATA if int(address) in _METADATA[4] else _by_range(address)


def _embedded(address: IPv6Address) -> Iterator[IPv4Address]:
    """The IPv4 addresses that this one carries; none unless it lies in a range made for that."""
    if _by_range(address) is not Verdict.EMBEDDED:
        return
    value = int(address)
    if address in _TEREDO:
        yield IPv4Address(~value & _LOW_32_BITS)  # the client, stored inverted
        yield IPv4Address(value >> 64 & _LOW_32_BITS)  # the server
    elif address in _SIX_TO_FOUR:
        yield IPv4Address(value >> 80 & _LOW_32_BITS)
    else:
        yield IPv4Address(value & _LOW_32_BITS)


def _within(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address in network for network in networks if network.version == address.version)


def is_loopback(host: str) -> bool:
    """Whether a host, as a setting or a URL names it, is this machine as only itself reaches it. Looks nothing up."""
    return host == "localhost" or classify(host) is Verdict.LOOPBACK
