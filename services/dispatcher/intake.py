"""From Kafka's messages to items: decode, note the offset, recognise what was done before.

A message may have been handled before when it lay in the log at assignment (an earlier owner may have got to it), when
the router wrote it while replaying, or when it comes from a retry topic or the overflow (a crash between writing there
and recording leaves two messages). The recorded attempts are asked about those before anything is sent (`lookup`); and
once more when they have waited in their lane since, because the other message may be in another process.
"""

import asyncio
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from math import nan
from typing import Final, NamedTuple

from confluent_kafka import Message

from go2hooks.codec import decode_delivery
from go2hooks.core.domain.delivery import Delivery
from go2hooks.core.domain.duplicates import Claims
from go2hooks.core.errors import UnavailableError, UndecodableEventError
from go2hooks.core.flow.lag import UnreadAge
from go2hooks.kafka.consumer import PolledConsumer
from go2hooks.kafka.partitions import Assignment, Partition, PartitionKey, position_of, take_committable
from go2hooks.telemetry import metrics
from services.dispatcher.work_item import Origin, Source, Stage, WorkItem

_DRAIN_POLL_S: Final = 0.01


class IntakeServices(NamedTuple):
    """What all intakes of a dispatcher share."""

    evict: Callable[[Callable[[WorkItem], bool]], list[WorkItem]]  #: takes waiting items out of their lanes
    bury: Callable[[Message, UndecodableEventError, Callable[[], None]], None]  #: keeps what cannot be decoded
    claims: Claims[WorkItem]
    deployments: AbstractSet[str] = frozenset()  #: whose deliveries are ours to make; filled before anything is read


class MainStage:
    """Of the main topic: an item goes on at once, or as soon as the records were asked about it."""

    def __init__(self, ask: Callable[[Sequence[WorkItem]], None], admit: Callable[[WorkItem], None]) -> None:
        self._ask = ask
        self._admit = admit

    def take(self, item: WorkItem) -> None:
        if item.needs_lookup:
            self._ask([item])
        else:
            self._admit(item)

    def go_on(self, item: WorkItem, *, is_awaited: bool) -> None:  # noqa: ARG002  # its record has expired
        self._admit(item)

    def evict(self) -> list[WorkItem]:
        return []


class Intake:
    """The sink of `consumer`. Everything runs on the event loop."""

    def __init__(
        self,
        source: Source,
        consumer: PolledConsumer,
        stage: Stage,
        ask: Callable[[Sequence[WorkItem]], None],
        services: IntakeServices,
        *,
        hand_on: Callable[[WorkItem], None] | None = None,
        late_s: Callable[[str, int], float] | None = None,
    ) -> None:
        """`ask` has the records asked about items (`lookup`). `late_s(topic, now_ms)` says how late a topic's messages are; without it the oldest unread one does."""
        self.consumer = consumer
        self._stage = stage
        self._evict, self._bury, self._claims, self._deployments = services
        self._origin = Origin(source, stage, ask, self._claims, hand_on)
        self._late_s = late_s
        self._partitions: dict[PartitionKey, Partition] = {}
        self._unread = UnreadAge()

    @property
    def source(self) -> Source:
        return self._origin.source

    # --- Sink

    def on_assigned(self, assignments: Sequence[Assignment]) -> None:
        for assignment in assignments:
            self._partitions[assignment.key] = Partition(assignment)
            metrics.PARTITIONS_ANEW.add(assignment.is_anew)

    def receive(self, messages: list[Message]) -> None:
        for message in messages:
            item = self._read(message)
            if item is not None:
                self._stage.take(item)

    async def on_revoked(self, keys: Sequence[PartitionKey]) -> dict[PartitionKey, int]:
        """Hand on what has not started, wait for what has, give the offsets to commit.

        If it were dropped instead, all behind it would be read again: also what was moved aside since, of which there
        would then be two messages, for two processes.
        """
        for key in keys:
            if key in self._partitions:
                self._partitions[key].leaving = True
        leaving = self._forget(keys)
        try:
            while any(partition.held for partition in leaving):  # noqa: ASYNC110  # once per rebalance, and bounded by the caller
                await asyncio.sleep(_DRAIN_POLL_S)
        finally:
            for partition in leaving:
                partition.leaving = False
        # Those that were stored too: the poll thread may not have come to it.
        offsets = ((partition.key, partition.tracker.resume_at) for partition in leaving)
        return {key: offset for key, offset in offsets if offset is not None}

    def on_lost(self, keys: Sequence[PartitionKey]) -> None:
        self._forget(keys)

    # --- now and then

    def store_offsets(self) -> None:
        """Hand finished offsets to librdkafka, which commits them."""
        finished = take_committable(self._partitions)
        if finished:
            self.consumer.store(finished)

    def report_lag(self, now_ms: int) -> None:
        """Set the lag gauges of this intake's topics; NaN while the consumer does not know how much lies ahead."""
        lag_unknown_s = self.consumer.lag_unknown_s()
        backlog = dict.fromkeys(self.consumer.topics, 0)  # 0, not absent or as it was, when no partition is ours
        unfinished = dict.fromkeys(self.consumer.topics, 0.0)
        for key, count in self.consumer.lags.items():
            backlog[key.topic] += count
        for key, partition in self._partitions.items():
            unfinished[key.topic] = max(unfinished[key.topic], partition.unfinished_s(now_ms))
        for topic, count in backlog.items():
            late_s = self._late_s(topic, now_ms) if self._late_s else self._unread.seconds(topic, count, now_ms)
            metrics.LAG_MESSAGES.set(nan if lag_unknown_s else count, topic)
            metrics.LAG_SECONDS.set(lag_unknown_s or late_s, topic)
            metrics.UNFINISHED_SECONDS.set(unfinished[topic], topic)

    # --- inside

    def _read(self, message: Message) -> WorkItem | None:
        """The message's item; None when there is nothing to do for it."""
        position = position_of(message)
        topic, number, offset = position
        weight = self.consumer.weigh(len(message))
        partition = self._partitions.get(PartitionKey(topic, number))
        if partition is None:  # revoked while this batch was on its way
            self.consumer.release(weight)
            return None
        partition.begin(offset)
        _kind, written_ms = message.timestamp()
        self._unread.read(topic, written_ms)
        try:
            delivery = decode_delivery(message.value() or b"")
        except UndecodableEventError as error:
            metrics.DELIVERIES_DEAD.add()
            self._bury(message, error, lambda: self._complete(partition, offset, weight))
            return None
        self._check_deployment(delivery, partition, offset)
        partition.hold(offset, max(written_ms, delivery.due_ms))
        item = WorkItem(delivery, position, partition, self._origin, self.consumer, weight)
        return item if item.claim() else None

    def _check_deployment(self, delivery: Delivery, partition: Partition, offset: int) -> None:
        if delivery.deployment and delivery.deployment not in self._deployments:
            raise UnavailableError(
                f"{partition.key.topic}/{partition.key.partition}/{offset} is a delivery of another deployment, "
                f"{delivery.deployment}, which writes to these topics too: give each a GO2HOOKS_KAFKA_PREFIX of its own"
            )

    def _complete(self, partition: Partition, offset: int, weight: int) -> None:
        partition.tracker.complete(offset)
        self.consumer.release(weight)

    def _forget(self, keys: Sequence[PartitionKey]) -> list[Partition]:
        leaving = [self._partitions.pop(key) for key in keys if key in self._partitions]
        for partition in leaving:
            partition.gone = True
        for item in (*self._evict(lambda item: item.partition.gone), *self._stage.evict()):
            item.drop()
        return leaving
