"""How much to do at a time beside what must not wait: more while that is not hindered, half as much once it is."""


class AdaptiveBatch:
    """A number of items, by additive increase and multiplicative decrease."""

    __slots__ = ("_least", "_most", "_step", "items")

    def __init__(self, least: int, most: int, step: int) -> None:
        self._least = least
        self._most = most
        self._step = step
        self.items = least  #: the next time

    def note(self, *, hindered: bool) -> None:
        """How the last time went."""
        self.items = max(self._least, self.items // 2) if hindered else min(self._most, self.items + self._step)
