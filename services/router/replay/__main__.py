"""`python -m services.router.replay`: builds the adapters, carries out replays until SIGTERM."""

from functools import partial

import structlog

from go2hooks.codec import EventCodec
from go2hooks.kafka.client import GroupNames
from go2hooks.kafka.preflight import wait_until_usable
from go2hooks.kafka.reading import LogReader
from go2hooks.kafka.rights import Principal
from go2hooks.kafka.topics import TopicNames
from go2hooks.postgres.deployment import wait_for_deployment
from go2hooks.postgres.pool import open_pool
from go2hooks.runtime import Shutdown, run_service
from go2hooks.settings import load_settings
from go2hooks.telemetry import logs, metrics
from go2hooks.telemetry.health import HealthServer, announce_port
from go2hooks.telemetry.metrics import replayer_registry
from services.router.replay.finding import Log
from services.router.replay.outbox import Outbox
from services.router.replay.pacing import Backlog, Throttle
from services.router.replay.replayer import Replayer

log = structlog.get_logger(__name__)


def main() -> None:
    settings = load_settings()
    logs.configure(settings, "replayer")
    shutdown = Shutdown(settings.drain_timeout_s).install()
    topics, groups = TopicNames(settings.kafka_prefix), GroupNames(settings.kafka_prefix)
    replayers: list[Replayer] = []
    health = HealthServer(
        settings.metrics_host,
        settings.metrics_port,
        replayer_registry(),
        lambda: {"working": bool(replayers) and replayers[0].ready},
    )
    health.start()
    announce_port(health.port)
    log.info("replayer starting", metrics_port=health.port)
    with open_pool(settings, service="replayer", max_size=2) as pool, LogReader(settings) as reader:
        deployment = wait_for_deployment(pool, shutdown.wait)
        if deployment and wait_until_usable(settings, Principal.REPLAYER, deployment, shutdown.wait):
            codec = EventCodec(settings.schema_dir, partial(metrics.EVENTS_MISPRINTED.add, 1))
            replayer = Replayer(
                pool,
                Log(reader, topics, codec, deployment),
                Outbox(settings, lambda: shutdown.requested),
                Throttle(settings.replay_per_s, Backlog(reader, topics, groups).measure),
                retention_days=settings.attempts_retention_days,
                pause=shutdown.wait,
            )
            replayers.append(replayer)
            while not shutdown.requested:
                replayer.step()
            replayer.close()
    health.close()
    log.info("replayer stopped")


if __name__ == "__main__":
    run_service(main)
