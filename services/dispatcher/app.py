"""The dispatcher as a whole: three intakes, one pipeline, one recorder; started, watched and drained."""

import asyncio
import threading
import time
from typing import Final

import structlog

from go2hooks.core.domain.duplicates import Claims
from go2hooks.core.domain.retry import RetryPolicy
from go2hooks.core.domain.webhook import Webhook
from go2hooks.core.errors import Go2HooksError, UnavailableError
from go2hooks.core.flow.circuit_breaker import CircuitLimits
from go2hooks.core.flow.lane import LaneLimits
from go2hooks.core.flow.lanes import Lanes
from go2hooks.kafka.client import producer_config
from go2hooks.kafka.preflight import wait_until_usable
from go2hooks.kafka.producer import LoopProducer
from go2hooks.kafka.rights import Principal
from go2hooks.kafka.topics import TopicNames, delay_label
from go2hooks.postgres.attempts import DisablePolicy, from_ms
from go2hooks.postgres.away import explain
from go2hooks.postgres.reconnecting import ReconnectingConnection
from go2hooks.postgres.replica import WebhookFollower
from go2hooks.postgres.secrets import SecretBox
from go2hooks.settings import Settings
from go2hooks.telemetry import metrics
from services.dispatcher.housekeeping import (
    SCHEDULE,
    collect_young_garbage,
    every,
    gather_for_ever,
    maintain,
    maintain_for_ever,
)
from services.dispatcher.http import Sender
from services.dispatcher.http.tls import client_context
from services.dispatcher.identities import Identities
from services.dispatcher.intakes import Intakes
from services.dispatcher.lookup import find_in
from services.dispatcher.notices import NoticeRelay
from services.dispatcher.orphans import count_orphans_for_ever
from services.dispatcher.pipeline import Pipeline, PipelineServices
from services.dispatcher.recorder import Recorder
from services.dispatcher.requests import Requests
from services.dispatcher.webhooks import Webhooks, changes_allowance, gets_fresh_start
from services.dispatcher.work_item import WorkItem

log = structlog.get_logger(__name__)

_LINGER_MS: Final = 50  # whatever a dispatcher writes is to wait anyway


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
                RetryPolicy(settings.retry_delays),
            )
        )  # fmt: skip
        self._stopping = threading.Event()
        self._deployments: set[str] = set()
        self._intakes = Intakes(
            settings, self._pipeline, self._lanes, self._claims, self._deployments, find_in(self._reading)
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._expose()

    async def start(self) -> None:
        """Load the replica, make sure of today's partitions and of Kafka's topics, then consume."""
        await asyncio.to_thread(self._follower.start)
        self._following = True
        await maintain(self._writing, self._settings)
        deployments = await asyncio.to_thread(
            wait_until_usable, self._settings, Principal.DISPATCHER, self._follower.deployment, self._stopping.wait
        )
        if deployments is None:
            return
        self._deployments |= deployments
        self._tasks = [
            self._intakes.start(),
            asyncio.create_task(self._recorder.run(), name="recorder"),
            every(SCHEDULE.store_s, self._intakes.store_offsets),
            every(SCHEDULE.report_s, self._report),
            every(SCHEDULE.collect_s, collect_young_garbage),
            every(SCHEDULE.shed_s, self._shed),
            asyncio.create_task(maintain_for_ever(self._writing, self._settings), name="maintenance"),
            asyncio.create_task(gather_for_ever(self._reading), name="statistics"),
            asyncio.create_task(count_orphans_for_ever(self._settings), name="orphans"),
            asyncio.create_task(NoticeRelay(self._reading, self._producer, self._topics).run(), name="notices"),
        ]

    async def watch(self) -> None:
        """Returns only by raising: UnavailableError when something that it stands on has failed for good."""
        while True:
            await asyncio.sleep(0.2)
            self._intakes.check()
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
        log.info("draining", under_way=self._lanes.sends.in_flight)
        try:
            async with asyncio.timeout(timeout_s):
                await self._intakes.stop()
        except TimeoutError:
            log.warning("drain cut short; what was under way will be sent again", under_way=self._lanes.sends.in_flight)
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
            "kafka": self._intakes.ready,
            "postgres": self._writing.healthy,
        }

    def _expose(self) -> None:
        for delay in self._settings.retry_delays:
            metrics.RETRIES.add(0, delay_label(delay))
        metrics.IN_FLIGHT.read_from(lambda: {(): self._lanes.sends.in_flight})
        metrics.CIRCUITS_OPEN.read_from(lambda: {(): self._lanes.open_circuits()})
        metrics.CONNECTIONS.read_from(lambda: {(s,): n for s, n in self._sender.connections().items()})
        metrics.WEBHOOKS.read_from(self._webhooks.count_by_state)
        metrics.REPLICA_AGE_SECONDS.read_from(lambda: {(): self._follower.age_s()})
        metrics.QUEUED.read_from(
            lambda: {("lanes",): self._lanes.queues.items, ("records",): len(self._recorder), **self._intakes.waiting()}
        )

    def _on_webhook(self, webhook: Webhook) -> None:
        """Called by the replica's thread."""
        old = self._webhooks.apply(webhook)
        if self._following and gets_fresh_start(old, webhook):
            self._loop.call_soon_threadsafe(self._lanes.reset, webhook.id)
        if self._following and changes_allowance(old, webhook):
            self._loop.call_soon_threadsafe(self._pipeline.change_allowance, webhook.id)

    # --- now and then

    def _report(self) -> None:
        self._intakes.yield_to_main()
        self._lanes.sweep(time.monotonic())
        self._intakes.report_lag()

    def _shed(self) -> None:
        """Move aside what fills the window behind receivers that have become slow: others are to be read."""
        for item in self._lanes.queues.surplus(time.monotonic(), SCHEDULE.shed_items):
            self._pipeline.deferral.overflow(item, "busy")


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
