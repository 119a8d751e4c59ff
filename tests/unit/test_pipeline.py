"""The pipeline with all that is pure around it: the order of things.

A retry is kept before its attempt is recorded, a record is written before an offset goes.
"""

import time
from collections import Counter

import pytest
from messages import DELIVERY
from scene import LIMITS, WITHOUT, fill_lane
from waiting import turn

from go2hooks.core.domain.delivery import Kind
from go2hooks.core.domain.outcome import Failure
from go2hooks.core.domain.webhook import WebhookOptions
from go2hooks.kafka.partitions import PartitionKey
from go2hooks.kafka.topics import TopicNames
from go2hooks.postgres.secrets import Purpose, SecretBox
from go2hooks.telemetry import metrics

NAMES = TopicNames("go2")


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
    assert topic == NAMES.retry(30.0)
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
    assert scene.kept() == (NAMES.deliveries_dead, last)
    assert scene.finished() == 0
    record = scene.recorded()
    assert (record.attempt, record.state, record.next_attempt_ms) == (6, "failed", None)
    assert scene.finished() == 1
    assert scene.is_at_rest()


async def test_a_message_that_cannot_be_decoded_is_kept_with_where_it_came_from(scene):
    scene.read(raw=b"no delivery")
    (buried,) = scene.written
    assert (buried.topic, buried.key, buried.value) == (NAMES.deliveries_dead, "wh_1", b"no delivery")
    assert dict(buried.headers) == {"go2hooks-reason": b"undecodable", "go2hooks-position": b"go2.deliveries/0/0"}
    assert scene.finished() == 0
    buried.acknowledge()
    assert scene.finished() == 1
    assert scene.intakes["main"].consumer.released == 1


@pytest.mark.parametrize(("kind", "attempt"), [(Kind.TEST, 1), (Kind.REDELIVER, 7)])
@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("changes", [{}, {"is_active": False}, {"events": frozenset({"link.created"})}], ids=str)
async def test_what_was_asked_for_is_sent_at_once_whatever_state_its_webhook_is_in_and_never_again(
    scene, changes, status, kind, attempt
):
    await scene.open_circuit()
    scene.change(**changes)
    scene.read(DELIVERY._replace(kind=kind, attempt=attempt))
    scene.receivers.answer(status)
    record = scene.recorded()
    assert (record.state, record.attempt) == ("delivered" if status == 200 else "failed", attempt)
    assert not record.counts
    assert scene.finished() == LIMITS.circuit.failures + 1
    assert scene.is_at_rest()
    assert scene.lanes.sends.in_flight == 0


async def test_a_webhooks_own_headers_go_out_with_every_attempt_as_they_are_by_then(scene):
    sealed = scene.box.seal('{"Authorization": "Bearer x"}', "wh_1", Purpose.HEADERS)
    scene.change(options=WebhookOptions((("X-Tenant", "acme"), ("Authorization", None)), sealed))
    scene.read()
    assert scene.receivers.asked[0][0].headers[-2:] == (("X-Tenant", "acme"), ("Authorization", "Bearer x"))
    scene.receivers.answer(500)
    scene.kept()
    scene.recorded()
    scene.change(options=WebhookOptions((("X-Tenant", "other"),)))
    scene.read(DELIVERY._replace(attempt=2), "retry")
    await turn()
    (request, _) = scene.receivers.asked[0]
    assert request.headers[-1] == ("X-Tenant", "other")
    assert "Authorization" not in dict(request.headers)


async def test_headers_that_no_key_opens_are_an_attempt_without_an_answer_and_not_one_without_them(scene):
    sealed = SecretBox((bytes(32),)).seal("{}", "wh_1", Purpose.HEADERS)
    scene.change(options=WebhookOptions((("Authorization", None),), sealed))
    scene.read()
    scene.kept()
    assert (scene.recorded().error_code, scene.receivers.asked) == ("secret_unavailable", [])


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
    assert scene.lanes.sends.in_flight == 0


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
    scene.intakes["main"].on_lost([PartitionKey(NAMES.deliveries, 0)])
    await turn()
    assert scene.is_at_rest()
    assert scene.intakes["main"].consumer.released == 1
    assert scene.claims.claim(DELIVERY.id, 1, None)


async def test_what_cannot_be_signed_is_a_failed_attempt_that_gives_its_place_back(scene):
    scene.change(sealed_secret=b"of another key")
    scene.read()
    scene.kept()
    record = scene.recorded()
    assert (record.state, record.error_code) == ("retrying", Failure.SECRET_UNAVAILABLE)
    assert (scene.finished(), scene.lanes.sends.in_flight) == (1, 0)
    assert scene.is_at_rest()


async def test_a_webhook_that_is_deleted_between_two_looks_at_it_fails_an_attempt_whose_retry_finds_it_so(scene):
    """The replica's thread may delete it at any moment."""
    await fill_lane(scene)
    scene.read(DELIVERY._replace(id="dlv_late"), "overflow")
    scene.change(is_deleted=True)
    scene.pipeline._begin(scene.held.pop(), in_lane=False)
    topic, following = scene.kept()
    assert (topic, following.attempt) == (NAMES.retry(5.0), 2)
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
