"""The pipeline with all that is pure around it, before a Kafka, a Postgres and receivers that do as the test says.

What must hold is the order: a retry is kept before its attempt is recorded, a record is written before an offset goes; and
that what is not sent now comes round again, whole, by the place that is meant for it.
"""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from go2hooks.codec import decode_delivery, encode_delivery
from go2hooks.core.delivery import Delivery, Kind
from go2hooks.core.duplicates import Claims
from go2hooks.core.lanes import LaneLimits, Lanes
from go2hooks.core.outcome import Answer, Failure, Response
from go2hooks.core.record import AttemptRecord
from go2hooks.core.request import SignedRequest
from go2hooks.core.retry import RetryPolicy
from go2hooks.core.signing import generate_secret
from go2hooks.core.webhook import Webhook
from go2hooks.kafka.partitions import Assignment, PartitionKey
from go2hooks.kafka.topics import DELIVERIES, DELIVERIES_DEAD, DELIVERIES_OVERFLOW, retry_topic
from go2hooks.postgres.attempts import AttemptKey, DisablePolicy
from go2hooks.postgres.patient import PatientConnection
from go2hooks.postgres.secrets import SecretBox
from go2hooks.telemetry import metrics
from services.dispatcher.intake import Intake, Source, Surroundings, Ticket
from services.dispatcher.pipeline import Collaborators, Pipeline
from services.dispatcher.recorder import Recorder
from services.dispatcher.requests import Requests
from services.dispatcher.senders.identity import Identity
from services.dispatcher.webhooks import Webhooks

TOPICS: dict[Source, str] = {"main": DELIVERIES, "retry": retry_topic(5.0), "overflow": DELIVERIES_OVERFLOW}
DELIVERY = Delivery("dlv_1", "wh_1", "acme", "evt_1", "click", "", b'{"a":1}', 1, 0, Kind.EVENT, 0, suspect=False)
LIMITS = LaneLimits(window=8, webhook_first_sends=1.0, webhook_max_sends=1, circuit_failures=2, probe_s=20.0)


class Message:
    """A consumed message."""

    def __init__(self, topic: str, offset: int, value: bytes) -> None:
        self._topic, self._offset, self._value = topic, offset, value

    def topic(self) -> str:
        return self._topic

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        return 1, 1000

    def key(self) -> bytes:
        return b"wh_1"

    def value(self) -> bytes:
        return self._value

    def __len__(self) -> int:
        return len(self._value)


class Consumer:
    """What an intake asks of its consumer."""

    failure: BaseException | None = None
    released = 0

    def weigh(self, _size: int) -> int:
        return 1

    def release(self, weight: int = 1) -> None:
        self.released += weight


class Written(NamedTuple):
    """What Kafka was asked to keep, and has not acknowledged."""

    topic: str
    key: str
    value: bytes
    acknowledge: Callable[[], None]
    headers: Sequence[tuple[str, bytes]]


class Receivers:
    """A sender that has an idle connection to everybody; an answer comes when the test gives it."""

    def __init__(self) -> None:
        self.asked: list[tuple[SignedRequest, Callable[[Response], None]]] = []
        self.is_corked = False

    def send_now(self, request: SignedRequest, on_response: Callable[[Response], None]) -> bool:
        self.asked.append((request, on_response))
        return True

    async def send(self, request: SignedRequest, identity: Identity | None = None) -> Response:
        raise AssertionError("there is an idle connection")

    def cork(self) -> None:
        self.is_corked = True

    def uncork(self) -> None:
        self.is_corked = False

    def answer(self, status: int, retry_after: str | None = None) -> None:
        """To the oldest request."""
        assert not self.is_corked, "no request has left"
        _request, on_response = self.asked.pop(0)
        on_response(Answer(status, 10.0, retry_after, b""))


