"""Webhook URLs: what is taken apart, and what is refused."""

# ruff: noqa: RUF001  # look-alike digits and letters are what is tested

from contextlib import suppress
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from go2hooks.core.errors import TargetError
from go2hooks.core.security.addresses import AddressPolicy
from go2hooks.core.security.target import BAD_PORTS, MAX_URL_CHARS, Target, check_target, parse_target

PUBLIC = AddressPolicy()
INSECURE = AddressPolicy(allow_insecure=True)


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://example.com", Target("https", "example.com", 443, "/", "example.com")),
        ("HTTPS://EXAMPLE.com:443/A?b=C", Target("https", "example.com", 443, "/A?b=C", "example.com")),
        ("https://example.com:8443/x", Target("https", "example.com", 8443, "/x", "example.com:8443")),
        ("https://example.com:/x", Target("https", "example.com", 443, "/x", "example.com")),
        ("https://example.com?q=1", Target("https", "example.com", 443, "/?q=1", "example.com")),
        ("https://example.com/a#fragment?x", Target("https", "example.com", 443, "/a", "example.com")),
        (
            "https://example.com/?next=https://a@b/c",
            Target("https", "example.com", 443, "/?next=https://a@b/c", "example.com"),
        ),
        ("https://example.com./x", Target("https", "example.com", 443, "/x", "example.com")),
        ("https://my_app.example.com/", Target("https", "my_app.example.com", 443, "/", "my_app.example.com")),
        (
            "https://münchen.example/ü?ä=\u3000",
            Target("https", "xn--mnchen-3ya.example", 443, "/%C3%BC?%C3%A4=%E3%80%80", "xn--mnchen-3ya.example"),
        ),
        (
            "https://xn--mnchen-3ya.example/",
            Target("https", "xn--mnchen-3ya.example", 443, "/", "xn--mnchen-3ya.example"),
        ),
        ("https://faß.example/", Target("https", "xn--fa-hia.example", 443, "/", "xn--fa-hia.example")),
        (
            'https://example.com/%41"{<x>}`',
            Target("https", "example.com", 443, "/%41%22%7B%3Cx%3E%7D%60", "example.com"),
        ),
        ("http://example.com/", Target("http", "example.com", 80, "/", "example.com")),
        ("http://example.com:443/", Target("http", "example.com", 443, "/", "example.com:443")),
        ("https://[2606:4700:0::1111]:8443/", Target("https", "2606:4700::1111", 8443, "/", "[2606:4700::1111]:8443")),
        ("https://8.8.8.8/", Target("https", "8.8.8.8", 443, "/", "8.8.8.8")),
    ],
)
def test_a_url_is_taken_apart(url: str, target: Target) -> None:
    assert parse_target(url) == target
    assert check_target(url, INSECURE) == target


@pytest.mark.parametrize(
    ("host", "ascii_host"),
    [
        ("i❤.example", "xn--i-7iq.example"),
        ("i❤️.example", "xn--i-7iq.example"),
        ("💩.example", "xn--ls8h.example"),
        ("🫨.example", "xn--929h.example"),  # newer than Unicode as Python 3.11 knows it
        ("1️⃣.example", "xn--1-2sn.example"),
        ("🇩🇪.example", "xn--h77hc.example"),
        ("XN--LS8H.ünï.example", "xn--ls8h.xn--n-nga1b.example"),
        ("my_app.münchen.example", "my_app.xn--mnchen-3ya.example"),
        ("ab--ü.example", "xn--ab---3ra.example"),
        ("exa\u2044mple.com", "xn--example-3d7c.com"),
        ("क्\u200dष.example", "xn--11b2ezcw70k.example"),
    ],
)
def test_a_host_is_mapped_as_browsers_map_it(host: str, ascii_host: str) -> None:
    """What `new URL(…).host` gives in Node; the ASCII form means the same."""
    assert parse_target(f"https://{host}/").host == ascii_host
    assert parse_target(f"https://{ascii_host}/").host == ascii_host


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7F.1", "0x7f.0x0.0x0.0x1", "0177.0.0.1",
        "017700000001", "0177.1", "127.0.0.1.", "127.0.0.0x1", "0x7f.0.1", "00177.00.00.01", "127.0x1",
        "１２７.0.0.1", "１２７。０。０。１", "①②⑦.⓪.⓪.①", "127。0。0。1", "127｡0｡0｡1", "𝟏𝟐𝟕.0.0.1", "127.0.0.1。", "０ｘ７ｆ.1",
    ],
)  # fmt: skip
def test_every_spelling_of_127_0_0_1_is_that_address(host: str) -> None:
    assert parse_target(f"https://{host}/").host == "127.0.0.1"
    with pytest.raises(TargetError, match=r"must not point to 127\.0\.0\.1: it is not a public address"):
        check_target(f"https://{host}/", PUBLIC)
    assert check_target(f"http://{host}/", INSECURE).host == "127.0.0.1"


