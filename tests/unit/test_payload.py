"""The body and its timestamp."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from go2hooks.core.domain.event import Event
from go2hooks.core.domain.samples import example_payload
from go2hooks.core.encoding.payload import format_timestamp, render

YEAR_2000_MS, YEAR_9999_END_MS = 946_684_800_000, 253_402_300_799_999


def test_the_body_has_the_keys_in_the_order_of_the_page() -> None:
    event = Event("evt_1", "acc_1", "click", 1_704_110_400_000, {"linkId": "l", "city": None, "browser": "ü"})
    assert render(event) == (
        "2024-01-01T12:00:00Z",
        '{"event":"click","timestamp":"2024-01-01T12:00:00Z","data":{"linkId":"l","city":null,"browser":"ü"}}'.encode(),
    )


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (1_704_110_400_000, "2024-01-01T12:00:00Z"),
        (1_704_110_400_001, "2024-01-01T12:00:00.001Z"),
        (1_704_110_400_120, "2024-01-01T12:00:00.120Z"),
        (951_782_400_000, "2000-02-29T00:00:00Z"),
        (YEAR_9999_END_MS, "9999-12-31T23:59:59.999Z"),
    ],
)
def test_milliseconds_show_only_where_they_are_not_zero(ms: int, text: str) -> None:
    assert format_timestamp(ms) == text


@given(st.integers(YEAR_2000_MS, YEAR_9999_END_MS))
def test_a_timestamp_reads_back_as_the_same_moment(ms: int) -> None:
    read = datetime.fromisoformat(format_timestamp(ms))
    assert (read - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1) == ms


def test_a_moment_beyond_the_calendar_is_an_overflow_error() -> None:
    with pytest.raises(OverflowError):
        format_timestamp(YEAR_9999_END_MS + 1)


@given(st.dictionaries(st.text(), st.none() | st.text() | st.lists(st.text()) | st.integers(-(2**53), 2**53)))
def test_the_body_reads_back_as_the_data(data: dict[str, Any]) -> None:
    body = json.loads(render(example_payload("click")._replace(data=data)).body)
    assert body == {"event": "click", "timestamp": "2024-01-01T12:00:00Z", "data": data}