class Postgres(PatientConnection):
    """One that knows no webhook, or this one."""

    def __init__(self) -> None:
        super().__init__("postgresql://nowhere", "tests")
        self.found: Webhook | None = None

    async def run(self, _work: Callable[[Any], Awaitable[Any]]) -> Any:
        return self.found


class Scene:
    """A dispatcher's inside, put together as `app` does."""

    def __init__(self, limits: LaneLimits = LIMITS) -> None:
        self.box, self.postgres = SecretBox((os.urandom(32),)), Postgres()
        self.webhooks = Webhooks(self.box, self.postgres)
        self.receivers = Receivers()
        self.written: list[Written] = []
        self.recorder = Recorder(self.postgres, DisablePolicy(10), 0.0, 100)
        self.lanes: Lanes[Ticket] = Lanes(limits, lambda ticket: ticket.weight)
        self.claims: Claims[Ticket] = Claims()
        self.pipeline = Pipeline(
            Collaborators(
                self.webhooks, Requests(self.webhooks, None, "webhook"), self.receivers, self, self.recorder,  # type: ignore[arg-type]
                self.lanes, self.claims, RetryPolicy(),
            )
        )  # fmt: skip
        self.states: dict[AttemptKey, str] = {}  # what is recorded, as the records say when they are asked
        self.held: list[Ticket] = []
        self.pipeline.hold = self.held.append
        self.intakes = {source: self._intake(source) for source in TOPICS}
        self.offsets = dict.fromkeys(TOPICS, 0)
        self.change()

    def _intake(self, source: Source) -> Intake:
        around = Surroundings(self.lanes.evict, self.pipeline.bury, self._find, self.claims)
        intake = Intake(source, self.pipeline.admit, around)
        intake.consumer = Consumer()  # type: ignore[assignment]
        intake.assigned([Assignment(PartitionKey(TOPICS[source], 0), 0)])
        return intake

    async def _find(self, keys: Sequence[AttemptKey]) -> dict[AttemptKey, str]:
        return {key: self.states[key] for key in keys if key in self.states}

    def hook(self, webhook_id: str = "wh_1") -> Webhook:
        sealed = self.box.seal(generate_secret(bytes(32)), webhook_id)
        return Webhook(webhook_id, "acme", "https://a.example/", frozenset({"click"}), True, False, sealed, None, 0)  # noqa: FBT003

    def change(self, **changes: Any) -> None:
        """The live copy tells that the webhook is like this now."""
        self.webhooks.apply(self.hook()._replace(**changes))

    def read(self, delivery: Delivery = DELIVERY, source: Source = "main") -> None:
        self.read_bytes(encode_delivery(delivery), source)

    def read_bytes(self, value: bytes, source: Source = "main") -> None:
        self.intakes[source].receive([Message(TOPICS[source], self.offsets[source], value)])  # type: ignore[list-item]
        self.offsets[source] += 1

    def produce(
        self, topic: str, key: str, value: bytes, on_kept: Callable[[], None], headers: Sequence[tuple[str, bytes]] = ()
    ) -> None:
        self.written.append(Written(topic, key, value, on_kept, headers))

    def kept(self) -> tuple[str, Delivery]:
        """What was written first and not acknowledged: where, and what. It is acknowledged now."""
        written = self.written.pop(0)
        delivery = decode_delivery(written.value)
        assert written.key == delivery.webhook_id
        written.acknowledge()
        return written.topic, delivery

    def recorded(self) -> AttemptRecord:
        """What is to be recorded first. It is recorded now."""
        record = self.recorder._records.pop(0)
        self.recorder._callbacks.pop(0)()
        return record

    def finished(self, source: Source = "main") -> int:
        """Up to which offset all is done."""
        return self.intakes[source]._partitions[PartitionKey(TOPICS[source], 0)].tracker.resume_at or 0

    def is_at_rest(self) -> bool:
        return not self.written and not self.recorder._records and not self.receivers.asked and not self.held

    async def open_circuit(self) -> None:
        for n in range(LIMITS.circuit_failures):
            self.read(DELIVERY._replace(id=f"dlv_failed_{n}"))
            self.receivers.answer(500)
            self.kept()
            self.recorded()
        assert self.lanes.is_blocked("wh_1")


