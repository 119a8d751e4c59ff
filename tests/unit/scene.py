"""A dispatcher's inside, put together as `app` does, before a Kafka, a Postgres and receivers that do as a test says."""

import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from messages import DELIVERY, Consumer, Message

from go2hooks.codec import decode_delivery
from go2hooks.core.domain.delivery import Delivery
from go2hooks.core.domain.duplicates import Claims
from go2hooks.core.domain.outcome import Answer, Response
from go2hooks.core.domain.record import AttemptRecord
from go2hooks.core.domain.retry import RetryPolicy
from go2hooks.core.domain.webhook import Webhook
from go2hooks.core.flow.circuit_breaker import CircuitLimits
from go2hooks.core.flow.lanes import LaneLimits, Lanes
from go2hooks.core.security.request import SignedRequest
from go2hooks.core.security.signing import generate_secret
from go2hooks.kafka.partitions import Assignment, PartitionKey
from go2hooks.kafka.topics import TopicNames
from go2hooks.postgres.attempts import AttemptKey, DisablePolicy
from go2hooks.postgres.reconnecting import ReconnectingConnection
from go2hooks.postgres.secrets import SecretBox
from services.dispatcher.http.identity import Identity
from services.dispatcher.intake import Intake, IntakeServices, MainStage
from services.dispatcher.lookup import Lookup
from services.dispatcher.pipeline import Pipeline, PipelineServices
from services.dispatcher.recorder import Recorder
from services.dispatcher.requests import Requests
from services.dispatcher.webhooks import Webhooks
from services.dispatcher.work_item import Source, WorkItem

NAMES = TopicNames("go2")

TOPICS: dict[Source, str] = {"main": NAMES.deliveries, "retry": NAMES.retry(5.0), "overflow": NAMES.overflow}
LIMITS = LaneLimits(
    window=8, webhook_first_sends=1.0, webhook_max_sends=1, circuit=CircuitLimits(failures=2, probe_s=20.0)
)
#: Changes of a webhook after which it does not want what waits for it, and what is recorded then.
WITHOUT = [
    ({"is_active": False}, "webhook_disabled"),
    ({"is_deleted": True}, "webhook_deleted"),
    ({"account_id": "other"}, "webhook_deleted"),
    ({"events": frozenset({"link.created"})}, "webhook_unsubscribed"),
]


class Written(NamedTuple):
    """What Kafka was asked to keep, and has not acknowledged."""

    topic: str
    key: str
    value: bytes
    acknowledge: Callable[[], None]
    refuse: Callable[[str], None]
    headers: Sequence[tuple[str, bytes]]


class Receivers:
    """A sender that has an idle connection to everybody; an answer comes when the test gives it."""

    def __init__(self) -> None:
        self.asked: list[tuple[SignedRequest, Callable[[Response], None]]] = []
        self.is_corked = False

    def send_now(self, request: SignedRequest, on_response: Callable[[Response], None]) -> bool:
        self.asked.append((request, on_response))
        return True

    async def send(self, request: SignedRequest, identity: Identity | None = None) -> Response:
        raise AssertionError("there is an idle connection")

    def cork(self) -> None:
        self.is_corked = True

    def uncork(self) -> None:
        self.is_corked = False

    def answer(self, status: int, retry_after: str | None = None) -> None:
        """To the oldest request."""
        assert not self.is_corked, "no request has left"
        _request, on_response = self.asked.pop(0)
        on_response(Answer(status, 10.0, retry_after, b""))


class Postgres(ReconnectingConnection):
    """One that knows no webhook, or this one."""

    def __init__(self) -> None:
        super().__init__("postgresql://nowhere", "tests")
        self.found: Webhook | None = None

    async def run(self, _work: Callable[[Any], Awaitable[Any]]) -> Any:
        return self.found


class Admitting:
    """Admits what is read; what the pipeline gives back is held."""

    def __init__(self, scene: "Scene", stage: MainStage) -> None:
        self.scene = scene
        self.stage = stage
        self.go_on, self.evict = stage.go_on, stage.evict
        self.given: dict[int, WorkItem] = {}

    def take(self, item: WorkItem) -> None:
        if id(item) in self.given:
            self.scene.held.append(item)
            return
        self.given[id(item)] = item
        self.stage.take(item)


