"""What the router has read and not yet routed, and what it has routed and not yet stored."""

from confluent_kafka import Message

from go2hooks.core.domain.delivery import Position
from go2hooks.core.flow.offsets import OffsetTracker
from go2hooks.telemetry.lag import UnfinishedAge


class Partition:
    """One assignment of one partition of events."""

    __slots__ = ("gone", "suspect_until", "tracker", "unfinished", "waiting")

    def __init__(self, suspect_until: int) -> None:
        self.suspect_until = suspect_until  # messages below this offset may have been routed before
        self.tracker = OffsetTracker()
        self.unfinished = UnfinishedAge()
        self.waiting = 0  # messages that are read and not yet routed
        self.gone = False  # revoked or lost: its next owner reads it again

    def read(self, offset: int, accepted_ms: int) -> None:
        """A message was read, and waits."""
        self.tracker.begin(offset)
        self.unfinished.begin(offset, accepted_ms)
        self.waiting += 1


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
