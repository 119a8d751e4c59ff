"""What the router has read and not yet routed, and what it has routed and not yet stored."""

from confluent_kafka import Message

from go2hooks.core.domain.delivery import Position
from go2hooks.kafka.partitions import Partition


class ReadEvent:
    """A message that waits to be routed."""

    __slots__ = ("accepted_ms", "account", "message", "offset", "partition", "size")

    def __init__(
        self, message: Message, partition: Partition, account: bytes, offset: int, accepted_ms: int, size: int
    ) -> None:
        self.message = message
        self.partition = partition
        self.account = account  # under which it waits: the beginning of its key
        self.offset = offset
        self.accepted_ms = accepted_ms  # when Kafka received it, in milliseconds since the epoch
        self.size = size  # bytes in memory


class Batch:
    """Events that are routed together. It is finished when Kafka has acknowledged every write that came of them."""

    __slots__ = ("buried", "events", "unacknowledged")

    def __init__(self) -> None:
        self.buried: set[Position] = set()  # events whose deliveries Kafka refuses
        self.events: list[ReadEvent] = []
        self.unacknowledged = 0

    def finish(self) -> None:
        for event in self.events:
            if not event.partition.gone:
                event.partition.tracker.complete(event.offset)
