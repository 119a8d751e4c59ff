"""What a webhook may be told beyond where its events go, by REST."""

import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from go2hooks.postgres.secrets import Purpose

SETTINGS = {
    "description": "Sale links of the German shop",
    "metadata": {"team": "growth", "ünïcode": "✓"},
    "headers": {"X-Tenant": "acme"},
    "rateLimit": 2.5,
    "maxConcurrency": 3,
    "filter": {"domain": ["go2.gg"], "country": ["DE", None], "slug": [{"prefix": "sale-"}]},
}
NOT_SET = {
    "description": None,
    "metadata": {},
    "headers": {},
    "rateLimit": None,
    "maxConcurrency": None,
    "filter": None,
}
TOKEN = "Bearer planted-token-of-a-receiver"
SECRET = {"Authorization": {"value": TOKEN, "secret": True}}
HIDDEN = {"Authorization": {"value": None, "secret": True}}
HOOK = {"name": "n", "url": "https://example.com/hook", "events": ["click"]}


def settings_of(webhook):
    return {name: webhook[name] for name in SETTINGS}


def path_of(webhook):
    return f"/webhooks/{webhook['id']}"


def sealed_headers(database, webhook):
    return database.execute("SELECT sealed_headers FROM webhooks WHERE id = %s", [webhook["id"]]).fetchone()[0]


def test_a_webhook_has_no_settings_until_it_gets_some(acme):
    assert settings_of(acme.create()) == NOT_SET


def test_all_settings_are_taken_at_creation_and_shown(acme):
    created = acme.create(events=["click"], **SETTINGS)
    assert settings_of(created) == SETTINGS
    assert settings_of(acme("GET", path_of(created)).json["data"]) == SETTINGS
    assert settings_of(acme("GET", "/webhooks").json["data"][0]) == SETTINGS


def test_each_setting_is_changed_alone_and_removed_by_null(acme):
    created = acme.create(events=["click"])
    expected = dict(NOT_SET)
    for name, value in SETTINGS.items():
        expected[name] = value
        assert settings_of(acme("PATCH", path_of(created), {name: value}).json["data"]) == expected
    for name in SETTINGS:
        expected[name] = NOT_SET[name]
        assert settings_of(acme("PATCH", path_of(created), {name: None}).json["data"]) == expected


def test_what_is_shown_may_be_sent_back(acme):
    created = acme.create(events=["click"], **SETTINGS | {"headers": {"X-Tenant": "acme"} | SECRET})
    shown = settings_of(acme("GET", path_of(created)).json["data"])
    assert settings_of(acme("PATCH", path_of(created), shown).json["data"]) == shown


# --- headers


def test_a_secret_header_is_sealed_and_never_shown_again(acme, database, secret_box):
    created = acme.create(headers={"X-Tenant": "acme"} | SECRET)
    assert created["headers"] == {"X-Tenant": "acme"} | HIDDEN
    opened = secret_box.open(sealed_headers(database, created), created["id"], Purpose.HEADERS)
    assert json.loads(opened) == {"Authorization": TOKEN}
    assert TOKEN not in str(database.execute("SELECT * FROM webhooks").fetchall())
    for answer in (
        acme("GET", path_of(created)),
        acme("GET", "/webhooks"),
        acme("PATCH", path_of(created), {"name": "x"}),
        acme("POST", f"{path_of(created)}/rotate-secret"),
    ):
        assert TOKEN not in answer.text


@pytest.mark.parametrize("left_out", [{"secret": True}, {"value": None, "secret": True}])
@pytest.mark.parametrize("name", ["Authorization", "authorization"])
def test_a_secret_value_that_is_left_out_stays(acme, database, secret_box, left_out, name):
    created = acme.create(headers=SECRET)
    changed = acme("PATCH", path_of(created), {"headers": {name: left_out, "X-New": "1"}})
    assert changed.json["data"]["headers"] == {name: {"value": None, "secret": True}, "X-New": "1"}
    opened = secret_box.open(sealed_headers(database, created), created["id"], Purpose.HEADERS)
    assert json.loads(opened) == {name: TOKEN}


