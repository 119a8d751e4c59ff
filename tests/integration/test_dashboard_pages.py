"""The dashboard as a browser without JavaScript uses it: what it shows, what it refuses, and that nothing in it is run."""

import re
from html import unescape

import psycopg
import pytest
from browsing import EVIL, URL, assert_only_our_scripts, made

from go2hooks.postgres.api_keys import Scope, create_key, revoke_key


def test_who_is_not_signed_in_is_asked_to_and_comes_back_to_the_page(browser, key):
    answer = browser.client.get("/webhooks/new?a=b")
    assert answer.status_code == 302
    browser.get(answer.headers["Location"])
    hidden = unescape(re.search(r'name="next" value="([^"]*)"', browser.page)[1])
    assert hidden == "/webhooks/new?a=b"
    browser.post("/sign-in", key=key.key, next=hidden)
    assert "<h1>New webhook</h1>" in browser.page


@pytest.mark.parametrize(
    "where", ["https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:alert(1)", ""]
)
def test_signing_in_leads_nowhere_else(browser, key, where):
    browser.get("/sign-in")
    token = re.search(r'name="csrf_token" value="([^"]*)"', browser.page)[1]
    answer = browser.client.post("/sign-in", data={"csrf_token": token, "key": key.key, "next": where})
    assert (answer.status_code, answer.headers["Location"]) == (302, "/")


def test_a_wrong_key_is_refused_in_words_and_begins_no_session(browser):
    browser.sign_in("go2_wrong", 401)
    assert "This API key is unknown or was revoked." in unescape(browser.page)
    assert browser.client.get("/").status_code == 302


def test_the_cookie_is_for_this_site_alone_out_of_scripts_reach_and_holds_no_key(browser, key):
    browser.get("/sign-in")
    token = re.search(r'name="csrf_token" value="([^"]*)"', browser.page)[1]
    for base, is_secure in (("http://localhost", False), ("https://localhost", True)):
        answer = browser.client.post(
            "/sign-in", base_url=base, data={"csrf_token": token, "key": key.key}, headers={"Referer": base}
        )
        if answer.status_code == 400:  # another origin, another cookie
            page = browser.client.get("/sign-in", base_url=base).text
            token = re.search(r'name="csrf_token" value="([^"]*)"', page)[1]
            answer = browser.client.post("/sign-in", base_url=base, data={"csrf_token": token, "key": key.key})
        cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert ("Secure" in cookie) is is_secure
        assert key.key not in cookie


def test_a_session_ends_with_its_key_and_with_signing_out(acme_browser, database, key):
    acme_browser.get("/")
    acme_browser.post("/sign-out")
    assert acme_browser.client.get("/").status_code == 302
    acme_browser.sign_in(key.key)
    acme_browser.get("/")
    assert revoke_key(database, key.id)
    assert acme_browser.client.get("/").status_code == 302


def test_the_pages_note_that_the_key_was_used(acme_browser, database, key):
    acme_browser.get("/")
    [used] = database.execute("SELECT last_used_at FROM api_keys WHERE id = %s", [key.id]).fetchone()
    assert used is not None


def test_a_session_that_was_tampered_with_is_none(acme_browser):
    cookie = acme_browser.client.get_cookie("go2hooks_session")
    acme_browser.client.set_cookie("go2hooks_session", cookie.value[:-2] + "xx")
    assert acme_browser.client.get("/").status_code == 302


@pytest.mark.parametrize(
    "path",
    [
        "/sign-out",
        "/webhooks/new",
        "/webhooks/wh_1/delete",
        "/webhooks/wh_1/disable",
        "/webhooks/wh_1/test",
        "/sign-in",
    ],
)
def test_no_form_is_taken_without_its_token(acme_browser, path):
    acme_browser.page = ""
    acme_browser.post(path, 400, name="x")
    assert "nothing was changed" in acme_browser.page


def test_the_first_page_teaches_the_first_step(acme_browser):
    acme_browser.get("/")
    assert "No webhook yet" in acme_browser.page
    assert "curl -X POST http://localhost/api/v1/webhooks" in acme_browser.page


def test_a_webhook_is_made_shown_changed_and_deleted(acme_browser, acme):
    webhook_id = made(acme_browser)
    secret = re.search(r'value="(whsec_[^"]+)"', acme_browser.page)[1]
    acme_browser.get("/")
    assert "Click Tracker" in acme_browser.page
    acme_browser.get(f"/webhooks/{webhook_id}")
    assert secret not in acme_browser.page
    acme_browser.get(f"/webhooks/{webhook_id}/log")
    assert "created" in acme_browser.page
    acme_browser.post(f"/webhooks/{webhook_id}/edit", name="Renamed", url=URL, events=["*"])
    assert acme("GET", f"/webhooks/{webhook_id}").json["data"]["events"] == ["*"]
    acme_browser.post(f"/webhooks/{webhook_id}/delete", name="Click Tracker")
    assert "type the webhook's name" in unescape(acme_browser.page)
    acme_browser.post(f"/webhooks/{webhook_id}/delete", name="Renamed")
    assert acme("GET", f"/webhooks/{webhook_id}").status_code == 404


def test_what_is_wrong_stands_beside_the_field_and_what_was_typed_stays(acme_browser):
    acme_browser.get("/webhooks/new")
    acme_browser.post("/webhooks/new", 422, name="Mine", url="http://example.com/", events=[])
    assert 'id="url-fault"' in acme_browser.page
    assert 'id="events-fault"' in acme_browser.page
    assert 'value="Mine"' in acme_browser.page


