"""Webhooks by REST, on a real database."""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from go2hooks.core.domain.event import SUBSCRIBABLE
from services.api import create_app

SECONDS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z")
HOOK = {"name": "Click Tracker", "url": "https://your-server.com/webhooks/go2", "events": ["click", "link.created"]}


def stored(database, webhook_id, *columns):
    return database.execute(f"SELECT {', '.join(columns)} FROM webhooks WHERE id = %s", [webhook_id]).fetchone()


# --- create


def test_creating_answers_as_the_page_shows(acme):
    answer = acme("POST", "/webhooks", HOOK)
    assert answer.status_code == 201
    assert answer.mimetype == "application/json"
    assert answer.json["success"] is True
    data = answer.json["data"]
    assert {name: data[name] for name in HOOK} == HOOK
    assert re.fullmatch(r"wh_[0-9A-Za-z]{20,}", data["id"])
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", data["secret"])
    assert data["isActive"] is True
    assert SECONDS.fullmatch(data["createdAt"])
    assert data["consecutiveFailures"] == 0
    assert data["disabledAt"] is None
    assert answer.headers["Location"] == f"/api/v1/webhooks/{data['id']}"
    assert answer.headers["Cache-Control"] == "no-store"


def test_a_time_without_a_fraction_is_shown_in_whole_seconds(acme, database):
    created = acme.create()
    database.execute("UPDATE webhooks SET created_at = '2024-01-01T00:00:00Z', updated_at = '2024-01-01T00:00:00.5Z'")
    shown = acme("GET", f"/webhooks/{created['id']}").json["data"]
    assert (shown["createdAt"], shown["updatedAt"]) == ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00.500Z")


def test_the_secret_is_stored_sealed_and_shown_never_again(acme, database, secret_box):
    created = acme.create()
    [sealed] = stored(database, created["id"], "sealed_secret")
    assert secret_box.open(sealed, created["id"]) == created["secret"]
    assert created["secret"] not in str(database.execute("SELECT * FROM webhooks").fetchall())
    for answer in (
        acme("GET", f"/webhooks/{created['id']}"),
        acme("GET", "/webhooks"),
        acme("PATCH", f"/webhooks/{created['id']}", {"name": "x"}),
    ):
        assert "secret" not in answer.text


def test_every_name_of_the_catalogue_can_be_subscribed_to_in_any_order(acme):
    events = list(reversed(SUBSCRIBABLE))
    assert acme.create(events=events)["events"] == events


@pytest.mark.parametrize(
    ("changes", "field", "says"),
    [
        ({"name": ""}, "name", "1 to 200"),
        ({"name": "   "}, "name", "1 to 200"),
        ({"name": "x" * 201}, "name", "1 to 200"),
        ({"name": "a\x00b"}, "name", "control"),
        ({"name": "a\nb"}, "name", "control"),
        ({"name": "\ud800"}, "name", "surrogate"),
        ({"name": 7}, "name", "string"),
        ({"name": None}, "name", "string"),
        ({"name": ["x"]}, "name", "string"),
        ({"url": "http://example.com"}, "url", "https"),
        ({"url": "https://user:pass@example.com"}, "url", "user name"),
        ({"url": "https://127.0.0.1/"}, "url", "public"),
        ({"url": "https://2130706433/"}, "url", "public"),
        ({"url": "https://[::1]/"}, "url", "public"),
        ({"url": "https://169.254.169.254/latest"}, "url", "public"),
        ({"url": "https://example.com/" + "x" * 3000}, "url", "2048"),
        ({"url": "not a url"}, "url", "URL"),
        ({"url": ""}, "url", "URL"),
        ({"url": "https://\ud800.com"}, "url", ""),
        ({"url": "https://example.com/\x00"}, "url", ""),
        ({"url": 1}, "url", "string"),
        ({"events": []}, "events", "at least one"),
        ({"events": ["clicks"]}, "events", "link.created"),
        ({"events": ["click", "click"]}, "events", "twice"),
        ({"events": ["click"] * 21}, "events", "20"),
        ({"events": "click"}, "events", "array"),
        ({"events": [1]}, "events.0", "string"),
        ({"events": ["\ud800"]}, "events", "unknown"),
        ({"events": ["\x00"]}, "events", "unknown"),
        ({"events": {}}, "events", "array"),
        ({"nmae": "x"}, "nmae", "not a known field"),
        ({"isActive": False}, "isActive", "not a known field"),
        ({"\ud800": 1}, "body", "surrogate"),
        ({"": 1}, "body", "not a known field"),
    ],
)
def test_what_is_wrong_with_a_body_is_said_by_field(acme, database, changes, field, says):
    answer = acme("POST", "/webhooks", HOOK | changes)
    assert answer.status_code == 422, answer.text
    assert answer.json["success"] is False
    assert answer.json["error"]["code"] == "validation_failed"
    [(name, sentence)] = answer.json["error"]["details"].items()
    assert name == field
    assert says in sentence
    assert database.execute("SELECT count(*) FROM webhooks").fetchone() == (0,)


