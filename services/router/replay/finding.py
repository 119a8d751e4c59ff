"""Finds what a replay sends next: from the records, each of which names its message, or from the events themselves."""

import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, Protocol

from confluent_kafka import Message
from psycopg import Connection

from go2hooks.codec import EventCodec, decode_delivery
from go2hooks.core.domain.delivery import Delivery, Kind, Position, replayed
from go2hooks.core.domain.event import SUBSCRIBABLE, Event
from go2hooks.core.domain.replay import FROM_RECORDS, Planned, key_partition, next_attempt
from go2hooks.core.domain.validation import validate
from go2hooks.core.encoding.fanout import first_deliveries, origin_of
from go2hooks.core.encoding.payload import render
from go2hooks.core.errors import EventError
from go2hooks.kafka.event_spans import EventRange, event_range, topics_of
from go2hooks.kafka.partitions import PartitionKey, position_of
from go2hooks.kafka.reading import LogReader, OffsetRange
from go2hooks.kafka.topics import TopicNames
from go2hooks.postgres.attempts import from_ms, replayable, to_ms
from go2hooks.postgres.attempts.standings import Key, standings
from go2hooks.postgres.replaying import Job, Step
from go2hooks.telemetry import metrics

BATCH: Final = 200  #: deliveries that are sent together; a crash may send so many twice
_READ_MESSAGES: Final = 20_000  # in one turn, however few of them are selected: other replays have turns too
_READ_S: Final = 0.5  # likewise


class Selected(NamedTuple):
    """A delivery to send, and what finds it again after a crash."""

    planned: Planned
    delivery: Delivery


class NextDeliveries(NamedTuple):
    """The deliveries that one turn has found, and how far it has read."""

    selected: list[Selected]
    step: Step
    is_end: bool  #: nothing more is to come


class Source(Protocol):
    """Where a replay's deliveries come from. Blocks; raises UnavailableError, psycopg.Error."""

    def next(self, conn: Connection[Any], job: Job) -> NextDeliveries:
        """Some hundred deliveries more. `job` is in its current state."""
        ...


class Log:
    """Reads events and deliveries for the sources."""

    def __init__(self, reader: LogReader, topics: TopicNames, codec: EventCodec, deployment: str) -> None:
        self.reader = reader
        self.topics = topics
        self._codec = codec
        self._deployment = deployment

    def delivery_of(self, message: Message, webhook_id: str) -> Delivery | None:
        """The delivery to this webhook that the message holds, or that comes of its event; None when there is none."""
        value = message.value()
        raw = value if isinstance(value, bytes) else b""
        try:
            if message.topic() in self.topics.events:
                return self.of_event(self.event_of(message), message, webhook_id)
            delivery = decode_delivery(raw)
        except EventError:
            return None
        return delivery._replace(deployment=self._deployment) if delivery.webhook_id == webhook_id else None

    def again(self, webhook_id: str, planned: Iterable[Planned]) -> list[Delivery]:
        """These deliveries, without those whose messages have expired."""
        wanted: dict[Position, Planned] = {each.position: each for each in planned}
        found: list[Delivery] = []
        for message in self.reader.read_at(wanted):
            each = wanted[position_of(message)]
            delivery = self.delivery_of(message, webhook_id)
            if delivery is not None and delivery.id == each.delivery_id:
                found.append(replayed(delivery, each.attempt))
        return found

    def event_of(self, message: Message) -> Event:
        """Raises EventError for a message that the router has sent to the dead-letter topic."""
        value = message.value()
        event = self._codec.decode(value if isinstance(value, bytes) else b"")
        validate(event)
        return event

    def of_event(self, event: Event, message: Message, webhook_id: str) -> Delivery:
        """The delivery as the router makes it. Raises EventError."""
        origin_ms = origin_of(event, message.timestamp()[1])
        [delivery] = first_deliveries(
            event, render(event), [webhook_id], origin_ms, suspect=True, deployment=self._deployment
        )
        return delivery


def source_of(job: Job, log: Log) -> Source:
    """The source of this replay. It goes on where the last batch ended."""
    return FromRecords(job, log) if job.selection in FROM_RECORDS else FromEvents(job, log)


class FromRecords:
    """Failed or skipped deliveries, read at the positions that their records name."""

    def __init__(self, job: Job, log: Log) -> None:
        self._log = log
        self._after: tuple[datetime, str, int] | None = None
        self._left: int | None = None
        if job.progress is not None:
            at, delivery_id, attempt = job.progress["after"]
            self._after, self._left = (datetime.fromisoformat(at), delivery_id, attempt), job.progress["left"]

    def next(self, conn: Connection[Any], job: Job) -> NextDeliveries:
        if self._left is None:
            self._left = replayable.count_recorded(conn, job)
        rows = replayable.recorded(conn, job, self._after, BATCH)
        if rows:
            self._after = rows[-1].created_at, rows[-1].delivery_id, rows[-1].attempt
        self._left = max(0, self._left - len(rows))
        planned = [
            Planned(row.delivery_id, to_ms(row.created_at), row.attempt + 1, row.position)
            for row in rows
            if row.position is not None and row.kind != Kind.TEST and not row.is_overtaken and job.wants(row.event)
        ]
        selected = list(self._read(job, planned))
        step = Step(self._progress(), rows[-1].created_at if rows else None, self._left, len(planned) - len(selected))
        return NextDeliveries(selected, step, len(rows) < BATCH)

    def _read(self, job: Job, planned: Sequence[Planned]) -> Iterator[Selected]:
        """In the order of the records, without those that have expired."""
        found = {delivery.id: delivery for delivery in self._log.again(job.webhook_id, planned)}
        for each in planned:
            if each.delivery_id in found:
                yield Selected(each, found[each.delivery_id])

    def _progress(self) -> dict[str, Any] | None:
        if self._after is None:
            return None
        at, delivery_id, attempt = self._after
        return {"after": [at.isoformat(), delivery_id, attempt], "left": self._left}


