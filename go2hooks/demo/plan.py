"""The demo's events and webhooks. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from itertools import cycle, islice
from typing import Final

from go2hooks.core.domain.event import PRODUCED, WILDCARD, EventType


class Behaviour(Enum):
    """How a webhook's receiver answers."""

    RELIABLE = auto()  #: 200
    FALTERING = auto()  #: 503 to the first two attempts of some deliveries, then 200
    BROKEN = auto()  #: 500, whatever comes


@dataclass(frozen=True, slots=True)
class Subscription:
    """One webhook of the demo. `slug` is its receiver's path."""

    slug: str
    name: str
    events: tuple[str, ...]
    behaviour: Behaviour

    def wants(self, event: str) -> bool:
        return event in self.events or WILDCARD in self.events


SUBSCRIPTIONS: Final = (
    Subscription("clicks", "Clicks", (EventType.CLICK,), Behaviour.RELIABLE),
    Subscription("everything", "Everything", (WILDCARD,), Behaviour.RELIABLE),
    Subscription(
        "faltering",
        "Fails twice, recovers",
        (EventType.LINK_CREATED, EventType.LINK_UPDATED, EventType.LINK_DELETED),
        Behaviour.FALTERING,
    ),
    Subscription("broken", "Always fails", (EventType.QR_SCANNED,), Behaviour.BROKEN),
)
FALTERS: Final = 2  #: failed attempts per delivery of the faltering receiver
# Half of the events are clicks, as in production; the other types alternate. Events about webhooks come from dispatchers.
_OTHERS: Final = [kind for kind in PRODUCED if kind is not EventType.CLICK]
_MIX: Final = tuple(kind for other in _OTHERS for kind in (EventType.CLICK, other))
_FALTERS_EVERY: Final = 15 * len(_MIX)  # events: successes come in between, so that the circuit stays closed


def event_types(count: int) -> Iterator[EventType]:
    """The types of `count` events: all types that producers write."""
    return islice(cycle(_MIX), count)


def failures_due(subscription: Subscription, number: int, count: int) -> int | None:
    """How many attempts at event `number` of `count` fail; None: all of them.

    The faltering receiver has recovered by the half, so that its last retries end before the demo.
    """
    match subscription.behaviour:
        case Behaviour.BROKEN:
            return None
        case Behaviour.FALTERING if number < count // 2 and _comes_first(number):
            return FALTERS
        case _:
            return 0


def _comes_first(number: int) -> bool:
    """Whether this is the first link.created of its group of events."""
    return number % _FALTERS_EVERY == _MIX.index(EventType.LINK_CREATED)
