"""Replays through the whole stack: asked for by REST, sent by the replayer, taken by a receiver, counted to the last."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from running import DELAYS_S, Account, Stack, assert_not_early, kill
from waiting import eventually

from go2hooks.devstack.service import ServiceProcess


@pytest.fixture
def replayer(stack: Stack) -> Iterator[ServiceProcess]:
    with stack.service("router.replay", GO2HOOKS_REPLAY_PER_S="500") as service:
        yield service


def begin(account: Account, webhook: dict[str, Any], only: str, **changes: Any) -> dict[str, Any]:
    since = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    return account.call("POST", f"/webhooks/{webhook['id']}/replays", {"from": since, "only": only} | changes).data


def shown(account: Account, replay: dict[str, Any]) -> dict[str, Any]:
    return account.call("GET", f"/webhooks/{replay['webhookId']}/replays/{replay['id']}").data


def done(account: Account, replay: dict[str, Any]) -> dict[str, Any]:
    """The replay, once it is."""
    return eventually(lambda: found if (found := shown(account, replay))["status"] == "done" else None, every_s=0.1)


def counts(replay: dict[str, Any]) -> list[int]:
    return [replay[name] for name in ("matched", "sent", "delivered", "failed", "skipped", "expired")]


@pytest.mark.usefixtures("replayer")
def test_failed_deliveries_are_replayed_through_the_whole_schedule_under_their_ids(account, receiver):
    endpoint = receiver.endpoint(lambda _: 503)
    webhook = account.subscribe(endpoint.url)
    account.emit()
    (failed,) = account.wait_history(webhook, "failed")
    endpoint.answer = lambda request: 503 if request.attempt < 9 else 200  # ten failures would disable it
    replay = done(account, begin(account, webhook, "failed"))
    assert counts(replay) == [1, 1, 1, 0, 0, 0]
    assert [request.attempt for request in endpoint.requests] == list(range(1, 10))
    assert {request.delivery for request in endpoint.requests} == {failed["id"]}
    assert len({request.body for request in endpoint.requests}) == 1
    pairs = zip(endpoint.answered[6:], endpoint.requests[7:], DELAYS_S, strict=False)
    for answered, request, delay_s in pairs:  # the tiers begin anew
        assert_not_early(answered, request.arrived, delay_s)
    (delivery,) = account.wait_history(webhook, "delivered")
    assert (delivery["id"], delivery["kind"], delivery["attempts"]) == (failed["id"], "replay", 9)


@pytest.mark.usefixtures("replayer")
def test_what_was_skipped_while_a_webhook_was_disabled_is_brought_back(account, receiver):
    endpoint = receiver.endpoint()
    webhook = account.subscribe(endpoint.url)
    account.change(webhook, isActive=False)
    for emitted in range(1, 100):  # until the dispatcher knows, deliveries are still sent
        account.emit()
        eventually(lambda emitted=emitted: len(account.history(webhook)) == emitted)
        if [delivery["status"] for delivery in account.history(webhook)].count("skipped") == 3:
            break
    account.change(webhook, isActive=True)
    assert counts(done(account, begin(account, webhook, "skipped"))) == [3, 3, 3, 0, 0, 0]
    assert Counter(request.attempt for request in endpoint.requests)[2] == 3


def test_a_new_webhook_is_filled_with_what_lies_in_the_log_though_the_replayer_is_killed(
    stack, account, receiver, replayer
):
    witness, endpoint = receiver.endpoint(), receiver.endpoint()
    account.subscribe(witness.url)
    sent = account.emit_many(2000)
    assert stack.producer.flush(60) == 0
    witness.wait_deliveries(2000)  # the router has passed them: the new webhook gets none by itself
    webhook = account.subscribe(endpoint.url)
    replay = begin(account, webhook, "missed")
    for enough in (400, 1200):
        eventually(lambda enough=enough: shown(account, replay)["sent"] >= enough)
        kill(replayer)
        replayer.start()
    assert counts(done(account, replay)) == [2000, 2000, 2000, 0, 0, 0]
    assert {each["eventId"] for each in account.history(webhook)} == set(sent)
    assert endpoint.duplicates() == 0
    assert {request.attempt for request in endpoint.requests} == {1}
