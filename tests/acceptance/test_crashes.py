"""`kill -9`, SIGTERM and restarts in the middle of a stream: every event arrives, and repeats are few or none."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from recording import Endpoint, Reply
from running import DELAYS_S, Account, Stack, assert_not_early, kill, metric
from waiting import eventually

from go2hooks.devstack.service import ServiceProcess

STREAM = 2000
UNDER_WAY = 64 + 200  # sends at once to one webhook, and what was sent but not yet recorded


def slowly(_request: object) -> Reply:
    """Keeps a stream under way for some seconds, and some of it always unanswered."""
    return Reply(delay_s=0.05)


def event_ids(account: Account, webhook: dict[str, Any]) -> Counter[str]:
    """How often each event is in the history."""
    return Counter(delivery["eventId"] for delivery in account.history(webhook))


@pytest.fixture
def stream(stack: Stack, account: Account, receiver, record_property) -> Callable[[Callable[[], None]], Endpoint]:
    """Sends a stream, interrupts it by what it is given, and checks that all of it arrived and is recorded once."""

    def run(interrupt: Callable[[], None]) -> Endpoint:
        endpoint = receiver.endpoint(slowly)
        webhook = account.subscribe(endpoint.url)
        sent = account.emit_many(STREAM // 2)
        endpoint.wait_deliveries(STREAM // 10)
        interrupt()
        sent += account.emit_many(STREAM - len(sent))
        assert stack.producer.flush(60) == 0
        endpoint.wait_deliveries(STREAM)
        eventually(lambda: set(event_ids(account, webhook)) == set(sent), every_s=0.2)
        assert set(event_ids(account, webhook).values()) == {1}
        assert {each["status"] for each in account.history(webhook)} == {"delivered"}
        assert stack.producer.failed == 0
        record_property("duplicates", endpoint.duplicates())
        print(f"{endpoint.duplicates()} of {STREAM} deliveries came twice")
        return endpoint

    return run


@pytest.mark.parametrize("name", ["router", "dispatcher", "api"])
def test_nothing_is_lost_when_a_service_is_killed(stack, stream, name):
    service: ServiceProcess = getattr(stack, name)

    def interrupt() -> None:
        kill(service)
        stack.mend()

    endpoint = stream(interrupt)
    # A router's replay is recognised; what a dispatcher had sent and not yet recorded comes again.
    assert endpoint.duplicates() <= (UNDER_WAY if name == "dispatcher" else 0)


@pytest.mark.parametrize("name", ["router", "dispatcher"])
def test_nothing_is_lost_or_repeated_when_a_service_is_stopped(stack, stream, name):
    service: ServiceProcess = getattr(stack, name)

    def interrupt() -> None:
        service.ask_to_stop()
        assert eventually(lambda: service.exit_status() is not None, every_s=0.05)
        assert service.exit_status() == 0, service.obituary()
        stack.mend()

    assert stream(interrupt).duplicates() == 0


def test_a_waiting_retry_is_neither_lost_nor_hurried_by_a_restart(stack, account, receiver):
    endpoint = receiver.endpoint(lambda request: 500 if request.attempt <= 4 else 200)
    webhook = account.subscribe(endpoint.url)
    account.emit()
    endpoint.wait(4)
    kill(stack.dispatcher)  # while the retry waits in its tier, or at worst before its failure is recorded
    stack.mend()
    endpoint.wait_until(lambda: endpoint.requests[-1].attempt == 5)
    account.wait_history(webhook, "delivered")
    failed = next(at for at, r in zip(endpoint.answered, endpoint.requests, strict=False) if r.attempt == 4)
    assert_not_early(failed, endpoint.requests[-1].arrived, DELAYS_S[3])


@pytest.fixture
def second_dispatcher(stack: Stack) -> Iterator[ServiceProcess]:
    with stack.service("dispatcher", "-2") as service:
        yield service


def attempts(service: ServiceProcess) -> float:
    return metric(service, 'go2hooks_attempts_total{outcome="delivered"}')


def test_two_dispatchers_share_the_work_and_one_takes_over_when_the_other_is_killed(
    stack, account, receiver, second_dispatcher, record_property
):
    endpoints = [receiver.endpoint(slowly) for _ in range(16)]
    for endpoint in endpoints:
        account.subscribe(endpoint.url)
    account.emit_many(50)
    for endpoint in endpoints:
        endpoint.wait_deliveries(50)
    eventually(lambda: attempts(second_dispatcher) >= 50)
    assert attempts(stack.dispatcher) >= 50

    sent_at = time.monotonic()
    account.emit_many(100)
    endpoints[0].wait_deliveries(60)
    kill(second_dispatcher)
    for endpoint in endpoints:
        endpoint.wait_deliveries(150)
    record_property("taken_over_s", round(time.monotonic() - sent_at, 1))
    repeated = sum(endpoint.duplicates() for endpoint in endpoints)
    record_property("duplicates", repeated)
    assert repeated <= 16 * UNDER_WAY
    assert all(json.loads(endpoint.requests[-1].body)["event"] == "click" for endpoint in endpoints)
