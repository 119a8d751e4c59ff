"""The retry topics' stage: what is read early waits here until it is due.

A buffer per partition, bounded; a full one pauses its partition, and Kafka keeps the rest. The due time is in the
message, so a restart neither loses nor hurries a waiting retry.

When it is due, and its circuit would let it through, the records are asked: a retry goes out only when the attempt before it is recorded as one that goes on.
Mostly that was so within milliseconds of its being written; after a crash between the two it takes until that attempt
has been made again.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import structlog

from go2hooks.core.flow.due import DueBuffer
from go2hooks.kafka.consumer import PolledConsumer
from go2hooks.kafka.partitions import Partition
from go2hooks.telemetry import metrics
from services.dispatcher.work_item import WorkItem

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RetryTimes:
    """When retries are released, and how often the records are asked about one."""

    gather_s: float = 0.02  #: between two releases: to ask about many at once costs little more than to ask about one
    buffered_bytes: int = 2048  #: per message that a buffer may hold
    clock_skew_ms: int = 1000  #: clocks may differ by this without its being counted
    ask_again_ms: int = 1000  #: until the record of the attempt before it is there, mostly after a crash
    quick_asks: int = 30  #: so often; then
    ask_later_ms: int = 10_000
    asks: int = 100  #: in all, a quarter of an hour; then it goes out: a second chain of attempts is better than none


_TIMES: Final = RetryTimes()


class RetryStage:
    """Holds each item until its due time, then asks the records and admits it. Also the window of what is due."""

    def __init__(
        self,
        consumer: PolledConsumer,
        ask: Callable[[Sequence[WorkItem]], None],
        admit: Callable[[WorkItem], None],
        *,
        turn_away: Callable[[WorkItem], bool],
        buffer_messages: int,
        max_due: int,
        delays_s: Mapping[str, float] = MappingProxyType({}),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`buffer_messages` of 2 KiB on average per partition; at most `max_due` of weight due and not finished, in all.

        `delays_s` gives each topic's delay: no message waits longer than that from when it was read. `turn_away` moves
        aside an item that could not start now, and says whether it did. `clock` gives seconds since the epoch.
        """
        self._consumer = consumer
        self._ask = ask
        self._admit = admit
        self._turn_away = turn_away
        self._capacity = buffer_messages
        self._max_due = max_due
        self._delays_s = delays_s
        self._clock = clock
        self._due = 0
        self._buffers: dict[Partition, DueBuffer[WorkItem]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due_ms = 0

    @property
    def waiting(self) -> int:
        """Retries in memory that are not due yet (or have no room yet)."""
        return sum(map(len, self._buffers.values()))

    # --- Stage

    def take(self, item: WorkItem) -> None:
        item.window.release(item.weight)  # bounded by the buffer from here on
        item.window = self  # once it is due
        self._keep_until(self._believed_due_ms(item), item)

    def go_on(self, item: WorkItem, *, is_awaited: bool) -> None:
        """A retry goes out when the attempt before it is recorded as failed; the records are asked until it is."""
        if is_awaited and item.asked < _TIMES.asks:
            self._due -= item.weight
            pause_ms = _TIMES.ask_again_ms if item.asked < _TIMES.quick_asks else _TIMES.ask_later_ms
            self._keep_until(int(self._clock() * 1000) + pause_ms, item)
            return
        if is_awaited:
            log.warning("retry goes out though the attempt before it was never recorded", delivery_id=item.delivery.id)
        self._admit(item)

    def evict(self) -> list[WorkItem]:
        evicted: list[WorkItem] = []
        for partition in [partition for partition in self._buffers if partition.gone]:
            evicted += self._buffers.pop(partition).pop_due(2**63)
        self._due += sum(item.weight for item in evicted)  # each leaves by `release`
        return evicted

    # --- Window

    def release(self, weight: int) -> None:
        self._due -= weight
        if self._timer is None:
            self._wake_at_next_due(at_least_s=_TIMES.gather_s)

    def late_s(self, topic: str, now_ms: int) -> float:
        """Seconds since the oldest retry of the topic was due; what waits for its turn is not late."""
        dues = [buffer.next_due_ms() for partition, buffer in self._buffers.items() if partition.key.topic == topic]
        return max([0.0, *((now_ms - due) / 1000 for due in dues if due is not None)])

    # --- inside

    def _believed_due_ms(self, item: WorkItem) -> int:
        """When it is due, but no later than its tier's delay from now: whoever wrote it may have had a clock that ran
        fast, and it lies at the head of its partition, before all others.
        """
        due_ms, delay_s = item.delivery.due_ms, self._delays_s.get(item.partition.key.topic)
        if delay_s is None:
            return due_ms
        latest_ms = int((self._clock() + delay_s) * 1000)
        if due_ms > latest_ms + _TIMES.clock_skew_ms:
            metrics.RETRY_DUE_IMPLAUSIBLE.add()
        return min(due_ms, latest_ms)

    def _keep_until(self, due_ms: int, item: WorkItem) -> None:
        partition = item.partition
        buffer = self._buffers.get(partition)
        if buffer is None:
            buffer = self._buffers[partition] = DueBuffer(self._capacity, self._capacity * _TIMES.buffered_bytes)
        buffer.add(due_ms, len(item.delivery.body), item)
        if buffer.should_pause():
            buffer.paused = True
            self._consumer.pause(partition.key)
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
        for partition, buffer in list(self._buffers.items()):
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
                self._consumer.resume(partition.key)
        if due:
            self._ask(due)
        self._wake_at_next_due(at_least_s=_TIMES.gather_s)
