"""An event's deliveries: rendered once, one for each webhook that wants it."""

from collections.abc import Iterable
from typing import Final

from go2hooks.core.domain.delivery import Delivery, Kind, delivery_id
from go2hooks.core.domain.event import Event
from go2hooks.core.encoding.payload import Rendered

# Kafka's time of an event dates its records; a topic of somebody else's making may have none, or a producer's wrong one.
_CREDIBLE_MS: Final = range(946_684_800_000, 253_402_300_800_000)  # years 2000 to 9999


def origin_of(event: Event, accepted_ms: int) -> int:
    """By what the records of the event's deliveries are dated, in milliseconds since the epoch: whenever it is read, the same."""
    return accepted_ms if accepted_ms in _CREDIBLE_MS else event.timestamp_ms


def first_deliveries(
    event: Event, rendered: Rendered, webhook_ids: Iterable[str], origin_ms: int, *, suspect: bool, deployment: str = ""
) -> list[Delivery]:
    """One delivery per webhook, for its first attempt, at once."""
    return [
        Delivery(
            delivery_id(event.id, webhook_id), webhook_id, event.account_id, event.id, event.type, rendered.timestamp,
            rendered.body, 1, 0, Kind.EVENT, origin_ms, suspect, deployment,
        )
        for webhook_id in webhook_ids
    ]  # fmt: skip


def others(webhook_ids: tuple[str, ...], event: Event) -> tuple[str, ...]:
    """Without the webhook that the event is about: what is wrong with it would keep it from hearing of it."""
    about = event.data["webhookId"]
    return tuple(webhook_id for webhook_id in webhook_ids if webhook_id != about)
