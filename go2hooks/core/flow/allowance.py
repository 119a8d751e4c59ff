"""What a customer allows of requests to a webhook: so many a second, so many at once.

Requests are spaced evenly, so that no second has more than its share: what comes in a burst waits for its turn. A process
that woke up late makes up for a twentieth of a second.

Pure: time comes in as `now`, in seconds of any monotonic clock.
"""

from typing import Final

_CATCH_UP_S: Final = 0.05
_HELD_S: Final = 5.0  # as much as it allows in this time waits in memory
_LEAST_HELD: Final = 2


class Allowance:
    """Of one webhook that has any."""

    __slots__ = ("_promised_at", "interval_s", "max_sends", "next_at", "room")

    def __init__(self, rate_limit: float | None, max_concurrency: int | None) -> None:
        """`rate_limit` in requests per second; None for no limit."""
        self.interval_s = (
            1.0 / rate_limit if rate_limit else 0.0
        )  #: from one request to the next; 0 without a rate limit
        self.max_sends = max_concurrency  #: requests under way at once
        self.next_at = 0.0  #: the next request may begin then
        #: How much of it waits in memory, by weight.
        self.room = float("inf") if rate_limit is None else max(_LEAST_HELD, rate_limit * _HELD_S)
        self._promised_at = 0.0

    def take(self, now: float) -> None:
        """A request begins."""
        self.next_at = max(self.next_at, now - _CATCH_UP_S) + self.interval_s

    def succeed(self, before: "Allowance", now: float) -> None:
        """Take the place of the allowance before it, which was changed."""
        self.next_at = min(before.next_at, now + self.interval_s)

    def turn_in_s(self, now: float, ahead: int, rate: float, most_s: float) -> float:
        """Seconds until the turn of one that is moved aside, behind `ahead` that wait and those that were moved aside before.

        `rate` is how many are done in a second, as far as that is known: it counts where nothing else limits them. A turn in
        more than `most_s` is promised to nobody: who cannot be kept waiting for so long asks again by then.
        """
        interval_s = self.interval_s or (1.0 / rate if rate else 1.0)
        turn_at = max(self._promised_at, self.next_at + ahead * interval_s, now) + interval_s
        if turn_at > now + most_s:
            return most_s
        self._promised_at = turn_at
        return turn_at - now
