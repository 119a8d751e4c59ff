"""A customer's own limits for a webhook: requests per second, and requests under way at once.

Requests are spaced evenly, so that no second has more than allowed; a burst waits. A process that woke up late may
catch up on the last 50 ms.

Pure: time comes in as `now`, in seconds of any monotonic clock.
"""

from typing import Final

_CATCH_UP_S: Final = 0.05
_HELD_S: Final = 5.0  # as many requests as the limit allows in this time may wait in memory
_LEAST_HELD: Final = 2  # requests that may wait in memory, however low the limit is


class Allowance:
    """The limits of one webhook."""

    __slots__ = ("_promised_at", "interval_s", "max_sends", "next_at", "room")

    def __init__(self, rate_limit: float | None, max_concurrency: int | None) -> None:
        """`rate_limit` in requests per second; None for no limit."""
        self.interval_s = 1.0 / rate_limit if rate_limit else 0.0  #: between two requests; 0 without a rate limit
        self.max_sends = max_concurrency  #: requests under way at once
        self.next_at = 0.0  #: the earliest begin of the next request
        #: The weight that may wait in memory.
        self.room = float("inf") if rate_limit is None else max(_LEAST_HELD, rate_limit * _HELD_S)
        self._promised_at = 0.0

    def take(self, now: float) -> None:
        """A request begins."""
        self.next_at = max(self.next_at, now - _CATCH_UP_S) + self.interval_s

    def succeed(self, before: "Allowance", now: float) -> None:
        """Replace the previous allowance, after the customer has changed the limits."""
        self.next_at = min(before.next_at, now + self.interval_s)

    def turn_in_s(self, now: float, ahead: int, rate: float, most_s: float) -> float:
        """Seconds until the turn of a delivery that is moved aside, behind `ahead` waiting ones and earlier promises.

        `rate` is the number of attempts that end per second, 0 if unknown; it is used without a rate limit. A turn is
        promised for at most `most_s` ahead. Later turns are not promised: the delivery asks again after `most_s`.
        """
        interval_s = self.interval_s or (1.0 / rate if rate else 1.0)
        turn_at = max(self._promised_at, self.next_at + ahead * interval_s, now) + interval_s
        if turn_at > now + most_s:
            return most_s
        self._promised_at = turn_at
        return turn_at - now
