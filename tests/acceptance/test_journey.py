"""An event's way from Kafka to its receivers: what arrives, how it is signed, where it is recorded."""

import base64
import hashlib
import hmac
import json
import re
import time

import go2hooks
from go2hooks.core.domain.event import EventType


def hex_signature(secret: str, body: bytes) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def standard_signature(secret: str, message: str, timestamp: str, body: bytes) -> str:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.new(key, f"{message}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def test_an_event_arrives_signed_with_every_header_and_is_in_the_history(account, receiver):
    endpoint = receiver.endpoint(query="?team=a%20b")
    webhook = account.subscribe(endpoint.url, "click")
    before = time.time()
    event = account.emit()
    (request,) = endpoint.wait()

    assert request.line == f"POST {endpoint.url.partition(str(receiver.port))[2]} HTTP/1.1"
    headers = request.headers
    assert headers["host"] == f"127.0.0.1:{receiver.port}"
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"] == f"Go2-Webhooks/{go2hooks.__version__}"
    assert headers["x-webhook-id"] == webhook["id"]
    assert headers["x-webhook-event"] == "click"
    assert headers["x-webhook-timestamp"] == json.loads(request.body)["timestamp"]
    assert headers["x-webhook-attempt"] == "1"
    assert re.fullmatch(r"dlv_[0-9a-f]{30}", headers["x-webhook-delivery"])
    assert headers["webhook-id"] == headers["x-webhook-delivery"]
    assert int(before) <= int(headers["webhook-timestamp"]) <= time.time()
    assert headers["x-webhook-signature"] == hex_signature(webhook["secret"], request.body)
    assert headers["webhook-signature"] == standard_signature(
        webhook["secret"], headers["webhook-id"], headers["webhook-timestamp"], request.body
    )
    assert len(request.names) == len({name.lower() for name in request.names}), "a header came twice"

    (delivery,) = account.wait_history(webhook, "delivered")
    assert delivery["id"] == request.delivery
    assert delivery["eventId"] == event.id
    assert (delivery["event"], delivery["kind"], delivery["attempts"]) == ("click", "event", 1)
    assert delivery["statusCode"] == 200
    assert delivery["errorMessage"] is delivery["errorCode"] is delivery["nextRetryAt"] is None
    assert delivery["responseTimeMs"] > 0


def test_a_click_is_the_api_page_byte_for_byte(account, receiver):
    endpoint = receiver.endpoint()
    account.subscribe(endpoint.url, "click")
    event = account.event(
        linkId="link_1", slug="été", domain="go2.gg", destinationUrl="https://example.com/a?b=c&d=<e>", country="US",
        city='New "York"\n', device="mobile", browser="Chrome", os=None, referrer=None,
    )._replace(timestamp_ms=1_704_110_400_000)  # fmt: skip
    account.stack.producer.send(event)
    (request,) = endpoint.wait()
    assert (
        request.body
        == (
            '{"event":"click","timestamp":"2024-01-01T12:00:00Z","data":{"linkId":"link_1","slug":"été","domain":"go2.gg",'
            '"destinationUrl":"https://example.com/a?b=c&d=<e>","country":"US","city":"New \\"York\\"\\n","device":"mobile",'
            '"browser":"Chrome","os":null,"referrer":null}}'
        ).encode()
    )


def test_an_event_goes_to_every_webhook_that_wants_it_and_to_no_other(account, receiver):
    subscriptions = (["click"], ["click", "link.created"], ["*"], ["*", "click"], ["link.created"])
    endpoints = [receiver.endpoint() for _ in subscriptions]
    for endpoint, events in zip(endpoints, subscriptions, strict=True):
        account.subscribe(endpoint.url, *events)
    for event_type in EventType:
        account.emit(event_type)
    wanted = [sorted(EventType if "*" in events else events) for events in subscriptions]
    for endpoint, events in zip(endpoints, wanted, strict=True):
        requests = endpoint.wait(len(events))
        assert sorted(request.headers["x-webhook-event"] for request in requests) == events
        assert all(json.loads(r.body)["event"] == r.headers["x-webhook-event"] for r in requests)
    assert len({request.delivery for endpoint in endpoints for request in endpoint.requests}) == sum(map(len, wanted))
    same_click = {r.body for e in endpoints for r in e.requests if r.headers["x-webhook-event"] == "click"}
    assert len(same_click) == 1


def test_an_account_sees_and_gets_nothing_of_anothers(new_account, receiver):
    ours, theirs = new_account(), new_account()
    our_endpoint, their_endpoint = receiver.endpoint(), receiver.endpoint()
    our_webhook, their_webhook = ours.subscribe(our_endpoint.url, "*"), theirs.subscribe(their_endpoint.url, "*")
    theirs.emit()
    ours.emit()
    our_endpoint.wait()
    their_endpoint.wait()
    (our_delivery,) = ours.wait_history(our_webhook, "delivered")
    (their_delivery,) = theirs.wait_history(their_webhook, "delivered")
    assert [r.delivery for r in our_endpoint.requests] == [our_delivery["id"]]
    assert [r.delivery for r in their_endpoint.requests] == [their_delivery["id"]]
    path = f"/webhooks/{their_webhook['id']}"
    calls = [
        ("GET", path, None), ("PATCH", path, {"name": "ours"}), ("DELETE", path, None), ("POST", f"{path}/test", None),
        ("GET", f"{path}/deliveries", None), ("POST", f"{path}/rotate-secret", None),
    ]  # fmt: skip
    assert [ours.call(*call).status for call in calls] == [404] * len(calls)
    assert theirs.webhook(their_webhook)["name"] == their_webhook["name"]
    assert [each["id"] for each in ours.call("GET", "/webhooks").data] == [our_webhook["id"]]


def test_webhook_id_can_carry_the_deliverys_id_instead(stack, account, receiver):
    stack.dispatcher.stop()
    other = stack.service("dispatcher", GO2HOOKS_WEBHOOK_ID_HEADER="delivery")
    endpoint = receiver.endpoint()
    account.subscribe(endpoint.url)
    account.emit()
    with other:
        (request,) = endpoint.wait()
    assert request.headers["x-webhook-id"] == request.headers["x-webhook-delivery"]
