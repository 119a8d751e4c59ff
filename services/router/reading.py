"""What the router has read and not yet routed, and what it has routed and not yet stored: by assignment of a partition."""

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
        self.waiting = 0  # read and not yet routed
        self.gone = False  # revoked or lost: its next owner reads it again

    def read(self, offset: int, accepted_ms: int) -> None:
        """A message was read, and waits."""
        self.tracker.begin(offset)
        self.unfinished.begin(offset, accepted_ms)
        self.waiting += 1


class Batch:
    """Events routed together: finished when every write that came of them is acknowledged."""

    __slots__ = ("buried", "events", "unacknowledged")

    def __init__(self) -> None:
        self.buried: set[Position] = set()  # events that Kafka refuses the deliveries of
        self.events: list[tuple[Partition, int]] = []
        self.unacknowledged = 0

    def finish(self) -> None:
        for partition, offset in self.events:
            if not partition.gone:
                partition.tracker.complete(offset)
