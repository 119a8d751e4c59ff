"""Kafka gives each topic an id. A topic that was deleted and made again has another one.

An offset means nothing in another log of the same name: there it may lie behind messages that nobody has read. So each
commit names its topic's id, in its metadata. A consumer that finds a commit about another topic begins at the start
instead. A consumer that is reading already ends its process: its client holds positions, epochs and commits that are
about the first topic.
"""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final

import structlog
from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient

from go2hooks.core.errors import UnavailableError
from go2hooks.kafka.client import renew_login
from go2hooks.kafka.partitions import Assignment, PartitionKey, ResumePoint

log = structlog.get_logger(__name__)

_LOOK_S: Final = 5.0
_ANSWER_S: Final = 5.0
_CONTROLLER_S: Final = 1.0
_MARK: Final = "topic-id:"  # tells our metadata from that of a tool which commits for us
_UNKNOWN: Final = ""
_NO_ID: Final = "AAAAAAAAAAAAAAAAAAAAAA"  # the id of topics from before Kafka gave ids

Asked = Mapping[str, "Future[Any]"]


class TopicIds:
    """The ids of one consumer's topics; asks on a connection of its own. Not thread-safe."""

    def __init__(self, config: dict[str, Any], topics: Sequence[str]) -> None:
        self._admin = AdminClient(config | {"log_level": 0, "error_cb": self._on_error})
        self._topics = topics
        self._read: dict[PartitionKey, str] = {}  # the id of the topic that a partition was read of
        self._missing: set[str] = set()  # topics that Kafka did not know when it was asked last
        self._looking: Asked = {}
        self._looked_at = 0.0

    def ask(self, keys: Iterable[PartitionKey]) -> Asked:
        """Ask for the ids of their topics. `begin` reads the answers. Blocks for a second at most.

        The controller answers. After it has died, librdkafka goes on asking it until its next look at the cluster,
        which may be half a minute away: so it is made to look now.
        """
        topics = {key.topic for key in keys}
        if topics:
            try:
                self._admin.list_topics(next(iter(topics)), timeout=_CONTROLLER_S)
            except KafkaException as error:
                log.info("kafka does not say who its controller is", error=str(error))
        return self._ask(topics)

    def _ask(self, topics: Collection[str]) -> Asked:
        """Does not block."""
        return self._admin.describe_topics(TopicCollection(list(topics)), request_timeout=_ANSWER_S) if topics else {}

    def begin(self, points: Mapping[PartitionKey, ResumePoint], asked: Asked, timeout_s: float) -> list[Assignment]:
        """The partitions that can be read now. Changes the start where the commit is about another topic.

        Blocks for `timeout_s`. Raises UnavailableError when this process has read another topic of that name.
        """
        ids = _answered(asked, timeout_s)
        return [
            self._begin(key, point, topic_id)
            for key, point in points.items()
            if (topic_id := ids.get(key.topic)) is not None
        ]

    def position(self, key: PartitionKey, offset: int) -> TopicPartition:
        """What to commit for a partition that was begun."""
        topic_id = self._read[key]
        return TopicPartition(*key, offset, metadata=_MARK + topic_id if topic_id else None)

    def check(self, now: float) -> None:
        """Ask Kafka every five seconds whether the topics that we read are there, and still the same. Does not block.

        Raises UnavailableError when one is another, or when Kafka has said twice that it is not there.
        """
        self._admin.poll(0)
        if not self._looking and now - self._looked_at >= _LOOK_S:
            self._looking, self._looked_at = self._ask({key.topic for key in self._read}), now
        elif all(future.done() for future in self._looking.values()):
            found, self._looking = _answered(self._looking, 0), {}
            for topic, topic_id in found.items():
                self._compare(topic, topic_id)

    def _begin(self, key: PartitionKey, point: ResumePoint, topic_id: str) -> Assignment:
        self._compare(key.topic, topic_id)
        self._read[key] = topic_id
        is_other = topic_id != _UNKNOWN and _marked(point.start) not in (_UNKNOWN, topic_id)
        if is_other:
            log.error(
                "the topic was deleted and made again: reading it from its start",
                topic=key.topic, partition=key.partition, committed=point.start.offset,
            )  # fmt: skip
            point.start.offset = OFFSET_BEGINNING
        return Assignment(key, point.end, is_other)

    def _compare(self, topic: str, topic_id: str | None) -> None:
        if topic_id is None:
            if topic in self._missing:
                raise UnavailableError(f"topic {topic} was deleted while it was read: run go2hooks topics")
            self._missing.add(topic)
            return
        self._missing.discard(topic)
        if any(read not in (_UNKNOWN, topic_id) for key, read in self._read.items() if key.topic == topic):
            raise UnavailableError(
                f"topic {topic} was deleted and made again while it was read: ending, to begin at its start"
            )

    def _on_error(self, error: KafkaError) -> None:
        renew_login(error, self._admin)


def _answered(asked: Asked, timeout_s: float) -> dict[str, str | None]:
    """The ids that Kafka has told in time; None for a topic that does not exist."""
    found: dict[str, str | None] = {}
    deadline = time.monotonic() + timeout_s
    for topic, future in asked.items():
        try:
            topic_id = str(future.result(max(0.0, deadline - time.monotonic())).topic_id)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                found[topic] = None
        except TimeoutError:
            pass
        else:
            found[topic] = _UNKNOWN if topic_id in ("None", _NO_ID) else topic_id
    return found


def _marked(committed: TopicPartition) -> str:
    metadata = committed.metadata or ""
    return metadata.removeprefix(_MARK) if metadata.startswith(_MARK) else _UNKNOWN
