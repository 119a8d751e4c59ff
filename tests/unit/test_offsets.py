"""The offset tracker against a model that is too simple to be wrong."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from go2hooks.core.offsets import OffsetTracker


class TrackerMachine(RuleBasedStateMachine):
    """The model: the set of begun offsets, the set of completed ones, what was committed."""

    def __init__(self) -> None:
        super().__init__()
        self.tracker = OffsetTracker()
        self.begun: set[int] = set()
        self.completed: set[int] = set()
        self.stored = -1

    @rule(gap=st.integers(1, 4))
    def begin(self, gap: int) -> None:
        """Offsets may be missing: compaction and transaction markers leave gaps."""
        offset = max(self.begun, default=-1) + gap
        self.tracker.begin(offset)
        self.begun.add(offset)

    @precondition(lambda self: self.begun - self.completed)
    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        offset = data.draw(st.sampled_from(sorted(self.begun - self.completed)))
        self.tracker.complete(offset)
        self.completed.add(offset)

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
            self.stored = offset

    @invariant()
    def agrees_with_the_model(self) -> None:
        open_offsets = self.begun - self.completed
        expected = min(open_offsets, default=max(self.begun, default=-1) + 1) if self.begun else None
        if expected is not None and expected <= self.stored:
            expected = None
        assert self.tracker.committable() == expected
        assert self.tracker.incomplete == len(open_offsets)

    @invariant()
    def nothing_unfinished_lies_below_the_commit(self) -> None:
        assert not any(offset < self.stored for offset in self.begun - self.completed)


TrackerMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
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
