"""No byte goes to an address that the policy forbids, whatever a URL or a name server says."""

import asyncio
import ipaddress
import itertools
import socket
from typing import Any

import pytest
from name_server import A, NameServer
from scripted import AT_ONCE, OK, Line, post

from go2hooks.core.domain.outcome import Answer, Failure, NoAnswer
from go2hooks.core.security.addresses import AddressPolicy
from go2hooks.core.security.target import Target
from go2hooks.settings import Settings
from services.dispatcher.http import build_sender
from services.dispatcher.http.guard import BlockedAddressError, Guard
from services.dispatcher.http.resolver import numeric

LOOPBACK_ONLY = AddressPolicy(allow=(ipaddress.ip_network("127.0.0.1/32"),))
PUBLIC_ONLY = AddressPolicy()
BLOCKED = "The address of this URL is not allowed."

LITERALS = [
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0177.0.0.1",
    "0x7f.0.0.1",
    "0.0.0.0",
    "10.0.0.1",
    "169.254.169.254",
    "192.168.1.1",
    "::1",
    "::",
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::1",
    "fe80::1",
    "fd00:ec2::254",
    "ff02::1",
    "255.255.255.255",
]


def raw_target(host: str, port: int) -> Target:
    """A target that nobody has normalised: the guard relies on nothing."""
    return Target("http", host, port, "/", f"[{host}]:{port}" if ":" in host else f"{host}:{port}")


@pytest.mark.parametrize("host", LITERALS)
async def test_an_ip_literal_is_judged_however_it_is_spelt(
    receive: Any, make_sender: Any, kind: str, host: str
) -> None:
    if kind == "aiohttp" and not _is_usual(host):
        pytest.skip("aiohttp refuses unusual spellings by itself")
    receiver = await receive(OK)
    response = await make_sender(policy=PUBLIC_ONLY).send(post(raw_target(host, receiver.port)))
    assert isinstance(response, NoAnswer)
    assert (response.failure, response.message) == (Failure.BLOCKED_ADDRESS, BLOCKED)
    assert not receiver.lines


