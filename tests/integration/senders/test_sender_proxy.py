"""Through an egress proxy: a tunnel for every connection; its failures differ from the receiver's."""

import asyncio
import base64
import contextlib
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from scripted import OK, Line, Receiver, post, server_context
from tunnelling import ESTABLISHED, Tunnels, answering_connect, fields

from go2hooks.core.domain.outcome import Answer, Failure, NoAnswer
from go2hooks.core.security.addresses import AddressPolicy
from go2hooks.core.security.egress import parse_proxy_url
from go2hooks.core.security.target import Target, parse_target
from services.dispatcher.http import EgressProxy, Sender
from services.dispatcher.http.tls import client_context

TIMEOUT_S = 0.6
LATE_S = 10.0  # a busy machine included
PUBLIC_ONLY = AddressPolicy()


@pytest.fixture(params=["http", "https"])
def spoken(request: pytest.FixtureRequest) -> str:
    """How the proxy itself is spoken to."""
    return request.param


@pytest.fixture
def through(make_sender: Any, ca_file: Path) -> Callable[..., Sender]:
    """`through(proxy, timeout_s=…, …)`: a sender by way of this proxy. It looks up no name of a receiver."""

    async def never(host: str) -> list[str]:
        raise AssertionError(f"{host} was looked up")

    def make(proxy: Receiver | str, credentials: str = "", **options: Any) -> Sender:
        url = proxy if isinstance(proxy, str) else f"{proxy.scheme}://{credentials}localhost:{proxy.port}"
        address = parse_proxy_url(url)
        context = client_context(ca_file) if address.is_tls else None
        return make_sender(proxy=EgressProxy(address, context), lookup=never, **options)

    return make


@pytest.fixture
def proxy_context(spoken: str, server_tls: ssl.SSLContext) -> ssl.SSLContext | None:
    return server_tls if spoken == "https" else None


@pytest.fixture(scope="session")
def customer_tls(authority: trustme.CA) -> ssl.SSLContext:
    return server_context(authority.issue_cert("customer.test"))


def no_answer(response: object) -> tuple[Failure, str]:
    assert isinstance(response, NoAnswer), response
    return response.failure, response.message


# --- what the proxy is asked for


async def test_a_receiver_is_reached_by_a_name_that_the_proxy_alone_resolves(
    receive: Any, through: Any, proxy_context: Any, customer_tls: ssl.SSLContext
) -> None:
    receiver = await receive(OK, context=customer_tls)
    proxy = await receive(tunnels := Tunnels(), context=proxy_context)
    response = await through(proxy).send(post(receiver.target("customer.test")))
    assert isinstance(response, Answer), response
    assert (response.status, response.excerpt, response.remote_address) == (200, b"ok", None)
    asked = f"CONNECT customer.test:{receiver.port} HTTP/1.1\r\nHost: customer.test:{receiver.port}\r\n"
    assert [head.startswith(asked.encode()) for head in tunnels.asked] == [True]


async def test_plain_http_goes_through_a_tunnel_too(receive: Any, through: Any, proxy_context: Any, kind: str) -> None:
    seen: list[bytes] = []

    async def script(line: Line) -> None:
        seen.append(await line.request())
        await line.send(OK)

    receiver = await receive(script)
    proxy = await receive(tunnels := Tunnels(), context=proxy_context)
    response = await through(proxy, "user:word@").send(post(receiver.target("customer.test", "/a?b=c")))
    if kind == "aiohttp":  # knows no tunnel for it
        said = "The reference sender sends no plain http through Go2's own egress proxy."
        assert no_answer(response) == (Failure.PROXY_ERROR, said)
        assert not proxy.lines
        return
    assert isinstance(response, Answer), response
    assert tunnels.asked[0].startswith(f"CONNECT customer.test:{receiver.port} HTTP/1.1\r\n".encode())
    assert seen[0].startswith(b"POST /a?b=c HTTP/1.1\r\n")
    assert b"roxy" not in seen[0]


async def test_credentials_go_to_the_proxy_and_to_nobody_else(
    receive: Any, through: Any, customer_tls: ssl.SSLContext
) -> None:
    seen: list[bytes] = []

    async def script(line: Line) -> None:
        seen.append(await line.request())
        await line.send(OK)

    receiver = await receive(script, context=customer_tls)
    proxy = await receive(tunnels := Tunnels())
    sender = through(proxy, "go2:p%40ss%3Aw%C3%B6rd@")
    assert isinstance(await sender.send(post(receiver.target("customer.test"))), Answer)
    expected = "Basic " + base64.b64encode("go2:p@ss:wörd".encode()).decode()
    assert fields(tunnels.asked[0])["proxy-authorization"] == expected
    assert b"roxy-" not in seen[0]
    assert b"uthorization" not in seen[0]


