"""A delivery that failed for good: looked at, its receiver mended, sent again."""

from recording import Reply


def test_what_failed_is_shown_and_sent_again_with_the_same_bytes_once_its_receiver_is_mended(account, receiver):
    is_mended = False
    endpoint = receiver.endpoint(lambda _: 200 if is_mended else Reply(404, body=b"no such hook"))
    webhook = account.subscribe(endpoint.url, "click")
    account.emit()
    (failed,) = account.wait_history(webhook, "failed")
    assert failed["errorMessage"] == "The receiver answered 404 Not Found: no such hook"
    path = f"/webhooks/{webhook['id']}/deliveries/{failed['id']}"

    detail = account.call("GET", path).data
    assert [each["number"] for each in detail["attempts"]] == [1, 2, 3, 4, 5, 6]
    assert {each["trigger"] for each in detail["attempts"]} == {"schedule"}
    assert {each["remoteAddress"] for each in detail["attempts"]} == {"127.0.0.1"}
    assert {each["responseBody"] for each in detail["attempts"]} == {"no such hook"}
    last = endpoint.requests[-1]
    assert detail["request"]["payload"].encode() == last.body
    sent = {name.lower(): value for name, value in detail["request"]["headers"].items()}
    assert sent.items() <= last.headers.items()
    assert set(last.headers) - set(sent) == {"host", "content-length", "x-webhook-signature", "webhook-signature"}

    again = account.call("POST", f"{path}/redeliver?wait=true")
    assert (again.status, again.data["status"], again.data["attempt"]) == (200, "failed", 7)
    assert again.data["responseBody"] == "no such hook"
    assert account.webhook(webhook)["consecutiveFailures"] == 6  # not counted
    account.call("PATCH", f"/webhooks/{webhook['id']}", {"isActive": False})
    is_mended = True
    again = account.call("POST", f"{path}/redeliver?wait=true")
    assert (again.status, again.data["status"], again.data["attempt"]) == (200, "delivered", 8)

    requests = endpoint.wait(8)
    assert len({request.body for request in requests}) == len({request.delivery for request in requests}) == 1
    assert [request.attempt for request in requests] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert all("x-webhook-test" not in request.headers for request in requests)
    (listed,) = account.history(webhook)
    assert (listed["status"], listed["attempts"], listed["kind"]) == ("delivered", 8, "redeliver")
    assert [each["trigger"] for each in account.call("GET", path).data["attempts"][-2:]] == ["redeliver"] * 2


def test_a_test_event_says_that_it_is_one(account, receiver):
    endpoint = receiver.endpoint()
    webhook = account.subscribe(endpoint.url, "click", "qr.scanned")
    answer = account.call("POST", f"/webhooks/{webhook['id']}/test?wait=true", {"event": "qr.scanned"})
    assert answer.data["delivered"]
    (request,) = endpoint.wait()
    assert (request.headers["x-webhook-test"], request.headers["x-webhook-event"]) == ("true", "qr.scanned")
    detail = account.call("GET", f"/webhooks/{webhook['id']}/deliveries/{answer.data['id']}").data
    assert detail["request"]["payload"].encode() == request.body
    assert detail["request"]["headers"]["X-Webhook-Test"] == "true"
