"""What Kafka refuses for what it is, it refuses the next time, too: whatever was to be kept, it ends, and is recorded."""

import asyncio

import pytest
from messages import DELIVERY
from scene import LIMITS, TOPICS, fill_lane

from go2hooks.core.domain.outcome import Failure, NoAnswer
from go2hooks.kafka.partitions import PartitionKey
from go2hooks.kafka.topics import TopicNames
from go2hooks.telemetry import metrics

NAMES = TopicNames("go2")


@pytest.mark.parametrize("dead_letter_is_kept", [True, False])
async def test_an_attempt_whose_retry_is_refused_is_recorded_as_the_last(scene, dead_letter_is_kept):
    refused = metrics.REFUSED.value(NAMES.retry(5.0))
    scene.read()
    scene.receivers.answer(500)
    assert scene.refused() == NAMES.retry(5.0)
    assert metrics.REFUSED.value(NAMES.retry(5.0)) == refused + 1
    assert len(scene.recorder) == 0
    assert dict(scene.written[0].headers)["go2hooks-reason"] == b"retry_not_kept"
    if dead_letter_is_kept:
        assert scene.kept() == (NAMES.deliveries_dead, DELIVERY)
    else:
        assert scene.refused() == NAMES.deliveries_dead
    record = scene.recorded()
    assert (record.attempt, record.state, record.status_code, record.error_code) == (1, "failed", 500, "retry_not_kept")
    assert record.next_attempt_ms is None
    assert record.error_message == (
        "The receiver answered 500 Internal Server Error. There is no further attempt: it could not be kept (too large)."
    )
    assert record.counts
    assert scene.finished() == 1
    assert scene.is_at_rest()


async def test_a_failure_of_ours_whose_retry_is_refused_disables_nobody(scene):
    scene.read()
    _request, on_response = scene.receivers.asked.pop()
    on_response(NoAnswer(Failure.PROXY_ERROR, "The egress proxy is away.", 1.0))
    scene.refused()
    scene.kept()
    record = scene.recorded()
    assert (record.state, record.error_code, record.counts) == ("failed", "proxy_error", False)


async def test_a_last_failure_whose_dead_letter_is_refused_is_recorded_all_the_same(scene):
    scene.read(DELIVERY._replace(attempt=6))
    scene.receivers.answer(500)
    assert scene.refused() == NAMES.deliveries_dead
    record = scene.recorded()
    assert (record.attempt, record.state, record.error_code) == (6, "failed", "bad_status")
    assert scene.finished() == 1
    assert scene.is_at_rest()


async def test_of_an_undecodable_message_that_is_refused_its_place_is_kept(scene):
    scene.read(raw=b"no delivery")
    assert scene.refused() == NAMES.deliveries_dead
    assert scene.finished() == 0
    (place,) = scene.written
    assert (place.topic, place.value) == (NAMES.deliveries_dead, b"")
    assert dict(place.headers)["go2hooks-position"] == b"go2.deliveries/0/0"
    scene.refused()  # even that: nothing more can be done
    assert scene.finished() == 1
    assert scene.intakes["main"].consumer.released == 1


async def test_what_finds_no_room_and_is_refused_by_the_overflow_is_sent_at_once(scene):
    for n in range(2 * LIMITS.window):
        scene.read(DELIVERY._replace(id=f"dlv_{n}"))
        if scene.written:
            break
    under_way = len(scene.receivers.asked)
    assert scene.refused() == NAMES.overflow
    assert len(scene.receivers.asked) == under_way + 1
    scene.receivers.asked.pop(0)  # the one that has its place in the lane goes on hanging
    scene.receivers.answer(200)
    assert scene.recorded().delivery_id == f"dlv_{n}"


@pytest.mark.parametrize("status", [200, 500])
async def test_what_waits_for_a_probe_and_is_refused_by_every_tier_is_attempted_once(scene, status):
    await scene.open_circuit()
    scene.read(DELIVERY._replace(id="dlv_parked"), "retry")
    assert scene.refused() == NAMES.retry(30.0)
    scene.receivers.answer(status)
    if status == 500:
        scene.refused()
        scene.kept()
    record = scene.recorded()
    assert (record.delivery_id, record.state) == ("dlv_parked", "delivered" if status == 200 else "failed")
    assert scene.finished("retry") == 1
    assert scene.is_at_rest()


async def test_what_cannot_be_handed_on_is_left_to_the_partitions_next_owner(scene):
    """It is neither tried again and again while the partition leaves, nor passed over."""
    key = PartitionKey(TOPICS["main"], 0)
    intake = scene.intakes["main"]
    scene.read()
    scene.read(DELIVERY._replace(id="dlv_waits"))
    leaving = asyncio.create_task(intake.on_revoked([key]))
    await asyncio.sleep(0)
    assert scene.refused() == NAMES.overflow
    assert not scene.written
    scene.receivers.answer(200)
    scene.recorded()
    assert await leaving == {key: 1}


async def test_a_second_message_that_came_while_the_first_was_moved_takes_its_place(scene):
    await fill_lane(scene)
    scene.read(DELIVERY._replace(id="dlv_moved"))
    scene.read(DELIVERY._replace(id="dlv_moved"))  # claimed anew: the first is on its way
    first, second = scene.written
    assert first.topic == second.topic == NAMES.overflow
    first.refuse("too large")
    second.refuse("too large")
    sent = [request for request, _ in scene.receivers.asked if ("X-Webhook-Delivery", "dlv_moved") in request.headers]
    assert len(sent) == 1
