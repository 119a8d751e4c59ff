"""The retry stage, model-checked: a waiting retry goes out once, when it is due and the attempt before it is recorded,
or is still to come when its partition moves, the process is killed, or its circuit is open.

Time is the machine's own. The model is two logs of retries, what is recorded, and what Kafka has stored.
"""

import asyncio
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from messages import DELIVERY, Message

from go2hooks.core.domain.duplicates import Claims
from go2hooks.kafka.partitions import Assignment, PartitionKey
from go2hooks.postgres.attempts import AttemptKey
from go2hooks.telemetry import metrics
from services.dispatcher.delay import RetryStage
from services.dispatcher.intake import Intake, IntakeServices
from services.dispatcher.lookup import Lookup
from services.dispatcher.work_item import WorkItem

KEYS = [PartitionKey("go2.deliveries.retry.5s", n) for n in range(2)]
RETRY = DELIVERY._replace(attempt=2)
CAPACITY = 4
MAX_DUE = 3
TURNS = 8  # of the event loop: enough for a question and its answer


class Consumer:
    """Commits at once what it is told to store, and remembers what is paused."""

    failure: BaseException | None = None

    def __init__(self, committed: dict[PartitionKey, int]) -> None:
        self._committed = committed
        self.paused: set[PartitionKey] = set()
        self.handed = 0

    def store(self, offsets: dict[PartitionKey, int]) -> None:
        for key, offset in offsets.items():
            assert offset >= self._committed[key], "a commit went back"
            self._committed[key] = offset

    def weigh(self, _size: int) -> int:
        return 1

    def release(self, weight: int = 1) -> None:
        self.handed -= weight

    def pause(self, key: PartitionKey) -> None:
        self.paused.add(key)

    def resume(self, key: PartitionKey) -> None:
        self.paused.discard(key)


