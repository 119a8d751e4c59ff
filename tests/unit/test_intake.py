"""The intake: what it takes on, and what becomes of a message when partitions come and go."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from messages import DELIVERY, Consumer, Message
from waiting import turn

from go2hooks.core.domain.delivery import Delivery
from go2hooks.core.domain.duplicates import Claims
from go2hooks.core.errors import UnavailableError
from go2hooks.kafka.consumer import PolledConsumer
from go2hooks.kafka.partitions import Assignment, PartitionKey
from go2hooks.postgres.attempts import AttemptKey
from services.dispatcher import lookup
from services.dispatcher.intake import Intake, IntakeServices, MainStage
from services.dispatcher.lookup import Lookup
from services.dispatcher.work_item import WorkItem

KEY = PartitionKey("go2.deliveries", 0)


class Records:
    """Postgres, which may be away."""

    def __init__(self) -> None:
        self.back = asyncio.Event()
        self.states: dict[AttemptKey, str] = {}

    async def find(self, keys: Sequence[AttemptKey]) -> dict[AttemptKey, str]:
        await self.back.wait()
        return {key: self.states[key] for key in keys if key in self.states}


class Storing(Consumer):
    """One that remembers what it was told to store."""

    stored: Mapping[PartitionKey, int] = {}

    def store(self, offsets: Mapping[PartitionKey, int]) -> None:
        self.stored = offsets


class Scene:
    """An intake with what it works with."""

    def __init__(
        self, deployments: frozenset[str] = frozenset(), hand_on: Callable[[WorkItem], None] | None = None
    ) -> None:
        self.admitted: list[WorkItem] = []
        self.records = Records()
        self.claims: Claims[WorkItem] = Claims()
        consumer = Storing()
        self.lookup = Lookup(self.records.find, consumer)  # type: ignore[arg-type]
        self.intake = Intake(
            "main",
            consumer,  # type: ignore[arg-type]
            MainStage(self.lookup.ask, self.admitted.append),
            self.lookup.ask,
            IntakeServices(lambda _: [], self._bury, self.claims, deployments),
            hand_on=hand_on,
        )

    def assign(self, suspect_until: int = 0) -> None:
        self.intake.on_assigned([Assignment(KEY, suspect_until)])

    def read(self, offset: int, delivery: Delivery = DELIVERY) -> None:
        self.intake.receive([Message(KEY, offset, delivery)])  # type: ignore[list-item]

    def committable(self) -> int | None:
        return self.intake._partitions[KEY].tracker.committable()

    def _bury(self, *_args: Any) -> None:
        raise AssertionError("every message here can be decoded")


@pytest.fixture
async def scene() -> Scene:
    return Scene()


async def test_a_message_that_is_read_again_while_postgres_is_away_is_not_lost(scene):
    """The partition goes and comes back before the records have answered: the second reading must survive the first."""
    scene.assign(suspect_until=10)
    scene.read(3)
    await turn()
    scene.intake.on_lost([KEY])
    scene.assign(suspect_until=10)
    scene.read(3)
    assert scene.committable() != 4
    scene.records.back.set()
    await turn()
    (item,) = scene.admitted
    assert not item.partition.gone
    item.finish()
    assert scene.committable() == 4


async def test_a_message_that_is_read_again_is_not_finished_before_the_attempt_that_is_under_way(scene):
    """That attempt's offset belongs to an assignment that has gone: were it lost, only the second reading has it."""
    scene.assign()
    scene.read(3)
    (under_way,) = scene.admitted
    scene.intake.on_lost([KEY])
    scene.assign(suspect_until=10)
    scene.read(3)
    assert scene.committable() == 3
    scene.claims.recorded(DELIVERY.id, DELIVERY.attempt)
    under_way.finish()
    assert scene.committable() == 4
    assert len(scene.admitted) == 1


async def test_what_waits_when_its_partition_is_given_back_is_handed_on_and_leaves_no_gap():
    """Else what was moved aside behind it would be read again, while its other message is read elsewhere."""
    handed_on: list[WorkItem] = []
    scene = Scene(hand_on=handed_on.append)
    scene.assign()
    scene.read(3)
    scene.read(4, DELIVERY._replace(id="dlv_2"))
    waiting, under_way = scene.admitted
    revoking = asyncio.create_task(scene.intake.on_revoked([KEY]))
    await turn()
    waiting.drop()
    under_way.finish()
    await asyncio.sleep(0.05)
    assert not revoking.done()  # before Kafka has what was handed on
    handed_on.pop().finish()
    assert await revoking == {KEY: 5}
    assert handed_on == []


async def test_what_is_finished_when_its_partition_is_given_back_is_committed_though_it_was_stored_a_moment_ago(scene):
    """To store is to ask the poll thread, which may not come to it before the partition goes."""
    scene.assign()
    scene.read(3)
    scene.admitted.pop().finish()
    scene.intake.store_offsets()
    assert scene.intake.consumer.stored == {KEY: 4}
    assert scene.committable() is None
    assert await scene.intake.on_revoked([KEY]) == {KEY: 4}


@pytest.mark.parametrize("how", ["lost", "late"])
async def test_what_waits_when_its_partition_has_gone_is_left_to_its_next_owner(how):
    handed_on: list[WorkItem] = []
    scene = Scene(hand_on=handed_on.append)
    scene.assign()
    scene.read(3)
    (waiting,) = scene.admitted
    if how == "lost":
        scene.intake.on_lost([KEY])
    else:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(scene.intake.on_revoked([KEY]), 0.05)
    waiting.drop()
    assert handed_on == []


