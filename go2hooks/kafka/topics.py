"""Every topic and tier, in one list.

Retention of a retry tier must exceed its delay plus the longest outage of the dispatchers that it has to survive:
a message that Kafka deletes before it is due is lost.
"""

from dataclasses import dataclass
from typing import Final

from go2hooks.core.event import EventType

DAY_MS: Final = 86_400_000
MAX_EVENT_MESSAGE_BYTES: Final = 1_048_588  # Kafka's default: whatever a producer at its own defaults sends finds room
MAX_INTERNAL_MESSAGE_BYTES: Final = 2_097_152

EVENTS_CLICK: Final = "go2.events.click"
EVENTS_LINK: Final = "go2.events.link"
EVENTS_DOMAIN: Final = "go2.events.domain"
EVENTS_QR: Final = "go2.events.qr"
EVENTS_DEAD: Final = "go2.events.dead"
DELIVERIES: Final = "go2.deliveries"
DELIVERIES_OVERFLOW: Final = "go2.deliveries.overflow"
DELIVERIES_DEAD: Final = "go2.deliveries.dead"

EVENT_TOPICS: Final = (EVENTS_CLICK, EVENTS_LINK, EVENTS_DOMAIN, EVENTS_QR)

TOPIC_OF_EVENT: Final[dict[str, str]] = {
    EventType.CLICK: EVENTS_CLICK,
    EventType.LINK_CREATED: EVENTS_LINK,
    EventType.LINK_UPDATED: EVENTS_LINK,
    EventType.LINK_DELETED: EVENTS_LINK,
    EventType.DOMAIN_VERIFIED: EVENTS_DOMAIN,
    EventType.QR_SCANNED: EVENTS_QR,
}


# Whatever the brokers' defaults are: time alone deletes (compaction would keep one delivery per webhook, a limit in bytes
# would take what still waits), and no replica that lags becomes leader.
_KEEP: Final = {"cleanup.policy": "delete", "retention.bytes": "-1", "unclean.leader.election.enable": "false"}


def is_enough(name: str, actual: str | None, wanted: str) -> bool:
    """Whether a topic's config does what is wanted of it, or more: a longer retention is fine, -1 keeps for ever."""
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


def retry_topic(delay_s: float) -> str:
    """`go2.deliveries.retry.<tier>`."""
    return f"{DELIVERIES}.retry.{delay_label(delay_s)}"


def all_topics(delays_s: tuple[float, ...], partitions: int, retention_days: int) -> list[Topic]:
    """Every topic of the system. Two tiers of the same delay share one topic."""
    kept = str(retention_days * DAY_MS)
    # Append time is the broker's clock: a producer with a wrong clock can neither misdate the records nor expire the log.
    events = {
        **_KEEP,
        "retention.ms": kept,
        "message.timestamp.type": "LogAppendTime",
        "max.message.bytes": str(MAX_EVENT_MESSAGE_BYTES),
    }
    # A delivery is its payload (a megabyte at most) and some ids; a dead event is the event and some headers.
    internal = {**_KEEP, "retention.ms": kept, "max.message.bytes": str(MAX_INTERNAL_MESSAGE_BYTES)}
    names = [retry_topic(delay) for delay in dict.fromkeys(delays_s)]
    return [
        *(Topic(name, partitions, events) for name in EVENT_TOPICS),
        Topic(EVENTS_DEAD, 1, internal),
        Topic(DELIVERIES, partitions, internal),
        *(Topic(name, partitions, internal) for name in names),
        Topic(DELIVERIES_OVERFLOW, partitions, internal),
        Topic(DELIVERIES_DEAD, 1, internal),
    ]
