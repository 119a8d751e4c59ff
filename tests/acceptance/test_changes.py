"""Changes of a webhook: in force everywhere within a second, for retries already queued too."""

import threading
import time

from running import IN_FORCE_S
from waiting import eventually

from go2hooks.core.security.signing import body_signature, verify_standard


def test_a_new_url_is_in_force_within_a_second(account, receiver):
    old, new = receiver.endpoint(), receiver.endpoint()
    webhook = account.subscribe(old.url)
    stop = threading.Event()

    def stream() -> None:
        while not stop.wait(0.02):
            account.emit()

    streaming = threading.Thread(target=stream)
    streaming.start()
    try:
        old.wait(5)
        account.change(webhook, url=new.url)
        answered = time.time()
        new.wait(20)
    finally:
        stop.set()
        streaming.join()
    assert new.requests[0].arrived - answered < IN_FORCE_S
    assert old.requests[-1].arrived - answered < IN_FORCE_S


def test_a_queued_retry_goes_to_the_new_url(account, receiver):
    old, new = receiver.endpoint(lambda _: 500), receiver.endpoint()
    webhook = account.subscribe(old.url)
    account.emit()
    old.wait(1)
    changed = account.change(webhook, url=new.url)
    assert changed["url"] == new.url
    answered = time.time()
    (arrived,) = new.wait(1)
    assert arrived.delivery == old.requests[0].delivery
    assert arrived.attempt == len(old.requests) + 1
    assert all(request.arrived - answered < IN_FORCE_S for request in old.requests)


def test_a_queued_retry_of_an_event_that_is_no_longer_wanted_is_skipped(account, receiver):
    endpoint = receiver.endpoint(lambda _: 500)
    webhook = account.subscribe(endpoint.url, "click")
    account.emit()
    endpoint.wait(1)
    account.change(webhook, events=["link.created"])
    (delivery,) = account.wait_history(webhook, "skipped")
    assert delivery["errorCode"] == "webhook_unsubscribed"
    assert delivery["attempts"] == len(endpoint.requests) < 6


def test_changed_events_decide_what_is_delivered(account, receiver):
    endpoint = receiver.endpoint()
    webhook = account.subscribe(endpoint.url, "click")
    account.change(webhook, events=["link.created"])
    time.sleep(IN_FORCE_S)
    account.emit("click")
    account.emit("link.created")
    (request,) = endpoint.wait(1)
    assert request.headers["x-webhook-event"] == "link.created"
    account.wait_history(webhook, "delivered")


def test_a_deleted_webhooks_queued_retry_is_recorded_as_skipped(stack, account, receiver):
    endpoint = receiver.endpoint(lambda _: 500)
    webhook = account.subscribe(endpoint.url)
    account.emit()
    endpoint.wait(1)
    assert account.call("DELETE", f"/webhooks/{webhook['id']}").status == 200
    assert account.call("GET", f"/webhooks/{webhook['id']}").status == 404

    def last_record() -> tuple[str, str] | None:
        found = stack.query(
            "SELECT state, error_code FROM attempts WHERE webhook_id = %s ORDER BY attempt DESC LIMIT 1", webhook["id"]
        )
        return found[0] if found and found[0][0] == "skipped" else None

    assert eventually(last_record) == ("skipped", "webhook_deleted")
    seen = len(endpoint.requests)
    assert seen < 6
    time.sleep(IN_FORCE_S)
    account.emit()  # to nobody
    assert account.call("GET", "/webhooks").data == []
    other = receiver.endpoint()
    account.subscribe(other.url)
    account.emit()
    other.wait(1)
    assert len(endpoint.requests) == seen


def test_both_secrets_sign_while_a_rotation_overlaps_and_then_the_new_one_alone(account, receiver):
    endpoint = receiver.endpoint()
    webhook = account.subscribe(endpoint.url)
    old = webhook["secret"]
    rotated = account.call("POST", f"/webhooks/{webhook['id']}/rotate-secret").data
    new = rotated["secret"]
    assert new != old
    time.sleep(IN_FORCE_S)
    account.emit()
    (request,) = endpoint.wait(1)
    headers = request.headers
    assert len(headers["webhook-signature"].split(" ")) == 2
    assert headers["x-webhook-signature"] == body_signature(new, request.body)
    signed = (headers["webhook-id"], headers["webhook-timestamp"], request.body, headers["webhook-signature"])
    assert verify_standard([old], *signed)
    assert verify_standard([new], *signed)

    def one_signature() -> bool:
        count = len(endpoint.requests)
        account.emit()
        endpoint.wait(count + 1)
        return len(endpoint.requests[-1].headers["webhook-signature"].split(" ")) == 1

    eventually(one_signature, every_s=0.2)
    last = endpoint.requests[-1]
    h = last.headers
    assert verify_standard([new], h["webhook-id"], h["webhook-timestamp"], last.body, h["webhook-signature"])
    assert not verify_standard([old], h["webhook-id"], h["webhook-timestamp"], last.body, h["webhook-signature"])
