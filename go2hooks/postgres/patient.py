"""A connection that comes back: work on it waits for a Postgres that is away, and is done again when it was cut off."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import psycopg
import structlog
from psycopg import AsyncConnection

log = structlog.get_logger(__name__)
T = TypeVar("T")

_BACKOFF_S: Final = (0.05, 0.1, 0.25, 0.5, 1.0)


class PatientConnection:
    """One asynchronous connection, one user at a time."""

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        self._name = name
        self._connection: AsyncConnection[Any] | None = None
        self._lock = asyncio.Lock()
        self.healthy = False

    async def run(self, work: Callable[[AsyncConnection[Any]], Awaitable[T]]) -> T:
        """Do `work` on the connection. It may be begun several times, so it must bear repetition; other errors pass through.

        Waits for as long as Postgres is away; cancel to give up.
        """
        attempt = 0
        async with self._lock:
            while True:
                try:
                    result = await work(await self._open())
                except psycopg.OperationalError as error:
                    self.healthy = False
                    if attempt == 0:
                        log.warning("Postgres is away; waiting", user=self._name, error=type(error).__name__)
                    await self._drop()
                    await asyncio.sleep(_BACKOFF_S[min(attempt, len(_BACKOFF_S) - 1)])
                    attempt += 1
                else:
                    self.healthy = True
                    return result

    async def close(self) -> None:
        async with self._lock:
            await self._drop()

    async def _open(self) -> AsyncConnection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = await AsyncConnection.connect(
                self._url, autocommit=True, connect_timeout=3, application_name=f"go2hooks-{self._name}",
                options="-c timezone=UTC -c statement_timeout=30s",
            )  # fmt: skip
        return self._connection

    async def _drop(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None
