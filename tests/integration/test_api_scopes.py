"""What a key may do and until when, and `/keys`, by which keys are managed."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from calling import HOOK, Caller
from waiting import eventually

from go2hooks.postgres import api_keys
from go2hooks.postgres.api_keys import Scope, create_key

READER = {"name": "Reader", "scopes": ["read"]}


@pytest.fixture
def with_scopes(app, database):
    """`with_scopes("read")`: acme's way to the API by a key with these alone."""
    return lambda *scopes: Caller(app.test_client(), "acme", create_key(database, "acme", "", scopes).key)


@pytest.mark.parametrize(
    ("scope", "reading", "writing", "managing"),
    [(Scope.READ, 200, 403, 403), (Scope.WRITE, 200, 201, 403), (Scope.ADMIN, 200, 201, 200)],
)
def test_a_key_does_what_its_scope_allows_and_is_told_which_one_it_lacks(
    with_scopes, scope, reading, writing, managing
):
    caller = with_scopes(scope)
    answers = [caller("GET", "/webhooks"), caller("POST", "/webhooks", HOOK), caller("GET", "/keys")]
    assert [answer.status_code for answer in answers] == [reading, writing, managing]
    for answer, needed in zip(answers, Scope, strict=True):
        if answer.status_code == 403:
            assert answer.json["error"]["code"] == "insufficient_scope"
            assert f"with the scope {needed};" in answer.json["error"]["message"]
            assert f'scope="{needed}"' in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_a_reading_key_changes_nothing(acme, with_scopes, method):
    hook = acme.create()["id"]
    body = {"name": "x"} if method == "PATCH" else None
    assert with_scopes("read")(method, f"/webhooks/{hook}", body).status_code == 403
    assert acme("GET", f"/webhooks/{hook}").json["data"]["name"] == HOOK["name"]


def test_a_key_that_writes_makes_no_keys(with_scopes, database):
    writer = with_scopes("write", "read")
    assert writer("POST", "/keys", READER | {"scopes": ["admin"]}).status_code == 403
    assert database.execute("SELECT count(*) FROM api_keys").fetchone() == (1,)


def test_an_expired_key_is_refused_and_told_so(app, database):
    created = create_key(database, "acme", expires_at=datetime.now(UTC) + timedelta(hours=1))
    caller = Caller(app.test_client(), "acme", created.key)
    assert caller("GET", "/webhooks").status_code == 200
    database.execute("UPDATE api_keys SET expires_at = '2024-01-01T00:00:00Z'")
    answer = caller("GET", "/webhooks")
    assert (answer.status_code, answer.json["error"]["code"]) == (401, "invalid_api_key")
    assert answer.json["error"]["message"] == "This API key expired at 2024-01-01T00:00:00Z."


def test_the_use_of_a_key_is_noted_once_a_minute(acme, database):
    def last_used():
        return database.execute("SELECT last_used_at FROM api_keys").fetchone()[0]

    assert last_used() is None
    acme("GET", "/webhooks").close()
    first = last_used()
    assert datetime.now(UTC) - first < timedelta(seconds=30)
    acme("GET", "/webhooks").close()
    assert last_used() == first
    database.execute("UPDATE api_keys SET last_used_at = now() - interval '61 s'")
    acme("GET", "/webhooks").close()
    assert last_used() > first


def test_no_request_waits_for_the_note_of_a_keys_use(acme, database, database_url):
    """Somebody else has the row: it is left alone."""
    with database.transaction():
        database.execute("SELECT 1 FROM api_keys FOR UPDATE")
        assert acme("GET", "/webhooks").status_code == 200
    acme("GET", "/webhooks").close()
    assert eventually(lambda: database.execute("SELECT last_used_at FROM api_keys").fetchone()[0])


def test_a_made_key_is_shown_once_and_listed_without_itself(acme, rival):
    end = "2999-01-01T00:00:00Z"
    answer = acme("POST", "/keys", {"name": "CI", "scopes": ["read", "write"], "expiresAt": end})
    assert answer.status_code == 201
    made = answer.json["data"]
    assert answer.headers["Location"] == f"/api/v1/keys/{made['id']}"
    assert made["key"].startswith("go2_")
    shown = {name: value for name, value in made.items() if name != "key"}
    assert shown | {"createdAt": ""} == {
        "id": made["id"], "name": "CI", "scopes": ["read", "write"], "expiresAt": end, "lastUsedAt": None, "createdAt": ""
    }  # fmt: skip
    assert acme("GET", f"/keys/{made['id']}").json["data"] == shown
    listed = acme("GET", "/keys?perPage=1&page=2").json
    assert listed["data"] == [shown]
    assert listed["meta"] == {"page": 2, "perPage": 1, "total": 2, "hasMore": False}
    assert made["key"] not in acme("GET", "/keys").text
    assert made["id"] not in rival("GET", "/keys").text
    assert Caller(acme.client, "acme", made["key"])("GET", "/webhooks").status_code == 200


