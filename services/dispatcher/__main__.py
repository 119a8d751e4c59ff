"""`python -m services.dispatcher`: builds the adapters, runs until SIGTERM, drains."""

import argparse
import asyncio

import structlog
import uvloop

from go2hooks.runtime import Shutdown, freeze_gc, reserve_descriptors, run_service
from go2hooks.settings import Settings, load_settings
from go2hooks.telemetry import logs
from go2hooks.telemetry.health import HealthServer, announce_port
from go2hooks.telemetry.metrics import dispatcher_registry
from services.dispatcher.app import Dispatcher
from services.dispatcher.http import build_sender
from services.dispatcher.processes import run_workers

log = structlog.get_logger(__name__)

_OTHER_DESCRIPTORS = 200  # Kafka's, Postgres's, the metrics endpoint's: everything but receivers


def main() -> None:
    processes = _arguments().processes
    settings = load_settings()
    logs.configure(settings, "dispatcher")
    settings.encryption_keys()
    shutdown = Shutdown(settings.drain_timeout_s).install()
    if processes > 1:
        run_workers(settings, shutdown, processes)
    else:
        uvloop.run(run(settings, shutdown))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m services.dispatcher", description="Sign, send, retry and record deliveries."
    )
    parser.add_argument(
        "--processes", type=int, default=1, help="dispatcher processes to run, one core each (default 1)"
    )
    return parser.parse_args()


async def run(settings: Settings, shutdown: Shutdown) -> None:
    """The dispatcher from start to drained."""
    reserve_descriptors(settings.max_sends + settings.pool_max_idle + _OTHER_DESCRIPTORS)
    dispatcher = Dispatcher(settings, build_sender(settings))
    health = HealthServer(settings.metrics_host, settings.metrics_port, dispatcher_registry(), dispatcher.ready)
    health.start()
    announce_port(health.port)
    log.info("dispatcher starting", metrics_port=health.port, sender=settings.sender)
    starting = asyncio.create_task(_start_and_watch(dispatcher))
    stopping = asyncio.create_task(shutdown.wait_async())
    await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
    failure = starting.exception() if starting.done() else None
    if failure is None:
        starting.cancel()
    # A little less than the whole: the watchdog ends the process when the time is up.
    await dispatcher.drain(max(0.1, shutdown.remaining_s() - 1.0))
    health.close()
    if failure is not None:
        raise failure
    log.info("dispatcher stopped")


async def _start_and_watch(dispatcher: Dispatcher) -> None:
    await dispatcher.start()
    freeze_gc()
    await dispatcher.watch()


if __name__ == "__main__":
    run_service(main)
