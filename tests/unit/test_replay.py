"""What a replay selects, under which numbers, and from which partitions."""

import pytest

from go2hooks.core.domain.outcome import State
from go2hooks.core.domain.replay import Selection, key_partition, next_attempt


@pytest.mark.parametrize(
    ("selection", "last", "state", "expected"),
    [
        (Selection.FAILED, 6, State.FAILED, 7),
        (Selection.FAILED, 1, State.DELIVERED, None),
        (Selection.SKIPPED, 1, State.SKIPPED, 2),
        (Selection.SKIPPED, 6, State.FAILED, None),
        (Selection.MISSED, 0, None, 1),
        (Selection.MISSED, 1, State.DELIVERED, None),
        (Selection.MISSED, 1, State.SKIPPED, None),
        (Selection.ALL, 0, None, 1),
        (Selection.ALL, 3, State.DELIVERED, 4),
        (Selection.ALL, 6, State.FAILED, 7),
        (Selection.ALL, 1, State.SKIPPED, 2),
        (Selection.ALL, 2, State.RETRYING, None),
        (Selection.ALL, 0, State.PENDING, None),
        (Selection.FAILED, 0, None, None),
    ],
)
def test_what_is_over_is_selected_by_how_it_ended_and_goes_on_from_its_last_number(selection, last, state, expected):
    assert next_attempt(selection, last, state) == expected


@pytest.mark.parametrize(
    ("key", "hashed"),
    [  # as Kafka's own tests have them (UtilsTest.testMurmur2)
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_a_key_lies_where_kafka_s_java_client_places_it(key, hashed):
    for partitions in (1, 8, 12, 100):
        assert key_partition(key, partitions) == (hashed & 0x7FFFFFFF) % partitions
