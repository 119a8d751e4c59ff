"""ETags and PATCH: nobody overwrites what they have not seen, and what GET shows can be edited and sent back."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from calling import HOOK, Caller

MERGE_PATCH = "application/merge-patch+json"


def etag_of(caller, hook):
    return caller("GET", f"/webhooks/{hook}").headers["ETag"]


@pytest.fixture
def hook(acme):
    return acme.create()["id"]


def test_every_answer_that_shows_a_webhook_names_its_version(acme):
    created = acme("POST", "/webhooks", HOOK)
    path = f"/webhooks/{created.json['data']['id']}"
    assert created.headers["ETag"] == acme("GET", path).headers["ETag"]
    changed = acme("PATCH", path, {"name": "x"})
    assert changed.headers["ETag"] == acme("GET", path).headers["ETag"] != created.headers["ETag"]
    rotated = acme("POST", f"{path}/rotate-secret")
    assert rotated.headers["ETag"] == acme("GET", path).headers["ETag"] != changed.headers["ETag"]


@pytest.mark.parametrize(
    "column", ["consecutive_failures = 3", "is_active = false", "updated_at = updated_at + '1 us'"]
)
def test_the_version_is_another_whenever_the_webhook_is(acme, hook, database, column):
    before = etag_of(acme, hook)
    assert etag_of(acme, hook) == before
    database.execute(f"UPDATE webhooks SET {column}")
    assert etag_of(acme, hook) != before


@pytest.mark.parametrize(("method", "path"), [("PATCH", ""), ("DELETE", ""), ("POST", "/rotate-secret")])
def test_a_change_of_a_version_that_is_no_more_is_refused(acme, hook, database, method, path):
    old = etag_of(acme, hook)
    acme("PATCH", f"/webhooks/{hook}", {"name": "Newer"})
    body = {"name": "Mine"} if method == "PATCH" else None
    before = database.execute("SELECT * FROM webhooks").fetchall()
    refused = acme(method, f"/webhooks/{hook}{path}", body, headers={"If-Match": old})
    assert (refused.status_code, refused.json["error"]["code"]) == (412, "precondition_failed")
    assert database.execute("SELECT * FROM webhooks").fetchall() == before
    now = {"If-Match": f'"other", {etag_of(acme, hook)}'}
    assert acme(method, f"/webhooks/{hook}{path}", body, headers=now).status_code == 200


@pytest.mark.parametrize(
    ("given", "status"), [("*", 200), ("W/{}", 412), ('"x"', 412), ("", 412), ("nonsense", 412), ("{}", 200)]
)
def test_if_match_is_read_as_the_standard_has_it(acme, hook, given, status):
    headers = {"If-Match": given.format(etag_of(acme, hook))}
    assert acme("PATCH", f"/webhooks/{hook}", {"name": "x"}, headers=headers).status_code == status


def test_without_such_a_webhook_it_is_a_404_whatever_the_version(acme):
    assert acme("PATCH", "/webhooks/wh_0", {"name": "x"}, headers={"If-Match": '"x"'}).status_code == 404


def test_of_two_changes_of_the_same_version_at_once_one_is_made(acme, app, hook):
    callers = [Caller(app.test_client(), "acme", acme.key) for _ in range(2)]
    for n in range(5):
        headers, start = {"If-Match": etag_of(acme, hook)}, threading.Barrier(2)

        def change(number, headers=headers, start=start, n=n):
            start.wait(20)
            return callers[number]("PATCH", f"/webhooks/{hook}", {"name": f"{n}.{number}"}, headers=headers)

        with ThreadPoolExecutor(2) as threads:
            answers = list(threads.map(change, range(2)))
        assert sorted(answer.status_code for answer in answers) == [200, 412]
        [made] = (answer.json["data"]["name"] for answer in answers if answer.status_code == 200)
        assert acme("GET", f"/webhooks/{hook}").json["data"]["name"] == made


def test_a_reader_that_has_the_version_is_told_so_without_it(acme, hook):
    etag = etag_of(acme, hook)
    for known in (etag, f"W/{etag}", f'"x", {etag}', "*"):
        answer = acme("GET", f"/webhooks/{hook}", headers={"If-None-Match": known})
        assert (answer.status_code, answer.data, answer.headers["ETag"]) == (304, b"", etag)
    acme("PATCH", f"/webhooks/{hook}", {"name": "x"})
    assert acme("GET", f"/webhooks/{hook}", headers={"If-None-Match": etag}).status_code == 200


# --- what PATCH takes


@pytest.mark.parametrize("content_type", [MERGE_PATCH, f"{MERGE_PATCH}; charset=utf-8", "application/json"])
def test_a_merge_patch_is_taken_by_its_name(acme, hook, content_type):
    answer = acme("PATCH", f"/webhooks/{hook}", data=b'{"name": "x"}', headers={"Content-Type": content_type})
    assert (answer.status_code, answer.json["data"]["name"]) == (200, "x")


def test_a_merge_patch_is_nothing_to_post(acme):
    answer = acme("POST", "/webhooks", data=json.dumps(HOOK).encode(), headers={"Content-Type": MERGE_PATCH})
    assert answer.status_code == 415


def test_what_is_shown_can_be_edited_and_sent_back_whole(acme, hook, database):
    database.execute("UPDATE webhooks SET is_active = false, disabled_at = now(), disabled_reason = 'x'")
    shown = acme("GET", f"/webhooks/{hook}").json["data"]
    answer = acme("PATCH", f"/webhooks/{hook}", shown | {"name": "Edited"})
    assert answer.status_code == 200, answer.text
    assert answer.json["data"] | {"updatedAt": ""} == shown | {"name": "Edited", "updatedAt": ""}


@pytest.mark.parametrize(
    ("field", "value"),
    [("id", "wh_0"), ("createdAt", "2024-01-01T00:00:00Z"), ("updatedAt", None), ("consecutiveFailures", 7),
     ("disabledAt", "2024-01-01T00:00:00Z"), ("disabledReason", "x"), ("secret", "whsec_x"),
     ("previousSecretExpiresAt", None)],
)  # fmt: skip
def test_what_is_read_only_says_so_when_it_is_changed(acme, hook, field, value):
    answer = acme("PATCH", f"/webhooks/{hook}", {"name": "x", field: value})
    assert answer.status_code == 422
    assert answer.json["error"]["details"] == {field: "is read-only: leave it out, or send it as it is shown"}
    assert acme("GET", f"/webhooks/{hook}").json["data"]["name"] == HOOK["name"]


@pytest.mark.parametrize("field", ["name", "url", "events", "isActive"])
def test_what_a_webhook_must_have_cannot_be_removed(acme, hook, field):
    answer = acme("PATCH", f"/webhooks/{hook}", {field: None})
    assert (answer.status_code, list(answer.json["error"]["details"])) == (422, [field])
