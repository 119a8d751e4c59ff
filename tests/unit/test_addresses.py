"""Every special range, with the neighbour just outside it."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from go2hooks.core.security.addresses import AddressPolicy, Verdict, classify, is_allowed

PUBLIC, PRIVATE, LOOPBACK, UNSPECIFIED = Verdict.PUBLIC, Verdict.PRIVATE, Verdict.LOOPBACK, Verdict.UNSPECIFIED
RESERVED, PROTOCOL, DOCUMENTATION, MULTICAST = (
    Verdict.RESERVED,
    Verdict.PROTOCOL,
    Verdict.DOCUMENTATION,
    Verdict.MULTICAST,
)
EMBEDDED, METADATA, LINK_LOCAL, BENCHMARK = Verdict.EMBEDDED, Verdict.METADATA, Verdict.LINK_LOCAL, Verdict.BENCHMARK

TABLE = {
    # --- IPv4: first, last, and the neighbours of each range
    "0.0.0.0": UNSPECIFIED,
    "0.255.255.255": UNSPECIFIED,
    "1.0.0.0": PUBLIC,
    "9.255.255.255": PUBLIC,
    "10.0.0.0": PRIVATE,
    "10.255.255.255": PRIVATE,
    "11.0.0.0": PUBLIC,
    "100.63.255.255": PUBLIC,
    "100.64.0.0": Verdict.SHARED,
    "100.127.255.255": Verdict.SHARED,
    "100.128.0.0": PUBLIC,
    "126.255.255.255": PUBLIC,
    "127.0.0.0": LOOPBACK,
    "127.0.0.1": LOOPBACK,
    "127.255.255.255": LOOPBACK,
    "128.0.0.0": PUBLIC,
    "169.253.255.255": PUBLIC,
    "169.254.0.0": LINK_LOCAL,
    "169.254.255.255": LINK_LOCAL,
    "169.255.0.0": PUBLIC,
    "172.15.255.255": PUBLIC,
    "172.16.0.0": PRIVATE,
    "172.31.255.255": PRIVATE,
    "172.32.0.0": PUBLIC,
    "191.255.255.255": PUBLIC,
    "192.0.0.0": PROTOCOL,
    "192.0.0.9": PROTOCOL,
    "192.0.0.170": PROTOCOL,
    "192.0.0.255": PROTOCOL,
    "192.0.1.0": PUBLIC,
    "192.0.1.255": PUBLIC,
    "192.0.2.0": DOCUMENTATION,
    "192.0.2.255": DOCUMENTATION,
    "192.0.3.0": PUBLIC,
    "192.88.98.255": PUBLIC,
    "192.88.99.0": RESERVED,
    "192.88.99.255": RESERVED,
    "192.88.100.0": PUBLIC,
    "192.167.255.255": PUBLIC,
    "192.168.0.0": PRIVATE,
    "192.168.255.255": PRIVATE,
    "192.169.0.0": PUBLIC,
    "198.17.255.255": PUBLIC,
    "198.18.0.0": BENCHMARK,
    "198.19.255.255": BENCHMARK,
    "198.20.0.0": PUBLIC,
    "198.51.99.255": PUBLIC,
    "198.51.100.0": DOCUMENTATION,
    "198.51.100.255": DOCUMENTATION,
    "198.51.101.0": PUBLIC,
    "203.0.112.255": PUBLIC,
    "203.0.113.0": DOCUMENTATION,
    "203.0.113.255": DOCUMENTATION,
    "203.0.114.0": PUBLIC,
    "223.255.255.255": PUBLIC,
    "224.0.0.0": MULTICAST,
    "224.0.0.1": MULTICAST,
    "239.255.255.255": MULTICAST,
    "240.0.0.0": RESERVED,
    "255.255.255.254": RESERVED,
    "255.255.255.255": Verdict.BROADCAST,
    "8.8.8.8": PUBLIC,
    # --- metadata services, and their neighbours
    "169.254.169.253": LINK_LOCAL,
    "169.254.169.254": METADATA,
    "169.254.169.255": LINK_LOCAL,
    "169.254.170.2": METADATA,
    "169.254.170.23": METADATA,
    "169.254.0.23": METADATA,
    "169.254.42.42": METADATA,
    "100.100.100.199": Verdict.SHARED,
    "100.100.100.200": METADATA,
    "100.100.100.201": Verdict.SHARED,
    "168.63.129.15": PUBLIC,
    "168.63.129.16": METADATA,
    "168.63.129.17": PUBLIC,
    "192.0.0.192": METADATA,
    "fd00:ec2::253": PRIVATE,
    "fd00:ec2::254": METADATA,
    "fd00:ec2::23": METADATA,
    "fd20:ce::254": METADATA,
    "fd00:42::42": METADATA,
    # --- IPv6
    "::": UNSPECIFIED,
    "::1": LOOPBACK,
    "::2": UNSPECIFIED,  # compatible 0.0.0.2
    "::0001:0:0:0": RESERVED,
    "ff:ffff:ffff:ffff:ffff:ffff:ffff:ffff": RESERVED,  # the last of ::/8
    "64:ff9a:ffff:ffff:ffff:ffff:ffff:ffff": RESERVED,
    "64:ff9b:2::": RESERVED,
    "100::": RESERVED,
    "100::ffff:ffff:ffff:ffff": RESERVED,
    "100:0:0:1::": RESERVED,
    "200::1": RESERVED,
    "400::1": RESERVED,
    "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff": RESERVED,
    "2000::": PUBLIC,
    "2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff": PUBLIC,
    "2001:1::": PROTOCOL,
    "2001:1::1": PROTOCOL,
    "2001:1:ffff:ffff:ffff:ffff:ffff:ffff": PROTOCOL,
    "2001:2::": BENCHMARK,
    "2001:2:0:ffff:ffff:ffff:ffff:ffff": BENCHMARK,
    "2001:2:1::": PROTOCOL,
    "2001:3::": PROTOCOL,
    "2001:10::": PROTOCOL,
    "2001:20::": PROTOCOL,
    "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff": PROTOCOL,
    "2001:200::": PUBLIC,
    "2001:4860:4860::8888": PUBLIC,
    "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff": PUBLIC,
    "2001:db8::": DOCUMENTATION,
    "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff": DOCUMENTATION,
    "2001:db9::": PUBLIC,
    "2001:ffff:ffff:ffff:ffff:ffff:ffff:ffff": PUBLIC,
    "2003::": PUBLIC,
    "2606:4700::1111": PUBLIC,
    "3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff": PUBLIC,
    "3fff::": DOCUMENTATION,
    "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff": DOCUMENTATION,
    "3fff:1000::": PUBLIC,
    "3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff": PUBLIC,
    "4000::": RESERVED,
    "5eff:ffff:ffff:ffff:ffff:ffff:ffff:ffff": RESERVED,
    "5f00::": PROTOCOL,
    "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff": PROTOCOL,
    "5f01::": RESERVED,
    "fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff": RESERVED,
    "fc00::": PRIVATE,
    "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff": PRIVATE,
    "fe00::": RESERVED,
    "fe7f:ffff:ffff:ffff:ffff:ffff:ffff:ffff": RESERVED,
    "fe80::": LINK_LOCAL,
    "fe80::1%eth0": LINK_LOCAL,
    "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff": LINK_LOCAL,
    "fec0::": PRIVATE,
    "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff": PRIVATE,
    "ff00::": MULTICAST,
    "ff02::1": MULTICAST,
    "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff": MULTICAST,
    # --- IPv4 inside IPv6: mapped, compatible, translated, NAT64, 6to4, Teredo
    "::ffff:10.0.0.1": PRIVATE,
    "::ffff:127.0.0.1": LOOPBACK,
    "::ffff:169.254.169.254": METADATA,
    "::ffff:8.8.8.8": EMBEDDED,
    "::fffe:ffff:ffff": RESERVED,
    "::1:0:0:0": RESERVED,
    "::127.0.0.1": LOOPBACK,
    "::8.8.8.8": EMBEDDED,
    "::ffff:0:192.168.0.1": PRIVATE,
    "::ffff:0:8.8.8.8": EMBEDDED,
    "64:ff9b::10.0.0.1": PRIVATE,
    "64:ff9b::a00:1": PRIVATE,
    "64:ff9b::169.254.169.254": METADATA,
    "64:ff9b::8.8.8.8": EMBEDDED,
    "64:ff9b::1:0:0": RESERVED,
    "64:ff9b:1::10.0.0.1": PRIVATE,
    "64:ff9b:1:ffff:ffff:ffff:8.8.8.8": EMBEDDED,
    "2002:a00:1::1": PRIVATE,
    "2002:7f00:1::": LOOPBACK,
    "2002:a9fe:a9fe::": METADATA,
    "2002:808:808::1": EMBEDDED,
    "2001:0:808:808::f5ff:fffe": PRIVATE,  # the client is ~f5ff:fffe = 10.0.0.1
    "2001:0:808:808::f7f7:f7f7": EMBEDDED,  # the client is 8.8.8.8
    "2001:0:a00:1::f7f7:f7f7": PRIVATE,  # the server is 10.0.0.1
    "2001:0:808:808::5601:5601": METADATA,
    # --- not addresses
    "": Verdict.INVALID,
    "example.com": Verdict.INVALID,
    "127.1": Verdict.INVALID,
    "256.0.0.1": Verdict.INVALID,
    "010.0.0.1": Verdict.INVALID,
    "[::1]": Verdict.INVALID,
    "1.2.3.4 ": Verdict.INVALID,
}


def test_the_table_is_long_enough_to_mean_something() -> None:
    assert len(TABLE) >= 120


@pytest.mark.parametrize(("address", "verdict"), TABLE.items())
def test_verdict(address: str, verdict: Verdict) -> None:
    assert classify(address) is verdict


@pytest.mark.parametrize("verdict", Verdict)
def test_only_public_addresses_are_allowed(verdict: Verdict) -> None:
    assert is_allowed(verdict) == (verdict is PUBLIC)


@given(st.ip_addresses())
def test_strings_and_parsed_addresses_get_the_same_verdict(address: IPv4Address | IPv6Address) -> None:
    assert classify(str(address)) is classify(address)


@given(st.ip_addresses())
def test_nothing_is_public_that_the_standard_library_calls_special(address: IPv4Address | IPv6Address) -> None:
    """The reverse does not hold: `is_global` lets addresses through that embed private ones."""
    if is_allowed(classify(address)):
        assert address.is_global
        assert not address.is_multicast


@given(st.ip_addresses(v=4))
def test_no_ipv6_spelling_makes_an_ipv4_address_more_public(inner: IPv4Address) -> None:
    value = int(inner)
    carriers = [
        IPv6Address(0xFFFF << 32 | value),
        IPv6Address(0x64FF9B << 96 | value),
        IPv6Address(0x2002 << 112 | value << 80 | 1),
        IPv6Address(0x20010000 << 96 | 0x08080808 << 64 | (~value & 0xFFFFFFFF)),
    ]
    expected = classify(inner)
    for carrier in carriers:
        assert classify(carrier) is (EMBEDDED if expected is PUBLIC else expected)


class TestAddressPolicy:
    def test_by_default_only_public_addresses_are_permitted(self) -> None:
        policy = AddressPolicy()
        for address, verdict in TABLE.items():
            assert policy.permits(address) == (verdict is PUBLIC), address

    @pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "::1", "fe80::1", "0.0.0.0", "8.8.8.8", "fd00::1"])
    def test_insecure_permits_private_addresses(self, address: str) -> None:
        assert AddressPolicy(allow_insecure=True).permits(address)

    @pytest.mark.parametrize(
        "address",
        ["169.254.169.254", "fd00:ec2::254", "::ffff:169.254.169.254", "224.0.0.1", "ff02::1", "255.255.255.255", "x"],
    )
    def test_insecure_still_refuses_metadata_and_what_is_no_unicast(self, address: str) -> None:
        assert not AddressPolicy(allow_insecure=True).permits(address)

    def test_an_allowed_network_is_permitted_and_its_neighbour_is_not(self) -> None:
        policy = AddressPolicy(allow=(ip_network("10.1.0.0/16"),))
        assert policy.permits("10.1.255.255")
        assert not policy.permits("10.2.0.0")
        assert policy.permits("8.8.8.8")

    def test_a_denied_network_is_refused_whatever_else_permits_it(self) -> None:
        everything = (ip_network("0.0.0.0/0"), ip_network("::/0"))
        policy = AddressPolicy(allow=everything, deny=(ip_network("8.8.8.0/24"),), allow_insecure=True)
        assert not policy.permits("8.8.8.8")
        assert not policy.permits("::ffff:8.8.8.8")
        assert not policy.permits("64:ff9b::808:808")
        assert policy.permits("8.8.9.0")

    def test_allowing_nat64_allows_only_the_public_addresses_behind_it(self) -> None:
        policy = AddressPolicy(allow=(ip_network("64:ff9b::/96"),))
        assert policy.permits("64:ff9b::8.8.8.8")
        assert not policy.permits("64:ff9b::10.0.0.1")
        assert not policy.permits(ip_address("64:ff9b::a9fe:a9fe"))
