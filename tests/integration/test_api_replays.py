"""Replays by REST, on a real database: what may be asked for, by whom, and how many at once."""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import pytest
from calling import Caller

from go2hooks.postgres.api_keys import Scope, create_key
from services.api import create_app

HOUR_AGO = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
WANTED = {"from": HOUR_AGO, "only": "failed"}


@pytest.fixture
def webhook_id(acme):
    return acme.create()["id"]


def start(caller, webhook_id, **changes):
    return caller("POST", f"/webhooks/{webhook_id}/replays", WANTED | changes)


def test_a_replay_is_accepted_shown_listed_and_stopped(acme, webhook_id):
    answer = start(acme, webhook_id, events=["click"])
    assert answer.status_code == 202
    replay = answer.json["data"]
    assert re.fullmatch(r"rpl_[0-9a-f]{24}", replay["id"])
    assert (replay["webhookId"], replay["only"], replay["events"]) == (webhook_id, "failed", ["click"])
    assert (replay["status"], replay["matched"], replay["sent"], replay["finishedAt"]) == ("pending", 0, 0, None)
    path = answer.headers["Location"].removeprefix("/api/v1")
    assert acme("GET", path).json["data"] == replay
    listed = acme("GET", f"/webhooks/{webhook_id}/replays").json
    assert (listed["data"], listed["meta"]["total"]) == ([replay], 1)
    stopped = acme("DELETE", path).json["data"]
    assert (stopped["status"], stopped["finishedAt"] is None) == ("stopped", False)
    assert acme("DELETE", path).json["data"] == stopped  # once more changes nothing
    entries = acme("GET", f"/webhooks/{webhook_id}/audit").json["data"]
    assert [each["action"] for each in entries[:2]] == ["webhook.replay_stopped", "webhook.replay_started"]
    assert entries[1]["changes"]["only"] == {"from": None, "to": "failed"}


def test_the_range_ends_now_unless_it_is_to_end_before(acme, webhook_id):
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    end = datetime.fromisoformat(start(acme, webhook_id, to=tomorrow).json["data"]["to"])
    assert abs(end - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"from": "yesterday"}, "from"),
        ({"from": "2024-01-01T00:00:00"}, "from"),
        ({"from": 5}, "from"),
        ({"from": None}, "from"),
        ({"from": "2999-01-01T00:00:00Z"}, "from"),
        ({"to": "2020-01-01T00:00:00Z"}, "from"),
        ({"to": []}, "to"),
        ({"only": "lost"}, "only"),
        ({"only": None}, "only"),
        ({"events": []}, "events"),
        ({"events": ["clack"]}, "events"),
        ({"events": ["qr.scanned"]}, "events"),  # which it does not subscribe to
        ({"rate": 5}, "rate"),
    ],
)
def test_what_is_wrong_with_a_replay_is_named(acme, changes, field):
    webhook_id = acme.create(events=["click"])["id"]
    answer = start(acme, webhook_id, **changes)
    assert answer.status_code == 422
    assert list(answer.json["error"]["details"]) == [field]


def test_a_webhook_has_one_replay_at_a_time(acme, webhook_id):
    first = start(acme, webhook_id).json["data"]["id"]
    answer = start(acme, webhook_id)
    assert (answer.status_code, answer.json["error"]["code"]) == (409, "replay_running")
    assert answer.json["error"]["details"] == {"replay": first}
    acme("DELETE", f"/webhooks/{webhook_id}/replays/{first}")
    assert start(acme, webhook_id).status_code == 202


def test_of_two_that_are_asked_for_at_the_same_moment_one_begins(acme, webhook_id):
    with ThreadPoolExecutor() as threads:
        answers = list(threads.map(lambda _: start(acme, webhook_id).status_code, range(4)))
    assert sorted(answers) == [202, 409, 409, 409]


def test_an_account_has_so_many_at_a_time(api_settings, pool, secret_box, outbox, acme):
    app = create_app(replace_limit(api_settings, 2), pool, secret_box, outbox, outbox)
    limited = replace(acme, client=app.test_client())
    hooks = [acme.create()["id"] for _ in range(3)]
    answers = [start(limited, webhook_id) for webhook_id in hooks]
    assert [answer.status_code for answer in answers] == [202, 202, 409]
    assert answers[-1].json["error"]["code"] == "replay_limit_reached"


def replace_limit(settings, limit):
    return settings.model_copy(update={"replays_per_account": limit})


def test_a_disabled_webhook_is_to_be_enabled_first(acme, webhook_id):
    acme("PATCH", f"/webhooks/{webhook_id}", {"isActive": False})
    answer = start(acme, webhook_id)
    assert (answer.status_code, answer.json["error"]["code"]) == (409, "webhook_disabled")


