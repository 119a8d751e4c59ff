"""What answers look like: the handlers are typed by it, and the API's document is made from it.

TypedDicts rather than models: an answer is put together once and not validated a second time. The string below a field is
its description in the document.
"""

from typing import Annotated, Any, Final, Literal, NotRequired

from pydantic import ConfigDict, Field, WithJsonSchema, with_config
from typing_extensions import TypedDict

from go2hooks.core.domain.delivery import Kind
from go2hooks.core.domain.event import SUBSCRIBABLE, EventType
from go2hooks.core.domain.outcome import State
from go2hooks.core.domain.replay import ReplayStatus, Selection
from go2hooks.postgres.api_keys import Scope
from go2hooks.postgres.audit import Action, FieldChange
from go2hooks.postgres.webhooks import SORTS, STATES

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

#: For TypedDicts whose fields are described by the strings below them.
described: Final = with_config(ConfigDict(use_attribute_docstrings=True))
KeyScope = Annotated[str, WithJsonSchema({"type": "string", "enum": [str(scope) for scope in Scope]})]
ActorType = Annotated[str, WithJsonSchema({"type": "string", "enum": ["key", "cli", "system"]})]
AuditAction = Annotated[str, WithJsonSchema({"type": "string", "enum": [str(action) for action in Action]})]


@described
class SecretHeader(TypedDict):
    """A header whose value is never shown."""

    value: None
    """Never shown."""
    secret: Literal[True]
    """It is one."""


@described
class WebhookSettings(TypedDict):
    """What a webhook may be given besides name, URL and events."""

    description: str | None
    """What its owner says about it."""
    metadata: dict[str, str]
    """Its owner's own; nothing here reads it."""
    headers: dict[str, str | SecretHeader]
    """Headers of its owner's on every request; a secret value is null."""
    rateLimit: float | None
    """Requests per second at most; null for no limit."""
    maxConcurrency: int | None
    """Requests under way at once at most; null for no limit of its own."""
    filter: dict[str, list[Any]] | None
    """What an event's data must be for it to be delivered; null for all events."""


@described
class Webhook(WebhookSettings):
    """A webhook as its owner sees it."""

    id: str
    """`wh_…`"""
    name: str
    """What its owner calls it."""
    url: str
    """Where deliveries are posted to."""
    events: list[Subscribed]
    """The event types that it gets; `*` for all."""
    isActive: bool
    """Whether deliveries are sent. What arrives while it is not is recorded as skipped."""
    consecutiveFailures: int
    """Failed attempts in the order in which they began, since the last success."""
    disabledAt: Moment | None
    """When it was disabled, by failures or by its owner; null while it is active."""
    disabledReason: str | None
    """Why it was disabled; `disabled_by_user` where its owner did it, null while it is active."""
    createdAt: Moment
    """When it was made."""
    updatedAt: Moment
    """When its owner changed it last."""


@described
class WebhookWithSecret(Webhook):
    """A webhook, this once with its signing secret."""

    secret: str
    """`whsec_…`: what its deliveries are signed with. Shown this once: keep it."""


@described
class RotatedWebhook(WebhookWithSecret):
    """A webhook with its new secret."""

    previousSecretExpiresAt: Moment | None
    """Until when the previous secret signs too."""


@described
class DeletedWebhook(TypedDict):
    """What is left of it."""

    id: str
    """`wh_…`"""
    deleted: Literal[True]
    """It is gone; deliveries under way are dropped and recorded."""


@described
class ClientCertificate(TypedDict):
    """What its owner may see of a webhook's client certificate; never the key."""

    subject: str
    """Whom it names, as an RFC 4514 string."""
    issuer: str
    """Who issued it."""
    serialNumber: str
    """Hexadecimal."""
    notBefore: Moment
    """When it begins to be valid."""
    notAfter: Moment
    """When it expires: receivers refuse it from then on."""
    fingerprint: str
    """SHA-256 of the certificate, hexadecimal."""


