"""The pipeline and its lanes: what is not sent now comes round again, whole, by the place that is meant for it."""

import asyncio
import time
from dataclasses import replace

import pytest
from messages import DELIVERY
from scene import LIMITS, WITHOUT, Scene, fill_lane
from waiting import turn, until

from go2hooks.codec import decode_delivery
from go2hooks.core.domain.delivery import Kind
from go2hooks.core.domain.webhook import WebhookOptions
from go2hooks.kafka.partitions import PartitionKey
from go2hooks.kafka.topics import TopicNames
from go2hooks.postgres.attempts import AttemptKey

NAMES = TopicNames("go2")


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
    await until(lambda: len(scene.receivers.asked) >= 3, 5)
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
    assert scene.lanes.sends.in_flight == len(scene.receivers.asked) == (0 if is_recorded else 1)


async def test_what_waits_when_its_partition_is_lost_is_neither_sent_nor_recorded(scene):
    scene.read()
    scene.read(DELIVERY._replace(id="dlv_waits"))
    scene.intakes["main"].on_lost([PartitionKey(NAMES.deliveries, 0)])
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
    scene.intakes["main"].on_lost([PartitionKey(NAMES.deliveries, 0)])
    await turn()
    assert asked(scene) == []
    assert scene.lanes.sends.in_flight == 0
    assert scene.claims.claim("dlv_waits", 1, None)


async def test_what_finds_its_lane_full_comes_round_again_as_it_is_and_is_done_with_here_once_kafka_has_it(scene):
    there = await fill_lane(scene)
    late = DELIVERY._replace(id="dlv_late", attempt=2, due_ms=1000)
    scene.read(late)
    (written,) = scene.written
    assert scene.intakes["main"]._partitions[PartitionKey(NAMES.deliveries, 0)].held == there
    assert scene.claims.claim("dlv_late", 2, None)  # it may be back before its acknowledgement is
    written.acknowledge()
    assert (written.topic, decode_delivery(written.value)) == (NAMES.overflow, late)
    assert scene.intakes["main"]._partitions[PartitionKey(NAMES.deliveries, 0)].held == there - 1
    assert len(scene.recorder) == 0


async def test_what_comes_round_and_finds_its_lane_full_still_is_held(scene):
    await fill_lane(scene)
    scene.read(DELIVERY._replace(id="dlv_late"), "overflow")
    (held,) = scene.held
    assert (held.delivery.id, scene.written) == ("dlv_late", [])
    assert scene.pipeline.room(held) == 0
    scene.pipeline.deferral.requeue(held)
    assert scene.kept() == (NAMES.overflow, held.delivery)
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
    assert [scene.kept()[0] for _ in range(2)] == [NAMES.overflow, NAMES.retry(5.0)]
    pending, failed = scene.recorded(), scene.recorded()
    assert (pending.delivery_id, pending.attempt, pending.state) == ("dlv_first", 0, "pending")
    assert (failed.delivery_id, failed.attempt, failed.state) == ("dlv_2", 1, "retrying")
    assert scene.finished() == 3
    assert scene.is_at_rest()


async def test_what_comes_while_the_circuit_is_open_comes_round_again_once_it_is_recorded_as_pending(scene):
    await scene.open_circuit()
    before = scene.finished()
    scene.read()
    assert scene.kept() == (NAMES.overflow, DELIVERY)
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
    assert scene.kept() == (NAMES.overflow, again)
    assert len(scene.recorder) == 0


@pytest.mark.parametrize(("probe_s", "delay_s"), [(1.0, 5.0), (20.0, 30.0)])
async def test_a_retry_whose_circuit_is_open_waits_in_the_tier_that_fits_the_next_probe(probe_s, delay_s):
    scene = Scene(replace(LIMITS, circuit=replace(LIMITS.circuit, probe_s=probe_s)))
    await scene.open_circuit()
    began_ms = time.time() * 1000
    second = DELIVERY._replace(attempt=2, due_ms=1000)
    scene.read(second, "retry")
    topic, parked = scene.kept()
    assert topic == NAMES.retry(delay_s)
    assert parked == second._replace(due_ms=parked.due_ms)
    assert began_ms + delay_s * 1000 - 1 <= parked.due_ms <= time.time() * 1000 + delay_s * 1000
    assert scene.finished("retry") == 1
    assert scene.is_at_rest()


