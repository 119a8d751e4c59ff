"""How many attempts to one webhook may be under way at once: additive increase, multiplicative decrease (AIMD)."""


class ConcurrencyLimit:
    """Begins low, doubles with each round of answers until the first failure (slow start), then grows by one a round."""

    __slots__ = ("_in_slow_start", "_most", "value")

    def __init__(self, first: float, most: float) -> None:
        self.value = first  #: attempts under way at once
        self._most = most
        self._in_slow_start = True

    def bound(self, most: float) -> None:
        """Never allow more than `most` from now on."""
        self._most = most
        self.value = min(self.value, most)

    def grow(self) -> None:
        """An answer came in time, and more were waiting."""
        earned = 1.0 if self._in_slow_start else 1.0 / self.value
        self.value = min(self.value + earned, self._most)

    def shrink(self, at_most: float) -> None:
        """An attempt failed: half as many, and no more than `at_most`; one at least."""
        self._in_slow_start = False
        self.value = min(max(1.0, self.value / 2), at_most)

    def start_over(self) -> None:
        """Grow fast again, from where it is."""
        self._in_slow_start = True
