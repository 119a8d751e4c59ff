"""The recorder, model-checked: an offset goes only after its record, each once and in order, whatever Postgres does.

The model is a table: what was added, what is written, what was let go. Postgres goes away, cuts the connection after it
has committed, refuses single rows; the process is killed, and its successor is given again what was never let go.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import psycopg
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from go2hooks.core.domain.delivery import Kind, Position
from go2hooks.core.domain.outcome import State
from go2hooks.core.domain.record import AttemptRecord
from go2hooks.postgres.attempts import DisablePolicy
from services.dispatcher import recorder as module
from services.dispatcher.recorder import Recorder

BATCH_ROWS = 4


def record(number: int, *, fit: bool) -> AttemptRecord:
    return AttemptRecord(
        "wh", 0, f"dlv_{number}", 1, "acc", f"evt_{number}", "click", Kind.EVENT, State.DELIVERED, 200, 1.0,
        None, None, None, 0, None if fit else "unfit", Position("go2.deliveries", 0, number),
    )  # fmt: skip


class Postgres:
    """A table, and a connection to it that does the work again when it was cut."""

    def __init__(self) -> None:
        self.rows: dict[str, AttemptRecord] = {}
        self.away: asyncio.Event | None = None
        self.cut_next = False
        self.largest = 0

    async def run(self, work: Callable[[Any], Awaitable[list[str]]]) -> list[str]:
        while self.away is not None:
            await self.away.wait()
        if self.cut_next:  # it had committed, and nobody was told
            self.cut_next = False
            await work(self)
            await asyncio.sleep(0)
        return await work(self)

    async def write(self, records: Sequence[AttemptRecord]) -> list[str]:
        self.largest = max(self.largest, len(records))
        if any(record.response_excerpt == "unfit" for record in records):
            raise psycopg.DataError("unfit")
        await asyncio.sleep(0)
        self.rows |= {record.delivery_id: record for record in records if record.delivery_id not in self.rows}
        return []


class RecorderMachine(RuleBasedStateMachine):
    """One process at a time; Postgres outlives it."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(module, "write_batch", lambda postgres, records, _policy: postgres.write(records))
        self.patch.setattr(module.log, "error", lambda *_args, **_more: None)
        self.loop = asyncio.new_event_loop()
        self.postgres = Postgres()
        self.unfit: set[str] = set()
        self.number = 0
        self.pending: list[int] = []  # added and not let go
        self._boot()

    def _boot(self) -> None:
        self.recorder = Recorder(self.postgres, DisablePolicy(10), 0.0, BATCH_ROWS)  # type: ignore[arg-type]
        self.running = self.loop.create_task(self.recorder.run())

    def _turn(self, times: int = 1) -> None:
        async def turn() -> None:
            for _ in range(times):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turn())

    def _add(self, number: int) -> None:
        def let_go() -> None:
            assert self.pending[0] == number, "let go out of turn, or twice"
            assert f"dlv_{number}" in self.postgres.rows, "let go before it was written"
            self.pending.pop(0)

        self.recorder.add(record(number, fit=f"dlv_{number}" not in self.unfit), let_go)

    @rule(fits=st.lists(st.booleans(), min_size=1, max_size=2 * BATCH_ROWS + 1))
    def add(self, fits: list[bool]) -> None:
        for fit in fits:
            self.number += 1
            self.unfit |= set() if fit else {f"dlv_{self.number}"}
            self.pending.append(self.number)
            self._add(self.number)

    @rule(times=st.integers(1, 12))
    def time_passes(self, times: int) -> None:
        self._turn(times)

    @rule()
    def postgres_goes(self) -> None:
        self.postgres.away = self.postgres.away or asyncio.Event()

    @rule()
    def postgres_comes(self) -> None:
        away, self.postgres.away = self.postgres.away, None
        if away is not None:
            away.set()

    @rule()
    def postgres_cuts_us_off_after_it_has_committed(self) -> None:
        self.postgres.cut_next = True

    @rule()
    def crash(self) -> None:
        """What was not let go is read from Kafka again, written before or not."""
        self.running.cancel()
        self._turn(2)
        self._boot()
        for number in self.pending:
            self._add(number)

    @precondition(lambda self: self.postgres.away is None)
    @rule()
    def settle(self) -> None:
        """With Postgres there, everything comes to rest by itself."""
        self._turn(40 * (len(self.pending) + 1))
        assert self.recorder.idle
        assert self.pending == []

    @invariant()
    def it_counts_what_it_holds(self) -> None:
        assert len(self.recorder) == len(self.pending)
        assert self.postgres.largest <= BATCH_ROWS
        assert not self.running.done()

    def teardown(self) -> None:
        self.postgres_comes()
        self.settle()
        assert set(self.postgres.rows) == {f"dlv_{number}" for number in range(1, self.number + 1)}
        for name, row in self.postgres.rows.items():
            assert (row.error_message is not None) == (name in self.unfit)
        self.running.cancel()
        self._turn(2)
        self.loop.close()
        self.patch.undo()


TestRecorder = RecorderMachine.TestCase
