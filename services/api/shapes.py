"""What answers look like: the handlers are typed by it, and the API's document is made from it.

TypedDicts rather than models: an answer is put together once and not validated a second time.
"""

from typing import Annotated, Any, Literal, NotRequired

from pydantic import Field, WithJsonSchema
from typing_extensions import TypedDict

from go2hooks.core.delivery import Kind
from go2hooks.core.event import SUBSCRIBABLE, EventType
from go2hooks.core.outcome import State
from go2hooks.postgres.webhooks import SORTS, STATES

Moment = Annotated[str, WithJsonSchema({"type": "string", "format": "date-time"})]  #: UTC, ending in Z
Subscribed = Annotated[str, WithJsonSchema({"type": "string", "enum": [str(name) for name in SUBSCRIBABLE]})]
EventName = Annotated[str, WithJsonSchema({"type": "string", "enum": [str(name) for name in EventType]})]
Status = Annotated[str, WithJsonSchema({"type": "string", "enum": [str(state) for state in State]})]
Why = Annotated[str, WithJsonSchema({"type": "string", "enum": [str(kind) for kind in Kind]})]
WebhookState = Annotated[str, WithJsonSchema({"type": "string", "enum": list(STATES)})]
WebhookSort = Annotated[str, WithJsonSchema({"type": "string", "enum": list(SORTS)})]


class Webhook(TypedDict):
    """A webhook as its owner sees it."""

    id: str
    name: str
    url: str
    events: list[Subscribed]
    isActive: bool
    consecutiveFailures: int
    disabledAt: Moment | None
    disabledReason: str | None
    createdAt: Moment
    updatedAt: Moment


class WebhookWithSecret(Webhook):
    """A webhook, this once with its signing secret."""

    secret: str


class RotatedWebhook(WebhookWithSecret):
    """A webhook with its new secret; the previous one signs too until then."""

    previousSecretExpiresAt: Moment | None


class DeletedWebhook(TypedDict):
    """What is left of it."""

    id: str
    deleted: Literal[True]


class ClientCertificate(TypedDict):
    """What its owner may see of a webhook's client certificate; never the key."""

    subject: str
    issuer: str
    serialNumber: str
    notBefore: Moment
    notAfter: Moment
    fingerprint: str


class Delivery(TypedDict):
    """A delivery as its last record tells it."""

    id: str
    event: EventName
    eventId: str
    kind: Why
    status: Status
    attempts: int
    statusCode: int | None
    responseTimeMs: float | None
    errorCode: str | None
    errorMessage: str | None
    createdAt: Moment
    lastAttemptAt: Moment | None
    nextRetryAt: Moment | None


class AcceptedTest(TypedDict):
    """A test event on its way; `message` says why there is no result, where one was asked for."""

    id: str
    status: Status
    message: NotRequired[str]


class TestResult(TypedDict):
    """What came of a test event."""

    id: str
    status: Status
    delivered: bool
    statusCode: int | None
    responseTimeMs: float | None
    errorCode: str | None
    errorMessage: str | None
    responseBody: str | None


class Payload(TypedDict):
    """The body that a receiver gets."""

    event: EventName
    timestamp: Moment
    data: dict[str, Any]


class EventTypeInfo(TypedDict):
    """What a webhook may subscribe to; `schema` is the JSON Schema (2020-12) of the payload's `data`."""

    name: EventName
    description: str
    schema: dict[str, Any]
    example: Payload


class PageMeta(TypedDict):
    """Where a page lies in its list."""

    page: int
    perPage: int
    total: int
    hasMore: bool


class CursorMeta(TypedDict):
    """How to go on: with `nextCursor`, while there is more."""

    perPage: int
    hasMore: bool
    nextCursor: str | None


class ErrorBody(TypedDict):
    """What went wrong; `details` names each field at fault."""

    code: Annotated[str, Field(pattern="^[a-z_]+$")]
    message: str
    details: dict[str, str]
