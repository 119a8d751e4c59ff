"""Recognises duplicates: by the attempts that this process has under way or has just recorded, and by the records."""

from enum import Enum, auto
from typing import Generic, TypeVar

from go2hooks.core.domain.delivery import Delivery, Kind
from go2hooks.core.domain.outcome import State

T = TypeVar("T")


class Claims(Generic[T]):
    """Attempts by (delivery id, attempt number): those under way, each with its holder, and the last recorded ones.

    At least `remembered` recorded attempts are known, at most twice as many: two generations bound the memory.
    """

    __slots__ = ("_generation", "_newer", "_older", "_under_way")

    def __init__(self, remembered: int = 20_000) -> None:
        self._generation = remembered
        self._under_way: dict[tuple[str, int], T] = {}
        self._newer: set[tuple[str, int]] = set()
        self._older: set[tuple[str, int]] = set()

    def claim(self, delivery_id: str, attempt: int, holder: T) -> bool:
        """Take the attempt on for `holder`; False when it is under way or was recorded recently."""
        key = (delivery_id, attempt)
        if key in self._under_way or key in self._newer or key in self._older:
            return False
        self._under_way[key] = holder
        return True

    def holder(self, delivery_id: str, attempt: int) -> T | None:
        """The holder of an attempt under way; None when there is none."""
        return self._under_way.get((delivery_id, attempt))

    def recorded(self, delivery_id: str, attempt: int) -> None:
        """The attempt is recorded: from now on another message for it is a duplicate."""
        key = (delivery_id, attempt)
        self._under_way.pop(key, None)
        self._newer.add(key)
        if len(self._newer) >= self._generation:
            self._older, self._newer = self._newer, set()

    def give_up(self, delivery_id: str, attempt: int) -> None:
        """The attempt was not made here: another message for it may be taken on."""
        self._under_way.pop((delivery_id, attempt), None)


class Standing(Enum):
    """What the records say about an attempt that a message asks for."""

    OPEN = auto()  #: the attempt is to be made
    MADE = auto()  #: the attempt is recorded: the message is a duplicate
    OVER = auto()  #: the previous attempt ended the delivery: the message belongs to a forked chain
    AWAITED = auto()  #: the previous attempt is not recorded: it ends soon, or a crash cut it off and it is repeated


def standing(delivery: Delivery, state: str | None, state_before: str | None) -> Standing:
    """`state` and `state_before` are recorded for this attempt and for the previous one; None without a record.

    A retry is written to Kafka before the failed attempt is recorded. A crash between the two leaves both messages: the
    failed attempt is made again, and may succeed. Then the retry must not be sent. The first attempt of a replay has a
    number above 1; the state of the previous attempt does not matter to it. Older versions did not mark that attempt.
    """
    if state is not None:
        return Standing.MADE
    is_first = delivery.attempt in (1, delivery.first_attempt)
    is_chained = delivery.kind == Kind.EVENT or delivery.first_attempt > 0
    if is_first or not is_chained or state_before == State.RETRYING:
        return Standing.OPEN
    return Standing.AWAITED if state_before is None else Standing.OVER
