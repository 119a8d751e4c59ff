"""What a replay sends again: which deliveries, under which attempt numbers, from which partitions of the log."""

from collections.abc import Container
from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple

from go2hooks.core.domain.delivery import Position
from go2hooks.core.domain.event import WILDCARD
from go2hooks.core.domain.outcome import State


class Selection(StrEnum):
    """Which deliveries of the range."""

    FAILED = "failed"  #: those that have used up their retries
    SKIPPED = "skipped"  #: those that came while the webhook was disabled, or did not want them
    MISSED = "missed"  #: what the webhook would get, and there is no delivery of: events from before it existed
    ALL = "all"  #: both, and what was delivered


class ReplayStatus(StrEnum):
    """How far a replay has come."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"


#: Selections that follow from the records, each of which names its message; the others are looked for in the log.
FROM_RECORDS: Final = (Selection.FAILED, Selection.SKIPPED)
#: States after which nothing more comes by itself.
FINAL: Final = (State.DELIVERED, State.FAILED, State.SKIPPED)


class Planned(NamedTuple):
    """One delivery that is to be sent again."""

    delivery_id: str
    created_ms: int  #: when Kafka accepted the event: dates its records
    attempt: int
    position: Position  #: of a message from which the delivery can be made: an event or a delivery


def next_attempt(selection: str, last_attempt: int, last_state: str | None) -> int | None:
    """The number of a delivery's next attempt, from its last record (0 and None without one); None when it is not selected.

    What is still under way is not: it comes by itself.
    """
    if last_state is None:
        return 1 if selection in (Selection.MISSED, Selection.ALL) else None
    if last_state not in FINAL:
        return None
    return last_attempt + 1 if selection in (Selection.ALL, last_state) else None


def is_wanted(event: str, subscribed: Container[str], asked: Container[str] | None) -> bool:
    """Whether it was asked for (all are by None), and the webhook still subscribes to it."""
    is_asked = asked is None or event in asked or WILDCARD in asked
    return is_asked and (event in subscribed or WILDCARD in subscribed)


@lru_cache(maxsize=8192)
def key_partition(key: bytes, partitions: int) -> int:
    """Where Kafka's Java client, and `murmur2_random` of librdkafka, place a key."""
    return (_murmur2(key) & 0x7FFF_FFFF) % partitions


_M: Final = 0x5BD1_E995
_32_BITS: Final = 0xFFFF_FFFF


def _murmur2(data: bytes) -> int:
    """`org.apache.kafka.common.utils.Utils.murmur2`, as an unsigned number."""
    h = 0x9747_B28C ^ len(data)
    whole = len(data) & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * _M & _32_BITS
        k = (k ^ k >> 24) * _M & _32_BITS
        h = (h * _M & _32_BITS) ^ k
    if len(data) > whole:
        h = (h ^ int.from_bytes(data[whole:], "little")) * _M & _32_BITS
    h = (h ^ h >> 13) * _M & _32_BITS
    return h ^ h >> 15
