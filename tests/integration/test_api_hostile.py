"""Nothing that a caller sends is answered with HTML, a stack trace or a 5xx; and without a key with nothing at all."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from go2hooks.postgres.api_keys import revoke_key

HOOK = {"name": "Click Tracker", "url": "https://your-server.com/webhooks/go2", "events": ["click"]}
JSON = {"Content-Type": "application/json"}


def is_enveloped(answer):
    """The contract's error: a code in snake case, one sentence, details."""
    assert answer.mimetype == "application/json", answer.text
    body = json.loads(answer.data)
    assert body["success"] is False
    assert set(body["error"]) == {"code", "message", "details"}
    assert body["error"]["code"] == body["error"]["code"].lower()
    assert isinstance(body["error"]["details"], dict)
    return True


# --- keys


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Basic Zm9vOmJhcg==", "bearer go2_wrong", "Bearer go2_wrong", "Bearer ' OR 1=1 --",
     "Bearer \u00e4\u00f6", "Bearer " + "x" * 8000, "Token go2_x"],
)  # fmt: skip
@pytest.mark.parametrize(
    "path", ["/webhooks", "/webhooks/wh_1", "/webhooks/wh_1/deliveries", "/webhooks/nonsense", "/event-types"]
)
def test_without_a_valid_key_there_is_nothing_but_401(app, header, path):
    headers = {} if header is None else {"Authorization": header}
    answer = app.test_client().get(f"/api/v1{path}", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert is_enveloped(answer)


def test_the_scheme_is_read_in_any_case(acme):
    assert acme("GET", "/webhooks", headers={"Authorization": f"bearer {acme.key}"}).status_code == 200


def test_a_revoked_key_is_refused_at_once(acme, database):
    [key_id] = database.execute("SELECT id FROM api_keys WHERE account_id = 'acme'").fetchone()
    assert acme("GET", "/webhooks").status_code == 200
    revoke_key(database, key_id)
    assert acme("GET", "/webhooks").status_code == 401


# --- bodies


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b"", 400, "not valid JSON"),
        (b"{", 400, "line 1"),
        (b"{'name': 1}", 400, "line 1"),
        (b"\xff\xfe", 400, "UTF-8"),
        (b'{"name": "\xff"}', 400, "UTF-8"),
        (b'\xef\xbb\xbf{"name": "x"}', 422, ""),  # a byte order mark is no fault; the fields that are missing are
        ('{"name": "x"}'.encode("utf-16"), 400, "it is UTF-16, not UTF-8"),
        (b'{"name": NaN}', 400, "NaN"),
        (b'{"name": Infinity}', 400, "Infinity"),
        (b'{"name": "a", "name": "b"}', 400, "twice"),
        (b'{"name": "a\x01b"}', 400, "control character"),
        (b'{"name": ' + b"9" * 5000 + b"}", 400, "too long"),
        (b'{"name": 1e999}', 422, ""),
        (b"[" * 60000, 400, "nested"),
        (b'{"a":' * 10000, 400, "nested"),
        (b"[]", 422, "object"),
        (b"null", 422, "object"),
        (b'"x"', 422, "object"),
        (b"{}", 422, "name"),
        (b'{"name": "x"} trailing', 400, "extra data"),
        (b" " * 70000, 413, "too large"),
        (json.dumps(HOOK | {"name": "x" * 66000}).encode(), 413, "too large"),
        (json.dumps(dict.fromkeys(map(str, range(5000)), 1)).encode(), 422, "0"),
    ],
)
def test_a_malformed_body_is_answered_with_what_is_wrong(acme, body, status, says):
    answer = acme("POST", "/webhooks", data=body, headers=JSON)
    assert answer.status_code == status, answer.text
    assert is_enveloped(answer)
    assert says in answer.json["error"]["message"]
    assert len(answer.data) < 10_000


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonp", "text/json"]
)
@pytest.mark.parametrize(
    ("method", "path"), [("POST", ""), ("PATCH", "/ID"), ("POST", "/ID/test"), ("POST", "/ID/rotate-secret")]
)
def test_a_body_that_does_not_call_itself_json_is_refused(acme, method, path, content_type):
    hook = acme.create()["id"]
    path = path.replace("ID", hook)
    answer = acme(method, f"/webhooks{path}", data=b'{"name": "x"}', headers={"Content-Type": content_type})
    assert answer.status_code == 415
    assert is_enveloped(answer)