async def test_a_client_certificate_goes_to_the_receiver_through_the_tunnel(
    receive: Any, through: Any, proxy_context: Any, authority: trustme.CA, ca_file: Path
) -> None:
    asking = server_context(authority.issue_cert("customer.test"))
    authority.configure_trust(asking)
    asking.verify_mode = ssl.CERT_REQUIRED
    receiver = await receive(OK, context=asking)
    proxy = await receive(Tunnels(), context=proxy_context)
    context = client_context(ca_file)
    authority.issue_cert("webhook.test").configure_cert(context)

    class Named:
        name = ("wh_1", b"1")

        async def context(self) -> ssl.SSLContext:
            return context

    response = await through(proxy).send(post(receiver.target("customer.test")), Named())
    assert isinstance(response, Answer), response
    shown = receiver.lines[0].writer.get_extra_info("ssl_object").getpeercert()
    assert shown["subjectAltName"] == (("DNS", "webhook.test"),)


async def test_a_tunnel_is_used_again_as_long_as_it_is_open(
    receive: Any, through: Any, proxy_context: Any, customer_tls: ssl.SSLContext
) -> None:
    receiver, other = [await receive(OK, context=customer_tls) for _ in range(2)]
    proxy = await receive(tunnels := Tunnels(), context=proxy_context)
    sender = through(proxy)
    for _ in range(5):
        for each in (receiver, other):
            assert isinstance(await sender.send(post(each.target("customer.test"))), Answer)
    assert len(tunnels.asked) == len(proxy.lines) == 2


async def test_a_tunnel_that_the_proxy_has_closed_meanwhile_costs_no_attempt(
    receive: Any, through: Any, customer_tls: ssl.SSLContext
) -> None:
    receiver = await receive(OK, context=customer_tls)
    proxy = await receive(tunnels := Tunnels())
    sender = through(proxy)
    assert isinstance(await sender.send(post(receiver.target("customer.test"))), Answer)
    tunnels.lines[0].reset()
    assert isinstance(await sender.send(post(receiver.target("customer.test"))), Answer)
    assert len(tunnels.asked) == 2


async def test_an_answer_may_come_byte_by_byte(receive: Any, through: Any, customer_tls: ssl.SSLContext) -> None:
    class Drips(Tunnels):
        async def establish(self, line: Line) -> None:
            for byte in b"HTTP/1.0 200 OK\r\nProxy-agent: tinyproxy\r\n\r\n":
                await line.send(bytes([byte]))
                await asyncio.sleep(0.001)

    receiver = await receive(OK, context=customer_tls)
    proxy = await receive(Drips())
    assert isinstance(await through(proxy).send(post(receiver.target("customer.test"))), Answer)


# --- what is judged before


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/",
        "https://10.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://169.254.169.254/",
        "https://customer.test:22/",
        "https://8.8.8.8:22/",
    ],
)
async def test_a_forbidden_address_or_port_does_not_come_as_far_as_the_proxy(
    receive: Any, through: Any, url: str
) -> None:
    proxy = await receive(Tunnels())
    sender = through(proxy, policy=PUBLIC_ONLY, deny_ports=(22,))
    expected = (Failure.BLOCKED_ADDRESS, "The address of this URL is not allowed.")
    assert no_answer(await sender.send(post(parse_target(url)))) == expected
    assert not proxy.lines


@pytest.mark.parametrize("spelt", ["127.1", "0x7f000001", "2130706433"])
async def test_an_address_is_asked_for_as_it_was_judged(receive: Any, through: Any, kind: str, spelt: str) -> None:
    if kind == "aiohttp":
        pytest.skip("aiohttp refuses unusual spellings by itself")
    receiver = await receive(OK)
    proxy = await receive(tunnels := Tunnels())
    target = Target("http", spelt, receiver.port, "/", f"{spelt}:{receiver.port}")
    refusing = through(proxy, policy=PUBLIC_ONLY)
    assert no_answer(await refusing.send(post(target)))[0] == Failure.BLOCKED_ADDRESS
    policy = AddressPolicy(allow=(ipaddress.ip_network("127.0.0.0/8"),))
    assert isinstance(await through(proxy, policy=policy).send(post(target)), Answer)
    assert [head.split(b" ")[1] for head in tunnels.asked] == [f"127.0.0.1:{receiver.port}".encode()]


