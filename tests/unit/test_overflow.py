"""The overflow's stage: who gets the room that there is, when the records are asked, and when the rest makes place."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from math import inf

import pytest
from messages import DELIVERY, Consumer, Message

from go2hooks.core.domain.duplicates import Claims
from go2hooks.kafka.partitions import Assignment, PartitionKey
from go2hooks.postgres.attempts import AttemptKey
from services.dispatcher.intake import Intake, IntakeServices
from services.dispatcher.lookup import Lookup
from services.dispatcher.overflow import OverflowStage
from services.dispatcher.work_item import WorkItem

KEY = PartitionKey("go2.deliveries.overflow", 0)
A_TURN_S = 0.11  # of the intake, while it has little to give


class Lagging(Consumer):
    """One behind which more may lie."""

    def __init__(self) -> None:
        self.lags: dict[PartitionKey, int] = {}


class Scene:
    """The intake, with lanes that have as much room as a test gives them."""

    def __init__(self) -> None:
        self.now = 1000.0  # seconds
        self.room: defaultdict[str, float] = defaultdict(float)
        self.admitted: list[str] = []
        self.sent_round: list[str] = []
        self.asked: list[str] = []
        self.states: dict[str, str] = {}
        self.consumer = Lagging()
        lookup = Lookup(self._find, self.consumer)  # type: ignore[arg-type]
        self.stage = OverflowStage(
            self.consumer, lookup.look_up, self._admit,  # type: ignore[arg-type]
            room=lambda item: self.room[item.delivery.webhook_id], requeue=self._requeue,
            clock=lambda: self.now,
        )  # fmt: skip
        services = IntakeServices(lambda _: [], lambda *_: None, Claims[WorkItem]())
        self.intake = Intake("overflow", self.consumer, self.stage, lookup.ask, services)  # type: ignore[arg-type]
        self.intake.on_assigned([Assignment(KEY, 0)])
        self._offset = 0

    def read(self, *webhook_ids: str) -> None:
        for webhook_id in webhook_ids:
            delivery = DELIVERY._replace(id=f"dlv_{self._offset}", webhook_id=webhook_id)
            self.intake.receive([Message(KEY, self._offset, delivery)])  # type: ignore[list-item]
            self._offset += 1

    async def until(self, check: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not check():  # noqa: ASYNC110  # bounded, and what it waits for has no event
                await asyncio.sleep(0.005)

    def _admit(self, item: WorkItem) -> None:
        self.admitted.append(item.delivery.webhook_id)
        self.room[item.delivery.webhook_id] -= 1

    def _requeue(self, item: WorkItem) -> None:
        self.sent_round.append(item.delivery.webhook_id)
        item.finish()

    async def _find(self, keys: Sequence[AttemptKey]) -> dict[AttemptKey, str]:
        self.asked += [key.delivery_id for key in keys]
        return {key: self.states[key.delivery_id] for key in keys if key.delivery_id in self.states}


@asynccontextmanager
async def running(scene: Scene) -> AsyncIterator[None]:
    turns = asyncio.create_task(scene.stage.run())
    try:
        yield
    finally:
        turns.cancel()


async def test_the_records_are_asked_only_about_what_has_room_and_webhooks_take_turns():
    scene = Scene()
    scene.room |= {"wh_a": 2, "wh_b": 2}
    scene.read("wh_a", "wh_a", "wh_a", "wh_full", "wh_b")
    async with running(scene):
        await scene.until(lambda: len(scene.admitted) == 3)
        assert scene.admitted == ["wh_a", "wh_b", "wh_a"]
        assert sorted(scene.asked) == ["dlv_0", "dlv_1", "dlv_4"]
        scene.room["wh_full"] = 1
        await scene.until(lambda: len(scene.admitted) == 4)
    assert scene.admitted[-1] == "wh_full"
    assert len(scene.stage) == 1


async def test_what_was_made_before_is_finished_and_not_admitted():
    scene = Scene()
    scene.room["wh_a"] = 5
    scene.states["dlv_0"] = "delivered"
    scene.read("wh_a", "wh_a")
    async with running(scene):
        await scene.until(lambda: scene.consumer.released == 1 and len(scene.admitted) == 1)
    assert scene.asked == ["dlv_0", "dlv_1"]


async def test_what_was_held_for_long_makes_place_and_rounds_become_rarer_while_nobody_waits_behind():
    scene = Scene()
    rounds: list[float] = []
    async with running(scene):
        scene.read("wh_stuck")
        for _ in range(4):
            began, before = scene.now, len(scene.sent_round)
            while len(scene.sent_round) == before:
                scene.now += 0.5
                await asyncio.sleep(A_TURN_S)
            rounds.append(scene.now - began)
            scene.read("wh_stuck")
        assert rounds[0] <= 1.5
        assert rounds[-1] >= 3.5
        scene.read("wh_other")  # somebody else: rounds are quick again, after the present one
        await scene.until(lambda: len(scene.stage) == 2)
        while "wh_other" not in scene.sent_round:
            scene.now += 0.5
            await asyncio.sleep(A_TURN_S)
        scene.read("wh_stuck")
        began, before = scene.now, len(scene.sent_round)
        while len(scene.sent_round) == before:
            scene.now += 0.5
            await asyncio.sleep(A_TURN_S)
        assert scene.now - began <= 2.5


def test_what_was_read_at_once_does_not_leave_at_once():
    scene = Scene()
    left: list[int] = []
    scene.read(*["wh_other"] * 50, *["wh_stuck"] * 100)
    scene.now += 0.01
    scene.read(*["wh_other"] * 50)
    while len(scene.stage):
        before = len(scene.sent_round)
        scene.now += 0.1
        scene.stage._make_place(scene.now)
        left.append(len(scene.sent_round) - before)
    assert max(left) <= 21, left  # of 200, in a tenth of a second
    assert len(left) <= 60, left
    assert scene.sent_round[150:] == ["wh_other"] * 50  # the longest held first


async def test_little_is_taken_at_a_time_while_the_loop_is_late_and_more_each_time_it_is_not():
    scene = Scene()
    scene.room["wh_a"] = inf
    scene.read(*["wh_a"] * 200)
    taken: list[int] = []
    async with running(scene):
        await asyncio.sleep(0)  # it sleeps until its first turn
        for late_s in (0.03, 0.03, 0.0, 0.0, 0.03):
            before = len(scene.asked)
            scene.now += late_s
            await scene.until(lambda before=before: before < len(scene.asked) == len(scene.admitted))
            taken.append(len(scene.asked) - before)
    assert taken == [4, 4, 6, 8, 4]


async def test_a_long_backlog_is_worked_off_however_late_the_loop_is():
    scene = Scene()
    scene.room["wh_a"] = inf
    scene.read(*["wh_a"] * 200)
    scene.consumer.lags |= {KEY: 300_000, KEY._replace(partition=1): 300_000}
    async with running(scene):
        await asyncio.sleep(0)
        scene.now += 0.03
        await scene.until(lambda: 0 < len(scene.asked) == len(scene.admitted))
        assert len(scene.asked) == 100


@pytest.mark.plain
async def test_turns_are_rarer_while_few_find_room(monkeypatch: pytest.MonkeyPatch):
    scene = Scene()
    pauses: list[float] = []
    really_sleep = asyncio.sleep

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await really_sleep(0)

    scene.room |= {"wh_a": 1, "wh_b": 20}
    scene.read("wh_a")
    monkeypatch.setattr(asyncio, "sleep", sleep)
    async with running(scene):
        while len(pauses) < 2:
            await really_sleep(0)
        scene.read(*["wh_b"] * 20)
        while len(scene.admitted) < 21:
            await really_sleep(0)
        await really_sleep(0)
    turns = [pause for pause in pauses if pause]  # 0: between some and some more of one turn
    assert turns[:2] == [0.02, 0.1]
    assert 0.02 in turns[2:]  # after the turn of twenty


async def test_what_is_taken_together_leaves_the_loop_to_others_in_between():
    scene = Scene()
    scene.room["wh_a"] = inf
    scene.read(*["wh_a"] * 20)
    scene.stage._pace.items = 20
    seen: list[int] = []
    async with running(scene):
        async with asyncio.timeout(5):
            while len(scene.admitted) < 20:
                seen.append(len(scene.admitted))
                await asyncio.sleep(0)
    assert {0, 3, 7} <= set(seen), "nobody had the loop before all were admitted"


async def test_a_partition_that_leaves_takes_its_held_tickets_along():
    scene = Scene()
    scene.read("wh_a", "wh_b")
    assert await scene.intake.on_revoked([KEY]) == {KEY: 0}
    assert len(scene.stage) == 0
    assert scene.consumer.released == 2
