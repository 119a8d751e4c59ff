"""SQL that makes and drops the day partitions of `attempts` and of its rollups."""

from datetime import date
from typing import Any, Final

import psycopg
import structlog
from psycopg import AsyncConnection

from go2hooks.postgres.locks import Lock

log = structlog.get_logger(__name__)

_MAINTAIN: Final = "SELECT created, dropped FROM attempts_maintain(%s, %s, %s)"
_MAINTAIN_ROLLUPS: Final = "SELECT attempt_rollups_maintain(%s, %s, %s)"
_DO_NOT_WAIT: Final = "SET LOCAL lock_timeout = '200ms'"
DAYS_AHEAD: Final = 3


async def maintain_partitions(connection: AsyncConnection[Any], today: date, retention_days: int) -> tuple[int, int]:
    """Create the partitions of yesterday to three days ahead, drop those past the retention, forget old tombstones.

    Returns how many were created and dropped. Any process may call it at any time: an advisory lock lets one work. It
    does nothing while somebody reads the table for long, as a backup does: a statement that waits for the table's lock
    blocks all later ones, and with them the recording of attempts. There are three days in which to try again.
    """
    try:
        return await _maintain(connection, today, retention_days)
    except psycopg.errors.LockNotAvailable:
        log.info("attempts is being read for long, as by a backup: its partitions are made and dropped later")
        return 0, 0


async def _maintain(connection: AsyncConnection[Any], today: date, retention_days: int) -> tuple[int, int]:
    async with connection.transaction():
        await connection.execute(_DO_NOT_WAIT)
        cursor = await connection.execute("SELECT pg_try_advisory_xact_lock(%s)", [Lock.PARTITIONS])
        if (await cursor.fetchone()) != (True,):
            return 0, 0
        cursor = await connection.execute(_MAINTAIN, [today, DAYS_AHEAD, retention_days])
        created, dropped = await cursor.fetchone() or (0, 0)
        await connection.execute(_MAINTAIN_ROLLUPS, [today, DAYS_AHEAD, retention_days])
    return created, dropped
