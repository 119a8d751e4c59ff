"""Event types and payloads, as answers show them."""

from typing import Any

from typing_extensions import TypedDict

from services.api.shapes.fields import EventName, Moment, described


@described
class Payload(TypedDict):
    """The body that a receiver gets."""

    event: EventName
    """The event type."""
    timestamp: Moment
    """When it happened."""
    data: dict[str, Any]
    """What happened: the event type's `schema` describes it."""


@described
class EventTypeInfo(TypedDict):
    """What a webhook may subscribe to."""

    name: EventName
    """As `events` of a webhook names it."""
    description: str
    """What it tells."""
    schema: dict[str, Any]
    """The JSON Schema (2020-12) of the payload's `data`."""
    example: Payload
    """A payload as a receiver may get it."""
