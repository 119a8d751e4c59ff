"""One webhook's lane: what is under way to it and what waits, the limit that it has earned, its circuit.

Pure: time comes in as `now`, in seconds of any monotonic clock.
"""

from collections import deque
from dataclasses import dataclass
from math import inf
from typing import Final, Generic, TypeVar

from go2hooks.core.flow.allowance import Allowance
from go2hooks.core.flow.circuit_breaker import CircuitBreaker, CircuitLimits
from go2hooks.core.flow.concurrency_limit import ConcurrencyLimit

T = TypeVar("T")

UNPROVEN: Final = 0  #: standing of a lane: no attempt has ended yet
FAST: Final = 1  #: the latest ended in time
SLOW: Final = 2  #: it did not, or those under way take long; or there is no room for more that are new
_CIRCUIT: Final = CircuitLimits()


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """Bounds of all lanes of one process."""

    max_sends: int = 1000  #: attempts under way in all
    young_sends: int = 96  #: attempts under way that have just begun
    window: int = 4000  #: weight of what waits in all
    webhook_max_sends: int = 64
    webhook_first_sends: float = 4.0  #: a lane's limit before it has earned more
    queue_share: float = 0.25  #: of the free window, for one lane
    slow_share: float = 0.5  #: of `max_sends` and of the window, for all slow lanes together
    unproven_share: float = 0.75  #: of `max_sends`, for these and all new lanes together
    quick_s: float = 1.0  #: an answer slower than this earns a lane nothing; an attempt that lasts longer makes it slow
    stalled_s: float = 0.5  #: a busy lane without an answer for this long is not quick, whatever it was before
    rate_s: float = 0.25  #: how long a lane's rate is measured
    quick_drain_s: float = 5.0  #: a lane that would empty its queue in this time is quick
    slow_drain_s: float = 10.0  #: one that would need longer is slow; a rate is not exact, so this is twice as long
    quick_room: float = 1.5  #: windows that quick lanes may fill together: they will have emptied it in a moment
    forgiven_s: float = 3600.0  #: nobody will make a probe that nobody has made for so long
    circuit: CircuitLimits = _CIRCUIT


class Lane(Generic[T]):
    """State of one webhook in one process."""

    __slots__ = (
        "_finished", "_limits", "_measured_at", "allowance", "circuit", "in_flight", "is_resting", "limit", "progress_at",
        "queue", "rate", "standing", "used_at", "waiting", "webhook_id",
    )  # fmt: skip

    def __init__(self, webhook_id: str, limits: LaneLimits) -> None:
        self.webhook_id = webhook_id
        self.limit = ConcurrencyLimit(limits.webhook_first_sends, limits.webhook_max_sends)
        self.circuit = CircuitBreaker(limits.circuit)
        self.in_flight = 0
        self.waiting = 0  #: weight of the queue
        self.queue: deque[T] | None = None  #: an empty deque is 600 bytes: only lanes that wait have one
        self.standing = UNPROVEN
        self.used_at = 0.0
        self.rate = 0.0  #: attempts that ended per second, over the last quarter of a second
        self.progress_at = 0.0  #: when an attempt ended last, or the lane became busy
        self.allowance: Allowance | None = None  #: the customer's; most have none
        self.is_resting = False  #: waits for the time that its allowance says
        self._limits = limits
        self._finished = 0  # since `_measured_at`
        self._measured_at = 0.0

    def is_quick(self, now: float) -> bool:
        """Whether it works off what waits in a moment."""
        waiting = len(self.queue or ())
        return (
            waiting > 0
            and self._limits.quick_drain_s * self.rate >= waiting
            and now - self.progress_at < self._limits.stalled_s
        )

    @property
    def is_slow(self) -> bool:
        """Whether it needs long for what waits, as far as anybody knows how quick it is."""
        return self.standing == SLOW or 0.0 < self._limits.slow_drain_s * self.rate < len(self.queue or ())

    @property
    def is_behind(self) -> bool:
        """Whether its allowance keeps what waits for longer than a second."""
        return self.allowance is not None and self.allowance.interval_s * len(self.queue or ()) > self._limits.quick_s

    def allow(self, allowance: Allowance | None, now: float) -> None:
        """Bound it by its customer's allowance from now on, besides the process's bounds."""
        if allowance is not None and self.allowance is not None:
            allowance.succeed(self.allowance, now)
        self.allowance = allowance
        own = None if allowance is None else allowance.max_sends
        self.limit.bound(self._limits.webhook_max_sends if own is None else min(own, self._limits.webhook_max_sends))

    def may_begin(self, now: float) -> bool:
        """Whether its allowance has a request for now."""
        return self.allowance is None or self.allowance.next_at <= now

    def measure(self, now: float) -> None:
        """An attempt has ended."""
        self.progress_at = now
        self._finished += 1
        elapsed = now - self._measured_at
        if elapsed >= self._limits.rate_s:
            if elapsed < 2 * self._limits.rate_s:  # the first after a pause says nothing
                self.rate = self._finished / elapsed
            self._finished = 0
            self._measured_at = now

    def reward(self, duration_s: float, now: float) -> None:
        """An attempt has succeeded, after so long."""
        self.circuit.succeed(now - duration_s)
        if duration_s <= self._limits.quick_s and self.queue:  # more only for a lane that could use it
            self.limit.grow()

    def punish(self, began: float, now: float) -> None:
        """An attempt has failed that began then."""
        if self.circuit.fail(began, now):
            self.limit.shrink(self._limits.webhook_first_sends if self.circuit.is_open else inf)

    def forgive(self) -> None:
        """What was held against it no longer counts."""
        self.circuit.close()
        self.limit.start_over()
