"""Which offsets hold an account's events of a time range."""

from collections.abc import Iterable
from typing import NamedTuple

from go2hooks.core.domain.replay import key_partition
from go2hooks.kafka.partitions import PartitionKey
from go2hooks.kafka.reading import LogReader
from go2hooks.kafka.topics import TopicNames


class EventRange(NamedTuple):
    """A time range of one topic: where it begins and ends in each partition. A start of 0 means that nothing was
    written before.
    """

    starts: dict[PartitionKey, int]
    ends: dict[PartitionKey, int]

    def of_account(self, topic: str, key: bytes) -> PartitionKey | None:
        """The partition that the account's key is hashed to. None when its events may lie in any partition.

        That is so when a partition may have been added since the range began: one that had no messages before.
        """
        if not all(self.starts.values()):
            return None
        return PartitionKey(topic, key_partition(key, len(self.starts)))


def event_range(reader: LogReader, topic: str, begin_ms: int, end_ms: int) -> EventRange:
    """Blocks. Raises UnavailableError."""
    keys = reader.partitions([topic])
    return EventRange(reader.offsets_at(keys, begin_ms), reader.offsets_at(keys, end_ms))


def topics_of(topics: TopicNames, events: Iterable[str]) -> list[str]:
    """The topics of these event types, each once."""
    return list(dict.fromkeys(topics.of_event[event] for event in events if event in topics.of_event))


def count_events(reader: LogReader, topics: Iterable[str], account_id: str, begin_ms: int, end_ms: int) -> int:
    """How many messages lie in the partitions of the account's events, other accounts' included. Blocks; raises
    UnavailableError.
    """
    count, key = 0, account_id.encode()
    for topic in topics:
        found = event_range(reader, topic, begin_ms, end_ms)
        own = found.of_account(topic, key)
        count += sum(found.ends[each] - found.starts[each] for each in (found.starts if own is None else [own]))
    return count