async def test_an_ipv6_address_is_asked_for_in_brackets(receive: Any, through: Any) -> None:
    asked: list[bytes] = []
    proxy = await receive(answering_connect(b"HTTP/1.1 503 No\r\n\r\n", asked))
    target = parse_target("https://[2606:4700:4700::1111]/")
    await through(proxy, policy=PUBLIC_ONLY).send(post(target))
    assert asked[0].startswith(b"CONNECT [2606:4700:4700::1111]:443 HTTP/1.1\r\nHost: [2606:4700:4700::1111]")


# --- whose failure it is

GO2 = "Go2's own egress proxy"
CHALLENGED = b'HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm="x"\r\n\r\n'
UNREACHED = "The receiver could not be reached: the egress proxy on the way there answered 503."


@pytest.mark.parametrize(
    ("answer", "failure", "message"),
    [
        (CHALLENGED, Failure.PROXY_ERROR, f"{GO2} refused Go2's credentials; nothing was sent to the receiver."),
        (b"HTTP/1.1 403 No\r\n\r\n", Failure.PROXY_ERROR, f"{GO2} does not let this delivery go there."),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Failure.PROXY_ERROR, f"What answers as {GO2} is none."),
        (b"HTTP/1.1 503 No\r\nContent-Length: 99\r\n\r\n<html>", Failure.CONNECTION_ERROR, UNREACHED),
    ],
    ids=["credentials", "denial", "no proxy", "unreachable"],
)  # the whole table is tests/unit/test_egress.py's
async def test_a_refusal_says_whose_failure_it_is(
    receive: Any, through: Any, answer: bytes, failure: Failure, message: str
) -> None:
    proxy = await receive(answering_connect(answer))
    response = await through(proxy, "user:word@").send(post(parse_target("https://customer.test/")))
    assert no_answer(response) == (failure, message)
    assert len(proxy.lines) == 1
    await proxy.until(lambda: proxy.open == 0)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nX-Unfinished: "])
async def test_a_proxy_that_hangs_up_instead_of_answering_is_ours(receive: Any, through: Any, answer: bytes) -> None:
    proxy = await receive(answering_connect(answer, hold=False))
    said = no_answer(await through(proxy).send(post(parse_target("https://customer.test/"))))
    assert said == (Failure.PROXY_ERROR, f"{GO2} closed the connection without an answer.")


async def test_a_proxy_that_answers_without_end_is_none(receive: Any, through: Any, kind: str) -> None:
    if kind == "aiohttp":
        pytest.skip("aiohttp has a limit of its own")
    proxy = await receive(answering_connect(b"HTTP/1.1 200 OK\r\n" + b"X-More: 1\r\n" * 10_000))
    said = no_answer(await through(proxy).send(post(parse_target("https://customer.test/"))))
    assert said == (Failure.PROXY_ERROR, f"What answers as {GO2} is none.")


async def test_more_than_a_success_is_none(receive: Any, through: Any, kind: str) -> None:
    if kind == "aiohttp":
        pytest.skip("aiohttp gives it to TLS, which fails")
    proxy = await receive(answering_connect(ESTABLISHED + b"<html>Welcome!</html>"))
    said = no_answer(await through(proxy).send(post(parse_target("https://customer.test/"))))
    assert said == (Failure.PROXY_ERROR, f"What answers as {GO2} is none.")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "no-name-" * 8 + "x"], ids=["address", "name", "no name"])
