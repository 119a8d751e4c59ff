"""A delivery that cannot be sent now is moved aside, without using an attempt: to the overflow topic, or to a retry tier."""

import time
from collections.abc import Callable
from functools import partial
from typing import Literal

from go2hooks.codec import encode_delivery
from go2hooks.core.domain.delivery import Delivery
from go2hooks.core.domain.duplicates import Claims
from go2hooks.core.domain.record import record_pending
from go2hooks.core.domain.retry import RetryPolicy
from go2hooks.core.flow.lanes import Lanes
from go2hooks.kafka.producer import LoopProducer
from go2hooks.kafka.topics import TopicNames
from go2hooks.telemetry import metrics
from services.dispatcher.clock import now_ms
from services.dispatcher.recorder import Recorder
from services.dispatcher.work_item import WorkItem


class Deferral:
    """On the event loop. `send_anyway` is given what Kafka does not keep elsewhere."""

    def __init__(
        self, lanes: Lanes[WorkItem], claims: Claims[WorkItem], policy: RetryPolicy, producer: LoopProducer, topics: TopicNames,
        recorder: Recorder, send_anyway: Callable[[WorkItem], None],
    ) -> None:  # fmt: skip
        self._lanes = lanes
        self._claims = claims
        self._policy = policy
        self._producer = producer
        self._topics = topics
        self._recorder = recorder
        self._send_anyway = send_anyway
        self._longest_s = max(policy.delays_s)

    def set_aside(self, item: WorkItem, *, is_blocked: bool, is_limited: bool) -> None:
        """Its lane has no room, or (`is_blocked`) its circuit is open; `is_limited`: its customer allows so many requests."""
        if is_limited:
            self.park(item)
        elif item.source == "overflow":
            item.origin.stage.take(item)  # it waits there on
        elif not is_blocked:
            self.overflow(item, "busy")
        elif item.source == "main":
            self.overflow(item, "circuit")
        else:
            self.park(item)

    def overflow(self, item: WorkItem, why: Literal["busy", "circuit", "handed_on"]) -> None:
        """Its lane has no room, or its partition is being given back: let it come round again by the overflow topic."""
        metrics.OVERFLOWED.add(1, why)
        on_kept = self._show_pending(item) if why == "circuit" else item.finish
        self._move(item, self._topics.overflow, item.delivery, on_kept)

    def park(self, item: WorkItem) -> None:
        """Let it wait in the tier that fits: its circuit is open until the next probe, or its turn comes later."""
        webhook_id, at_ms = item.delivery.webhook_id, now_ms()
        wait_s = self._lanes.turn_in_s(webhook_id, time.monotonic(), self._longest_s)
        step = self._policy.wait(0, wait_s, at_ms)
        # A turn is not to be missed, and hurries nobody: in its partition all that is older is due as early.
        due_ms = step.due_ms if self._lanes.is_blocked(webhook_id) else min(step.due_ms, at_ms + round(wait_s * 1000))
        metrics.OVERFLOWED.add(1, "parked")
        on_kept = self._show_pending(item)
        topic = self._topics.retry(self._policy.delays_s[step.tier])
        self._move(item, topic, item.delivery._replace(due_ms=due_ms), on_kept)

    def to_main(self, item: WorkItem) -> None:
        """Its customer allows only so many requests: one process counts them all, the one that has the webhook's partition of
        the main topic.
        """
        metrics.OVERFLOWED.add(1, "limited")
        moved = item.delivery._replace(suspect=True)  # looked up there, as it has been here
        self._move(item, self._topics.deliveries, moved, item.finish)

    def requeue(self, item: WorkItem) -> None:
        """It has been held for long enough: make place for what lies behind it."""
        if self._lanes.is_blocked(item.delivery.webhook_id):
            self.park(item)
        else:
            self.overflow(item, "busy")

    def _show_pending(self, item: WorkItem) -> Callable[[], None]:
        """What finishes an item that is moved aside for long enough to be shown: it is recorded as pending, the first time."""
        if item.delivery.attempt != 1 or item.delivery.due_ms or item.source != "main":
            return item.finish
        pending = record_pending(item.delivery, item.position, now_ms())
        return lambda: self._recorder.add(pending, item.finish)  # within the window until recorded

    def _move(self, item: WorkItem, topic: str, delivery: Delivery, on_kept: Callable[[], None]) -> None:
        # The claim goes first: the message may come back to us before its acknowledgement does.
        self._claims.give_up(item.delivery.id, item.delivery.attempt)
        self._producer.produce(
            topic, delivery.webhook_id, encode_delivery(delivery), on_kept, partial(self._stay, item, topic)
        )

    def _stay(self, item: WorkItem, topic: str, _why: str) -> None:
        metrics.REFUSED.add(1, topic)
        if not item.take_back():
            return
        if item.is_outdated(time.monotonic()):
            item.ask_again(lambda still_open: self._send_anyway(item) if still_open else None)
        else:
            self._send_anyway(item)
