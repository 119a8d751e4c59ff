"""An attempt's response is judged, and what follows from it is kept.

outcome = classify(response, now)                     pure
step    = next_step(delivery, outcome, now, policy)   pure
keep(step), then record, then finish                  retry or dead letter in Kafka, row in Postgres, offset
"""

from typing import assert_never

import structlog

from go2hooks.core.domain.classify import classify
from go2hooks.core.domain.delivery import Kind
from go2hooks.core.domain.outcome import DeadLetter, Delivered, Done, Failed, Outcome, Response, RetryAt, Skip, Step
from go2hooks.core.domain.record import AttemptRecord, record_attempt
from go2hooks.core.domain.retry import RetryPolicy, next_step
from go2hooks.telemetry import metrics
from services.dispatcher.attempt import Attempt
from services.dispatcher.clock import now_ms
from services.dispatcher.keeper import Keeper
from services.dispatcher.requests import FAILED_INSIDE
from services.dispatcher.work_item import WorkItem

log = structlog.get_logger(__name__)


class Judgement:
    """What a response means, what comes next, and what is recorded of it."""

    __slots__ = ("outcome", "record", "step", "took_s")

    def __init__(self, outcome: Outcome, step: Step, record: AttemptRecord, took_s: float) -> None:
        self.outcome = outcome
        self.step = step
        self.record = record
        self.took_s = took_s  #: until the response


class Settlement:
    """On the event loop. Nothing here blocks."""

    def __init__(self, policy: RetryPolicy, keeper: Keeper) -> None:
        self._policy = policy
        self._keeper = keeper

    def judge(self, attempt: Attempt, response: Response) -> Judgement:
        """What cannot be judged is a failed attempt: what a receiver does must not keep the delivery, its place in the lane
        and its offset for good.
        """
        ended_ms = now_ms()
        try:
            judgement = self._judge(attempt, response, ended_ms)
        except Exception:
            log.exception("answer could not be judged", delivery_id=attempt.item.delivery.id)
            judgement = self._judge(attempt, FAILED_INSIDE, ended_ms)
        _measure(attempt, judgement, ended_ms)
        return judgement

    def keep(self, item: WorkItem, judgement: Judgement) -> None:
        """The next attempt or the dead letter, and the record; then the item is finished."""
        step = judgement.step
        match step:
            case Done():
                self._keeper.record(item, judgement.record)
            case RetryAt():
                self._keeper.retry(item, step, judgement.record)
            case DeadLetter():
                self._keeper.dead_letter(item, judgement.outcome, judgement.record)
            case Skip():
                self.skip(item, step)
            case _:
                assert_never(step)

    def skip(self, item: WorkItem, skip: Skip) -> None:
        """It is not sent, and recorded so."""
        self._keeper.skip(item, skip, now_ms())

    def _judge(self, attempt: Attempt, response: Response, ended_ms: int) -> Judgement:
        item = attempt.item
        outcome = classify(response, ended_ms)
        step = next_step(item.delivery, outcome, ended_ms, self._policy)
        record = record_attempt(item.delivery, item.position, outcome, step, attempt.began_ms, response)
        return Judgement(outcome, step, record, response.duration_ms / 1000)


def _measure(attempt: Attempt, judgement: Judgement, ended_ms: int) -> None:
    item = attempt.item
    delivery = item.delivery
    metrics.REQUEST_SECONDS.observe(judgement.took_s)
    if delivery.attempt > 1 and delivery.due_ms:
        metrics.RETRY_LATENESS_SECONDS.observe(max(0, attempt.began_ms - delivery.due_ms) / 1000)
    outcome = judgement.outcome
    match outcome:
        case Delivered():
            metrics.ATTEMPTS.add(1, "delivered")
            metrics.DELIVERIES_FINISHED.add(1, "delivered")
            if delivery.attempt == 1 and delivery.kind != Kind.REPLAY:  # whose event may be days old
                is_direct = item.source == "main" and not delivery.due_ms
                latency = metrics.DELIVERY_SECONDS if is_direct else metrics.DEFERRED_SECONDS
                latency.observe(max(0, ended_ms - delivery.origin_ms) / 1000)
        case Failed(failure):
            metrics.ATTEMPTS.add(1, failure)
