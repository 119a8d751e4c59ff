"""An event's deliveries: rendered once, one for each webhook that wants it."""

from collections.abc import Iterable

from go2hooks.core.delivery import Delivery, Kind, delivery_id
from go2hooks.core.event import Event
from go2hooks.core.payload import Rendered


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
