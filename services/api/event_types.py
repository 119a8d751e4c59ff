"""`GET /event-types`: what a webhook may subscribe to, and what its receiver then gets."""

import json
from functools import cache
from typing import Final

from flask import Blueprint, Response

from go2hooks.codec import EventCodec
from go2hooks.core.domain.event import EventType
from go2hooks.core.domain.samples import example_payload
from go2hooks.core.encoding.json_schema import DIALECT, json_schema
from go2hooks.core.encoding.payload import render
from services.api.answers import success
from services.api.auth import require_account
from services.api.operations import Returns, operation
from services.api.shapes.events import EventTypeInfo

URL_PREFIX: Final = "/api/v1/event-types"

blueprint = Blueprint("event_types", __name__, url_prefix=URL_PREFIX)
blueprint.before_request(require_account)


@blueprint.get("")
@operation("The event types", Returns(list[EventTypeInfo]))
def list_event_types() -> Response:
    """Every event type with the JSON Schema of its `data`, whose fields are in the order in which they are sent.

    A webhook may subscribe to each by name, or to `*`: all of them, those that are added later included.
    """
    return success(catalogue())


@cache
def catalogue() -> list[EventTypeInfo]:
    """The event types, from the Avro schemas and examples of this version."""
    codec = EventCodec()
    return [_described(kind, codec) for kind in EventType]


def _described(kind: EventType, codec: EventCodec) -> EventTypeInfo:
    record = codec.schema_of(kind)
    [data] = [field["type"] for field in record["fields"] if field["name"] == "data"]
    return {
        "name": str(kind),
        "description": record["doc"],
        "schema": {"$schema": DIALECT, **json_schema(data)},
        "example": json.loads(render(example_payload(kind)).body),
    }
