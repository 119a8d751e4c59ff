"""Deliveries that got lost: without a final record, and without a message that waits. There should be none.

What is overdue in Postgres mostly waits in Kafka still: behind a backlog, or for its receiver to come back. So those
messages are looked through, from the committed offsets on; what is left has strayed. A message that is being moved
between topics is written to the new one before it is committed in the old one; since all committed offsets are read
first and all ends after them, it is found in one of the two.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby, islice
from typing import Any, Final

from confluent_kafka import Message
from psycopg import Connection

from go2hooks.codec import decode_delivery, encode_delivery
from go2hooks.core.delivery import Delivery, Kind, Position
from go2hooks.core.errors import UndecodableEventError
from go2hooks.kafka.client import DISPATCHER_GROUP, OVERFLOW_GROUP, RETRY_GROUP
from go2hooks.kafka.partitions import PartitionKey, position_of
from go2hooks.kafka.reading import LogReader, Span
from go2hooks.kafka.sending import Sender
from go2hooks.kafka.topics import DELIVERIES, DELIVERIES_OVERFLOW, retry_topic
from go2hooks.postgres.history import standings
from go2hooks.postgres.overdue import Overdue, overdue_deliveries
from go2hooks.settings import Settings

UNRECORDED: Final = "unrecorded"
_LOOK_UP: Final = 1000


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far to look."""

    since: datetime  #: events before this time are left out
    grace_s: float = 300.0  #: what is overdue for less than this is left alone
    limit: int = 10_000  #: overdue deliveries looked at in one go
    messages: int | None = None  #: waiting messages looked through at most; None for all


class TooManyWaitError(Exception):
    """There are more waiting messages than were to be looked through: nothing can be said."""


def find_strays(
    settings: Settings, conn: Connection[Any], bounds: Bounds, *, through_log: bool = False
) -> list[Overdue]:
    """Deliveries that nobody will send any more. Blocks; reads Kafka only when something is overdue.

    `through_log` looks also for deliveries without any record, by reading `go2.deliveries` itself. Raises
    UnavailableError, TooManyWaitError, psycopg.Error.
    """
    before = datetime.now(UTC) - timedelta(seconds=bounds.grace_s)
    suspects = overdue_deliveries(conn, bounds.since, before, bounds.limit)
    with LogReader(settings) as reader:
        if through_log:
            suspects += _unrecorded(reader, conn, bounds.since, before)
        if not suspects:
            return []
        missing = {suspect.delivery_id for suspect in suspects}
        for delivery in islice(_waiting(reader, settings), bounds.messages):
            missing.discard(delivery.id)
            if not missing:
                return []
        if bounds.messages is not None and _count_waiting(reader, settings) > bounds.messages:
            raise TooManyWaitError
    overdue = {
        one[:4] for one in overdue_deliveries(conn, bounds.since, before, bounds.limit)
    }  # some moved on meanwhile
    return [one for one in suspects if one.delivery_id in missing and (one.state == UNRECORDED or one[:4] in overdue)]


def send_again(settings: Settings, strays: Sequence[Overdue]) -> list[str]:
    """Give each stray its next attempt, at once. Returns the ids of those whose payload Kafka no longer has.

    Nothing is sent twice for it: dispatchers look such deliveries up among the records first.
    """
    by_position = {stray.position: stray for stray in strays if stray.position is not None}
    left = {stray.delivery_id for stray in strays}
    sender = Sender(settings)
    with LogReader(settings) as reader:
        for message in _messages_at(reader, sorted(by_position)):
            stray, delivery = by_position[position_of(message)], _decode(message)
            if delivery is not None and delivery.id == stray.delivery_id:
                again = delivery._replace(attempt=stray.attempt + 1, due_ms=0, suspect=True)
                sender.send(DELIVERIES, stray.webhook_id.encode(), encode_delivery(again))
                left.discard(stray.delivery_id)
    return sorted(left)


def _unrecorded(reader: LogReader, conn: Connection[Any], since: datetime, before: datetime) -> list[Overdue]:
    """Deliveries that were committed as finished and have left no record."""
    keys = reader.partitions([DELIVERIES])
    committed = reader.committed(DISPATCHER_GROUP, keys)
    starts = reader.offsets_at(keys, round(since.timestamp() * 1000))
    messages = reader.read([Span(key, starts[key], committed[key]) for key in keys])
    found: list[Overdue] = []
    while batch := list(islice(messages, _LOOK_UP)):
        deliveries = {d.id: (d, m) for m in batch if (d := _decode(m)) is not None and d.kind != Kind.TEST}
        recorded = standings(conn, [delivery for delivery, _ in deliveries.values()])
        for delivery, message in deliveries.values():
            written = datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC)
            if delivery.id not in recorded and written < before:
                found.append(Overdue(delivery.id, delivery.webhook_id, UNRECORDED, 0, written, position_of(message)))
    return found


def _waiting(reader: LogReader, settings: Settings) -> Iterator[Delivery]:
    """Every delivery that some dispatcher has still to finish."""
    for message in reader.read(_waiting_spans(reader, settings)):
        delivery = _decode(message)
        if delivery is not None:
            yield delivery


def _count_waiting(reader: LogReader, settings: Settings) -> int:
    return sum(max(0, span.end - span.start) for span in _waiting_spans(reader, settings))


def _waiting_spans(reader: LogReader, settings: Settings) -> list[Span]:
    tiers = [retry_topic(delay) for delay in dict.fromkeys(settings.retry_delays)]
    groups = {DISPATCHER_GROUP: [DELIVERIES], RETRY_GROUP: tiers, OVERFLOW_GROUP: [DELIVERIES_OVERFLOW]}
    committed: dict[PartitionKey, int] = {}
    for group, topics in groups.items():
        committed |= reader.committed(group, reader.partitions(topics))
    ends = reader.ends(list(committed))
    return [Span(key, start, ends[key]) for key, start in committed.items()]


def _messages_at(reader: LogReader, positions: Sequence[Position]) -> Iterator[Message]:
    wanted = set(positions)
    groups = groupby(positions, key=lambda position: PartitionKey(position.topic, position.partition))
    offsets = {key: [position.offset for position in group] for key, group in groups}
    for message in reader.read([Span(key, found[0], found[-1] + 1) for key, found in offsets.items()]):
        if position_of(message) in wanted:
            yield message


def _decode(message: Message) -> Delivery | None:
    value = message.value()
    try:
        return decode_delivery(value if isinstance(value, bytes) else b"")
    except UndecodableEventError:
        return None  # the dispatcher buries it
