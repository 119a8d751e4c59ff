"""Events in, deliveries out: read ahead, take turns by account, decode, match, render once, write one delivery per match.

Commit rule: an event's offset is stored when Kafka has acknowledged every delivery or dead letter that came of it, and
of all events before it in its partition. A crash replays the rest; delivery ids are deterministic, and replayed
deliveries say that they are suspect, so dispatchers look before they send.

Turns: events are keyed by account, so a burst of one account lies in one partition, before the events of others. The
router reads ahead, within bounds, and routes one event of each account that has any, then another. What an account has
waiting in such numbers that it crowds out the others goes to the overflow at once: in `go2.deliveries` it would lie
before theirs again.

Who brings a third of everything has turns of its own, every few milliseconds: what gathers until then costs Kafka and the
dispatchers much less, and how much is routed in one turn depends on whether there is a processor to spare.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import nan
from typing import Any, Final

import structlog
from confluent_kafka import KafkaError, Message, TopicPartition

from go2hooks.codec import EventCodec, encode_fan_out
from go2hooks.core.domain.event import ABOUT_WEBHOOKS
from go2hooks.core.domain.matching import SubscriptionIndex
from go2hooks.core.domain.validation import validate
from go2hooks.core.encoding.fanout import first_deliveries, origin_of, others
from go2hooks.core.encoding.payload import render
from go2hooks.core.errors import EventError, UnavailableError
from go2hooks.core.flow.batch_size import AdaptiveBatch
from go2hooks.core.flow.fair_queue import FairQueue
from go2hooks.kafka.membership import Membership
from go2hooks.kafka.partitions import Assignment, PartitionKey, is_data, position_of, went_back
from go2hooks.kafka.topics import TopicNames
from go2hooks.telemetry import metrics
from go2hooks.telemetry.lag import UnreadAge
from services.router.reading import Batch, Partition
from services.router.writing import Writer

log = structlog.get_logger(__name__)

Take = Callable[[], tuple[bytes, tuple[Message, Partition]] | None]

_BATCH: Final = 200
_HEAVY_BATCHES: Final = 4, 200, 2  # of what has piled up: at least, at most, more each time
_HINDERED: Final = 0.1  # of the time that it took to route some, the processor was somebody else's
# More that wait than a turn ago: reading on comes first, since others' events lie behind.
_RUSH: Final = _HEAVY_BATCHES[1]
_READ: Final = 250
_POLL_AT_LEAST_S: Final = 30.0  # a tenth of what the group waits
_CROWD: Final = 1000  # events of one account
# A turn ends then, however little of it is routed: fan-outs to a thousand webhooks wait for room in librdkafka, and a
# consumer that has not polled for minutes loses its partitions with nothing committed, again and again.
_TURN_S: Final = 1.0
_KEY_BYTES: Final = 512  # of an account's name, by which events take turns; longer ones share one when they begin alike
_POLL_S: Final = 0.05
_TICK_S: Final = 0.001  # librdkafka does not wait for less
_REVOKE_FLUSH_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a router holds at most, and for how long."""

    window: int  #: deliveries written and not yet acknowledged
    lookahead: int  #: events read and not yet routed
    lookahead_bytes: int
    gather_s: float  #: how long the events of an account that brings much wait for each other


