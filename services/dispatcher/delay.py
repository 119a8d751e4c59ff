"""The retry tiers' intake: what is read early waits here until it is due.

A buffer per partition, bounded; a full one pauses its partition, and Kafka keeps the rest. The due time is in the
message, so a restart neither loses nor hurries a waiting retry.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from go2hooks.core.due import DueBuffer
from go2hooks.kafka.consumer import Assignment, PartitionKey
from services.dispatcher.intake import Intake, Partition, Ticket


class RetryIntake(Intake):
    """Holds each ticket until its due time, then admits it."""

    def __init__(self, *args: Any, buffer_messages: int, max_due: int) -> None:
        """`buffer_messages` per partition; at most `max_due` tickets that are due and not finished, in all."""
        admit, *shared = args
        super().__init__("retry", self._buffer, *shared, always_doubtful=True)
        self._admit_due = admit
        self._capacity = buffer_messages
        self._max_due = max_due
        self._due = 0
        self._buffers: dict[PartitionKey, DueBuffer[Ticket]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due_ms = 0

    @property
    def waiting(self) -> int:
        """Retries in memory that are not due yet (or have no room yet)."""
        return sum(map(len, self._buffers.values()))

    def assigned(self, assignments: Sequence[Assignment]) -> None:
        super().assigned(assignments)
        for assignment in assignments:
            self._buffers[assignment.key] = DueBuffer(self._capacity)

    def _buffer(self, ticket: Ticket) -> None:
        key = ticket.partition.key
        buffer = self._buffers[key]
        buffer.add(ticket.delivery.due_ms, ticket)
        ticket.buffered = True
        self.consumer.release()  # bounded by the buffer from here on, not by the consumer's window
        if buffer.should_pause():
            buffer.paused = True
            self.consumer.pause(key)
        if self._timer is None or ticket.delivery.due_ms < self._timer_due_ms:
            self._wake_at_next_due()

    def _wake_at_next_due(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        due = min((d for d in (b.next_due_ms() for b in self._buffers.values()) if d is not None), default=None)
        if due is None or self._due >= self._max_due:
            self._timer = None
            return
        self._timer_due_ms = due
        delay_s = max(0.0, due / 1000 - time.time())
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._release_due)

    def _release_due(self) -> None:
        now_ms = int(time.time() * 1000)
        for key, buffer in list(self._buffers.items()):
            if self._due >= self._max_due:
                break
            for ticket in buffer.pop_due(now_ms):
                self._due += 1
                self._admit_due(ticket)
                if self._due >= self._max_due:
                    break
            if buffer.should_resume():
                buffer.paused = False
                self.consumer.resume(key)
        self._wake_at_next_due()

    def _let_go(self, ticket: Ticket) -> None:
        if not ticket.buffered:
            super()._let_go(ticket)
            return
        ticket.partition.held -= 1
        self._due -= 1
        if self._timer is None:
            self._wake_at_next_due()

    def _forget(self, keys: Sequence[PartitionKey]) -> list[Partition]:
        for key in keys:
            buffer = self._buffers.pop(key, None)
            for ticket in buffer.pop_due(2**63) if buffer else ():
                self._due += 1
                ticket.drop()
        return super()._forget(keys)

    def _lag_s(self, topic: str, backlog: int, now_ms: int) -> float:  # noqa: ARG002  # what waits its turn is not late
        dues = [b.next_due_ms() for key, b in self._buffers.items() if key.topic == topic]
        return max([0.0, *((now_ms - due) / 1000 for due in dues if due is not None)])
