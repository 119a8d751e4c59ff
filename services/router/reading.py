"""Reads ahead: what Kafka has for this router waits in the scheduler, as far as there is room."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from confluent_kafka import Message, TopicPartition

from go2hooks.core.flow.lag import UnreadAge
from go2hooks.kafka import codes
from go2hooks.kafka.membership import Membership
from go2hooks.kafka.partitions import Partition, PartitionKey, is_data, position_of
from services.router.batch import ReadEvent
from services.router.scheduling import Scheduler


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """How much is read at a time, and how often at least."""

    messages: int = 250  #: a little more than a turn routes
    poll_at_least_s: float = 30.0  #: while there is no room; a tenth of what the group waits for a poll
    key_bytes: int = 512  #: of a key that name an account; longer keys that begin alike share the turns of one account


_READ: Final = ReadLimits()


class Reader:
    """Used by one thread, which also handles rebalances: `partitions` changes only while it polls."""

    def __init__(
        self, membership: Membership, partitions: Mapping[PartitionKey, Partition], scheduler: Scheduler
    ) -> None:
        self._membership = membership
        self._consumer = membership.consumer
        self._partitions = partitions
        self._scheduler = scheduler
        self._polled_at = 0.0
        self.unread = UnreadAge()
        #: The end of a partition was read, and may lie beyond its last message. Reset by who stores offsets.
        self.skipped = False

    def read(self, patience_s: float) -> None:
        """Let what has arrived wait for its turn. Blocks for `patience_s` when nothing has."""
        room = self._scheduler.room
        if room <= 0:
            self._poll_without_reading()
            return
        self._polled_at = time.monotonic()
        first = self._consumer.poll(patience_s)
        if first is not None:
            now = time.monotonic()
            self._put((first, *self._consumer.consume(min(room, _READ.messages) - 1, 0)), now)

    def _poll_without_reading(self) -> None:
        """While there is no room: the group removes a member that does not poll."""
        now = time.monotonic()
        if now - self._polled_at < _READ.poll_at_least_s:
            return
        self._polled_at = now
        self._consumer.pause([TopicPartition(*key) for key in self._membership.owned])
        leftover = self._consumer.poll(0)  # what was on its way
        if leftover is not None:
            self._put((leftover,), now)
        self._consumer.resume([TopicPartition(*key) for key in self._membership.owned])

    def _put(self, messages: Sequence[Message], now: float) -> None:
        """Of a burst, hundreds of messages come in a row from one partition, which is looked up once."""
        topic, number, partition = "", -1, None
        for message in messages:
            if message.error() is not None:
                self._hear(message)
                continue
            if message.partition() != number or message.topic() != topic:
                topic, number, _offset = position_of(message)
                partition = self._partitions.get(PartitionKey(topic, number))
            if partition is None:  # revoked while its last messages were on their way
                continue
            offset: int = message.offset()  # type: ignore[assignment]  # consumed: has one
            _kind, accepted_ms = message.timestamp()
            partition.begin(offset)
            partition.hold(offset, accepted_ms)
            self.unread.read(topic, accepted_ms)
            account = (message.key() or b"")[: _READ.key_bytes]
            self._scheduler.put(ReadEvent(message, partition, account, offset, accepted_ms, _size(message)), now)

    def _hear(self, report: Message) -> None:
        """A report of librdkafka's: mostly that a partition is read to its end, which may lie beyond its last message.

        A transaction ends with a marker, which is no message. If it were not committed, it would be lag for ever.
        """
        if report.error().code() != codes.PARTITION_EOF:  # type: ignore[union-attr]  # it has one
            is_data(report)
            return
        topic, number, offset = position_of(report)
        partition = self._partitions.get(PartitionKey(topic, number))
        if partition is not None:
            partition.tracker.skip_to(offset)
            self.skipped = True


def _size(message: Message) -> int:
    """Bytes that it takes in memory; `len` counts those of its value alone."""
    size = len(message) + len(message.key() or b"")
    headers: list[tuple[str, bytes | None]] | None = message.headers()  # type: ignore[assignment]  # as they arrive
    return size + sum(len(name) + len(value or b"") for name, value in headers) if headers else size