def _is_usual(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def test_a_name_with_mixed_answers_is_reached_by_its_permitted_ones_alone(receive: Any, make_sender: Any) -> None:
    sender = make_sender(
        policy=LOOPBACK_ONLY, names={"mixed.test": ["10.0.0.1", "::1", "127.0.0.1", "169.254.169.254"]}
    )
    receiver = await receive(OK)
    assert isinstance(await sender.send(post(receiver.target("mixed.test"))), Answer)


async def test_a_name_with_only_forbidden_answers_is_blocked(receive: Any, make_sender: Any) -> None:
    sender = make_sender(policy=PUBLIC_ONLY, names={"inside.test": ["127.0.0.1", "10.0.0.1", "::1"]})
    receiver = await receive(OK)
    response = await sender.send(post(receiver.target("inside.test")))
    assert isinstance(response, NoAnswer)
    assert (response.failure, response.message) == (Failure.BLOCKED_ADDRESS, BLOCKED)
    assert not receiver.lines


async def test_a_redirect_leads_nowhere(receive: Any, make_sender: Any) -> None:
    inside = await receive(OK)
    location = f"http://127.0.0.1:{inside.port}/latest/meta-data/".encode()
    outside = await receive(b"HTTP/1.1 307 Elsewhere\r\nLocation: " + location + b"\r\nContent-Length: 0\r\n\r\n")
    response = await make_sender().send(post(outside.target()))
    assert isinstance(response, Answer)
    assert response.status == 307
    assert not inside.lines


@pytest.mark.parametrize("status", [b"301 Moved", b"302 Found", b"307 Elsewhere", b"308 Moved"])
async def test_a_redirect_to_a_metadata_service_is_an_answer_and_no_more(
    receive: Any, make_sender: Any, status: bytes
) -> None:
    location = b"http://169.254.169.254/latest/meta-data/iam/security-credentials/"
    receiver = await receive(b"HTTP/1.1 " + status + b"\r\nLocation: " + location + b"\r\nContent-Length: 0\r\n\r\n")
    response = await make_sender().send(post(receiver.target()))
    assert isinstance(response, Answer)
    assert response.status == int(status[:3])
    assert len(receiver.lines) == 1


async def test_a_denied_network_is_blocked_though_insecure_targets_are_allowed(receive: Any, make_sender: Any) -> None:
    policy = AddressPolicy(deny=(ipaddress.ip_network("127.0.0.0/8"),), allow_insecure=True)
    receiver = await receive(OK)
    response = await make_sender(policy=policy).send(post(receiver.target()))
    assert isinstance(response, NoAnswer)
    assert (response.failure, response.message) == (Failure.BLOCKED_ADDRESS, BLOCKED)
    assert not receiver.lines


async def test_a_port_that_was_denied_since_the_url_was_accepted_is_blocked(receive: Any, make_sender: Any) -> None:
    receiver = await receive(OK)
    response = await make_sender(deny_ports=(receiver.port,)).send(post(receiver.target()))
    assert isinstance(response, NoAnswer)
    assert (response.failure, response.message) == (Failure.BLOCKED_ADDRESS, BLOCKED)
    assert not receiver.lines
    assert isinstance(await make_sender(deny_ports=(receiver.port + 1,)).send(post(receiver.target())), Answer)


async def test_the_settings_decide_where_the_real_sender_may_go(receive: Any, kind: str) -> None:
    receiver = await receive(OK)
    target = raw_target("127.0.0.1", receiver.port)
    for variables, blocked in (
        ({}, True),
        ({"target_allow_cidrs": "127.0.0.0/8"}, False),
        ({"target_allow_cidrs": "127.0.0.0/8", "target_deny_cidrs": "127.0.0.1"}, True),
        ({"target_allow_cidrs": "127.0.0.0/8", "target_deny_ports": str(receiver.port)}, True),
    ):
        sender = build_sender(Settings(sender="aiohttp" if kind == "aiohttp" else "protocol", **variables))
        response = await sender.send(post(target))
        await sender.close()
        assert (isinstance(response, NoAnswer) and response.failure == Failure.BLOCKED_ADDRESS) == blocked, variables


async def test_the_environments_proxy_is_not_used(
    receive: Any, make_sender: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, receiver = await receive(OK), await receive(OK)
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.port}")
    assert isinstance(await make_sender().send(post(receiver.target())), Answer)
    assert not proxy.lines


async def test_an_address_that_is_forbidden_between_lookup_and_connect_is_not_connected_to(
    receive: Any, make_sender: Any
) -> None:
    class ChangesItsMind:
        asked = 0

        def permits(self, address: str) -> bool:
            self.asked += 1
            return self.asked == 1

    policy = ChangesItsMind()
    receiver = await receive(OK)
    response = await make_sender(policy=policy).send(post(receiver.target()))
    assert isinstance(response, NoAnswer)
    assert response.failure == Failure.BLOCKED_ADDRESS
    assert policy.asked == 2
    assert not receiver.lines


def test_the_socket_is_refused_for_an_address_that_slipped_past_the_first_look() -> None:
    info = numeric("127.0.0.1", 80)
    assert info is not None
    with pytest.raises(BlockedAddressError):
        Guard(PUBLIC_ONLY).open_socket(info)


def test_what_is_no_numeric_address_is_never_connected_to() -> None:
    info = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("localhost", 80))
    with pytest.raises(BlockedAddressError):
        Guard(AddressPolicy(allow_insecure=True)).open_socket(info)


# --- with a name server of our own