@pytest.mark.parametrize(
    "host",
    [
        "10.0.0.1", "012.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "0xa9fea9fe", "2852039166", "0", "0.0.0.0",
        "0x", "255.255.255.255", "100.64.0.1", "198.18.0.1", "224.0.0.1", "[::1]", "[::]", "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[fe80::1]", "[fc00::1]", "[fd00:ec2::254]",
        "[64:ff9b::10.0.0.1]", "[2002:a00:1::1]", "[2001:0:808:808::f5ff:fffe]", "[ff02::1]", "[2001:db8::1]",
    ],
)  # fmt: skip
def test_a_literal_that_the_guard_would_refuse_is_refused_at_creation(host: str) -> None:
    with pytest.raises(TargetError, match="not a public address"):
        check_target(f"https://{host}:8443/hook", PUBLIC)


@pytest.mark.parametrize("host", ["169.254.169.254", "0xa9fea9fe", "[::ffff:a9fe:a9fe]", "[fd00:ec2::254]"])
def test_metadata_services_are_refused_even_in_development(host: str) -> None:
    with pytest.raises(TargetError, match="not a public address"):
        check_target(f"http://{host}/", INSECURE)


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST.", "a.localhost", "intranet", "printer.local", "metadata.google.internal", "x.home.arpa",
     "ｌocalhost", "x.onion", "x.invalid"],
)  # fmt: skip
def test_an_internal_name_is_refused_unless_insecure_targets_are_allowed(host: str) -> None:
    with pytest.raises(TargetError, match="must name a public host"):
        check_target(f"https://{host}/", PUBLIC)
    check_target(f"http://{host}:8080/", INSECURE)


MALFORMED = {
    "": "complete",
    "example.com/hook": "complete",
    "//example.com/": "complete",
    "https:/example.com/": "complete",
    "https:example.com": "complete",
    "https//example.com": "complete",
    "ftp://example.com/": "start with https",
    "javascript://example.com/": "start with https",
    "file:///etc/passwd": "start with https",
    "https://": "no host",
    "https:///path": "no host",
    "https://:443/": "no host",
    "https://./": "no host",
    "https://?x": "no host",
    "https://user@example.com/": "user name or password",
    "https://user:pass@example.com/": "user name or password",
    "https://@example.com/": "user name or password",
    "https://example.com:80@127.0.0.1/": "user name or password",
    "https://example.com\\@127.0.0.1/": "backslashes",
    "https:\\\\example.com/": "backslashes",
    " https://example.com/": "spaces",
    "https://example.com/a b": "spaces",
    "https://example.com/\r\nHost: x": "spaces, control",
    "https://exam\tple.com/": "control characters",
    "https://example.com/\x00": "control characters",
    "https://example.com/\x7f": "control characters",
    "https://example.com/\x85": "control characters",
    "https://example.com/\ud800": "control characters",
    "https://example.com:0x50/": "host or port is malformed",
    "https://example.com:-1/": "host or port is malformed",
    "https://example.com:80:80/": "host or port is malformed",
    "https://example.com:４４３/": "host or port is malformed",
    "https://example.com:65536/": "port must be between",
    "https://example.com:000443/": "port must be between",
    "https://::1/": "host or port is malformed",
    "https://[::1/": "host or port is malformed",
    "https://::1]/": "host or port is malformed",
    "https://[::1]x/": "host or port is malformed",
    "https://[::1]8080/": "host or port is malformed",
    "https://[]/": "IPv6 address is malformed",
    "https://[1.2.3.4]/": "IPv6 address is malformed",
    "https://[::g]/": "IPv6 address is malformed",
    "https://[1:2:3]/": "IPv6 address is malformed",
    "https://[fe80::1%25eth0]/": "must not have a zone",
    "https://[fe80::1%eth0]/": "must not have a zone",
    "https://1.2.3.4.5/": "IPv4 address is malformed",
    "https://256.1.1.1/": "IPv4 address is malformed",
    "https://1.2.3.256/": "IPv4 address is malformed",
    "https://1.2.65536/": "IPv4 address is malformed",
    "https://4294967296/": "IPv4 address is malformed",
    "https://08.0.0.1/": "IPv4 address is malformed",
    "https://1..2.3/": "IPv4 address is malformed",
    "https://1_0.0.0.1/": "IPv4 address is malformed",
    "https://example.1/": "IPv4 address is malformed",
    "https://example.0x1/": "IPv4 address is malformed",
    "https://0xg.1/": "IPv4 address is malformed",
    "https://exa%6dple.com/": "not a valid domain name",
    "https://%31%32%37.0.0.1/": "IPv4 address is malformed",
    "https://a..b/": "not a valid domain name",
    "https://.example.com/": "not a valid domain name",
    "https://example.com../": "not a valid domain name",
    "https://-a.example/": "not a valid domain name",
    "https://a-.example/": "not a valid domain name",
    "https://exa!mple.com/": "not a valid domain name",
    "https://exa,mple.com/": "not a valid domain name",
    f"https://{'a' * 64}.example/": "not a valid domain name",
    f"https://{'a.' * 126}example/": "not a valid domain name",
    "https://xn--/": "not a valid domain name",
    "https://xn--127-.example/": "not a valid domain name",
    "https://xn--\u00fc.example/": "international domain name",
    "https://a\u200b\u00ad/": "public host",
    "https://\u2100.example/": "not a valid domain name",
    "https://exa\u2028mple.com/": "international domain name",
    "https://exa\u200cmple.com/": "international domain name",
    "https://\U0001f468\u200d\U0001f469.example/": "international domain name",
    "https://\u0301a.example/": "international domain name",
    f"https://{'ü' * 64}.example/": "international domain name",
    f"https://example.com/{'a' * MAX_URL_CHARS}": f"at most {MAX_URL_CHARS}",
}


