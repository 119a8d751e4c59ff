"""The link that signs in to the dashboard once: for whom, how often, and for how long."""

import re
from concurrent.futures import ThreadPoolExecutor
from html import unescape

import pytest
from browsing import Browser

from go2hooks.postgres import sign_in_links
from go2hooks.postgres.api_keys import Scope, create_key, revoke_key

AGAIN = "has signed somebody in already, or is older than five minutes"


@pytest.fixture
def token(database, key):
    return sign_in_links.make(database, key.id)


def use(browser, token, status=200):
    """Open it, and send the form of its page."""
    browser.get(f"/sign-in/link?token={token}")
    [sent] = re.findall(r'name="token" value="([^"]*)"', browser.page)
    return browser.post("/sign-in/link", status, token=sent)


def test_a_link_signs_in_once_as_its_key_and_its_token_is_in_no_address(app, browser, token):
    answer = use(browser, token)
    assert (answer.request.path, answer.request.query_string) == ("/", b"")
    assert "acme" in browser.page
    assert token not in browser.page
    late = Browser(app)
    use(late, token, 401)
    assert AGAIN in unescape(late.page)
    assert late.client.get("/").status_code == 302


def test_a_preview_that_only_fetches_the_link_does_not_use_it_up(app, browser, token):
    for _ in range(2):
        Browser(app).get(f"/sign-in/link?token={token}")
    use(browser, token)
    assert "<h1>Webhooks</h1>" in browser.page


def test_of_several_at_once_one_is_signed_in(app, token):
    browsers = [Browser(app) for _ in range(6)]
    for browser in browsers:
        browser.get(f"/sign-in/link?token={token}")
    fields = [
        {"csrf_token": re.search(r'csrf_token" value="([^"]*)', each.page)[1], "token": token} for each in browsers
    ]
    with ThreadPoolExecutor(6) as together:
        answers = together.map(
            lambda pair: pair[0].client.post("/sign-in/link", data=pair[1]), zip(browsers, fields, strict=True)
        )
        assert sorted(answer.status_code for answer in answers) == [302, 401, 401, 401, 401, 401]


def test_a_link_is_too_old_after_five_minutes_and_then_forgotten(browser, database, key, token):
    [left] = database.execute("SELECT expires_at - now() FROM sign_in_links").fetchone()
    assert 295 < left.total_seconds() <= 300
    database.execute("UPDATE sign_in_links SET expires_at = now() - interval '1 s'")
    use(browser, token, 401)
    sign_in_links.make(database, key.id)
    assert database.execute("SELECT count(*) FROM sign_in_links").fetchone() == (1,)


def test_what_is_stored_opens_nothing(browser, database, token):
    [stored] = database.execute("SELECT token_hash FROM sign_in_links").fetchone()
    assert token.encode() not in stored
    for made_up in (stored.hex(), "", "nonsense\0"):
        browser.get("/sign-in/link")
        browser.post("/sign-in/link", 401, token=made_up)


def test_a_link_of_a_key_that_was_revoked_signs_nobody_in(browser, database, key, token):
    revoke_key(database, key.id)
    use(browser, token, 401)


def test_a_link_gives_what_its_key_may_and_no_more(browser, database):
    use(browser, sign_in_links.make(database, create_key(database, "acme", scopes=[Scope.READ]).id))
    assert "New webhook" not in browser.page


@pytest.mark.parametrize(
    "how",
    [
        {"environ_overrides": {"REMOTE_ADDR": "192.0.2.1"}},
        {"base_url": "https://hooks.example.com"},
        {"headers": {"X-Forwarded-For": "192.0.2.1"}},
        {"headers": {"Forwarded": "for=192.0.2.1"}},
    ],
    ids=["another machine", "another name", "a proxy", "a proxy of the standard"],
)
def test_a_link_works_on_this_machine_alone(browser, token, how):
    for ask in (browser.client.get, browser.client.post):
        browser.get("/sign-in")
        fields = {"csrf_token": re.search(r'csrf_token" value="([^"]*)', browser.page)[1], "token": token}
        answer = ask("/sign-in/link", **how, **({"data": fields} if ask == browser.client.post else {}))
        assert answer.status_code in {400, 403}  # to another name the browser sends no token against forgery either
        assert "Location" not in answer.headers
    use(browser, token)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "hooks.example.com"])
def test_a_link_needs_an_api_that_only_this_machine_reaches(browser, token, app, host):
    services = app.extensions["go2hooks"]
    object.__setattr__(services, "settings", services.settings.model_copy(update={"api_host": host}))
    browser.get(f"/sign-in/link?token={token}", 403)
    assert "loopback" in browser.page
    browser.post("/sign-in/link", 403, token=token)


def test_a_session_that_was_there_before_is_not_the_one_that_a_link_begins(acme_browser, database):
    before = acme_browser.client.get_cookie("go2hooks_session").value
    acme_browser.get("/webhooks/new")
    planted = re.search(r'csrf_token" value="([^"]*)', acme_browser.page)[1]
    use(acme_browser, sign_in_links.make(database, create_key(database, "rival").id))
    assert acme_browser.client.get_cookie("go2hooks_session").value != before
    assert "rival" in acme_browser.page
    answer = acme_browser.client.post("/sign-out", data={"csrf_token": planted})
    assert answer.status_code == 400


def test_no_link_is_used_without_the_forms_token(browser, token):
    browser.post("/sign-in/link", 400, token=token)
    use(browser, token)