@described
class DeliveryFacts(TypedDict):
    """What its last record tells of a delivery."""

    id: str
    """`dlv_…`: one event to one webhook, the same on every attempt. Receivers deduplicate on it."""
    event: EventName
    """The event's type."""
    eventId: str
    """`evt_…`: the event, the same for every webhook that gets it."""
    kind: Why
    """Why it was sent last: an event as it happened, a test, a replay, or by hand."""
    status: Status
    """What has become of it: `pending`, `retrying`, `delivered`, `failed` or `skipped`."""
    statusCode: int | None
    """What the receiver answered last; null when it answered nothing that could be read."""
    responseTimeMs: float | None
    """From the beginning of the last attempt to the end of the answer's head, in milliseconds."""
    errorCode: str | None
    """Why the last attempt failed, as a word for programs."""
    errorMessage: str | None
    """Why the last attempt failed, as a sentence, with the start of the answer's body."""
    createdAt: Moment
    """When the event was accepted."""
    lastAttemptAt: Moment | None
    """When the last attempt began; null before the first."""
    nextRetryAt: Moment | None
    """When the next attempt is due; null when there is none."""


@described
class Delivery(DeliveryFacts):
    """A delivery as its last record tells it."""

    attempts: int
    """How many requests were sent."""


#: As the receiver sent them, of an answer that was no success; null where it sent none.
ResponseHeaders = TypedDict(
    "ResponseHeaders",
    {
        "location": Annotated[str | None, Field(description="Where a redirect leads.")],
        "retry-after": Annotated[str | None, Field(description="When to come back: seconds, or a date.")],
    },
)


@described
class Attempt(TypedDict):
    """One attempt to deliver, or a reason not to."""

    number: int
    """As `X-Webhook-Attempt` names it."""
    trigger: Trigger
    """By whom: the schedule, or somebody who had it sent again, replayed the log, or sent a test."""
    startedAt: Moment
    """When it began."""
    statusCode: int | None
    """What the receiver answered; null when it answered nothing that could be read."""
    responseTimeMs: float | None
    """From its beginning to the end of the answer's head, in milliseconds; null when nothing was sent."""
    errorCode: str | None
    """Why it failed, or was not made, as a word for programs."""
    errorMessage: str | None
    """Why it failed, or was not made, as a sentence."""
    responseBody: str | None
    """The start of the answer's body."""
    responseHeaders: ResponseHeaders
    """What an answer that was no success said of where to go and when to come back."""
    remoteAddress: str | None
    """The IP address that the request went to; null where no connection came about, or a proxy made it."""


@described
class SentRequest(TypedDict):
    """The last request, as it was sent or will be."""

    url: str
    """The webhook's, as it is now."""
    headers: dict[str, str]
    """Without the signatures, and without the webhook's own that are secret; those are as they are now."""
    payload: str | None
    """The body, to the byte; null when it is not there."""
    payloadError: Literal["expired"] | None
    """`expired`: Kafka no longer has the payload, so that it cannot be sent again either."""


@described
class DeliveryOfAccount(Delivery):
    """A delivery as its last record tells it, and whose it is."""

    webhookId: str
    """`wh_…`: the webhook that it goes to."""
    webhookName: str
    """What its owner calls that."""


@described
class DeliveryDetail(DeliveryFacts):
    """A delivery with all that is known of it."""

    attempts: list[Attempt]
    """The first one first; of very many, the last 200."""
    request: SentRequest
    """What the receiver got."""


@described
class AcceptedRedelivery(TypedDict):
    """A delivery on its way once more."""

    id: str
    """`dlv_…`: the same as ever."""
    status: Status
    """`pending`."""
    attempt: int
    """The number of this attempt."""
    message: NotRequired[str]
    """Why there is no result, where one was asked for."""