@pytest.fixture
async def scene() -> Scene:
    return Scene()


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_success_is_recorded_and_only_then_done_with(scene):
    scene.read()
    scene.receivers.answer(204)
    assert scene.finished() == 0
    record = scene.recorded()
    assert (record.attempt, record.state, record.status_code, record.duration_ms) == (1, "delivered", 204, 10.0)
    assert scene.finished() == 1
    assert scene.is_at_rest()
    scene.read()  # a second message for the attempt
    assert scene.finished() == 2
    assert scene.is_at_rest()


async def test_a_retry_is_kept_before_the_failure_is_recorded(scene):
    """A record of it promises that the chain goes on: a crash before must leave it to be made again."""
    began_ms = time.time() * 1000
    scene.read()
    scene.receivers.answer(503, retry_after="20")
    assert len(scene.recorder) == 0
    topic, following = scene.kept()
    assert topic == retry_topic(30.0)
    assert following == DELIVERY._replace(attempt=2, due_ms=following.due_ms)
    assert began_ms + 30_000 - 1 <= following.due_ms <= time.time() * 1000 + 30_000
    assert scene.finished() == 0
    record = scene.recorded()
    assert (record.attempt, record.state, record.next_attempt_ms) == (1, "retrying", following.due_ms)
    assert scene.finished() == 1
    assert scene.is_at_rest()


async def test_the_last_failure_is_kept_as_a_dead_letter_before_it_is_recorded(scene):
    last = DELIVERY._replace(attempt=6)
    scene.read(last)
    scene.receivers.answer(500)
    assert len(scene.recorder) == 0
    assert scene.written[0].headers == [
        ("go2hooks-reason", b"bad_status"), ("go2hooks-detail", b"The receiver answered 500 Internal Server Error."),
    ]  # fmt: skip
    assert scene.kept() == (DELIVERIES_DEAD, last)
    assert scene.finished() == 0
    record = scene.recorded()
    assert (record.attempt, record.state, record.next_attempt_ms) == (6, "failed", None)
    assert scene.finished() == 1
    assert scene.is_at_rest()


async def test_a_message_that_cannot_be_decoded_is_kept_with_where_it_came_from(scene):
    scene.read_bytes(b"no delivery")
    (buried,) = scene.written
    assert (buried.topic, buried.key, buried.value) == (DELIVERIES_DEAD, "wh_1", b"no delivery")
    assert dict(buried.headers) == {"go2hooks-reason": b"undecodable", "go2hooks-position": b"go2.deliveries/0/0"}
    assert scene.finished() == 0
    buried.acknowledge()
    assert scene.finished() == 1
    assert scene.intakes["main"].consumer.released == 1


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("changes", [{}, {"is_active": False}, {"events": frozenset({"link.created"})}], ids=str)
async def test_a_test_event_is_sent_at_once_whatever_state_its_webhook_is_in_and_never_again(scene, changes, status):
    await scene.open_circuit()
    scene.change(**changes)
    scene.read(DELIVERY._replace(kind=Kind.TEST))
    scene.receivers.answer(status)
    assert scene.recorded().state == ("delivered" if status == 200 else "failed")
    assert scene.finished() == LIMITS.circuit_failures + 1
    assert scene.is_at_rest()
    assert scene.lanes.in_flight == 0


WITHOUT = [
    ({"is_active": False}, "webhook_disabled"),
    ({"is_deleted": True}, "webhook_deleted"),
    ({"account_id": "other"}, "webhook_deleted"),
    ({"events": frozenset({"link.created"})}, "webhook_unsubscribed"),
]


