"""One lane for each webhook, made when it is first used."""

from collections.abc import Callable
from typing import Generic, TypeVar

from go2hooks.core.flow.allowance import Allowance
from go2hooks.core.flow.lane import Lane, LaneLimits

T = TypeVar("T")


class LaneTable(Generic[T]):
    """What is known of each webhook in this process."""

    def __init__(self, limits: LaneLimits, allowance: Callable[[str], Allowance | None]) -> None:
        """`allowance` says what a webhook's customer allows."""
        self._limits = limits
        self._allowance = allowance
        self._lanes: dict[str, Lane[T]] = {}

    def __len__(self) -> int:
        return len(self._lanes)

    def is_blocked(self, webhook_id: str) -> bool:
        """Whether its circuit is open."""
        lane = self._lanes.get(webhook_id)
        return lane is not None and lane.circuit.is_open

    def open_circuits(self) -> int:
        """Any thread."""
        return sum(lane.circuit.is_open for lane in list(self._lanes.values()))

    def reset(self, webhook_id: str) -> None:
        """The webhook has changed (another URL, enabled again): what was held against it no longer counts."""
        lane = self._lanes.get(webhook_id)
        if lane is not None:
            lane.forgive()

    def _use(self, webhook_id: str, now: float) -> Lane[T]:
        lane = self._lanes.get(webhook_id)
        if lane is None:
            lane = self._lanes[webhook_id] = self._new_lane(webhook_id, now)
        lane.used_at = now
        if not lane.in_flight and not lane.queue:
            lane.progress_at = now
        return lane

    def _new_lane(self, webhook_id: str, now: float) -> Lane[T]:
        lane: Lane[T] = Lane(webhook_id, self._limits)
        lane.allow(self._allowance(webhook_id), now)
        return lane