def test_a_header_that_is_left_out_is_gone(acme, database):
    created = acme.create(headers=SECRET | {"X-Tenant": "acme"})
    assert acme("PATCH", path_of(created), {"headers": {"X-Tenant": "b"}}).json["data"]["headers"] == {"X-Tenant": "b"}
    assert sealed_headers(database, created) is None
    assert acme("PATCH", path_of(created), {"headers": {}}).json["data"]["headers"] == {}


def test_a_value_that_nobody_has_given_cannot_be_kept(acme):
    refused = acme("POST", "/webhooks", HOOK | {"headers": HIDDEN})
    assert refused.status_code == 422
    assert '"Authorization" has no value that could be kept' in refused.json["error"]["details"]["headers"]
    assert acme("GET", "/webhooks").json["meta"]["total"] == 0


def test_a_plain_header_can_be_made_secret_as_it_is(acme, database, secret_box):
    created = acme.create(headers={"X-Token": "abc"})
    changed = acme("PATCH", path_of(created), {"headers": {"X-Token": {"secret": True}}}).json["data"]
    assert changed["headers"] == {"X-Token": {"value": None, "secret": True}}
    assert "abc" in secret_box.open(sealed_headers(database, created), created["id"], Purpose.HEADERS)


@pytest.mark.parametrize(
    ("headers", "rule"),
    [
        ([], "must be an object"),
        ({"X-A": 1}, '"X-A" must be a string or'),
        ({"X-A": {"value": "a", "sealed": True}}, '"X-A" must be a string or'),
        ({"X-A": {"value": "a", "secret": "yes"}}, '"X-A" must be a string or'),
        ({"X-A": {"value": None}}, '"X-A" must be a string or'),
        ({"": "a"}, "HTTP token"),
        ({"X A": "a"}, "HTTP token"),
        ({"X-A:": "a"}, "HTTP token"),
        ({"X-Ä": "a"}, "HTTP token"),
        ({"X-A\n": "a"}, "HTTP token"),
        ({"x" * 101: "a"}, "name of 101 characters"),
        ({"X-A": "a\r\nX-Evil: 1"}, "printable ASCII"),
        ({"X-A": "a\n"}, "printable ASCII"),
        ({"X-A": "a\0"}, "printable ASCII"),
        ({"X-A": "é"}, "printable ASCII"),
        ({"X-A": " a"}, "printable ASCII"),
        ({"X-A": ""}, "1 to 1024"),
        ({"X-A": "a" * 1025}, "1 to 1024"),
        ({"Content-Type": "a"}, "set by Go2 Webhooks"),
        ({"content-length": "1"}, "set by Go2 Webhooks"),
        ({"HOST": "a"}, "set by Go2 Webhooks"),
        ({"X-Webhook-ID": "a"}, "set by Go2 Webhooks"),
        ({"webhook-id": "a"}, "set by Go2 Webhooks"),
        ({"Accept-Encoding": "gzip"}, "set by Go2 Webhooks"),
        ({"Connection": "close"}, "hop-by-hop"),
        ({"Transfer-Encoding": "chunked"}, "hop-by-hop"),
        ({"Proxy-Authorization": "a"}, "hop-by-hop"),
        ({"Expect": "100-continue"}, "hop-by-hop"),
        ({"X-Hub-Signature-256": "a"}, "named like a signature"),
        ({"Signature-Input": "a"}, "named like a signature"),
        ({"X-Hmac": "a"}, "named like a signature"),
        ({f"X-{n}": "a" for n in range(21)}, "more than 20"),
        ({"X-A": "a", "x-a": "b"}, "twice"),
        ({f"X-{n}": "a" * 1000 for n in range(5)}, "more than 4096"),
    ],
)
def test_a_header_that_is_not_the_customers_to_set_is_refused_by_its_rule(acme, headers, rule):
    refused = acme("POST", "/webhooks", HOOK | {"headers": headers})
    assert refused.status_code == 422
    assert rule in refused.json["error"]["details"]["headers"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(name=st.text(max_size=5) | st.just("X-A"), value=st.text(max_size=8))
def test_whatever_is_sent_as_a_header_is_one_line_or_refused(acme, name, value):
    answer = acme("POST", "/webhooks", HOOK | {"headers": {name: value}})
    if answer.status_code == 201:
        assert re.fullmatch(r"[!#-'*+.\-0-9A-Z^-z|~]+: [\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?", f"{name}: {value}")
        acme("DELETE", path_of(answer.json["data"]))
    else:
        assert (answer.status_code, list(answer.json["error"]["details"])) == (422, ["headers"])


# --- the others


@pytest.mark.parametrize(
    ("changes", "field", "rule"),
    [
        ({"description": "x" * 501}, "description", "500"),
        ({"description": "a\0b"}, "description", "NUL"),
        ({"description": "\ud800"}, "description", "surrogate"),
        ({"description": 1}, "description", "string"),
        ({"metadata": ["a"]}, "metadata", "object"),
        ({"metadata": {str(n): "v" for n in range(21)}}, "metadata", "20 keys"),
        ({"metadata": {"k" * 41: "v"}}, "metadata", "1 to 40 characters"),
        ({"metadata": {"": "v"}}, "metadata", "1 to 40 characters"),
        ({"metadata": {"k": "v" * 501}}, "metadata", "500 characters"),
        ({"metadata": {"k": "a\0b"}}, "metadata", "NUL"),
        ({"metadata": {"k": 1}}, "metadata.k", "string"),
        ({"rateLimit": 0}, "rateLimit", "0.1"),
        ({"rateLimit": -1}, "rateLimit", "0.1"),
        ({"rateLimit": 1000.5}, "rateLimit", "1000"),
        ({"rateLimit": True}, "rateLimit", "number"),
        ({"rateLimit": "5"}, "rateLimit", "number"),
        ({"maxConcurrency": 0}, "maxConcurrency", "1"),
        ({"maxConcurrency": 1001}, "maxConcurrency", "1000"),
        ({"maxConcurrency": 1.5}, "maxConcurrency", "whole number"),
        ({"filter": {"slug": "launch"}}, "filter", '"slug" must be an array'),
        ({"filter": {"county": ["DE"]}}, "filter", "unknown: 'county'; the data of click has linkId, slug"),
        ({"filter": ["DE"]}, "filter", "object"),
        ({"filter": {"a\0": ["x"]}}, "filter", "NUL"),
        ({"filter": {"\ud800": ["x"]}}, "filter", "surrogate"),
        ({"metadata": {"\ud800": "x"}}, "metadata", "surrogate"),
        ({"headers": {"\ud800": "x"}}, "headers", "HTTP token"),
    ],
)
def test_a_setting_out_of_bounds_is_refused_by_name_and_rule(acme, changes, field, rule):
    created = acme.create(events=["click"])
    for answer in (acme("POST", "/webhooks", HOOK | changes), acme("PATCH", path_of(created), changes)):
        assert answer.status_code == 422, answer.text
        assert rule in answer.json["error"]["details"][field]
    assert settings_of(acme("GET", path_of(created)).json["data"]) == NOT_SET


def test_a_filter_has_to_fit_the_events_whichever_of_the_two_changes(acme):
    created = acme.create(events=["click", "link.created"], filter={"country": ["DE"], "createdBy": ["usr_1"]})
    refused = acme("PATCH", path_of(created), {"events": ["click"]})
    assert "unknown: 'createdBy'" in refused.json["error"]["details"]["filter"]
    assert acme("GET", path_of(created)).json["data"]["events"] == ["click", "link.created"]
    assert acme("PATCH", path_of(created), {"events": ["click"], "filter": {"country": ["DE"]}}).status_code == 200
    assert acme("PATCH", path_of(created), {"events": ["*"]}).status_code == 200


def test_the_audit_log_tells_that_a_secret_header_was_changed_and_not_to_what(acme):
    created = acme.create(headers=SECRET)
    acme("PATCH", path_of(created), {"headers": {"Authorization": {"value": "Bearer another", "secret": True}}})
    [changed, _] = acme("GET", f"{path_of(created)}/audit").json["data"]
    assert list(changed["changes"]) == ["headers"]
    before, after = (changed["changes"]["headers"][side]["Authorization"] for side in ("from", "to"))
    assert before["secret"] is after["secret"] is True
    assert before["fingerprint"] != after["fingerprint"]
    assert "Bearer" not in acme("GET", "/audit").text
