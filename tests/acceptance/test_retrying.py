"""Failures: retried by the schedule, dead-lettered in the end, and counted until they disable the webhook."""

import json
import time
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Consumer, Message, TopicPartition
from recording import HANG, HANG_UP, Endpoint, Reply, Request
from running import DELAYS_S, IN_FORCE_S, TIMEOUT_S, Stack, assert_not_early
from usable_topics import watermarks
from waiting import eventually

from go2hooks.codec import decode_delivery
from go2hooks.core.security.signing import verify_body_signature, verify_standard
from go2hooks.kafka.topics import TopicNames

NAMES = TopicNames("go2")


@pytest.fixture
def dead_letters(stack: Stack) -> Iterator[Callable[[str], list[Message]]]:
    """From an account's id to its messages in `go2.deliveries.dead`."""
    consumer = Consumer({"bootstrap.servers": stack.broker.bootstrap, "group.id": "tests.dead-letters"})

    def read(account_id: str) -> list[Message]:
        consumer.assign([TopicPartition(NAMES.deliveries_dead, 0, 0)])
        _low, high = watermarks(consumer, TopicPartition(NAMES.deliveries_dead, 0))
        messages: list[Message] = []
        while len(messages) < high:
            messages += consumer.consume(high - len(messages), timeout=1)
        return [message for message in messages if decode_delivery(message.value()).account_id == account_id]

    yield read
    consumer.close()


def failing(times: int) -> Callable[[Request], int]:
    """Answers 503 to the first attempts, then 200."""
    return lambda request: 503 if request.attempt <= times else 200


def assert_on_schedule(endpoint: Endpoint) -> None:
    """Each retry comes its delay after the failure before it, never earlier; how much later is the machine's affair."""
    for failed, request, delay_s in zip(endpoint.answered, endpoint.requests[1:], DELAYS_S, strict=False):
        assert_not_early(failed, request.arrived, delay_s)


def test_a_delivery_that_fails_twice_arrives_on_the_third_attempt(account, receiver):
    endpoint = receiver.endpoint(failing(2))
    webhook = account.subscribe(endpoint.url)
    before = time.time()
    account.emit()
    requests = endpoint.wait(3)
    (delivery,) = account.wait_history(webhook, "delivered")
    assert (delivery["attempts"], delivery["statusCode"], delivery["errorCode"]) == (3, 200, None)
    assert [request.attempt for request in requests] == [1, 2, 3]
    assert {request.delivery for request in requests} == {delivery["id"]}
    assert len({request.body for request in requests}) == 1
    for request in requests:  # each attempt is signed for its own time
        h = request.headers
        assert verify_body_signature(webhook["secret"], request.body, h["x-webhook-signature"])
        assert verify_standard(
            [webhook["secret"]], h["webhook-id"], h["webhook-timestamp"], request.body, h["webhook-signature"]
        )
        assert int(before) <= int(h["webhook-timestamp"]) <= request.arrived
        before = request.arrived
    assert_on_schedule(endpoint)


def test_a_delivery_that_waits_for_its_retry_says_when_it_comes(account, receiver):
    endpoint = receiver.endpoint(failing(2))
    webhook = account.subscribe(endpoint.url)
    account.emit()
    (delivery,) = account.wait_history(webhook, "retrying")
    assert delivery["statusCode"] == 503
    assert delivery["errorCode"] == "bad_status"
    assert delivery["errorMessage"] == "The receiver answered 503 Service Unavailable."
    assert delivery["nextRetryAt"] > delivery["lastAttemptAt"]
    account.wait_history(webhook, "delivered")