@pytest.mark.parametrize(("changes", "code"), WITHOUT)
async def test_what_is_not_wanted_is_recorded_as_skipped_and_not_sent(scene, changes, code):
    scene.change(**changes)
    scene.read()
    record = scene.recorded()
    assert (record.attempt, record.state, record.error_code) == (1, "skipped", code)
    assert scene.finished() == 1
    assert scene.is_at_rest()


@pytest.mark.parametrize(("changes", "code"), WITHOUT)
async def test_what_is_not_wanted_any_more_when_its_turn_comes_is_skipped_and_leaves_its_place(scene, changes, code):
    scene.read()
    scene.read(DELIVERY._replace(id="dlv_waits"))
    scene.change(**changes)
    scene.receivers.answer(200)
    assert scene.recorded().state == "delivered"
    await turn()
    record = scene.recorded()
    assert (record.delivery_id, record.state, record.error_code) == ("dlv_waits", "skipped", code)
    assert scene.finished() == 2
    assert scene.is_at_rest()
    assert scene.lanes.in_flight == 0


@pytest.mark.parametrize("is_known_to_postgres", [True, False])
async def test_a_webhook_that_is_not_known_yet_is_looked_up_before_its_delivery_is_judged(scene, is_known_to_postgres):
    scene.postgres.found = scene.hook("wh_new") if is_known_to_postgres else None
    scene.read(DELIVERY._replace(webhook_id="wh_new"))
    assert scene.is_at_rest()
    await turn()
    if is_known_to_postgres:
        scene.receivers.answer(200)
    record = scene.recorded()
    expected = ("delivered", None) if is_known_to_postgres else ("skipped", "webhook_deleted")
    assert (record.state, record.error_code) == expected
    assert scene.finished() == 1


async def test_what_is_looked_up_when_its_partition_is_lost_is_left_to_the_next_owner(scene):
    scene.postgres.found = scene.hook("wh_new")
    scene.read(DELIVERY._replace(webhook_id="wh_new"))
    scene.intakes["main"].lost([PartitionKey(DELIVERIES, 0)])
    await turn()
    assert scene.is_at_rest()
    assert scene.intakes["main"].consumer.released == 1
    assert scene.claims.claim(DELIVERY.id, 1, None)


def asked(scene: Scene) -> list[str]:
    """Ids of the deliveries that wait for their answer."""
    return [dict(request.headers)["X-Webhook-Delivery"] for request, _ in scene.receivers.asked]


async def test_what_waits_starts_when_there_is_a_place_and_not_before(scene):
    for n in range(3):
        scene.read(DELIVERY._replace(id=f"dlv_{n}"))
    for n in range(3):
        await turn()
        assert asked(scene) == [f"dlv_{n}"]
        scene.receivers.answer(200)


async def test_a_receiver_that_answers_quickly_gets_more_at_a_time():
    scene = Scene(replace(LIMITS, webhook_max_sends=2))
    for n in range(3):
        scene.read(DELIVERY._replace(id=f"dlv_{n}"))
    assert asked(scene) == ["dlv_0"]
    scene.receivers.answer(200)  # after 10 ms
    await turn()
    assert asked(scene) == ["dlv_1", "dlv_2"]


async def test_what_waits_only_because_others_have_just_begun_starts_though_none_of_these_ends():
    scene = Scene(replace(LIMITS, young_sends=1))
    others = ["wh_2", "wh_3"]
    for webhook_id in others:
        scene.webhooks.apply(scene.hook(webhook_id))
    scene.read()
    for webhook_id in others:
        scene.read(DELIVERY._replace(id=f"dlv_to_{webhook_id}", webhook_id=webhook_id))
    await turn()
    assert asked(scene) == ["dlv_1"]
    async with asyncio.timeout(5):
        while len(scene.receivers.asked) < 3:  # noqa: ASYNC110  # bounded, and what it waits for has no event
            await asyncio.sleep(0.005)
    assert asked(scene) == ["dlv_1", "dlv_to_wh_2", "dlv_to_wh_3"]


