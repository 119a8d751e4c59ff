"""Which attempts this process has under way, which it has just finished, and what the records say of the others."""

from enum import Enum, auto
from typing import Generic, TypeVar

from go2hooks.core.domain.delivery import Delivery, Kind
from go2hooks.core.domain.outcome import State

T = TypeVar("T")


class Claims(Generic[T]):
    """Attempts by (delivery id, attempt): under way, with who has them, or among the last `remembered` recorded.

    Two generations of finished attempts bound the memory.
    """

    __slots__ = ("_generation", "_newer", "_older", "_under_way")

    def __init__(self, remembered: int = 20_000) -> None:
        self._generation = remembered
        self._under_way: dict[tuple[str, int], T] = {}
        self._newer: set[tuple[str, int]] = set()
        self._older: set[tuple[str, int]] = set()

    def claim(self, delivery_id: str, attempt: int, holder: T) -> bool:
        """Take this attempt on; False when it is under way or just finished."""
        key = (delivery_id, attempt)
        if key in self._under_way or key in self._newer or key in self._older:
            return False
        self._under_way[key] = holder
        return True

    def holder(self, delivery_id: str, attempt: int) -> T | None:
        """Who has it under way; None when nobody has."""
        return self._under_way.get((delivery_id, attempt))

    def recorded(self, delivery_id: str, attempt: int) -> None:
        """It is recorded: from now on a second message for it is a duplicate."""
        key = (delivery_id, attempt)
        self._under_way.pop(key, None)
        self._newer.add(key)
        if len(self._newer) >= self._generation:
            self._older, self._newer = self._newer, set()

    def give_up(self, delivery_id: str, attempt: int) -> None:
        """It was not made here: another message for the same attempt may be."""
        self._under_way.pop((delivery_id, attempt), None)


class Standing(Enum):
    """What the records say of an attempt that a message asks for."""

    OPEN = auto()  #: to be made
    MADE = auto()  #: recorded: the message is a second one
    OVER = auto()  #: the attempt before it ended the delivery: the message is a fork of the chain
    AWAITED = auto()  #: the attempt before it is not recorded yet, or was cut off and is being made again


def standing(delivery: Delivery, state: str | None, state_before: str | None) -> Standing:
    """From the states recorded for this attempt and for the one before it; None where nothing is.

    A retry is written before the attempt that failed is recorded. A crash between the two leaves both messages: the
    attempt is made again, and may succeed. Then the retry must not go out. (The first attempt of a replay has a number above
    1, and whatever ended before it does not speak against it. Former versions did not say which attempt that is.)
    """
    if state is not None:
        return Standing.MADE
    is_first = delivery.attempt in (1, delivery.first_attempt)
    is_chained = delivery.kind == Kind.EVENT or delivery.first_attempt > 0
    if is_first or not is_chained or state_before == State.RETRYING:
        return Standing.OPEN
    return Standing.AWAITED if state_before is None else Standing.OVER