@pytest.mark.parametrize("missing", ["name", "url", "events"])
def test_each_field_of_the_page_is_required(acme, missing):
    answer = acme("POST", "/webhooks", {name: value for name, value in HOOK.items() if name != missing})
    assert answer.status_code == 422
    assert answer.json["error"]["details"] == {missing: "is required"}


def test_all_faults_are_reported_together(acme):
    details = acme("POST", "/webhooks", {"name": "", "url": "x", "extra": 1}).json["error"]["details"]
    assert set(details) == {"name", "url", "events", "extra"}


def test_a_name_is_trimmed_and_may_be_in_any_script(acme):
    assert acme.create(name="  Größe 日本 🚀 ")["name"] == "Größe 日本 🚀"


def test_a_development_setting_permits_local_receivers(api_settings, pool, secret_box, outbox, acme):
    acme.client = create_app(
        api_settings.model_copy(update={"allow_insecure_targets": True}), pool, secret_box, outbox, outbox
    ).test_client()
    assert acme.create(url="http://127.0.0.1:8081/hook")["url"] == "http://127.0.0.1:8081/hook"


def test_the_limit_of_webhooks_holds_however_many_are_created_at_once(
    api_settings, pool, secret_box, outbox, acme, rival
):
    limited = create_app(api_settings.model_copy(update={"webhooks_per_account": 5}), pool, secret_box, outbox, outbox)
    acme.client = limited.test_client()
    rival.client = limited.test_client()

    def create(_number):
        return replace(acme, client=limited.test_client())("POST", "/webhooks", HOOK)

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(create, range(16)))
    assert sorted(answer.status_code for answer in answers) == [201] * 5 + [409] * 11
    refused = next(answer for answer in answers if answer.status_code == 409)
    assert refused.json["error"]["code"] == "webhook_limit_reached"
    rival.create()
    acme("DELETE", f"/webhooks/{acme('GET', '/webhooks').json['data'][0]['id']}")
    acme.create()


# --- list and get


def test_a_list_pages_through_everything_once(acme):
    created = [acme.create(name=f"hook {number}")["id"] for number in range(5)]
    pages = [acme("GET", f"/webhooks?page={page}&perPage=2").json for page in (1, 2, 3, 4)]
    assert [row["id"] for page in pages for row in page["data"]] == created
    assert [page["meta"] for page in pages] == [
        {"page": 1, "perPage": 2, "total": 5, "hasMore": True},
        {"page": 2, "perPage": 2, "total": 5, "hasMore": True},
        {"page": 3, "perPage": 2, "total": 5, "hasMore": False},
        {"page": 4, "perPage": 2, "total": 5, "hasMore": False},
    ]


def test_an_empty_list_is_a_list(acme):
    assert acme("GET", "/webhooks").json == {
        "success": True, "data": [], "meta": {"page": 1, "perPage": 20, "total": 0, "hasMore": False},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("page=0", "page"), ("page=-1", "page"), ("page=x", "page"), ("page=1e9", "page"), ("perPage=0", "perPage"),
        ("perPage=101", "perPage"), ("perPage=", "perPage"), ("per_page=5", "per_page"), ("page=1&page=2", "page"),
        ("page=99999999999999999999999", "page"), ("page=%00", "page"), ("page=%ff", "page"), ("x=1", "x"),
    ],
)  # fmt: skip
def test_a_query_that_makes_no_sense_is_refused_by_name(acme, query, field):
    answer = acme("GET", f"/webhooks?{query}")
    assert answer.status_code == 422
    assert list(answer.json["error"]["details"]) == [field]


def test_details_show_the_whole_webhook(acme):
    created = acme.create()
    del created["secret"]
    assert acme("GET", f"/webhooks/{created['id']}").json == {"success": True, "data": created}