@described
class CurlCommand(TypedDict):
    """A delivery as a command, to be sent from a terminal."""

    command: str
    """For bash, zsh or ksh: a request that is signed now. Most receivers take its signature for 5 minutes."""
    secretHeaders: list[str]
    """The webhook's own headers that are secret, and so not in it."""
    needsClientCertificate: bool
    """Whether the receiver may ask for the webhook's client certificate, which is not in it."""


@described
class AcceptedTest(TypedDict):
    """A test event on its way."""

    id: str
    """`dlv_…`: its delivery, which the list of deliveries shows."""
    status: Status
    """`pending`."""
    message: NotRequired[str]
    """Why there is no result, where one was asked for."""


@described
class TestResult(TypedDict):
    """What came of a test event."""

    id: str
    """`dlv_…`"""
    status: Status
    """`delivered` or `failed`."""
    delivered: bool
    """Whether the receiver answered 2xx."""
    statusCode: int | None
    """What it answered; null when it answered nothing that could be read."""
    responseTimeMs: float | None
    """How long it took to answer, in milliseconds."""
    errorCode: str | None
    """Why it failed, as a word for programs."""
    errorMessage: str | None
    """Why it failed, as a sentence."""
    responseBody: str | None
    """The start of the answer's body."""


@described
class RedeliveryResult(TestResult):
    """What came of sending it once more."""

    attempt: int
    """The number of this attempt."""


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


#: How far a replay has come. Written as a call, since `from` is no name in Python.
Replay = TypedDict(
    "Replay",
    {
        "id": Annotated[str, Field(description="`rpl_…`.")],
        "webhookId": Annotated[str, Field(description="The only webhook that is sent anything.")],
        "from": Annotated[Moment, Field(description="Events that Kafka accepted at this time or later.")],
        "to": Annotated[Moment, Field(description="Events that Kafka accepted before this time.")],
        "events": Annotated[
            list[Subscribed] | None, Field(description="Of these types; null for all that it subscribes to.")
        ],
        "only": Annotated[Selected, Field(description="Which deliveries.")],
        "status": Annotated[
            ReplayState, Field(description="`done` once what was sent is delivered, or has failed for good.")
        ],
        "error": Annotated[str | None, Field(description="Why it failed.")],
        "matched": Annotated[int, Field(description="Deliveries that were selected so far.")],
        "sent": Annotated[int, Field(description="Of these, those that Kafka has taken.")],
        "expired": Annotated[int, Field(description="Of these, those that Kafka no longer has.")],
        "delivered": Annotated[int, Field(description="Of those sent, those that the receiver has taken.")],
        "failed": Annotated[int, Field(description="Of those sent, those that have used up their retries again.")],
        "skipped": Annotated[int, Field(description="Of those sent, those that the webhook did not want any more.")],
        "position": Annotated[
            Moment | None, Field(description="What was accepted before this time has been looked at.")
        ],
        "left": Annotated[int | None, Field(description="About so many events or records have still to be looked at.")],
        "createdAt": Annotated[Moment, Field(description="When it was asked for.")],
        "finishedAt": Annotated[Moment | None, Field(description="When it ended; null before.")],
    },
)

#: What a replay would do.
ReplayEstimate = TypedDict(
    "ReplayEstimate",
    {
        "from": Annotated[Moment, Field(description="Events that Kafka accepted at this time or later.")],
        "to": Annotated[Moment, Field(description="Events that Kafka accepted before this time.")],
        "only": Annotated[Selected, Field(description="Which deliveries.")],
        "matched": Annotated[
            int | None,
            Field(
                description="Deliveries that would be sent, as far as Kafka still has them. Null where only the replay itself can tell: for `missed` and `all`, and where there are very many records."
            ),
        ],
        "toLookThrough": Annotated[
            int,
            Field(
                description="So many records, or messages of the log (other accounts' too), would be looked through: no more than these can match. Of records, at most 100,000 are counted."
            ),
        ],
    },
)


