"""What happens to one delivery: admitted, sent, judged, kept, recorded, let go. Each step has one home; this is the sentence.

request  = prepare(delivery, webhook, secrets, now)    pure
response = sender.send(request)                        shell
outcome  = classify(response, now)                     pure
step     = next_step(delivery, outcome, now, policy)   pure
keep(step), then record, then finish                   retry or dead letter in Kafka, row in Postgres, offset

Almost always there is an idle connection to the receiver. Then nothing has to be waited for before the request is written,
and the response's arrival goes on where sending left off: no task, no future. Where something has to be waited for (a
connection, a client certificate, a webhook that is not known yet) a task does.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any, Literal, assert_never

import structlog

from go2hooks.codec import encode_delivery
from go2hooks.core.classify import classify
from go2hooks.core.delivery import ON_REQUEST, Delivery, Kind
from go2hooks.core.duplicates import Claims
from go2hooks.core.lanes import YOUNG_S, Admission, Lanes
from go2hooks.core.outcome import (
    DeadLetter,
    Delivered,
    Done,
    Failed,
    NoAnswer,
    Outcome,
    Response,
    RetryAt,
    Skip,
    SkipReason,
    Step,
)
from go2hooks.core.record import AttemptRecord, record_attempt, record_pending
from go2hooks.core.request import SignedRequest
from go2hooks.core.retry import RetryPolicy, next_step
from go2hooks.core.webhook import Webhook
from go2hooks.kafka.producer import LoopProducer, OnRefused
from go2hooks.kafka.topics import TopicNames
from go2hooks.telemetry import metrics
from services.dispatcher.intake import Ticket
from services.dispatcher.keeper import Keeper
from services.dispatcher.recorder import Recorder
from services.dispatcher.requests import FAILED_INSIDE, Requests
from services.dispatcher.senders import Sender
from services.dispatcher.senders.identity import Identity
from services.dispatcher.webhooks import Webhooks

log = structlog.get_logger(__name__)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Collaborators:
    """What the pipeline works with; built in `app`."""

    webhooks: Webhooks
    requests: Requests
    sender: Sender
    producer: LoopProducer
    topics: TopicNames
    recorder: Recorder
    lanes: Lanes[Ticket]
    claims: Claims[Ticket]
    policy: RetryPolicy


class Pipeline:
    """Takes tickets, carries them out. Everything runs on the event loop."""

    def __init__(self, collaborators: Collaborators) -> None:
        self._webhooks = collaborators.webhooks
        self._requests = collaborators.requests
        self._sender = collaborators.sender
        self._producer = collaborators.producer
        self._topics = collaborators.topics
        self._recorder = collaborators.recorder
        self._lanes = collaborators.lanes
        self._claims = collaborators.claims
        self._policy = collaborators.policy
        self._longest_s = max(self._policy.delays_s)
        self._keeper = Keeper(self._producer, self._topics, self._recorder, self._policy)
        self.bury = self._keeper.bury
        self._loop = asyncio.get_running_loop()
        self._starting = False  # whether `start_waiting` is to run
        self._ageing: asyncio.TimerHandle | None = None
        self._turn: asyncio.TimerHandle | None = None
        self._turn_at = inf  # when it fires
        self._tasks: set[asyncio.Task[None]] = set()
        self.hold: Callable[
            [Ticket], None
        ]  #: keeps an overflowed ticket that still has no room; set by the overflow's intake

    # --- admission

    def admit(self, ticket: Ticket) -> None:
        """Start it, let it wait in its lane, or move it aside; look up a webhook that is not known yet."""
        if ticket.partition.gone:
            ticket.drop()
            return
        if not self._webhooks.knows(ticket.delivery.webhook_id):
            self._spawn(self._admit_unknown(ticket))
            return
        skip = self._reason_to_skip(ticket.delivery)
        if skip is not None:
            self._keeper.skip(ticket, skip, now_ms())
            return
        if self._webhooks.is_limited(ticket.delivery.webhook_id):
            self._offer_limited(ticket)
        elif ticket.delivery.kind in ON_REQUEST:  # somebody is waiting to see it, whatever state the lane is in
            self._begin(ticket, in_lane=False)
        else:
            self._offer(ticket)

    def _offer(self, ticket: Ticket) -> None:
        match self._lanes.offer(ticket.delivery.webhook_id, ticket, time.monotonic()):
            case Admission.START:
                self._begin(ticket, in_lane=True)
            case Admission.QUEUED:
                self._start_waiting_soon()
            case Admission.FULL | Admission.BLOCKED if ticket.source == "overflow":
                self.hold(ticket)
            case Admission.FULL:
                self.overflow(ticket, "busy")
            case Admission.BLOCKED:
                self.overflow(ticket, "circuit") if ticket.source == "main" else self.park(ticket)

    def _offer_limited(self, ticket: Ticket) -> None:
        """Its customer allows only so many requests. Whoever has the webhook's partition of the main topic makes them all, so
        that one process counts them: what has come by another topic goes on to there.
        """
        if ticket.source != "main":
            metrics.OVERFLOWED.add(1, "limited")
            moved = ticket.delivery._replace(suspect=True)  # looked up there, as it has been here
            self._move(ticket, self._topics.deliveries, moved, ticket.finish)
            return
        offer = self._lanes.offer_first if ticket.delivery.kind in ON_REQUEST else self._lanes.offer
        match offer(ticket.delivery.webhook_id, ticket, time.monotonic()):
            case Admission.START:
                self._begin(ticket, in_lane=True)
            case Admission.QUEUED:
                self._start_waiting_soon()
            case Admission.FULL | Admission.BLOCKED:
                self.park(ticket)

    def change_allowance(self, webhook_id: str) -> None:
        """What the webhook's customer allows has changed."""
        self._lanes.allow(webhook_id, time.monotonic())
        self._start_waiting_soon()

    def room(self, ticket: Ticket) -> float:
        """How many deliveries like this one would not be moved aside if they were admitted now."""
        delivery = ticket.delivery
        if delivery.kind in ON_REQUEST or not self._webhooks.knows(delivery.webhook_id):
            return float("inf")
        if self._reason_to_skip(delivery) is not None:
            return float("inf")
        if self._webhooks.is_limited(delivery.webhook_id):  # what its lane has room for is not known here
            return float("inf")
        return self._lanes.room(delivery.webhook_id, time.monotonic())

    def send_round(self, ticket: Ticket) -> None:
        """It has been held for long enough: make place for what lies behind it."""
        if self._lanes.is_blocked(ticket.delivery.webhook_id):
            self.park(ticket)
        else:
            self.overflow(ticket, "busy")

    async def _admit_unknown(self, ticket: Ticket) -> None:
        """Created a moment ago, or deleted: only Postgres knows."""
        await self._webhooks.fetch(ticket.delivery.webhook_id)
        self.admit(ticket)

    def _reason_to_skip(self, delivery: Delivery) -> Skip | None:
        webhook = self._webhooks.get(delivery.webhook_id)
        if webhook is None or webhook.account_id != delivery.account_id:
            return Skip(SkipReason.DELETED)
        if delivery.kind in ON_REQUEST:
            return None
        if not webhook.is_active:
            return Skip(SkipReason.DISABLED)
        return None if webhook.wants(delivery.event) else Skip(SkipReason.UNSUBSCRIBED)

    # --- the sentence

    def _begin(self, ticket: Ticket, *, in_lane: bool) -> None:
        """Make the attempt: at once where there is an idle connection, in a task where there is none."""
        began_ms = now_ms()
        webhook = self._webhooks.get(ticket.delivery.webhook_id)
        if webhook is not None and webhook.client_certificate is not None:
            self._spawn(self._send_identified(ticket, webhook, began_ms, in_lane=in_lane))
            return
        request = self._requests.make(ticket.delivery, webhook, began_ms)
        if isinstance(request, NoAnswer):
            self._end(ticket, request, began_ms, in_lane=in_lane)
            return
        if not self._sender.send_now(request, lambda response: self._end(ticket, response, began_ms, in_lane=in_lane)):
            self._spawn(self._send(ticket, request, None, began_ms, in_lane=in_lane))

    async def _send_identified(self, ticket: Ticket, webhook: Webhook, began_ms: int, *, in_lane: bool) -> None:
        """Under the webhook's client certificate, which may have to be fetched."""
        identity = await self._requests.identify(webhook)
        if isinstance(identity, NoAnswer):
            self._end(ticket, identity, began_ms, in_lane=in_lane)
            return
        request = self._requests.make(ticket.delivery, self._webhooks.get(webhook.id), now_ms())  # as it is by now
        if isinstance(request, NoAnswer):
            self._end(ticket, request, began_ms, in_lane=in_lane)
        else:
            await self._send(ticket, request, identity, began_ms, in_lane=in_lane)

    async def _send(
        self, ticket: Ticket, request: SignedRequest, identity: Identity | None, began_ms: int, *, in_lane: bool
    ) -> None:
        try:
            response = await self._sender.send(request, identity)
        except Exception:  # a defect of ours must harm this delivery alone, and must not harm it for good
            log.exception("attempt failed inside", delivery_id=ticket.delivery.id)
            response = FAILED_INSIDE
        self._end(ticket, response, began_ms, in_lane=in_lane)

    def _end(self, ticket: Ticket, response: Response, began_ms: int, *, in_lane: bool) -> None:
        """The attempt is over. Never raises: the sender calls it."""
        try:
            self._conclude(ticket, response, began_ms, in_lane=in_lane)
        except Exception:
            # A defect of ours. Its offset stays incomplete, so it is tried again after a restart; be loud until then.
            log.exception("delivery died", delivery_id=ticket.delivery.id)

    def _conclude(self, ticket: Ticket, response: Response, began_ms: int, *, in_lane: bool) -> None:
        ended_ms = now_ms()
        try:
            outcome, step, record = self._judge(ticket, response, began_ms, ended_ms)
        except (
            Exception
        ):  # a receiver's doing must not keep the delivery, its place in the lane and its offset for good
            log.exception("answer could not be judged", delivery_id=ticket.delivery.id)
            response = FAILED_INSIDE
            outcome, step, record = self._judge(ticket, response, began_ms, ended_ms)
        self._measure(ticket, outcome, response, began_ms, ended_ms)
        if in_lane:
            self._give_back(ticket, ok=isinstance(outcome, Delivered), duration_s=response.duration_ms / 1000)
        match step:
            case Done():
                self._keeper.record(ticket, record)
            case RetryAt():
                self._keeper.retry(ticket, step, record)
            case DeadLetter():
                self._keeper.dead_letter(ticket, outcome, record)
            case Skip():
                self._keeper.skip(ticket, step, now_ms())
            case _:
                assert_never(step)

    def _judge(
        self, ticket: Ticket, response: Response, began_ms: int, ended_ms: int
    ) -> tuple[Outcome, Step, AttemptRecord]:
        """What it means, what comes next, and what is recorded of it."""
        outcome = classify(response, ended_ms)
        step = next_step(ticket.delivery, outcome, ended_ms, self._policy)
        record = record_attempt(ticket.delivery, ticket.position, outcome, step, began_ms, response)
        return outcome, step, record

    def _give_back(self, ticket: Ticket, *, ok: bool, duration_s: float) -> None:
        """The lane has a place free: start what waits, move aside what must not wait in memory."""
        webhook_id = ticket.delivery.webhook_id
        if ticket.delivery.kind in ON_REQUEST:
            self._lanes.forgo(webhook_id)
            self._start_waiting_soon()
            return
        stranded = self._lanes.finish(webhook_id, ok=ok, duration_s=duration_s, now=time.monotonic())
        for other in stranded:
            self.overflow(other, "circuit")
        self._start_waiting_soon()

    def _start_waiting_soon(self) -> None:
        """Once for all that end in this turn of the loop; by then a connection that its receiver has closed is known to be."""
        if self._starting:
            return
        if self._lanes.has_startable:
            self._starting = True
            self._loop.call_soon(self._start_waiting)
        elif self._lanes.next_turn_at < self._turn_at:
            self._wait_for_turn()

    def _wait_for_turn(self) -> None:
        """Start what waits as soon as an allowance lets it."""
        if self._turn is not None:
            self._turn.cancel()
        self._turn_at = self._lanes.next_turn_at
        self._turn = self._loop.call_later(max(0.0, self._turn_at - time.monotonic()), self._turn_has_come)

    def _turn_has_come(self) -> None:
        self._turn, self._turn_at = None, inf
        if not self._starting:
            self._starting = True
            self._start_waiting()

    def _start_waiting(self) -> None:
        self._starting = False
        now = time.monotonic()
        self._sender.cork()
        try:
            for ticket in self._lanes.startable(now):
                if ticket.is_outdated(now):  # keeps its place meanwhile, so that it is not overtaken for ever
                    ticket.ask_again(partial(self._start_asked, ticket))
                else:
                    self._start(ticket)
        finally:
            self._sender.uncork()
        if self._ageing is None and self._lanes.has_startable:
            self._ageing = self._loop.call_later(YOUNG_S, self._aged)
        if self._lanes.next_turn_at < self._turn_at:
            self._wait_for_turn()

    def _aged(self) -> None:
        """Those that had just begun, and kept others waiting, are older: should none of them end, the others start now."""
        self._ageing = None
        self._start_waiting_soon()

    def _start_asked(self, ticket: Ticket, still_open: bool) -> None:  # noqa: FBT001  # the records' answer
        if still_open:
            self._start(ticket)
        else:
            self._lanes.forgo(ticket.delivery.webhook_id)
            self._start_waiting_soon()

    def _start(self, ticket: Ticket) -> None:
        skip = self._reason_to_skip(ticket.delivery)  # again: it has waited
        if skip is None and not ticket.partition.gone:
            self._begin(ticket, in_lane=True)
        else:
            self._end_unsent(ticket, skip)
            self._start_waiting_soon()

    def _end_unsent(self, ticket: Ticket, skip: Skip | None) -> None:
        self._lanes.forgo(ticket.delivery.webhook_id)
        if skip is None or ticket.partition.gone:
            ticket.drop()
        else:
            self._keeper.skip(ticket, skip, now_ms())

    # --- moved aside, without using an attempt

    def overflow(self, ticket: Ticket, why: Literal["busy", "circuit", "handed_on"]) -> None:
        """Its lane has no room, or its partition is being given back: let it come round again by the overflow topic."""
        metrics.OVERFLOWED.add(1, why)
        on_kept = self._show_pending(ticket) if why == "circuit" else ticket.finish
        self._move(ticket, self._topics.overflow, ticket.delivery, on_kept)

    def _show_pending(self, ticket: Ticket) -> Callable[[], None]:
        """What finishes a ticket that is moved aside for long enough to be shown: it is recorded as pending, the first time."""
        if ticket.delivery.attempt != 1 or ticket.delivery.due_ms or ticket.source != "main":
            return ticket.finish
        pending = record_pending(ticket.delivery, ticket.position, now_ms())
        return lambda: self._recorder.add(pending, ticket.finish)  # within the window until recorded

    def park(self, ticket: Ticket) -> None:
        """Let it wait in the tier that fits: its circuit is open until the next probe, or its turn comes later."""
        webhook_id, at_ms = ticket.delivery.webhook_id, now_ms()
        wait_s = self._lanes.turn_in_s(webhook_id, time.monotonic(), self._longest_s)
        step = self._policy.wait(0, wait_s, at_ms)
        # A turn is not to be missed, and hurries nobody: in its partition all that is older is due as early.
        due_ms = step.due_ms if self._lanes.is_blocked(webhook_id) else min(step.due_ms, at_ms + round(wait_s * 1000))
        metrics.OVERFLOWED.add(1, "parked")
        on_kept = self._show_pending(ticket)
        topic = self._topics.retry(self._policy.delays_s[step.tier])
        self._move(ticket, topic, ticket.delivery._replace(due_ms=due_ms), on_kept)

    def park_if_blocked(self, ticket: Ticket) -> bool:
        """Park it at once when its circuit would not let it through: the records need not be asked for that."""
        if not self._lanes.is_blocked(ticket.delivery.webhook_id) or self.room(ticket) >= 1:
            return False
        self.park(ticket)
        return True

    def _move(self, ticket: Ticket, topic: str, delivery: Delivery, on_kept: Callable[[], None]) -> None:
        # The claim goes first: the message may come back to us before its acknowledgement does.
        self._claims.give_up(ticket.delivery.id, ticket.delivery.attempt)
        self._produce(topic, delivery, on_kept, partial(self._stay, ticket, topic))

    def _stay(self, ticket: Ticket, topic: str, _why: str) -> None:
        """Kafka does not keep it elsewhere: make the attempt now, whether its lane has room or not."""
        metrics.REFUSED.add(1, topic)
        if not ticket.take_back():
            return
        if ticket.is_outdated(time.monotonic()):
            ticket.ask_again(lambda still_open: self._begin_stayed(ticket) if still_open else None)
        else:
            self._begin_stayed(ticket)

    def _begin_stayed(self, ticket: Ticket) -> None:
        skip = self._reason_to_skip(ticket.delivery)  # again: it has waited
        if ticket.partition.gone:
            ticket.drop()
        elif skip is not None:
            self._keeper.skip(ticket, skip, now_ms())
        else:
            self._begin(ticket, in_lane=False)

    def _produce(self, topic: str, delivery: Delivery, on_kept: Callable[[], None], on_refused: OnRefused) -> None:
        self._producer.produce(topic, delivery.webhook_id, encode_delivery(delivery), on_kept, on_refused)

    # --- inside

    def _measure(self, ticket: Ticket, outcome: Outcome, response: Response, began_ms: int, ended_ms: int) -> None:
        delivery = ticket.delivery
        metrics.REQUEST_SECONDS.observe(response.duration_ms / 1000)
        if delivery.attempt > 1 and delivery.due_ms:
            metrics.RETRY_LATENESS_SECONDS.observe(max(0, began_ms - delivery.due_ms) / 1000)
        match outcome:
            case Delivered():
                metrics.ATTEMPTS.add(1, "delivered")
                metrics.DELIVERIES_FINISHED.add(1, "delivered")
                if delivery.attempt == 1 and delivery.kind != Kind.REPLAY:  # whose event may be days old
                    is_direct = ticket.source == "main" and not delivery.due_ms
                    latency = metrics.DELIVERY_SECONDS if is_direct else metrics.DEFERRED_SECONDS
                    latency.observe(max(0, ended_ms - delivery.origin_ms) / 1000)
            case Failed(failure):
                metrics.ATTEMPTS.add(1, failure)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("delivery task died", exc_info=error)
