"""Made-up events: the same for the same seed, and fit to be sent."""

import random

import pytest

from go2hooks.codec import EventCodec
from go2hooks.core.domain.event import Event, EventType
from go2hooks.core.domain.samples import example_payload, sample_data
from go2hooks.core.domain.validation import validate


@pytest.mark.parametrize("kind", EventType)
def test_every_sample_fits_its_schema_with_every_field_in_order(kind: EventType) -> None:
    codec = EventCodec()
    source = random.Random(7)
    for _ in range(300):
        data = sample_data(kind, source)
        event = Event("evt_1", "acc_1", str(kind), 1_704_110_400_000, data)
        assert list(codec.decode(codec.encode(event)).data.items()) == list(data.items())


@pytest.mark.parametrize("kind", EventType)
def test_the_same_seed_gives_the_same_samples(kind: EventType) -> None:
    def run(seed: int) -> list[dict[str, object]]:
        source = random.Random(seed)
        return [sample_data(kind, source) for _ in range(20)]

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_samples_hold_unicode_and_nulls() -> None:
    source = random.Random(1)
    values = [value for _ in range(200) for value in sample_data("click", source).values()]
    assert None in values
    assert any(not value.isascii() for value in values if value)


@pytest.mark.parametrize("kind", EventType)
def test_the_example_of_the_documentation_is_a_valid_event(kind: EventType) -> None:
    event = example_payload(kind)
    validate(event)
    assert EventCodec().decode(EventCodec().encode(event)) == event


def test_an_example_is_the_callers_own() -> None:
    example_payload("link.updated").data["changes"].append("slug")
    assert example_payload("link.updated").data["changes"] == ["destinationUrl"]


def test_an_unknown_type_has_no_sample() -> None:
    with pytest.raises(ValueError, match="unknown event type"):
        sample_data("link.moved", random.Random(1))
    with pytest.raises(KeyError):
        example_payload("link.moved")
