"""The rules that a decoded event must obey."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from go2hooks.core.domain.event import Event, EventType
from go2hooks.core.domain.samples import example_payload
from go2hooks.core.domain.validation import validate
from go2hooks.core.errors import InvalidEventError

VALID = example_payload("click")


@pytest.mark.parametrize("event_type", EventType)
def test_every_type_of_the_catalogue_is_valid(event_type: EventType) -> None:
    validate(example_payload(event_type))


@pytest.mark.parametrize(
    "change",
    [
        {"id": "x" * 128},
        {"account_id": "größe 😀"},
        {"timestamp_ms": 946_684_800_000},
        {"timestamp_ms": 253_402_300_799_999},
    ],
    ids=str,
)
def test_what_lies_just_inside_a_rule_is_valid(change: dict[str, object]) -> None:
    validate(VALID._replace(**change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": ""}, "id is empty"),
        ({"id": "x" * 129}, "id is 129 characters long; at most 128"),
        ({"id": "a\nb"}, "id holds a control character"),
        ({"id": "a\x85"}, "id holds a control character"),
        ({"id": "\ud800"}, "id holds a control character"),
        ({"account_id": ""}, "accountId is empty"),
        ({"account_id": "x" * 129}, "accountId is 129 characters long"),
        ({"account_id": "\x00"}, "accountId holds a control character"),
        ({"type": "*"}, "unknown event type '\\*'; known are click, link.created"),
        ({"type": ""}, "unknown event type"),
        ({"timestamp_ms": 946_684_799_999}, "outside the years 2000 to 9999"),
        ({"timestamp_ms": 253_402_300_800_000}, "outside the years 2000 to 9999"),
        ({"timestamp_ms": -(2**63)}, "outside the years"),
    ],
    ids=str,
)
def test_each_broken_rule_is_named(change: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidEventError, match=message) as caught:
        validate(VALID._replace(**change))
    assert caught.value.reason == "invalid"


@given(
    st.builds(Event, st.text(max_size=200), st.text(max_size=200), st.text(), st.integers(), st.just({})),
)
def test_any_event_passes_or_is_an_invalid_event_error(event: Event) -> None:
    with suppress(InvalidEventError):
        validate(event)
