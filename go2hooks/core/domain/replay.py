"""Decides what a replay sends again: which deliveries, with which attempt numbers, from which partitions."""

from collections.abc import Container
from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple

from go2hooks.core.domain.delivery import Position
from go2hooks.core.domain.event import WILDCARD
from go2hooks.core.domain.outcome import State


class Selection(StrEnum):
    """Which deliveries of the time range a replay sends."""

    FAILED = "failed"  #: deliveries that have used up their retries
    SKIPPED = "skipped"  #: deliveries that were not attempted because the webhook was disabled or did not want them
    MISSED = "missed"  #: events that the webhook would get and that have no delivery, such as those before it existed
    ALL = "all"  #: all of these, and what was delivered


class ReplayStatus(StrEnum):
    """How far a replay has come."""

    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"


#: Selections that need only the records, because each record names its message. The others read the log.
FROM_RECORDS: Final = (Selection.FAILED, Selection.SKIPPED)
#: States after which a delivery has no further attempt by itself.
FINAL: Final = (State.DELIVERED, State.FAILED, State.SKIPPED)


class Planned(NamedTuple):
    """One delivery that will be sent again."""

    delivery_id: str
    created_ms: int  #: when Kafka accepted the event, milliseconds since the epoch; part of the records' key
    attempt: int
    position: Position  #: of the message from which the delivery is made: an event or a delivery


def next_attempt(selection: str, last_attempt: int, last_state: str | None) -> int | None:
    """The number of a delivery's next attempt; None when the delivery is not selected.

    `last_attempt` and `last_state` are from its last record; 0 and None without a record. A delivery that still has
    attempts to come is not selected.
    """
    if last_state is None:
        return 1 if selection in (Selection.MISSED, Selection.ALL) else None
    if last_state not in FINAL:
        return None
    return last_attempt + 1 if selection in (Selection.ALL, last_state) else None


def is_wanted(event: str, subscribed: Container[str], asked: Container[str] | None) -> bool:
    """Whether the event was asked for (None asks for all), and the webhook still subscribes to it."""
    is_asked = asked is None or event in asked or WILDCARD in asked
    return is_asked and (event in subscribed or WILDCARD in subscribed)


@lru_cache(maxsize=8192)
def key_partition(key: bytes, partitions: int) -> int:
    """The partition to which Kafka's Java client, and librdkafka's `murmur2_random`, send a key."""
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
