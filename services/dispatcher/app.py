"""The dispatcher as a whole: three intakes, one pipeline, one recorder; started, watched and drained."""

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import structlog
from psycopg import AsyncConnection

from go2hooks.core.domain.duplicates import Claims
from go2hooks.core.domain.retry import RetryPolicy
from go2hooks.core.domain.webhook import Webhook
from go2hooks.core.errors import Go2HooksError, UnavailableError
from go2hooks.core.flow.circuit_breaker import CircuitLimits
from go2hooks.core.flow.lane import LaneLimits
from go2hooks.core.flow.lanes import Lanes
from go2hooks.kafka.client import GroupNames, consumer_config, producer_config
from go2hooks.kafka.consumer import PolledConsumer
from go2hooks.kafka.preflight import wait_until_usable
from go2hooks.kafka.producer import LoopProducer
from go2hooks.kafka.rights import Service
from go2hooks.kafka.topics import TopicNames, delay_label
from go2hooks.postgres.attempts import AttemptKey, DisablePolicy, find_states, from_ms, maintain_partitions
from go2hooks.postgres.audit import forget_old
from go2hooks.postgres.away import REFUSED, explain
from go2hooks.postgres.reconnecting import ReconnectingConnection
from go2hooks.postgres.replica import WebhookFollower
from go2hooks.postgres.rollups import gather
from go2hooks.postgres.secrets import SecretBox
from go2hooks.settings import Settings
from go2hooks.telemetry import metrics
from services.dispatcher.clock import now_ms
from services.dispatcher.delay import RetryIntake
from services.dispatcher.http import Sender
from services.dispatcher.http.tls import client_context
from services.dispatcher.identities import Identities
from services.dispatcher.intake import Intake, IntakeServices, WorkItem
from services.dispatcher.notices import NoticeRelay
from services.dispatcher.orphans import count_orphans_for_ever
from services.dispatcher.overflow import OverflowIntake
from services.dispatcher.pipeline import Pipeline, PipelineServices
from services.dispatcher.recorder import Recorder
from services.dispatcher.requests import Requests
from services.dispatcher.webhooks import Webhooks, changes_allowance, gets_fresh_start

log = structlog.get_logger(__name__)

_STORE_S: Final = 0.1
_REPORT_S: Final = 1.0
_TIDY_S: Final = 0.5
_SHED_S: Final = 0.1
_SHED: Final = 200  # deliveries at a time: more would hold up everybody else's
_OVERFLOW_BESIDE_BACKLOG: Final = 50
_LINGER_MS: Final = 50  # whatever a dispatcher writes is to wait anyway
_MAINTAIN_S: Final = 1800.0
_GATHER_S: Final = 1.0
_GATHER_AGE_S: Final = 4.0  # a webhook's rollups are written once in this time, however many dispatchers there are
_GATHER_SHARE: Final = 0.05  # of a dispatcher's time at most: with thousands of webhooks the statistics come later
_GATHER_REST_S: Final = 60.0