def test_another_account_s_replays_do_not_exist(acme, rival, webhook_id):
    replay = start(acme, webhook_id).json["data"]["id"]
    own = rival.create()["id"]
    for method, path, body in (
        ("POST", f"/webhooks/{webhook_id}/replays", WANTED),
        ("GET", f"/webhooks/{webhook_id}/replays", None),
        ("GET", f"/webhooks/{webhook_id}/replays/{replay}", None),
        ("DELETE", f"/webhooks/{webhook_id}/replays/{replay}", None),
        ("GET", f"/webhooks/{own}/replays/{replay}", None),
        ("DELETE", f"/webhooks/{own}/replays/{replay}", None),
        ("GET", f"/webhooks/{own}/replays/rpl_x", None),
    ):
        assert rival(method, path, body).status_code == 404
    assert acme("GET", f"/webhooks/{webhook_id}/replays/{replay}").json["data"]["status"] == "pending"


def test_a_deleted_webhook_s_replays_are_gone(acme, webhook_id):
    replay = start(acme, webhook_id).json["data"]["id"]
    acme("DELETE", f"/webhooks/{webhook_id}")
    assert acme("GET", f"/webhooks/{webhook_id}/replays/{replay}").status_code == 404


RECORD = """INSERT INTO attempts (webhook_id, created_at, delivery_id, attempt, account_id, event_id, event, kind, state, attempted_at,
                                  kafka_topic, kafka_partition, kafka_offset)
            SELECT %(webhook)s, now() - %(age)s::interval, %(delivery)s || n, %(attempt)s, 'acme', 'evt_1', %(event)s, %(kind)s, %(state)s,
                   now(), %(topic)s, 0, 1 FROM generate_series(1, %(count)s) n"""


@pytest.fixture
def recorded(database, webhook_id):
    """`recorded("skipped", 3)` records so many deliveries, ten minutes old and named by their state."""

    def record(state, count=1, **changes):
        known = {"webhook": webhook_id, "state": state, "count": count, "delivery": state, "age": "10 minutes",
                 "attempt": 1, "event": "click", "kind": "event", "topic": "go2.deliveries"}  # fmt: skip
        with database.transaction():  # now() is one time, so that a later attempt belongs to the same delivery
            for values in (known, *changes.pop("then", ())):
                database.execute(RECORD, known | values | changes)

    return record


def estimate(caller, webhook_id, **query):
    return caller("GET", f"/webhooks/{webhook_id}/replay-estimate?{urlencode({'from': HOUR_AGO, **query})}")


def matched(answer):
    assert answer.status_code == 200, answer.text
    return answer.json["data"]["matched"], answer.json["data"]["toLookThrough"]


def test_an_estimate_counts_what_would_be_sent_from_the_records(acme, webhook_id, recorded):
    recorded("skipped", 3)
    recorded("failed", 2)
    recorded("skipped", delivery="old", age="2 hours")
    recorded("skipped", delivery="test", kind="test")
    recorded("skipped", delivery="lost", topic=None)
    recorded("failed", delivery="again", then=[{"state": "delivered", "attempt": 2}])
    recorded("failed", delivery="other", event="qr.scanned")  # which it does not subscribe to any more
    assert matched(estimate(acme, webhook_id, only="skipped")) == (3, 5)
    assert matched(estimate(acme, webhook_id, only="failed")) == (2, 4)
    assert matched(estimate(acme, webhook_id, only="failed", events="link.created")) == (0, 4)
    assert acme("GET", f"/webhooks/{webhook_id}/replays").json["data"] == []


def test_an_estimate_of_very_many_records_only_counts_these(acme, webhook_id, recorded):
    recorded("skipped", 5001)
    assert matched(estimate(acme, webhook_id, only="skipped")) == (None, 5001)


def test_an_estimate_of_what_only_the_log_knows_is_so_many_messages(acme, webhook_id, outbox):
    for only in ("missed", "all"):
        assert matched(estimate(acme, webhook_id, only=only, events="click")) == (None, 12_345)
    account, events, begin, end = outbox.counted[0]
    assert (account, events) == ("acme", ["click"])
    assert begin == datetime.fromisoformat(HOUR_AGO)
    assert abs(end - datetime.now(UTC)) < timedelta(minutes=1)
    outbox.is_away = True
    assert estimate(acme, webhook_id, only="all").status_code == 503


def test_an_estimate_is_given_of_a_disabled_webhook_and_to_who_may_only_read(app, database, acme, webhook_id, recorded):
    recorded("skipped")
    acme("PATCH", f"/webhooks/{webhook_id}", {"isActive": False})
    reader = Caller(app.test_client(), "acme", create_key(database, "acme", scopes=[Scope.READ]).key)
    assert matched(estimate(reader, webhook_id, only="skipped")) == (1, 1)


def test_what_is_wrong_with_the_question_for_an_estimate_is_named(acme, rival, webhook_id):
    assert estimate(rival, webhook_id, only="failed").status_code == 404
    for wrong in (
        {"only": "lost"},
        {"events": "clack", "only": "all"},
        {"from": "2999-01-01T00:00:00Z", "only": "all"},
    ):
        answer = estimate(acme, webhook_id, **wrong)
        assert (answer.status_code, list(answer.json["error"]["details"])) == (422, [next(iter(wrong))])
