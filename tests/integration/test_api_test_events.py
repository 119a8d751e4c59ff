"""`POST /webhooks/{id}/test`: what is handed to Kafka, what the caller learns."""

import contextlib
import threading
import time
from datetime import UTC, datetime

import orjson
import psycopg
import pytest
from confluent_kafka import Consumer
from pydantic import SecretStr
from usable_topics import make_topics

from go2hooks.codec import decode_delivery
from go2hooks.core.domain.delivery import delivery_id
from go2hooks.core.domain.event import EventType
from go2hooks.core.errors import UnavailableError
from go2hooks.kafka.topics import TopicNames
from go2hooks.postgres.deployment import find_deployment
from go2hooks.settings import Settings
from services.api.outbox import KafkaDeliveryWriter

NAMES = TopicNames("go2")


def record(database_url, delivery, **columns):
    """Write the attempt's row, as a dispatcher would."""
    row = {
        "webhook_id": delivery.webhook_id, "created_at": datetime.fromtimestamp(0, UTC), "delivery_id": delivery.id,
        "attempt": 1, "account_id": delivery.account_id, "event_id": delivery.event_id, "event": delivery.event,
        "kind": delivery.kind, "attempted_at": datetime.now(UTC),
    } | columns  # fmt: skip
    marks = ", ".join(["to_timestamp(%s / 1000.0)" if name == "created_at" else "%s" for name in row])
    row["created_at"] = delivery.origin_ms
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f"INSERT INTO attempts ({', '.join(row)}) VALUES ({marks})", list(row.values()))


def test_a_test_event_is_recorded_as_pending_and_handed_to_kafka(acme, outbox):
    hook = acme.create(events=["link.created", "click"])
    answer = acme("POST", f"/webhooks/{hook['id']}/test")
    [delivery] = outbox.deliveries
    assert (answer.status_code, answer.json) == (
        202,
        {"success": True, "data": {"id": delivery.id, "status": "pending"}},
    )
    assert (delivery.webhook_id, delivery.account_id, delivery.event) == (hook["id"], "acme", "link.created")
    assert (delivery.kind, delivery.attempt, delivery.due_ms) == ("test", 1, 0)
    assert delivery.event_id.startswith("evt_test_")
    assert delivery.id == delivery_id(delivery.event_id, hook["id"])
    assert abs(delivery.origin_ms / 1000 - time.time()) < 10
    payload = orjson.loads(delivery.body)
    assert list(payload) == ["event", "timestamp", "data"]
    assert (payload["event"], payload["timestamp"]) == ("link.created", delivery.timestamp)
    [entry] = acme("GET", f"/webhooks/{hook['id']}/deliveries").json["data"]
    assert (entry["id"], entry["status"], entry["kind"], entry["attempts"]) == (delivery.id, "pending", "test", 0)


def test_every_test_event_is_an_event_of_its_own(acme, outbox):
    hook = acme.create()
    for _ in range(3):
        acme("POST", f"/webhooks/{hook['id']}/test")
    assert len({delivery.id for delivery in outbox.deliveries}) == 3


@pytest.mark.parametrize("event", EventType)
def test_any_event_type_can_be_asked_for_whatever_the_webhook_subscribes_to(acme, outbox, event):
    hook = acme.create(events=["*"])
    assert acme("POST", f"/webhooks/{hook['id']}/test", {"event": event}).status_code == 202
    assert outbox.deliveries[0].event == event


def test_a_webhook_for_everything_gets_a_click(acme, outbox):
    hook = acme.create(events=["*"])
    acme("POST", f"/webhooks/{hook['id']}/test", {})
    assert outbox.deliveries[0].event == "click"


