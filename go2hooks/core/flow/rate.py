"""Limits how often each key may do something: a token bucket per key, in bounded memory."""

from collections import OrderedDict
from collections.abc import Hashable


class TokenBuckets:
    """Buckets by key. Each holds up to `burst` tokens and gains `rate_per_s` tokens per second. Not thread-safe.

    At most `remembered` buckets are kept. The least recently used one is forgotten first; a forgotten bucket is full.
    """

    __slots__ = ("_buckets", "_burst", "_rate_per_s", "_remembered")

    def __init__(self, rate_per_s: float, burst: float, remembered: int = 10_000) -> None:
        self._rate_per_s = rate_per_s
        self._burst = burst
        self._remembered = remembered
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()  # tokens, and the time of that count

    def __len__(self) -> int:
        return len(self._buckets)

    def wait_s(self, key: Hashable, now: float) -> float:
        """Seconds until there is a token; 0 if there is one. Does not take it."""
        return max(0.0, (1.0 - self._tokens(key, now)) / self._rate_per_s)

    def take(self, key: Hashable, now: float) -> float:
        """Take a token if there is one. Returns 0, or the seconds until there is one."""
        wait_s = self.wait_s(key, now)
        if not wait_s:
            self._buckets[key] = (self._tokens(key, now) - 1.0, now)
            self._buckets.move_to_end(key)
            if len(self._buckets) > self._remembered:
                self._buckets.popitem(last=False)
        return wait_s

    def left(self, key: Hashable, now: float) -> tuple[float, float]:
        """The number of tokens, and the seconds until the bucket is full."""
        tokens = self._tokens(key, now)
        return tokens, (self._burst - tokens) / self._rate_per_s

    def _tokens(self, key: Hashable, now: float) -> float:
        tokens, since = self._buckets.get(key, (self._burst, now))
        return min(self._burst, tokens + max(0.0, now - since) * self._rate_per_s)
