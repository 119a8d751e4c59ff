"""A delivery as a curl command: signed anew, for who may send, and without what is secret."""

import re
import time
from datetime import UTC, datetime

import pytest

from go2hooks.core.domain.delivery import Delivery, Kind, Position, delivery_id
from go2hooks.core.security.signing import verify_body_signature, verify_standard
from go2hooks.postgres.api_keys import Scope, create_key
from go2hooks.postgres.attempts import to_ms

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
BODY = b'{"event":"click","timestamp":"2026-11-20T12:00:00Z","data":{"city":"M\xc3\xbcnchen"}}'


@pytest.fixture
def hook(acme):
    headers = {"X-Tenant": "eu", "X-Token": {"value": "hunter2hunter2", "secret": True}}
    return acme.create(events=["*"], headers=headers)


@pytest.fixture
def place(database, outbox, hook):
    """Of a delivery that was attempted three times, and lies in Kafka."""
    delivery = Delivery(
        delivery_id("evt_1", hook["id"]), hook["id"], "acme", "evt_1", "click", "2026-11-20T12:00:00Z", BODY, 1, 0, Kind.EVENT,
        to_ms(NOON), suspect=False,
    )  # fmt: skip
    outbox.log[Position("go2.deliveries", 3, 17)] = delivery
    database.execute(
        """INSERT INTO attempts (webhook_id, created_at, delivery_id, attempt, account_id, event_id, event, kind, state,
                                 attempted_at, kafka_topic, kafka_partition, kafka_offset)
           VALUES (%s, %s, %s, 3, 'acme', 'evt_1', 'click', 'event', 'failed', now(), 'go2.deliveries', 3, 17)""",
        [hook["id"], NOON, delivery.id],
    )
    return f"/webhooks/{hook['id']}/deliveries/{delivery.id}/curl"


def headers_of(command):
    return dict(each.split(": ", 1) for each in re.findall(r"-H '([^']*)'", command))


def test_its_signatures_are_of_this_moment_and_nothing_is_sent_or_recorded(acme, database, outbox, hook, place):
    made = acme("POST", place).json["data"]
    headers = headers_of(made["command"])
    signed_at = int(headers["webhook-timestamp"])
    assert abs(signed_at - time.time()) < 60
    assert verify_body_signature(hook["secret"], BODY, headers["X-Webhook-Signature"])
    assert verify_standard([hook["secret"]], headers["webhook-id"], signed_at, BODY, headers["webhook-signature"])
    assert headers["X-Webhook-Attempt"] == "3"
    assert f"printf %s '{BODY.decode()}'" in made["command"]
    assert outbox.deliveries == []
    assert database.execute("SELECT count(*) FROM attempts").fetchone() == (1,)


def test_both_secrets_sign_during_a_rotation(acme, hook, place):
    new = acme("POST", f"/webhooks/{hook['id']}/rotate-secret").json["data"]["secret"]
    headers = headers_of(acme("POST", place).json["data"]["command"])
    assert verify_body_signature(new, BODY, headers["X-Webhook-Signature"])
    for secret in (new, hook["secret"]):
        at = headers["webhook-timestamp"]
        assert verify_standard([secret], headers["webhook-id"], at, BODY, headers["webhook-signature"])


def test_secrets_are_not_in_it_and_what_is_missing_is_said(acme, hook, place):
    made = acme("POST", place).json["data"]
    assert hook["secret"] not in made["command"]
    assert "hunter2" not in made["command"]
    assert headers_of(made["command"])["X-Tenant"] == "eu"
    assert made["secretHeaders"] == ["X-Token"]
    assert made["needsClientCertificate"] is False


def test_who_may_not_send_may_not_have_it(acme, rival, database, place):
    assert rival("POST", place).status_code == 404
    acme.key = create_key(database, "acme", scopes=[Scope.READ]).key
    assert acme("POST", place).status_code == 403


def test_what_cannot_be_signed_is_said(acme, database, outbox, place):
    outbox.log.clear()
    assert acme("POST", place).status_code == 410
    assert acme("POST", place.replace("dlv_", "dlv_f")).status_code == 404


def test_a_secret_that_no_key_opens_is_a_conflict_with_a_remedy(acme, database, place):
    database.execute("UPDATE webhooks SET sealed_secret = '\\x00'")
    answer = acme("POST", place)
    assert (answer.status_code, answer.json["error"]["code"]) == (409, "secret_unavailable")
