"""Replays, as answers show them."""

from typing import Annotated

from pydantic import Field
from typing_extensions import TypedDict

from services.api.shapes.fields import Moment, ReplayState, Selected, Subscribed

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