# --- isolation

BY_ID = [
    ("GET", "", None), ("PATCH", "", {"name": "mine now"}), ("DELETE", "", None), ("POST", "/test", None),
    ("GET", "/deliveries", None), ("POST", "/rotate-secret", None),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body"), BY_ID)
def test_another_accounts_webhook_does_not_exist(acme, rival, database, outbox, method, path, body):
    theirs = acme.create()
    before = stored(database, theirs["id"], "*")
    answer = rival(method, f"/webhooks/{theirs['id']}{path}", body)
    missing = rival(method, f"/webhooks/wh_{'0' * 22}{path}", body)
    assert answer.status_code == 404
    assert answer.data == missing.data
    assert stored(database, theirs["id"], "*") == before
    assert outbox.deliveries == []


@pytest.mark.parametrize(
    "webhook_id", ["x", "wh_", "wh_%00", "wh_'--", "%2e%2e", "wh_" + "a" * 65, "wh_\u00e4", "%ff", "wh_a%0a"]
)
@pytest.mark.parametrize(("method", "path", "body"), BY_ID)
def test_what_cannot_be_an_id_is_not_found(acme, method, path, body, webhook_id):
    answer = acme(method, f"/webhooks/{webhook_id}{path}", body)
    assert answer.status_code == 404
    assert answer.json["error"]["code"] in ("webhook_not_found", "not_found")


def test_each_account_lists_its_own(acme, rival):
    mine, theirs = acme.create()["id"], rival.create()["id"]
    assert [row["id"] for row in acme("GET", "/webhooks").json["data"]] == [mine]
    assert [row["id"] for row in rival("GET", "/webhooks").json["data"]] == [theirs]


# --- change


def test_a_change_touches_only_what_it_names(acme):
    created = acme.create()
    del created["secret"]
    for change in ({"name": "new"}, {"url": "https://example.org/x"}, {"events": ["*"]}):
        changed = acme("PATCH", f"/webhooks/{created['id']}", change).json["data"]
        assert changed.pop("updatedAt") > created["updatedAt"]
        created |= change
        assert changed == {name: value for name, value in created.items() if name != "updatedAt"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body"), ({"name": None}, "name"), ({"isActive": "true"}, "isActive"), ({"isActive": 1}, "isActive"),
        ({"isActive": None}, "isActive"), ({"is_active": True}, "is_active"), ({"id": "wh_x"}, "id"),
        ({"secret": "whsec_x"}, "secret"), ({"events": []}, "events"), ({"url": "http://example.com"}, "url"),
        ({"consecutiveFailures": 7}, "consecutiveFailures"),
    ],
)  # fmt: skip
def test_a_change_that_is_not_allowed_is_refused_by_field(acme, body, field):
    created = acme.create()
    answer = acme("PATCH", f"/webhooks/{created['id']}", body)
    assert answer.status_code == 422
    assert list(answer.json["error"]["details"]) == [field]


def test_activating_clears_the_failures_and_the_reason(acme, database):
    created = acme.create()
    database.execute(
        """UPDATE webhooks SET is_active = false, consecutive_failures = 10, failing_since = now(),
           disabled_at = now(), disabled_reason = '10 consecutive failed attempts'"""
    )
    shown = acme("GET", f"/webhooks/{created['id']}").json["data"]
    assert (shown["consecutiveFailures"], shown["disabledReason"]) == (10, "10 consecutive failed attempts")
    changed = acme("PATCH", f"/webhooks/{created['id']}", {"isActive": True}).json["data"]
    assert changed["isActive"] is True
    assert (changed["consecutiveFailures"], changed["disabledAt"], changed["disabledReason"]) == (0, None, None)
    assert stored(database, created["id"], "failing_since") == (None,)


def test_deactivating_says_who_did_it_and_does_so_once(acme):
    created = acme.create()
    first = acme("PATCH", f"/webhooks/{created['id']}", {"isActive": False}).json["data"]
    assert (first["isActive"], first["disabledReason"]) == (False, "disabled_by_user")
    second = acme("PATCH", f"/webhooks/{created['id']}", {"isActive": False}).json["data"]
    assert second["disabledAt"] == first["disabledAt"]


