"""Consecutive failures of a webhook, folded from a batch of attempts.

The count in Postgres must come out as if every attempt had been counted on its own, in order of completion: a batch
that fails ten times and then succeeds has disabled the webhook, though it ends with a success.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(slots=True)
class Streak:
    """What a batch did to one webhook's count of consecutive failures."""

    leading: int = 0  #: failures before the first success: they add to the count that was there
    longest: int = 0  #: longest run of failures that began after a success within the batch
    trailing: int = 0  #: failures since the last success (all of them, when there was none)
    succeeded: bool = False
    leading_since_ms: int = 0  #: when the first of the leading failures had failed
    trailing_since_ms: int = 0  #: when the first of the trailing failures had failed

    @property
    def peak(self) -> int:
        """The longest run of failures, where none came before the batch."""
        return max(self.leading, self.longest)

    def add(self, *, failed: bool, ended_ms: int) -> None:
        """Fold in the next attempt, in order of completion."""
        if not failed:
            self.succeeded = True
            self.trailing = 0
            return
        if self.trailing == 0:
            self.trailing_since_ms = ended_ms
        self.trailing += 1
        if self.succeeded:
            self.longest = max(self.longest, self.trailing)
            return
        if self.leading == 0:
            self.leading_since_ms = ended_ms
        self.leading += 1


def fold(attempts: Iterable[tuple[str, bool, int]]) -> dict[str, Streak]:
    """Streaks by webhook id, from (webhook id, failed, ended at in ms) in order of completion."""
    streaks: dict[str, Streak] = {}
    for webhook_id, failed, ended_ms in attempts:
        streaks.setdefault(webhook_id, Streak()).add(failed=failed, ended_ms=ended_ms)
    return streaks
