"""Which partitions of the log a replay reads to find an account's events."""

from datetime import UTC, datetime
from typing import Any

import pytest

from go2hooks.codec import EventCodec
from go2hooks.core.domain.replay import key_partition
from go2hooks.kafka.event_spans import count_events
from go2hooks.kafka.partitions import PartitionKey
from go2hooks.kafka.topics import TopicNames
from go2hooks.postgres.replaying import Job
from services.router.replay.finding import FromEvents, Log

FROM, TO = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC)
CLICKS = TopicNames("go2").of_event["click"]
OWN = key_partition(b"acme", 4)


class Message:
    """Of another account: only its key is looked at."""

    def __init__(self, key: bytes, partition: int, offset: int) -> None:
        self._key, self._place = key, (CLICKS, partition, offset)

    def key(self) -> bytes:
        return self._key

    def topic(self) -> str:
        return self._place[0]

    def partition(self) -> int:
        return self._place[1]

    def offset(self) -> int:
        return self._place[2]

    def timestamp(self) -> tuple[int, int]:
        return 1, 0


class Reader:
    """A log of four partitions: where the range begins in each, and one message in each that is read."""

    def __init__(self, starts: list[int], key: bytes = b"acme") -> None:
        self.starts, self.key = starts, key
        self.read_partitions: list[set[int]] = []

    def partitions(self, topics: list[str]) -> list[PartitionKey]:
        return [PartitionKey(topic, number) for topic in topics for number in range(4)]

    def offsets_at(self, keys: list[PartitionKey], time_ms: int) -> dict[PartitionKey, int]:
        later = 10 if time_ms > FROM.timestamp() * 1000 else 0
        return {key: self.starts[key.partition] + later for key in keys}

    def read(self, spans: Any) -> Any:
        self.read_partitions.append({span.key.partition for span in spans})
        return iter([Message(self.key, span.key.partition, span.start) for span in spans])


def run(reader: Reader, progress: Any = None) -> Any:
    job = Job(
        "rpl_1", "wh_1", "acme", "missed", None, FROM, TO, progress, 0, 0, frozenset(("click",)), is_active=True, filter=None
    )  # fmt: skip
    source = FromEvents(job, Log(reader, TopicNames("go2"), EventCodec(), "dep_1"))  # type: ignore[arg-type]  # a stand-in
    while not (found := source.next(None, job)).is_end:  # type: ignore[arg-type]  # nothing is selected, so nothing is asked
        pass
    return found.step


def test_only_the_account_s_own_partition_is_read():
    reader = Reader([5, 9, 7, 3])
    run(reader)
    assert reader.read_partitions == [{OWN}]


@pytest.mark.parametrize("added", range(4))
def test_all_are_read_where_one_had_nothing_before_the_range_and_may_have_been_added_since(added):
    reader = Reader([5 if number != added else 0 for number in range(4)])
    run(reader)
    assert reader.read_partitions == [{0, 1, 2, 3}]


def test_all_are_read_once_a_key_lies_where_it_should_not():
    foreign = next(name for n in range(100) if key_partition(name := b"other %d" % n, 4) != OWN)
    reader = Reader([5, 9, 7, 3], foreign)
    run(reader)
    assert reader.read_partitions == [{OWN}, {0, 1, 2, 3}]


def test_what_was_read_before_a_crash_is_not_read_again():
    first = Reader([5, 9, 7, 3])
    step = run(first)
    again = Reader([5, 9, 7, 3])
    assert (step.unread, run(again, step.progress).unread) == (9, 8)
    assert again.read_partitions == [{OWN}]
    assert step.progress["spans"] == [[CLICKS, OWN, first.starts[OWN] + 1, first.starts[OWN] + 10]]


@pytest.mark.parametrize(("starts", "count"), [([5, 9, 7, 3], 10), ([5, 0, 7, 3], 40)])
def test_an_estimate_counts_what_lies_where_a_replay_would_read(starts, count):
    begin_ms, end_ms = (round(each.timestamp() * 1000) for each in (FROM, TO))
    assert count_events(Reader(starts), [CLICKS], "acme", begin_ms, end_ms) == count  # type: ignore[arg-type]  # a stand-in
