"""From Kafka's messages to items: decode, note the offset, recognise what was done before.

A message may have been handled before when it lay in the log at assignment (an earlier owner may have got to it), when
the router wrote it while replaying, or when it comes from a retry tier or the overflow (a crash between writing there
and recording forks the chain). Those are looked up among the recorded attempts before anything is sent; and once more
when they waited in their lane since, because the other message of the two may be in another process, which made the
attempt meanwhile.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from collections.abc import Set as AbstractSet
from math import nan
from typing import Final, Literal, NamedTuple

import structlog
from confluent_kafka import Message

from go2hooks.codec import decode_delivery
from go2hooks.core.domain.delivery import Delivery, Position
from go2hooks.core.domain.duplicates import Claims, Standing, standing
from go2hooks.core.errors import UnavailableError, UndecodableEventError
from go2hooks.core.flow.offsets import OffsetTracker
from go2hooks.kafka.consumer import PolledConsumer
from go2hooks.kafka.partitions import Assignment, PartitionKey, position_of, went_back
from go2hooks.postgres.attempts import AttemptKey
from go2hooks.telemetry import metrics
from go2hooks.telemetry.lag import UnfinishedAge, UnreadAge

log = structlog.get_logger(__name__)

Source = Literal["main", "retry", "overflow"]
FindStates = Callable[[Sequence[AttemptKey]], Awaitable[dict[AttemptKey, str]]]

_QUESTION_TICKETS: Final = 1000
_SLICE: Final = 4  # of what was asked about together
_DRAIN_POLL_S: Final = 0.01
_OUTDATED_S: Final = 1.0  # so long the records' answer holds: an attempt that was under way then may be recorded since


class Partition:
    """One assignment of one partition."""

    __slots__ = ("gone", "held", "key", "leaving", "suspect_until", "tracker", "unfinished")

    def __init__(self, assignment: Assignment) -> None:
        self.key = assignment.key
        self.suspect_until = assignment.suspect_until
        self.tracker = OffsetTracker()
        self.unfinished = UnfinishedAge()
        self.held = 0  # items that are neither finished nor dropped
        self.gone = False  # revoked or lost: what has not started must not
        self.leaving = False  # being given back: what is finished now is still committed


class WorkItem:
    """One delivery in this process, from its message to its record."""

    __slots__ = (
        "asked",
        "buffered",
        "delivery",
        "intake",
        "looked_up_at",
        "on_answer",
        "partition",
        "position",
        "waiting_duplicates",
        "weight",
    )  # fmt: skip

    def __init__(
        self, delivery: Delivery, position: Position, partition: Partition, intake: "Intake", weight: int
    ) -> None:
        self.delivery = delivery
        self.position = position
        self.partition = partition
        self.intake = intake
        self.weight = weight  # of its message, in the consumer's window
        self.waiting_duplicates: list[WorkItem] = []  # other messages for the same attempt, which end as this one does
        self.asked = 0  # how often the records were asked about it
        self.looked_up_at = 0.0  # when they were asked last, in monotonic seconds; 0 for what was never looked up
        self.on_answer: Callable[[bool], None] | None = None  # told instead of its being admitted; see `ask_again`
        self.buffered = False  # waits, or has waited, in a due buffer: no longer counts in the consumer's window

    @property
    def source(self) -> Source:
        return self.intake.source

    def is_outdated(self, now: float) -> bool:
        """Whether what the records said of it may no longer be so. `now` in monotonic seconds."""
        return bool(self.looked_up_at) and now - self.looked_up_at > _OUTDATED_S

    def ask_again(self, on_answer: Callable[[bool], None]) -> None:
        """Have the records asked once more: `on_answer` hears whether the attempt is still to be made; else this ends here."""
        self.on_answer = on_answer
        self.intake.ask_again(self)

    def finish(self) -> None:
        """All that had to be kept is kept: its offset may be committed."""
        self.intake.finished(self)

    def recorded(self) -> None:
        """The attempt is among the records: another message for it is a duplicate from now on, and this one is finished."""
        self.intake.recorded(self)

    def take_back(self) -> bool:
        """It could not be moved aside. Whether it is still for this process to make; else this ends here."""
        return self.intake.taken_back(self)

    def drop(self) -> None:
        """It is not for this process any more: it is handed on, or the partition's next owner reads it again."""
        self.intake.dropped(self)


class IntakeServices(NamedTuple):
    """What all intakes of a dispatcher work with."""

    evict: Callable[[Callable[[WorkItem], bool]], list[WorkItem]]  #: takes waiting items out of their lanes
    bury: Callable[
        [Message, UndecodableEventError, Callable[[], None]], None
    ]  #: keeps a message that cannot be decoded
    find_states: FindStates
    claims: Claims[WorkItem]
    deployments: AbstractSet[str] = frozenset()  #: whose deliveries are ours to make; filled before anything is read


