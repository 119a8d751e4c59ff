"""A consumer in its group: which partitions are assigned to it, and where it begins to read them.

librdkafka asks for committed offsets once. An answer such as "not the coordinator", which a broker gives for some
seconds after a restart, leaves the partitions assigned and unread for good, with heartbeats that go on. So we ask,
until there is an answer, and begin to read where it says. What is left of silent standstills ends the process: see
`standstill`.
"""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from go2hooks.kafka import codes
from go2hooks.kafka.client import report
from go2hooks.kafka.partitions import Assignment, PartitionKey, ResumePoint, ask_resume_points, measure_lags
from go2hooks.kafka.standstill import Standstill
from go2hooks.kafka.topic_ids import TopicIds

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LookupTimes:
    """Seconds."""

    tend_s: float = 1.0  #: between two looks; exact enough for a lag in messages
    alone_s: float = 5.0  #: for the question where to read on, while no partition is read
    beside_s: float = 1.0  #: likewise, while other partitions could be read


_LOOKUP: Final = LookupTimes()


class PartitionOwner(Protocol):
    """What works on the partitions. Called by the thread that polls, from within a poll or from `tend`."""

    def on_assigned(self, assignments: Sequence[Assignment]) -> None:
        """These partitions are ours; their messages follow."""

    def on_revoked(self, keys: Sequence[PartitionKey]) -> dict[PartitionKey, int]:
        """These go to another process: finish what is under way and give the offsets to commit. Must bound its own
        time.
        """
        ...

    def on_lost(self, keys: Sequence[PartitionKey]) -> None:
        """These went to another process without asking: what was finished of them no longer counts."""


class Membership:
    """Not thread-safe, but for `assigned`, `reachable` and `lags`. Its owner polls the consumer, and calls `tend`
    between polls.
    """

    def __init__(
        self, config: dict[str, Any], topics: Sequence[str], owner: PartitionOwner, *, finish_s: float
    ) -> None:
        """`finish_s` is what `PartitionOwner.on_revoked` takes at most, in any process of the group."""
        self.consumer = Consumer(config | {"error_cb": self._on_error})
        self._topics = list(topics)
        self._owner = owner
        self._standstill = Standstill(self.consumer, config, self._topics, finish_s)
        self._topic_ids = TopicIds(config, self._topics)
        self._read: dict[PartitionKey, ResumePoint] = {}
        self._unread: set[PartitionKey] = set()  # assigned, but Kafka has not said yet where to read on
        self._is_member = False  # has been given its partitions, which may be none, and has not lost them since
        self._tended_at = 0.0
        self._assigned_at = time.monotonic()  # when all that was ours was read
        self.reachable = True  #: False from the moment all brokers are away until one answers again
        self.assigned = False  #: whether all partitions that are ours are read
        self.lags: dict[PartitionKey, int] = {}  #: messages not yet read, by partition; a second old at most

    @property
    def owned(self) -> Sequence[PartitionKey]:
        """The partitions that are read."""
        return tuple(self._read)

    def subscribe(self) -> None:
        self.consumer.subscribe(
            self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def tend(self, paused: Callable[[], Collection[PartitionKey]] = tuple) -> None:
        """Once a second, do what is to be done besides polling; `paused` gives the partitions that are paused.

        Mostly takes no time; up to 15 s when Kafka does not answer. Raises UnavailableError when the process has to
        end.
        """
        now = time.monotonic()
        if now - self._tended_at < _LOOKUP.tend_s:
            return
        self._tended_at = now
        if self._unread:
            self._begin()
        self._note_assigned(now)
        self._topic_ids.check(now)
        if self.assigned and self.reachable:
            self._standstill.check_share(now, has_partitions=bool(self._read))
        elif self._standstill.ask_for_brokers(now, is_member=self._is_member, assigned=self.assigned):
            self.reachable = True
        self.lags = measure_lags(self.consumer, self._read, paused() if self.reachable else ())

    def lag_unknown_s(self) -> float:
        """Seconds since all our partitions were read: nobody knows what has come since. 0 while they are. Any thread."""
        return 0.0 if self.assigned else time.monotonic() - self._assigned_at

    def store(self, offsets: dict[PartitionKey, int]) -> None:
        """Have librdkafka commit these soon. A partition that has moved away is left alone."""
        for key, offset in offsets.items():
            try:
                self.consumer.store_offsets(offsets=[self._topic_ids.position(key, offset)])
            except KafkaException as error:
                log.info("offset not stored: the partition has moved", topic=key.topic, error=str(error))

    def _begin(self) -> bool:
        """Begin to read where Kafka says a start; whether there was any. Blocks up to 15 s."""
        timeout_s = _LOOKUP.beside_s if self._read else _LOOKUP.alone_s
        asked = self._topic_ids.ask(self._unread)
        points = ask_resume_points(self.consumer, self._unread, timeout_s)
        assignments = self._topic_ids.begin(points, asked, timeout_s)
        if not assignments:
            return False
        begun = {assignment.key: points[assignment.key] for assignment in assignments}
        starts = [point.start for point in begun.values()]
        self.consumer.incremental_assign(starts)
        self.consumer.resume(starts)  # librdkafka keeps a partition paused that was so when it left us
        self._unread.difference_update(begun)
        self._read |= begun
        # A commit from before commits named their topic does so from now on.
        self.store({key: point.start.offset for key, point in begun.items() if point.start.offset >= 0})
        self._owner.on_assigned(assignments)
        self._tended_at = 0.0  # their lag is measured next
        return True

    def _note_assigned(self, now: float) -> None:
        self.assigned = self._is_member and not self._unread and bool(self.consumer.memberid())
        if self.assigned:
            self._assigned_at = now

    # --- called by librdkafka, within a poll

    def _on_error(self, error: KafkaError) -> None:
        if error.code() == codes.ALL_BROKERS_DOWN:
            self.reachable = False
        report(error, self.consumer)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._unread.update(_keys(partitions))
        self._is_member = True
        if not self._begin():
            consumer.incremental_assign([])  # or the binding would assign all, and librdkafka ask for their offsets
        self._note_assigned(time.monotonic())

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        keys = self._disown(partitions)
        offsets = self._owner.on_revoked(keys)
        self.store(offsets)  # or on the way out librdkafka would commit what was stored last: a step back
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
        """Those of these partitions that were read."""
        gone = _keys(partitions)
        self._unread.difference_update(gone)
        return [key for key in gone if self._read.pop(key, None) is not None]


def _keys(partitions: Sequence[TopicPartition]) -> list[PartitionKey]:
    return [PartitionKey(p.topic, p.partition) for p in partitions]
