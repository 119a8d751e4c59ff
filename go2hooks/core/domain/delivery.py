"""One event on its way to one webhook."""

from enum import StrEnum
from hashlib import blake2b
from typing import Final, NamedTuple


class Kind(StrEnum):
    """Why a delivery exists."""

    EVENT = "event"
    TEST = "test"
    REPLAY = "replay"  #: sent again: its attempts are numbered on, and the schedule begins anew
    REDELIVER = "redeliver"  #: sent again by hand: one more attempt


#: Somebody asked for them, and sees what comes of it: one attempt, whatever the webhook's state, that counts nowhere.
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
    body: bytes  #: canonical JSON: what is signed and what is sent
    attempt: int  #: the attempt that this message asks for, from 1
    due_ms: int  #: not before this time, milliseconds since the epoch; 0 for at once
    kind: str  #: a Kind
    origin_ms: int  #: when Kafka accepted the event, milliseconds since the epoch: dates the records too
    suspect: bool  #: written while replaying after a restart: may have been written before
    deployment: str = ""  #: dep_…, whose webhooks it is about; empty from versions that did not say
    first_attempt: int = (
        0  #: with which its round through the schedule began; 0 for 1, and from versions that did not say
    )


_ID_BYTES: Final = 15  # 120 bits: a collision among 10^12 deliveries has odds below 10^-12


def delivery_id(event_id: str, webhook_id: str) -> str:
    """The id that every fan-out of this event to this webhook arrives at, replays included."""
    return "dlv_" + blake2b(f"{event_id}\0{webhook_id}".encode(), digest_size=_ID_BYTES).hexdigest()


def replayed(delivery: Delivery, attempt: int) -> Delivery:
    """The same once more, through the whole schedule, beginning with this attempt; at once, under its old id."""
    return delivery._replace(attempt=attempt, first_attempt=attempt, due_ms=0, kind=Kind.REPLAY, suspect=True)


def redelivered(delivery: Delivery, attempt: int) -> Delivery:
    """The same once more, with this one attempt; at once, under its old id. A test stays a test, and its receiver is told."""
    kind = Kind.TEST if delivery.kind == Kind.TEST else Kind.REDELIVER
    return delivery._replace(attempt=attempt, first_attempt=attempt, due_ms=0, kind=kind, suspect=True)
