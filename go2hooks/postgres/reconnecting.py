"""A connection that reconnects: work waits while Postgres is away, and is repeated when the connection broke."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection

from go2hooks.postgres.away import REFUSED, Outage
from go2hooks.postgres.session import AsyncSession

T = TypeVar("T")


class ReconnectingConnection:
    """One asynchronous connection, one user at a time."""

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        self._name = name
        self._connection: AsyncSession | None = None
        self._outage = Outage(name)
        self._lock = asyncio.Lock()
        self._users: set[asyncio.Task[Any] | None] = set()
        self.healthy = False

    async def run(self, work: Callable[[AsyncConnection[Any]], Awaitable[T]]) -> T:
        """Run `work` on the connection. `work` may be started several times, so it must be idempotent.

        Waits while Postgres is away, or lacks a privilege or a table, or is read-only; cancel the task to give up.
        Errors about values that cannot be stored (REFUSED) are raised.
        """
        self._users.add(task := asyncio.current_task())
        try:
            async with self._lock:
                return await self._run(work)
        finally:
            self._users.discard(task)

    async def _run(self, work: Callable[[AsyncConnection[Any]], Awaitable[T]]) -> T:
        while True:
            try:
                result = await work(await self._open())
            except REFUSED:
                raise
            except psycopg.Error as error:
                self.healthy = False
                wait_s = self._outage.tell(error)
                await self._drop()
                await asyncio.sleep(wait_s)
            else:
                self.healthy = True
                self._outage.end()
                return result

    async def close(self) -> None:
        """Close the connection. Work that still waits for Postgres is cancelled."""
        for task in self._users:
            if task is not None:
                task.cancel()
        async with self._lock:
            await self._drop()

    async def _open(self) -> AsyncConnection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = await AsyncSession.connect(self._url, name=self._name, connect_timeout_s=3)
        return self._connection

    async def _drop(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None
