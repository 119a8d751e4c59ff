"""What Kafka knows of the whole pipeline: how much was written, how much waits and since when, which processes read.

This is for people. Alerts use what each process tells of itself in `/metrics`.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final, NamedTuple, TypeVar

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from go2hooks.codec import decode_delivery
from go2hooks.core.errors import EventError, UnavailableError
from go2hooks.kafka.admin import admin_client
from go2hooks.kafka.client import GroupNames, consumer_config, reporting_consumer, running
from go2hooks.kafka.diagnosis import Diagnosis
from go2hooks.kafka.partitions import PartitionKey
from go2hooks.kafka.topics import TopicNames
from go2hooks.settings import Settings

K = TypeVar("K")

RATE_S: Final = 60  #: seconds before the question that a rate is about
_REACH_S: Final = 1.0
_ANSWERS_S: Final = 0.6  # for all answers together: the questions are sent at once
_OLDEST_S: Final = 0.6
_KEPT_S: Final = 60.0  # never reached: a request that librdkafka gives up itself may end the process, see standstill.py
_HEAD_BYTES: Final = 4096  # one message is read of each partition; a larger one comes whole
_DENIED: Final = frozenset((KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED))
_NO_GROUP: Final = frozenset((KafkaError.GROUP_ID_NOT_FOUND,))


class TopicFigures(NamedTuple):
    """A topic, between its writers and the group that reads it. None for figures that Kafka did not tell."""

    written: int | None  #: messages in the last RATE_S seconds
    waiting: int | None  #: messages that the group has not finished
    handled: int | None  #: messages that the group has ever finished: only differences are of use
    late_s: float | None  #: age of the oldest message that waits; of a retry, since its due time


class Process(NamedTuple):
    """A process that reads, as Kafka lists it."""

    service: str  #: router, dispatcher
    version: str  #: "" when its client id does not tell
    build: str
    host: str
    partitions: int


class Survey(NamedTuple):
    """What Kafka answered, exact to a second or two."""

    at: float  #: seconds since the epoch
    stages: dict[str, TopicFigures]  #: by topic
    dead: dict[str, int]  #: messages in the dead-letter topics, markers included, by topic
    processes: list[Process]
    faults: list[str]  #: what is unknown and why, in one sentence each


class Surveyor:
    """Keeps its clients open. Used by one thread at a time."""

    def __init__(self, settings: Settings) -> None:
        """Connects to nothing yet."""
        self._settings = settings
        self._topics = TopicNames(settings.kafka_prefix)
        self._groups = GroupNames(settings.kafka_prefix)
        self._read_by = _read_by(settings)
        self._dead = (self._topics.events_dead, self._topics.deliveries_dead)
        reading = consumer_config(settings, self._groups.reader, prefetch_kib=1024)
        self._config: dict[str, Any] = reading | {
            "enable.auto.commit": False,
            "fetch.message.max.bytes": _HEAD_BYTES,
            "fetch.error.backoff.ms": 20,  # the default, half a second, is most of the time that there is
            "log_level": 0,
        }
        self._diagnosis = Diagnosis(self._config)
        self._admin: AdminClient | None = None
        self._consumer: Consumer | None = None
        self._read: dict[
            PartitionKey, tuple[int, int]
        ] = {}  # the first unfinished message of each partition: its offset, and its due time in ms

    def look(self) -> Survey:
        """Blocks for a second when Kafka is away, for two at most. Raises UnavailableError when no broker answers."""
        if self._admin is None:
            self._admin = admin_client(self._settings)
        asking = _Asking(self._admin)
        now = time.time()
        keys = self._partitions(self._admin, asking)
        events = [key for key in keys if key.topic not in self._dead]
        ends = asking.offsets(keys, OffsetSpec.latest())  # type: ignore[no-untyped-call]
        starts = asking.offsets(keys, OffsetSpec.earliest())  # type: ignore[no-untyped-call]
        before = asking.offsets(events, OffsetSpec.for_timestamp(round((now - RATE_S) * 1000)))
        committed = asking.committed(self._groups.of_services)
        members = asking.members((self._groups.router, self._groups.dispatcher))
        found = _Offsets(
            asking.collect(starts), asking.collect(ends), asking.collect(before), asking.collect(committed)
        )
        processes = asking.collect(members)
        heads = self._heads(found.unfinished(self._read_by), asking.faults)
        return Survey(
            now,
            {topic: found.stage(topic, group, heads) for topic, group in self._read_by.items()},
            {topic: total for topic in self._dead if (total := found.total(topic)) is not None},
            [each for group, described in processes.items() for each in self._processes(group, described)],
            list(asking.faults),
        )

    def close(self) -> None:
        if self._consumer is not None:
            self._consumer.close()

    def _partitions(self, admin: AdminClient, asking: "_Asking") -> list[PartitionKey]:
        try:
            there = admin.list_topics(timeout=_REACH_S).topics
        except KafkaException as error:
            self._diagnosis.look()
            servers = self._settings.kafka_bootstrap_servers
            raise UnavailableError(f"Kafka at {servers} does not answer ({error.args[0].str()}).") from error
        keys = []
        for topic in (*self._read_by, *self._dead):
            if topic in there and there[topic].error is None:
                keys += [PartitionKey(topic, number) for number in there[topic].partitions]
            else:
                asking.faults[
                    f"The topic {topic} is not there, or the API may not see it: see `go2hooks topics acls`."
                ] = None
        return keys

    def _processes(self, group: str, described: Any) -> Iterable[Process]:
        service = "router" if group == self._groups.router else "dispatcher"
        for member in described.members:
            held = len(member.assignment.topic_partitions) if member.assignment is not None else 0
            runs = running(member.client_id)
            yield Process(service, *(runs or ("", "")), member.host.removeprefix("/"), held)

    def _heads(self, wanted: dict[PartitionKey, int], faults: dict[str, None]) -> dict[PartitionKey, int]:
        """When the message at each position was due, or written, in milliseconds; without those that did not come in
        time.

        A position that has not moved since the last time is not read again.
        """
        known = {key: read for key, read in self._read.items() if wanted.get(key) == read[0]}
        unread = {key: offset for key, offset in wanted.items() if key not in known}
        if unread:
            try:
                if self._consumer is None:
                    self._consumer = reporting_consumer(self._config)
                known |= {key: (unread[key], due_ms) for key, due_ms in _read_heads(self._consumer, unread).items()}
            except KafkaException as error:
                faults[f"How old what waits is, Kafka does not say: {error.args[0].str()}."] = None
        self._read = known
        return {key: due_ms for key, (_, due_ms) in known.items()}


def _read_by(settings: Settings) -> dict[str, str]:
    """The group that reads each topic, in the order of the pipeline."""
    topics, groups = TopicNames(settings.kafka_prefix), GroupNames(settings.kafka_prefix)
    return {
        **dict.fromkeys(topics.events, groups.router),
        topics.deliveries: groups.dispatcher,
        **dict.fromkeys(topics.tiers(settings.retry_delays), groups.retry),
        topics.overflow: groups.overflow,
    }


class _Asking:
    """Sends all questions at once. Each that is refused, or not answered in time, becomes a sentence in `faults`."""

    def __init__(self, admin: AdminClient) -> None:
        self._admin = admin
        self._until = time.monotonic() + _REACH_S + _ANSWERS_S
        self.faults: dict[str, None] = {}  #: sentences, each once, in order

    def offsets(self, keys: Sequence[PartitionKey], spec: OffsetSpec) -> dict[PartitionKey, "Future[Any]"]:
        asked = {TopicPartition(*key): spec for key in keys}
        answers = self._admin.list_offsets(asked, request_timeout=_KEPT_S) if asked else {}
        return {PartitionKey(place.topic, place.partition): answer for place, answer in answers.items()}

    def committed(self, groups: Iterable[str]) -> dict[str, "Future[Any]"]:
        asked: dict[str, Future[Any]] = {}
        for group in groups:  # the binding takes one group at a time
            wanted = [ConsumerGroupTopicPartitions(group)]
            asked |= self._admin.list_consumer_group_offsets(wanted, request_timeout=_KEPT_S)
        return asked

    def members(self, groups: Sequence[str]) -> dict[str, "Future[Any]"]:
        return dict(self._admin.describe_consumer_groups(list(groups), request_timeout=_KEPT_S))

    def collect(self, asked: Mapping[K, "Future[Any]"]) -> dict[K, Any]:
        """The answers, without those that did not come."""
        found: dict[K, Any] = {}
        for key, answer in asked.items():
            name = key.topic if isinstance(key, PartitionKey) else key
            try:
                found[key] = answer.result(max(0.0, self._until - time.monotonic()))
            except KafkaException as error:
                fault: KafkaError = error.args[0]
                if fault.code() not in _NO_GROUP:
                    self.faults[_refusal(name, fault)] = None
            except TimeoutError:
                self.faults[f"Kafka did not tell in time how {name} stands."] = None
        return found


def _refusal(name: object, error: KafkaError) -> str:
    if error.code() in _DENIED:
        return f"The API's login may not DESCRIBE {name}: see `go2hooks topics acls`."
    return f"How {name} stands, Kafka does not say: {error.str()}."


class _Offsets:
    """The answers, added up by topic."""

    def __init__(
        self,
        starts: Mapping[PartitionKey, Any],
        ends: Mapping[PartitionKey, Any],
        before: Mapping[PartitionKey, Any],
        committed: Mapping[str, Any],
    ) -> None:
        self._starts: dict[PartitionKey, int] = {key: found.offset for key, found in starts.items()}
        self._ends: dict[PartitionKey, int] = {key: found.offset for key, found in ends.items()}
        self._before: dict[PartitionKey, int] = {key: found.offset for key, found in before.items()}
        self._committed: dict[str, dict[PartitionKey, int]] = {
            group: {PartitionKey(each.topic, each.partition): each.offset for each in found.topic_partitions}
            for group, found in committed.items()
        }
        self._keys: dict[str, list[PartitionKey]] = {}
        for key in self._ends:
            self._keys.setdefault(key.topic, []).append(key)

    def total(self, topic: str) -> int | None:
        """How many messages lie in the topic."""
        return self._sum(topic, lambda key: self._ends[key] - self._starts[key])

    def unfinished(self, read_by: Mapping[str, str]) -> dict[PartitionKey, int]:
        """The next offset of each group, in the partitions where messages wait for it."""
        found: dict[PartitionKey, int] = {}
        for topic, group in read_by.items():
            for key in self._keys.get(topic, ()):
                with suppress(KeyError):
                    if (at := self._next(group, key)) < self._ends[key]:
                        found[key] = at
        return found

    def stage(self, topic: str, group: str, heads: Mapping[PartitionKey, int]) -> TopicFigures:
        waiting = self._sum(topic, lambda key: max(0, self._ends[key] - self._next(group, key)))
        handled = self._sum(topic, lambda key: self._next(group, key))
        return TopicFigures(self._sum(topic, self._recent), waiting, handled, self._late_s(topic, waiting, heads))

    def _late_s(self, topic: str, waiting: int | None, heads: Mapping[PartitionKey, int]) -> float | None:
        if not waiting:
            return None if waiting is None else 0.0
        oldest = min((heads[key] for key in self._keys[topic] if key in heads), default=None)
        return None if oldest is None else max(0.0, time.time() - oldest / 1000)

    def _recent(self, key: PartitionKey) -> int:
        """Messages written since `before`, which is -1 where none was."""
        since = self._before[key]
        return max(0, self._ends[key] - since) if since >= 0 else 0

    def _next(self, group: str, key: PartitionKey) -> int:
        """The group's next offset: the start of the log, unless it has committed one that still exists. KeyError when
        unknown.
        """
        return max(self._committed[group].get(key, 0), self._starts[key])

    def _sum(self, topic: str, of: Callable[[PartitionKey], int]) -> int | None:
        """The sum over the partitions of the topic; None unless the figure of each is known."""
        keys = self._keys.get(topic)
        try:
            return sum(map(of, keys)) if keys else None
        except KeyError:
            return None


def _read_heads(consumer: Consumer, wanted: Mapping[PartitionKey, int]) -> dict[PartitionKey, int]:
    """When the first message of each partition is due, for those that come within _OLDEST_S.

    Nothing is paused: a partition that was paused is not read at once when it is assigned again.
    """
    found: dict[PartitionKey, int] = {}
    consumer.assign([TopicPartition(*key, offset) for key, offset in wanted.items()])
    until = time.monotonic() + _OLDEST_S
    while len(found) < len(wanted) and (left_s := until - time.monotonic()) > 0:
        message = consumer.poll(left_s)
        if message is None:
            break
        error = message.error()
        if error is not None:
            if error.code() in _DENIED:
                raise KafkaException(error)
            continue
        key = PartitionKey(str(message.topic()), int(message.partition() or 0))
        if key in wanted and key not in found:
            found[key] = _due_ms(message)
    consumer.unassign()
    return found


def _due_ms(message: Message) -> int:
    """When it is to be handled: a retry at its due time, every other message when it is written."""
    written_ms = message.timestamp()[1]
    value = message.value()
    try:
        return max(written_ms, decode_delivery(value if isinstance(value, bytes) else b"").due_ms)
    except EventError:  # an event, or a message that nobody can decode
        return written_ms
