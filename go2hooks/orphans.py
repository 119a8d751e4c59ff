"""Deliveries that got lost: without a final record, and without a message that waits. There should be none.

What is overdue in Postgres mostly waits in Kafka still: behind a backlog, or for its receiver to come back. So those
messages are looked through, from the committed offsets on; what is left has strayed. That is done a page of overdue
deliveries at a time, however many there are, so that memory is bounded by the page and not by a backlog. A message that
is being moved between topics is written to the new one before it is committed in the old one; since all committed offsets
are read first and all ends after them, it is found in one of the two.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final

from confluent_kafka import Message
from psycopg import Connection

from go2hooks.codec import decode_delivery, encode_delivery
from go2hooks.core.domain.delivery import ON_REQUEST, Delivery
from go2hooks.core.errors import UndecodableEventError
from go2hooks.kafka.client import GroupNames
from go2hooks.kafka.partitions import PartitionKey, position_of
from go2hooks.kafka.reading import LogReader, OffsetRange
from go2hooks.kafka.sending import WaitingProducer
from go2hooks.kafka.topics import TopicNames
from go2hooks.postgres.attempts.standings import Key, LastRecord, Overdue, key_of, overdue_deliveries, standings
from go2hooks.settings import Settings

UNRECORDED: Final = "unrecorded"
_NO_RECORD: Final = LastRecord(0, UNRECORDED)
_LOOK_UP: Final = 1000


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far to look."""

    since: datetime  #: events before this time are left out
    grace_s: float = 300.0  #: what is overdue for less than this is left alone
    page: int = 20_000  #: overdue deliveries in memory at a time; what waits is looked through once for each page
    limit: int = 10_000  #: once so many are found, or some more, no others are looked for
    messages: int | None = None  #: waiting messages looked through at most, for all pages together; None for all


class TooManyWaitError(Exception):
    """There are more waiting messages than were to be looked through: nothing can be said."""


def find_orphans(
    settings: Settings, conn: Connection[Any], bounds: Bounds, *, through_log: bool = False
) -> list[Overdue]:
    """Deliveries that nobody will send any more. Blocks; reads Kafka only when something is overdue.

    `through_log` looks also for deliveries without any record, by reading `go2.deliveries` and the overflow themselves.
    `conn` is in autocommit mode, so that no transaction lasts for as long as Kafka is read. Raises UnavailableError,
    psycopg.Error; TooManyWaitError when the bound on messages came before anything was found.
    """
    before = datetime.now(UTC) - timedelta(seconds=bounds.grace_s)
    orphans: dict[str, Overdue] = {}
    with (
        LogReader(settings) as reader,
        closing(_suspects(settings, reader, conn, bounds, before, through_log=through_log)) as pages,
    ):
        waiting = _Waiting(reader, settings, bounds.messages)
        try:
            for page in pages:
                orphans |= _still_lost(conn, waiting.without(page))
                if len(orphans) >= bounds.limit:
                    break
        except TooManyWaitError:
            if not orphans:  # those that were found are lost, whatever there is beside them
                raise
    return list(orphans.values())


def _suspects(
    settings: Settings, reader: LogReader, conn: Connection[Any], bounds: Bounds, before: datetime, *, through_log: bool
) -> Generator[list[Overdue], None, None]:
    """What may have got lost, or may wait."""
    yield from overdue_deliveries(conn, bounds.since, before, bounds.page)
    if through_log:
        unrecorded = _unrecorded(settings, reader, conn, bounds.since, before)
        while page := list(islice(unrecorded, bounds.page)):
            yield page


class _Waiting:
    """The deliveries that some dispatcher has still to finish, looked through anew for each page of suspects.

    So they are looked through after the page's suspects were found, never before.
    """

    def __init__(self, reader: LogReader, settings: Settings, messages: int | None) -> None:
        self._reader = reader
        self._settings = settings
        self._left = messages

    def without(self, page: list[Overdue]) -> dict[str, Overdue]:
        """Those of the page that do not wait, by id. Raises TooManyWaitError."""
        missing = {suspect.delivery_id: suspect for suspect in page}
        spans = _waiting_spans(self._reader, self._settings)
        looked = 0
        for message in islice(self._reader.read(spans), self._left):
            looked += 1
            delivery = _decode(message)
            if delivery is not None and missing.pop(delivery.id, None) is not None and not missing:
                break
        if self._left is not None:
            if missing and sum(max(0, span.end - span.start) for span in spans) > self._left:
                raise TooManyWaitError
            self._left -= looked
        return missing