class Scene:
    """A dispatcher's inside, put together as `app` does."""

    def __init__(self, limits: LaneLimits = LIMITS) -> None:
        self.box, self.postgres = SecretBox((os.urandom(32),)), Postgres()
        self.webhooks = Webhooks(self.box, self.postgres)
        self.receivers = Receivers()
        self.written: list[Written] = []
        self.recorder = Recorder(self.postgres, DisablePolicy(10), 0.0, 100)
        self.lanes: Lanes[WorkItem] = Lanes(limits, lambda item: item.weight, self.webhooks.allowance)
        self.claims: Claims[WorkItem] = Claims()
        self.pipeline = Pipeline(
            PipelineServices(
                self.webhooks, Requests(self.webhooks, None, "webhook"), self.receivers, self, NAMES, self.recorder,  # type: ignore[arg-type]
                self.lanes, self.claims, RetryPolicy(),
            )
        )  # fmt: skip
        self.states: dict[AttemptKey, str] = {}  # what is recorded, as the records say when they are asked
        self.held: list[WorkItem] = []
        self.intakes = {source: self._intake(source) for source in TOPICS}
        self.offsets = dict.fromkeys(TOPICS, 0)
        self.change()

    def _intake(self, source: Source) -> Intake:
        services = IntakeServices(self.lanes.queues.evict, self.pipeline.bury, self.claims)
        consumer = Consumer()
        lookup = Lookup(self._find, consumer)  # type: ignore[arg-type]
        intake = Intake(
            source, consumer, Admitting(self, MainStage(lookup.ask, self.pipeline.admit)), lookup.ask, services,  # type: ignore[arg-type]
            hand_on=self._hand_on if source == "main" else None,
        )  # fmt: skip
        intake.on_assigned([Assignment(PartitionKey(TOPICS[source], 0), 0)])
        return intake

    def _hand_on(self, item: WorkItem) -> None:
        self.pipeline.deferral.overflow(item, "handed_on")

    async def _find(self, keys: Sequence[AttemptKey]) -> dict[AttemptKey, str]:
        return {key: self.states[key] for key in keys if key in self.states}

    def hook(self, webhook_id: str = "wh_1") -> Webhook:
        sealed = self.box.seal(generate_secret(bytes(32)), webhook_id)
        return Webhook(webhook_id, "acme", "https://a.example/", frozenset({"click"}), True, False, sealed, None, 0)  # noqa: FBT003

    def change(self, **changes: Any) -> None:
        """The replica tells that the webhook is like this now."""
        self.webhooks.apply(self.hook()._replace(**changes))

    def read(self, delivery: Delivery = DELIVERY, source: Source = "main", raw: bytes | None = None) -> None:
        """A message with the delivery, or with these bytes."""
        message = Message(PartitionKey(TOPICS[source], 0), self.offsets[source], delivery, raw)
        self.intakes[source].receive([message])  # type: ignore[list-item]
        self.offsets[source] += 1

    def produce(
        self, topic: str, key: str, value: bytes, on_kept: Callable[[], None], on_refused: Callable[[str], None],
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:  # fmt: skip
        self.written.append(Written(topic, key, value, on_kept, on_refused, headers))

    def kept(self) -> tuple[str, Delivery]:
        """What was written first and not acknowledged: where, and what. It is acknowledged now."""
        written = self.written.pop(0)
        delivery = decode_delivery(written.value)
        assert written.key == delivery.webhook_id
        written.acknowledge()
        return written.topic, delivery

    def refused(self) -> str:
        """Kafka refuses what was written first, for what it is; where that was to go."""
        written = self.written.pop(0)
        written.refuse("too large")
        return written.topic

    def recorded(self) -> AttemptRecord:
        """What is to be recorded first. It is recorded now."""
        record = self.recorder._records.pop(0)
        self.recorder._callbacks.pop(0)()
        return record

    def finished(self, source: Source = "main") -> int:
        """Up to which offset all is done."""
        return self.intakes[source]._partitions[PartitionKey(TOPICS[source], 0)].tracker.resume_at or 0

    def is_at_rest(self) -> bool:
        return not self.written and not self.recorder._records and not self.receivers.asked and not self.held

    async def open_circuit(self) -> None:
        for n in range(LIMITS.circuit.failures):
            self.read(DELIVERY._replace(id=f"dlv_failed_{n}"))
            self.receivers.answer(500)
            self.kept()
            self.recorded()
        assert self.lanes.is_blocked("wh_1")


async def fill_lane(scene: Scene) -> int:
    """One is under way, and as many wait as may. Returns how many there are."""
    for n in range(2 * LIMITS.window):
        scene.read(DELIVERY._replace(id=f"dlv_{n}"))
        if scene.written:
            break
    scene.kept()
    return scene.offsets["main"]
