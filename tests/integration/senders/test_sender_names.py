"""Host names as customers write them: looked up as absolute names in mapped form; failures are cached briefly."""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
import trustme
from name_server import AAAA, NOWHERE, A, NameServer
from scripted import OK, post, server_context

from go2hooks.core.domain.outcome import Answer, Failure, NoAnswer
from go2hooks.core.security.addresses import AddressPolicy
from services.dispatcher.http.failures import DnsError
from services.dispatcher.http.resolver import AresLookup

ANYWHERE = AddressPolicy(allow_insecure=True)


@pytest.fixture
def search_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a Kubernetes pod's resolv.conf says: `search corp.test`, `options ndots:5`."""
    monkeypatch.setenv("LOCALDOMAIN", "corp.test")
    monkeypatch.setenv("RES_OPTIONS", "ndots:5")


@pytest.fixture
async def look_up(name_server: NameServer) -> AsyncIterator[Callable[[str], Any]]:
    lookup = AresLookup([f"127.0.0.1:{name_server.port}"])
    yield lookup
    await lookup.close()


@pytest.mark.usefixtures("search_list")
@pytest.mark.parametrize("host", ["hooks1.customer.test", "hooks1.customer.test.", "single"])
async def test_a_name_is_asked_as_it_stands_whatever_the_search_list_offers(
    receive: Any, resolving: Any, name_server: NameServer, authority: trustme.CA, host: str
) -> None:
    """Where the operator's domain has a wildcard, a customer's deliveries would go to the operator's own host."""
    shown: list[str] = []
    context = server_context(authority.issue_cert("*.customer.test", "single"))
    context.sni_callback = lambda _socket, name, _context: shown.append(name)
    receiver = await receive(OK, context=context)
    name_server.zone = lambda name: ["10.9.9.9"] if name.endswith(".corp.test") else ["127.0.0.1"]
    target = receiver.target(host)
    name = host.removesuffix(".")
    assert isinstance(await resolving(ANYWHERE).send(post(target)), Answer)
    assert sorted(name_server.questions) == [(name, A), (name, AAAA)]
    assert shown == [name]
    assert target.authority == f"{name}:{receiver.port}"


@pytest.mark.usefixtures("search_list")
async def test_a_name_that_does_not_exist_is_not_looked_for_in_the_search_list(
    receive: Any, resolving: Any, name_server: NameServer
) -> None:
    receiver = await receive(OK)
    name_server.zone = lambda name: ["127.0.0.1"] if name.endswith(".corp.test") else NOWHERE
    response = await resolving(ANYWHERE).send(post(receiver.target("gone.customer.test")))
    assert isinstance(response, NoAnswer)
    assert response.failure == Failure.DNS_ERROR
    assert {name for name, _ in name_server.questions} == {"gone.customer.test"}
    assert not receiver.lines


@pytest.mark.parametrize("before", [[], NOWHERE, ["::1"]], ids=["no address", "no such name", "no IPv4 address"])
async def test_what_a_name_lacked_is_asked_for_again_soon(
    look_up: Any, name_server: NameServer, before: list[str] | str
) -> None:
    """As while its owner changes the address. c-ares by itself would remember it for an hour."""
    name_server.zone = lambda _name: before
    assert "127.0.0.1" not in await addresses(look_up)
    lacking_since = time.monotonic()
    name_server.zone = lambda _name: ["127.0.0.1"]
    while "127.0.0.1" not in await addresses(look_up):
        assert time.monotonic() - lacking_since < 3.0


async def addresses(look_up: Any) -> Sequence[str]:
    try:
        return await look_up("moving.example")
    except DnsError:
        return []


@pytest.mark.parametrize("host", ["my_app.hooks.test", "i❤.hooks.test", "xn--i-7iq.hooks.test"])
async def test_an_unusual_name_is_reached_under_a_wildcard_certificate(
    receive: Any, resolving: Any, name_server: NameServer, authority: trustme.CA, host: str
) -> None:
    receiver = await receive(OK, context=server_context(authority.issue_cert("*.hooks.test")))
    name_server.zone = lambda _name: ["127.0.0.1"]
    sender = resolving(ANYWHERE)
    for _ in range(2):
        response = await sender.send(post(receiver.target(host)))
        assert isinstance(response, Answer), response
    assert name_server.asked(A) == [host.replace("i❤", "xn--i-7iq")]