@described
class ApiKey(TypedDict):
    """A key of the account, without itself."""

    id: str
    """`key_…`: names the key, and opens nothing."""
    name: str
    """What it is for."""
    scopes: list[KeyScope]
    """What it may do: `write` includes `read`, `admin` both."""
    expiresAt: Moment | None
    """Until when it is good; null: until it is deleted."""
    lastUsedAt: Moment | None
    """When it was last used, to a minute; null: never."""
    createdAt: Moment
    """When it was made."""


@described
class ApiKeyShown(ApiKey):
    """A new key, this once with itself."""

    key: str
    """What goes into the header Authorization; never shown again."""


@described
class DeletedKey(TypedDict):
    """A key that opens nothing any more."""

    id: str
    """The key's id."""
    deleted: Literal[True]
    """Always true."""


@described
class AuditActor(TypedDict):
    """Who made a change."""

    type: ActorType
    """An API key, somebody at the operators' command line, or the system itself."""
    id: str
    """The key's id, the user's name, or the service's."""


@described
class AuditEntry(TypedDict):
    """Who changed what."""

    at: Moment
    """When."""
    actor: AuditActor
    """Who."""
    action: AuditAction
    """What was done."""
    webhookId: str | None
    """To which webhook; null for keys."""
    changes: dict[str, FieldChange]
    """Each field that changed, before and after; a secret as the first 8 hex digits of its SHA-256."""
    address: str | None
    """The address that the request came from, if there was one."""


@described
class Counts(TypedDict):
    """How attempts ended, and how long receivers took to answer."""

    delivered: int
    """Attempts that were answered with 2xx."""
    failed: int
    """Attempts that failed and were the last of their deliveries."""
    skipped: int
    """Deliveries that were not attempted, since the webhook was disabled, deleted or no longer subscribed."""
    retried: int
    """Attempts that failed and were to be repeated."""
    p50Ms: float | None
    """The median of the response times, in milliseconds; null when nothing was answered."""
    p95Ms: float | None
    """What 95 % of the response times do not exceed."""
    p99Ms: float | None
    """What 99 % of the response times do not exceed."""


@described
class Point(Counts):
    """One step."""

    at: Moment
    """When it begins."""


_FROM = Annotated[Moment, Field(description="When the first step begins.")]
_TO = Annotated[Moment, Field(description="When the last step ends.")]
_STEP = Annotated[int, Field(description="How long each step is.")]
_SERIES = Annotated[list[Point], Field(description="Every step, in order; those without attempts too.")]
_TOTALS = Annotated[Counts, Field(description="All of it together.")]
Stats = TypedDict(
    "Stats", {"from": _FROM, "to": _TO, "stepSeconds": _STEP, "series": _SERIES, "totals": _TOTALS}
)  # `from` is a word of Python's


@described
class WebhookInList(Webhook):
    """A webhook as its owner sees it, with what was asked for besides."""

    stats: NotRequired[Stats]
    """With `include=stats`: the last 24 hours, hour by hour; the last of them is the present one."""


@described
class PageMeta(TypedDict):
    """Where a page lies in its list."""

    page: int
    """This page's number, from 1."""
    perPage: int
    """How many items a page has at most."""
    total: int
    """How many items there are in all."""
    hasMore: bool
    """Whether there is another page."""


@described
class CursorMeta(TypedDict):
    """How to go on."""

    perPage: int
    """How many items a page has at most."""
    hasMore: bool
    """Whether there is more."""
    nextCursor: str | None
    """The next page's `cursor`; null on the last."""


@described
class ErrorBody(TypedDict):
    """What went wrong."""

    code: Annotated[str, Field(pattern="^[a-z_]+$")]
    """A word for programs."""
    message: str
    """A sentence for people."""
    details: dict[str, str]
    """What is wrong with each field at fault, by its name."""