async def test_what_has_come_round_waits_for_the_next_probe_while_its_circuit_is_open(scene):
    await scene.open_circuit()
    scene.read(source="overflow")
    (held,) = scene.held
    assert scene.pipeline.room(held) == 0
    scene.pipeline.deferral.requeue(held)
    assert scene.kept()[0] == NAMES.retry(30.0)
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
    scene.lanes._lanes["wh_1"].circuit.probe_at = 0.0
    assert not scene.pipeline.park_if_blocked(due)  # it would be the probe
    scene.lanes._lanes["wh_1"].circuit.probe_at = float("inf")
    assert scene.pipeline.park_if_blocked(due)
    topic, parked = scene.kept()
    assert (topic, parked.id, parked.attempt) == (NAMES.retry(3600.0), "dlv_due", 1)


# --- what a webhook's customer allows


async def test_requests_beyond_the_rate_wait_and_are_first_attempts_all():
    scene = Scene(replace(LIMITS, window=1000))
    scene.change(options=WebhookOptions(rate_limit=20.0))
    began: list[float] = []
    for n in range(5):
        scene.read(DELIVERY._replace(id=f"dlv_{n}"))
    for n in range(5):
        await until(lambda: scene.receivers.asked, 5)
        began.append(time.monotonic())
        assert asked(scene) == [f"dlv_{n}"]
        scene.receivers.answer(200)
        assert scene.recorded().attempt == 1
    assert began[-1] - began[0] >= 4 / 20 - 0.06
    assert scene.is_at_rest()


async def test_what_finds_no_room_is_parked_until_its_turn_and_shown_as_pending():
    scene = Scene(replace(LIMITS, window=1000))
    scene.change(options=WebhookOptions(rate_limit=0.5))
    for n in range(5):
        scene.read(DELIVERY._replace(id=f"dlv_{n}"))  # one is under way, three wait
    (written,) = scene.written
    topic, parked = scene.kept()
    assert (topic, parked.id, parked.attempt) == (NAMES.retry(30.0), "dlv_4", 1)
    assert parked.due_ms / 1000 == pytest.approx(time.time() + 10, abs=1)
    assert written.key == "wh_1"
    record = scene.recorded()
    assert (record.delivery_id, record.state, record.attempt) == ("dlv_4", "pending", 0)


@pytest.mark.parametrize("source", ["retry", "overflow"])
@pytest.mark.parametrize("options", [WebhookOptions(rate_limit=5.0), WebhookOptions(max_concurrency=1)])
async def test_a_limited_webhook_gets_all_from_whoever_has_its_partition_of_the_main_topic(scene, source, options):
    scene.change(options=options)
    due = DELIVERY._replace(attempt=2, due_ms=1000)
    scene.read(due, source)
    assert scene.receivers.asked == []
    assert scene.kept() == (NAMES.deliveries, due._replace(suspect=True))
    assert scene.finished(source) == 1
    scene.read(due._replace(suspect=True))
    await until(lambda: scene.receivers.asked)
    scene.receivers.answer(200)
    assert (scene.recorded().attempt, scene.is_at_rest()) == (2, True)


async def test_a_limited_webhook_whose_circuit_is_open_is_not_moved_in_circles(scene):
    scene.change(options=WebhookOptions(max_concurrency=1))
    await scene.open_circuit()
    scene.read(DELIVERY._replace(id="dlv_late"))
    topic, parked = scene.kept()
    assert (topic, parked.id) == (NAMES.retry(30.0), "dlv_late")  # until the next probe


async def test_one_at_a_time_is_one_at_a_time_with_test_events_too(scene):
    scene.change(options=WebhookOptions(max_concurrency=1))
    for n in range(2):
        scene.read(DELIVERY._replace(id=f"dlv_{n}"))
    scene.read(DELIVERY._replace(id="dlv_test", kind=Kind.TEST))
    for expected in ("dlv_0", "dlv_test", "dlv_1"):
        await turn()
        assert asked(scene) == [expected]
        scene.receivers.answer(200)
    await turn()
    assert scene.receivers.asked == []


async def test_a_limit_that_is_lifted_lets_what_waits_go_at_once(scene):
    scene.change(options=WebhookOptions(rate_limit=0.1))
    for n in range(2):
        scene.read(DELIVERY._replace(id=f"dlv_{n}"))
    scene.receivers.answer(200)
    await turn()
    assert asked(scene) == []
    scene.change()
    scene.pipeline.change_allowance("wh_1")
    await turn()
    assert asked(scene) == ["dlv_1"]
