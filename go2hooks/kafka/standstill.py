"""Ends a consumer that silently stands still, so that its supervisor starts the process again.

It has lost its place in the group, or has partitions that it cannot read, or none although it is the only member: each
for longer than any rebalance takes while brokers answer. With fewer partitions than members, it is right that one has
none.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException
from confluent_kafka.admin import AdminClient

from go2hooks.core.errors import UnavailableError
from go2hooks.kafka.diagnosis import Diagnosis


@dataclass(frozen=True, slots=True)
class StandstillLimits:
    """Seconds."""

    rebalance_s: float = 30.0  #: what a rebalance may take besides a session's end and the slowest member's last work
    answer_s: float = 0.5  #: what a broker has for an answer; nothing is read meanwhile
    count_s: float = 2.0  #: what the group's coordinator has for one
    #: librdkafka's own limit for that, which is never reached: a request that it gives up itself may end the process by
    #: SIGABRT.
    count_kept_s: float = 60.0


_LIMITS: Final = StandstillLimits()


class Standstill:
    """Not thread-safe: used by the thread that polls."""

    def __init__(self, consumer: Consumer, config: dict[str, Any], topics: Sequence[str], finish_s: float) -> None:
        """`finish_s` is what a member takes at most to finish its work on partitions that are revoked."""
        self._consumer = consumer
        self._config = config
        self._topics = topics
        self._patience_s = _LIMITS.rebalance_s + finish_s + config.get("session.timeout.ms", 45_000) / 1000
        self._diagnosis = Diagnosis(config)
        self._missed_since: float | None = None  # brokers answer, and we do not read what we should
        self._served_at = time.monotonic()  # last with partitions, or last seen to be one of several members

    def ask_for_brokers(self, now: float, *, is_member: bool, assigned: bool) -> bool:
        """Whether brokers answer for our topics: librdkafka reconnects by itself, but does not say so. Blocks for half
        a second.

        Raises UnavailableError when they have done so for long, and not all that is ours is `assigned`.
        """
        try:
            found = self._consumer.list_topics(self._topics[0], timeout=_LIMITS.answer_s).topics
        except KafkaException:
            self._missed_since = None
            self._diagnosis.look()
            return False
        if any(topic.error is not None for topic in found.values()) or assigned:
            self._missed_since = None
        elif self._missed_since is None:
            self._missed_since = now
        elif now - self._missed_since > self._patience_s:
            raise self._failed("cannot read its partitions" if is_member else "is no member of its group")
        return True

    def check_share(self, now: float, *, has_partitions: bool) -> None:
        """For a member that reads all that is its own. Raises UnavailableError when that is nothing, and nobody else is
        there.
        """
        self._missed_since = None
        if has_partitions:
            self._served_at = now
        elif now - self._served_at > self._patience_s:
            self._served_at = now
            if self._count_members() == 1:
                raise self._failed("has no partitions, the only member of its group")

    def _count_members(self) -> int:
        """0 when Kafka does not say in time; blocks up to 2 s, on a connection of its own.

        librdkafka 2.16 forgets whom it asked for the coordinator when the request's own time is up first, and fails an
        assertion at the answer. So we stop waiting by ourselves, and close the client with the request under way.
        """
        admin = AdminClient({**self._config, "log_level": 0})
        group = self._config["group.id"]
        try:
            asked = admin.describe_consumer_groups([group], request_timeout=_LIMITS.count_kept_s)
            return len(asked[group].result(_LIMITS.count_s).members)
        except (KafkaException, TimeoutError):
            return 0

    def _failed(self, what: str) -> UnavailableError:
        topics = ", ".join(self._topics)
        return UnavailableError(f"the consumer of {topics} {what}, for {self._patience_s:.0f} s, though Kafka answers")
