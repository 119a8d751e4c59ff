"""The egress proxy's URL, what it is asked, and whose failure each of its answers is."""

import base64
from ipaddress import IPv6Address, ip_address, ip_network

import pytest
import squid
from test_addresses import TABLE

from go2hooks.core.domain.outcome import OUR_FAILURES, Failure
from go2hooks.core.security import addresses
from go2hooks.core.security.addresses import AddressPolicy, Verdict
from go2hooks.core.security.egress import Meaning, ProxyAddress, connect_request, parse_proxy_url, read_answer
from services.dispatcher.http import failures

GO2 = "Go2's own egress proxy"


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://proxy.corp:3128", ProxyAddress("proxy.corp", 3128, is_tls=False, authorization=None)),
        ("http://squid_1:3128/", ProxyAddress("squid_1", 3128, is_tls=False, authorization=None)),
        ("HTTPS://Proxy.Corp:443", ProxyAddress("proxy.corp", 443, is_tls=True, authorization=None)),
        ("http://10.0.0.7:3128", ProxyAddress("10.0.0.7", 3128, is_tls=False, authorization=None)),
        ("http://[fd00::7]:3128", ProxyAddress("fd00::7", 3128, is_tls=False, authorization=None)),
    ],
)
def test_a_proxy_is_named_by_its_url(url, address):
    assert parse_proxy_url(url) == address


@pytest.mark.parametrize(
    ("userinfo", "pair"),
    [("go2:word", "go2:word"), ("go2:p%40s%2Fs%3Aw%C3%B6rd", "go2:p@s/s:wörd"), ("a.b-c_d~:!$&()*+,;=", "a.b-c_d~:!$&()*+,;=")],
)  # fmt: skip
def test_credentials_are_decoded_and_sent_as_basic(userinfo, pair):
    expected = "Basic " + base64.b64encode(pair.encode()).decode()
    address = parse_proxy_url(f"http://{userinfo}@proxy.corp:3128")
    assert address.authorization == expected
    assert f"\r\nProxy-Authorization: {expected}\r\n\r\n".encode() in connect_request(address, "customer.test", 443)


@pytest.mark.parametrize(
    "url",
    [
        "proxy.corp:3128", "socks5://proxy.corp:1080", "http://proxy.corp", "http://:3128", "http://proxy.corp:0",
        "http://proxy.corp:70000", "http://proxy.corp:hunter2", "http://user:hunter2@proxy.corp",
        "http://user:hunter2@:3128", "http://user:hunter2/x@proxy.corp:3128", "http://user:hun?ter2@proxy.corp:3128",
        "http://user:hun#ter2@proxy.corp:3128", "http://user:hunter2[@proxy.corp:3128", 'http://user:hun"ter2@proxy.corp:3128',
        "http://user:hunter2@x@proxy.corp:3128", "http://hunter2@proxy.corp:3128", "http://hunter2:@proxy.corp:3128",
        "http://:hunter2@proxy.corp:3128", "http://us%3Aer:hunter2@proxy.corp:3128", "http://user:hunter2@proxy.corp:3128/x",
        "http://user:hunter2@proxy.corp:3128?x", "http://pröxy.corp:3128", "http://proxy corp:3128",
    ],
)  # fmt: skip
def test_what_is_no_proxy_url_is_refused_without_being_quoted(url):
    with pytest.raises(ValueError, match="proxy URL") as refused:
        parse_proxy_url(url)
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


def test_a_proxys_address_shows_no_credentials():
    assert "Basic" not in repr(parse_proxy_url("http://user:hunter2@proxy.corp:3128"))


@pytest.mark.parametrize(
    ("host", "authority"), [("customer.test", "customer.test:8443"), ("192.0.2.1", "192.0.2.1:8443"), ("2001:db8::1", "[2001:db8::1]:8443")]
)  # fmt: skip
def test_a_tunnel_is_asked_for_by_host_and_port(host, authority):
    asked = connect_request(parse_proxy_url("http://proxy.corp:3128"), host, 8443)
    assert asked == f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode()


@pytest.mark.parametrize("host", ["a b", "a\r\nX: y", "a\n", "ö.test", "a\0"])
def test_no_host_breaks_out_of_its_line(host):
    with pytest.raises(ValueError, match="no request line"):
        connect_request(parse_proxy_url("http://proxy.corp:3128"), host, 443)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 Connection established\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nProxy-agent: tinyproxy/1.11.1\r\n\r\n",
        b"HTTP/1.1 200\n\n",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ],
)
def test_every_success_opens_the_tunnel_and_none_does_before_it_is_complete(answer):
    read = read_answer(answer + b"more")
    assert read is not None
    assert (read.meaning, read.rest) == (Meaning.OPEN, b"more")
    assert [read_answer(answer[:end]) for end in range(len(answer))] == [None] * len(answer)


