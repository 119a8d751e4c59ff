"""Realistic sample events for `emit`, test events, the documentation and the demo."""

from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeVar

from go2hooks.core.domain.event import Event, EventType

_T = TypeVar("_T")


class RandomSource(Protocol):
    """The part of `random.Random` that is used. The caller owns the source, so a seed always gives the same samples."""

    def choice(self, seq: Sequence[_T], /) -> _T: ...
    def getrandbits(self, k: int, /) -> int: ...


EXAMPLE_EVENT_ID: Final = "evt_018cc251f400b1f2c3d4e5f60718"
EXAMPLE_ACCOUNT_ID: Final = "acc_demo"
EXAMPLE_TIMESTAMP_MS: Final = 1_704_110_400_000  # 2024-01-01T12:00:00Z, as on the API page

_DOMAINS: Final = ("go2.example", "links.acme.example", "kurz.example", "短縮.example")
_SLUGS: Final = ("launch", "summer-sale", "docs", "été", "пример", "新商品", "q4", "hello_world", "🎉", "a\\b")
_DESTINATIONS: Final = (
    "https://example.com/landing?utm_source=newsletter&utm_medium=email",
    "https://shop.example.com/products/42#reviews",
    "https://example.org/überraschung",
    'https://example.net/search?q="quoted"&lang=ja',
)
_PLACES: Final = (
    ("DE", "München"),
    ("JP", "東京"),
    ("BR", "São Paulo"),
    ("US", "New York"),
    ("IN", None),
    (None, None),
)
_CLIENTS: Final = (
    ("mobile", "Safari", "iOS"),
    ("mobile", "Chrome", "Android"),
    ("desktop", "Firefox", "Linux"),
    ("desktop", "Edge", "Windows"),
    ("tablet", "Safari", "iPadOS"),
    (None, None, None),
)
_REFERRERS: Final = ("https://news.example.com/", "https://search.example/?q=go2", None)
_NAMES: Final = ("Click Tracker", "Größe", "データ")
_USERS: Final = ("usr_7Qm2", "usr_ana", "usr_zoë")
_CHANGES: Final = (["destinationUrl"], ["slug"], ["slug", "destinationUrl"], ["domain", "slug"])
_METHODS: Final = ("dns_txt", "dns_cname", "http")

_EXAMPLE_LINK: Final = {
    "id": "lnk_abc123",
    "slug": "launch",
    "domain": "go2.example",
    "destinationUrl": "https://example.com/landing",
    "shortUrl": "https://go2.example/launch",
}
_EXAMPLE_CLICK: Final = {
    "linkId": "lnk_abc123",
    "slug": "launch",
    "domain": "go2.example",
    "destinationUrl": "https://example.com/landing",
    "country": "DE",
    "city": "München",
    "device": "mobile",
    "browser": "Safari",
    "os": "iOS",
    "referrer": None,
}
_EXAMPLE_WEBHOOK: Final = {
    "webhookId": "wh_abc123",
    "name": "Click Tracker",
    "url": "https://your-server.com/webhooks/go2",
}
_EXAMPLE_ERROR: Final = {"lastError": "The receiver answered 500.", "since": "2024-01-01T11:58:00Z"}
_EXAMPLES: Final[dict[str, dict[str, Any]]] = {
    EventType.CLICK: _EXAMPLE_CLICK,
    EventType.LINK_CREATED: {**_EXAMPLE_LINK, "createdBy": "usr_7Qm2"},
    EventType.LINK_UPDATED: {**_EXAMPLE_LINK, "updatedBy": "usr_7Qm2", "changes": ["destinationUrl"]},
    EventType.LINK_DELETED: {**_EXAMPLE_LINK, "deletedBy": "usr_7Qm2"},
    EventType.DOMAIN_VERIFIED: {
        "id": "dom_abc123",
        "domain": "links.acme.example",
        "verifiedBy": "usr_7Qm2",
        "method": "dns_txt",
    },
    EventType.QR_SCANNED: {"qrId": "qr_abc123", **_EXAMPLE_CLICK},
    EventType.WEBHOOK_DISABLED: {
        **_EXAMPLE_WEBHOOK,
        "reason": "10 consecutive failed attempts",
        "consecutiveFailures": 10,
        **_EXAMPLE_ERROR,
    },
    EventType.WEBHOOK_FAILING: {
        **_EXAMPLE_WEBHOOK,
        "reason": "5 consecutive failed attempts",
        "consecutiveFailures": 5,
        **_EXAMPLE_ERROR,
    },
}


def example_payload(event_type: str) -> Event:
    """The event of this type that the documentation shows. Raises KeyError for an unknown type."""
    data = {name: list(value) if isinstance(value, list) else value for name, value in _EXAMPLES[event_type].items()}
    return Event(EXAMPLE_EVENT_ID, EXAMPLE_ACCOUNT_ID, str(event_type), EXAMPLE_TIMESTAMP_MS, data)


def sample_data(event_type: str, random: RandomSource) -> dict[str, Any]:
    """The `data` of an invented event, in the order of the schema. Raises ValueError for an unknown type."""
    made = _MADE_UP.get(event_type)
    if made is None:
        raise ValueError(f"unknown event type {event_type!r}")
    return made(random)


def _click(random: RandomSource) -> dict[str, Any]:
    country, city = random.choice(_PLACES)
    device, browser, os = random.choice(_CLIENTS)
    return {
        "linkId": _id("lnk", random),
        "slug": random.choice(_SLUGS),
        "domain": random.choice(_DOMAINS),
        "destinationUrl": random.choice(_DESTINATIONS),
        "country": country,
        "city": city,
        "device": device,
        "browser": browser,
        "os": os,
        "referrer": random.choice(_REFERRERS),
    }


def _link(random: RandomSource) -> dict[str, Any]:
    slug, domain = random.choice(_SLUGS), random.choice(_DOMAINS)
    return {
        "id": _id("lnk", random),
        "slug": slug,
        "domain": domain,
        "destinationUrl": random.choice(_DESTINATIONS),
        "shortUrl": f"https://{domain}/{slug}",
    }


def _webhook(random: RandomSource, failures: int) -> dict[str, Any]:
    return {
        "webhookId": _id("wh", random),
        "name": random.choice(_NAMES),
        "url": random.choice(_DESTINATIONS),
        "reason": f"{failures} consecutive failed attempts",
        "consecutiveFailures": failures,
        **_EXAMPLE_ERROR,
    }


def _id(prefix: str, random: RandomSource) -> str:
    return f"{prefix}_{random.getrandbits(64):016x}"


_MADE_UP: Final[dict[str, Callable[[RandomSource], dict[str, Any]]]] = {
    EventType.CLICK: _click,
    EventType.LINK_CREATED: lambda random: {**_link(random), "createdBy": random.choice(_USERS)},
    EventType.LINK_UPDATED: lambda random: {
        **_link(random),
        "updatedBy": random.choice(_USERS),
        "changes": list(random.choice(_CHANGES)),
    },
    EventType.LINK_DELETED: lambda random: {**_link(random), "deletedBy": random.choice(_USERS)},
    EventType.DOMAIN_VERIFIED: lambda random: {
        "id": _id("dom", random),
        "domain": random.choice(_DOMAINS),
        "verifiedBy": random.choice(_USERS),
        "method": random.choice(_METHODS),
    },
    EventType.QR_SCANNED: lambda random: {"qrId": _id("qr", random), **_click(random)},
    EventType.WEBHOOK_DISABLED: lambda random: _webhook(random, failures=10),
    EventType.WEBHOOK_FAILING: lambda random: _webhook(random, failures=5),
}
