"""Now and then: count the deliveries that got lost, so that somebody hears of it."""

import asyncio
from datetime import UTC, datetime, timedelta
from math import nan
from typing import Final

import psycopg
import structlog

from go2hooks.core.errors import UnavailableError
from go2hooks.orphans import Bounds, TooManyWaitError, find_orphans
from go2hooks.postgres.away import explain
from go2hooks.postgres.session import Session
from go2hooks.settings import Settings
from go2hooks.telemetry import metrics

log = structlog.get_logger(__name__)

_STATEMENT_TIMEOUT_S: Final = 60.0
_MESSAGES: Final = 200_000  # a second or two of a thread's time; with more that wait, an operator has to look


async def count_orphans_for_ever(settings: Settings) -> None:
    """Set the gauge, every `stray_check_s`, until cancelled. Works in a thread, on connections of its own.

    While nobody knows, it is NaN: before the first count, and after one that failed. A 0 would say that all is well.
    """
    metrics.ORPHANS.set(nan)
    while True:
        await asyncio.sleep(settings.stray_check_s)
        metrics.ORPHANS.set(await _count_or_nan(settings))


async def _count_or_nan(settings: Settings) -> float:
    try:
        count = await asyncio.to_thread(_count, settings)
    except (UnavailableError, psycopg.Error) as error:
        log.warning("orphans not counted", error=type(error).__name__, why=explain(error))
    except TooManyWaitError:
        log.info("orphans not counted: too many deliveries wait")
    else:
        if count:
            log.error("deliveries got lost; see: go2hooks reconcile", count=count)
        return count
    return nan


def _count(settings: Settings) -> int:
    since = datetime.now(UTC) - timedelta(days=settings.log_retention_days)
    url = settings.database_url.get_secret_value()
    with Session.connect(url, name="orphans", statement_timeout_s=_STATEMENT_TIMEOUT_S) as connection:
        return len(find_orphans(settings, connection, Bounds(since, settings.stray_grace_s, messages=_MESSAGES)))
