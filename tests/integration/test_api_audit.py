"""The audit log: every change of an account is in it, with its author and without a secret, newest first."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from calling import HOOK
from psycopg import AsyncConnection

from go2hooks.core.domain.delivery import Kind
from go2hooks.core.domain.outcome import Failure, State
from go2hooks.core.domain.record import AttemptRecord
from go2hooks.postgres import audit
from go2hooks.postgres.api_keys import create_key, revoke_key
from go2hooks.postgres.attempts import GONE_REASON, DisablePolicy, write_batch
from go2hooks.postgres.audit import command_line, fingerprint, forget_old
from go2hooks.postgres.key_rotation import reseal_all
from go2hooks.postgres.secrets import SecretBox

NOW_MS = round(datetime.now(UTC).timestamp() * 1000)


def entries(caller, path="/audit", **query):
    answer = caller("GET", path, query_string={"perPage": 100} | query)
    assert answer.status_code == 200, answer.text
    return answer.json["data"]


@pytest.fixture
def key_id(acme, database):
    return database.execute("SELECT id FROM api_keys WHERE account_id = 'acme'").fetchone()[0]


def failed(webhook_id, **changes):
    return AttemptRecord(
        webhook_id, NOW_MS, f"dlv_{webhook_id}", 1, "acme", "evt_1", "click", Kind.EVENT, State.RETRYING, 500, 1.0, None,
        None, None, NOW_MS, None, None,
    )._replace(**changes)  # fmt: skip


def test_a_change_is_told_with_its_fields_before_and_after_its_author_and_address(acme, key_id):
    hook = acme.create()["id"]
    acme("PATCH", f"/webhooks/{hook}", {"name": "New", "events": ["*"]}, environ_base={"REMOTE_ADDR": "203.0.113.9"})
    [changed, created] = entries(acme, f"/webhooks/{hook}/audit")
    assert re.fullmatch(r"\d{4}-.*Z", changed["at"])
    assert changed | {"at": ""} == {
        "at": "",
        "actor": {"type": "key", "id": key_id},
        "action": "webhook.updated",
        "webhookId": hook,
        "changes": {
            "name": {"from": HOOK["name"], "to": "New"},
            "events": {"from": HOOK["events"], "to": ["*"]},
        },
        "address": "203.0.113.9",
    }
    assert created["action"] == "webhook.created"
    assert created["changes"] == {
        name: {"from": None, "to": value} for name, value in (HOOK | {"isActive": True}).items()
    }


def test_disabling_enabling_and_deleting_have_names_of_their_own(acme):
    hook = acme.create()["id"]
    for active in (False, True):
        acme("PATCH", f"/webhooks/{hook}", {"isActive": active})
    acme("DELETE", f"/webhooks/{hook}")
    assert acme("GET", f"/webhooks/{hook}/audit").status_code == 404
    told = entries(acme, webhook=hook)
    names = [entry["action"] for entry in told]
    assert names == ["webhook.deleted", "webhook.enabled", "webhook.disabled", "webhook.created"]
    assert told[2]["changes"] == {
        "isActive": {"from": True, "to": False},
        "disabledReason": {"from": None, "to": "disabled_by_user"},
    }
    assert told[0]["changes"]["url"] == {"from": HOOK["url"], "to": None}


def test_a_secret_is_told_by_its_fingerprint_alone(acme, database):
    created = acme.create()
    rotated = acme("POST", f"/webhooks/{created['id']}/rotate-secret").json["data"]
    [entry, _] = entries(acme, f"/webhooks/{created['id']}/audit")
    assert entry["action"] == "webhook.secret_rotated"
    pair = {"from": fingerprint(created["secret"]), "to": fingerprint(rotated["secret"])}
    assert entry["changes"] == {"secret": pair}
    assert all(re.fullmatch("[0-9a-f]{8}", each) for each in pair.values())
    everything = str(database.execute("SELECT * FROM audit_log").fetchall())
    assert created["secret"] not in everything
    assert rotated["secret"] not in everything


def test_a_secret_that_no_key_opens_can_still_be_replaced(acme, database):
    created = acme.create()
    database.execute("UPDATE webhooks SET sealed_secret = '\\x00'")
    assert acme("POST", f"/webhooks/{created['id']}/rotate-secret").status_code == 200
    assert entries(acme)[0]["changes"]["secret"]["from"] is None


def test_keys_that_are_made_and_deleted_are_told_of_and_never_shown(acme, key_id):
    made = acme("POST", "/keys", {"name": "CI", "scopes": ["read"]}).json["data"]
    acme("DELETE", f"/keys/{made['id']}")
    [revoked, created, first] = entries(acme)
    assert (revoked["action"], created["action"]) == ("key.revoked", "key.created")
    assert created["changes"] == {
        "id": {"from": None, "to": made["id"]},
        "name": {"from": None, "to": "CI"},
        "scopes": {"from": None, "to": ["read"]},
    }
    assert revoked["changes"]["id"] == {"from": made["id"], "to": None}
    assert (created["webhookId"], created["actor"]["id"]) == (None, key_id)
    assert first["actor"] == {"type": "cli", "id": command_line().id}  # it was not made by a request
    assert made["key"] not in acme("GET", "/audit").text


def test_what_the_command_line_changes_is_told_too(acme, database, secret_box, api_settings):
    hook = acme.create()["id"]
    revoke_key(database, create_key(database, "acme", "x").id)
    reseal_all(database, SecretBox([b"n" * 32, *api_settings.encryption_keys()]))
    told = entries(acme)[:3]
    assert [entry["action"] for entry in told] == ["webhook.secret_resealed", "key.revoked", "key.created"]
    assert {entry["actor"]["type"] for entry in told} == {"cli"}
    assert told[0]["webhookId"] == hook
    assert told[0]["changes"]["encryptionKey"]["to"] == fingerprint(b"n" * 32)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({}, "1 consecutive failed attempts"),
        # After the webhook was made, however long after this module was read that is.
        ({"error_code": Failure.GONE, "attempted_ms": NOW_MS + 86_400_000}, GONE_REASON),
    ],
    ids=["failures", "gone"],
)
async def test_a_webhook_that_is_disabled_for_its_failures_has_the_system_for_its_author(
    acme, database_url, record, reason
):
    disabled, other = acme.create()["id"], acme.create()["id"]
    policy = DisablePolicy(1 if not record else 10)
    async with await AsyncConnection.connect(database_url, autocommit=True) as connection:
        await write_batch(connection, [failed(disabled, **record), failed(other, state=State.DELIVERED)], policy)
        await write_batch(connection, [failed(disabled, delivery_id="dlv_2", **record)], policy)
    [entry, _] = entries(acme, f"/webhooks/{disabled}/audit")
    assert (entry["action"], entry["actor"]["type"], entry["address"]) == ("webhook.disabled", "system", None)
    assert entry["changes"]["disabledReason"] == {"from": None, "to": reason}
    assert len(entries(acme, f"/webhooks/{other}/audit")) == 1


def test_what_is_refused_or_changes_nothing_leaves_no_entry(acme):
    hook = acme.create()["id"]
    before = len(entries(acme))
    acme("PATCH", f"/webhooks/{hook}", {"name": HOOK["name"]})
    acme("PATCH", f"/webhooks/{hook}", {"url": "ftp://x"})
    acme("PATCH", "/webhooks/wh_0", {"name": "x"})
    acme("POST", f"/webhooks/{hook}/test")
    assert len(entries(acme)) == before


def test_a_change_that_is_not_committed_leaves_no_entry(acme, database):
    """Both are in one transaction: here Postgres refuses the change after its entry could have been written."""
    hook = acme.create()["id"]
    before = entries(acme)
    database.execute(
        """CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
           BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '53100'; END $$;
           CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON webhooks DEFERRABLE INITIALLY DEFERRED
           FOR EACH ROW EXECUTE FUNCTION refuse()"""
    )
    assert acme("PATCH", f"/webhooks/{hook}", {"name": "x"}).status_code == 503
    assert entries(acme) == before
    assert acme("GET", f"/webhooks/{hook}").json["data"]["name"] == HOOK["name"]


def test_pages_follow_each_other_whatever_is_added_meanwhile(acme):
    hook = acme.create()["id"]
    for n in range(5):
        acme("PATCH", f"/webhooks/{hook}", {"name": f"{n}"})
    for path in ("/audit", f"/webhooks/{hook}/audit"):
        whole, pages, cursor = entries(acme, path), [], {}
        while True:
            answer = acme("GET", path, query_string={"perPage": 2} | cursor).json
            pages += answer["data"]
            acme("PATCH", f"/webhooks/{hook}", {"name": f"meanwhile {len(pages)} {path}"})
            if not answer["meta"]["hasMore"]:
                break
            cursor = {"cursor": answer["meta"]["nextCursor"]}
        assert pages == whole


def test_a_cursor_is_only_good_for_the_list_that_gave_it(acme, rival):
    hook = acme.create()["id"]
    acme("PATCH", f"/webhooks/{hook}", {"name": "x"})
    paths = ("/audit", f"/webhooks/{hook}/audit")
    cursors = [acme("GET", path, query_string={"perPage": 1}).json["meta"]["nextCursor"] for path in paths]
    wrong = [(paths[0], cursors[1]), (paths[1], cursors[0]), (paths[0], "x"), (paths[0], "é"), (paths[0], "A" * 5000)]
    for path, cursor in wrong:
        answer = acme("GET", path, query_string={"cursor": cursor})
        assert answer.json["error"]["details"] == {"cursor": "is not one that this list gave"}
    assert rival("GET", "/audit", query_string={"cursor": cursors[0]}).status_code == 422


def test_a_webhook_that_cannot_be_is_refused(acme):
    assert list(acme("GET", "/audit?webhook=nonsense").json["error"]["details"]) == ["webhook"]


def test_another_accounts_changes_are_not_there(acme, rival):
    hook = acme.create()["id"]
    for path in (hook, "wh_0", "nonsense"):
        assert rival("GET", f"/webhooks/{path}/audit").status_code == 404
    assert hook not in rival("GET", "/audit").text
    assert entries(rival, webhook=hook) == []


async def test_entries_are_forgotten_after_the_retention(acme, database, database_url):
    acme.create()
    database.execute("UPDATE audit_log SET at = now() - interval '31 days' WHERE action = 'key.created'")
    async with await AsyncConnection.connect(database_url, autocommit=True) as connection:
        await forget_old(connection, 32)
        assert len(entries(acme)) == 2
        await forget_old(connection, 30)
    assert [entry["action"] for entry in entries(acme)] == ["webhook.created"]


@pytest.mark.parametrize("of_webhook", [False, True])
def test_a_page_is_read_along_an_index(acme, database, of_webhook):
    hook = acme.create()["id"]
    database.execute(
        """INSERT INTO audit_log (account_id, webhook_id, at, actor_type, actor_id, action, changes)
           SELECT 'acme', %s, now() - n * interval '1 s', 'key', 'k', 'webhook.updated', '{}' FROM generate_series(1, 20000) n""",
        [hook],
    )
    database.execute("ANALYZE audit_log")
    query = audit._PAGE_OF_WEBHOOK if of_webhook else audit._PAGE
    below = datetime.now(UTC) - timedelta(hours=1)
    values = {"account": "acme", "webhook": hook, "limit": 21, "below": below, "below_id": 5}
    plan = "\n".join(row[0] for row in database.execute(f"EXPLAIN (ANALYZE, BUFFERS) {query}", values, prepare=False))
    assert "Sort" not in plan
    assert "Rows Removed" not in plan
    assert {float(rows) for rows in re.findall(r"rows=([\d.]+) loops", plan)} == {21}
