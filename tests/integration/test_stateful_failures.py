"""The count of consecutive failures in Postgres, model-checked: in the order in which attempts began.

Two dispatchers write batches in turns, so that attempts are recorded long after others that began later. Partitions move
between them and processes are killed, so that attempts are recorded twice, in part and in other batches; webhooks are
enabled again. The model disables whoever failed so often in attempts that began after the latest success that is recorded.
"""

import asyncio
import os
from dataclasses import dataclass, field
from typing import ClassVar

import psycopg
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from psycopg import AsyncConnection

from go2hooks.core.domain.delivery import Kind, Position
from go2hooks.core.domain.outcome import State
from go2hooks.core.domain.record import AttemptRecord
from go2hooks.postgres.attempts import DisablePolicy, write_batch

THRESHOLD = 5
#: Each writes to Postgres dozens of times; `make models` asks for many.
EXAMPLES = settings.default.max_examples if "HYPOTHESIS_PROFILE" in os.environ else 30
IDS = ("wh_a", "wh_b")
_WEBHOOK = """INSERT INTO webhooks (id, account_id, name, url, events, sealed_secret)
    VALUES (%s, 'acc', 'one', 'https://example.com/', '{*}', '')"""


@dataclass
class Count:
    """What the model knows of a webhook. Attempts are numbered in the order in which they began."""

    failures: set[int] = field(default_factory=set)  # those that count, as far as its row tells
    active: bool = True
    disabled: int = 0  # how often it has been
    recorded: dict[int, bool] = field(default_factory=dict)  # who failed
    forgiven: set[int] = field(default_factory=set)  # recorded when it was enabled again

    def add(self, new: dict[int, bool]) -> None:
        """Record these, at once."""
        self.recorded |= new
        if not self.active:
            return
        self.failures |= {number for number, failed in new.items() if failed}
        self._heed(new)
        if len(self.failures) >= THRESHOLD:
            self._heed(self.recorded)
        if len(self.failures) >= THRESHOLD:
            self.active = False
            self.disabled += 1

    def _heed(self, attempts: dict[int, bool]) -> None:
        latest = max((number for number, failed in attempts.items() if not failed), default=0)
        self.failures = {number for number in self.failures if number > latest}

    def consecutive(self) -> int:
        """Failures that began after the latest success of all that is recorded."""
        latest = max((number for number, failed in self.recorded.items() if not failed), default=0)
        return sum(
            failed and number > latest and number not in self.forgiven for number, failed in self.recorded.items()
        )

    def enable(self) -> None:
        self.active, self.failures = True, set()
        self.forgiven = {number for number, failed in self.recorded.items() if failed}


def record(webhook_id: str, number: int, *, failed: bool) -> AttemptRecord:
    state = State.RETRYING if failed else State.DELIVERED
    return AttemptRecord(
        webhook_id, 1_704_110_400_000, f"dlv_{number}", 1, "acc", f"evt_{number}", "click", Kind.EVENT, state,
        500 if failed else 200, 1.0, None, None, None, 1_704_110_400_000 + number, None, Position("t", 0, number),
    )  # fmt: skip


class FailuresMachine(RuleBasedStateMachine):
    """Two dispatchers, each with a batch that gathers; what of it was committed before, the other may have again."""

    url: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.reading = psycopg.connect(self.url, autocommit=True)
        self.reading.execute("TRUNCATE attempts, webhooks, accounts CASCADE")
        self.reading.execute("INSERT INTO accounts (id) VALUES ('acc')")
        for webhook_id in IDS:
            self.reading.execute(_WEBHOOK, [webhook_id])
        self.writing = self.loop.run_until_complete(AsyncConnection.connect(self.url, autocommit=True))
        self.number = 0
        self.batches: tuple[list[AttemptRecord], list[AttemptRecord]] = ([], [])
        self.written: list[AttemptRecord] = []
        self.counts = {webhook_id: Count() for webhook_id in IDS}
        self.announced = dict.fromkeys(IDS, 0)

    @rule(who=st.integers(0, 1), attempts=st.lists(st.tuples(st.sampled_from(IDS), st.booleans()), max_size=12))
    def attempt(self, who: int, attempts: list[tuple[str, bool]]) -> None:
        for webhook_id, failed in attempts:
            self.number += 1
            self.batches[who].append(record(webhook_id, self.number, failed=failed))

    @rule(who=st.integers(0, 1))
    def move(self, who: int) -> None:
        """Partitions go to the other one, which makes the attempts anew, though they may be recorded after all."""
        for each in self.batches[who]:
            self._add(1 - who, each)

    def _add(self, who: int, new: AttemptRecord) -> None:
        """A process has an attempt once: its claims see to that."""
        if all(new.key != other.key for other in self.batches[who]):
            self.batches[who].append(new)

    @rule(data=st.data(), who=st.integers(0, 1))
    def read_again(self, data: st.DataObject, who: int) -> None:
        """What was recorded, its offset not committed when its process was killed; this time it may end otherwise."""
        if self.written:
            earlier = data.draw(st.sampled_from(self.written))
            state = data.draw(st.sampled_from([State.RETRYING, State.DELIVERED]))
            self._add(who, earlier._replace(state=state))

    @rule(who=st.integers(0, 1), told=st.booleans())
    def write(self, who: int, told: bool) -> None:
        """Killed after the commit (`told` False), it leaves its batch to be recorded again."""
        batch = self.batches[who]
        if batch:
            policy = DisablePolicy(THRESHOLD)
            for webhook_id in self.loop.run_until_complete(write_batch(self.writing, batch, policy)):
                self.announced[webhook_id] += 1
            self._count(batch)
            self.written += batch
        if told:
            batch.clear()

    def _count(self, batch: list[AttemptRecord]) -> None:
        """What is recorded already left out."""
        for webhook_id, count in self.counts.items():
            ended = {int(r.delivery_id[4:]): r.failed for r in batch if r.webhook_id == webhook_id}
            count.add({number: failed for number, failed in ended.items() if number not in count.recorded})

    @rule(webhook_id=st.sampled_from(IDS))
    def enable(self, webhook_id: str) -> None:
        self.reading.execute(
            "UPDATE webhooks SET is_active = true, consecutive_failures = 0, failing_since = NULL WHERE id = %s",
            [webhook_id],
        )
        self.counts[webhook_id].enable()

    @invariant()
    def postgres_agrees_with_the_model(self) -> None:
        rows = self.reading.execute("SELECT id, is_active, consecutive_failures FROM webhooks").fetchall()
        for webhook_id, active, failures in rows:
            count = self.counts[webhook_id]
            assert active == count.active, webhook_id
            assert failures == len(count.failures), webhook_id
            assert active or failures >= THRESHOLD
            assert self.announced[webhook_id] == count.disabled  # each time once

    @invariant()
    def exactly_those_are_disabled_who_failed_so_often_since_their_latest_success(self) -> None:
        for count in self.counts.values():
            assert not count.active or count.consecutive() < THRESHOLD

    def teardown(self) -> None:
        self.loop.run_until_complete(self.writing.close())
        self.reading.close()
        self.loop.close()


@pytest.mark.hypothesis
def test_the_count_of_failures_is_exact_whatever_is_written_twice(database_url):
    FailuresMachine.url = database_url
    run_state_machine_as_test(
        FailuresMachine, settings=settings(FailuresMachine.TestCase.settings, max_examples=EXAMPLES)
    )
