"""How many attempts may be under way: in all, for slow lanes together, for one lane, and that have just begun.

All slow lanes together have half of the attempts, and with the lanes that have not answered yet three quarters: a
thousand receivers that never answer leave the rest to those that do.

Of attempts that have just begun only so many are under way. A receiver that answers at once needs no more, and a
connection that was used a moment ago is still in the processor's cache; an attempt that lasts longer leaves its place
to others.

Pure: time comes in as `now`, in seconds of any monotonic clock.
"""

from typing import Any, Final

from go2hooks.core.flow.lane import FAST, SLOW, UNPROVEN, Lane, LaneLimits

YOUNG_S: Final = 0.01  #: an attempt has just begun for at least this long, at most twice as long


class SendBudget:
    """Counts the attempts of all lanes."""

    __slots__ = (
        "_by_standing",
        "_limits",
        "_older",
        "_older_since",
        "_slow",
        "_unproven",
        "_young",
        "_young_since",
        "in_flight",
    )

    def __init__(self, limits: LaneLimits) -> None:
        self.in_flight = 0
        self._limits = limits
        self._slow = max(1, int(limits.max_sends * limits.slow_share))
        self._unproven = max(1, int(limits.max_sends * limits.unproven_share))
        self._by_standing = [0, 0, 0]
        # Attempts begun since the first, and since the second time before it, that are still under way.
        self._young, self._young_since = 0, 0.0
        self._older, self._older_since = 0, 0.0

    def free(self, standing: int) -> int:
        """How many more attempts there may be, of all lanes of this standing."""
        free = self._limits.max_sends - self.in_flight
        if standing == FAST:
            return free
        free = min(free, self._unproven - self._by_standing[UNPROVEN] - self._by_standing[SLOW])
        return free if standing == UNPROVEN else min(free, self._slow - self._by_standing[SLOW])

    def may_start(self, standing: int) -> bool:
        """Whether a lane of this standing may start one now."""
        return self.free(standing) > 0 and self._young + self._older < self._limits.young_sends

    def allowed(self, lane: Lane[Any]) -> float:
        """The lane's limit, less when attempts run short in all; always at least one."""
        return max(1.0, min(lane.limit.value, lane.in_flight + self.free(lane.standing) * 0.25))

    def begin(self, lane: Lane[Any]) -> None:
        self._count(lane, 1)
        self._young += 1

    def end(self, lane: Lane[Any], began: float) -> None:
        """An attempt that began then has ended. `began` is not exact; what is miscounted is forgotten soon."""
        self._count(lane, -1)
        if began >= self._young_since:
            self._young -= 1
        elif began >= self._older_since:
            self._older -= 1

    def release(self, lane: Lane[Any]) -> None:
        """It was not attempted after all."""
        self._count(lane, -1)

    def move(self, lane: Lane[Any], standing: int) -> None:
        """The lane's standing is about to change."""
        self._by_standing[lane.standing] -= lane.in_flight
        self._by_standing[standing] += lane.in_flight

    def age(self, now: float) -> None:
        """Time has passed: those that had just begun are older."""
        elapsed = now - self._young_since
        if elapsed >= YOUNG_S:
            counted = elapsed < 2 * YOUNG_S
            self._older, self._older_since = (self._young, self._young_since) if counted else (0, now)
            self._young, self._young_since = 0, now

    def _count(self, lane: Lane[Any], change: int) -> None:
        lane.in_flight += change
        self.in_flight += change
        self._by_standing[lane.standing] += change