def test_a_delivery_that_always_fails_goes_through_every_tier_and_is_dead_lettered(account, receiver, dead_letters):
    endpoint = receiver.endpoint(lambda _: 500)
    webhook = account.subscribe(endpoint.url)
    event = account.emit()
    requests = endpoint.wait(6)
    (delivery,) = account.wait_history(webhook, "failed")
    assert delivery["attempts"] == 6
    assert delivery["nextRetryAt"] is None
    assert [request.attempt for request in requests] == [1, 2, 3, 4, 5, 6]
    assert_on_schedule(endpoint)

    (message,) = dead_letters(account.id)
    kept = decode_delivery(message.value())
    assert (kept.id, kept.event_id, kept.webhook_id, kept.attempt) == (delivery["id"], event.id, webhook["id"], 6)
    assert kept.body == requests[0].body
    assert dict(message.headers()) == {
        "go2hooks-reason": b"bad_status",
        "go2hooks-detail": b"The receiver answered 500 Internal Server Error.",
    }
    assert message.key() == webhook["id"].encode()


@pytest.mark.parametrize(
    ("reply", "status", "code"),
    [
        (Reply(302, (("Location", "/elsewhere"),)), 302, "redirect"),
        (Reply(308, (("Location", "http://127.0.0.1:1/"),)), 308, "redirect"),
        (Reply(404, body=b"\0not\xff here\t\\\n"), 404, "bad_status"),
        (Reply(999), 999, "bad_status"),
        (HANG, None, "timeout"),
        (HANG_UP, None, "connection_error"),
    ],
    ids=["302", "308", "binary-body", "999", "hangs", "hangs-up"],
)
def test_whatever_is_no_2xx_is_a_failure_that_says_so_and_is_retried(account, receiver, reply, status, code):
    endpoint = receiver.endpoint(lambda request: reply if request.attempt == 1 else 204)
    webhook = account.subscribe(endpoint.url)
    account.emit()
    endpoint.wait_until(lambda: endpoint.requests)
    (failed,) = account.wait_history(webhook, "retrying")
    assert (failed["statusCode"], failed["errorCode"]) == (status, code)
    said = ": \N{REPLACEMENT CHARACTER}not\N{REPLACEMENT CHARACTER} here \\" if getattr(reply, "body", b"") else "."
    assert failed["errorMessage"].endswith(said)
    assert "127.0.0.1" not in failed["errorMessage"] or reply.status == 308  # the receiver's own words
    if reply is HANG:
        assert failed["responseTimeMs"] >= TIMEOUT_S * 1000
    (delivered,) = account.wait_history(webhook, "delivered")
    assert (delivered["attempts"], delivered["statusCode"]) == (2, 204)


@pytest.mark.parametrize("status", [404, 429, 500])
def test_retry_after_chooses_the_tier_that_fits_up_to_the_longest(account, receiver, status):
    reply = Reply(status, (("Retry-After", "1"),))
    endpoint = receiver.endpoint(lambda request: reply if request.attempt == 1 else 200)
    webhook = account.subscribe(endpoint.url)
    account.emit()
    _, second = endpoint.wait(2)
    assert_not_early(endpoint.answered[0], second.arrived, DELAYS_S[-1])
    (delivery,) = account.wait_history(webhook, "delivered")
    assert delivery["attempts"] == 2


def test_a_receiver_that_hangs_does_not_delay_the_others(account, receiver):
    hanging, quick = receiver.endpoint(lambda _: HANG), receiver.endpoint()
    account.subscribe(hanging.url)
    account.subscribe(quick.url)
    account.emit_many(200)
    quick.wait_deliveries(200)
    hanging.wait_until(lambda: hanging.requests)
    assert quick.requests[-1].arrived - hanging.requests[0].arrived < TIMEOUT_S