class Timer:
    """A call that the machine makes when its time has come."""

    def __init__(self, at: float, call: Callable[[], None]) -> None:
        self.at = at
        self.call = call
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class RetryMachine(RuleBasedStateMachine):
    """One process at a time; Kafka and Postgres outlive it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.patch = pytest.MonkeyPatch()
        self.loop = asyncio.new_event_loop()
        self._really_later = self.loop.call_later
        self.patch.setattr(self.loop, "call_later", self._call_later)
        self.logs: dict[PartitionKey, list[Message]] = {key: [] for key in KEYS}
        self.committed = dict.fromkeys(KEYS, 0)
        self.promised: set[str] = set()  # whose first attempt is recorded
        self.recorded: set[str] = set()  # whose second is
        self.is_blocked = False  # what is due is turned away
        self._boot()

    def _boot(self) -> None:
        self.timers: list[Timer] = []
        self.position: dict[PartitionKey, int] = {}
        self.admitted: list[WorkItem] = []
        self.claims: Claims[WorkItem] = Claims(remembered=4)
        self.consumer = Consumer(self.committed)
        lookup = Lookup(self._find, self.consumer)
        self.stage = RetryStage(
            self.consumer,
            lookup.ask,
            self._admit,
            turn_away=self._turn_away,
            buffer_messages=CAPACITY,
            max_due=MAX_DUE,
            clock=lambda: self.now,
        )
        self.intake = intake_around(self.stage, self.consumer, lookup, self.claims)

    def _call_later(self, seconds: float, call: Callable[..., None], *arguments: Any) -> Any:
        """The intake's timers have no arguments; asyncio's own, which sleep, have."""
        if arguments:
            return self._really_later(seconds, call, *arguments)
        timer = Timer(self.now + seconds, call)
        self.timers.append(timer)
        return timer

    def _turn_away(self, item: WorkItem) -> bool:
        if self.is_blocked:
            key, log = item.partition.key, self.logs[item.partition.key]
            self.claims.give_up(item.delivery.id, item.delivery.attempt)
            log.append(Message(key, len(log), item.delivery._replace(due_ms=round(self.now + 5) * 1000)))
            item.finish()
        return self.is_blocked

    def _admit(self, item: WorkItem) -> None:
        assert not self.is_blocked, "the records were asked in vain"
        assert item.delivery.due_ms <= self.now * 1000 + 1, "a retry is early"
        assert item.delivery.id in self.promised, "the attempt before it is not recorded"
        assert item.delivery.id not in self.recorded, "made and recorded already"
        assert all(item.delivery.id != other.delivery.id for other in self.admitted), "under way twice"
        self.admitted.append(item)

    async def _find(self, keys: Sequence[AttemptKey]) -> dict[AttemptKey, str]:
        states = {}
        for key in keys:
            if key.attempt == 1 and key.delivery_id in self.promised:
                states[key] = "retrying"
            elif key.attempt == 2 and key.delivery_id in self.recorded:
                states[key] = "delivered"
        return states

    def _do(self, *action: Any) -> None:
        async def act() -> None:
            if action:
                action[0](*action[1:])
            for _ in range(TURNS):
                await asyncio.sleep(0)

        self.loop.run_until_complete(act())

    @rule(key=st.sampled_from(KEYS), number=st.integers(0, 15), delay_s=st.integers(0, 6), promised=st.booleans())
    def write(self, key: PartitionKey, number: int, delay_s: int, promised: bool) -> None:
        """Often the record comes first; a crash between the two lets the retry lie there before it."""
        log, name = self.logs[key], f"dlv_{key.partition}_{number}"
        log.append(Message(key, len(log), RETRY._replace(id=name, due_ms=round(self.now + delay_s) * 1000)))
        if promised:
            self.promised.add(name)

    @rule(number=st.integers(0, 15))
    def promise(self, number: int) -> None:
        self.promised |= {f"dlv_{key.partition}_{number}" for key in KEYS}

    @rule(key=st.sampled_from(KEYS), count=st.integers(1, 6))
    def read(self, key: PartitionKey, count: int) -> None:
        if key not in self.position:
            self.intake.on_assigned([Assignment(key, len(self.logs[key]))])
            self.consumer.paused.discard(key)
            self.position[key] = self.committed[key]
        elif key not in self.consumer.paused:
            messages = self.logs[key][self.position[key] : self.position[key] + count]
            self.position[key] += len(messages)
            self.consumer.handed += len(messages)
            self._do(self.intake.receive, messages)

    @rule(is_blocked=st.booleans())
    def circuit(self, is_blocked: bool) -> None:
        self.is_blocked = is_blocked

    @rule(seconds=st.sampled_from([0.2, 1.0, 7.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        while due := [timer for timer in self.timers if not timer.cancelled and timer.at <= self.now]:
            for timer in due:
                timer.cancelled = True
                self._do(timer.call)
        self.timers = [timer for timer in self.timers if not timer.cancelled]

    @precondition(lambda self: self.admitted)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        self._record(self.admitted.pop(data.draw(st.integers(0, len(self.admitted) - 1))))

    def _record(self, item: WorkItem) -> None:
        self.recorded.add(item.delivery.id)
        self.claims.recorded(item.delivery.id, item.delivery.attempt)
        self._do(item.finish)

    @rule(key=st.sampled_from(KEYS))
    def lose(self, key: PartitionKey) -> None:
        if self.position.pop(key, None) is not None:
            self._do(self.intake.on_lost, [key])

    @rule(key=st.sampled_from(KEYS))
    def revoke(self, key: PartitionKey) -> None:
        """What is under way ends first."""
        if self.position.pop(key, None) is None:
            return
        revoking = self.loop.create_task(self.intake.on_revoked([key]))
        self._do()
        while self.admitted:
            self._record(self.admitted.pop())
        self.loop.run_until_complete(asyncio.wait([revoking], timeout=5))
        self.consumer.store(revoking.result())

    @rule()
    def crash(self) -> None:
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self._do()
        self._boot()

    @invariant()
    def what_is_committed_is_recorded_or_lies_further_on(self) -> None:
        """Parked, that is; and a second message for an attempt ends with the first."""
        self.intake.store_offsets()
        for key, log in self.logs.items():
            to_come = {message.delivery.id for message in log[self.committed[key] :]}
            assert {message.delivery.id for message in log[: self.committed[key]]} <= self.recorded | to_come

    @invariant()
    def memory_is_bounded(self) -> None:
        """A buffer takes what one batch brings beyond its bound; what is due and not finished is bounded in all."""
        assert len(self.admitted) <= MAX_DUE
        assert self.stage.waiting <= len(KEYS) * (CAPACITY + 6)
        assert self.consumer.handed >= 0

    def teardown(self) -> None:
        """Once all records are there and time passes, every retry is made, and committed."""
        self.is_blocked = False
        self.promised = {message.delivery.id for log in self.logs.values() for message in log}
        rounds = 20 + sum(map(len, self.logs.values()))
        while any(self.committed[key] < len(self.logs[key]) for key in KEYS):
            rounds -= 1
            assert rounds, "something waits for ever"
            for key in KEYS:
                self.read(key, 6)
            self.time_passes(7.0)
            while self.admitted:
                self._record(self.admitted.pop())
            self.intake.store_offsets()
        assert self.recorded >= self.promised
        self.loop.close()
        self.patch.undo()


TestRetryStage = RetryMachine.TestCase


def intake_around(stage: RetryStage, consumer: Consumer, lookup: Lookup, claims: Claims[WorkItem]) -> Intake:
    services = IntakeServices(lambda _unwanted: [], None, claims)  # type: ignore[arg-type]
    return Intake("retry", consumer, stage, lookup.ask, services, late_s=stage.late_s)  # type: ignore[arg-type]


def built(
    find: Callable[[Sequence[AttemptKey]], Any], admit: Callable[[WorkItem], None], clock: Callable[[], float],
    room: int = 4, **more: Any,
) -> tuple[Intake, RetryStage]:  # fmt: skip
    """An intake of one partition, and its stage."""
    consumer = Consumer(dict.fromkeys(KEYS, 0))
    lookup = Lookup(find, consumer)  # type: ignore[arg-type]
    stage = RetryStage(
        consumer, lookup.ask, admit, turn_away=lambda _: False, buffer_messages=room, max_due=room - 1, clock=clock, **more,  # type: ignore[arg-type]
    )  # fmt: skip
    intake = intake_around(stage, consumer, lookup, Claims())
    intake.on_assigned([Assignment(KEYS[0], 0)])
    return intake, stage


async def test_a_retry_goes_out_in_the_end_though_the_attempt_before_it_is_never_recorded():
    """Better a second chain than none. The records are asked once a second, and more rarely after half a minute."""
    now, asked, admitted = 1000, [], []

    async def find(_keys: Sequence[AttemptKey]) -> dict[AttemptKey, str]:
        asked.append(now)
        return {}

    intake, stage = built(find, admitted.append, lambda: now)
    intake.receive([Message(KEYS[0], 0, RETRY)])  # type: ignore[list-item]
    while not admitted and now < 2500:
        stage._release_due()
        for _ in range(TURNS):
            await asyncio.sleep(0)
        now += 1
    assert [later - earlier for earlier, later in pairwise(asked)] == [1] * 29 + [10] * 70
    assert len(admitted) == 1
    assert stage.waiting == 0


async def test_a_second_message_for_a_retry_that_waits_does_not_keep_its_partition_from_moving():
    intake, stage = built(lambda _: None, lambda _: None, lambda: 1000)
    intake.receive([Message(KEYS[0], offset, RETRY._replace(due_ms=2_000_000)) for offset in range(2)])  # type: ignore[misc]
    assert await asyncio.wait_for(intake.on_revoked([KEYS[0]]), 5) == {KEYS[0]: 0}
    assert (stage.waiting, stage._due) == (0, 0)


async def test_a_due_time_from_a_clock_that_ran_fast_holds_nobody_up_for_longer_than_the_tiers_delay():
    """It is counted; what is right, or a little off, is not."""
    now, admitted = 1000, []

    async def find(keys: Sequence[AttemptKey]) -> dict[AttemptKey, str]:
        return dict.fromkeys(keys, "retrying")

    intake, stage = built(find, admitted.append, lambda: now, 9, delays_s={KEYS[0].topic: 5.0})
    counted = metrics.RETRY_DUE_IMPLAUSIBLE.value()
    for offset, due_s in enumerate((1000 + 3600, 1005, 1005.9)):
        retry = RETRY._replace(id=f"dlv_{offset}", due_ms=round(due_s * 1000))
        intake.receive([Message(KEYS[0], offset, retry)])  # type: ignore[list-item]
    assert metrics.RETRY_DUE_IMPLAUSIBLE.value() == counted + 1
    now = 1005
    assert [item.delivery.id for buffer in stage._buffers.values() for item in buffer.pop_due(now * 1000)] == [
        "dlv_0",
        "dlv_1",
        "dlv_2",
    ]
