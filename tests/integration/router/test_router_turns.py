"""The router's turns: who brings much does not make others wait, and what waits is bounded."""

import time
from collections.abc import Callable
from dataclasses import replace
from math import inf
from typing import Any

import pytest
from confluent_kafka import Message, Producer
from routing import BOUNDS, webhook
from waiting import step_until

from go2hooks.codec import EventCodec
from go2hooks.core.domain.event import Event
from go2hooks.core.domain.matching import SubscriptionIndex
from go2hooks.core.domain.samples import example_payload
from go2hooks.core.domain.webhook import Webhook
from go2hooks.core.flow.fair_queue import FairQueue
from go2hooks.kafka.client import consumer_config, producer_config
from go2hooks.kafka.topics import TopicNames
from go2hooks.producer import new_event_id
from go2hooks.settings import Settings
from services.router import reading, scheduling
from services.router.batch import Batch
from services.router.router import Router
from services.router.writing import Writer

NAMES = TopicNames("go2")

pytestmark = pytest.mark.plain  # they patch the router


@pytest.fixture
def emit_in_order(settings: Settings) -> Callable[..., None]:
    """Write these numbers of events to one partition, one account after the other: `emit_in_order(acc_1=3000, acc_2=1)`."""

    def send(**counts: int) -> None:
        codec, data = EventCodec(), example_payload("click").data
        producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers})
        for account, count in counts.items():
            for _ in range(count):
                event = Event(new_event_id(), account, "click", 1_704_110_400_000, data)
                producer.produce(NAMES.of_event["click"], codec.encode(event), account, partition=0)
        assert producer.flush(20) == 0

    return send


@pytest.fixture
def hooks(account: str) -> tuple[Webhook, Webhook]:
    """Of the account that has a burst, and of another one."""
    return webhook(f"wh_{account}", account, "click"), webhook(f"wh_{account}_other", f"{account}_other", "click")


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch, hooks: tuple[Webhook, Webhook]) -> list[tuple[str, str]]:
    """Topic and webhook of what routers write to these webhooks, in order."""
    order: list[tuple[str, str]] = []
    write, ours = Writer.write, {hook.id for hook in hooks}

    def noting(self: Writer, batch: Batch, event: Message, topic: str, key: str, *rest: Any) -> None:
        if key in ours:
            order.append((topic, key))
        write(self, batch, event, topic, key, *rest)

    monkeypatch.setattr(Writer, "write", noting)
    return order


def set_bounds(router: Router, **bounds: Any) -> None:
    router._bounds = router._scheduler._bounds = replace(BOUNDS, **bounds)


def read_before_routing(router: Router, counts: dict[str, int]) -> None:
    """Let so many events of these accounts wait, and nothing else, before the first is routed; nothing is read after it.

    The log is shared with other tests.
    """
    set_bounds(router, window=0, lookahead=50_000)
    read = router._scheduler._queue
    step_until(router.step, lambda: all(len(read._queues.get(a.encode(), ())) >= count for a, count in counts.items()))
    waiting = router._scheduler._queue = FairQueue()
    while taken := read.take(inf) or read.take_heavy():
        account, item = taken
        if account.decode() in counts:
            waiting.put(account, item, 0.0)
    waiting.sole_key.changed_at = inf  # the last account's events have not been alone for a second
    set_bounds(router, lookahead=0)


def test_an_event_behind_a_burst_of_another_account_overtakes_it(build, emit_in_order, written, account, hooks):
    burst, other = hooks
    emit_in_order(**{account: 2000, other.account_id: 1})
    router = build(burst, other)
    read_before_routing(router, {account: 2000, other.account_id: 1})
    step_until(router.step, lambda: len(written) == 2001)
    place = [webhook_id for _, webhook_id in written].index(other.id)
    assert place <= 1
    assert written[place][0] == NAMES.deliveries
    assert [topic for topic, _ in written[2:]] == [NAMES.overflow] * 999 + [NAMES.deliveries] * 1000


def test_nothing_is_committed_past_an_event_that_waits_for_its_turn(build, emit_in_order, written, account, hooks):
    burst, other = hooks
    emit_in_order(**{account: 2000, other.account_id: 10})
    first = build(burst, other)
    read_before_routing(first, {account: 2000, other.account_id: 10})
    step_until(first.step, lambda: (NAMES.deliveries, other.id) in written)
    before = len(written)
    assert before < 2010
    first.close(10.0)  # what waits is nobody's now, and what has overtaken it is routed again
    second = build(burst, other)
    step_until(second.step, lambda: len(written) >= 2020)
    assert [webhook_id for _, webhook_id in written].count(burst.id) >= 2000
    assert [webhook_id for _, webhook_id in written].count(other.id) == 20


def test_a_turn_ends_in_time_however_long_it_takes_to_write(build, emit_in_order, written, account, hooks, monkeypatch):
    """To a thousand webhooks each, events wait for room to be written; the consumer must be polled meanwhile."""
    monkeypatch.setattr(scheduling, "_TURN", replace(scheduling._TURN, longest_s=0.05))
    write = Writer.write

    def slowly(self: Writer, *rest: Any) -> None:
        time.sleep(0.03)
        write(self, *rest)

    monkeypatch.setattr(Writer, "write", slowly)
    emit_in_order(**{account: 40})
    router = build(*hooks)
    steps: list[int] = []

    def routed() -> bool:
        steps.append(len(written) - sum(steps))
        return len(written) == 40

    step_until(router.step, routed)
    assert max(steps) <= 10


def test_what_is_read_ahead_is_bounded(build, emit_in_order, written, account, hooks):
    emit_in_order(**{account: 500})
    router = build(*hooks)
    set_bounds(router, lookahead=50)
    most = 0

    def routed() -> bool:
        nonlocal most
        most = max(most, len(router._scheduler))
        return len(written) == 500

    step_until(router.step, routed)
    assert most <= 50


def test_a_router_whose_deliveries_find_no_place_stays_in_its_group(
    emit_in_order, account, settings, group, monkeypatch
):
    """Nothing is acknowledged for longer than the group waits for a poll: it must not lose its partitions over that."""
    monkeypatch.setattr(reading, "_READ", replace(reading._READ, poll_at_least_s=1.0))
    nowhere = Settings(kafka_bootstrap_servers="127.0.0.1:1")
    index = SubscriptionIndex()
    index.apply(webhook("wh_1", account, "click"))
    config = consumer_config(settings, group) | {"max.poll.interval.ms": 6000}
    bounds = replace(BOUNDS, window=5, lookahead=100)
    router = Router(config, producer_config(nowhere), NAMES, index, EventCodec(), bounds)
    emit_in_order(**{account: 1500})  # many times what is read ahead
    router.start()
    step_until(router.step, lambda: len(router._scheduler) >= bounds.lookahead)
    thrown_out_by = time.monotonic() + 12
    while time.monotonic() < thrown_out_by:
        router.step()
        assert router.ready
    assert len(router._scheduler) < 2 * bounds.lookahead
    router.close(0.1)
