"""The dispatcher's three intakes: the main topic, the retry topics, the overflow topic. Each has a consumer of its own."""

import asyncio
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Any, Final

from go2hooks.core.domain.duplicates import Claims
from go2hooks.core.errors import UnavailableError
from go2hooks.core.flow.lanes import Lanes
from go2hooks.kafka.client import GroupNames, consumer_config
from go2hooks.kafka.consumer import PolledConsumer
from go2hooks.kafka.topics import TopicNames
from go2hooks.settings import Settings
from services.dispatcher.clock import now_ms
from services.dispatcher.delay import RetryStage
from services.dispatcher.intake import Intake, IntakeServices, MainStage
from services.dispatcher.lookup import FindStates, Lookup
from services.dispatcher.overflow import OverflowStage
from services.dispatcher.pipeline import Pipeline
from services.dispatcher.work_item import WorkItem

_OVERFLOW_BESIDE_BACKLOG: Final = 50  # deliveries


class Intakes:
    """Built, then started; everything runs on the event loop but for the consumers' poll threads."""

    def __init__(
        self, settings: Settings, pipeline: Pipeline, lanes: Lanes[WorkItem], claims: Claims[WorkItem],
        deployments: AbstractSet[str], find_states: FindStates,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._pipeline = pipeline
        self._services = IntakeServices(lanes.queues.evict, pipeline.bury, claims, deployments)
        self._find_states = find_states
        topics = TopicNames(settings.kafka_prefix)
        self._main = self._build_main(topics)
        self._retry, self._retries = self._build_retry(topics)
        self._overflow, self._overflowed = self._build_overflow(topics)
        self._all = (self._main, self._retry, self._overflow)

    def start(self) -> asyncio.Task[None]:
        """Begin to read. The task gives overflowed deliveries their turns."""
        for intake in self._all:
            intake.consumer.start(intake)
        return asyncio.create_task(self._overflowed.run(), name="overflow")

    async def stop(self) -> None:
        """Leaving the group revokes every partition, and revocation is what drains one."""
        await asyncio.gather(*(intake.consumer.stop() for intake in self._all))

    @property
    def ready(self) -> bool:
        return all(intake.consumer.ready for intake in self._all)

    def check(self) -> None:
        """Raises UnavailableError when a consumer has failed for good."""
        for intake in self._all:
            if intake.consumer.failure is not None:
                raise UnavailableError(f"the {intake.source} consumer ended: {intake.consumer.failure}")

    def store_offsets(self) -> None:
        for intake in self._all:
            intake.store_offsets()

    def report_lag(self) -> None:
        for intake in self._all:
            intake.report_lag(now_ms())

    def yield_to_main(self) -> None:
        """While the main topic is behind, the overflow gets a few at a time: what waits there has had its turn before."""
        most = self._settings.overflow_window_deliveries
        is_behind = sum(self._main.consumer.lags.values()) > most
        self._overflow.consumer.window.size = _OVERFLOW_BESIDE_BACKLOG if is_behind else most

    def waiting(self) -> dict[tuple[str, ...], float]:
        """Deliveries in memory that no lane has yet, by where they wait."""
        return {("due",): self._retries.waiting, ("overflow",): len(self._overflowed)}

    # --- building

    def _build_main(self, topics: TopicNames) -> Intake:
        s = self._settings
        config = consumer_config(s, self._groups.dispatcher)
        consumer = self._consumer([topics.deliveries], s.window_deliveries, config)
        lookup = Lookup(self._find_states, consumer)
        stage = MainStage(lookup.ask, self._pipeline.admit)
        hand_on = partial(self._pipeline.deferral.overflow, why="handed_on")
        return Intake("main", consumer, stage, lookup.ask, self._services, hand_on=hand_on)

    def _build_retry(self, topics: TopicNames) -> tuple[Intake, RetryStage]:
        s = self._settings
        consumer = self._consumer(topics.tiers(s.retry_delays), s.window_deliveries, self._batching(self._groups.retry))
        lookup = Lookup(self._find_states, consumer)
        stage = RetryStage(
            consumer, lookup.ask, self._pipeline.admit, turn_away=self._pipeline.park_if_blocked,
            buffer_messages=s.retry_buffer_messages, max_due=s.window_deliveries,
            delays_s={topics.retry(delay): delay for delay in s.retry_delays},
        )  # fmt: skip
        return Intake("retry", consumer, stage, lookup.ask, self._services, late_s=stage.late_s), stage

    def _build_overflow(self, topics: TopicNames) -> tuple[Intake, OverflowStage]:
        s = self._settings
        config = self._batching(self._groups.overflow)
        consumer = self._consumer([topics.overflow], s.overflow_window_deliveries, config)
        lookup = Lookup(self._find_states, consumer)
        stage = OverflowStage(
            consumer, lookup.look_up, self._pipeline.admit, room=self._pipeline.room,
            requeue=self._pipeline.deferral.requeue,
        )  # fmt: skip
        return Intake("overflow", consumer, stage, lookup.ask, self._services), stage

    @property
    def _groups(self) -> GroupNames:
        return GroupNames(self._settings.kafka_prefix)

    def _batching(self, group: str) -> dict[str, Any]:
        return consumer_config(self._settings, group, prefetch_kib=1024, batch_fetches=True)

    def _consumer(self, topics: list[str], window: int, config: dict[str, Any]) -> PolledConsumer:
        return PolledConsumer(
            config, topics, asyncio.get_running_loop(), window=window, unit_bytes=self._settings.window_unit_bytes,
            revoke_timeout_s=self._settings.revoke_timeout_s,
        )  # fmt: skip
