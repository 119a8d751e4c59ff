"""Writes attempt records in batches, and only then lets their offsets go.

What waits here is bounded by the consumers' windows: an item leaves its window when its record is written. So with
Postgres away sending stops once the windows are full, and nothing is committed that is not recorded.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

import structlog
from psycopg import AsyncConnection

from go2hooks.core.domain.record import AttemptRecord, simplify
from go2hooks.postgres.attempts import DisablePolicy, write_batch
from go2hooks.postgres.away import REFUSED
from go2hooks.postgres.reconnecting import ReconnectingConnection
from go2hooks.telemetry import metrics

log = structlog.get_logger(__name__)

_AGAIN_S: Final = 5.0


class Recorder:
    """One batch at a time: what is added while a batch is being written makes up the next."""

    def __init__(
        self, connection: ReconnectingConnection, policy: DisablePolicy, batch_s: float, batch_rows: int
    ) -> None:
        self._connection = connection
        self._policy = policy
        self._batch_s = batch_s
        self._batch_rows = batch_rows
        self._records: list[AttemptRecord] = []
        self._callbacks: list[Callable[[], None]] = []
        self._wake = asyncio.Event()
        self._writing = 0  # records in the batch that is being written

    def __len__(self) -> int:
        """Records that are not written yet."""
        return len(self._records) + self._writing

    @property
    def idle(self) -> bool:
        return not len(self)

    def add(self, record: AttemptRecord, on_recorded: Callable[[], None]) -> None:
        """Have it written soon; `on_recorded` runs once it is."""
        self._records.append(record)
        self._callbacks.append(on_recorded)
        if not self._wake.is_set():
            self._wake.set()

    async def run(self) -> None:
        """Write batches until cancelled."""
        while True:
            await self._wake.wait()
            if len(self._records) < self._batch_rows:
                await asyncio.sleep(self._batch_s)  # let a batch gather; what came while the last was written, too
            await self._write_next()
            if not self._records:
                self._wake.clear()

    async def _write_next(self) -> None:
        records, self._records = self._records[: self._batch_rows], self._records[self._batch_rows :]
        callbacks, self._callbacks = self._callbacks[: self._batch_rows], self._callbacks[self._batch_rows :]
        self._writing = len(records)
        began = time.monotonic()
        for webhook_id in await self._write(records):
            metrics.WEBHOOKS_DISABLED.add()
            log.warning("webhook disabled", webhook_id=webhook_id)
        metrics.RECORD_SECONDS.observe(time.monotonic() - began)
        metrics.RECORD_ROWS.observe(len(records))
        self._writing = 0
        for on_recorded in callbacks:
            on_recorded()

    async def _write(self, records: list[AttemptRecord]) -> list[str]:
        """Write them all. A row that Postgres refuses is found by halving, and written without what it refuses."""

        async def work(connection: AsyncConnection[Any]) -> list[str]:
            return await write_batch(connection, records, self._policy)

        while True:
            try:
                return await self._connection.run(work)
            except REFUSED as error:
                if len(records) > 1:
                    half = len(records) // 2
                    return await self._write(records[:half]) + await self._write(records[half:])
                records = [await self._simplified(records[0], error)]

    async def _simplified(self, record: AttemptRecord, error: Exception) -> AttemptRecord:
        """The record with less in it. With nothing left to take away it is not the row that is at fault: wait, and try again."""
        less = simplify(record)
        # Not the error's text, which quotes what was refused.
        names = {"delivery_id": record.delivery_id, "attempt": record.attempt, "error": type(error).__name__}
        if less is None:
            log.error("Postgres refuses every record; waiting", **names)
            await asyncio.sleep(_AGAIN_S)
            return record
        metrics.RECORDS_SIMPLIFIED.add()
        log.error("record refused by Postgres; written with less in it", **names)
        return less