@pytest.mark.parametrize(("url", "message"), MALFORMED.items(), ids=[ascii(url)[:40] for url in MALFORMED])
def test_a_malformed_url_is_refused_with_the_reason(url: str, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        check_target(url, PUBLIC)


def test_only_https_is_accepted_unless_insecure_targets_are_allowed() -> None:
    with pytest.raises(TargetError, match="must start with https://"):
        check_target("http://example.com/", PUBLIC)
    assert check_target("http://example.com/", INSECURE).port == 80


@pytest.mark.parametrize("port", sorted(BAD_PORTS))
def test_a_port_that_never_speaks_http_is_refused(port: int) -> None:
    for insecure in (False, True):
        with pytest.raises(TargetError, match=f"must not use port {port}:"):
            check_target(f"https://example.com:{port}/", AddressPolicy(allow_insecure=insecure))


@pytest.mark.parametrize("port", [80, 443, 2, 24, 1024, 3000, 6001, 6664, 8080, 8443, 10079, 10081, 65535])
def test_its_neighbours_and_the_usual_ports_are_accepted(port: int) -> None:
    assert check_target(f"https://example.com:{port}/", PUBLIC).port == port


def test_the_operators_ports_take_the_place_of_the_default_ones() -> None:
    assert check_target("https://example.com:6000/", PUBLIC, (8443,)).port == 6000
    with pytest.raises(TargetError, match="must not use port 8443:"):
        check_target("https://example.com:8443/", PUBLIC, (8443,))


def test_an_allowed_network_may_be_pointed_to_and_named_but_only_by_https() -> None:
    policy = AddressPolicy(allow=(ip_network("10.1.0.0/16"),))
    assert check_target("https://10.1.2.3/", policy).host == "10.1.2.3"
    assert check_target("https://hooks.internal/", policy).host == "hooks.internal"  # the socket judges where it leads
    with pytest.raises(TargetError, match=r"must not point to 10\.2\.0\.1"):
        check_target("https://10.2.0.1/", policy)
    with pytest.raises(TargetError, match="must start with https://"):
        check_target("http://10.1.2.3/", policy)


def test_a_denied_network_may_not_be_pointed_to() -> None:
    policy = AddressPolicy(deny=(ip_network("8.8.8.0/24"),), allow_insecure=True)
    with pytest.raises(TargetError, match=r"must not point to 8\.8\.8\.8"):
        check_target("https://8.8.8.8/", policy)


def test_the_longest_url_is_accepted() -> None:
    url = "https://example.com/"
    assert check_target(url + "a" * (MAX_URL_CHARS - len(url)), PUBLIC).port == 443


def test_every_message_is_one_sentence() -> None:
    for url in MALFORMED:
        with pytest.raises(TargetError) as caught:
            check_target(url, PUBLIC)
        message = str(caught.value)
        assert message.startswith("The URL")
        assert message.endswith(".")
        assert "\n" not in message


hosts = st.text(st.sampled_from("0123456789xXabf.:[]%@_-。１ｘü\u200b٣"), max_size=24)


@given(st.one_of(st.text(), hosts.map(lambda host: f"https://{host}/"), st.text().map(lambda x: f"https://{x}")))
def test_any_text_is_a_target_or_a_target_error(url: str) -> None:
    with suppress(TargetError):
        target = parse_target(url)
        assert (target.scheme + target.host + target.path + target.authority).isascii()
        assert target.path.startswith("/")
        assert not set(target.host + target.path + target.authority) & set(" \r\n\t\0")


@given(st.text(), hosts)
def test_what_was_taken_apart_reads_back_the_same(rest: str, host: str) -> None:
    try:
        target = parse_target(f"https://{host}/{rest}")
    except TargetError:
        return
    assert parse_target(f"{target.scheme}://{target.authority}{target.path}") == target