def test_a_disabled_webhook_can_be_tested(acme, outbox):
    hook = acme.create()
    acme("PATCH", f"/webhooks/{hook['id']}", {"isActive": False})
    assert acme("POST", f"/webhooks/{hook['id']}/test").status_code == 202
    assert len(outbox.deliveries) == 1


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("test", {"event": "*"}, "event"), ("test", {"event": "nope"}, "event"), ("test", {"event": None}, "event"),
        ("test", {"events": ["click"]}, "events"), ("test?wait=1", None, "wait"), ("test?wait=", None, "wait"),
        ("test?delay=1", None, "delay"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_and_nothing_is_sent(acme, outbox, path, body, field):
    hook = acme.create()
    answer = acme("POST", f"/webhooks/{hook['id']}/{path}", body)
    assert answer.status_code == 422
    assert list(answer.json["error"]["details"]) == [field]
    assert outbox.deliveries == []


def test_waiting_answers_with_the_attempts_result(acme, outbox, database_url):
    hook = acme.create()

    def deliver_soon(delivery):
        row = {"state": "delivered", "status_code": 204, "duration_ms": 12.5, "response_excerpt": "thank you ❤"}
        threading.Timer(0.1, record, (database_url, delivery), row).start()

    outbox.on_write = deliver_soon
    answer = acme("POST", f"/webhooks/{hook['id']}/test?wait=true")
    assert answer.status_code == 200
    assert answer.json["data"] == {
        "id": outbox.deliveries[0].id, "status": "delivered", "delivered": True, "statusCode": 204,
        "responseTimeMs": 12.5, "errorCode": None, "errorMessage": None, "responseBody": "thank you ❤",
    }  # fmt: skip


def test_waiting_tells_a_failure_as_a_failure(acme, outbox, database_url):
    hook = acme.create()
    outbox.on_write = lambda delivery: record(
        database_url, delivery, state="failed", error_code="timeout", error_message="no answer in 10 s"
    )
    data = acme("POST", f"/webhooks/{hook['id']}/test?wait=true").json["data"]
    assert (data["delivered"], data["status"], data["errorCode"]) == (False, "failed", "timeout")
    assert (data["errorMessage"], data["responseBody"]) == ("no answer in 10 s", None)


def test_waiting_in_vain_ends_with_what_is_known(acme, outbox):
    hook = acme.create()
    started = time.monotonic()
    answer = acme("POST", f"/webhooks/{hook['id']}/test?wait=true")
    assert (answer.status_code, answer.json["data"]["status"]) == (202, "pending")
    assert "no result yet" in answer.json["data"]["message"]
    assert 3.2 <= time.monotonic() - started < 30  # the delivery timeout of these tests is 0.2 s


@pytest.fixture
def services(app):
    [services] = [s for s in app.extensions.values() if hasattr(s, "watching")]
    return services


def test_who_finds_no_place_to_wait_is_told_so_at_once_and_the_event_is_sent(acme, outbox, services):
    hook = acme.create()
    with services.watching.taken_by("acme"), services.watching.taken_by("acme"):
        started = time.monotonic()
        answer = acme("POST", f"/webhooks/{hook['id']}/test?wait=true")
        assert time.monotonic() - started < 3  # those that wait do so for 3.2 s
    [delivery] = outbox.deliveries
    assert (answer.status_code, answer.headers["Retry-After"]) == (202, "1")
    assert (answer.json["data"]["id"], answer.json["data"]["status"]) == (delivery.id, "pending")
    assert answer.json["data"]["message"].startswith("The event is sent. Too many others are waiting for a result")


def test_no_account_takes_all_the_places_to_wait(acme, rival, outbox, database_url, services):
    hook = rival.create()
    outbox.on_write = lambda delivery: record(database_url, delivery, state="delivered", status_code=200)
    with (
        services.watching.taken_by("acme"),
        services.watching.taken_by("acme"),
        services.watching.taken_by("acme") as more,
    ):
        assert not more  # of four places in all, with 16 threads
        assert rival("POST", f"/webhooks/{hook['id']}/test?wait=true").status_code == 200


def test_no_account_takes_all_the_places_to_wait_for_kafka(acme, rival, outbox, services):
    hooks = acme.create(), rival.create()
    with contextlib.ExitStack() as places:
        for _ in range(8):
            places.enter_context(services.writing.taken_by("acme"))
        refused = acme("POST", f"/webhooks/{hooks[0]['id']}/test")
        assert (refused.status_code, refused.json["error"]["code"]) == (503, "busy")
        assert rival("POST", f"/webhooks/{hooks[1]['id']}/test").status_code == 202


def test_a_place_is_free_again_after_whatever_happened(acme, outbox, services):
    hook = acme.create()
    outbox.is_away = True
    for _ in range(20):
        assert acme("POST", f"/webhooks/{hook['id']}/test?wait=true").status_code == 503
    outbox.is_away = False
    assert acme("POST", f"/webhooks/{hook['id']}/test").status_code == 202


def test_a_test_event_that_kafka_does_not_take_leaves_no_record(acme, outbox):
    hook = acme.create()
    outbox.is_away = True
    answer = acme("POST", f"/webhooks/{hook['id']}/test")
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.json["error"]["code"] == "unavailable"
    assert acme("GET", f"/webhooks/{hook['id']}/deliveries").json["data"] == []


# --- the writer, on a real broker


@pytest.fixture
def kafka_settings(kafka_bootstrap):
    settings = Settings(kafka_bootstrap_servers=kafka_bootstrap, database_url=SecretStr("postgresql://unused"))
    make_topics(settings)
    return settings


def test_what_is_written_lies_in_the_deliveries_topic_keyed_by_webhook(acme, outbox, kafka_settings, database):
    hook = acme.create()
    acme("POST", f"/webhooks/{hook['id']}/test")
    [delivery] = outbox.deliveries
    writer = KafkaDeliveryWriter(kafka_settings, lambda: find_deployment(database))
    writer.write(delivery)
    assert writer.is_reachable()
    writer.close(1)
    consumer = Consumer(
        {
            "bootstrap.servers": kafka_settings.kafka_bootstrap_servers,
            "group.id": hook["id"],
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe([NAMES.deliveries])
    deadline = time.monotonic() + 15
    found = None
    while found is None and time.monotonic() < deadline:
        message = consumer.poll(1)
        if message is not None and message.error() is None and message.key() == hook["id"].encode():
            found = message
    consumer.close()
    assert found is not None
    assert decode_delivery(found.value()) == delivery._replace(deployment=find_deployment(database))


def test_a_broker_that_is_away_is_an_error_within_seconds(acme, outbox):
    hook = acme.create()
    acme("POST", f"/webhooks/{hook['id']}/test")
    settings = Settings(kafka_bootstrap_servers="127.0.0.1:1", database_url=SecretStr("postgresql://unused"))
    writer = KafkaDeliveryWriter(settings, lambda: "dep_1")
    started = time.monotonic()
    with pytest.raises(UnavailableError, match="Kafka"):
        writer.write(outbox.deliveries[0])
    assert time.monotonic() - started < 30
    assert not writer.is_reachable()
    writer.close(0.1)
