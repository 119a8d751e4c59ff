"""A circuit breaker: opens after consecutive failures, then admits one probe at a time until one succeeds.

Pure: time comes in as `now`, in seconds of any monotonic clock.
"""

from dataclasses import dataclass
from typing import Final

from go2hooks.core.domain.failures import Streak

_GROWTHS: Final = 64  # of the pause between probes; many more are no float any more


@dataclass(frozen=True, slots=True)
class CircuitLimits:
    """When circuits open, and how long they pause between probes."""

    failures: int = 5  #: consecutive ones, before the circuit opens
    probe_s: float = 1.0  #: pause before the first probe; grows by half each time
    probe_max_s: float = 30.0


class CircuitBreaker:
    """The circuit of one webhook. It is open while `failures` consecutive attempts have failed."""

    __slots__ = ("_limits", "_opened_at", "_streak", "probe_at")

    def __init__(self, limits: CircuitLimits) -> None:
        self.probe_at = 0.0  #: when the open circuit admits its next probe
        self._limits = limits
        self._streak = Streak(limits.failures + _GROWTHS)
        self._opened_at = 0.0

    @property
    def is_open(self) -> bool:
        return len(self._streak.starts) >= self._limits.failures

    def succeed(self, began: float) -> None:
        """An attempt that began then has succeeded."""
        self._streak.succeed(began)

    def fail(self, began: float, now: float) -> bool:
        """An attempt that began then has failed. Whether that says anything.

        It does not when the attempt was under way before the circuit opened, or before a later one succeeded.
        """
        if (self.is_open and began < self._opened_at) or not self._streak.fail(began):
            return False
        beyond = len(self._streak.starts) - self._limits.failures
        if beyond == 0:
            self._opened_at = now
        if beyond >= 0:
            pause_s = self._limits.probe_s * 1.5 ** min(beyond, _GROWTHS)
            self.probe_at = now + min(pause_s, self._limits.probe_max_s)
        return True

    def close(self) -> None:
        """What has failed so far no longer counts."""
        self._streak.clear()
