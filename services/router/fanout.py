"""One event in, one delivery per matching webhook out: decode, validate, match, render once, write."""

from collections.abc import Callable

from go2hooks.codec import EventCodec, encode_fan_out
from go2hooks.core.domain.event import ABOUT_WEBHOOKS
from go2hooks.core.domain.matching import SubscriptionIndex
from go2hooks.core.domain.validation import validate
from go2hooks.core.encoding.fanout import first_deliveries, origin_of, others
from go2hooks.core.encoding.payload import render
from go2hooks.core.errors import EventError
from go2hooks.kafka.topics import TopicNames
from go2hooks.telemetry import metrics
from services.router.batch import Batch, ReadEvent
from services.router.writing import Writer


class FanOut:
    """Not thread-safe; only `index` is written by another thread."""

    def __init__(
        self,
        index: SubscriptionIndex,
        codec: EventCodec,
        writer: Writer,
        topics: TopicNames,
        deployment: Callable[[], str],
    ) -> None:
        """`deployment` is the identity of this installation, which each delivery carries."""
        self._index = index
        self._codec = codec
        self._writer = writer
        self._topics = topics
        self._deployment = deployment

    def route(self, read: ReadEvent, batch: Batch, *, crowding: bool) -> None:
        """Write what comes of an event, as part of `batch`.

        An account that crowds out the others has its deliveries in the overflow: in `go2.deliveries` they would lie
        before the others' again.
        """
        batch.events.append(read)
        try:
            event = self._codec.decode(read.message.value() or b"")
            validate(event)
            webhook_ids = self._index.match(event.account_id, event.type, event.data)
            if event.type in ABOUT_WEBHOOKS:
                webhook_ids = others(webhook_ids, event)
            rendered = render(event) if webhook_ids else None
        except EventError as error:
            self._writer.bury(batch, read.message, error)
            return
        metrics.EVENTS.add(1, event.type)
        if rendered is None:
            return
        deliveries = first_deliveries(
            event, rendered, webhook_ids, origin_of(event, read.accepted_ms),
            suspect=read.offset < read.partition.suspect_until, deployment=self._deployment(),
        )  # fmt: skip
        topic = self._topics.overflow if crowding else self._topics.deliveries
        for webhook_id, encoded in zip(webhook_ids, encode_fan_out(deliveries), strict=True):
            self._writer.write(batch, read.message, topic, webhook_id, encoded)
        metrics.DELIVERIES_CREATED.add(len(webhook_ids))
        if crowding:
            metrics.CROWDED.add(len(webhook_ids))
