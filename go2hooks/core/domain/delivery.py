"""One event on its way to one webhook."""

from enum import StrEnum
from hashlib import blake2b
from typing import Final, NamedTuple


class Kind(StrEnum):
    """Why a delivery exists."""

    EVENT = "event"
    TEST = "test"
    REPLAY = "replay"  #: sent again: attempt numbers continue, and the schedule begins anew
    REDELIVER = "redeliver"  #: sent again by hand: one more attempt


#: A user asked for them and sees the result: one attempt, whatever the webhook's state, which counts nowhere.
ON_REQUEST: Final = frozenset((Kind.TEST, Kind.REDELIVER))


class Position(NamedTuple):
    """Where a message lies in Kafka."""

    topic: str
    partition: int
    offset: int


class Delivery(NamedTuple):
    """One event to one webhook, as it travels through `go2.deliveries` and the retry tiers.

    Its fields are those of `schemas/delivery.avsc`, in their order.
    """

    id: str  #: dlv_…, the same on every attempt
    webhook_id: str
    account_id: str
    event_id: str
    event: str  #: event type name
    timestamp: str  #: the payload's own timestamp, as rendered in the body
    body: bytes  #: canonical JSON; signed and sent as these bytes
    attempt: int  #: the attempt that this message asks for, from 1
    due_ms: int  #: send not before this time, milliseconds since the epoch; 0 for at once
    kind: str  #: a Kind
    origin_ms: int  #: when Kafka accepted the event, milliseconds since the epoch; part of the records' key
    suspect: bool  #: a message for the same attempt may have been written before: look it up in the records
    deployment: str = ""  #: dep_…, the deployment that owns the webhook; empty from older versions
    #: The number with which its round through the schedule began; 0 means 1, or is from an older version.
    first_attempt: int = 0


_ID_BYTES: Final = 15  # 120 bits: a collision among 10^12 deliveries has odds below 10^-12


def delivery_id(event_id: str, webhook_id: str) -> str:
    """The id of this event's delivery to this webhook. Every fan-out computes the same id, replays included."""
    return "dlv_" + blake2b(f"{event_id}\0{webhook_id}".encode(), digest_size=_ID_BYTES).hexdigest()


def replayed(delivery: Delivery, attempt: int) -> Delivery:
    """The same delivery again, at once and with the same id: the whole schedule, beginning with attempt `attempt`."""
    return delivery._replace(attempt=attempt, first_attempt=attempt, due_ms=0, kind=Kind.REPLAY, suspect=True)


def redelivered(delivery: Delivery, attempt: int) -> Delivery:
    """The same delivery again, at once and with the same id: this one attempt. A test event stays one."""
    kind = Kind.TEST if delivery.kind == Kind.TEST else Kind.REDELIVER
    return delivery._replace(attempt=attempt, first_attempt=attempt, due_ms=0, kind=kind, suspect=True)
