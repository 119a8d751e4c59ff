"""The code of docs/verify.md, read from the page, run in each language, and asked by the real sender about real deliveries."""

import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import guide
import pytest

from go2hooks.core.domain.delivery import Delivery, delivery_id
from go2hooks.core.domain.event import Event, EventType
from go2hooks.core.domain.outcome import Answer
from go2hooks.core.domain.samples import example_payload
from go2hooks.core.encoding.payload import render
from go2hooks.core.security.request import SignedRequest, prepare
from go2hooks.core.security.signing import generate_secret
from go2hooks.settings import Settings
from services.dispatcher.http import Sender, build_sender

SECRET = generate_secret(bytes(range(32)))
OTHER = generate_secret(bytes(reversed(range(32))))
TOLERANCE_MS = 300_000
SIGNED_BY = ("x_webhook_signature", "webhook_id", "webhook_timestamp", "webhook_signature")

DATA: dict[str, dict[str, Any]] = {
    **{kind.value: example_payload(kind).data for kind in EventType},
    "unicode": {
        "city": "München 東京 São Paulo",
        "emoji": "👩‍👩‍👧 🎉",
        "combining": "é",
        "пример": "\u2028\u2029\ufeff\u200f",
    },
    "escapes": {"all": '"\\/\b\f\n\r\t\x00\x1f\x7f</script>', "lone surrogates": "\ud800 \udfff", "\n": "\\u00e9"},
    "integer-like keys": {"10": 1, "b": 2, "9": 3, "01": 4, "-1": 5, "4294967294": 6, "4294967295": 7, "1.5": 8},
    "keys of JavaScript's own": {"__proto__": {"x": 1}, "constructor": {}, "toString": None, "": ""},
    "floats": {"some": [0.1, 1.0, -0.0, 1e21, 1e-7, 123456.789e-10, 5e-324, 1.7976931348623157e308]},
    "large numbers": {"some": [2**53, 2**53 + 1, -(2**63), 10**20, 10**21, 10**30]},
    "nothing": {"object": {}, "array": [], "nested": {"a": [{}, [], [[]], None, True, False, ""]}},
    "no data": {},
    "the longest": {"text": "é" * 490_000},
}


LANGUAGES: dict[str, Callable[..., list[str]]] = {
    "Python": guide.python,
    "Node": guide.node,
    "Go": guide.go,
    "Java": guide.java,
    "PHP": guide.php,
    "Ruby": guide.ruby,
    "C#": guide.csharp,
}
WITH_LIBRARY = ("Python", "Node", "Go")


