"""Events in, deliveries out: read ahead, give each account its turn, fan out, store the offsets of what Kafka
acknowledged.

Commit rule: an event's offset is stored when Kafka has acknowledged every delivery or dead letter that came of it, and
of all events before it in its partition. A crash routes the rest again. Delivery ids are deterministic, and the
deliveries of an event that may have been routed before say so, so dispatchers look them up before they send.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any, Final

import structlog

from go2hooks.codec import EventCodec
from go2hooks.core.domain.matching import SubscriptionIndex
from go2hooks.core.errors import UnavailableError
from go2hooks.kafka.membership import Membership
from go2hooks.kafka.partitions import Assignment, Partition, PartitionKey, take_committable
from go2hooks.kafka.producing import InternalProducer
from go2hooks.kafka.topics import TopicNames
from go2hooks.telemetry import metrics
from services.router.batch import Batch
from services.router.fanout import FanOut
from services.router.reading import Reader
from services.router.scheduling import RouterBounds, Scheduler
from services.router.writing import Writer

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Waits:
    """How long the router waits at most, in seconds."""

    idle_s: float = 0.05  #: for a message or for room; a request to stop is seen after that
    reports_s: float = 0.002  #: for a message while deliveries are under way, whose reports are served between polls
    flush_s: float = 10.0  #: for acknowledgements, when partitions are revoked
    lag_s: float = 1.0  #: between two reports of the lag


_WAIT: Final = Waits()


class Router:
    """One consumer, one producer, one thread. Not thread-safe; only `index` is written by another thread."""

    def __init__(
        self,
        consumer_config: dict[str, Any],
        producer_config: dict[str, Any],
        topics: TopicNames,
        index: SubscriptionIndex,
        codec: EventCodec,
        bounds: RouterBounds,
        stopping: Callable[[], bool] = lambda: False,
        deployment: Callable[[], str] = str,
    ) -> None:
        """`stopping` is asked while librdkafka has no room: one event's fan-out may be more than it holds.

        `deployment` is the identity of this installation, which each delivery carries.
        """
        self._topics = topics
        self._bounds = bounds
        self._partitions: dict[PartitionKey, Partition] = {}
        self._batches: deque[Batch] = deque()
        self._membership = Membership(
            consumer_config | {"enable.partition.eof": True}, topics.events, self, finish_s=_WAIT.flush_s
        )
        self._kafka = InternalProducer(producer_config)
        self._scheduler = Scheduler(bounds)
        self._reader = Reader(self._membership, self._partitions, self._scheduler)
        self._fan_out = FanOut(index, codec, Writer(self._kafka, topics, stopping), topics, deployment)
        self._flush_until = float("inf")
        self._reported_at = 0.0
        metrics.ROUTER_IN_FLIGHT.read_from(lambda: {(): self._kafka.in_flight})

    @property
    def ready(self) -> bool:
        """Whether every partition assigned to this process is read, and Kafka answers. Any thread."""
        return self._membership.assigned and self._membership.reachable

    def start(self) -> None:
        self._membership.subscribe()

    def step(self) -> None:
        """Route what is there; waits up to 50 ms when nothing is.

        Raises UnavailableError when Kafka refuses a delivery for good, or does not let this process read.
        """
        self._kafka.poll(_WAIT.idle_s if self._is_full() else 0)
        self._reader.read(self._patience_s())
        if len(self._scheduler) and not self._is_full():
            self._route_turn()
        self._membership.store(self._collect_finished())
        self._membership.tend()
        self._report_lag()
        if self._kafka.failure is not None:
            raise UnavailableError(f"Kafka refused a delivery for good: {self._kafka.failure}")

    def close(self, timeout_s: float) -> None:
        """Wait for the acknowledgements of what is written, commit, leave the group. Bounded by `timeout_s`."""
        self._flush_until = time.monotonic() + timeout_s
        unacknowledged = self._kafka.flush(timeout_s)
        if unacknowledged:
            log.warning(
                "stopping with deliveries unacknowledged; their events will be routed again", count=unacknowledged
            )
        self._membership.store(self._collect_finished())
        self._membership.consumer.close()

    def _is_full(self) -> bool:
        return self._kafka.in_flight >= self._bounds.window

    def _patience_s(self) -> float:
        """How long to wait for a first message: not at all when there is something to route."""
        longest = _WAIT.reports_s if self._kafka.in_flight else _WAIT.idle_s
        return longest if self._is_full() else min(longest, self._scheduler.wait_s(time.monotonic()))

    def _route_turn(self) -> None:
        """Route the events whose turn it is, as one batch."""
        batch, now = Batch(), time.monotonic()
        batch.unacknowledged = 1  # our own hold: early reports must not finish a batch that is still being routed
        self._batches.append(batch)
        self._scheduler.begin_turn(now)
        while (event := self._scheduler.take(time.monotonic())) is not None:
            event.partition.held -= 1
            if not event.partition.gone:
                self._fan_out.route(event, batch, crowding=self._scheduler.is_crowding(event.account, now))
        batch.unacknowledged -= 1

    def _collect_finished(self) -> dict[PartitionKey, int]:
        """The offsets that may be stored, where they have changed."""
        if not self._reader.skipped and (not self._batches or self._batches[0].unacknowledged):
            return {}
        self._reader.skipped = False
        while self._batches and not self._batches[0].unacknowledged:
            self._batches.popleft().finish()
        return take_committable(self._partitions)

    # --- as the owner of partitions

    def on_assigned(self, assignments: Sequence[Assignment]) -> None:
        for assignment in assignments:
            self._partitions[assignment.key] = Partition(assignment)
            metrics.PARTITIONS_ANEW.add(assignment.is_anew)

    def on_revoked(self, keys: Sequence[PartitionKey]) -> dict[PartitionKey, int]:
        # `close` revokes too, and has flushed before.
        self._kafka.flush(max(0.0, min(_WAIT.flush_s, self._flush_until - time.monotonic())))
        finished = self._collect_finished()
        self.on_lost(keys)
        return finished

    def on_lost(self, keys: Sequence[PartitionKey]) -> None:
        for key in keys:
            self._partitions.pop(key).gone = True

    # --- telemetry

    def _report_lag(self) -> None:
        """Until the assignment is known, nobody knows how much lies ahead: the lag is the time since it was lost."""
        now = time.time()
        if now - self._reported_at < _WAIT.lag_s:
            return
        self._reported_at = now
        lag_unknown_s = self._membership.lag_unknown_s()
        lags: dict[str, float] = dict.fromkeys(self._topics.events, nan if lag_unknown_s else 0)
        ages = dict.fromkeys(self._topics.events, 0.0)
        now_ms = round(now * 1000)
        for key, partition in self._partitions.items():
            lags[key.topic] += self._membership.lags.get(key, 0) + partition.held
            ages[key.topic] = max(ages[key.topic], partition.unfinished_s(now_ms))
        for topic, lag in lags.items():
            metrics.LAG_MESSAGES.set(lag, topic)
            age_s = lag_unknown_s or max(ages[topic], self._reader.unread.seconds(topic, round(lag), now_ms))
            metrics.LAG_SECONDS.set(age_s, topic)
