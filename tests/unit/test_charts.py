"""Charts of a webhook's statistics: what is drawn where."""

import re
from datetime import UTC, datetime

import pytest

from services.api.dashboard import charts

NOTHING = {"delivered": 0, "failed": 0, "skipped": 0, "retried": 0, "p50Ms": None, "p95Ms": None, "p99Ms": None}


def point(minute=0, **counts):
    return NOTHING | {"at": f"2026-11-20T12:{minute:02}:00Z"} | counts


def test_a_bar_is_stacked_from_the_bottom_in_proportion():
    [bar] = charts.bars([point(delivered=5, retried=2, failed=3)])
    assert bar.segments == [("delivered", 50.0, 50.0), ("retried", 30.0, 20.0), ("failed", 0.0, 30.0)]
    assert (bar.x, bar.told) == (0, "5 delivered, 2 failed, to be retried, 3 failed for good")


def test_bars_share_one_scale_and_an_empty_step_has_none():
    first, second, third = charts.bars([point(delivered=10), point(), point(delivered=5)])
    assert (first.segments[0].height, second.segments, third.segments[0].height) == (100, [], 50)
    assert second.told == "nothing"


def test_what_happened_once_among_very_many_is_still_seen_and_stays_within_the_chart():
    bar = charts.bars([point(delivered=1_000_000, failed=1, skipped=1)])[0]
    assert all(part.height > 0 or part.y == 0 for part in bar.segments)
    assert all(part.y >= 0 and part.y + part.height <= 100 for part in bar.segments)
    assert charts.bars([point(delivered=999_998, failed=1), point(delivered=1_200_000)])[0].segments[1].height == 3


def test_a_spark_draws_all_bars_of_an_outcome_as_one_path():
    drawn = dict(charts.spark([point(delivered=1, failed=1), point(), point(delivered=2)]))
    assert drawn == {"delivered": "M0.1 50h.8v50h-.8zM2.1 0h.8v100h-.8z", "failed": "M0.1 0h.8v50h-.8z"}


@pytest.mark.parametrize(
    ("most", "marks"),
    [
        (0, ["2", "1", "0"]),
        (1, ["2", "1", "0"]),
        (3, ["4", "2", "0"]),
        (10, ["10", "5", "0"]),
        (11, ["20", "10", "0"]),
        (1500, ["2k", "1k", "0"]),
        (2_000_001, ["4M", "2M", "0"]),
    ],
)
def test_a_scale_ends_at_a_number_that_is_easily_read(most, marks):
    assert charts.count_scale([point(delivered=most)]).marks == marks


def test_the_scale_of_response_times_has_units():
    assert charts.time_scale([point(p50Ms=3.0, p95Ms=35.0, p99Ms=1400.0)]).marks == ["2 s", "1 s", "0"]
    assert charts.time_scale([point(p50Ms=3.0, p95Ms=35.0, p99Ms=70.0)]).marks == ["80 ms", "40 ms", "0"]


def test_a_line_has_gaps_where_nothing_was_answered_and_a_dot_between_two():
    assert charts.path([100.0, 50.0, None, 0.0, None, None, 25.0, 25.0], 100) == "M0.5 0L1.5 50M3.5 100h0M6.5 75L7.5 75"
    assert charts.path([None, None], 2) == ""


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ({}, ""),
        ({"skipped": 5}, ""),
        ({"delivered": 3}, "100 %"),
        ({"failed": 3}, "0 %"),
        ({"delivered": 1, "retried": 1}, "50 %"),
        ({"delivered": 99_999, "failed": 1}, "99.99 %"),
        ({"delivered": 1, "failed": 99_999}, "0.01 %"),
        ({"delivered": 2, "failed": 1}, "66.67 %"),
    ],
)
def test_what_is_not_quite_all_is_never_told_as_all(counts, told):
    assert charts.percent(charts.success_rate(NOTHING | counts)) == told


@pytest.mark.parametrize("name", charts.RANGES)
def test_a_range_is_whole_steps_that_end_with_the_present_one(name):
    now = datetime(2026, 11, 20, 12, 34, 56, 789, tzinfo=UTC)
    asked = charts.span(name, now)
    begin, end, step = datetime.fromisoformat(asked["from"]), datetime.fromisoformat(asked["to"]), int(asked["step"])
    assert 0 < (end - now).total_seconds() <= step
    steps = (end - begin).total_seconds() / step
    assert steps % charts.RANGES[name].marks == 0
    assert begin.timestamp() % step == 0


def test_at_a_full_minute_the_last_hour_ends_there():
    assert charts.span("1h", datetime(2026, 11, 20, 12, tzinfo=UTC))["to"] == "2026-11-20T12:00:00+00:00"


def test_a_chart_has_marks_in_even_distances_and_says_when_it_is_empty():
    series = [point(minute) for minute in range(60)]
    drawn = charts.chart({"series": series}, "1h")
    assert [mark.text for mark in drawn.marks] == ["12:00", "12:10", "12:20", "12:30", "12:40", "12:50"]
    assert (drawn.is_empty, drawn.is_silent, [line.path for line in drawn.lines]) == (True, True, ["", "", ""])
    series[7] = point(7, failed=1)
    drawn = charts.chart({"series": series}, "1h")
    assert (drawn.is_empty, drawn.is_silent) == (False, True)
    series[8] = point(8, delivered=1, p50Ms=5.0, p95Ms=6.0, p99Ms=7.0)
    drawn = charts.chart({"series": series}, "1h")
    assert not drawn.is_silent
    assert all(re.fullmatch(r"M8\.5 [\d.]+h0", line.path) for line in drawn.lines)
