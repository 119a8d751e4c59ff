"""The retry schedule: which tier comes after which failure, and when."""

from dataclasses import dataclass
from typing import assert_never

from go2hooks.core.delivery import Delivery, Kind
from go2hooks.core.outcome import DeadLetter, Delivered, Done, Failed, Outcome, RetryAt, Step


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Delays in seconds, one per retry, each counted from the failure before it. At most `len(delays_s) + 1` attempts."""

    delays_s: tuple[float, ...] = (5.0, 30.0, 120.0, 600.0, 3600.0)

    @property
    def max_attempts(self) -> int:
        return len(self.delays_s) + 1

    @property
    def span_s(self) -> float:
        """From the first failure to the last retry falling due, in seconds."""
        return sum(self.delays_s)

    def after_failure(self, attempt: int, now_ms: int) -> RetryAt | DeadLetter:
        """What follows when attempt number `attempt` (from 1) failed at `now_ms`."""
        if attempt >= self.max_attempts:
            return DeadLetter()
        tier = attempt - 1
        return RetryAt(tier, now_ms + round(self.delays_s[tier] * 1000))


def next_step(delivery: Delivery, outcome: Outcome, now_ms: int, policy: RetryPolicy) -> Step:
    """What happens to a delivery after this outcome of an attempt that ended at `now_ms`."""
    match outcome:
        case Delivered():
            return Done()
        case Failed() if delivery.kind == Kind.TEST:
            return DeadLetter()
        case Failed():
            return policy.after_failure(delivery.attempt, now_ms)
        case _:
            assert_never(outcome)
