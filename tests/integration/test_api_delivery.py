"""One delivery: what is shown of it, and how it is sent again; Kafka is stood in for."""

import threading
from datetime import UTC, datetime, timedelta

import pytest

from go2hooks.core.domain.delivery import Delivery, Kind, Position, delivery_id
from go2hooks.core.errors import UnavailableError
from go2hooks.postgres.attempts import to_ms

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
BODY = '{"event":"click","timestamp":"2026-11-20T12:00:00Z","data":{"city":"München"}}'


@pytest.fixture
def hook(acme):
    return acme.create(events=["*"])["id"]


@pytest.fixture
def kept(outbox, hook):
    """A delivery that lies in Kafka, at the position that its records name."""
    delivery = Delivery(
        delivery_id("evt_1", hook), hook, "acme", "evt_1", "click", "2026-11-20T12:00:00Z", BODY.encode(), 1, 0, Kind.EVENT,
        to_ms(NOON), suspect=False,
    )  # fmt: skip
    outbox.log[Position("go2.deliveries", 3, 17)] = delivery
    return delivery


@pytest.fixture
def record(database, kept):
    """`record(attempt, state, **columns)` writes a row of the delivery."""

    def write(attempt, state, **columns):
        row = {
            "webhook_id": kept.webhook_id, "created_at": NOON, "delivery_id": kept.id, "attempt": attempt,
            "account_id": "acme", "event_id": "evt_1", "event": "click", "kind": "event", "state": state,
            "attempted_at": NOON + timedelta(seconds=attempt), "kafka_topic": "go2.deliveries", "kafka_partition": 3,
            "kafka_offset": 17,
        } | columns  # fmt: skip
        marks = ", ".join(["%s"] * len(row))
        database.execute(f"INSERT INTO attempts ({', '.join(row)}) VALUES ({marks})", list(row.values()))

    return write


@pytest.fixture
def failed(record):
    """It was sent twice, in vain."""
    record(1, "retrying", status_code=503, duration_ms=12.5, error_code="bad_status", retry_after="7",
           error_message="The receiver answered 503 Service Unavailable.", response_excerpt="over\x07load\n",
           remote_address="203.0.113.9", next_attempt_at=NOON + timedelta(seconds=2))  # fmt: skip
    record(2, "failed", status_code=302, duration_ms=3, error_code="redirect", error_message="It answered 302.",
           location="https://elsewhere.example/?a=1", remote_address="2001:db8::9")  # fmt: skip


def place(delivery):
    return f"/webhooks/{delivery.webhook_id}/deliveries/{delivery.id}"


