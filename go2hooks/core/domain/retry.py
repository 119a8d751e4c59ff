"""The retry schedule: in which tier, and until when, a failed delivery waits."""

from dataclasses import dataclass
from typing import assert_never

from go2hooks.core.domain.delivery import ON_REQUEST, Delivery, Kind
from go2hooks.core.domain.outcome import DeadLetter, Delivered, Done, Failed, Failure, Outcome, RetryAt, Step


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Delays in seconds, one per retry, each from the previous failure on. At most `len(delays_s) + 1` attempts."""

    delays_s: tuple[float, ...] = (5.0, 30.0, 120.0, 600.0, 3600.0)

    @property
    def max_attempts(self) -> int:
        return len(self.delays_s) + 1

    @property
    def span_s(self) -> float:
        """Seconds from the first failure until the last retry is due."""
        return sum(self.delays_s)

    def attempt_in_round(self, attempt: int, first: int) -> int:
        """The number of an attempt, from 1, within its round, which began with attempt `first`.

        Messages of older versions do not say so (`first` is 0): their rounds begin with attempt 1, 7, 13 and so on.
        """
        return (attempt - max(1, first)) % self.max_attempts + 1

    def after_failure(self, attempt: int, now_ms: int, wait_s: float = 0.0) -> RetryAt | DeadLetter:
        """The next step when attempt number `attempt` (from 1) has failed at `now_ms`.

        `wait_s` is the receiver's Retry-After in seconds: if the scheduled tier is too short, a longer one is used.
        """
        if attempt >= self.max_attempts:
            return DeadLetter()
        return self.wait(attempt - 1, wait_s, now_ms)

    def wait(self, first_tier: int, wait_s: float, now_ms: int) -> RetryAt:
        """Wait in the first tier from `first_tier` on whose delay is at least `wait_s`, or in the longest of them.

        The wait is always exactly the tier's delay, so each of its partitions stays in order of due time.
        """
        candidates = range(first_tier, len(self.delays_s))
        longest = max(candidates, key=self.delays_s.__getitem__)
        tier = next((t for t in candidates if self.delays_s[t] >= wait_s), longest)
        return RetryAt(tier, now_ms + round(self.delays_s[tier] * 1000))


def next_step(delivery: Delivery, outcome: Outcome, now_ms: int, policy: RetryPolicy) -> Step:
    """The next step of a delivery whose attempt ended at `now_ms` with this outcome."""
    match outcome:
        case Delivered():
            return Done()
        case Failed(failure) if delivery.kind in ON_REQUEST or failure == Failure.GONE:
            return DeadLetter()
        case Failed(retry_after_s=wait_s) if delivery.kind == Kind.REPLAY:
            return policy.after_failure(
                policy.attempt_in_round(delivery.attempt, delivery.first_attempt), now_ms, wait_s or 0.0
            )
        case Failed(retry_after_s=wait_s):
            return policy.after_failure(delivery.attempt, now_ms, wait_s or 0.0)
        case _:
            assert_never(outcome)
