"""The overflow lane: what found no room in its webhook's lane comes round again here, beside the main lane.

What still finds no room is held, a bounded number in all, and offered again in turns, one webhook after the other. What
has been held for a second makes place for what lies behind it: to the end of the topic, or, with its circuit open, to
the retry tier that fits the next probe. So a burst to one webhook, or a dead one, delays its own deliveries alone.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final, NamedTuple

from services.dispatcher.intake import Ticket
from services.dispatcher.pipeline import Pipeline

_TURN_S: Final = 0.02
_HOLD_S: Final = 1.0


class _Held(NamedTuple):
    since: float
    ticket: Ticket


class OverflowLane:
    """Tickets of the overflow consumer that wait for room. The consumer's window bounds them."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._held: OrderedDict[str, deque[_Held]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._held.values()))

    def hold(self, ticket: Ticket) -> None:
        self._held.setdefault(ticket.delivery.webhook_id, deque()).append(_Held(time.monotonic(), ticket))

    def evict(self, unwanted: Callable[[Ticket], bool]) -> list[Ticket]:
        evicted: list[Ticket] = []
        for webhook_id in list(self._held):
            queue = self._held.pop(webhook_id)
            evicted += [held.ticket for held in queue if unwanted(held.ticket)]
            kept = deque(held for held in queue if not unwanted(held.ticket))
            if kept:
                self._held[webhook_id] = kept
        return evicted

    async def run(self) -> None:
        """Take turns until cancelled."""
        while True:
            await asyncio.sleep(_TURN_S)
            if self._held:
                self._take_turns()

    def _take_turns(self) -> None:
        """One round after another, each webhook one ticket a round, until none has room."""
        now = time.monotonic()
        waiting = list(self._held)
        while waiting:
            waiting = [webhook_id for webhook_id in waiting if self._offer_one(webhook_id)]
        for webhook_id in list(self._held):
            self._send_round(webhook_id, now)

    def _offer_one(self, webhook_id: str) -> bool:
        """Whether this webhook took one and has more."""
        queue = self._held[webhook_id]
        ticket = queue[0].ticket
        if not self._pipeline.readmit(ticket):
            return False
        queue.popleft()
        if not queue:
            del self._held[webhook_id]
        return bool(queue)

    def _send_round(self, webhook_id: str, now: float) -> None:
        queue = self._held.get(webhook_id)
        while queue and now - queue[0].since >= _HOLD_S:
            self._pipeline.send_round(queue.popleft().ticket)
        if queue is not None and not queue:
            del self._held[webhook_id]
