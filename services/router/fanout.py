"""Events in, deliveries out: decode, match, render once, write one delivery per match.

Commit rule: a batch's offsets are stored when Kafka has acknowledged every delivery and dead letter that came of it and
of all batches before it. A crash replays the rest; delivery ids are deterministic, and replayed deliveries say that
they are suspect, so dispatchers look before they send.
"""

import time
from collections import deque
from collections.abc import Sequence
from math import nan
from typing import Any, Final

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from go2hooks.codec import EventCodec, encode_delivery
from go2hooks.core.errors import EventError, UnavailableError
from go2hooks.core.fanout import first_deliveries
from go2hooks.core.matching import SubscriptionIndex
from go2hooks.core.payload import render
from go2hooks.core.validation import validate
from go2hooks.kafka.membership import Membership
from go2hooks.kafka.partitions import Assignment, PartitionKey, position_of
from go2hooks.kafka.topics import DELIVERIES, EVENT_TOPICS, EVENTS_DEAD
from go2hooks.telemetry import metrics
from go2hooks.telemetry.lag import UnreadAge

log = structlog.get_logger(__name__)

Headers = list[tuple[str, str | bytes | None]]

# Kafka's time of an event dates its records; a topic of somebody else's making may have none, or a producer's wrong one.
_CREDIBLE_MS: Final = range(946_684_800_000, 253_402_300_800_000)  # years 2000 to 9999
_BATCH: Final = 200
_POLL_S: Final = 0.05
_POLL_AT_LEAST_S: Final = 30.0
_REVOKE_FLUSH_S: Final = 10.0


class _Batch:
    """Messages taken together: complete when `remaining` writes are acknowledged and reading is over."""

    __slots__ = ("next_offsets", "remaining")

    def __init__(self) -> None:
        self.remaining = 0
        self.next_offsets: dict[PartitionKey, int] = {}


