"""Which attempts this process has under way, and which it has just finished."""


class Claims:
    """Attempts by (delivery id, attempt): under way, or among the last `remembered` that were recorded.

    Both copies of a forked message have the same key, so they arrive in the same process: the second finds the claim of
    the first. Two generations of finished attempts bound the memory.
    """

    __slots__ = ("_generation", "_newer", "_older", "_under_way")

    def __init__(self, remembered: int = 20_000) -> None:
        self._generation = remembered
        self._under_way: set[tuple[str, int]] = set()
        self._newer: set[tuple[str, int]] = set()
        self._older: set[tuple[str, int]] = set()

    def claim(self, delivery_id: str, attempt: int) -> bool:
        """Take this attempt on; False when it is under way or just finished."""
        key = (delivery_id, attempt)
        if key in self._under_way or key in self._newer or key in self._older:
            return False
        self._under_way.add(key)
        return True

    def recorded(self, delivery_id: str, attempt: int) -> None:
        """It is recorded: from now on a second message for it is a duplicate."""
        key = (delivery_id, attempt)
        self._under_way.discard(key)
        self._newer.add(key)
        if len(self._newer) >= self._generation:
            self._older, self._newer = self._newer, set()

    def give_up(self, delivery_id: str, attempt: int) -> None:
        """It was not made here: another message for the same attempt may be."""
        self._under_way.discard((delivery_id, attempt))
