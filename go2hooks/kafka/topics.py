"""Every topic and tier, in one list.

Retention of a retry tier must exceed its delay plus the longest outage of the dispatchers that it has to survive:
a message that Kafka deletes before it is due is lost.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from go2hooks.core.domain.event import EventType

DAY_MS: Final = 86_400_000
MAX_EVENT_MESSAGE_BYTES: Final = 1_048_588  # Kafka's default: whatever a producer at its own defaults sends finds room
MAX_INTERNAL_MESSAGE_BYTES: Final = 2_097_152

_EVENTS: Final[dict[str, str]] = {
    EventType.CLICK: "click",
    EventType.LINK_CREATED: "link",
    EventType.LINK_UPDATED: "link",
    EventType.LINK_DELETED: "link",
    EventType.DOMAIN_VERIFIED: "domain",
    EventType.QR_SCANNED: "qr",
    EventType.WEBHOOK_DISABLED: "webhook",
    EventType.WEBHOOK_FAILING: "webhook",
}


class TopicNames:
    """The names of one deployment's topics, which all begin with its prefix (`GO2HOOKS_KAFKA_PREFIX`)."""

    def __init__(self, prefix: str) -> None:
        self.of_event: Final = {kind: f"{prefix}.events.{name}" for kind, name in _EVENTS.items()}
        self.events: Final = tuple(dict.fromkeys(self.of_event.values()))
        self.events_dead: Final = f"{prefix}.events.dead"
        self.deployment: Final = f"{prefix}.deployment"
        self.deliveries: Final = f"{prefix}.deliveries"
        self.overflow: Final = f"{self.deliveries}.overflow"
        self.deliveries_dead: Final = f"{self.deliveries}.dead"

    def retry(self, delay_s: float) -> str:
        """`<prefix>.deliveries.retry.<tier>`."""
        return f"{self.deliveries}.retry.{delay_label(delay_s)}"

    def tiers(self, delays_s: Iterable[float]) -> list[str]:
        """The retry topics; two tiers of the same delay share one."""
        return [self.retry(delay_s) for delay_s in dict.fromkeys(delays_s)]


# Set whatever the brokers' defaults are. Only time deletes: compaction would keep one delivery per webhook, and a limit
# in bytes would delete messages that still wait. And no replica that lags becomes leader.
_KEEP: Final = {"cleanup.policy": "delete", "retention.bytes": "-1", "unclean.leader.election.enable": "false"}


def is_enough(name: str, actual: str | None, wanted: str) -> bool:
    """Whether a config has the wanted value or a safer one: a longer retention is fine, -1 keeps for ever."""
    if actual is not None and name in _AT_LEAST:
        return actual == "-1" or int(actual) >= int(wanted)
    return actual == wanted


_AT_LEAST: Final = frozenset(("retention.ms", "max.message.bytes", "min.insync.replicas"))


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as `go2hooks topics` creates and reconciles it."""

    name: str
    partitions: int
    config: dict[str, str]


def delay_label(delay_s: float) -> str:
    """`5s`, `30s`, `2m`, `10m`, `1h`; fractions in milliseconds (`250ms`)."""
    millis = round(delay_s * 1000)
    for unit_ms, suffix in ((3_600_000, "h"), (60_000, "m"), (1000, "s")):
        if millis % unit_ms == 0:
            return f"{millis // unit_ms}{suffix}"
    return f"{millis}ms"


def all_topics(names: TopicNames, delays_s: tuple[float, ...], partitions: int, retention_days: int) -> list[Topic]:
    """Every topic of the system."""
    kept = str(retention_days * DAY_MS)
    # Append time is the broker's clock: a producer with a wrong clock can neither misdate the records nor expire the
    # log.
    events = {
        **_KEEP,
        "retention.ms": kept,
        "message.timestamp.type": "LogAppendTime",
        "max.message.bytes": str(MAX_EVENT_MESSAGE_BYTES),
    }
    # A delivery is its payload (a megabyte at most) and some ids; a dead event is the event and some headers.
    internal = {**_KEEP, "retention.ms": kept, "max.message.bytes": str(MAX_INTERNAL_MESSAGE_BYTES)}
    return [
        *(Topic(name, partitions, events) for name in names.events),
        Topic(names.deployment, 1, {**_KEEP, "cleanup.policy": "compact", "retention.ms": "-1"}),
        Topic(names.events_dead, 1, internal),
        Topic(names.deliveries, partitions, internal),
        *(Topic(name, partitions, internal) for name in names.tiers(delays_s)),
        Topic(names.overflow, partitions, internal),
        Topic(names.deliveries_dead, 1, internal),
    ]
