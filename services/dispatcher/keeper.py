"""What is kept of a delivery: the next attempt or a dead letter in Kafka first, then the row in Postgres, then the offset.

Where Kafka refuses a message for what it is, too large for its topic above all, it will refuse it the next time, too. An
attempt that was made is then recorded as the delivery's last, rather than made again for ever.
"""

from collections.abc import Callable
from functools import partial

import structlog
from confluent_kafka import Message

from go2hooks.codec import encode_delivery
from go2hooks.core.domain.delivery import ON_REQUEST
from go2hooks.core.domain.outcome import Failed, Outcome, RetryAt, Skip
from go2hooks.core.domain.record import AttemptRecord, record_skip, without_retry
from go2hooks.core.domain.retry import RetryPolicy
from go2hooks.core.errors import EventError
from go2hooks.kafka.producer import LoopProducer
from go2hooks.kafka.topics import TopicNames, delay_label
from go2hooks.telemetry import metrics
from services.dispatcher.recorder import Recorder
from services.dispatcher.work_item import WorkItem

log = structlog.get_logger(__name__)


class Keeper:
    """On the event loop. Nothing here blocks."""

    def __init__(self, producer: LoopProducer, topics: TopicNames, recorder: Recorder, policy: RetryPolicy) -> None:
        self._producer = producer
        self._topics = topics
        self._recorder = recorder
        self._policy = policy

    def record(self, item: WorkItem, record: AttemptRecord) -> None:
        self._recorder.add(record, item.recorded)

    def skip(self, item: WorkItem, skip: Skip, now_ms: int) -> None:
        metrics.DELIVERIES_FINISHED.add(1, "skipped")
        self.record(item, record_skip(item.delivery, item.position, skip, now_ms))

    def retry(self, item: WorkItem, step: RetryAt, record: AttemptRecord) -> None:
        """Keep the next attempt in its tier, and only then record this one: a record promises that the chain goes on."""
        delay_s = self._policy.delays_s[step.tier]
        metrics.RETRIES.add(1, delay_label(delay_s))
        following = item.delivery._replace(attempt=item.delivery.attempt + 1, due_ms=step.due_ms)
        topic = self._topics.retry(delay_s)
        self._producer.produce(
            topic,
            following.webhook_id,
            encode_delivery(following),
            partial(self.record, item, record),
            partial(self._end_refused, item, record, topic),
        )

    def _end_refused(self, item: WorkItem, record: AttemptRecord, topic: str, why: str) -> None:
        """Kafka will not keep its retry, whenever it is asked: this was the last attempt."""
        metrics.REFUSED.add(1, topic)
        metrics.DELIVERIES_FINISHED.add(1, "failed")
        last = without_retry(record, why)
        self._keep_dead(item, str(last.error_code), str(last.error_message), last)

    def dead_letter(self, item: WorkItem, outcome: Outcome, record: AttemptRecord) -> None:
        metrics.DELIVERIES_FINISHED.add(1, "failed")
        if item.delivery.kind in ON_REQUEST or not isinstance(outcome, Failed):
            self.record(item, record)
            return
        self._keep_dead(item, outcome.failure, outcome.message, record)

    def _keep_dead(self, item: WorkItem, reason: str, detail: str, record: AttemptRecord) -> None:
        topic = self._topics.deliveries_dead

        def record_alone(_why: str) -> None:
            metrics.REFUSED.add(1, topic)
            self.record(item, record)

        headers = [("go2hooks-reason", reason.encode()), ("go2hooks-detail", detail[:500].encode())]
        self._producer.produce(
            topic, item.delivery.webhook_id, encode_delivery(item.delivery),
            partial(self.record, item, record), record_alone, headers,
        )  # fmt: skip

    def bury(self, message: Message, error: EventError, on_kept: Callable[[], None]) -> None:
        """Keep a message of ours that cannot be decoded, with where it came from; of one that Kafka refuses only this."""
        log.error("undecodable delivery message", topic=message.topic(), offset=message.offset(), error=str(error))
        where = f"{message.topic()}/{message.partition()}/{message.offset()}"
        headers = [("go2hooks-reason", error.reason.encode()), ("go2hooks-position", where.encode())]
        key = (message.key() or b"").decode("utf-8", "replace")
        topic = self._topics.deliveries_dead

        def keep_place(_why: str) -> None:
            metrics.REFUSED.add(1, topic)
            self._producer.produce(topic, key, b"", on_kept, lambda _why: on_kept(), headers)

        self._producer.produce(topic, key, message.value() or b"", on_kept, keep_place, headers)