def test_a_disabled_webhook_says_why_and_is_enabled_by_a_button(acme_browser, acme, database):
    webhook_id = made(acme_browser)
    database.execute(
        "UPDATE webhooks SET is_active = false, disabled_at = now(), disabled_reason = '10 consecutive failed attempts'"
    )
    acme_browser.get("/?state=disabled")
    assert "10 consecutive failed attempts" in acme_browser.page
    acme_browser.get(f"/webhooks/{webhook_id}")
    assert "Nothing is sent" in acme_browser.page
    acme_browser.post(f"/webhooks/{webhook_id}/enable")
    assert acme("GET", f"/webhooks/{webhook_id}").json["data"]["isActive"] is True
    acme_browser.post(f"/webhooks/{webhook_id}/disable")
    assert acme("GET", f"/webhooks/{webhook_id}").json["data"]["isActive"] is False


def test_another_accounts_webhook_is_not_there(acme_browser, rival):
    theirs = rival.create()["id"]
    for path in (f"/webhooks/{theirs}", f"/webhooks/{theirs}/edit"):
        acme_browser.get(path, 404)
    acme_browser.get("/")
    for path in ("enable", "disable", "test", "rotate-secret", "delete"):
        acme_browser.get("/sign-in")
        acme_browser.post(f"/webhooks/{theirs}/{path}", 404, event="click")
    assert rival("GET", f"/webhooks/{theirs}").json["data"]["isActive"] is True


def test_a_key_that_may_only_read_is_offered_nothing_else_and_may_do_nothing_else(browser, database, acme):
    webhook_id = acme.create()["id"]
    browser.sign_in(create_key(database, "acme", scopes=[Scope.READ]).key)
    for path in ("/", f"/webhooks/{webhook_id}"):
        browser.get(path)
        assert "New webhook" not in browser.page
        assert re.findall(r'method="post" action="([^"]*)"', browser.page) == ["/sign-out"]
    browser.post(f"/webhooks/{webhook_id}/disable", 403)
    assert acme("GET", f"/webhooks/{webhook_id}").json["data"]["isActive"] is True


def test_what_customers_and_receivers_write_is_text(acme_browser, acme, database):
    made(acme_browser, name=EVIL)
    webhook_id = acme("GET", "/webhooks").json["data"][0]["id"]
    database.execute(
        """INSERT INTO attempts (webhook_id, created_at, delivery_id, attempt, account_id, event_id, event, kind, state, attempted_at,
                                 error_code, error_message, response_excerpt)
           VALUES (%s, now(), 'dlv_1', 1, 'acme', 'evt_1', 'click', 'event', 'failed', now(), %s, %s, %s)""",
        [webhook_id, EVIL, EVIL, EVIL],
    )
    database.execute("UPDATE webhooks SET is_active = false, disabled_at = now(), disabled_reason = %s", [EVIL])
    for path in ("/", f"/webhooks/{webhook_id}", f"/webhooks/{webhook_id}/edit", "/?search=%3Cscript%3E&sort=name"):
        acme_browser.get(path)
        assert_only_our_scripts(acme_browser.page)
        assert "<img src=x" not in acme_browser.page


@pytest.mark.parametrize("path", ["/", "/sign-in", "/webhooks/new", "/webhooks/wh_none"])
def test_every_page_forbids_inline_scripts_frames_and_other_hosts(acme_browser, path):
    answer = acme_browser.client.get(path)
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["Cache-Control"] == "no-store"
    for address in re.findall(r'(?:src|href)="([^"#]*)"', answer.text):
        assert address.startswith("/")
    for address in re.findall(r'(?:src|href)="(/static[^"]*)"', answer.text):
        assert acme_browser.client.get(address, buffered=True).status_code == 200


def test_a_failure_under_a_page_is_a_page_too(acme_browser, monkeypatch):
    def away(*_args):
        raise psycopg.OperationalError("connection refused by somebody")

    monkeypatch.setattr("go2hooks.postgres.api_keys.look_up_id", away)
    answer = acme_browser.get("/", 503)
    assert (answer.mimetype, answer.headers["Retry-After"]) == ("text/html", "3")
    assert "A server that the API needs is away; nothing was lost, try again." in acme_browser.page
    assert "somebody" not in acme_browser.page


def test_the_resources_take_no_cookie(acme_browser):
    made(acme_browser)
    assert acme_browser.client.get("/api/v1/webhooks").status_code == 401


def test_a_wrong_filter_is_said_and_no_defect(acme_browser):
    acme_browser.get("/?state=nonsense", 422)
    assert "state" in acme_browser.page


def test_what_was_skipped_is_sent_again_by_a_form_and_stopped_by_a_button(acme_browser, acme):
    webhook_id = made(acme_browser)
    acme_browser.get(f"/webhooks/{webhook_id}")
    acme_browser.post(f"/webhooks/{webhook_id}/replays", only="skipped", range="the last day")
    [replay] = acme("GET", f"/webhooks/{webhook_id}/replays").json["data"]
    assert replay["only"] == "skipped"
    assert "0 of 0" in acme_browser.page
    acme_browser.post(f"/webhooks/{webhook_id}/replays", 409, only="failed", range="the last day")
    acme_browser.get(f"/webhooks/{webhook_id}")
    acme_browser.post(f"/webhooks/{webhook_id}/replays/{replay['id']}/stop")
    assert acme("GET", f"/webhooks/{webhook_id}/replays/{replay['id']}").json["data"]["status"] == "stopped"
    acme_browser.post(f"/webhooks/{webhook_id}/replays", 422, only="nonsense")
