"""One delivery in this process: where its message lies, and what may become of it."""

from collections.abc import Callable, Sequence
from typing import Final, Literal, Protocol

from go2hooks.core.domain.delivery import Delivery, Position
from go2hooks.core.domain.duplicates import Claims
from go2hooks.kafka.partitions import Partition
from go2hooks.telemetry import metrics

Source = Literal["main", "retry", "overflow"]

# The records' answer holds this long: an attempt that was under way then may be recorded since.
_OUTDATED_S: Final = 1.0


class Window(Protocol):
    """Bounds what is in memory. An item holds its weight in one window at a time."""

    def release(self, weight: int) -> None:
        """An item of this weight has left."""


class Stage(Protocol):
    """What an intake does with an item before the pipeline gets it. On the event loop."""

    def take(self, item: "WorkItem") -> None:
        """It was read, and no other message here stands for its attempt."""

    def go_on(self, item: "WorkItem", *, is_awaited: bool) -> None:
        """The records do not say that the attempt was made. `is_awaited`: nor that the attempt before it has failed."""

    def evict(self) -> "list[WorkItem]":
        """Take out the items whose partition is gone."""
        ...


class Origin:
    """What all items of one intake share."""

    __slots__ = ("ask", "claims", "hand_on", "source", "stage")

    def __init__(
        self,
        source: Source,
        stage: Stage,
        ask: "Callable[[Sequence[WorkItem]], None]",
        claims: "Claims[WorkItem]",
        hand_on: "Callable[[WorkItem], None] | None",
    ) -> None:
        """`ask` has the records asked (`lookup`). `hand_on` moves an item to another topic, when its partition is revoked
        before the attempt has begun.
        """
        self.source: Source = source
        self.stage = stage
        self.ask = ask
        self.claims = claims
        self.hand_on = hand_on


class WorkItem:
    """One delivery in this process, from its message to its record.

    It ends by exactly one of `finish`, `recorded`, `drop`.
    """

    __slots__ = (
        "asked", "delivery", "looked_up_at", "needs_lookup", "on_answer", "origin", "partition", "position",
        "waiting_duplicates", "weight", "window",
    )  # fmt: skip

    def __init__(
        self, delivery: Delivery, position: Position, partition: Partition, origin: Origin, window: Window, weight: int
    ) -> None:
        self.delivery = delivery
        self.position = position
        self.partition = partition
        self.origin = origin
        self.window = window
        self.weight = weight  # of its message, in the window
        self.waiting_duplicates: list[WorkItem] = []  # other messages for the same attempt, which end as this one does
        self.needs_lookup = position.offset < partition.suspect_until or delivery.suspect
        self.asked = 0  # how often the records were asked about it
        self.looked_up_at = 0.0  # when they were asked last, in monotonic seconds; 0 when they never were
        self.on_answer: Callable[[bool], None] | None = None  # called instead of the stage's `go_on`; see `ask_again`

    @property
    def source(self) -> Source:
        return self.origin.source

    def is_outdated(self, now: float) -> bool:
        """Whether the records may say something else by now. `now` in monotonic seconds."""
        return bool(self.looked_up_at) and now - self.looked_up_at > _OUTDATED_S

    def ask_again(self, on_answer: Callable[[bool], None]) -> None:
        """Ask the records once more. `on_answer` gets whether the attempt is still to be made; if not, the item ends."""
        self.on_answer = on_answer
        self.origin.ask([self])

    def claim(self) -> bool:
        """Take the attempt on. False when another message stands for it: this one ends with that one, or at once."""
        delivery, claims = self.delivery, self.origin.claims
        if claims.claim(delivery.id, delivery.attempt, self):
            return True
        metrics.DUPLICATES.add()
        holder = claims.holder(delivery.id, delivery.attempt)
        if holder is not None and holder.partition.gone:
            # The holder's offset is no longer ours to commit: if it is dropped, only this message brings it back.
            holder.waiting_duplicates.append(self)
        else:
            self.finish()
        return False

    def recorded(self) -> None:
        """The attempt is recorded: another message for it is a duplicate from now on, and this item is finished."""
        self.origin.claims.recorded(self.delivery.id, self.delivery.attempt)
        self.finish()

    def finish(self) -> None:
        """All that must be kept is kept: the offset may be committed."""
        self.partition.tracker.complete(self.position.offset)
        self._leave_window()
        for duplicate in self.waiting_duplicates:
            duplicate.finish()

    def drop(self) -> None:
        """It is not for this process: hand it on, or leave it to the partition's next owner, who reads it again."""
        if self.partition.leaving and self.origin.hand_on is not None:
            self.origin.hand_on(self)
            return
        self.origin.claims.give_up(self.delivery.id, self.delivery.attempt)
        self._abandon()

    def take_back(self) -> bool:
        """Kafka refused to keep it elsewhere. True when this process is to make the attempt; else the item ends."""
        if not self.partition.gone:
            return self.claim()
        self._abandon()
        return False

    def _abandon(self) -> None:
        self._leave_window()
        for duplicate in self.waiting_duplicates:
            duplicate._inherit()  # noqa: SLF001  # another of its own kind

    def _inherit(self) -> None:
        """The message that stood for the attempt was dropped: this one stands for it now."""
        if self.partition.gone:
            self._leave_window()
        elif self.claim():
            self.needs_lookup = True
            self.origin.stage.take(self)

    def _leave_window(self) -> None:
        self.partition.held -= 1
        self.window.release(self.weight)
