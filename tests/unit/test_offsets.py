"""The offset tracker against a model that is too simple to be wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from go2hooks.core.flow.offsets import OffsetTracker


class TrackerMachine(RuleBasedStateMachine):
    """The model: a partition's offsets, which are begun and which completed in this assignment, what Kafka has stored.

    The partition moves away and comes back, or the process is killed: reading goes on at what is stored.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log: list[int] = []  # offsets that exist
        self.done: set[int] = set()  # in whatever assignment
        self.stored = 0
        self.earlier: OffsetTracker | None = None
        self._assign()

    def _assign(self) -> None:
        self.tracker = OffsetTracker()
        self.begun: set[int] = set()
        self.completed: set[int] = set()
        self.told = -1  # what the tracker knows to be stored
        self.read_to = -1  # nothing more is before it

    @rule(gap=st.integers(1, 4))
    def begin(self, gap: int) -> None:
        """The next one. Offsets may be missing: compaction and transaction markers leave gaps."""
        ahead = self._ahead()
        if not ahead:
            self.log.append(max([*self.log, self.read_to - 1, self.stored - 1]) + gap)
            ahead = self.log[-1:]
        self.tracker.begin(ahead[0])
        self.begun.add(ahead[0])

    def _ahead(self) -> list[int]:
        position = max(max(self.begun, default=self.stored - 1) + 1, self.read_to)
        return [offset for offset in self.log if offset >= position]

    @precondition(lambda self: not self._ahead())
    @rule(gap=st.integers(0, 3))
    def reach_the_end(self, gap: int) -> None:
        """All is read. Behind the last message there may be markers, which are none."""
        self.read_to = max([*self.log, self.read_to - 1, self.stored - 1]) + 1 + gap
        self.tracker.skip_to(self.read_to)

    @precondition(lambda self: self.begun - self.completed)
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        offset = data.draw(st.sampled_from(sorted(self.begun - self.completed)))
        self.tracker.complete(offset)
        self.completed.add(offset)
        self.done.add(offset)

    @precondition(lambda self: self.completed)
    @rule(data=st.data())
    def complete_twice(self, data: st.DataObject) -> None:
        with pytest.raises(KeyError):
            self.tracker.complete(data.draw(st.sampled_from(sorted(self.completed))))

    @precondition(lambda self: self.begun)
    @rule(data=st.data())
    def begin_again(self, data: st.DataObject) -> None:
        with pytest.raises(ValueError, match="begun after"):
            self.tracker.begin(data.draw(st.sampled_from(sorted(self.begun))))

    @rule()
    def commit(self) -> None:
        offset = self.tracker.committable()
        if offset is not None:
            self.tracker.committed(offset)
            self.stored = self.told = offset

    @rule(in_time=st.booleans())
    def move_away_and_back(self, in_time: bool) -> None:
        """Revoked, it commits what is finished; lost, or killed, it does not."""
        if in_time:
            self.commit()
        self.earlier = self.tracker
        self._assign()

    @precondition(lambda self: self.earlier is not None and self.earlier.incomplete)
    @rule()
    def complete_late(self) -> None:
        """What belongs to an earlier assignment does not count in this one."""
        before = self.tracker.committable(), self.tracker.incomplete
        offset = self.earlier.oldest_incomplete
        self.earlier.complete(offset)
        self.done.add(offset)
        assert (self.tracker.committable(), self.tracker.incomplete) == before

    @invariant()
    def agrees_with_the_model(self) -> None:
        unfinished = self.begun - self.completed
        after = max(max(self.begun, default=-1) + 1, self.read_to)
        expected = min(unfinished, default=after) if self.begun or self.read_to >= 0 else None
        if expected is not None and expected <= self.told:
            expected = None
        assert self.tracker.committable() == expected
        assert self.tracker.incomplete == len(unfinished)
        assert self.tracker.oldest_incomplete == min(unfinished, default=None)

    @invariant()
    def nothing_unfinished_lies_below_the_commit(self) -> None:
        assert all(offset in self.done for offset in self.log if offset < self.stored)


TestOffsetTracker = TrackerMachine.TestCase


def test_nothing_is_committable_before_anything_has_begun() -> None:
    assert OffsetTracker().committable() is None


def test_the_lowest_unfinished_offset_holds_the_commit_back() -> None:
    tracker = OffsetTracker()
    for offset in (7, 8, 9):
        tracker.begin(offset)
    tracker.complete(9)
    tracker.complete(8)
    assert tracker.committable() == 7
    tracker.complete(7)
    assert tracker.committable() == 10


def test_what_was_never_begun_cannot_be_completed_below_the_head() -> None:
    tracker = OffsetTracker()
    tracker.begin(5)
    with pytest.raises(KeyError):
        tracker.complete(4)


@pytest.mark.parametrize("offset", [6, 8, 100])
def test_what_was_never_begun_cannot_be_completed(offset: int) -> None:
    """A completion out of the blue would let the tracker's count of unfinished messages go wrong for good."""
    tracker = OffsetTracker()
    tracker.begin(5)
    tracker.begin(7)
    with pytest.raises(KeyError):
        tracker.complete(offset)


@given(st.permutations(range(12)))
def test_all_complete_in_any_order_commits_all(order: list[int]) -> None:
    tracker = OffsetTracker()
    for offset in range(12):
        tracker.begin(offset)
    for offset in order:
        tracker.complete(offset)
    assert tracker.committable() == 12
    assert tracker.incomplete == 0


def test_an_older_commit_does_not_take_back_a_newer_one() -> None:
    tracker = OffsetTracker()
    tracker.begin(0)
    tracker.complete(0)
    tracker.committed(1)
    tracker.committed(0)
    assert tracker.committable() is None