class FromEvents:
    """Events of the account that the webhook wants, in Kafka's order.

    The account's events lie in one partition of each topic, to which its key is hashed. That holds for the whole range
    if every partition had messages before it began, so that none was added since. Otherwise all partitions are read;
    and also as soon as a key lies in a wrong partition, because a producer uses another hash.
    """

    def __init__(self, job: Job, log: Log) -> None:
        self._log = log
        self._key = job.account_id.encode()
        self._next: dict[PartitionKey, int] = {}
        self._end: dict[PartitionKey, int] = {}
        self._count: dict[str, int] = {}  # partitions of a topic, while only one of them is read
        self._reached_ms: dict[PartitionKey, int] = {}
        self._messages: Iterator[Message] | None = None
        if job.progress is None:
            self._plan(job)
        else:
            for topic, number, at, end in job.progress["spans"]:
                self._next[PartitionKey(topic, number)], self._end[PartitionKey(topic, number)] = at, end
            self._count = job.progress["count"]

    def next(self, conn: Connection[Any], job: Job) -> NextDeliveries:
        if self._messages is None:
            spans = [OffsetRange(key, at, self._end[key]) for key, at in self._next.items()]
            self._messages = self._log.reader.read(spans)
        found: dict[str, tuple[Delivery, Position]] = {}
        is_end, read, until = False, 0, time.monotonic() + _READ_S
        while self._messages is not None and len(found) < BATCH and read < _READ_MESSAGES and time.monotonic() < until:
            message = next(self._messages, None)
            if message is None:
                is_end = True
                break
            read += 1
            delivery = self._look_at(message, job)
            if delivery is not None:
                found[delivery.id] = delivery, position_of(message)
        metrics.REPLAY_READ.add(read)
        return NextDeliveries(self._select(conn, job, found), self._step(), is_end)

    def _look_at(self, message: Message, job: Job) -> Delivery | None:
        """The delivery that comes of its event, if the event is the account's and the webhook wants it."""
        topic, number, offset = position_of(message)
        key, accepted_ms = PartitionKey(topic, number), message.timestamp()[1]
        self._next[key] = offset + 1
        self._reached_ms[key] = accepted_ms
        raw_key = message.key()
        if raw_key != self._key:
            self._check_place(raw_key if isinstance(raw_key, bytes) else b"", key, job)
            return None
        if not job.from_at <= from_ms(accepted_ms) < job.to_at:
            return None
        try:
            event = self._log.event_of(message)
            return self._log.of_event(event, message, job.webhook_id) if job.is_for(event) else None
        except EventError:
            return None

    def _select(self, conn: Connection[Any], job: Job, found: dict[str, tuple[Delivery, Position]]) -> list[Selected]:
        keys = [Key(job.webhook_id, from_ms(delivery.origin_ms), id_) for id_, (delivery, _) in found.items()]
        recorded = standings(conn, keys) if keys else {}
        selected: list[Selected] = []
        for id_, (delivery, position) in found.items():
            last = recorded.get(id_)
            attempt = next_attempt(job.selection, last.attempt if last else 0, last.state if last else None)
            if attempt is not None:
                planned = Planned(id_, delivery.origin_ms, attempt, position)
                selected.append(Selected(planned, replayed(delivery, attempt)))
        return selected

    def _step(self) -> Step:
        spans = [[*key, at, self._end[key]] for key, at in self._next.items()]
        reached = [self._reached_ms.get(key) for key, at in self._next.items() if at < self._end[key]]
        known = [at for at in reached if at is not None]
        position_at = datetime.fromtimestamp(min(known) / 1000, UTC) if known and len(known) == len(reached) else None
        return Step({"spans": spans, "count": self._count}, position_at, self._unread(), 0)

    def _unread(self) -> int:
        return sum(max(0, self._end[key] - at) for key, at in self._next.items())

    # --- where to read

    def _plan(self, job: Job) -> None:
        for topic in topics_of(self._log.topics, filter(job.wants, SUBSCRIBABLE)):
            starts, ends = found = self._range(topic, job)
            own = found.of_account(topic, self._key)
            if own is not None:
                self._count[topic] = len(starts)
            self._add(starts, ends, starts if own is None else [own])

    def _range(self, topic: str, job: Job) -> EventRange:
        begin_ms, end_ms = to_ms(job.from_at), to_ms(job.to_at)
        return event_range(self._log.reader, topic, begin_ms, end_ms)

    def _add(
        self, starts: dict[PartitionKey, int], ends: dict[PartitionKey, int], keys: Iterable[PartitionKey]
    ) -> None:
        for key in keys:
            if key not in self._next:
                self._next[key], self._end[key] = starts[key], ends[key]

    def _check_place(self, key: bytes, where: PartitionKey, job: Job) -> None:
        """When another account's key lies in a wrong partition, this account's may lie in any, too: read them all."""
        count = self._count.get(where.topic)
        if count is not None and key_partition(key, count) != where.partition:
            del self._count[where.topic]
            starts, ends = self._range(where.topic, job)
            self._add(starts, ends, list(starts))
            self._messages = None  # the next turn reads the added partitions, too
