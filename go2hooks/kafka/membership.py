"""A consumer in its group: which partitions are its own, from where it reads them, and whether it still belongs.

librdkafka asks for committed offsets once. An answer such as "not the coordinator", which a broker gives for some seconds
after a restart, leaves the partitions assigned and unread for good, with heartbeats that go on. So we ask, until there is
an answer, and begin to read where it says.

What is left of silent standstills ends the process, so that its supervisor starts it again: a member that has lost its
place in the group, or has partitions that it cannot read, or none though it is alone, for longer than any rebalance takes
while brokers answer. With fewer partitions than members, it is right that one has none.
"""

import time
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, Protocol

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from go2hooks.core.errors import UnavailableError
from go2hooks.kafka.client import report
from go2hooks.kafka.diagnosis import Diagnosis
from go2hooks.kafka.partitions import Assignment, PartitionKey, Span, ask_spans, backlog
from go2hooks.kafka.topic_ids import TopicIds

log = structlog.get_logger(__name__)

_TEND_S: Final = 1.0
_ANSWER_S: Final = 0.5
_COUNT_S: Final = 2.0
# Librdkafka's own limit, never come to: what it gives up itself may end the process by SIGABRT.
_COUNT_KEPT_S: Final = 60.0
_LOOKUP_S: Final = 5.0
_LOOKUP_BESIDE_S: Final = 1.0  # while others of our partitions could be read
_REBALANCE_S: Final = 30.0  # what a rebalance may take besides a session's end and the slowest member's last work


class Owner(Protocol):
    """What works on the partitions. Called by the thread that polls, from within a poll or from `tend`."""

    def on_assigned(self, assignments: Sequence[Assignment]) -> None:
        """These partitions are ours; their messages follow."""

    def on_revoked(self, keys: Sequence[PartitionKey]) -> dict[PartitionKey, int]:
        """These go to another process: finish what is under way and give the offsets to commit. Bounded by itself."""
        ...

    def on_lost(self, keys: Sequence[PartitionKey]) -> None:
        """These went to another process without asking: what was finished of them no longer counts."""