def test_a_delivery_is_shown_with_every_attempt_its_request_and_its_payload(acme, kept, failed):
    data = acme("GET", place(kept)).json["data"]
    first, second = data.pop("attempts")
    assert first == {
        "number": 1, "trigger": "schedule", "startedAt": "2026-11-20T12:00:01Z", "statusCode": 503, "responseTimeMs": 12.5,
        "errorCode": "bad_status", "errorMessage": "The receiver answered 503 Service Unavailable.",
        "responseBody": "over\x07load\n", "responseHeaders": {"location": None, "retry-after": "7"},
        "remoteAddress": "203.0.113.9",
    }  # fmt: skip
    assert (second["number"], second["remoteAddress"]) == (2, "2001:db8::9")
    assert second["responseHeaders"] == {"location": "https://elsewhere.example/?a=1", "retry-after": None}
    request = data.pop("request")
    assert (request["payload"], request["payloadError"]) == (BODY, None)
    assert request["url"] == "https://your-server.com/webhooks/go2"
    assert request["headers"] == {
        "Content-Type": "application/json", "User-Agent": request["headers"]["User-Agent"], "Accept": "*/*",
        "X-Webhook-ID": kept.webhook_id, "X-Webhook-Event": "click", "X-Webhook-Timestamp": "2026-11-20T12:00:00Z",
        "X-Webhook-Delivery": kept.id, "X-Webhook-Attempt": "2", "webhook-id": kept.id,
        "webhook-timestamp": str(to_ms(NOON) // 1000 + 2),
    }  # fmt: skip
    [listed] = acme("GET", f"/webhooks/{kept.webhook_id}/deliveries").json["data"]
    assert listed == data | {"attempts": 2}


def test_the_list_shows_the_start_of_the_receivers_answer_in_one_line(acme, kept, record):
    record(1, "failed", error_code="bad_status", error_message="The receiver answered 500 Internal Server Error.",
           response_excerpt="no\x1b[31m\r\n\r\n room" + "x" * 400)  # fmt: skip
    [listed] = acme("GET", f"/webhooks/{kept.webhook_id}/deliveries").json["data"]
    assert listed["errorMessage"].startswith(
        "The receiver answered 500 Internal Server Error: no [31m room" + "x" * 100
    )
    assert len(listed["errorMessage"]) < 300


def test_a_payload_that_kafka_no_longer_has_is_expired(acme, outbox, kept, failed):
    outbox.log.clear()
    data = acme("GET", place(kept)).json["data"]
    assert (data["request"]["payload"], data["request"]["payloadError"], len(data["attempts"])) == (None, "expired", 2)
    assert "X-Webhook-Timestamp" not in data["request"]["headers"]
    answer = acme("POST", f"{place(kept)}/redeliver")
    assert (answer.status_code, answer.json["error"]["code"]) == (410, "payload_expired")
    assert outbox.deliveries == []


def test_a_kafka_that_is_away_is_503(acme, outbox, kept, failed):
    outbox.is_away = True
    assert acme("GET", place(kept)).status_code == 503
    assert acme("POST", f"{place(kept)}/redeliver").status_code == 503


def test_another_accounts_delivery_and_one_that_never_was_are_404(acme, rival, kept, failed, outbox):
    other = rival.create()["id"]
    for caller, path in (
        (rival, place(kept)), (rival, f"/webhooks/{other}/deliveries/{kept.id}"), (acme, f"{place(kept)}0"),
        (acme, f"/webhooks/{kept.webhook_id}/deliveries/nonsense"), (acme, f"/webhooks/wh_none/deliveries/{kept.id}"),
        (acme, f"/webhooks/{kept.webhook_id}/deliveries/dlv_%00"), (acme, f"/webhooks/{kept.webhook_id}/deliveries/" + "x" * 900),
    ):  # fmt: skip
        assert caller("GET", path).status_code == 404, path
        assert caller("POST", f"{path}/redeliver").status_code == 404, path
    acme("DELETE", f"/webhooks/{kept.webhook_id}")
    assert acme("POST", f"{place(kept)}/redeliver").status_code == 404
    assert outbox.deliveries == []


# --- redeliver


def test_a_delivery_is_sent_again_with_the_same_bytes_and_id_and_the_next_number(acme, outbox, kept, failed):
    answer = acme("POST", f"{place(kept)}/redeliver")
    assert (answer.status_code, answer.json["data"]) == (202, {"id": kept.id, "status": "pending", "attempt": 3})
    assert outbox.deliveries == [kept._replace(attempt=3, first_attempt=3, kind="redeliver", suspect=True)]


@pytest.mark.parametrize("state", ["delivered", "failed", "skipped"])
def test_whatever_has_ended_can_be_sent_again_to_a_disabled_webhook_too(acme, outbox, kept, record, state):
    record(1, state)
    acme("PATCH", f"/webhooks/{kept.webhook_id}", {"isActive": False})
    assert acme("POST", f"{place(kept)}/redeliver", {}).json["data"]["attempt"] == 2
    assert len(outbox.deliveries) == 1


@pytest.mark.parametrize(("attempt", "state"), [(1, "retrying"), (0, "pending")])
def test_what_is_under_way_is_not_sent_again(acme, outbox, kept, record, attempt, state):
    due = NOON + timedelta(minutes=1) if state == "retrying" else None
    record(attempt, state, next_attempt_at=due)
    answer = acme("POST", f"{place(kept)}/redeliver")
    assert (answer.status_code, answer.json["error"]["code"]) == (409, "delivery_under_way")
    assert answer.json["error"]["details"] == ({"nextRetryAt": "2026-11-20T12:01:00Z"} if due else {})
    assert outbox.deliveries == []


def test_of_many_that_ask_at_once_exactly_one_sends(acme, outbox, kept, failed):
    begin, codes = threading.Barrier(6), []

    def ask():
        begin.wait()
        codes.append(acme("POST", f"{place(kept)}/redeliver").status_code)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(codes) <= {202, 409, 503}  # the last where an account has no place left at Kafka
    assert len(outbox.deliveries) == codes.count(202) == 1


def test_it_can_be_sent_again_once_the_last_time_is_recorded_or_was_lost(acme, outbox, kept, failed, record, database):
    assert acme("POST", f"{place(kept)}/redeliver").status_code == 202
    assert acme("POST", f"{place(kept)}/redeliver").json["error"]["code"] == "delivery_under_way"
    record(3, "failed", kind="redeliver")
    assert acme("POST", f"{place(kept)}/redeliver").json["data"]["attempt"] == 4
    database.execute("UPDATE redeliveries SET asked_at = asked_at - interval '6 minutes'")
    assert acme("POST", f"{place(kept)}/redeliver").json["data"]["attempt"] == 4
    triggers = [each["trigger"] for each in acme("GET", place(kept)).json["data"]["attempts"]]
    assert triggers == ["schedule", "schedule", "redeliver"]


def test_what_kafka_does_not_take_may_be_asked_for_again_at_once(acme, outbox, kept, failed):
    def refuse(_delivery):
        raise UnavailableError("Kafka is away")

    outbox.on_write = refuse
    assert acme("POST", f"{place(kept)}/redeliver").status_code == 503
    outbox.on_write = None
    assert acme("POST", f"{place(kept)}/redeliver").status_code == 202


def test_waiting_answers_with_the_new_attempts_result(acme, outbox, kept, failed, record):
    outbox.on_write = lambda delivery: record(
        delivery.attempt, "delivered", kind=delivery.kind, status_code=204, duration_ms=5
    )
    answer = acme("POST", f"{place(kept)}/redeliver?wait=true")
    assert answer.status_code == 200
    assert answer.json["data"] == {
        "id": kept.id, "status": "delivered", "delivered": True, "attempt": 3, "statusCode": 204, "responseTimeMs": 5.0,
        "errorCode": None, "errorMessage": None, "responseBody": None,
    }  # fmt: skip
    [listed] = acme("GET", f"/webhooks/{kept.webhook_id}/deliveries").json["data"]
    assert (listed["status"], listed["attempts"], listed["kind"]) == ("delivered", 3, "redeliver")


def test_waiting_in_vain_says_so(acme, kept, failed):
    answer = acme("POST", f"{place(kept)}/redeliver?wait=true")  # a redelivery's timeout is 0.2 s here
    assert (answer.status_code, answer.json["data"]["status"]) == (202, "pending")
    assert "no result yet" in answer.json["data"]["message"]


@pytest.mark.parametrize(("path", "body"), [("?wait=1", None), ("?to=x", None), ("", {"attempt": 1}), ("", [])])
def test_what_makes_no_sense_is_refused_and_nothing_is_sent(acme, outbox, kept, failed, path, body):
    assert acme("POST", f"{place(kept)}/redeliver{path}", body).status_code == 422
    assert outbox.deliveries == []


def test_attempts_are_numbered_as_high_as_their_column_goes(acme, outbox, kept, record):
    record(32767, "failed")
    assert acme("POST", f"{place(kept)}/redeliver").json["error"]["code"] == "too_many_attempts"


def test_a_test_that_is_sent_again_stays_a_test_and_is_told_apart_in_the_list(acme, outbox, kept, record):
    outbox.log[Position("go2.deliveries", 3, 17)] = kept._replace(kind=Kind.TEST)
    record(1, "failed", kind="test")
    acme("POST", f"{place(kept)}/redeliver")
    assert (outbox.deliveries[0].kind, outbox.deliveries[0].attempt) == ("test", 2)
    record(2, "delivered", kind="test")
    data = acme("GET", place(kept)).json["data"]
    assert [each["trigger"] for each in data["attempts"]] == ["test", "redeliver"]
    assert data["request"]["headers"]["X-Webhook-Test"] == "true"