@pytest.mark.parametrize("is_recorded", [True, False])
async def test_what_may_have_been_made_elsewhere_while_it_waited_is_asked_about_before_it_is_sent(scene, is_recorded):
    doubtful = DELIVERY._replace(id="dlv_waits", suspect=True)
    scene.read()
    scene.read(doubtful)
    await turn()
    scene.claims.holder("dlv_waits", 1).looked_up_at = 0.001  # long ago
    if is_recorded:
        scene.states[AttemptKey("wh_1", 0, "dlv_waits", 1)] = "delivered"
    scene.read(DELIVERY._replace(id="dlv_behind"))
    scene.receivers.answer(200)
    await turn()
    assert asked(scene) == ["dlv_behind" if is_recorded else "dlv_waits"]
    scene.receivers.answer(200)
    await turn()
    assert scene.lanes.in_flight == len(scene.receivers.asked) == (0 if is_recorded else 1)


async def test_what_waits_when_its_partition_is_lost_is_neither_sent_nor_recorded(scene):
    scene.read()
    scene.read(DELIVERY._replace(id="dlv_waits"))
    scene.intakes["main"].lost([PartitionKey(DELIVERIES, 0)])
    scene.receivers.answer(200)
    await turn()
    assert scene.recorded().delivery_id == "dlv_1"
    assert scene.is_at_rest()
    assert scene.claims.claim("dlv_waits", 1, None)


async def test_what_is_asked_about_when_its_partition_is_lost_is_not_sent_and_leaves_its_place(scene):
    scene.read()
    scene.read(DELIVERY._replace(id="dlv_waits", suspect=True))
    await turn()
    scene.claims.holder("dlv_waits", 1).looked_up_at = 0.001  # long ago
    scene.receivers.answer(200)
    await asyncio.sleep(0)  # it has been given out to be started, and is asked about
    scene.intakes["main"].lost([PartitionKey(DELIVERIES, 0)])
    await turn()
    assert asked(scene) == []
    assert scene.lanes.in_flight == 0
    assert scene.claims.claim("dlv_waits", 1, None)


async def fill_lane(scene: Scene) -> int:
    """One is under way, and as many wait as may. Returns how many there are."""
    for n in range(2 * LIMITS.window):
        scene.read(DELIVERY._replace(id=f"dlv_{n}"))
        if scene.written:
            break
    scene.kept()
    return scene.offsets["main"]


async def test_what_finds_its_lane_full_comes_round_again_as_it_is_and_is_done_with_here_once_kafka_has_it(scene):
    there = await fill_lane(scene)
    late = DELIVERY._replace(id="dlv_late", attempt=2, due_ms=1000)
    scene.read(late)
    (written,) = scene.written
    assert scene.intakes["main"]._partitions[PartitionKey(DELIVERIES, 0)].held == there
    assert scene.claims.claim("dlv_late", 2, None)  # it may be back before its acknowledgement is
    written.acknowledge()
    assert (written.topic, decode_delivery(written.value)) == (DELIVERIES_OVERFLOW, late)
    assert scene.intakes["main"]._partitions[PartitionKey(DELIVERIES, 0)].held == there - 1
    assert len(scene.recorder) == 0


async def test_what_comes_round_and_finds_its_lane_full_still_is_held(scene):
    await fill_lane(scene)
    scene.read(DELIVERY._replace(id="dlv_late"), "overflow")
    (held,) = scene.held
    assert (held.delivery.id, scene.written) == ("dlv_late", [])
    assert scene.pipeline.room(held) == 0
    scene.pipeline.send_round(held)
    assert scene.kept() == (DELIVERIES_OVERFLOW, held.delivery)
    assert scene.finished("overflow") == 1


