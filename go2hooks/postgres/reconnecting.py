"""A connection that comes back: work on it waits for a Postgres that is away, and is done again when it was cut off."""

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
        """Do `work` on the connection. It may be begun several times, so it must bear repetition.

        Waits for as long as Postgres is away, or lacks what is needed: a right, a table, leave to write; cancel to give up.
        What cannot be kept (REFUSED) passes through.
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
        """Whose work still waits for a Postgres that is away is cancelled."""
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
