"""What a webhook's customer allows and asks for: a rate, so many at once, headers, a filter."""

import time

from recording import Reply, Request
from running import IN_FORCE_S

RATE = 10


def test_what_exceeds_the_rate_waits_its_turn_and_delays_nobody_else(account, receiver):
    limited, other = receiver.endpoint(), receiver.endpoint()
    webhook = account.subscribe(limited.url)
    account.change(webhook, rateLimit=RATE)
    account.subscribe(other.url)
    time.sleep(IN_FORCE_S)
    began = time.time()
    account.emit_many(70)  # 51 of them are more than wait in memory
    other.wait(70)
    assert other.requests[-1].arrived - began < 5
    limited.wait(70)
    arrived = [request.arrived for request in limited.requests]
    assert RATE - 1 <= 69 / (arrived[-1] - arrived[0]) <= RATE + 1
    # A receiver that is held up sees two seconds' requests in one, but never one ahead of its time.
    assert all(number <= RATE * (at - began) + RATE + 1 for number, at in enumerate(arrived, start=1))
    assert [request.attempt for request in limited.requests] == [1] * 70
    assert limited.duplicates() == 0


def test_one_at_a_time_is_one_at_a_time_retries_and_test_events_included(account, receiver):
    def answer(request: Request) -> Reply:
        return Reply(500 if b'"slug":"fails-once"' in request.body and request.attempt == 1 else 200, delay_s=0.05)

    endpoint = receiver.endpoint(answer)
    webhook = account.subscribe(endpoint.url)
    account.change(webhook, maxConcurrency=1)
    time.sleep(IN_FORCE_S)
    account.emit(slug="fails-once")
    account.emit(slug="fails-once")
    account.emit_many(8)
    account.call("POST", f"/webhooks/{webhook['id']}/test")
    endpoint.wait(13)
    pairs = zip(endpoint.answered, endpoint.requests[1:], strict=False)
    assert all(answered <= following.arrived for answered, following in pairs)


def test_own_headers_and_a_filter_are_in_force_within_a_second(account, receiver):
    endpoint = receiver.endpoint()
    webhook = account.subscribe(endpoint.url)
    secret = {"Authorization": {"value": "Bearer x", "secret": True}}
    account.change(webhook, headers={"X-Tenant": "acme"} | secret, filter={"slug": [{"prefix": "sale-"}]})
    time.sleep(IN_FORCE_S)
    account.emit()
    account.emit(slug="sale-1")
    (request,) = endpoint.wait(1)
    assert b'"slug":"sale-1"' in request.body
    assert (request.headers["x-tenant"], request.headers["authorization"]) == ("acme", "Bearer x")
    (delivery,) = account.wait_history(webhook, "delivered")
    assert "Bearer x" not in str(account.call("GET", f"/webhooks/{webhook['id']}/deliveries").data), delivery