SAYS = {
    "the proxy wants credentials": (
        b'HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="x"\r\n\r\n<html>',
        (Failure.PROXY_ERROR, f"{GO2} refused Go2's credentials; nothing was sent to the receiver."),
    ),
    "Tinyproxy finds them wrong": (
        b"HTTP/1.0 401 Unauthorized\r\nServer: tinyproxy/1.11.1\r\n\r\n",
        (Failure.PROXY_ERROR, f"{GO2} refused Go2's credentials; nothing was sent to the receiver."),
    ),
    "Squid's denial": (
        b"HTTP/1.1 403 Forbidden\r\nX-Squid-Error: ERR_ACCESS_DENIED 0\r\n\r\n",
        (Failure.PROXY_ERROR, f"{GO2} does not let this delivery go there."),
    ),
    "Smokescreen's denial": (
        b"HTTP/1.1 407 Request rejected by proxy\r\nX-Smokescreen-Error: denied\r\n\r\n",
        (Failure.PROXY_ERROR, f"{GO2} does not let this delivery go there."),
    ),
    "a web server": (
        b"HTTP/1.1 405 Not Allowed\r\n\r\n",
        (Failure.PROXY_ERROR, f"{GO2} answered 405; nothing was sent to the receiver."),
    ),
    "too busy": (
        b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\n\r\n",
        (Failure.PROXY_ERROR, f"{GO2} answered 429; nothing was sent to the receiver."),
    ),
    "a redirect": (
        b"HTTP/1.1 302 Found\r\nLocation: https://login.test/\r\n\r\n",
        (Failure.PROXY_ERROR, f"{GO2} answered 302; nothing was sent to the receiver."),
    ),
    "another protocol": (b"SSH-2.0-OpenSSH_9.2\r\n", (Failure.PROXY_ERROR, f"What answers as {GO2} is none.")),
    "TLS": (b"\x15\x03\x01\0\x02\x02\x46", (Failure.PROXY_ERROR, f"What answers as {GO2} is none.")),
    "HTTP/2": (b"\0\0\x12\x04\0\0\0\0\0", (Failure.PROXY_ERROR, f"What answers as {GO2} is none.")),
    "no status": (b"HTTP/1.1 abc\r\n\r\n", (Failure.PROXY_ERROR, f"What answers as {GO2} is none.")),
    "no end": (b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 3000, (Failure.PROXY_ERROR, f"What answers as {GO2} is none.")),
    "interim answers without end": (
        b"HTTP/1.1 100 Continue\r\n\r\n" * 2000,
        (Failure.PROXY_ERROR, f"What answers as {GO2} is none."),
    ),
} | {
    f"{status} of the receiver": (
        f"HTTP/1.1 {status} No\r\n\r\n".encode(),
        (
            Failure.CONNECTION_ERROR,
            f"The receiver could not be reached: the egress proxy on the way there answered {status}.",
        ),
    )
    for status in (500, 502, 503, 504)
}


@pytest.mark.parametrize("name", SAYS)
def test_what_the_proxy_found_is_the_receivers_failure_and_what_it_decides_or_lacks_is_ours(name):
    answer, expected = SAYS[name]
    read = read_answer(answer)
    assert read is not None
    assert failures.refused_by_proxy(read.meaning, read.status) == expected
    assert (expected[0] in OUR_FAILURES) == ("of the receiver" not in name)


@pytest.mark.parametrize("phase", failures.Phase)
def test_what_lasts_too_long_at_the_proxy_is_ours(phase):
    failure, message = failures.timeout(10, phase)
    assert (failure in OUR_FAILURES) == ("egress proxy" in message)


def test_the_squid_of_the_operators_guide_refuses_whatever_we_refuse():
    refused = squid.refused_networks()
    for text, _ in addresses._RANGES:
        network = ip_network(text)
        for address in (network[0], network[-1]):
            is_judged_as_ipv4 = isinstance(address, IPv6Address) and address.ipv4_mapped is not None
            is_outside_global = isinstance(address, IPv6Address) and address not in ip_network("2000::/3")
            is_refused = is_judged_as_ipv4 or is_outside_global or any(address in each for each in refused)
            assert is_refused or AddressPolicy().permits(address), address
    for metadata in (ip_address(number) for numbers in addresses._METADATA.values() for number in numbers):
        assert any(metadata in each for each in refused), metadata


@pytest.mark.parametrize("text", [text for text, verdict in TABLE.items() if verdict is Verdict.PUBLIC])
def test_the_squid_of_the_operators_guide_lets_through_what_is_public(text):
    assert not any(ip_address(text) in each for each in squid.refused_networks())