async def test_a_proxy_that_is_away_is_ours(through: Any, host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    said = no_answer(await through(f"http://{host}:{port}").send(post(parse_target("https://customer.test/"))))
    assert said == (Failure.PROXY_ERROR, f"{GO2} could not be reached; nothing was sent to the receiver.")


async def test_tls_that_does_not_come_about_with_the_proxy_is_ours(
    receive: Any, through: Any, authority: trustme.CA
) -> None:
    expected = (Failure.PROXY_ERROR, f"TLS with {GO2} failed; nothing was sent to the receiver.")
    wrong_name = await receive(Tunnels(), context=server_context(authority.issue_cert("other.test")))
    unknown = await receive(Tunnels(), context=server_context(trustme.CA().issue_cert("localhost")))
    for proxy in (wrong_name, unknown):
        assert no_answer(await through(proxy).send(post(parse_target("https://customer.test/")))) == expected
        assert not proxy.lines


async def test_a_proxy_that_says_nothing_is_given_up_in_time_and_is_ours(receive: Any, through: Any, kind: str) -> None:
    proxy = await receive(answering_connect(b""))
    begun = time.monotonic()
    said = no_answer(await through(proxy, timeout_s=TIMEOUT_S).send(post(parse_target("https://customer.test/"))))
    assert said == (Failure.PROXY_ERROR, f"Timed out after 0.6 s while waiting for {GO2} to connect.")
    assert TIMEOUT_S - 0.005 <= time.monotonic() - begun < TIMEOUT_S + LATE_S
    await proxy.until(lambda: proxy.open == 0)


async def test_whoever_waits_behind_those_that_wait_for_the_proxy_waits_for_the_proxy(
    receive: Any, through: Any
) -> None:
    proxy = await receive(answering_connect(b""))
    sender = through(proxy, timeout_s=TIMEOUT_S)
    responses = await asyncio.gather(*(sender.send(post(parse_target("https://customer.test/"))) for _ in range(64)))
    assert {response.failure for response in responses} == {Failure.PROXY_ERROR}  # a busy lane has so many under way


async def test_a_proxy_that_takes_no_connection_is_given_up_in_time_and_is_ours(
    through: Any, full_backlog: int, kind: str
) -> None:
    sender = through(f"http://127.0.0.1:{full_backlog}", timeout_s=TIMEOUT_S)
    failure, said = no_answer(await sender.send(post(parse_target("https://customer.test/"))))
    doing = f"waiting for {GO2} to connect" if kind == "aiohttp" else f"connecting to {GO2}"  # aiohttp does not tell
    assert (failure, said) == (Failure.PROXY_ERROR, f"Timed out after 0.6 s while {doing}.")


async def test_an_attempt_that_is_cancelled_leaves_no_connection_to_the_proxy(receive: Any, through: Any) -> None:
    proxy = await receive(answering_connect(b""))
    attempt = asyncio.create_task(through(proxy).send(post(parse_target("https://customer.test/"))))
    await proxy.until(lambda: proxy.open == 1)
    attempt.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await attempt
    await proxy.until(lambda: proxy.open == 0)


# --- behind the tunnel all is as it is without


async def test_a_receivers_certificate_is_verified_through_the_tunnel(
    receive: Any, through: Any, spoken: str, proxy_context: Any, server_tls: ssl.SSLContext, kind: str
) -> None:
    if kind == "aiohttp" and spoken == "https" and type(asyncio.get_running_loop()).__module__.startswith("asyncio"):
        pytest.skip("asyncio of Python 3.11 cannot report it (TypeError in SSLProtocol._abort)")
    receiver = await receive(OK, context=server_tls)
    proxy = await receive(Tunnels(), context=proxy_context)
    said = no_answer(await through(proxy).send(post(receiver.target("customer.test"))))
    assert said == (Failure.TLS_ERROR, "The TLS certificate is for another host name.")


async def test_a_receiver_that_is_slow_behind_a_tunnel_is_the_receivers_failure(
    receive: Any, through: Any, proxy_context: Any, customer_tls: ssl.SSLContext
) -> None:
    async def script(line: Line) -> None:
        await line.request()
        await line.until_closed()

    receiver = await receive(script, context=customer_tls)
    proxy = await receive(Tunnels(), context=proxy_context)
    sender = through(proxy, timeout_s=1.0)
    said = no_answer(await sender.send(post(receiver.target("customer.test"))))
    assert said == (Failure.TIMEOUT, "Timed out after 1 s while waiting for a response.")
    await receiver.until(lambda: receiver.open == 0)


async def test_many_at_once_share_few_tunnels(
    receive: Any, through: Any, proxy_context: Any, customer_tls: ssl.SSLContext, kind: str
) -> None:
    if kind == "aiohttp":
        pytest.skip("aiohttp opens one for each")
    receiver = await receive(OK, context=customer_tls)
    proxy = await receive(Tunnels(), context=proxy_context)
    sender = through(proxy)
    responses = await asyncio.gather(*(sender.send(post(receiver.target("customer.test"))) for _ in range(200)))
    assert all(isinstance(response, Answer) for response in responses)
    assert len(proxy.lines) <= 64