def test_what_operators_are_told_to_run_after_an_outage_enables_what_the_outage_disabled(acme, database):
    page = (Path(__file__).parents[2] / "docs/operators.md").read_text(encoding="utf-8")
    [statement] = re.findall(r"`(UPDATE webhooks SET is_active = true,[^`]*)`", page)
    statement, times = re.subn("…", "%s", statement.replace("%", "%%"))
    assert times == 2
    before, by_outage, by_user, deleted, fine = (acme.create()["id"] for _ in range(5))
    disable = """UPDATE webhooks SET is_active = false, consecutive_failures = 10, failing_since = now(),
                 disabled_at = now() - %s * interval '1 hour', disabled_reason = '10 consecutive failed attempts' WHERE id = %s"""
    for webhook_id, hours_ago in ((before, 3), (by_outage, 0), (deleted, 0)):
        database.execute(disable, [hours_ago, webhook_id])
    acme("PATCH", f"/webhooks/{by_user}", {"isActive": False})
    acme("DELETE", f"/webhooks/{deleted}")
    database.execute(statement, [datetime.now(UTC) - timedelta(hours=1), datetime.now(UTC) + timedelta(hours=1)])
    active = database.execute("SELECT id FROM webhooks WHERE is_active").fetchall()
    assert {webhook_id for [webhook_id] in active} == {by_outage, fine}
    columns = ("consecutive_failures", "failing_since", "disabled_at", "disabled_reason")
    assert stored(database, by_outage, *columns) == (0, None, None, None)


def test_a_change_is_announced_to_router_and_dispatchers(acme, database):
    created = acme.create()
    database.execute("LISTEN go2hooks_webhooks")
    acme("PATCH", f"/webhooks/{created['id']}", {"url": "https://example.org/new"})
    [note] = database.notifies(timeout=5, stop_after=1)
    assert note.payload == created["id"]


# --- rotate


def test_rotating_shows_a_new_secret_and_keeps_the_old_one_for_the_overlap(acme, database, secret_box, api_settings):
    created = acme.create()
    answer = acme("POST", f"/webhooks/{created['id']}/rotate-secret")
    assert answer.status_code == 200
    data = answer.json["data"]
    assert data["secret"] != created["secret"]
    sealed, previous, expires = stored(
        database, created["id"], "sealed_secret", "sealed_previous_secret", "previous_secret_expires_at"
    )
    assert secret_box.open(sealed, created["id"]) == data["secret"]
    assert secret_box.open(previous, created["id"]) == created["secret"]
    overlap = timedelta(seconds=api_settings.secret_overlap_s)
    assert abs(expires - datetime.now(UTC) - overlap) < timedelta(minutes=1)
    assert data["previousSecretExpiresAt"].startswith(f"{expires.astimezone(UTC):%Y-%m-%dT%H:%M:%S}")


def test_rotating_twice_keeps_only_the_last_two(acme, database, secret_box):
    created = acme.create()
    second = acme("POST", f"/webhooks/{created['id']}/rotate-secret").json["data"]["secret"]
    third = acme("POST", f"/webhooks/{created['id']}/rotate-secret", {}).json["data"]["secret"]
    sealed, previous = stored(database, created["id"], "sealed_secret", "sealed_previous_secret")
    assert [secret_box.open(box, created["id"]) for box in (sealed, previous)] == [third, second]


def test_rotations_at_once_leave_a_present_and_a_previous_secret_that_were_both_shown(acme, app, database, secret_box):
    created = acme.create()

    def rotate(_number):
        return replace(acme, client=app.test_client())("POST", f"/webhooks/{created['id']}/rotate-secret").json["data"][
            "secret"
        ]

    with ThreadPoolExecutor(8) as threads:
        secrets = set(threads.map(rotate, range(8)))
    sealed = stored(database, created["id"], "sealed_secret", "sealed_previous_secret")
    left = {secret_box.open(box, created["id"]) for box in sealed}
    assert len(left) == 2
    assert left <= secrets


# --- delete


def test_deleting_leaves_a_tombstone_and_answers_404_from_then_on(acme, database):
    created = acme.create()
    answer = acme("DELETE", f"/webhooks/{created['id']}")
    assert (answer.status_code, answer.json) == (200, {"success": True, "data": {"id": created["id"], "deleted": True}})
    for method, path, body in BY_ID:
        assert acme(method, f"/webhooks/{created['id']}{path}", body).status_code == 404
    assert acme("GET", "/webhooks").json["data"] == []
    assert stored(database, created["id"], "deleted_at IS NOT NULL") == (True,)
