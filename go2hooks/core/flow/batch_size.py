"""How many items to handle at a time beside work that must not wait: more while nothing hinders, half as many once
something does.
"""


class AdaptiveBatch:
    """A number of items that follows additive increase and multiplicative decrease (AIMD)."""

    __slots__ = ("_least", "_most", "_step", "items")

    def __init__(self, least: int, most: int, step: int) -> None:
        self._least = least
        self._most = most
        self._step = step
        self.items = least  #: to handle the next time

    def note(self, *, hindered: bool) -> None:
        """Note how the last time went: `hindered` when other work needed the processor."""
        self.items = max(self._least, self.items // 2) if hindered else min(self._most, self.items + self._step)
