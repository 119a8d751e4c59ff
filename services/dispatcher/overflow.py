"""The overflow topic's stage: what found no room in its webhook's lane comes round again here, beside the main lane.

A bounded number is held, and given to the lanes in turns, one webhook after the other, as they have room; few at a time
while the loop is late, as what comes by the main lane waits then. Not before that the records are asked: a crash between
writing here and committing there leaves two messages for one attempt.

What has been held for a while makes place for what lies behind it: to the end of the topic, or, with its circuit open, to
the retry tier that fits the next probe. So a burst to one webhook, or a dead one, delays its own deliveries alone. While
nobody else turns up behind, the rounds become rarer: each costs as much as a delivery. What was read at once does not leave
at once: a thousand messages written in one turn, and as many read, would hold up everybody else's for as long as they take.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from math import ceil
from operator import attrgetter
from typing import Final, NamedTuple

from go2hooks.core.flow.batch_size import AdaptiveBatch
from go2hooks.kafka.consumer import PolledConsumer
from services.dispatcher.work_item import WorkItem


@dataclass(frozen=True, slots=True)
class OverflowTurns:
    """How the overflow gives way to the main topic, and to what lies behind it."""

    turn_s: float = 0.02  #: between two turns
    lull_s: float = 0.1  #: after a turn of few items: to ask about few costs nearly as much as to ask about many
    few: int = 10  #: items
    batch: tuple[int, int, int] = (4, 1000, 2)  #: items looked up together: at least, at most, more each time
    late_s: float = 0.0005  #: a turn that begins so late shows that others need the loop or the processor
    within_s: float = 120.0  #: a turn takes at least so many that the backlog would end in this time
    hold_s: float = 1.0  #: an item is held at least this long before it makes place
    hold_max_s: float = 4.0  #: while nobody else turns up: each round costs as much as a delivery


_TURNS: Final = OverflowTurns()


class _Held(NamedTuple):
    since: float
    item: WorkItem


class OverflowStage:
    """Holds each item until its lane has room, then admits it. The consumer's window bounds what is held."""

    def __init__(
        self,
        consumer: PolledConsumer,
        look_up: Callable[[Sequence[WorkItem]], Awaitable[None]],
        admit: Callable[[WorkItem], None],
        *,
        room: Callable[[WorkItem], float],
        requeue: Callable[[WorkItem], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`room` says how many deliveries like this one, by weight, the lanes would take; `requeue` moves one out of memory.

        `clock` counts seconds.
        """
        self._consumer = consumer
        self._look_up = look_up
        self._admit = admit
        self._room = room
        self._requeue = requeue
        self._clock = clock
        self._held: OrderedDict[str, deque[_Held]] = OrderedDict()
        self._hold_s = _TURNS.hold_s
        self._pace = AdaptiveBatch(*_TURNS.batch)
        self._period_began = 0.0
        self._made_place_at = 0.0
        self._seen: set[str] = set()  # webhooks that something was held of, in this period and in the one before
        self._seen_before: set[str] = set()

    def __len__(self) -> int:
        """Items held."""
        return sum(map(len, self._held.values()))

    def take(self, item: WorkItem) -> None:
        webhook_id = item.delivery.webhook_id
        self._seen.add(webhook_id)
        self._held.setdefault(webhook_id, deque()).append(_Held(self._clock(), item))

    def go_on(self, item: WorkItem, *, is_awaited: bool) -> None:  # noqa: ARG002  # its record has expired
        self._admit(item)

    def evict(self) -> list[WorkItem]:
        evicted: list[WorkItem] = []
        for queue in self._held.values():
            for held in [held for held in queue if held.item.partition.gone]:
                queue.remove(held)
                evicted.append(held.item)
        self._drop_empty()
        return evicted

    async def run(self) -> None:
        """Take turns until cancelled."""
        pause_s = _TURNS.turn_s
        while True:
            due = self._clock() + pause_s
            await asyncio.sleep(pause_s)
            self._pace.note(hindered=self._clock() - due > _TURNS.late_s)
            most = self._most()
            chosen = self._next_turn(most)
            pause_s = _TURNS.turn_s if len(chosen) >= min(_TURNS.few, most) else _TURNS.lull_s
            if self._held or chosen:
                await self._look_up(chosen)
                self._make_place(self._clock())

    def _most(self) -> int:
        """How many a turn may take: what the loop has time for, and what the length of the backlog asks for."""
        ahead = sum(self._consumer.lags.values())
        return max(self._pace.items, min(_TURNS.batch[1], int(ahead * _TURNS.turn_s / _TURNS.within_s)))

    def _next_turn(self, most: int) -> list[WorkItem]:
        """Take out what the lanes have room for: a round for one item of each webhook, and another, until none has."""
        rooms = {webhook_id: self._room(queue[0].item) for webhook_id, queue in self._held.items()}
        chosen: list[WorkItem] = []
        waiting = [webhook_id for webhook_id, room in rooms.items() if room >= 1]
        while waiting and len(chosen) < most:
            for webhook_id in waiting:
                chosen.append(item := self._held[webhook_id].popleft().item)
                rooms[webhook_id] -= item.weight
            waiting = [webhook_id for webhook_id in waiting if rooms[webhook_id] >= 1 and self._held[webhook_id]]
        self._drop_empty()
        return chosen

    def _make_place(self, now: float) -> None:
        if now - self._period_began >= self._hold_s:
            self._begin_period(now)
        share, self._made_place_at = (now - self._made_place_at) / self._hold_s, now
        for item in self._due(now - self._hold_s, max(_TURNS.few, ceil(len(self) * min(1.0, share)))):
            self._held[item.delivery.webhook_id].popleft()
            self._requeue(item)
        self._drop_empty()

    def _due(self, before: float, most: int) -> list[WorkItem]:
        """Those held since `before` or longer, the longest held first; the first `most` of them."""
        due: list[_Held] = []
        for queue in self._held.values():
            due += islice(takewhile(lambda held: held.since <= before, queue), most)
        due.sort(key=attrgetter("since"))
        return [held.item for held in due[:most]]

    def _begin_period(self, now: float) -> None:
        others_came = bool(self._seen - self._seen_before)
        self._hold_s = _TURNS.hold_s if others_came else min(2 * self._hold_s, _TURNS.hold_max_s)
        self._seen_before, self._seen = self._seen, set(self._held)
        self._period_began = now

    def _drop_empty(self) -> None:
        for webhook_id in [webhook_id for webhook_id, queue in self._held.items() if not queue]:
            del self._held[webhook_id]
