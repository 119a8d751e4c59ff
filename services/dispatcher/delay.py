"""The retry tiers' intake: what is read early waits here until it is due.

A buffer per partition, bounded; a full one pauses its partition, and Kafka keeps the rest. The due time is in the
message, so a restart neither loses nor hurries a waiting retry.

When it is due, and its circuit would let it through, the records are asked: a retry goes out only when the attempt before it is recorded as one that goes on.
Mostly that was so within milliseconds of its being written; after a crash between the two it takes until that attempt
has been made again.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import structlog

from go2hooks.core.flow.due import DueBuffer
from go2hooks.kafka.consumer import PolledConsumer
from go2hooks.kafka.partitions import Assignment, PartitionKey
from go2hooks.telemetry import metrics
from services.dispatcher.intake import Intake, IntakeServices, Partition, WorkItem

log = structlog.get_logger(__name__)

_GATHER_S: Final = 0.02  # between two releases: the records are asked about many at once for little more than about one
_ASK_AGAIN_MS: Final = 1000
_SOON: Final = 30  # times that it is asked so quickly; then
_ASK_LATER_MS: Final = 10_000
_SKEW_MS: Final = 1000  # by which clocks may differ without its being counted
_BUFFERED_BYTES: Final = 2048  # per message that a buffer may hold
_PATIENCE: Final = 100  # times, a quarter of an hour in all: better a second chain than none


class RetryIntake(Intake):
    """Holds each item until its due time, then admits it."""

    def __init__(
        self,
        consumer: PolledConsumer,
        admit: Callable[[WorkItem], None],
        services: IntakeServices,
        *,
        turn_away: Callable[[WorkItem], bool],
        buffer_messages: int,
        max_due: int,
        delays_s: Mapping[str, float] = MappingProxyType({}),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`buffer_messages` of 2 KiB on average per partition; at most `max_due` of weight due and not finished, in all.

        `delays_s` gives each topic's delay: no message waits for longer than that from when it was read. `turn_away` moves one aside that could not start now, and says whether it did. `clock` gives seconds since the epoch.
        """
        super().__init__("retry", consumer, self._buffer, services)
        self._admit_due = admit
        self._turn_away = turn_away
        self._capacity = buffer_messages
        self._max_due = max_due
        self._delays_s = delays_s
        self._clock = clock
        self._due = 0
        self._buffers: dict[PartitionKey, DueBuffer[WorkItem]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due_ms = 0

    @property
    def waiting(self) -> int:
        """Retries in memory that are not due yet (or have no room yet)."""
        return sum(map(len, self._buffers.values()))

    def on_assigned(self, assignments: Sequence[Assignment]) -> None:
        super().on_assigned(assignments)
        for assignment in assignments:
            self._buffers[assignment.key] = DueBuffer(self._capacity, self._capacity * _BUFFERED_BYTES)

    def _needs_lookup(self, item: WorkItem) -> bool:  # noqa: ARG002  # each is, but not before it is due
        return False

    def _buffer(self, item: WorkItem) -> None:
        item.buffered = True
        self.consumer.release(item.weight)  # bounded by the buffer from here on, not by the consumer's window
        self._keep_until(self._believed_due_ms(item), item)

    def _believed_due_ms(self, item: WorkItem) -> int:
        """When it is due, but no later than its tier's delay from now: whoever wrote it may have had a clock that ran
        fast, and it lies at the head of its partition, before all others.
        """
        due_ms, delay_s = item.delivery.due_ms, self._delays_s.get(item.partition.key.topic)
        if delay_s is None:
            return due_ms
        latest_ms = int((self._clock() + delay_s) * 1000)
        if due_ms > latest_ms + _SKEW_MS:
            metrics.RETRY_DUE_IMPLAUSIBLE.add()
        return min(due_ms, latest_ms)

    def _keep_until(self, due_ms: int, item: WorkItem) -> None:
        key = item.partition.key
        buffer = self._buffers[key]
        buffer.add(due_ms, len(item.delivery.body), item)
        if buffer.should_pause():
            buffer.paused = True
            self.consumer.pause(key)
        if self._timer is None or due_ms < self._timer_due_ms:
            self._wake_at_next_due()

    def _wake_at_next_due(self, at_least_s: float = 0.0) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due = min((d for d in (b.next_due_ms() for b in self._buffers.values()) if d is not None), default=None)
        if due is None or self._due >= self._max_due:
            self._timer = None
            return
        self._timer_due_ms = due
        delay_s = max(at_least_s, due / 1000 - self._clock())
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._release_due)

    def _release_due(self) -> None:
        now_ms = int(self._clock() * 1000)
        due: list[WorkItem] = []
        for key, buffer in list(self._buffers.items()):
            if self._due >= self._max_due:
                break
            for item in buffer.pop_due(now_ms):
                self._due += item.weight
                if not self._turn_away(item):
                    due.append(item)
                if self._due >= self._max_due:
                    break
            if buffer.should_resume():
                buffer.paused = False
                self.consumer.resume(key)
        if due:
            self._ask(due)
        self._wake_at_next_due(at_least_s=_GATHER_S)

    def _begin_again(self, item: WorkItem) -> None:
        self._buffer(item)

    def _go_on(self, item: WorkItem) -> None:
        self._admit_due(item)

    def _await_record(self, item: WorkItem) -> None:
        if item.asked >= _PATIENCE:
            log.warning("retry goes out though the attempt before it was never recorded", delivery_id=item.delivery.id)
            self._go_on(item)
            return
        self._due -= item.weight
        pause_ms = _ASK_AGAIN_MS if item.asked < _SOON else _ASK_LATER_MS
        self._keep_until(int(self._clock() * 1000) + pause_ms, item)

    def _let_go(self, item: WorkItem) -> None:
        if not item.buffered:
            super()._let_go(item)
            return
        item.partition.held -= 1
        self._due -= item.weight
        if self._timer is None:
            self._wake_at_next_due(at_least_s=_GATHER_S)

    def _forget(self, keys: Sequence[PartitionKey]) -> list[Partition]:
        for key in keys:
            buffer = self._buffers.pop(key, None)
            for item in buffer.pop_due(2**63) if buffer else ():
                self._due += item.weight
                item.drop()
        return super()._forget(keys)

    def _lag_s(self, topic: str, backlog: int, now_ms: int) -> float:  # noqa: ARG002  # what waits its turn is not late
        dues = [b.next_due_ms() for key, b in self._buffers.items() if key.topic == topic]
        return max([0.0, *((now_ms - due) / 1000 for due in dues if due is not None)])