class Membership:
    """Not thread-safe, but for `assigned`, `reachable` and `lags`. The consumer is polled by its owner, `tend` called between polls."""

    def __init__(self, config: dict[str, Any], topics: Sequence[str], owner: Owner, *, finish_s: float) -> None:
        """`finish_s` is what `Owner.on_revoked` takes at most, in any process of the group."""
        self.consumer = Consumer(config | {"error_cb": self._on_error})
        self._config = config
        self._diagnosis = Diagnosis(config)
        self._group = config["group.id"]
        self._topics = list(topics)
        self._owner = owner
        self._patience_s = _REBALANCE_S + finish_s + config.get("session.timeout.ms", 45_000) / 1000
        self._spans: dict[PartitionKey, Span] = {}
        self._topic_ids = TopicIds(config, self._topics)
        self._unbegun: set[PartitionKey] = set()  # ours, but Kafka has not said yet where to read on
        self._is_member = False  # has been given its partitions, which may be none, and has not lost them since
        self._tended_at = 0.0
        self._seen_at = time.monotonic()
        self._missed_since: float | None = None  # brokers answer, and we do not read what we should
        self._served_at = time.monotonic()  # last with partitions, or last seen to be one of several members
        self.reachable = True  #: False from the moment all brokers are away until one answers again
        self.assigned = False  #: whether all is read that is ours to be read
        self.lags: dict[PartitionKey, int] = {}  #: messages not yet read, by partition; a second old at most

    @property
    def owned(self) -> Sequence[PartitionKey]:
        """The partitions that are read."""
        return tuple(self._spans)

    def subscribe(self) -> None:
        self.consumer.subscribe(
            self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def tend(self, quiet: Callable[[], Collection[PartitionKey]] = tuple) -> None:
        """Once a second, whatever is to be done besides polling; `quiet` gives the paused partitions.

        Mostly takes no time; up to 15 s when Kafka does not answer. Raises UnavailableError when the process has to end.
        """
        now = time.monotonic()
        if now - self._tended_at < _TEND_S:
            return
        self._tended_at = now
        if self._unbegun:
            self._begin()
        self._see(now)
        self._topic_ids.check(now)
        if not self.assigned or not self.reachable:
            self._ask_for_brokers(now)
        else:
            self._missed_since = None
            self._check_share(now)
        self.lags = backlog(self.consumer, self._spans, quiet() if self.reachable else ())

    def lag_unknown_s(self) -> float:
        """Seconds since all was read that was ours: for so long nobody knows what lies ahead. 0 while all is read. Any thread."""
        return 0.0 if self.assigned else time.monotonic() - self._seen_at

    def store(self, offsets: dict[PartitionKey, int]) -> None:
        """Have librdkafka commit these soon. A partition that has moved away is left alone."""
        for key, offset in offsets.items():
            try:
                self.consumer.store_offsets(offsets=[self._topic_ids.position(key, offset)])
            except KafkaException as error:
                log.info("offset not stored: the partition has moved", topic=key.topic, error=str(error))

    # --- where to read on

    def _begin(self) -> bool:
        """Begin to read what Kafka says a start of; whether there was any. Blocks up to 15 s."""
        timeout_s = _LOOKUP_BESIDE_S if self._spans else _LOOKUP_S
        asked = self._topic_ids.ask(self._unbegun)
        spans = ask_spans(self.consumer, self._unbegun, timeout_s)
        assignments = self._topic_ids.begin(spans, asked, timeout_s)
        if not assignments:
            return False
        begun = {assignment.key: spans[assignment.key] for assignment in assignments}
        starts = [span.start for span in begun.values()]
        self.consumer.incremental_assign(starts)
        self.consumer.resume(starts)  # librdkafka keeps a partition paused that was so when it left us
        self._unbegun.difference_update(begun)
        self._spans |= begun
        # A commit of before commits named their topic does so from now on.
        self.store({key: span.start.offset for key, span in begun.items() if span.start.offset >= 0})
        self._owner.on_assigned(assignments)
        self._tended_at = 0.0  # their lag is measured next
        return True

    # --- whether we belong

    def _see(self, now: float) -> None:
        self.assigned = self._is_member and not self._unbegun and bool(self.consumer.memberid())
        if self.assigned:
            self._seen_at = now

    def _ask_for_brokers(self, now: float) -> None:
        """Whether brokers answer, for our topics: librdkafka reconnects by itself but does not say so."""
        try:
            found = self.consumer.list_topics(self._topics[0], timeout=_ANSWER_S).topics
        except KafkaException:
            self._missed_since = None
            self._diagnosis.look()
            return
        self.reachable = True
        if any(topic.error is not None for topic in found.values()) or self.assigned:
            self._missed_since = None
        elif self._missed_since is None:
            self._missed_since = now
        elif now - self._missed_since > self._patience_s:
            raise self._failed("cannot read its partitions" if self._is_member else "is no member of its group")

    def _check_share(self, now: float) -> None:
        if self._spans:
            self._served_at = now
        elif now - self._served_at > self._patience_s:
            self._served_at = now
            if self._count_members() == 1:
                raise self._failed("has no partitions, the only member of its group")

    def _count_members(self) -> int:
        """0 when Kafka does not say in time; blocks up to 2 s, on a connection of its own.

        Librdkafka 2.16 forgets whom it asked for the coordinator when the request's own time is up first, and fails an
        assertion at the answer. So we stop waiting by ourselves, and close the client with the request under way.
        """
        admin = AdminClient({**self._config, "log_level": 0})
        try:
            asked = admin.describe_consumer_groups([self._group], request_timeout=_COUNT_KEPT_S)
            return len(asked[self._group].result(_COUNT_S).members)
        except (KafkaException, TimeoutError):
            return 0

    def _failed(self, what: str) -> UnavailableError:
        topics = ", ".join(self._topics)
        return UnavailableError(f"the consumer of {topics} {what}, for {self._patience_s:.0f} s, though Kafka answers")

    def _on_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001  # that is the binding's name for it
            self.reachable = False
        report(error, self.consumer)

    # --- rebalances

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._unbegun.update(_keys(partitions))
        self._is_member = True
        if not self._begin():
            consumer.incremental_assign([])  # or the binding would assign all, and librdkafka ask for their offsets
        self._see(time.monotonic())

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        keys = self._disown(partitions)
        offsets = self._owner.on_revoked(keys)
        self.store(offsets)  # or leaving them, librdkafka would commit what was stored last: a step back
        self._commit(offsets)
        self._is_member = False  # until we are told, at once, what is ours from now on
        consumer.incremental_unassign([TopicPartition(*key) for key in keys])

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        log.warning("partitions lost", partitions=len(partitions))
        self._is_member = self.assigned = False
        keys = self._disown(partitions)
        self._owner.on_lost(keys)
        consumer.incremental_unassign([TopicPartition(*key) for key in keys])

    def _commit(self, offsets: dict[PartitionKey, int]) -> None:
        """Commit now. A refusal costs duplicates that the records will recognise, so it is logged and no more."""
        if not offsets:
            return
        positions = [self._topic_ids.position(key, offset) for key, offset in offsets.items()]
        try:
            self.consumer.commit(offsets=positions, asynchronous=False)
        except KafkaException as error:
            log.warning("offsets not committed on revocation", error=str(error))

    def _disown(self, partitions: list[TopicPartition]) -> list[PartitionKey]:
        """Of these, the ones that were read."""
        gone = _keys(partitions)
        self._unbegun.difference_update(gone)
        return [key for key in gone if self._spans.pop(key, None) is not None]


def _keys(partitions: Sequence[TopicPartition]) -> list[PartitionKey]:
    return [PartitionKey(p.topic, p.partition) for p in partitions]