class Intake:
    """The sink of `consumer`. Everything runs on the event loop."""

    def __init__(
        self,
        source: Source,
        consumer: PolledConsumer,
        admit: Callable[[WorkItem], None],
        services: IntakeServices,
        *,
        hand_on: Callable[[WorkItem], None] | None = None,
    ) -> None:
        """`hand_on` moves aside what waits when its partition is given back."""
        self.source = source
        self.consumer = consumer
        self._hand_on = hand_on
        self._admit = admit
        self._evict, self._bury, self._find_states, self._claims, self._deployments = services
        self._partitions: dict[PartitionKey, Partition] = {}
        self._to_ask: list[WorkItem] = []
        self._asking: asyncio.Task[None] | None = None
        self._unread = UnreadAge()

    # --- Sink

    def on_assigned(self, assignments: Sequence[Assignment]) -> None:
        for assignment in assignments:
            self._partitions[assignment.key] = Partition(assignment)
            metrics.PARTITIONS_ANEW.add(assignment.is_anew)

    def receive(self, messages: list[Message]) -> None:
        to_look_up: list[WorkItem] = []
        for message in messages:
            item = self._take(message)
            if item is None:
                continue
            if self._needs_lookup(item):
                to_look_up.append(item)
            else:
                self._admit(item)
        if to_look_up:
            self._ask(to_look_up)

    async def on_revoked(self, keys: Sequence[PartitionKey]) -> dict[PartitionKey, int]:
        """Hand on what has not started, wait for what has, give the offsets to commit.

        What was dropped instead would leave a gap: all behind it would be read again, among it what was moved aside since,
        of which there would then be two messages, for two processes.
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

    # --- items

    def recorded(self, item: WorkItem) -> None:
        self._claims.recorded(item.delivery.id, item.delivery.attempt)
        self.finished(item)

    def finished(self, item: WorkItem) -> None:
        item.partition.tracker.complete(item.position.offset)
        self._let_go(item)
        for duplicate in item.waiting_duplicates:
            duplicate.finish()

    def dropped(self, item: WorkItem) -> None:
        if item.partition.leaving and self._hand_on is not None:
            self._hand_on(item)
            return
        self._claims.give_up(item.delivery.id, item.delivery.attempt)
        self._abandon(item)

    def taken_back(self, item: WorkItem) -> bool:
        if not item.partition.gone:
            return self._claim(item)
        self._abandon(item)  # its partition's next owner reads it again
        return False

    def _abandon(self, item: WorkItem) -> None:
        self._let_go(item)
        for duplicate in item.waiting_duplicates:
            duplicate.intake.inherited(duplicate)

    def inherited(self, item: WorkItem) -> None:
        """Another message for the same attempt came to nothing: this one stands for it now."""
        if item.partition.gone:
            self._let_go(item)
        elif self._claim(item):
            self._begin_again(item)

    def _begin_again(self, item: WorkItem) -> None:
        self._ask([item])

    def ask_again(self, item: WorkItem) -> None:
        """It was looked up, admitted, and has waited."""
        self._ask([item])

    def store_offsets(self) -> None:
        """Hand finished offsets to librdkafka, which commits them."""
        finished: dict[PartitionKey, int] = {}
        for key, partition in self._partitions.items():
            offset = partition.tracker.committable()
            if offset is not None:
                finished[key] = offset
                partition.tracker.committed(offset)
        if finished:
            self.consumer.store(finished)

    def report_lag(self, now_ms: int) -> None:
        """Set the lag gauges of this intake's topics; while the consumer is blind nobody knows how much lies ahead."""
        lag_unknown_s = self.consumer.lag_unknown_s()
        backlog = dict.fromkeys(self.consumer.topics, 0)  # 0, not absent or as it was, when no partition is ours
        unfinished = dict.fromkeys(self.consumer.topics, 0.0)
        for key, count in self.consumer.lags.items():
            backlog[key.topic] += count
        for key, partition in self._partitions.items():
            age_s = partition.unfinished.seconds(partition.tracker.oldest_incomplete, now_ms)
            unfinished[key.topic] = max(unfinished[key.topic], age_s)
        for topic, count in backlog.items():
            metrics.LAG_MESSAGES.set(nan if lag_unknown_s else count, topic)
            metrics.LAG_SECONDS.set(lag_unknown_s or self._lag_s(topic, count, now_ms), topic)
            metrics.UNFINISHED_SECONDS.set(unfinished[topic], topic)

    # --- inside

    def _lag_s(self, topic: str, backlog: int, now_ms: int) -> float:
        return self._unread.seconds(topic, backlog, now_ms)

    def _needs_lookup(self, item: WorkItem) -> bool:
        return item.position.offset < item.partition.suspect_until or item.delivery.suspect

    def _take(self, message: Message) -> WorkItem | None:
        """The message's item; None when there is nothing to do for it."""
        position = position_of(message)
        topic, number, offset = position
        weight = self.consumer.weigh(len(message))
        partition = self._partitions.get(PartitionKey(topic, number))
        if partition is None:  # revoked while this batch was on its way
            self.consumer.release(weight)
            return None
        try:
            partition.tracker.begin(offset)
        except ValueError:
            raise went_back(partition.key) from None
        _kind, written_ms = message.timestamp()
        self._unread.read(topic, written_ms)
        try:
            delivery = decode_delivery(message.value() or b"")
        except UndecodableEventError as error:
            metrics.DELIVERIES_DEAD.add()
            self._bury(message, error, lambda: self._complete(partition, offset, weight))
            return None
        if delivery.deployment and delivery.deployment not in self._deployments:
            raise UnavailableError(
                f"{topic}/{number}/{offset} is a delivery of another deployment, {delivery.deployment}, which writes to these "
                "topics too: give each a GO2HOOKS_KAFKA_PREFIX of its own"
            )
        partition.held += 1
        partition.unfinished.begin(offset, max(written_ms, delivery.due_ms))
        item = WorkItem(delivery, position, partition, self, weight)
        return item if self._claim(item) else None

    def _claim(self, item: WorkItem) -> bool:
        """Take the attempt on. Otherwise the message is a second one, and ends when it may."""
        delivery = item.delivery
        if self._claims.claim(delivery.id, delivery.attempt, item):
            return True
        metrics.DUPLICATES.add()
        holder = self._claims.holder(delivery.id, delivery.attempt)
        if holder is not None and holder.partition.gone:
            # The holder's offset is no longer ours: if it comes to nothing, nobody but this message brings it back.
            holder.waiting_duplicates.append(item)
        else:
            self.finished(item)
        return False

    def _complete(self, partition: Partition, offset: int, weight: int) -> None:
        partition.tracker.complete(offset)
        self.consumer.release(weight)

    def _ask(self, items: list[WorkItem]) -> None:
        """Have the records asked for these. One question at a time: what gathers meanwhile makes up the next."""
        self._to_ask += items
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_all())
            self._asking.add_done_callback(self._asked_all)

    async def _ask_all(self) -> None:
        while self._to_ask:
            items, self._to_ask = self._to_ask[:_QUESTION_TICKETS], self._to_ask[_QUESTION_TICKETS:]
            await self._look_up(items)

    def _asked_all(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.consumer.failure = error  # its items hang: the process has to end

    async def _look_up(self, items: list[WorkItem]) -> None:
        """Admit those of `items` whose attempt is still to be made."""
        if not items:
            return
        keys = [_key_of(item.delivery) for item in items]
        before = [key._replace(attempt=key.attempt - 1) for key in keys if key.attempt > 1]
        asked_at = time.monotonic()
        states = await self._find_states([*keys, *before])
        for number, (item, key) in enumerate(zip(items, keys, strict=True), 1):
            if not number % _SLICE:
                await asyncio.sleep(0)  # what came by the main lane meanwhile goes first
            item.asked += 1
            item.looked_up_at = asked_at
            on_answer, item.on_answer = item.on_answer, None
            previous = states.get(key._replace(attempt=key.attempt - 1))
            match standing(item.delivery, states.get(key), previous):
                case Standing.MADE | Standing.OVER:
                    metrics.DUPLICATES.add()
                    item.recorded()
                    if on_answer is not None:
                        on_answer(False)  # noqa: FBT003  # no, it is not
                case _ if on_answer is not None:
                    on_answer(True)  # noqa: FBT003  # yes, it is
                case _ if item.partition.gone:
                    item.drop()
                case Standing.OPEN:
                    self._go_on(item)
                case Standing.AWAITED:
                    self._await_record(item)

    def _go_on(self, item: WorkItem) -> None:
        self._admit(item)

    def _await_record(self, item: WorkItem) -> None:
        """Only retries can be ahead of a record; elsewhere it is a matter of the records' retention."""
        self._go_on(item)

    def _forget(self, keys: Sequence[PartitionKey]) -> list[Partition]:
        leaving = [self._partitions.pop(key) for key in keys if key in self._partitions]
        for partition in leaving:
            partition.gone = True
        for item in self._evict(lambda item: item.partition.gone):
            item.drop()
        return leaving

    def _let_go(self, item: WorkItem) -> None:
        item.partition.held -= 1
        self.consumer.release(item.weight)


def _key_of(delivery: Delivery) -> AttemptKey:
    return AttemptKey(delivery.webhook_id, delivery.origin_ms, delivery.id, delivery.attempt)
