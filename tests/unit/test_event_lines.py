"""JSON lines for `go2hooks emit --file`."""

import json

import pytest

from go2hooks.cli.event_lines import parse_line
from go2hooks.core.domain.event import Event
from go2hooks.core.errors import InvalidEventError

NOW_MS = 1_800_000_000_000


def parse(line: object, expected: str = "click") -> Event:
    text = line if isinstance(line, str) else json.dumps(line)
    return parse_line(text, expected=expected, account_id="acme", new_id=lambda: "evt_new", now_ms=NOW_MS)


def test_data_alone_gets_an_id_and_the_present_time():
    assert parse({"data": {"slug": "x"}}) == Event("evt_new", "acme", "click", NOW_MS, {"slug": "x"})


def test_id_and_time_of_the_line_are_kept():
    event = parse({"id": "evt_1", "timestamp": "2024-01-01T12:00:00.250Z", "data": {}})
    assert (event.id, event.timestamp_ms) == ("evt_1", 1_704_110_400_250)


def test_the_payload_form_names_its_event():
    assert parse({"event": "qr.scanned", "timestamp": 1_704_110_400_000, "data": {}}, "all").type == "qr.scanned"


@pytest.mark.parametrize(
    ("line", "expected", "message"),
    [
        ("{", "click", "not JSON"),
        ("[1]", "click", "no event"),
        ({"data": "x"}, "click", "no event"),
        ({"data": {}, "acount": "a"}, "click", "unknown field 'acount'"),
        ({"data": {}}, "all", "which event is it"),
        ({"event": "click", "data": {}}, "qr.scanned", "it is a 'click'"),
        ({"event": "clicked", "data": {}}, "all", "unknown event type 'clicked'"),
        ({"timestamp": "yesterday", "data": {}}, "click", "not ISO 8601"),
        ({"timestamp": "2024-01-01T12:00:00", "data": {}}, "click", "no time zone"),
        ({"timestamp": True, "data": {}}, "click", "timestamp is no string"),
        ({"timestamp": 12, "data": {}}, "click", "outside the years"),
        ({"id": 7, "data": {}}, "click", "id is no string"),
        ("[" * 100_000, "click", "nested too deeply"),
        ('{"data": ' + "[" * 100_000, "click", "nested too deeply"),
        ('{"data": {"slug": "\udcff"}}', "click", "not UTF-8 from character 20 on"),
    ],
)
def test_a_bad_line_says_what_is_wrong(line: object, expected: str, message: str):
    with pytest.raises(InvalidEventError, match=message):
        parse(line, expected)
