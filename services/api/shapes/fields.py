"""Fields that many answers have, and how a field is described."""

from typing import Annotated, Final

from pydantic import ConfigDict, WithJsonSchema, with_config

from go2hooks.core.domain.delivery import Kind
from go2hooks.core.domain.event import SUBSCRIBABLE, EventType
from go2hooks.core.domain.outcome import State
from go2hooks.core.domain.replay import ReplayStatus, Selection
from go2hooks.postgres.api_keys import Scope
from go2hooks.postgres.webhooks import SORTS, STATES

#: For TypedDicts whose fields are described by the strings below them.
described: Final = with_config(ConfigDict(use_attribute_docstrings=True))

Moment = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]  #: UTC, ending in Z
Subscribed = Annotated[str, WithJsonSchema({"type": "string", "enum": [str(name) for name in SUBSCRIBABLE]})]
EventName = Annotated[str, WithJsonSchema({"type": "string", "enum": [str(name) for name in EventType]})]
Status = Annotated[str, WithJsonSchema({"type": "string", "enum": [str(state) for state in State]})]
Selected = Annotated[str, WithJsonSchema({"type": "string", "enum": [str(selection) for selection in Selection]})]
ReplayState = Annotated[str, WithJsonSchema({"type": "string", "enum": [str(status) for status in ReplayStatus]})]
Why = Annotated[str, WithJsonSchema({"type": "string", "enum": [str(kind) for kind in Kind]})]
TRIGGERS: Final = {Kind.EVENT: "schedule", Kind.TEST: "test", Kind.REPLAY: "replay", Kind.REDELIVER: "redeliver"}
Trigger = Annotated[str, WithJsonSchema({"type": "string", "enum": list(TRIGGERS.values())})]
WebhookState = Annotated[str, WithJsonSchema({"type": "string", "enum": list(STATES)})]
WebhookSort = Annotated[str, WithJsonSchema({"type": "string", "enum": list(SORTS)})]
INCLUDED: Final = ("stats",)
Included = Annotated[str, WithJsonSchema({"type": "string", "enum": list(INCLUDED)})]
KeyScope = Annotated[str, WithJsonSchema({"type": "string", "enum": [str(scope) for scope in Scope]})]