@pytest.mark.parametrize(
    ("change", "field"),
    [({"scopes": []}, "scopes"), ({"scopes": ["root"]}, "scopes"), ({"scopes": ["read", "read"]}, "scopes"),
     ({"scopes": "read"}, "scopes"), ({"scopes": [1]}, "scopes.0"), ({"name": ""}, "name"), ({"name": None}, "name"),
     ({"expiresAt": "2020-01-01T00:00:00Z"}, "expiresAt"), ({"expiresAt": "soon"}, "expiresAt"),
     ({"expiresAt": 5}, "expiresAt"), ({"expiresAt": "2999-01-01"}, "expiresAt"), ({"id": "key_1"}, "id")],
)  # fmt: skip
def test_what_a_key_cannot_be_is_refused_by_field(acme, change, field):
    answer = acme("POST", "/keys", READER | change)
    assert answer.status_code == 422
    assert list(answer.json["error"]["details"]) == [field]


def test_a_deleted_key_is_refused_at_once_and_gone_from_the_list(acme):
    made = acme("POST", "/keys", READER).json["data"]
    reader = Caller(acme.client, "acme", made["key"])
    assert reader("GET", "/webhooks").status_code == 200
    assert acme("DELETE", f"/keys/{made['id']}").json["data"] == {"id": made["id"], "deleted": True}
    assert reader("GET", "/webhooks").status_code == 401
    assert acme("DELETE", f"/keys/{made['id']}").status_code == 404
    assert made["id"] not in acme("GET", "/keys").text


def test_another_accounts_key_is_not_there(acme, rival):
    made = rival("POST", "/keys", READER).json["data"]
    for path in (made["id"], "key_0", "nonsense", "wh_1"):
        for method in ("GET", "DELETE"):
            answer = acme(method, f"/keys/{path}")
            assert (answer.status_code, answer.json["error"]["code"]) == (404, "key_not_found")
    assert Caller(rival.client, "rival", made["key"])("GET", "/webhooks").status_code == 200


def test_the_last_key_that_manages_keys_stays(acme, database):
    [own] = (key["id"] for key in acme("GET", "/keys").json["data"])
    ended = create_key(database, "acme", "ended", ["admin"])
    database.execute("UPDATE api_keys SET expires_at = now() WHERE id = %s", [ended.id])
    answer = acme("DELETE", f"/keys/{own}")
    assert (answer.status_code, answer.json["error"]["code"]) == (409, "last_admin_key")
    other = acme("POST", "/keys", READER | {"scopes": ["admin"]}).json["data"]
    assert acme("DELETE", f"/keys/{own}").status_code == 200
    assert acme("GET", "/webhooks").status_code == 401
    assert Caller(acme.client, "acme", other["key"])("GET", "/keys").status_code == 200


def test_two_admins_that_delete_each_other_leave_one(app, acme, database):
    other = acme("POST", "/keys", READER | {"scopes": ["admin"]}).json["data"]
    callers = [Caller(app.test_client(), "acme", key) for key in (acme.key, other["key"])]
    [own] = (key["id"] for key in acme("GET", "/keys").json["data"] if key["id"] != other["id"])
    with ThreadPoolExecutor(2) as threads:
        pairs = zip(callers, (other["id"], own), strict=True)
        done = list(threads.map(lambda pair: pair[0]("DELETE", f"/keys/{pair[1]}").status_code, pairs))
    assert done.count(200) == 1
    assert len([key for key in api_keys.standing_keys(database, "acme") if "admin" in key.scopes]) == 1


def test_an_account_has_a_bounded_number_of_keys(acme, database):
    database.execute(
        """INSERT INTO api_keys (id, account_id, key_hash)
           SELECT 'key_' || n, 'acme', sha256(n::text::bytea) FROM generate_series(1, 999) n"""
    )
    answer = acme("POST", "/keys", READER)
    assert (answer.status_code, answer.json["error"]["code"]) == (409, "key_limit_reached")
