"""What a dispatcher does now and then, beside delivering."""

import asyncio
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import structlog
from psycopg import AsyncConnection

from go2hooks.postgres.attempts import maintain_partitions
from go2hooks.postgres.audit import forget_old
from go2hooks.postgres.reconnecting import ReconnectingConnection
from go2hooks.postgres.rollups import gather
from go2hooks.settings import Settings

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Schedule:
    """How often a dispatcher does what it does now and then, in seconds."""

    store_s: float = 0.1  #: offsets: librdkafka commits them every half second
    shed_s: float = 0.1  #: what fills the window behind slow receivers
    shed_items: int = 200  #: at a time: more would hold up everybody else's
    report_s: float = 1.0  #: lag
    collect_s: float = 0.5  #: garbage
    maintain_s: float = 1800.0  #: partitions of attempts: there is a day's time
    gather_s: float = 1.0  #: statistics
    gather_age_s: float = 4.0  #: a webhook's rollups are written once in this time, however many dispatchers there are
    gather_share: float = 0.05  #: of a dispatcher's time at most: with thousands of webhooks the statistics come later
    gather_rest_s: float = 60.0  #: at most


SCHEDULE: Final = Schedule()


def every(interval_s: float, work: Callable[[], None]) -> asyncio.Task[None]:
    """Call `work` on the event loop, until cancelled."""

    async def run() -> None:
        while True:
            await asyncio.sleep(interval_s)
            work()

    return asyncio.create_task(run(), name=work.__name__)


def collect_young_garbage() -> None:
    """Have Python look for garbage among new objects while they are few.

    By itself it does so when 3,000 more objects were made than freed. A dispatcher may free as many as it makes for a long
    time; then all that is there, attempts that wait for receivers above all, is searched at once: 40 ms beside 500 hosts
    that do not answer.
    """
    gc.collect(0)


async def maintain(connection: ReconnectingConnection, settings: Settings) -> None:
    """Create the next days' partitions of attempts, drop what is older than is to be kept."""

    async def work(session: AsyncConnection[Any]) -> tuple[int, int]:
        await forget_old(session, settings.audit_retention_days)
        return await maintain_partitions(session, datetime.now(UTC).date(), settings.attempts_retention_days)

    created, dropped = await connection.run(work)
    if created or dropped:
        log.info("partitions of attempts", created=created, dropped=dropped)


async def maintain_for_ever(connection: ReconnectingConnection, settings: Settings) -> None:
    while True:
        await asyncio.sleep(SCHEDULE.maintain_s)
        await maintain(connection, settings)


async def gather_for_ever(connection: ReconnectingConnection) -> None:
    """Keep the statistics up to date. `connection` is one that no record waits for."""
    rest_s = SCHEDULE.gather_s
    while True:
        await asyncio.sleep(rest_s)
        began = time.monotonic()
        while await connection.run(partial(gather, min_age_s=SCHEDULE.gather_age_s)):
            pass
        rest_s = min(max(SCHEDULE.gather_s, (time.monotonic() - began) / SCHEDULE.gather_share), SCHEDULE.gather_rest_s)