async def test_there_is_room_for_whatever_will_not_be_sent(scene):
    """Held back, it would wait for a lane that it does not need."""
    await fill_lane(scene)
    scene.read(DELIVERY._replace(id="dlv_late"), "overflow")
    for changes, _code in WITHOUT:
        scene.change(**changes)
        assert scene.pipeline.room(scene.held[0]) == float("inf")


async def test_what_waits_behind_a_circuit_that_opens_comes_round_again_and_is_shown_as_pending(scene):
    """It may be minutes until it is tried: the history would know nothing of it until then."""
    first = DELIVERY._replace(id="dlv_first")
    scene.read()
    scene.receivers.answer(500)
    scene.kept()
    scene.recorded()
    scene.read(DELIVERY._replace(id="dlv_2"))
    scene.read(first)
    scene.receivers.answer(500)
    assert [scene.kept()[0] for _ in range(2)] == [DELIVERIES_OVERFLOW, retry_topic(5.0)]
    pending, failed = scene.recorded(), scene.recorded()
    assert (pending.delivery_id, pending.attempt, pending.state) == ("dlv_first", 0, "pending")
    assert (failed.delivery_id, failed.attempt, failed.state) == ("dlv_2", 1, "retrying")
    assert scene.finished() == 3
    assert scene.is_at_rest()


async def test_what_comes_while_the_circuit_is_open_comes_round_again_once_it_is_recorded_as_pending(scene):
    await scene.open_circuit()
    before = scene.finished()
    scene.read()
    assert scene.kept() == (DELIVERIES_OVERFLOW, DELIVERY)
    assert scene.finished() == before
    pending = scene.recorded()
    assert (pending.attempt, pending.state, pending.counts) == (0, "pending", False)
    assert scene.finished() == before + 1
    assert scene.is_at_rest()
    assert scene.claims.claim(DELIVERY.id, 1, None)


async def test_what_is_sent_back_while_the_circuit_is_open_is_not_shown_as_pending(scene):
    """It has been tried before: its history says how that ended."""
    await scene.open_circuit()
    again = DELIVERY._replace(kind=Kind.REPLAY, attempt=7)
    scene.read(again)
    assert scene.kept() == (DELIVERIES_OVERFLOW, again)
    assert len(scene.recorder) == 0


@pytest.mark.parametrize(("probe_s", "delay_s"), [(1.0, 5.0), (20.0, 30.0)])
async def test_a_retry_whose_circuit_is_open_waits_in_the_tier_that_fits_the_next_probe(probe_s, delay_s):
    scene = Scene(replace(LIMITS, probe_s=probe_s))
    await scene.open_circuit()
    began_ms = time.time() * 1000
    second = DELIVERY._replace(attempt=2, due_ms=1000)
    scene.read(second, "retry")
    topic, parked = scene.kept()
    assert topic == retry_topic(delay_s)
    assert parked == second._replace(due_ms=parked.due_ms)
    assert began_ms + delay_s * 1000 - 1 <= parked.due_ms <= time.time() * 1000 + delay_s * 1000
    assert scene.finished("retry") == 1
    assert scene.is_at_rest()


async def test_what_has_come_round_waits_for_the_next_probe_while_its_circuit_is_open(scene):
    await scene.open_circuit()
    scene.read(source="overflow")
    (held,) = scene.held
    assert scene.pipeline.room(held) == 0
    scene.pipeline.send_round(held)
    assert scene.kept()[0] == retry_topic(30.0)
    assert scene.finished("overflow") == 1
    assert len(scene.recorder) == 0  # it is shown as pending already


