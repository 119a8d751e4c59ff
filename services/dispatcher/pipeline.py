"""What happens to one delivery: admitted, sent, judged, kept, recorded, let go.

request  = prepare(delivery, webhook, secrets, now)    `sending`, pure
response = sender.send(request)                        `sending`
outcome  = classify(response, now)                     `settlement`, pure
step     = next_step(delivery, outcome, now, policy)   `settlement`, pure
keep(step), then record, then finish                   `settlement`: retry or dead letter in Kafka, row in Postgres, offset

What cannot be sent now waits in its webhook's lane (`waiting`), or is moved aside (`deferral`).
"""

import time
from dataclasses import dataclass

import structlog

from go2hooks.core.domain.delivery import ON_REQUEST
from go2hooks.core.domain.duplicates import Claims
from go2hooks.core.domain.outcome import Delivered, Response
from go2hooks.core.domain.retry import RetryPolicy
from go2hooks.core.flow.lanes import Admission, Lanes
from go2hooks.kafka.producer import LoopProducer
from go2hooks.kafka.topics import TopicNames
from services.dispatcher.attempt import Attempt
from services.dispatcher.clock import now_ms
from services.dispatcher.deferral import Deferral
from services.dispatcher.http import Sender
from services.dispatcher.keeper import Keeper
from services.dispatcher.recorder import Recorder
from services.dispatcher.requests import Requests
from services.dispatcher.sending import Sending
from services.dispatcher.settlement import Settlement
from services.dispatcher.tasks import Tasks
from services.dispatcher.waiting import Waiting
from services.dispatcher.webhooks import Webhooks
from services.dispatcher.work_item import WorkItem

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PipelineServices:
    """What the pipeline works with; built in `app`."""

    webhooks: Webhooks
    requests: Requests
    sender: Sender
    producer: LoopProducer
    topics: TopicNames
    recorder: Recorder
    lanes: Lanes[WorkItem]
    claims: Claims[WorkItem]
    policy: RetryPolicy


class Pipeline:
    """Takes items, and carries them out. Everything runs on the event loop."""

    def __init__(self, made_of: PipelineServices) -> None:
        keeper = Keeper(made_of.producer, made_of.topics, made_of.recorder, made_of.policy)
        self.bury = keeper.bury
        self._webhooks = made_of.webhooks
        self._lanes = made_of.lanes
        self._tasks = Tasks()
        self._sending = Sending(made_of.webhooks, made_of.requests, made_of.sender, self._tasks, self._end)
        self._settlement = Settlement(made_of.policy, keeper)
        self._waiting = Waiting(made_of.lanes, made_of.sender, self._start)
        self.deferral = Deferral(
            made_of.lanes, made_of.claims, made_of.policy, made_of.producer, made_of.topics, made_of.recorder,
            self._send_anyway,
        )  # fmt: skip

    # --- admission

    def admit(self, item: WorkItem) -> None:
        """Start it, let it wait in its lane, or move it aside; look up a webhook that is not known yet."""
        if item.partition.gone:
            item.drop()
            return
        delivery = item.delivery
        if not self._webhooks.knows(delivery.webhook_id):
            self._tasks.spawn(self._admit_unknown(item))
            return
        skip = self._webhooks.reason_to_skip(delivery)
        is_limited = self._webhooks.is_limited(delivery.webhook_id)
        if skip is not None:
            self._settlement.skip(item, skip)
        elif is_limited and item.source != "main":
            self.deferral.to_main(item)
        elif is_limited or delivery.kind not in ON_REQUEST:
            self._offer(item, is_limited=is_limited)
        else:  # somebody is waiting to see it, whatever state the lane is in
            self._begin(item, in_lane=False)

    async def _admit_unknown(self, item: WorkItem) -> None:
        """Created a moment ago, or deleted: only Postgres knows."""
        await self._webhooks.fetch(item.delivery.webhook_id)
        self.admit(item)

    def _offer(self, item: WorkItem, *, is_limited: bool) -> None:
        webhook_id, now = item.delivery.webhook_id, time.monotonic()
        if item.delivery.kind in ON_REQUEST:
            admission = self._lanes.offer_first(webhook_id, item, now)
        else:
            admission = self._lanes.offer(webhook_id, item, now)
        if admission is Admission.START:
            self._begin(item, in_lane=True)
        elif admission is Admission.QUEUED:
            self._waiting.start_soon()
        else:
            self.deferral.set_aside(item, is_blocked=admission is Admission.BLOCKED, is_limited=is_limited)

    def room(self, item: WorkItem) -> float:
        """How many deliveries like this one would not be moved aside if they were admitted now."""
        delivery = item.delivery
        if delivery.kind in ON_REQUEST or not self._webhooks.knows(delivery.webhook_id):
            return float("inf")
        if self._webhooks.reason_to_skip(delivery) is not None:
            return float("inf")
        if self._webhooks.is_limited(delivery.webhook_id):  # what its lane has room for is not known here
            return float("inf")
        return self._lanes.room(delivery.webhook_id, time.monotonic())

    def park_if_blocked(self, item: WorkItem) -> bool:
        """Park it at once when its circuit would not let it through: the records need not be asked for that."""
        if not self._lanes.is_blocked(item.delivery.webhook_id) or self.room(item) >= 1:
            return False
        self.deferral.park(item)
        return True

    def change_allowance(self, webhook_id: str) -> None:
        """What the webhook's customer allows has changed."""
        self._lanes.allow(webhook_id, time.monotonic())
        self._waiting.start_soon()

    # --- the attempt

    def _start(self, item: WorkItem) -> None:
        """It has waited, and its turn has come."""
        skip = self._webhooks.reason_to_skip(item.delivery)  # again: it has waited
        if skip is None and not item.partition.gone:
            self._begin(item, in_lane=True)
            return
        self._waiting.give_up(item)
        if skip is None or item.partition.gone:
            item.drop()
        else:
            self._settlement.skip(item, skip)

    def _send_anyway(self, item: WorkItem) -> None:
        """It could not be moved aside: make the attempt now, whether its lane has room or not."""
        skip = self._webhooks.reason_to_skip(item.delivery)  # again: it has waited
        if item.partition.gone:
            item.drop()
        elif skip is not None:
            self._settlement.skip(item, skip)
        else:
            self._begin(item, in_lane=False)

    def _begin(self, item: WorkItem, *, in_lane: bool) -> None:
        self._sending.begin(Attempt(item, now_ms(), in_lane))

    def _end(self, attempt: Attempt, response: Response) -> None:
        """The attempt is over. Never raises: the sender calls it."""
        try:
            judgement = self._settlement.judge(attempt, response)
            if attempt.in_lane:
                self._leave_lane(attempt.item, ok=isinstance(judgement.outcome, Delivered), took_s=judgement.took_s)
            self._settlement.keep(attempt.item, judgement)
        except Exception:
            # A defect of ours. Its offset stays incomplete, so it is tried again after a restart; be loud until then.
            log.exception("delivery died", delivery_id=attempt.item.delivery.id)

    def _leave_lane(self, item: WorkItem, *, ok: bool, took_s: float) -> None:
        """The lane has a place free: start what waits, move aside what must not wait in memory."""
        webhook_id = item.delivery.webhook_id
        if item.delivery.kind in ON_REQUEST:
            self._waiting.give_up(item)
            return
        for stranded in self._lanes.finish(webhook_id, ok=ok, duration_s=took_s, now=time.monotonic()):
            self.deferral.overflow(stranded, "circuit")
        self._waiting.start_soon()