class Router:
    """One consumer, one producer, one thread. Not thread-safe; only `index` is written by another thread."""

    def __init__(
        self,
        consumer_config: dict[str, Any],
        producer_config: dict[str, Any],
        index: SubscriptionIndex,
        codec: EventCodec,
        window: int,
    ) -> None:
        self._membership = Membership(consumer_config, EVENT_TOPICS, self, finish_s=_REVOKE_FLUSH_S)
        self._consumer = self._membership.consumer
        self._producer = Producer(producer_config | {"error_cb": self._on_error})
        self._index = index
        self._codec = codec
        self._window = window
        self._in_flight = 0
        self._batches: deque[_Batch] = deque()
        self._suspect_until: dict[PartitionKey, int] = {}
        self._unread = UnreadAge()
        self._failure: str | None = None
        self._flush_until = float("inf")
        self._reported = 0.0
        self._polled_at = 0.0
        metrics.ROUTER_IN_FLIGHT.read_from(lambda: {(): self._in_flight})

    @property
    def ready(self) -> bool:
        """Whether all is read that is ours to be read, and Kafka is there. Any thread."""
        return self._membership.assigned and self._membership.reachable

    def start(self) -> None:
        self._membership.subscribe()

    def step(self) -> None:
        """Route what is there; waits up to 50 ms when nothing is. Raises UnavailableError when Kafka refuses for good, or we do not get to read."""
        self._producer.poll(0)
        if self._in_flight >= self._window:
            self._wait_for_room()
        else:
            self._polled_at = time.monotonic()
            first = self._consumer.poll(_POLL_S if not self._in_flight else 0.002)
            if first is not None:
                self._route_all([first, *self._consumer.consume(_BATCH - 1, 0)])
        self._membership.store(self._collect_finished())
        self._membership.tend()
        self._report_lag()
        if self._failure is not None:
            raise UnavailableError(f"Kafka refused a delivery for good: {self._failure}")

    def _wait_for_room(self) -> None:
        """Serve reports, 50 ms long. Now and then poll, taking nothing new: the group throws out who does not."""
        self._producer.poll(_POLL_S)
        if time.monotonic() - self._polled_at < _POLL_AT_LEAST_S:
            return
        self._polled_at = time.monotonic()
        self._consumer.pause([TopicPartition(*key) for key in self._membership.owned])
        leftover = self._consumer.poll(0)  # what was on its way
        if leftover is not None:
            self._route_all([leftover])
        self._consumer.resume([TopicPartition(*key) for key in self._membership.owned])

    def close(self, timeout_s: float) -> None:
        """Finish what is produced, commit, leave the group. Bounded by `timeout_s`."""
        self._flush_until = time.monotonic() + timeout_s
        unacknowledged = self._producer.flush(timeout_s)
        if unacknowledged:
            log.warning(
                "stopping with deliveries unacknowledged; their events will be routed again", count=unacknowledged
            )
        self._membership.store(self._collect_finished())
        self._consumer.close()

    # --- routing

    def _route_all(self, messages: Sequence[Message]) -> None:
        batch = _Batch()
        batch.remaining = 1  # our own hold, so that early reports cannot complete a batch that is still being read
        self._batches.append(batch)
        for message in messages:
            error = message.error()
            if error is None:
                self._route(message, batch)
            elif error.fatal():
                raise KafkaException(error)
            else:
                log.warning("kafka reports", error=error.str())
        batch.remaining -= 1

    def _route(self, message: Message, batch: _Batch) -> None:
        position = position_of(message)
        key = PartitionKey(position.topic, position.partition)
        _kind, accepted_ms = message.timestamp()
        self._unread.read(key.topic, accepted_ms)
        try:
            event = self._codec.decode(message.value() or b"")
            validate(event)
            webhook_ids = self._index.match(event.account_id, event.type)
            rendered = render(event) if webhook_ids else None
        except EventError as error:
            self._bury(message, error, batch)
        else:
            metrics.EVENTS.add(1, event.type)
            if rendered is not None:
                origin_ms = accepted_ms if accepted_ms in _CREDIBLE_MS else event.timestamp_ms
                suspect = position.offset < self._suspect_until.get(key, 0)
                for delivery in first_deliveries(event, rendered, webhook_ids, origin_ms, suspect=suspect):
                    self._produce(batch, DELIVERIES, delivery.webhook_id, encode_delivery(delivery))
                metrics.DELIVERIES_CREATED.add(len(webhook_ids))
        batch.next_offsets[key] = position.offset + 1

    def _bury(self, message: Message, error: EventError, batch: _Batch) -> None:
        """Keep a bad event as it came, with where it came from and why it is bad."""
        metrics.EVENTS_DEAD.add(1, error.reason)
        topic, partition, offset = position_of(message)
        headers: Headers = [
            ("go2hooks-reason", error.reason),
            ("go2hooks-detail", str(error)[:500]),
            ("go2hooks-topic", topic),
            ("go2hooks-partition", str(partition)),
            ("go2hooks-offset", str(offset)),
        ]
        self._produce(batch, EVENTS_DEAD, message.key(), message.value(), headers)

    def _produce(
        self,
        batch: _Batch,
        topic: str,
        key: str | bytes | None,
        value: bytes | None,
        headers: Headers | None = None,
    ) -> None:
        def report(error: KafkaError | None, _message: Message) -> None:
            self._in_flight -= 1
            if error is None:
                batch.remaining -= 1
            else:
                self._failure = error.str()

        batch.remaining += 1
        self._in_flight += 1
        while True:
            try:
                self._producer.produce(topic, value, key, on_delivery=report, headers=headers)
            except BufferError:
                self._producer.poll(_POLL_S)
            else:
                return

    # --- offsets

    def _collect_finished(self) -> dict[PartitionKey, int]:
        finished: dict[PartitionKey, int] = {}
        while self._batches and not self._batches[0].remaining:
            finished |= self._batches.popleft().next_offsets
        return finished

    # --- as the owner of partitions

    def began(self, assignments: Sequence[Assignment]) -> None:
        self._suspect_until |= dict(assignments)

    def finish(self, keys: Sequence[PartitionKey]) -> dict[PartitionKey, int]:
        # Closing revokes too, and has flushed before.
        self._producer.flush(max(0.0, min(_REVOKE_FLUSH_S, self._flush_until - time.monotonic())))
        finished = self._collect_finished()
        self.lost(keys)
        return finished

    def lost(self, keys: Sequence[PartitionKey]) -> None:
        for key in keys:
            del self._suspect_until[key]
        for batch in self._batches:
            for key in keys:
                batch.next_offsets.pop(key, None)

    # --- telemetry

    def _report_lag(self) -> None:
        """While it is not known what is ours, nobody knows how much lies ahead: for so long, it may be so old."""
        now = time.time()
        if now - self._reported < 1.0:
            return
        self._reported = now
        blind_s = self._membership.blind_s()
        lags: dict[str, float] = dict.fromkeys(EVENT_TOPICS, nan if blind_s else 0)
        for key, count in self._membership.lags.items():
            lags[key.topic] += count
        for topic, lag in lags.items():
            metrics.LAG_MESSAGES.set(lag, topic)
            metrics.LAG_SECONDS.set(blind_s or self._unread.seconds(topic, round(lag), round(now * 1000)), topic)

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._failure = error.str()
        log.warning("kafka client reports", error=error.str(), fatal=error.fatal())