async def test_what_is_due_is_turned_away_only_while_its_circuit_would_not_let_it_through(scene):
    await fill_lane(scene)
    scene.read(DELIVERY._replace(id="dlv_due"), "overflow")
    (due,) = scene.held
    assert not scene.pipeline.park_if_blocked(due)  # there is no room, but no circuit either
    while not scene.lanes.is_blocked("wh_1"):
        scene.receivers.answer(500)
        await turn()
    scene.written.clear()
    scene.lanes._lanes["wh_1"].probe_at = 0.0
    assert not scene.pipeline.park_if_blocked(due)  # it would be the probe
    scene.lanes._lanes["wh_1"].probe_at = float("inf")
    assert scene.pipeline.park_if_blocked(due)
    topic, parked = scene.kept()
    assert (topic, parked.id, parked.attempt) == (retry_topic(3600.0), "dlv_due", 1)


async def test_what_cannot_be_signed_is_a_failed_attempt_that_gives_its_place_back(scene):
    scene.change(sealed_secret=b"of another key")
    scene.read()
    scene.kept()
    record = scene.recorded()
    assert (record.state, record.error_code) == ("retrying", Failure.SECRET_UNAVAILABLE)
    assert (scene.finished(), scene.lanes.in_flight) == (1, 0)
    assert scene.is_at_rest()


async def test_a_webhook_that_is_deleted_between_two_looks_at_it_fails_an_attempt_whose_retry_finds_it_so(scene):
    """The live copy's thread may delete it at any moment."""
    await fill_lane(scene)
    scene.read(DELIVERY._replace(id="dlv_late"), "overflow")
    scene.change(is_deleted=True)
    scene.pipeline._begin(scene.held.pop(), in_lane=False)
    topic, following = scene.kept()
    assert (topic, following.attempt) == (retry_topic(5.0), 2)
    assert scene.recorded().state == "retrying"
    scene.read(following, "retry")
    assert scene.recorded().error_code == "webhook_deleted"


def counted() -> Counter[tuple[str, str]]:
    """What the metrics say so far: counts by metric and label, and seconds observed by metric."""
    names = ("ATTEMPTS", "DELIVERIES_FINISHED", "RETRIES", "OVERFLOWED")
    counts = Counter({(name, label): n for name in names for label, n in getattr(metrics, name)._values.items()})
    for name in ("REQUEST_SECONDS", "DELIVERY_SECONDS", "DEFERRED_SECONDS", "RETRY_LATENESS_SECONDS"):
        counts[name, "observed"] = sum(getattr(metrics, name)._counts)
    return counts


async def test_whatever_comes_of_a_delivery_is_counted_once(scene):
    before = counted()
    there = await fill_lane(scene)
    scene.receivers.answer(200)
    await turn()
    scene.receivers.answer(500)
    await turn()
    scene.receivers.answer(204)
    scene.change(is_active=False)
    scene.read(DELIVERY._replace(id="dlv_unwanted"))
    scene.change()
    for n, attempt in enumerate((6, 6, 2)):
        scene.read(DELIVERY._replace(id=f"dlv_late_{n}", attempt=attempt, due_ms=1), "retry")
        if attempt == 6:
            scene.receivers.answer(404)
    scene.read(DELIVERY._replace(id="dlv_aside"))
    scene.lanes.reset("wh_1")
    scene.read(DELIVERY._replace(id="dlv_round"), "overflow")
    scene.receivers.answer(200)
    assert there == 4
    assert counted() - before == {
        ("OVERFLOWED", "busy"): 1,
        ("ATTEMPTS", "delivered"): 3,
        ("ATTEMPTS", "bad_status"): 3,
        ("RETRIES", "5s"): 1,
        ("DELIVERIES_FINISHED", "delivered"): 3,
        ("DELIVERIES_FINISHED", "failed"): 2,
        ("DELIVERIES_FINISHED", "skipped"): 1,
        ("OVERFLOWED", "parked"): 1,
        ("OVERFLOWED", "circuit"): 1,
        ("REQUEST_SECONDS", "observed"): 6,
        ("DELIVERY_SECONDS", "observed"): 2,
        ("DEFERRED_SECONDS", "observed"): 1,
        ("RETRY_LATENESS_SECONDS", "observed"): 2,
    }