def _still_lost(conn: Connection[Any], missing: dict[str, Overdue]) -> dict[str, Overdue]:
    """Those whose last record is what it was: the others were finished while they were looked for."""
    keys = [Key(suspect.webhook_id, suspect.accepted, suspect.delivery_id) for suspect in missing.values()]
    standing = standings(conn, keys) if keys else {}
    return {
        id_: suspect
        for id_, suspect in missing.items()
        if standing.get(id_, _NO_RECORD) == (suspect.attempt, suspect.state)
    }


def send_again(settings: Settings, orphans: Sequence[Overdue]) -> list[str]:
    """Give each orphan its next attempt, at once. Returns the ids of those whose payload Kafka no longer has.

    Nothing is sent twice for it: dispatchers look such deliveries up among the records first.
    """
    by_position = {orphan.position: orphan for orphan in orphans if orphan.position is not None}
    left = {orphan.delivery_id for orphan in orphans}
    sender, topic = WaitingProducer(settings), TopicNames(settings.kafka_prefix).deliveries
    with LogReader(settings) as reader:
        for message in reader.read_at(by_position):
            orphan, delivery = by_position[position_of(message)], _decode(message)
            if delivery is not None and delivery.id == orphan.delivery_id:
                again = delivery._replace(attempt=orphan.attempt + 1, due_ms=0, suspect=True)
                sender.send(topic, orphan.webhook_id.encode(), encode_delivery(again))
                left.discard(orphan.delivery_id)
    return sorted(left)


def _unrecorded(
    settings: Settings, reader: LogReader, conn: Connection[Any], since: datetime, before: datetime
) -> Iterator[Overdue]:
    """Deliveries that were committed as finished and have left no record."""
    topics, groups = TopicNames(settings.kafka_prefix), GroupNames(settings.kafka_prefix)
    committed: dict[PartitionKey, int] = {}
    for group, topic in ((groups.dispatcher, topics.deliveries), (groups.overflow, topics.overflow)):
        committed |= reader.committed(group, reader.partitions([topic]))  # the two that the router writes to
    starts = reader.offsets_at(list(committed), int(since.timestamp() * 1000))  # as Kafka rounds
    messages = reader.read([OffsetRange(key, starts[key], end) for key, end in committed.items()])
    while batch := list(islice(messages, _LOOK_UP)):
        deliveries = {d.id: (d, m) for m in batch if (d := _decode(m)) is not None and d.kind not in ON_REQUEST}
        recorded = standings(conn, [key_of(delivery) for delivery, _ in deliveries.values()])
        for delivery, message in deliveries.values():
            written = datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC)
            if delivery.id not in recorded and written < before:
                webhook_id, accepted, id_ = key_of(delivery)
                yield Overdue(id_, webhook_id, accepted, UNRECORDED, 0, written, position_of(message))


def _waiting_spans(reader: LogReader, settings: Settings) -> list[OffsetRange]:
    topics, groups = TopicNames(settings.kafka_prefix), GroupNames(settings.kafka_prefix)
    read = {
        groups.dispatcher: [topics.deliveries],
        groups.retry: topics.tiers(settings.retry_delays),
        groups.overflow: [topics.overflow],
    }
    committed: dict[PartitionKey, int] = {}
    for group, names in read.items():
        committed |= reader.committed(group, reader.partitions(names))
    ends = reader.ends(list(committed))
    return [OffsetRange(key, start, ends[key]) for key, start in committed.items()]


def _decode(message: Message) -> Delivery | None:
    value = message.value()
    try:
        return decode_delivery(value if isinstance(value, bytes) else b"")
    except UndecodableEventError:
        return None  # the dispatcher buries it