class Dispatcher:
    """Build, `start`, then `watch`; `drain` ends it. One event loop; the poll threads only hand messages over."""

    def __init__(self, settings: Settings, sender: Sender) -> None:
        self._settings = settings
        self._sender = sender
        self._loop = asyncio.get_running_loop()
        url = settings.database_url.get_secret_value()
        self._reading = ReconnectingConnection(url, "dispatcher-reads")
        self._writing = ReconnectingConnection(url, "dispatcher-records")
        box = SecretBox(settings.encryption_keys())
        self._webhooks = Webhooks(box, self._reading)
        identities = Identities(
            box, self._reading, lambda: client_context(settings.target_ca_file), settings.client_certificates_open
        )
        self._follower = WebhookFollower(settings, self._on_webhook)
        self._following = False
        self._topics = TopicNames(settings.kafka_prefix)
        self._producer = LoopProducer(producer_config(settings, linger_ms=_LINGER_MS), self._loop)
        policy = DisablePolicy(
            settings.disable_after_failures, from_ms(round(settings.disable_min_span_s * 1000)) - from_ms(0)
        )
        self._recorder = Recorder(self._writing, policy, settings.record_batch_ms / 1000, settings.record_batch_rows)
        self._lanes: Lanes[WorkItem] = Lanes(_lane_limits(settings), lambda item: item.weight, self._webhooks.allowance)
        self._claims: Claims[WorkItem] = Claims()
        self._pipeline = Pipeline(
            PipelineServices(
                self._webhooks, Requests(self._webhooks, identities, settings.webhook_id_header), sender,
                self._producer, self._topics, self._recorder, self._lanes, self._claims,
                RetryPolicy(settings.retry_delays), self._hold,
            )
        )  # fmt: skip
        self._stopping = threading.Event()
        self._deployments: set[str] = set()
        self._intakes = self._build_intakes()
        _main, _retry, self._overflow = self._intakes
        self._tasks: list[asyncio.Task[None]] = []
        self._expose()

    async def start(self) -> None:
        """Load the replica, make sure of today's partitions and of Kafka's topics, then consume."""
        await asyncio.to_thread(self._follower.start)
        self._following = True
        await self._maintain()
        deployments = await asyncio.to_thread(
            wait_until_usable, self._settings, Service.DISPATCHER, self._follower.deployment, self._stopping.wait
        )
        if deployments is None:
            return
        self._deployments |= deployments
        for intake in self._intakes:
            intake.consumer.start(intake)
        self._tasks = [
            asyncio.create_task(self._recorder.run(), name="recorder"),
            asyncio.create_task(self._overflow.run(), name="overflow"),
            self._every(_STORE_S, self._store_offsets),
            self._every(_REPORT_S, self._report),
            self._every(_TIDY_S, self._tidy),
            self._every(_SHED_S, self._shed),
            asyncio.create_task(self._maintain_for_ever(), name="maintenance"),
            asyncio.create_task(self._gather_for_ever(), name="statistics"),
            asyncio.create_task(count_orphans_for_ever(self._settings), name="orphans"),
            asyncio.create_task(NoticeRelay(self._reading, self._producer, self._topics).run(), name="notices"),
        ]

    async def watch(self) -> None:
        """Returns only by raising: UnavailableError when something that it stands on has failed for good."""
        while True:
            await asyncio.sleep(0.2)
            for intake in self._intakes:
                if intake.consumer.failure is not None:
                    raise UnavailableError(f"the {intake.source} consumer ended: {intake.consumer.failure}")
            if self._producer.failure is not None:
                raise UnavailableError(f"Kafka refused a message for good: {self._producer.failure}")
            for task in self._tasks:
                if task.done():
                    why = task.exception()
                    raise UnavailableError(
                        f"{task.get_name()} ended: {explain(why) if why else 'without an error'}"
                    ) from why

    async def drain(self, timeout_s: float) -> None:
        """Start nothing new, finish and record what is under way, commit, leave. Bounded by `timeout_s`."""
        self._stopping.set()
        log.info("draining", under_way=self._lanes.in_flight)
        try:
            async with asyncio.timeout(timeout_s):
                # Leaving the group revokes every partition, and revocation is what drains one.
                await asyncio.gather(*(intake.consumer.stop() for intake in self._intakes))
        except TimeoutError:
            log.warning("drain cut short; what was under way will be sent again", under_way=self._lanes.in_flight)
        await self._producer.stop()
        await _cancel(self._tasks)
        await self._sender.close()
        await asyncio.to_thread(self._follower.stop)
        await self._reading.close()
        await self._writing.close()

    def ready(self) -> dict[str, bool]:
        """For /readyz. Any thread."""
        return {
            "webhooks": self._following and self._follower.age_s() < 30,  # noqa: PLR2004  # seconds; the reconcile's is below one
            "kafka": all(intake.consumer.ready for intake in self._intakes),
            "postgres": self._writing.healthy,
        }

    # --- building

    def _build_intakes(self) -> tuple[Intake, RetryIntake, OverflowIntake]:
        s = self._settings
        admit, deferral = self._pipeline.admit, self._pipeline.deferral
        around = IntakeServices(
            self._lanes.evict, self._pipeline.bury, self._find_states, self._claims, self._deployments
        )
        topics, groups = self._topics, GroupNames(s.kafka_prefix)
        unhurried = partial(consumer_config, s, prefetch_kib=1024, batch_fetches=True)
        main = Intake(
            "main", self._consumer([topics.deliveries], s.window_deliveries, consumer_config(s, groups.dispatcher)),
            admit, around, hand_on=partial(deferral.overflow, why="handed_on"),
        )  # fmt: skip
        retry = RetryIntake(
            self._consumer(topics.tiers(s.retry_delays), s.window_deliveries, unhurried(groups.retry)),
            admit, around, turn_away=self._pipeline.park_if_blocked, buffer_messages=s.retry_buffer_messages,
            max_due=s.window_deliveries, delays_s={topics.retry(delay): delay for delay in s.retry_delays},
        )  # fmt: skip
        overflow = OverflowIntake(
            self._consumer([topics.overflow], s.overflow_window_deliveries, unhurried(groups.overflow)),
            admit, around, room=self._pipeline.room, requeue=deferral.requeue,
        )  # fmt: skip
        return main, retry, overflow

    def _consumer(self, topics: list[str], window: int, config: dict[str, Any]) -> PolledConsumer:
        return PolledConsumer(
            config, topics, self._loop, window=window, unit_bytes=self._settings.window_unit_bytes,
            revoke_timeout_s=self._settings.revoke_timeout_s,
        )  # fmt: skip

    def _expose(self) -> None:
        for delay in self._settings.retry_delays:
            metrics.RETRIES.add(0, delay_label(delay))
        metrics.IN_FLIGHT.read_from(lambda: {(): self._lanes.in_flight})
        metrics.CIRCUITS_OPEN.read_from(lambda: {(): self._lanes.open_circuits()})
        metrics.CONNECTIONS.read_from(lambda: {(s,): n for s, n in self._sender.connections().items()})
        metrics.WEBHOOKS.read_from(self._webhooks.count_by_state)
        metrics.REPLICA_AGE_SECONDS.read_from(lambda: {(): self._follower.age_s()})
        metrics.QUEUED.read_from(
            lambda: {
                ("lanes",): self._lanes.queued,
                ("due",): sum(intake.waiting for intake in self._intakes if isinstance(intake, RetryIntake)),
                ("overflow",): len(self._overflow),
                ("records",): len(self._recorder),
            }
        )

    # --- collaborators' calls

    def _on_webhook(self, webhook: Webhook) -> None:
        """Called by the replica's thread."""
        old = self._webhooks.apply(webhook)
        if self._following and gets_fresh_start(old, webhook):
            self._loop.call_soon_threadsafe(self._lanes.reset, webhook.id)
        if self._following and changes_allowance(old, webhook):
            self._loop.call_soon_threadsafe(self._pipeline.change_allowance, webhook.id)

    def _hold(self, item: WorkItem) -> None:
        self._overflow.hold(item)

    async def _find_states(self, keys: Sequence[AttemptKey]) -> dict[AttemptKey, str]:
        """What Postgres refuses as a key is in no record."""

        async def work(connection: AsyncConnection[Any]) -> dict[AttemptKey, str]:
            return await find_states(connection, keys)

        try:
            return await self._reading.run(work)
        except REFUSED:
            if len(keys) == 1:
                return {}
            half = len(keys) // 2
            return await self._find_states(keys[:half]) | await self._find_states(keys[half:])

    # --- now and then

    def _every(self, interval_s: float, work: Callable[[], None]) -> asyncio.Task[None]:
        async def run() -> None:
            while True:
                await asyncio.sleep(interval_s)
                work()

        return asyncio.create_task(run(), name=work.__name__)

    def _store_offsets(self) -> None:
        for intake in self._intakes:
            intake.store_offsets()

    def _yield_to_main(self) -> None:
        """While the main lane is behind, the overflow gets a few at a time: what waits there has had its turn before."""
        main, _retry, overflow = self._intakes
        is_behind = sum(main.consumer.lags.values()) > self._settings.overflow_window_deliveries
        overflow.consumer.window = _OVERFLOW_BESIDE_BACKLOG if is_behind else self._settings.overflow_window_deliveries

    def _report(self) -> None:
        self._yield_to_main()
        self._lanes.sweep(time.monotonic())
        for intake in self._intakes:
            intake.report_lag(now_ms())

    def _shed(self) -> None:
        """Have what fills the window behind receivers that have become slow come round again: others are to be read."""
        for item in self._lanes.surplus(time.monotonic(), _SHED):
            self._pipeline.deferral.overflow(item, "busy")

    def _tidy(self) -> None:
        """Have what is new looked through for garbage while it is little.

        By itself Python does that when 3,000 more objects have been made than dropped. As many may be dropped as are made
        for as long as one likes, and what is there then, attempts that wait for receivers above all, is gone through at
        once: 40 ms beside 500 hosts that do not answer.
        """
        gc.collect(0)

    async def _maintain(self) -> None:
        async def work(connection: AsyncConnection[Any]) -> tuple[int, int]:
            await forget_old(connection, self._settings.audit_retention_days)
            return await maintain_partitions(
                connection, datetime.now(UTC).date(), self._settings.attempts_retention_days
            )

        created, dropped = await self._writing.run(work)
        if created or dropped:
            log.info("partitions of attempts", created=created, dropped=dropped)

    async def _maintain_for_ever(self) -> None:
        while True:
            await asyncio.sleep(_MAINTAIN_S)
            await self._maintain()

    async def _gather_for_ever(self) -> None:
        """Keep the statistics up to date, on the connection that no record waits for."""
        rest_s = _GATHER_S
        while True:
            await asyncio.sleep(rest_s)
            began = time.monotonic()
            while await self._reading.run(partial(gather, min_age_s=_GATHER_AGE_S)):
                pass
            rest_s = min(max(_GATHER_S, (time.monotonic() - began) / _GATHER_SHARE), _GATHER_REST_S)


def _lane_limits(settings: Settings) -> LaneLimits:
    return LaneLimits(
        max_sends=settings.max_sends,
        window=settings.window_deliveries,
        webhook_max_sends=settings.webhook_max_sends,
        circuit=CircuitLimits(settings.circuit_failures, settings.circuit_probe_ms / 1000),
    )


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception) and not isinstance(result, Go2HooksError):
            log.error("background task ended badly", error=repr(result))