def signed(data: dict[str, Any], port: int, *secrets: str, age_ms: int = 0) -> SignedRequest:
    """A delivery of an event with this data, as a dispatcher prepares it."""
    event = Event("evt_1", "acc_1", "click", 1_704_110_400_000, data)
    rendered = render(event)
    delivery = Delivery(
        id=delivery_id(event.id, "wh_1"),
        webhook_id="wh_1",
        account_id=event.account_id,
        event_id=event.id,
        event=event.type,
        timestamp=rendered.timestamp,
        body=rendered.body,
        attempt=1,
        due_ms=0,
        kind="event",
        origin_ms=event.timestamp_ms,
        suspect=False,
    )
    url = f"http://127.0.0.1:{port}/hook"
    return prepare(delivery, url, secrets or (SECRET,), time.time_ns() // 1_000_000 - age_ms)


def changed(request: SignedRequest, **headers: str | None) -> SignedRequest:
    """The same with other values in some headers, without those that are None."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    kept = {name: given.get(name.lower(), value) for name, value in request.headers}
    return request._replace(headers=tuple((name, value) for name, value in kept.items() if value is not None))


@pytest.fixture
async def sender() -> AsyncIterator[Sender]:
    sender = build_sender(Settings(allow_insecure_targets=True))
    yield sender
    await sender.close()


@pytest.fixture(scope="module", params=LANGUAGES)
def language(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where receivers are made: each language has a directory there."""
    return tmp_path_factory.mktemp("receivers")


@pytest.fixture(scope="module")
def port(language: str, workshop: Path) -> Iterator[int]:
    """Where a receiver of this language listens."""
    directory = workshop / language
    with guide.running(LANGUAGES[language](directory), directory, SECRET) as port:
        yield port


Ask = Callable[[SignedRequest], Any]


@pytest.fixture
def ask(sender: Sender) -> Ask:
    """Send it; what the receiver answered: whether Go2's signature is right, and the Standard one, and what the library says."""

    async def ask(request: SignedRequest) -> list[bool]:
        answer = await sender.send(request)
        assert isinstance(answer, Answer), answer
        assert answer.status == 200, answer.excerpt
        return [verdict == "true" for verdict in answer.excerpt.decode().split()]

    return ask


async def test_what_we_send_is_verified(port: int, ask: Ask):
    for name, data in DATA.items():
        assert (await ask(signed(data, port)))[:2] == [True, True], name


async def test_what_is_forged_or_recorded_is_refused(port: int, ask: Ask):
    ours = signed(DATA["click"], port)
    refused = {
        "forged body": (ours._replace(body=ours.body.replace(b"DE", b"AT")), [False, False]),
        "longer body": (ours._replace(body=ours.body + b" "), [False, False]),
        "wrong secret": (signed(DATA["click"], port, OTHER), [False, False]),
        "old": (signed(DATA["click"], port, age_ms=TOLERANCE_MS + 1000), [True, False]),
        "from the future": (signed(DATA["click"], port, age_ms=-TOLERANCE_MS - 60_000), [True, False]),
        "another id": (changed(ours, webhook_id="dlv_2"), [True, False]),
        "another time": (changed(ours, webhook_timestamp=str(time.time_ns() // 10**9 - 1)), [True, False]),
        "no signatures": (changed(ours, **dict.fromkeys(SIGNED_BY)), [False, False]),
    }
    for name, (request, verdicts) in refused.items():
        assert (await ask(request))[:2] == verdicts, name


async def test_either_secret_verifies_during_a_rotation(port: int, ask: Ask):
    assert (await ask(signed(DATA["click"], port, OTHER, SECRET)))[:2] == [False, True]
    assert (await ask(signed(DATA["click"], port, SECRET, OTHER)))[:2] == [True, True]


async def test_a_header_of_any_form_is_refused_without_an_error(port: int, ask: Ask):
    ours = signed(DATA["click"], port)
    for value in ("", "9" * 400, "-9223372036854775808", "1e9", "NaN", "v1", "v1,", "v1,=", "v1,é v1,", "sha256=", "é"):
        for name in SIGNED_BY:
            verdicts = await ask(changed(ours, **{name: value}))
            assert verdicts[:2] == ([False, True] if name.startswith("x") else [True, False]), (name, value)


@pytest.mark.parametrize("language", WITH_LIBRARY, indirect=True, scope="module")
async def test_the_official_library_verifies_us(port: int, ask: Ask):
    if len(await ask(signed(DATA["click"], port))) == 2:
        pytest.skip("the library is not here and cannot be fetched")
    for name, data in DATA.items():
        assert await ask(signed(data, port)) == [True, True, True], name
    assert await ask(signed(DATA["click"], port, OTHER, SECRET)) == [False, True, True]
    assert await ask(signed(DATA["click"], port, OTHER)) == [False, False, False]
    assert await ask(signed(DATA["click"], port, age_ms=TOLERANCE_MS + 1000)) == [True, False, False]
    forged = signed(DATA["click"], port)
    assert await ask(forged._replace(body=forged.body + b" ")) == [False, False, False]


@pytest.mark.parametrize("program", ["receiver.mjs", "reserialising.mjs"])
async def test_express_verifies_us(program, workshop, sender):
    """Raw, and as Go2's API page does it: the body parsed and written again."""
    directory = workshop / "Node"
    with guide.running(guide.express(program, directory), directory, SECRET) as port:
        for name, data in DATA.items():
            assert (await sender.send(signed(data, port))).status == 204, name
        forged = signed(DATA["click"], port)
        for request in (signed(DATA["click"], port, OTHER), forged._replace(body=forged.body.replace(b"DE", b"AT"))):
            assert (await sender.send(request)).status == 401
