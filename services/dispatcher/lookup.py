"""Asks the recorded attempts whether an attempt is still to be made, before it is sent a second time."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from psycopg import AsyncConnection

from go2hooks.core.domain.delivery import Delivery
from go2hooks.core.domain.duplicates import Standing, standing
from go2hooks.kafka.consumer import PolledConsumer
from go2hooks.postgres.attempts import AttemptKey, find_states
from go2hooks.postgres.away import REFUSED
from go2hooks.postgres.reconnecting import ReconnectingConnection
from go2hooks.telemetry import metrics
from services.dispatcher.work_item import WorkItem

FindStates = Callable[[Sequence[AttemptKey]], Awaitable[dict[AttemptKey, str]]]

_BATCH_ITEMS: Final = 1000  # asked about in one query
_SLICE: Final = 4  # items that go on before the loop may run others: what the main topic brought meanwhile goes first


class Lookup:
    """One query at a time: what gathers meanwhile makes up the next. On the event loop."""

    def __init__(self, find_states: FindStates, consumer: PolledConsumer) -> None:
        """`consumer` fails when the lookup does: the items would wait for ever, so the process has to end."""
        self._find_states = find_states
        self._consumer = consumer
        self._to_ask: list[WorkItem] = []
        self._asking: asyncio.Task[None] | None = None

    def ask(self, items: Sequence[WorkItem]) -> None:
        self._to_ask += items
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_all())
            self._asking.add_done_callback(self._asked_all)

    async def look_up(self, items: Sequence[WorkItem]) -> None:
        """Let those of `items` go on whose attempt is still to be made; the others end."""
        if not items:
            return
        keys = [_key_of(item.delivery) for item in items]
        before = [key._replace(attempt=key.attempt - 1) for key in keys if key.attempt > 1]
        asked_at = time.monotonic()
        states = await self._find_states([*keys, *before])
        for number, (item, key) in enumerate(zip(items, keys, strict=True), 1):
            if not number % _SLICE:
                await asyncio.sleep(0)
            item.asked += 1
            item.looked_up_at = asked_at
            previous = states.get(key._replace(attempt=key.attempt - 1))
            _apply(item, standing(item.delivery, states.get(key), previous))

    async def _ask_all(self) -> None:
        while self._to_ask:
            items, self._to_ask = self._to_ask[:_BATCH_ITEMS], self._to_ask[_BATCH_ITEMS:]
            await self.look_up(items)

    def _asked_all(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._consumer.failure = error


def _apply(item: WorkItem, found: Standing) -> None:
    on_answer, item.on_answer = item.on_answer, None
    is_open = found in (Standing.OPEN, Standing.AWAITED)
    if not is_open:
        metrics.DUPLICATES.add()
        item.recorded()
    if on_answer is not None:
        on_answer(is_open)
    elif is_open and item.partition.gone:
        item.drop()
    elif is_open:
        item.origin.stage.go_on(item, is_awaited=found is Standing.AWAITED)


def _key_of(delivery: Delivery) -> AttemptKey:
    return AttemptKey(delivery.webhook_id, delivery.origin_ms, delivery.id, delivery.attempt)


def find_in(connection: ReconnectingConnection) -> FindStates:
    """Asks Postgres. What Postgres refuses as a key is in no record: it is found by halving."""

    async def find(keys: Sequence[AttemptKey]) -> dict[AttemptKey, str]:
        async def work(session: AsyncConnection[Any]) -> dict[AttemptKey, str]:
            return await find_states(session, keys)

        try:
            return await connection.run(work)
        except REFUSED:
            if len(keys) == 1:
                return {}
            half = len(keys) // 2
            return await find(keys[:half]) | await find(keys[half:])

    return find