def test_ten_failures_in_a_row_disable_a_webhook_and_patch_brings_it_back(account, receiver):
    endpoint = receiver.endpoint(lambda _: 500)
    webhook = account.subscribe(endpoint.url)
    account.emit_many(3)
    disabled = eventually(lambda: (w := account.webhook(webhook)) and not w["isActive"] and w, every_s=0.1)
    assert disabled["consecutiveFailures"] == 10
    assert disabled["disabledReason"] == "10 consecutive failed attempts"
    assert disabled["disabledAt"] is not None
    time.sleep(IN_FORCE_S)
    attempts = len(endpoint.requests)
    assert attempts == 10

    account.emit()  # and what waited for a retry: nothing is attempted any more, and each is recorded
    history = account.wait_history(webhook, "skipped", "skipped", "skipped", "skipped")
    assert {each["errorCode"] for each in history} == {"webhook_disabled"}
    assert min(each["attempts"] for each in history) == 0
    assert sum(each["attempts"] for each in history) == attempts == len(endpoint.requests)

    endpoint.answer = lambda _: 200
    enabled = account.change(webhook, isActive=True)
    assert (enabled["isActive"], enabled["consecutiveFailures"]) == (True, 0)
    assert enabled["disabledAt"] is enabled["disabledReason"] is None
    time.sleep(IN_FORCE_S)
    account.emit()
    endpoint.wait(attempts + 1)
    assert account.wait_history(webhook, "delivered", *["skipped"] * 4)[0]["attempts"] == 1


def test_the_accounts_other_webhooks_hear_that_one_fails_and_is_disabled(account, receiver):
    failing, ears = receiver.endpoint(lambda _: 500), receiver.endpoint()
    webhook = account.subscribe(failing.url, "*")
    account.subscribe(ears.url, "webhook.failing", "webhook.disabled")
    account.emit_many(3)
    ears.wait_deliveries(2)
    told = {request.headers["x-webhook-event"]: json.loads(request.body)["data"] for request in ears.requests}
    assert told["webhook.failing"]["consecutiveFailures"] >= 5
    disabled = told["webhook.disabled"]
    assert (disabled["webhookId"], disabled["url"], disabled["consecutiveFailures"]) == (webhook["id"], failing.url, 10)
    assert disabled["reason"] == "10 consecutive failed attempts"
    assert "500" in disabled["lastError"]
    assert {request.headers["x-webhook-event"] for request in failing.requests} == {"click"}


def test_a_410_disables_at_once_and_the_delivery_has_failed(account, receiver):
    endpoint = receiver.endpoint(lambda _: 410)
    webhook = account.subscribe(endpoint.url)
    account.emit()
    (failed,) = account.wait_history(webhook, "failed")
    assert (failed["attempts"], failed["statusCode"], failed["errorCode"]) == (1, 410, "gone")
    eventually(lambda: not account.webhook(webhook)["isActive"], every_s=0.1)
    assert account.webhook(webhook)["disabledReason"] == "the receiver answered 410 Gone"
    time.sleep(IN_FORCE_S)
    account.emit()
    skipped, _ = account.wait_history(webhook, "skipped", "failed")
    assert skipped["errorCode"] == "webhook_disabled"
    assert len(endpoint.requests) == 1


def test_a_success_resets_the_count_of_failures(account, receiver):
    endpoint = receiver.endpoint(failing(5))
    webhook = account.subscribe(endpoint.url)
    for round_ in (1, 2, 3):
        account.emit()
        endpoint.wait(6 * round_)
        account.wait_history(webhook, *["delivered"] * round_)
        assert account.webhook(webhook)["consecutiveFailures"] == 0
    assert account.webhook(webhook)["isActive"]


def test_a_disabled_webhook_stays_disabled_through_a_restart_of_the_dispatcher(stack, account, receiver):
    endpoint = receiver.endpoint(lambda _: 500)
    webhook = account.subscribe(endpoint.url)
    account.emit_many(2)
    endpoint.wait(4)
    stack.dispatcher.stop()  # in the middle of the count
    stack.mend()
    eventually(lambda: not account.webhook(webhook)["isActive"], every_s=0.1)
    assert account.webhook(webhook)["consecutiveFailures"] == 10
    account.wait_history(webhook, "skipped", "skipped")
    assert len(endpoint.requests) == 10
    assert endpoint.duplicates() == 0
