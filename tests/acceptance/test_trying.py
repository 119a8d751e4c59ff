"""Test events: through the real pipeline, to one webhook alone, without consequences."""

import json

from recording import Reply
from running import DELAYS_S
from waiting import eventually


def test_a_test_event_reaches_its_webhook_alone_and_waits_for_the_result(account, receiver):
    endpoint, other = receiver.endpoint(), receiver.endpoint()
    webhook, bystander = account.subscribe(endpoint.url, "link.created"), account.subscribe(other.url, "*")
    answer = account.call("POST", f"/webhooks/{webhook['id']}/test?wait=true")
    assert answer.status == 200
    assert (answer.data["status"], answer.data["delivered"], answer.data["statusCode"]) == ("delivered", True, 200)
    assert answer.data["responseTimeMs"] > 0
    (request,) = endpoint.requests
    assert request.delivery == answer.data["id"]
    assert request.headers["x-webhook-event"] == json.loads(request.body)["event"] == "link.created"
    (delivery,) = account.wait_history(webhook, "delivered")
    assert (delivery["kind"], delivery["id"]) == ("test", answer.data["id"])
    assert account.history(bystander) == other.requests == []


def test_a_test_event_can_be_sent_without_waiting(account, receiver):
    endpoint = receiver.endpoint()
    webhook = account.subscribe(endpoint.url)
    answer = account.call("POST", f"/webhooks/{webhook['id']}/test", {"event": "qr.scanned"})
    assert (answer.status, answer.data["status"]) == (202, "pending")
    (request,) = endpoint.wait(1)
    assert (request.delivery, request.headers["x-webhook-event"]) == (answer.data["id"], "qr.scanned")
    account.wait_history(webhook, "delivered")


def test_a_failing_test_event_is_neither_retried_nor_counted(account, receiver):
    endpoint = receiver.endpoint(lambda _: Reply(500, body=b"oops"))
    webhook = account.subscribe(endpoint.url)
    answer = account.call("POST", f"/webhooks/{webhook['id']}/test?wait=true")
    assert (answer.status, answer.data["delivered"]) == (200, False)
    assert (answer.data["statusCode"], answer.data["errorCode"]) == (500, "bad_status")
    assert answer.data["responseBody"] == "oops"
    (delivery,) = account.wait_history(webhook, "failed")
    assert (delivery["attempts"], delivery["nextRetryAt"]) == (1, None)
    assert account.webhook(webhook)["consecutiveFailures"] == 0
    account.emit()  # an event's retry comes through the same tier as the test's would have, after it
    endpoint.wait_until(lambda: any(request.attempt == 2 for request in endpoint.requests))
    assert [r.attempt for r in endpoint.requests if r.delivery == answer.data["id"]] == [1]


def test_a_test_event_works_on_a_disabled_webhook(account, receiver):
    endpoint = receiver.endpoint(lambda _: 500)
    webhook = account.subscribe(endpoint.url)
    account.emit_many(3)
    eventually(lambda: not account.webhook(webhook)["isActive"], every_s=0.1)
    endpoint.answer = lambda _: 200
    answer = account.call("POST", f"/webhooks/{webhook['id']}/test?wait=true")
    assert (answer.status, answer.data["delivered"]) == (200, True)
    disabled = account.webhook(webhook)
    assert (disabled["isActive"], disabled["consecutiveFailures"]) == (False, 10)


def test_a_test_event_does_not_wait_for_a_circuit_to_close(account, receiver):
    endpoint = receiver.endpoint(lambda _: 500)
    webhook = account.subscribe(endpoint.url)
    account.emit()
    endpoint.wait(5)  # the circuit is open now, and the delivery waits in the last tier
    endpoint.answer = lambda _: 200
    answer = account.call("POST", f"/webhooks/{webhook['id']}/test?wait=true")
    assert (answer.status, answer.data["delivered"]) == (200, True)
    assert endpoint.requests[-1].arrived - endpoint.answered[4] < DELAYS_S[-1] + 2
