"""What waits in the lanes is started as they have room: when an attempt ends, or when an allowance lets the next one go."""

import asyncio
import time
from collections.abc import Callable
from functools import partial
from math import inf

from go2hooks.core.flow.lanes import Lanes
from go2hooks.core.flow.sends import YOUNG_S
from services.dispatcher.http import Sender
from services.dispatcher.work_item import WorkItem


class Waiting:
    """On the event loop. `start` is given each item whose turn it is; its place in the lane is taken by then."""

    def __init__(self, lanes: Lanes[WorkItem], sender: Sender, start: Callable[[WorkItem], None]) -> None:
        self._lanes = lanes
        self._sender = sender
        self._start = start
        self._loop = asyncio.get_running_loop()
        self._starting = False  # whether `_start_all` is to run
        self._ageing: asyncio.TimerHandle | None = None
        self._turn: asyncio.TimerHandle | None = None
        self._turn_at = inf  # when it fires

    def start_soon(self) -> None:
        """Once for all that end in this turn of the loop; by then a connection that its receiver has closed is known to be."""
        if self._starting:
            return
        if self._lanes.turns.has_any:
            self._starting = True
            self._loop.call_soon(self._start_all)
        elif self._lanes.turns.next_at < self._turn_at:
            self._wait_for_turn()

    def give_up(self, item: WorkItem) -> None:
        """Its turn has come, and it is not sent: the next one may take its place."""
        self._lanes.release_slot(item.delivery.webhook_id)
        self.start_soon()

    def _wait_for_turn(self) -> None:
        """Start what waits as soon as an allowance lets it."""
        if self._turn is not None:
            self._turn.cancel()
        self._turn_at = self._lanes.turns.next_at
        self._turn = self._loop.call_later(max(0.0, self._turn_at - time.monotonic()), self._turn_has_come)

    def _turn_has_come(self) -> None:
        self._turn, self._turn_at = None, inf
        if not self._starting:
            self._starting = True
            self._start_all()

    def _start_all(self) -> None:
        self._starting = False
        now = time.monotonic()
        self._sender.cork()
        try:
            for item in self._lanes.startable(now):
                if item.is_outdated(now):  # keeps its place meanwhile, so that it is not overtaken for ever
                    item.ask_again(partial(self._start_asked, item))
                else:
                    self._start(item)
        finally:
            self._sender.uncork()
        if self._ageing is None and self._lanes.turns.has_any:
            self._ageing = self._loop.call_later(YOUNG_S, self._aged)
        if self._lanes.turns.next_at < self._turn_at:
            self._wait_for_turn()

    def _aged(self) -> None:
        """Those that had just begun, and kept others waiting, are older: should none of them end, the others start now."""
        self._ageing = None
        self.start_soon()

    def _start_asked(self, item: WorkItem, still_open: bool) -> None:  # noqa: FBT001  # the records' answer
        if still_open:
            self._start(item)
        else:
            self.give_up(item)
