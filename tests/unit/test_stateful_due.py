"""The due buffers against a model, with a log behind each: nothing early, nothing lost, nothing read beyond the bound.

A partition is read in order, a batch at a time, unless it is paused. It moves away and comes back, or the process is
killed: then it is read again from the lowest message that is not finished.
"""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from go2hooks.core.flow.due import DueBuffer

CAPACITY = 6
BATCH = 4


class DueMachine(RuleBasedStateMachine):
    """One partition. The model: the log's due times, where reading stands, what waits, what is finished."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[int] = []
        self.now = 0
        self.finished: set[int] = set()
        self._begin(0)

    def _begin(self, position: int) -> None:
        self.buffer: DueBuffer[int] = DueBuffer(CAPACITY, 1000)
        self.position = position
        self.waiting: set[int] = set()
        self.taken: set[int] = set()  # out of the buffer, not finished

    @rule(delays=st.lists(st.integers(0, 30), min_size=1, max_size=8))
    def write(self, delays: list[int]) -> None:
        """Nearly in order: the delay of a tier is constant, clocks and parking are not."""
        self.log += [self.now + delay for delay in delays]

    @rule(count=st.integers(1, BATCH))
    def read(self, count: int) -> None:
        if self.buffer.paused:
            return
        for offset in range(self.position, min(self.position + count, len(self.log))):
            self.buffer.add(self.log[offset], 1, offset)
            self.waiting.add(offset)
            self.position = offset + 1
        self._pause_when_full()

    def _pause_when_full(self) -> None:
        if self.buffer.should_pause():
            self.buffer.paused = True

    @rule(seconds=st.integers(0, 20), room=st.integers(0, 8))
    def time_passes(self, seconds: int, room: int) -> None:
        """The owner takes what is due, as far as it has room."""
        self.now += seconds
        due = sorted((offset for offset in self.waiting if self.log[offset] <= self.now), key=self._turn)
        taken: list[int] = []
        if room:
            for offset in self.buffer.pop_due(self.now):
                taken.append(offset)
                if len(taken) == room:
                    break
        assert sorted(taken, key=self._turn) == taken
        assert [self.log[offset] for offset in taken] == [self.log[offset] for offset in due[:room]]
        self.waiting -= set(taken)
        self.taken |= set(taken)
        if self.buffer.should_resume():
            self.buffer.paused = False

    def _turn(self, offset: int) -> int:
        return self.log[offset]

    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        done = data.draw(st.sets(st.sampled_from(sorted(self.taken)))) if self.taken else set()
        self.finished |= done
        self.taken -= done

    @rule()
    def wait_longer(self) -> None:
        """The records do not know the attempt before it yet: it goes back for a while."""
        for offset in sorted(self.taken):
            self.log[offset] = self.now + 1
            self.buffer.add(self.log[offset], 1, offset)
        self.waiting |= self.taken
        self.taken = set()
        self._pause_when_full()

    @rule()
    def move_away_and_back(self) -> None:
        """Revoked: what waits is taken out, all of it, and read again by the next owner."""
        assert sorted(self.buffer.pop_due(2**63)) == sorted(self.waiting)
        assert len(self.buffer) == 0
        self.crash()

    @rule()
    def crash(self) -> None:
        self._begin(next((n for n in range(len(self.log)) if n not in self.finished), len(self.log)))

    @invariant()
    def agrees_with_the_model(self) -> None:
        assert len(self.buffer) == len(self.waiting)
        assert self.buffer.next_due_ms() == min((self.log[offset] for offset in self.waiting), default=None)

    @invariant()
    def it_is_bounded_and_never_paused_for_nothing(self) -> None:
        """Whoever fills it asks right away, so that an open one always has room for the next message."""
        if self.buffer.paused:
            assert len(self.waiting) > CAPACITY // 2
        else:
            assert len(self.waiting) < CAPACITY

    def teardown(self) -> None:
        """Once time has passed everything has been finished."""
        self.crash()
        self.now = max([self.now, *self.log])
        while self.position < len(self.log) or self.waiting or self.taken:
            self.read(BATCH)
            self.time_passes(0, 8)
            self.finished |= self.taken
            self.taken = set()
        assert self.finished == set(range(len(self.log)))


TestDueBuffer = DueMachine.TestCase
