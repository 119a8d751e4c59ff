"""Makes an event's deliveries, one for each webhook that wants it, all with the same rendered body."""

from collections.abc import Iterable
from typing import Final

from go2hooks.core.domain.delivery import Delivery, Kind, delivery_id
from go2hooks.core.domain.event import Event
from go2hooks.core.encoding.payload import Rendered

# A topic that somebody else created may have no timestamps, or those of a producer with a wrong clock.
_CREDIBLE_MS: Final = range(946_684_800_000, 253_402_300_800_000)  # years 2000 to 9999


def origin_of(event: Event, accepted_ms: int) -> int:
    """When Kafka accepted the event, milliseconds since the epoch: part of the records' key, the same on every read.

    The event's own timestamp if Kafka's is not credible.
    """
    return accepted_ms if accepted_ms in _CREDIBLE_MS else event.timestamp_ms


def first_deliveries(
    event: Event, rendered: Rendered, webhook_ids: Iterable[str], origin_ms: int, *, suspect: bool, deployment: str = ""
) -> list[Delivery]:
    """One delivery per webhook: its first attempt, due at once."""
    return [
        Delivery(
            delivery_id(event.id, webhook_id), webhook_id, event.account_id, event.id, event.type, rendered.timestamp,
            rendered.body, 1, 0, Kind.EVENT, origin_ms, suspect, deployment,
        )
        for webhook_id in webhook_ids
    ]  # fmt: skip


def others(webhook_ids: tuple[str, ...], event: Event) -> tuple[str, ...]:
    """All but the webhook that the event is about: its receiver fails, so the event would not arrive."""
    about = event.data["webhookId"]
    return tuple(webhook_id for webhook_id in webhook_ids if webhook_id != about)
