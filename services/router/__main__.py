"""`python -m services.router`: builds the adapters, routes until SIGTERM, commits."""

import threading
from collections.abc import Callable
from functools import partial

import structlog

from go2hooks.codec import EventCodec
from go2hooks.core.domain.matching import SubscriptionIndex
from go2hooks.kafka.client import GroupNames, consumer_config, producer_config
from go2hooks.kafka.preflight import wait_until_usable
from go2hooks.kafka.rights import Principal
from go2hooks.kafka.topics import TopicNames
from go2hooks.postgres.replica import WebhookFollower
from go2hooks.runtime import Shutdown, freeze_gc, run_service
from go2hooks.settings import Settings, load_settings
from go2hooks.telemetry import logs, metrics
from go2hooks.telemetry.health import HealthServer, announce_port
from go2hooks.telemetry.metrics import router_registry
from services.router.router import Router
from services.router.scheduling import RouterBounds

log = structlog.get_logger(__name__)

_STALE_S = 30.0


def main() -> None:
    settings = load_settings()
    logs.configure(settings, "router")
    shutdown = Shutdown(settings.drain_timeout_s).install()
    index = SubscriptionIndex(threading.Lock())
    follower = WebhookFollower(settings, index.apply)
    loaded = threading.Event()
    router = build_router(settings, index, lambda: follower.deployment, lambda: shutdown.requested)

    def ready() -> dict[str, bool]:
        return {
            "webhooks": loaded.is_set() and follower.age_s() < _STALE_S,
            "kafka": router.ready,
        }

    health = HealthServer(settings.metrics_host, settings.metrics_port, router_registry(), ready)
    health.start()
    announce_port(health.port)
    metrics.WEBHOOKS.read_from(lambda: {("routed",): len(index)})
    metrics.REPLICA_AGE_SECONDS.read_from(lambda: {(): follower.age_s()})
    log.info("router starting", metrics_port=health.port)
    shutdown.on_request(follower.abandon)
    follower.start()  # the replica is complete before the first event is read
    loaded.set()
    freeze_gc()
    if not shutdown.requested and wait_until_usable(settings, Principal.ROUTER, follower.deployment, shutdown.wait):
        router.start()
    while not shutdown.requested:
        router.step()
    router.close(max(0.1, shutdown.remaining_s() - 2.0))
    follower.stop()
    health.close()
    log.info("router stopped")


def build_router(
    settings: Settings, index: SubscriptionIndex, deployment: Callable[[], str], stopping: Callable[[], bool]
) -> Router:
    return Router(
        consumer_config(settings, GroupNames(settings.kafka_prefix).router),
        producer_config(settings),
        TopicNames(settings.kafka_prefix),
        index,
        EventCodec(settings.schema_dir, partial(metrics.EVENTS_MISPRINTED.add, 1)),
        RouterBounds(
            settings.router_window_messages,
            settings.router_lookahead_events,
            settings.router_lookahead_mib << 20,
            settings.router_gather_ms / 1000,
        ),
        stopping,
        deployment,
    )


if __name__ == "__main__":
    run_service(main)