async def test_a_second_message_for_an_attempt_that_waits_here_is_done_with_at_once(scene):
    scene.assign()
    scene.read(3)
    scene.read(4)
    assert len(scene.admitted) == 1
    scene.admitted[0].finish()
    assert scene.committable() == 5


async def test_what_waited_for_another_is_left_to_the_next_owner_when_its_partition_goes_too(scene):
    scene.assign()
    scene.read(3)
    (first,) = scene.admitted
    scene.intake.on_lost([KEY])
    scene.assign(suspect_until=10)
    scene.read(3)
    revoking = asyncio.create_task(scene.intake.on_revoked([KEY]))
    await turn()
    assert not revoking.done()
    first.drop()
    assert await asyncio.wait_for(revoking, 1) == {KEY: 3}
    assert scene.intake.consumer.released == 2
    assert scene.claims.claim(DELIVERY.id, DELIVERY.attempt, first)


async def test_what_was_looked_up_and_has_waited_is_asked_about_again_and_what_needed_no_lookup_is_not(scene):
    scene.records.back.set()
    scene.assign(suspect_until=4)
    scene.read(3)
    await turn()
    scene.read(4, DELIVERY._replace(id="dlv_2"))
    looked_up, new = scene.admitted
    assert looked_up.looked_up_at
    assert not looked_up.is_outdated(looked_up.looked_up_at + 0.9)
    assert looked_up.is_outdated(looked_up.looked_up_at + 1.1)
    assert not new.is_outdated(looked_up.looked_up_at + 1.1)


@pytest.mark.parametrize(("state", "still_open", "committable"), [(None, True, 3), ("delivered", False, 4)])
async def test_who_asks_again_hears_whether_the_attempt_is_still_to_be_made(scene, state, still_open, committable):
    scene.records.back.set()
    scene.assign(suspect_until=4)
    scene.read(3)
    await turn()
    (item,) = scene.admitted
    if state:
        scene.records.states[lookup._key_of(DELIVERY)] = state
    answers: list[bool] = []
    item.ask_again(answers.append)
    await turn()
    assert (answers, scene.admitted) == ([still_open], [item])  # it is in its lane: not admitted twice
    assert (scene.committable() or 3) == committable


async def test_who_asks_again_about_what_is_gone_meanwhile_hears_so_and_drops_it(scene):
    scene.records.back.set()
    scene.assign(suspect_until=4)
    scene.read(3)
    await turn()
    (item,) = scene.admitted
    answers: list[bool] = []
    item.ask_again(answers.append)
    scene.intake.on_lost([KEY])
    await turn()
    assert (answers, item.partition.held) == ([True], 1)  # who has its place in the lane gives both back
    item.drop()
    assert item.partition.held == 0


async def test_what_comes_of_a_partition_that_has_gone_gives_its_place_in_the_window_back(scene):
    """Else each rebalance would leave a little less of the window, until nothing is read any more."""
    scene.assign()
    scene.intake.on_lost([KEY])
    scene.read(3)
    assert scene.admitted == []
    assert scene.intake.consumer.released == 1


async def test_what_says_that_it_may_have_been_written_before_is_looked_up_wherever_it_lies(scene):
    scene.assign()
    scene.read(3, DELIVERY._replace(suspect=True))
    await turn()
    assert scene.admitted == []
    scene.records.back.set()
    await turn()
    assert len(scene.admitted) == 1


async def test_records_that_cannot_be_asked_for_a_defect_end_the_consumer(scene):
    """What was asked about would hang for good."""
    scene.assign(suspect_until=10)
    scene.records.states = None  # type: ignore[assignment]  # the defect
    scene.records.back.set()
    scene.read(3)
    await turn()
    assert isinstance(scene.intake.consumer.failure, TypeError)


@pytest.mark.plain
async def test_a_defect_while_taking_messages_ends_the_consumer_and_commits_nothing_beyond(scene, monkeypatch):
    """What comes after the message that broke must not be taken: finishing it would commit past the broken one."""
    taken = []

    def receive(messages: list[Any]) -> None:
        taken.append(messages)
        raise RuntimeError("a defect")

    consumer = PolledConsumer.__new__(PolledConsumer)
    consumer.failure = None
    consumer._sink = scene.intake
    monkeypatch.setattr(scene.intake, "receive", receive)
    consumer._hand_over([1])
    consumer._hand_over([2])
    assert taken == [[1]]
    assert str(consumer.failure) == "a defect"


def test_a_delivery_of_another_deployment_stops_the_intake_before_it_is_taken_on() -> None:
    """And those of this one, of one that it replaced, and of versions that did not say are taken."""
    scene = Scene(frozenset(("dep_ours", "dep_former")))
    scene.assign()
    for offset, deployment in enumerate(("", "dep_ours", "dep_former")):
        scene.read(offset, DELIVERY._replace(id=f"dlv_{offset}", deployment=deployment))
    with pytest.raises(UnavailableError, match=r"go2\.deliveries/0/3 is a delivery of another deployment, dep_theirs"):
        scene.read(3, DELIVERY._replace(id="dlv_3", deployment="dep_theirs"))
    assert [item.position.offset for item in scene.admitted] == [0, 1, 2]
