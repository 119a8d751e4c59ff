"""Sends to Kafka what attempts have given cause to tell about webhooks: events like all others from then on."""

import asyncio
from typing import Final

import structlog

from go2hooks.codec import EventCodec
from go2hooks.core.domain.event import Event
from go2hooks.kafka.producer import LoopProducer
from go2hooks.kafka.topics import TopicNames
from go2hooks.postgres.notices import claim_notices, forget_notices
from go2hooks.postgres.reconnecting import ReconnectingConnection
from go2hooks.telemetry import metrics

log = structlog.get_logger(__name__)

_LOOK_S: Final = 1.0


class NoticeRelay:
    """One per dispatcher; whichever looks first sends a notice."""

    def __init__(self, connection: ReconnectingConnection, producer: LoopProducer, topics: TopicNames) -> None:
        self._connection = connection
        self._producer = producer
        self._topics = topics
        self._codec = EventCodec()

    async def run(self) -> None:
        """Send what there is, once a second, until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_S)
            while claimed := await self._connection.run(claim_notices):
                await asyncio.gather(*(self._send(event) for _, event in claimed))
                numbers = [number for number, _ in claimed]
                await self._connection.run(lambda connection: forget_notices(connection, numbers))  # noqa: B023  # awaited

    async def _send(self, event: Event) -> None:
        """Returns when Kafka has acknowledged it, or refuses it for what it is: then nobody is told."""
        topic, settled = self._topics.of_event[event.type], asyncio.Event()

        def kept() -> None:
            log.info("told of a webhook", event_type=event.type, webhook_id=event.data["webhookId"])
            settled.set()

        def refused(_why: str) -> None:
            metrics.REFUSED.add(1, topic)
            settled.set()

        self._producer.produce(topic, event.account_id, self._codec.encode(event), kept, refused)
        await settled.wait()