class Router:
    """One consumer, one producer, one thread. Not thread-safe; only `index` is written by another thread."""

    def __init__(
        self,
        consumer_config: dict[str, Any],
        producer_config: dict[str, Any],
        topics: TopicNames,
        index: SubscriptionIndex,
        codec: EventCodec,
        bounds: Bounds,
        stopping: Callable[[], bool] = lambda: False,
        deployment: Callable[[], str] = str,
    ) -> None:
        """`stopping` is asked while librdkafka takes no more: one event's fan-out may be more than it holds.

        `deployment` is what deliveries say whose they are.
        """
        self._topics = topics
        self._membership = Membership(
            consumer_config | {"enable.partition.eof": True}, topics.events, self, finish_s=_REVOKE_FLUSH_S
        )
        self._consumer = self._membership.consumer
        self._writer = Writer(producer_config, topics, stopping)
        self._index = index
        self._codec = codec
        self._bounds = bounds
        self._deployment = deployment
        self._batches: deque[Batch] = deque()
        self._partitions: dict[PartitionKey, Partition] = {}
        self._waiting: FairQueue[bytes, tuple[Message, Partition]] = FairQueue()
        self._waiting_bytes = 0
        self._heavy_pace = AdaptiveBatch(*_HEAVY_BATCHES)
        self._heavy_at = 0.0  # when those accounts have their next turn
        self._left = 0  # waiting when they last had, or let pass, one
        self._polled_at = 0.0
        self._at_end = False  # of some partition, and its offset may have moved without a message
        self._unread = UnreadAge()
        self._flush_until = float("inf")
        self._reported = 0.0
        metrics.ROUTER_IN_FLIGHT.read_from(lambda: {(): self._writer.in_flight})

    @property
    def ready(self) -> bool:
        """Whether all is read that is ours to be read, and Kafka is there. Any thread."""
        return self._membership.assigned and self._membership.reachable

    def start(self) -> None:
        self._membership.subscribe()

    def step(self) -> None:
        """Route what is there; waits up to 50 ms when nothing is. Raises UnavailableError when Kafka refuses for good, or we do not get to read."""
        self._writer.poll(0)
        if self._writer.in_flight >= self._bounds.window:
            self._writer.poll(_POLL_S)
        self._read()
        if self._waiting and self._writer.in_flight < self._bounds.window:
            self._route_next()
        self._membership.store(self._collect_finished())
        self._membership.tend()
        self._report_lag()
        if self._writer.failure is not None:
            raise UnavailableError(f"Kafka refused a delivery for good: {self._writer.failure}")

    def close(self, timeout_s: float) -> None:
        """Finish what is produced, commit, leave the group. Bounded by `timeout_s`."""
        self._flush_until = time.monotonic() + timeout_s
        unacknowledged = self._writer.flush(timeout_s)
        if unacknowledged:
            log.warning(
                "stopping with deliveries unacknowledged; their events will be routed again", count=unacknowledged
            )
        self._membership.store(self._collect_finished())
        self._consumer.close()

    # --- reading

    def _read(self) -> None:
        """Let what has arrived join those that wait, as far as there is room."""
        room = self._bounds.lookahead - len(self._waiting)
        if room <= 0 or self._waiting_bytes >= self._bounds.lookahead_bytes:
            self._poll_without_reading()
            return
        self._polled_at = time.monotonic()
        first = self._consumer.poll(self._patience_s())
        if first is None:
            return
        now = time.monotonic()
        self._put((first, *self._consumer.consume(min(room, _READ) - 1, 0)), now)

    def _poll_without_reading(self) -> None:
        """Now and then, while there is no room: the group throws out who does not poll."""
        now = time.monotonic()
        if now - self._polled_at < _POLL_AT_LEAST_S:
            return
        self._polled_at = now
        self._consumer.pause([TopicPartition(*key) for key in self._membership.owned])
        leftover = self._consumer.poll(0)  # what was on its way
        if leftover is not None:
            self._put((leftover,), now)
        self._consumer.resume([TopicPartition(*key) for key in self._membership.owned])

    def _patience_s(self) -> float:
        """How long to wait for a first message: not at all when there is something to route."""
        longest = 0.002 if self._writer.in_flight else _POLL_S
        if not self._waiting or self._writer.in_flight >= self._bounds.window:
            return longest
        if self._waiting.has_light or self._is_filling():
            return 0.0
        wait_s = self._heavy_at - time.monotonic()
        return min(longest, max(_TICK_S, wait_s)) if wait_s > 0 else 0.0

    def _put(self, messages: Sequence[Message], now: float) -> None:
        """Have them wait. Of a burst hundreds come in a row from one partition, which is looked up once."""
        topic, number, partition = "", -1, None
        for message in messages:
            if message.error() is not None:
                self._hear(message)
                continue
            if message.partition() != number or message.topic() != topic:
                topic, number, _offset = position_of(message)
                partition = self._partitions.get(PartitionKey(topic, number))
            if partition is None:  # revoked, its last messages were still under way
                continue
            offset: int = message.offset()  # type: ignore[assignment]  # consumed: has one
            _kind, accepted_ms = message.timestamp()
            try:
                partition.read(offset, accepted_ms)
            except ValueError:
                raise went_back(PartitionKey(topic, number)) from None
            self._unread.read(topic, accepted_ms)
            self._waiting_bytes += _size(message)
            self._waiting.put((message.key() or b"")[:_KEY_BYTES], (message, partition), now)

    def _hear(self, report: Message) -> None:
        """Librdkafka's own: mostly that a partition is read to its end, which may lie beyond its last message.

        Behind a transaction stands its marker, which is no message: not committed, it would be lag for ever.
        """
        if report.error().code() != KafkaError._PARTITION_EOF:  # type: ignore[union-attr]  # it has one  # noqa: SLF001  # its name
            is_data(report)
            return
        topic, number, offset = position_of(report)
        partition = self._partitions.get(PartitionKey(topic, number))
        if partition is not None:
            partition.tracker.skip_to(offset)
            self._at_end = True

    # --- routing

    def _route_next(self) -> None:
        """One event of each account in turn, until a batch is full; and, when it is time, some of those that bring much."""
        batch, now = Batch(), time.monotonic()
        batch.unacknowledged = 1  # our own hold: early reports must not finish a batch that is still being routed
        self._batches.append(batch)
        self._route_up_to(_BATCH, partial(self._waiting.take, now), batch, now)
        filling = self._is_filling()
        if filling or now >= self._heavy_at:
            came = len(self._waiting) - self._left
            if filling or came < _RUSH:
                self._route_heavy(batch, min(max(0, came), _RUSH))
            self._left, self._heavy_at = len(self._waiting), now + self._bounds.gather_s
        batch.unacknowledged -= 1

    def _route_heavy(self, batch: Batch, came: int) -> None:
        """As many as came since the last turn, and some of what has piled up: fewer of these when there are not enough
        processors for all that want one, as the others' share is theirs first.
        """
        if not self._waiting.has_heavy:
            return
        began, worked = time.monotonic(), time.thread_time()
        self._route_up_to(came + self._heavy_pace.items, self._waiting.take_heavy, batch, began)
        worked_s, took_s = time.thread_time() - worked, time.monotonic() - began
        self._heavy_pace.note(hindered=took_s - worked_s > _HINDERED * took_s)

    def _route_up_to(self, count: int, take: Take, batch: Batch, now: float) -> None:
        for _ in range(count):
            taken = take() if time.monotonic() - now < _TURN_S else None
            if taken is None:
                return
            account, (message, partition) = taken
            self._waiting_bytes -= _size(message)
            partition.waiting -= 1
            if not partition.gone:
                crowds = self._waiting.is_crowding(account, _CROWD, now)
                self._route(message, partition, batch, self._topics.overflow if crowds else self._topics.deliveries)

    def _is_filling(self) -> bool:
        """Whether what waits takes half of the room that there is: beyond that nothing more would be read, of anybody."""
        bounds = self._bounds
        return 2 * len(self._waiting) > bounds.lookahead or 2 * self._waiting_bytes > bounds.lookahead_bytes

    def _route(self, message: Message, partition: Partition, batch: Batch, topic: str) -> None:
        _kind, accepted_ms = message.timestamp()
        offset: int = message.offset()  # type: ignore[assignment]  # consumed: has one
        batch.events.append((partition, offset))
        try:
            event = self._codec.decode(message.value() or b"")
            validate(event)
            webhook_ids = self._index.match(event.account_id, event.type, event.data)
            if event.type in ABOUT_WEBHOOKS:
                webhook_ids = others(webhook_ids, event)
            rendered = render(event) if webhook_ids else None
        except EventError as error:
            self._writer.bury(batch, message, error)
        else:
            metrics.EVENTS.add(1, event.type)
            if rendered is not None:
                origin_ms = origin_of(event, accepted_ms)
                suspect = offset < partition.suspect_until
                deliveries = first_deliveries(
                    event, rendered, webhook_ids, origin_ms, suspect=suspect, deployment=self._deployment()
                )
                for webhook_id, encoded in zip(webhook_ids, encode_fan_out(deliveries), strict=True):
                    self._writer.write(batch, message, topic, webhook_id, encoded)
                metrics.DELIVERIES_CREATED.add(len(webhook_ids))
                if topic == self._topics.overflow:
                    metrics.CROWDED.add(len(webhook_ids))

    # --- offsets

    def _collect_finished(self) -> dict[PartitionKey, int]:
        if not self._at_end and (not self._batches or self._batches[0].unacknowledged):
            return {}
        self._at_end = False
        while self._batches and not self._batches[0].unacknowledged:
            self._batches.popleft().finish()
        finished: dict[PartitionKey, int] = {}
        for key, partition in self._partitions.items():
            offset = partition.tracker.committable()
            if offset is not None:
                partition.tracker.committed(offset)
                finished[key] = offset
        return finished

    # --- as the owner of partitions

    def on_assigned(self, assignments: Sequence[Assignment]) -> None:
        for assignment in assignments:
            self._partitions[assignment.key] = Partition(assignment.suspect_until)
            metrics.PARTITIONS_ANEW.add(assignment.is_anew)

    def on_revoked(self, keys: Sequence[PartitionKey]) -> dict[PartitionKey, int]:
        # Closing revokes too, and has flushed before.
        self._writer.flush(max(0.0, min(_REVOKE_FLUSH_S, self._flush_until - time.monotonic())))
        finished = self._collect_finished()
        self.on_lost(keys)
        return finished

    def on_lost(self, keys: Sequence[PartitionKey]) -> None:
        for key in keys:
            self._partitions.pop(key).gone = True

    # --- telemetry

    def _report_lag(self) -> None:
        """While it is not known what is ours, nobody knows how much lies ahead: for so long, it may be so old."""
        now = time.time()
        if now - self._reported < 1.0:
            return
        self._reported = now
        lag_unknown_s = self._membership.lag_unknown_s()
        lags: dict[str, float] = dict.fromkeys(self._topics.events, nan if lag_unknown_s else 0)
        ages = dict.fromkeys(self._topics.events, 0.0)
        now_ms = round(now * 1000)
        for key, partition in self._partitions.items():
            lags[key.topic] += self._membership.lags.get(key, 0) + partition.waiting
            age_s = partition.unfinished.seconds(partition.tracker.oldest_incomplete, now_ms)
            ages[key.topic] = max(ages[key.topic], age_s)
        for topic, lag in lags.items():
            metrics.LAG_MESSAGES.set(lag, topic)
            age_s = lag_unknown_s or max(ages[topic], self._unread.seconds(topic, round(lag), now_ms))
            metrics.LAG_SECONDS.set(age_s, topic)


def _size(message: Message) -> int:
    """Bytes that it takes in memory: by itself a message knows its value's alone."""
    size = len(message) + len(message.key() or b"")
    headers: list[tuple[str, bytes | None]] | None = message.headers()  # type: ignore[assignment]  # as they arrive
    return size + sum(len(name) + len(value or b"") for name, value in headers) if headers else size
