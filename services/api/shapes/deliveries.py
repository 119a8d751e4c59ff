"""Deliveries and their attempts, as answers show them."""

from typing import Annotated, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from services.api.shapes.fields import EventName, Moment, Status, Trigger, Why, described


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
