"""Limits on failed logins per source and on requests per key.

Each API process counts for itself. Behind a proxy every caller has the proxy's address; so a key that was valid a
moment ago is admitted although its source has failed too often.
"""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from go2hooks.core.flow.rate import TokenBuckets
from go2hooks.settings import Settings
from services.api.errors import ApiError

_BURST_S: Final = 10.0  # seconds of its rate that a key may use at once
_KNOWN_KEYS: Final = 10_000


class Quota(NamedTuple):
    """The requests that a key has left."""

    requests: int
    window_s: float  #: the window for `requests`
    left: int
    full_in_s: int

    def headers(self) -> dict[str, str]:
        """As draft-ietf-httpapi-ratelimit-headers-10 writes it."""
        policy = f'"requests";q={self.requests};w={self.window_s:g}'
        return {"RateLimit-Policy": policy, "RateLimit": f'"requests";r={self.left};t={self.full_in_s}'}


class RequestLimits:
    """The bounds on requests. Safe to share between threads."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        per_minute, per_s = settings.api_failed_logins_per_minute, settings.api_requests_per_s
        self._failures = TokenBuckets(per_minute / 60, per_minute) if per_minute else None
        self._burst = math.floor(per_s * _BURST_S)
        self._requests = TokenBuckets(per_s, per_s * _BURST_S) if per_s else None
        self._known: OrderedDict[bytes, float] = (
            OrderedDict()
        )  # valid keys by their hash, and the time until which they skip the limit of failures

    def admit_login(self, source: str, key_hash: bytes) -> None:
        """Call it before looking a key up. Raises ApiError 429 when its source has failed too often."""
        now = self._clock()
        with self._lock:
            if self._failures is None or self._known.get(key_hash, now) > now:
                return
            wait_s = self._failures.wait_s(source, now)
        if wait_s:
            raise _too_many("Too many wrong API keys came from your address", wait_s)

    def login_failed(self, source: str) -> None:
        with self._lock:
            if self._failures is not None:
                self._failures.take(source, self._clock())

    def admit_request(self, key_hash: bytes) -> Quota | None:
        """Call it for a valid key. Returns what is left; None without a limit. Raises ApiError 429 when nothing is left."""
        now = self._clock()
        with self._lock:
            self._known[key_hash] = now + 300.0  # five minutes
            self._known.move_to_end(key_hash)
            if len(self._known) > _KNOWN_KEYS:
                self._known.popitem(last=False)
            if self._requests is None:
                return None
            wait_s = self._requests.take(key_hash, now)
            left, full_in_s = self._requests.left(key_hash, now)
        quota = Quota(self._burst, _BURST_S, int(left), math.ceil(full_in_s))
        if wait_s:
            raise _too_many("This API key sends too many requests", wait_s, quota.headers())
        return quota


def _too_many(why: str, wait_s: float, headers: Mapping[str, str] | None = None) -> ApiError:
    seconds = math.ceil(wait_s)
    message = f"{why}; try again in {seconds} s."
    return ApiError(429, "too_many_requests", message, headers={"Retry-After": str(seconds), **(headers or {})})
