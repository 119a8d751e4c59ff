"""Kafka and Postgres go away under load and come back: everything arrives, and no service has to be restarted."""

import itertools
import os
import signal
import threading
import time

import pytest
from recording import Reply, Request
from running import Stack, metric
from waiting import eventually

from go2hooks.devstack.server import Server
from go2hooks.devstack.service import ServiceProcess

EVENTS = 600


def services(stack: Stack) -> tuple[ServiceProcess, ...]:
    return stack.api, stack.router, stack.dispatcher


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
@pytest.mark.parametrize("name", ["broker", "database"])
def test_an_outage_under_load_heals_by_itself(stack, account, receiver, record_property, name, kill):
    server: Server = getattr(stack, name)
    pids = [service.pid for service in services(stack)]
    endpoint = receiver.endpoint(lambda _: Reply(delay_s=0.02))
    webhook = account.subscribe(endpoint.url)
    sent: list[str] = []
    go_on = threading.Event()
    go_on.set()

    def load() -> None:
        while len(sent) < EVENTS and go_on.is_set():
            sent.extend(account.emit_many(1))
            time.sleep(0.01)

    loading = threading.Thread(target=load)
    loading.start()
    try:
        endpoint.wait_deliveries(EVENTS // 10)
        server.wait_stopped(0) if kill else server.stop()
        eventually(lambda: not stack.api.is_ready(), every_s=0.1)
        assert account.call("POST", f"/webhooks/{webhook['id']}/test").status == 503
        server.start()
        server.wait_ready()
    finally:
        back = time.monotonic()
        loading.join(60)
        go_on.clear()
    assert stack.producer.flush(60) == 0
    endpoint.wait_deliveries(EVENTS)
    record_property("recovered_s", round(time.monotonic() - back, 1))
    record_property("duplicates", endpoint.duplicates())
    eventually(lambda: len(account.history(webhook)) == EVENTS, every_s=0.2)
    history = account.history(webhook)
    assert {each["eventId"] for each in history} == set(sent)
    assert {each["status"] for each in history} == {"delivered"}
    assert endpoint.duplicates() == 0
    for service in services(stack):
        eventually(service.is_ready, every_s=0.1)
    assert [service.pid for service in services(stack)] == pids
    assert all(service.exit_status() is None for service in services(stack))


def test_a_pause_of_kafka_disables_nobody_who_succeeded_in_between(stack, account, receiver):
    """While it lasts, attempts that succeeded are recorded, and those that failed wait until their retries are kept."""
    turns = itertools.count()

    def every_other(_request: Request) -> Reply:
        turn = next(turns)
        return Reply(500 if turn % 2 else 200, delay_s=0.02 if paused.is_set() else 1.5)

    paused = threading.Event()
    endpoint = receiver.endpoint(every_other)
    webhook = account.subscribe(endpoint.url)
    account.emit_many(40)
    series = "go2hooks_dispatcher_in_flight", 'go2hooks_dispatcher_queued{place="lanes"}'
    eventually(lambda: sum(metric(stack.dispatcher, each) for each in series) == 40)
    assert stack.broker.pid is not None
    os.kill(stack.broker.pid, signal.SIGSTOP)
    try:
        paused.set()
        endpoint.wait(40)
        eventually(lambda: len(account.history(webhook)) == 20, every_s=0.1)  # those that succeeded
    finally:
        os.kill(stack.broker.pid, signal.SIGCONT)
    eventually(lambda: len(account.history(webhook)) == 40, every_s=0.1)
    assert account.webhook(webhook)["isActive"]
