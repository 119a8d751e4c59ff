"""The resolver: literals are no names, names are asked for once, failures are forgotten soon."""

import asyncio
from collections.abc import Sequence

import pytest

from services.dispatcher.http.failures import DnsError
from services.dispatcher.http.resolver import Resolver, numeric


class Zone:
    """A lookup whose answers a test sets; counts the questions."""

    def __init__(self, addresses: Sequence[str] = ("192.0.2.1",)) -> None:
        self.addresses: Sequence[str] | None = addresses
        self.questions = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, host: str) -> Sequence[str]:
        self.questions += 1
        await self.gate.wait()
        if self.addresses is None:
            raise DnsError(temporary=True)
        return self.addresses


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("spelling", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0x7f.1", "127.0.0.1"),
        ("017700000001", "127.0.0.1"),
        ("::1", "::1"),
        ("::ffff:1.2.3.4", "::ffff:1.2.3.4"),
    ],
)
def test_an_ip_literal_is_no_name(spelling: str, address: str) -> None:
    info = numeric(spelling, 443)
    assert info is not None
    assert info[4][:2] == (address, 443)


@pytest.mark.parametrize("name", ["example.com", "localhost", "1.2.3.4.5", "x" * 300, "a\0b", "é.example"])
def test_a_name_is_no_ip_literal(name: str) -> None:
    assert numeric(name, 443) is None


async def test_an_answer_is_remembered_for_its_time_and_no_longer() -> None:
    zone, clock = Zone(), Clock()
    resolver = Resolver(zone, ttl_s=10, clock=clock)
    for _ in range(3):
        await resolver.resolve("a.example", 80)
    assert zone.questions == 1
    clock.now = 10.0
    zone.addresses = ["192.0.2.9"]
    assert (await resolver.resolve("a.example", 81))[0][4] == ("192.0.2.9", 81)
    assert zone.questions == 2


async def test_a_failure_is_remembered_for_less_long() -> None:
    zone, clock = Zone(), Clock()
    zone.addresses = None
    resolver = Resolver(zone, ttl_s=10, failure_ttl_s=1, clock=clock)
    for _ in range(3):
        with pytest.raises(DnsError):
            await resolver.resolve("a.example", 80)
    assert zone.questions == 1
    clock.now, zone.addresses = 1.0, ["192.0.2.1"]
    assert await resolver.resolve("a.example", 80)


async def test_who_waits_together_asks_once_and_one_who_leaves_takes_nobody_along() -> None:
    zone = Zone()
    zone.gate.clear()
    resolver = Resolver(zone)
    waiting = [asyncio.create_task(resolver.resolve("a.example", 80)) for _ in range(5)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    zone.gate.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert all(isinstance(result, list) for result in results[1:])
    assert zone.questions == 1


async def test_memory_is_bounded_by_the_number_of_names() -> None:
    resolver = Resolver(Zone(), max_entries=10)
    for number in range(50):
        await resolver.resolve(f"{number}.example", 80)
    assert len(resolver._entries) == 10


async def test_of_many_addresses_a_few_of_each_family_are_tried() -> None:
    """A name server may say thousands, and each would be connected to."""
    v4 = [f"192.0.2.{number}" for number in range(200)]
    v6 = [f"2001:db8::{number:x}" for number in range(1, 200)]
    infos = await Resolver(Zone([*v6, *v4, *v6])).resolve("a.example", 80)
    assert [info[4][0] for info in infos] == [*v6[:4], *v4[:4]]


async def test_addresses_that_are_none_are_no_answer() -> None:
    with pytest.raises(DnsError):
        await Resolver(Zone(["localhost"])).resolve("a.example", 80)


async def test_close_cancels_what_is_under_way() -> None:
    zone = Zone()
    zone.gate.clear()
    resolver = Resolver(zone)
    waiting = asyncio.create_task(resolver.resolve("a.example", 80))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await resolver.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
