"""The dispatcher's promise, model-checked: whatever comes and goes, what is committed is recorded.

A machine of messages (some of them second ones for the same attempt), rebalances, crashes, a Postgres that is away, and
attempts that end in any order. After every step each message that lies before the committed offset has its record.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from messages import DELIVERY, Message

from go2hooks.core.domain.duplicates import Claims
from go2hooks.kafka.partitions import Assignment, PartitionKey
from go2hooks.postgres.attempts import AttemptKey
from services.dispatcher.intake import Intake, IntakeServices, MainStage
from services.dispatcher.lookup import Lookup
from services.dispatcher.work_item import WorkItem

KEYS = [PartitionKey("go2.deliveries", n) for n in range(2)]


class Consumer:
    """Commits at once what it is told to store."""

    failure: BaseException | None = None

    def __init__(self, committed: dict[PartitionKey, int]) -> None:
        self._committed = committed

    def store(self, offsets: dict[PartitionKey, int]) -> None:
        for key, offset in offsets.items():
            assert offset >= self._committed[key], "a commit went back"
            self._committed[key] = offset

    def weigh(self, _size: int) -> int:
        return 1

    def release(self, weight: int = 1) -> None:
        pass


class IntakeMachine(RuleBasedStateMachine):
    """One dispatcher process at a time; Kafka and Postgres outlive it."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.logs: dict[PartitionKey, list[Message]] = {key: [] for key in KEYS}
        self.committed = dict.fromkeys(KEYS, 0)
        self.recorded: set[str] = set()
        self._boot()
        for number, key in enumerate(KEYS * 2):
            self.write(key, number)
        self.assign(KEYS[0])

    def _boot(self) -> None:
        self.position: dict[PartitionKey, int] = {}
        self.running: list[WorkItem] = []
        self.queued: list[WorkItem] = []
        self.away: asyncio.Event | None = None
        self.claims: Claims[WorkItem] = Claims(remembered=4)
        consumer = Consumer(self.committed)
        lookup = Lookup(self._find, consumer)
        self.intake = Intake(
            "main",
            consumer,
            MainStage(lookup.ask, self.queued.append),
            lookup.ask,
            IntakeServices(self._evict, self._bury, self.claims),
        )

    def _bury(self, *_args: Any) -> None:
        raise AssertionError("every message here can be decoded")

    def _evict(self, unwanted: Any) -> list[WorkItem]:
        gone = [item for item in self.queued if unwanted(item)]
        self.queued[:] = [item for item in self.queued if not unwanted(item)]
        return gone

    async def _find(self, keys: Sequence[AttemptKey]) -> dict[AttemptKey, str]:
        while self.away is not None:
            await self.away.wait()
        return {key: "delivered" for key in keys if key.delivery_id in self.recorded}

    def _do(self, *action: Any) -> None:
        """Call it on the event loop, and let happen what follows at once."""

        async def act() -> None:
            for call, *arguments in [action] if action else []:
                call(*arguments)
            for _ in range(6):
                await asyncio.sleep(0)

        self.loop.run_until_complete(act())

    @rule(key=st.sampled_from(KEYS), number=st.integers(0, 11))
    def write(self, key: PartitionKey, number: int) -> None:
        self.logs[key].append(Message(key, len(self.logs[key]), DELIVERY._replace(id=f"dlv_{number}")))

    @rule(key=st.sampled_from(KEYS))
    def assign(self, key: PartitionKey) -> None:
        if key not in self.position:
            self.intake.on_assigned([Assignment(key, len(self.logs[key]))])
            self.position[key] = self.committed[key]

    @rule(count=st.integers(1, 4), key=st.sampled_from(KEYS))
    def read(self, count: int, key: PartitionKey) -> None:
        if key not in self.position:
            self.assign(key)
        else:
            messages = self.logs[key][self.position[key] : self.position[key] + count]
            self.position[key] += len(messages)
            self._do(self.intake.receive, messages)

    @rule(key=st.sampled_from(KEYS), comes_back=st.booleans())
    def lose(self, key: PartitionKey, comes_back: bool) -> None:
        if self.position.pop(key, None) is not None:
            self._do(self.intake.on_lost, [key])
            if comes_back:
                self.assign(key)

    @rule(key=st.sampled_from(KEYS), patient=st.booleans())
    def revoke(self, key: PartitionKey, patient: bool) -> None:
        if self.position.pop(key, None) is None:
            return
        revoking = self.loop.create_task(self.intake.on_revoked([key]))
        self._do()
        if patient:  # what runs ends meanwhile, as far as it can
            self._end_all()
        if revoking.done():
            self.intake.consumer.store(revoking.result())
        else:
            revoking.cancel()
        self._do()

    def _end_all(self) -> None:
        for item in self.running:
            self._do(self._record, item)
        self.running.clear()
        self.loop.run_until_complete(asyncio.sleep(0.011))

    @precondition(lambda self: self.queued)
    @rule(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        item = self.queued.pop(data.draw(st.integers(0, len(self.queued) - 1)))
        if item.partition.gone:
            self._do(item.drop)
        else:
            self.running.append(item)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), how=st.sampled_from(["recorded", "moved"]))
    def end(self, data: st.DataObject, how: str) -> None:
        item = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        if how == "recorded":
            self._do(self._record, item)
        else:  # aside, to the end of the log: the new message stands for it
            self.claims.give_up(item.delivery.id, item.delivery.attempt)
            log = self.logs[KEYS[1]]
            log.append(Message(KEYS[1], len(log), item.delivery))
            self._do(item.finish)

    def _record(self, item: WorkItem) -> None:
        self.recorded.add(item.delivery.id)
        self.claims.recorded(item.delivery.id, item.delivery.attempt)
        item.finish()

    @precondition(lambda self: self.away is None)
    @rule()
    def postgres_goes(self) -> None:
        self.away = asyncio.Event()

    @rule()
    def postgres_comes(self) -> None:
        if self.away is not None:
            away, self.away = self.away, None
            self._do(away.set)

    @rule()
    def crash(self) -> None:
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self._do()
        self._boot()

    @invariant()
    def what_is_committed_is_recorded_or_still_to_come(self) -> None:
        self.intake.store_offsets()
        ahead = {m.delivery.id for key, log in self.logs.items() for m in log[self.committed[key] :]}
        for key, log in self.logs.items():
            for message in log[: self.committed[key]]:
                assert message.delivery.id in self.recorded or message.delivery.id in ahead, (
                    f"{message.delivery.id} at {key.partition}/{message.at} is lost"
                )

    def teardown(self) -> None:
        """Whatever happened: with everything back, all that was written is recorded in the end."""
        self.postgres_comes()
        self.crash()
        for key in KEYS:
            self.assign(key)
            self.read(len(self.logs[key]) or 1, key)
        while self.queued:
            self._do(self._record, self.queued.pop())
        assert {m.delivery.id for log in self.logs.values() for m in log} <= self.recorded
        self.loop.close()


TestIntake = IntakeMachine.TestCase