async def test_a_name_that_turns_inward_between_attempts_is_blocked(
    receive: Any, resolving: Any, name_server: NameServer
) -> None:
    sender = resolving(LOOPBACK_ONLY)
    receiver = await receive(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    outcomes = []
    for addresses in (["127.0.0.1"], ["10.0.0.7"], ["127.0.0.1"]):
        name_server.zone = lambda _name, addresses=addresses: addresses
        outcomes.append(await sender.send(post(receiver.target("rebinding.example"))))
    assert isinstance(outcomes[0], Answer)
    assert isinstance(outcomes[1], NoAnswer)
    assert outcomes[1].failure == Failure.BLOCKED_ADDRESS
    assert isinstance(outcomes[2], Answer)


async def test_one_public_and_one_private_answer_use_the_permitted_one(
    receive: Any, resolving: Any, name_server: NameServer
) -> None:
    sender = resolving(LOOPBACK_ONLY)
    receiver = await receive(OK)
    name_server.zone = lambda _name: ["10.0.0.7", "127.0.0.1", "fd00::1"]
    assert isinstance(await sender.send(post(receiver.target("both.example"))), Answer)


async def test_a_chain_of_aliases_to_a_private_address_is_blocked(
    receive: Any, resolving: Any, name_server: NameServer
) -> None:
    sender = resolving(PUBLIC_ONLY)
    receiver = await receive(OK)
    zone: dict[str, list[str] | str] = {
        "hooks.example": "cdn.example",
        "cdn.example": "inside.example",
        "inside.example": ["127.0.0.1"],
    }
    name_server.zone = lambda name: zone.get(name, [])
    response = await sender.send(post(receiver.target("hooks.example")))
    assert isinstance(response, NoAnswer)
    assert response.failure in (Failure.BLOCKED_ADDRESS, Failure.DNS_ERROR)
    assert not receiver.lines


async def test_a_name_that_turns_inward_while_a_request_is_under_way_is_judged_by_what_the_socket_gets(
    receive: Any, resolving: Any, name_server: NameServer
) -> None:
    """The TTL is 0 and the answer alternates with every question: only the permitted address is connected to."""
    sender = resolving(LOOPBACK_ONLY)
    receiver = await receive(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
    asked = itertools.count()
    name_server.zone = lambda _name: (
        ["127.0.0.1"] if next(asked) % 4 < 2 else ["169.254.169.254"]
    )  # A and AAAA each time
    responses = [await sender.send(post(receiver.target("flapping.example"))) for _ in range(8)]
    answered = [response for response in responses if isinstance(response, Answer)]
    blocked = [response.failure for response in responses if isinstance(response, NoAnswer)]
    assert answered
    assert set(blocked) == {Failure.BLOCKED_ADDRESS}
    assert len(receiver.lines) == len(answered)


async def test_an_alias_beside_a_private_address_is_blocked(
    receive: Any, resolving: Any, name_server: NameServer
) -> None:
    """The server gives the alias and its address in one answer, as real ones do."""
    name_server.target_of_alias = "10.0.0.7"
    receiver = await receive(OK)
    name_server.zone = lambda _name: "inside.example"
    response = await resolving(PUBLIC_ONLY).send(post(receiver.target("hooks.example")))
    assert isinstance(response, NoAnswer)
    assert (response.failure, response.message) == (Failure.BLOCKED_ADDRESS, BLOCKED)
    name_server.target_of_alias = "127.0.0.1"
    assert isinstance(await resolving(LOOPBACK_ONLY).send(post(receiver.target("hooks.example"))), Answer)


async def test_a_name_without_addresses_is_a_dns_error(receive: Any, resolving: Any, name_server: NameServer) -> None:
    receiver = await receive(OK)
    response = await resolving(LOOPBACK_ONLY).send(post(receiver.target("empty.example")))
    assert isinstance(response, NoAnswer)
    assert response.failure == Failure.DNS_ERROR
    assert response.message == "The host name does not exist or has no address."


async def test_a_dead_name_server_is_a_dns_error_and_holds_up_nobody_else(
    receive: Any, resolving: Any, name_server: NameServer
) -> None:
    sender = resolving(LOOPBACK_ONLY)

    async def script(line: Line) -> None:
        await line.request()
        await line.send(OK)

    receiver = await receive(script)
    name_server.zone = lambda name: None if name.startswith("dead") else ["127.0.0.1"]
    dead = [asyncio.create_task(sender.send(post(receiver.target(f"dead{n}.example")))) for n in range(100)]
    await asyncio.sleep(0)
    healthy = await sender.send(post(receiver.target("healthy.example")))
    assert isinstance(healthy, Answer)
    for response in await asyncio.gather(*dead):
        assert isinstance(response, NoAnswer)
        assert response.failure == Failure.DNS_ERROR
        assert response.message == "The DNS lookup of the host name failed."


async def test_one_name_is_asked_for_once_however_many_wait(
    receive: Any, resolving: Any, name_server: NameServer
) -> None:
    sender = resolving(LOOPBACK_ONLY)
    receiver = await receive(OK)
    name_server.zone = lambda _name: ["127.0.0.1"]
    responses = await asyncio.gather(*(sender.send(post(receiver.target("busy.example"))) for _ in range(AT_ONCE)))
    assert all(isinstance(response, Answer) for response in responses)
    assert name_server.asked(A) == ["busy.example"]