def test_a_compressed_body_is_refused_rather_than_unpacked(acme):
    answer = acme("POST", "/webhooks", data=b"\x1f\x8b", headers=JSON | {"Content-Encoding": "gzip"})
    assert answer.status_code == 415


def test_a_charset_beside_the_content_type_is_fine(acme):
    headers = {"Content-Type": "application/json; charset=utf-8"}
    assert acme("POST", "/webhooks", data=json.dumps(HOOK).encode(), headers=headers).status_code == 201


def test_an_idempotency_key_of_another_account_answers_nothing_of_it(acme, rival):
    headers = {"Idempotency-Key": "9f2c"}
    answers = [caller("POST", "/webhooks", HOOK, headers=headers).json["data"] for caller in (acme, rival)]
    assert len({answer["id"] for answer in answers}) == len({answer["secret"] for answer in answers}) == 2
    assert [caller("GET", "/webhooks").json["meta"]["total"] for caller in (acme, rival)] == [1, 1]


@pytest.mark.parametrize(
    "text", ["'; DROP TABLE webhooks; --", "%s %(x)s {} $1", "\\'", "<script>alert(1)</script>", "${jndi:ldap://x}"]
)
def test_a_name_is_only_ever_a_name(acme, text):
    created = acme.create(name=text)
    assert acme("GET", f"/webhooks/{created['id']}").json["data"]["name"] == text
    answer = acme("GET", f"/webhooks/{created['id']}")
    assert (answer.mimetype, answer.headers["X-Content-Type-Options"]) == ("application/json", "nosniff")


# --- addresses and methods


@pytest.mark.parametrize("path", ["/api", "/api/v1", "/api/v2/webhooks", "/api/v1/webhooks/wh_1/nope", "/api/v1/%00", "/favicon.ico",
                                  "//api/v1/webhooks", "/api/v1//webhooks", "/static/x", "/api/v1/webhooks/../webhooks"])  # fmt: skip
def test_an_unknown_address_is_a_404_in_the_envelope(app, path):
    answer = app.test_client().get(path)
    assert answer.status_code == 404
    assert is_enveloped(answer)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/webhooks", "GET, HEAD, POST"),
        ("DELETE", "/webhooks", "GET, HEAD, POST"),
        ("OPTIONS", "/webhooks", "GET, HEAD, POST"),
        ("POST", "/webhooks/wh_1", "DELETE, GET, HEAD, PATCH"),
        ("PUT", "/webhooks/wh_1", "DELETE, GET, HEAD, PATCH"),
        ("GET", "/webhooks/wh_1/test", "POST"),
        ("GET", "/webhooks/wh_1/rotate-secret", "POST"),
        ("POST", "/webhooks/wh_1/deliveries", "GET, HEAD"),
        ("TRACE", "/webhooks", "GET, HEAD, POST"),
        ("BREW", "/webhooks", "GET, HEAD, POST"),
    ],
)
def test_a_method_that_is_not_there_is_a_405_that_names_the_others(acme, method, path, allowed):
    answer = acme(method, path)
    assert answer.status_code == 405
    assert answer.headers["Allow"] == allowed
    assert is_enveloped(answer)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from(["name", "url", "events", "isActive", "id", "event", "\x00", "ü"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=30)
            | st.sampled_from(["\ud800", "\x00", "*", "click", "https://example.com", "https://[", "https://\udfff", "//x"]),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
            max_leaves=6,
        ),
        max_size=5,
    )
)  # fmt: skip
def test_no_json_object_brings_the_api_down(acme, body):
    raw = json.dumps(body).encode()
    path = f"/webhooks/wh_{'0' * 22}"
    for method, where in (
        ("POST", "/webhooks"),
        ("PATCH", path),
        ("POST", f"{path}/test"),
        ("POST", f"{path}/rotate-secret"),
    ):
        answer = acme(method, where, data=raw, headers=JSON)
        assert answer.status_code in (201, 400, 404, 409, 422), (method, where, raw, answer.text)
        json.loads(answer.data)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["cursor", "perPage", "status", "event", "since", "until", "page", "wait"]), st.text(max_size=40)
)
def test_no_query_brings_the_api_down(acme, name, value):
    for method, path in (("GET", "/webhooks"), ("GET", "/webhooks/wh_1/deliveries"), ("POST", "/webhooks/wh_1/test")):
        answer = acme(method, path, query_string={name: value.encode("utf-8", "surrogatepass")})
        assert answer.status_code in (200, 404, 422), (path, name, value, answer.text)
