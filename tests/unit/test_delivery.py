"""Delivery ids: the same for the same event and webhook, always; different for any other."""

import re

from hypothesis import given
from hypothesis import strategies as st

from go2hooks.core.domain.delivery import delivery_id

ids = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40)


def test_a_delivery_id_never_changes_between_versions() -> None:
    """Receivers deduplicate on it, and a replayed fan-out must arrive at it: this value is fixed for good."""
    assert delivery_id("evt_1", "wh_1") == "dlv_9d6bd3b6c70fcd08c326f3662562e8"


@given(ids, ids)
def test_the_same_event_and_webhook_give_the_same_id(event_id: str, webhook_id: str) -> None:
    made = delivery_id(event_id, webhook_id)
    assert made == delivery_id(event_id, webhook_id)
    assert re.fullmatch("dlv_[0-9a-f]{30}", made)


@given(ids, ids, ids, ids)
def test_any_other_event_or_webhook_gives_another_id(
    event_a: str, webhook_a: str, event_b: str, webhook_b: str
) -> None:
    same = (event_a, webhook_a) == (event_b, webhook_b)
    assert (delivery_id(event_a, webhook_a) == delivery_id(event_b, webhook_b)) == same


def test_moving_the_border_between_the_ids_gives_another_id() -> None:
    assert delivery_id("evt_1w", "h_1") != delivery_id("evt_1", "wh_1")
