"""The form of a webhook, the page that shows its secret once, and the first page of an account that has none."""

import json
import os
import re
import subprocess
import sys
import threading
from html import unescape

import pytest
from browsing import EVIL, URL, Browser, assert_only_our_scripts, made
from guide import tool
from snippets import snippet
from werkzeug.serving import make_server

from go2hooks.postgres.api_keys import Scope, create_key
from services.api.dashboard.form_fields import FILTER_EXAMPLES
from services.api.dashboard.languages import snippets

FORM = {"name": "Click Tracker", "url": URL, "events": ["click", "link.created"]}
WHOLE = FORM | {
    "description": "First line\r\nsecond line",
    "filter": '{"country": ["DE", "AT"]}',
    "header_name": ["X-Tenant", "Authorization", ""],
    "header_value": ["acme", "Bearer hush-hush", ""],
    "header_kind": ["", "secret", ""],
    "metadata_key": ["team", ""],
    "metadata_value": ["growth", ""],
    "rateLimit": "2.5",
    "maxConcurrency": "4",
}


def hidden(page, name):
    return unescape(re.search(rf'name="{name}" value="([^"]*)"', page)[1])


def secret_in(page):
    return re.search(r'value="(whsec_[^"]+)"', page)[1]


def shown_values(page):
    """What the fields of a form hold, as a browser would send them."""
    fields = {}
    for tag in re.findall(r"<input ([^>]*)>", page):
        name, value = re.search(r'name="([^"]*)"', tag), re.search(r'value="([^"]*)"', tag)
        if name and ("checkbox" not in tag or "checked" in tag):
            fields.setdefault(name[1], []).append(unescape(value[1]))
    for name, text in re.findall(r'<textarea id="\w+" name="(\w+)"[^>]*>([^<]*)</textarea>', page):
        fields[name] = [unescape(text)]
    fields["header_kind"] = [
        "secret" if "selected" in each else "" for each in re.findall(r"<select.*?</select>", page)
    ]
    return fields


@pytest.fixture
def new_form(acme_browser):
    acme_browser.get("/webhooks/new")
    return acme_browser


@pytest.fixture
def whole(new_form, acme):
    """The id of a webhook with all that the form has."""
    new_form.post("/webhooks/new", 201, **WHOLE)
    [webhook] = acme("GET", "/webhooks").json["data"]
    return webhook["id"]


def test_a_webhook_gets_all_that_its_form_says(whole, acme):
    webhook = acme("GET", f"/webhooks/{whole}").json["data"]
    assert {name: webhook[name] for name in ("name", "url", "events", "description")} == FORM | {
        "description": "First line\nsecond line"
    }
    assert webhook["filter"] == {"country": ["DE", "AT"]}
    assert webhook["headers"] == {"X-Tenant": "acme", "Authorization": {"value": None, "secret": True}}
    assert (webhook["metadata"], webhook["rateLimit"], webhook["maxConcurrency"]) == ({"team": "growth"}, 2.5, 4)


def test_saved_as_it_is_shown_nothing_changes_and_no_secret_is_shown(acme_browser, acme, whole):
    before = acme("GET", f"/webhooks/{whole}").json["data"]
    acme_browser.get(f"/webhooks/{whole}/edit")
    assert "hush-hush" not in acme_browser.page
    acme_browser.post(f"/webhooks/{whole}/edit", **shown_values(acme_browser.page))
    after = acme("GET", f"/webhooks/{whole}").json["data"]
    assert {**after, "updatedAt": None} == {**before, "updatedAt": None}
    assert [each["action"] for each in acme("GET", f"/webhooks/{whole}/audit").json["data"]] == ["webhook.created"]


def test_a_secret_header_changes_when_something_is_typed_and_goes_with_its_row(acme_browser, acme, whole):
    acme_browser.get(f"/webhooks/{whole}/edit")
    fields = shown_values(acme_browser.page)
    acme_browser.post(f"/webhooks/{whole}/edit", **fields | {"header_value": ["acme", "Bearer another", "", ""]})
    changes = acme("GET", f"/webhooks/{whole}/audit").json["data"][0]["changes"]["headers"]
    assert changes["from"]["Authorization"]["fingerprint"] != changes["to"]["Authorization"]["fingerprint"]
    acme_browser.get(f"/webhooks/{whole}/edit")
    emptied = shown_values(acme_browser.page) | {"header_name": ["X-Tenant", "", "", ""], "description": ""}
    acme_browser.post(f"/webhooks/{whole}/edit", **emptied)
    webhook = acme("GET", f"/webhooks/{whole}").json["data"]
    assert (webhook["headers"], webhook["description"]) == ({"X-Tenant": "acme"}, None)


@pytest.mark.parametrize(
    ("field", "typed", "message"),
    [
        ("name", {"name": ""}, "Must have 1 to 200 characters"),
        ("url", {"url": "http://example.com/"}, "The URL must start with https://."),
        ("url", {"url": "https://localhost/"}, "The URL must name a public host; localhost is not one."),
        ("events", {"events": []}, "Must name at least one of"),
        ("events", {"events": ["nonsense"]}, "Unknown: 'nonsense'"),
        ("description", {"description": "x" * 501}, "500 characters"),
        ("filter", {"filter": '{"country": ["DE",]}'}, "Is not JSON: "),
        ("filter", {"filter": '{"country": [], "country": ["DE"]}'}, "an object has the same key twice"),
        ("filter", {"filter": "[]"}, "Must be an object"),
        ("filter", {"filter": '{"nonsense": ["DE"]}'}, "nonsense"),
        ("headers", {"header_name": ["Host"], "header_value": ["x"], "header_kind": [""]}, "is set by Go2 Webhooks"),
        ("headers", {"header_name": ["X-A"], "header_value": [""], "header_kind": ["secret"]}, "no value that could"),
        (
            "headers",
            {"header_name": ["X-A", "X-A"], "header_value": ["1", "2"], "header_kind": ["", ""]},
            "Must not name a header twice",
        ),
        ("metadata", {"metadata_key": ["a", "a"], "metadata_value": ["1", "2"]}, "Must not have a key twice"),
        ("metadata", {"metadata_key": [""], "metadata_value": ["1"]}, "must be a key of 1 to 40 characters"),
        ("rateLimit", {"rateLimit": "lots"}, "Must be a number"),
        ("rateLimit", {"rateLimit": "1e999"}, "Must be a number"),
        ("maxConcurrency", {"maxConcurrency": "0"}, "greater than or equal to 1"),
        ("maxConcurrency", {"maxConcurrency": "1.5"}, "whole number"),
    ],
)
def test_a_mistake_is_said_beside_its_field_and_above_and_what_was_typed_stays(new_form, acme, field, typed, message):
    typed = WHOLE | typed
    new_form.post("/webhooks/new", 422, **typed)
    page = unescape(new_form.page)
    assert re.search(rf'id="{field}-fault"[^>]*>(<p class="fault">)?[^<]*{re.escape(message)}', page)
    summary = page[page.index('id="faults"') : page.index("<form method")]
    assert "autofocus" in summary
    assert f'<a href="#{field}">' in summary
    assert message in summary
    assert f'id="{field}"' in page
    fields = shown_values(new_form.page)
    for name, value in typed.items():
        expected = [each.replace("\r\n", "\n") for each in (value if isinstance(value, list) else [value])]
        offered = [each for each in expected if name != "events" or each != "nonsense"]
        assert fields.get(name, [])[: len(offered)] == offered
    assert acme("GET", "/webhooks").json["data"] == []


def test_all_mistakes_are_said_at_once(new_form):
    new_form.post("/webhooks/new", 422, name="", url="x", filter="{", metadata_key=["a", "a"], metadata_value=["", ""])
    assert re.findall(r'<li><a href="#(\w+)">', new_form.page) == ["name", "url", "events", "filter", "metadata"]


@pytest.mark.parametrize("pattern", FILTER_EXAMPLES)
def test_the_filters_that_are_shown_as_examples_are_taken(new_form, acme, pattern):
    new_form.post("/webhooks/new", 201, **FORM | {"filter": pattern})
    assert acme("GET", "/webhooks").json["data"][0]["filter"] == json.loads(pattern)


def test_each_event_is_explained_with_its_payload(new_form, acme):
    page = unescape(new_form.page)
    for each in acme("GET", "/event-types").json["data"]:
        assert each["description"] in page
        assert json.dumps(each["example"], indent=2, ensure_ascii=False) in page


@pytest.mark.parametrize("url", ["http://example.com", "https://", "https://10.0.0.1/", "https://example.com:25/"])
def test_a_url_is_checked_while_it_is_typed_by_the_rule_of_the_api(new_form, acme, url):
    refusal = acme("POST", "/webhooks", {**FORM, "url": url}).json["error"]["details"]["url"]
    answer = new_form.client.post(
        "/webhooks/check-url", data={"csrf_token": hidden(new_form.page, "csrf_token"), "url": url}
    )
    assert unescape(answer.text) == f'<p class="fault">{refusal}</p>'


def test_a_url_that_is_right_is_said_to_be_and_makes_nothing(new_form, acme):
    new_form.post("/webhooks/check-url", url=f" {URL} ")
    assert "Deliveries can be sent there." in new_form.page
    assert acme("GET", "/webhooks").json["data"] == []


def test_a_check_after_the_session_has_ended_leads_the_whole_page_to_the_sign_in(browser):
    asked = {"HX-Request": "true", "HX-Current-URL": "http://localhost/webhooks/new"}
    answer = browser.client.post("/webhooks/check-url", data={"url": URL}, headers=asked)
    assert (answer.status_code, answer.text) == (204, "")
    assert answer.headers["HX-Redirect"] == "/sign-in?next=/webhooks/new"


def test_of_two_who_edit_at_once_the_second_is_told_and_may_then_replace(app, acme_browser, acme, key, whole):
    acme_browser.get(f"/webhooks/{whole}/edit")
    mine = shown_values(acme_browser.page) | {"name": "Mine"}
    other = Browser(app)
    other.sign_in(key.key)
    other.get(f"/webhooks/{whole}/edit")
    other.post(f"/webhooks/{whole}/edit", **shown_values(other.page) | {"name": "Theirs", "maxConcurrency": "7"})
    acme_browser.post(f"/webhooks/{whole}/edit", 412, **mine)
    page = unescape(acme_browser.page)
    assert "Somebody else has changed this webhook" in page
    assert re.findall(r'<li>([^:]*): <span class="now">([^<]*)', page) == [
        ("Name", "Theirs"),
        ("Requests at once", "7"),
    ]
    assert acme("GET", f"/webhooks/{whole}").json["data"]["name"] == "Theirs"
    again = shown_values(acme_browser.page)
    assert again["name"] == ["Mine"]
    acme_browser.post(f"/webhooks/{whole}/edit", **again)
    assert acme("GET", f"/webhooks/{whole}").json["data"]["name"] == "Mine"


def test_a_webhook_that_fails_meanwhile_is_saved_all_the_same(acme_browser, acme, database, whole):
    acme_browser.get(f"/webhooks/{whole}/edit")
    database.execute("UPDATE webhooks SET consecutive_failures = 9")
    acme_browser.post(f"/webhooks/{whole}/edit", **shown_values(acme_browser.page) | {"name": "Mended"})
    assert acme("GET", f"/webhooks/{whole}").json["data"]["name"] == "Mended"


def test_the_page_that_shows_a_secret_makes_nothing_when_it_is_reloaded(new_form, acme):
    fields = FORM | {"once": hidden(new_form.page, "once"), "csrf_token": hidden(new_form.page, "csrf_token")}
    first, second = (new_form.post("/webhooks/new", 201, **fields).text for _ in range(2))
    assert secret_in(first) == secret_in(second)
    assert len(acme("GET", "/webhooks").json["data"]) == 1
    new_form.post("/webhooks/new", 422, **fields | {"name": "Another"})
    assert "This form has made a webhook already" in new_form.page
    new_form.post("/webhooks/new", 201, **FORM | {"name": "Another", "once": hidden(new_form.page, "once")})
    assert [each["name"] for each in acme("GET", "/webhooks").json["data"]] == ["Click Tracker", "Another"]


def test_a_secret_is_rotated_only_by_who_has_read_what_that_does_and_once(acme_browser, acme):
    webhook_id = made(acme_browser)
    first, address = secret_in(acme_browser.page), f"/webhooks/{webhook_id}/rotate-secret"
    acme_browser.get(f"/webhooks/{webhook_id}/edit")
    acme_browser.post(address)
    assert "Rotate the signing secret?" in acme_browser.page
    assert "For 24 hours" in acme_browser.page
    fields = {name: hidden(acme_browser.page, name) for name in ("once", "csrf_token")}
    pages = [acme_browser.post(address, **fields).text for _ in range(2)]
    assert secret_in(pages[0]) == secret_in(pages[1]) != first
    assert "The previous one signs too until" in pages[0]
    actions = [each["action"] for each in acme("GET", f"/webhooks/{webhook_id}/audit").json["data"]]
    assert actions == ["webhook.secret_rotated", "webhook.created"]


def test_the_secret_stands_beside_the_code_of_the_guide_in_every_language(new_form):
    new_form.post("/webhooks/new", 201, **FORM)
    assert len(snippets()) >= 5
    for each in snippets():
        assert each.code == snippet(each.file), f"copy docs/verify.md's {each.file} to services/api/dashboard/snippets"
        assert each.code in unescape(new_form.page)


def test_a_key_that_may_only_read_gets_no_form(browser, database, acme):
    webhook_id = acme.create()["id"]
    browser.sign_in(create_key(database, "acme", scopes=[Scope.READ]).key)
    for path in ("/webhooks/new", f"/webhooks/{webhook_id}/edit", f"/webhooks/{webhook_id}/rotate-secret"):
        browser.get(path, 403)
        assert "may only read" in browser.page


def test_another_accounts_webhook_has_no_form(acme_browser, rival):
    theirs = rival.create()["id"]
    for page in ("edit", "rotate-secret"):
        acme_browser.get(f"/webhooks/{theirs}/{page}", 404)
        acme_browser.get("/webhooks/new")
        acme_browser.post(f"/webhooks/{theirs}/{page}", 404, **FORM, once="x")


def test_what_customers_write_is_text_in_every_field(acme_browser, acme):
    settings = {
        "description": EVIL,
        "metadata": {EVIL[:40]: EVIL},
        "headers": {"X-Evil": EVIL},
        "filter": {"slug": [EVIL]},
    }
    webhook_id = acme.create(name=EVIL, **settings)["id"]
    for path in ("edit", "rotate-secret"):
        acme_browser.get(f"/webhooks/{webhook_id}/{path}")
        assert_only_our_scripts(acme_browser.page)
    fields = dict.fromkeys(WHOLE, EVIL) | {"version": "another"}
    acme_browser.post(f"/webhooks/{webhook_id}/edit", 412, **fields)
    assert_only_our_scripts(acme_browser.page)
    acme_browser.post("/webhooks/new", 422, **fields)
    assert_only_our_scripts(acme_browser.page)
    acme_browser.get("/webhooks/new")
    acme_browser.post("/webhooks/new", 201, **FORM | {"name": EVIL})
    assert_only_our_scripts(acme_browser.page)
    acme_browser.get("/webhooks/new")
    acme_browser.post("/webhooks/check-url", url=EVIL)
    assert "<img" not in acme_browser.page


@pytest.fixture
def address(app):
    """Where the app is served, on a real port."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()
    server.server_close()


def first_page(browser, base_url, **headers):
    """As who is signed in sees it at this address."""
    session = browser.client.get_cookie("go2hooks_session").value
    client = browser.client.application.test_client(use_cookies=False)
    return client.get("/", base_url=base_url, headers={"Cookie": f"go2hooks_session={session}", **headers}).text


RUN = {"curl": "eval", "python": '"$PROGRAM" -c', "node": '"$PROGRAM" --input-type=module -e'}


@pytest.mark.parametrize("way", RUN)
def test_the_first_page_shows_commands_that_work_as_they_stand(acme_browser, acme, key, address, way):
    code, ask_for_key = (
        unescape(re.search(rf'id="first-{each}"[^>]*><code>(.*?)</code>', page, re.DOTALL)[1])
        for page in [first_page(acme_browser, address)]
        for each in (way, "key")
    )
    program = sys.executable if way == "python" else tool(way)
    done = subprocess.run(
        ["bash", "-c", f'{ask_for_key}\n{RUN[way]} "$CODE"'],
        input=f"{key.key}\n",
        env=os.environ | {"PROGRAM": program, "CODE": code},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert '"secret":"whsec_' in done.stdout, done.stderr
    assert [each["name"] for each in acme("GET", "/webhooks").json["data"]] == ["My first webhook"]


def test_behind_a_proxy_the_first_page_shows_the_address_that_the_visitor_sees(acme_browser, key):
    page = first_page(acme_browser, "http://hooks.example.com", **{"X-Forwarded-Proto": "https"})
    assert "curl -X POST https://hooks.example.com/api/v1/webhooks" in page
    assert key.key not in page


def test_the_page_that_verifies_may_connect_to_nothing_and_has_nothing_to_send(acme_browser):
    answer = acme_browser.get("/verify")
    assert "connect-src 'none'" in answer.headers["Content-Security-Policy"]
    main = answer.text[answer.text.index("<main") :]
    assert "<form" not in main
    assert re.findall(r'<(?:input|textarea)[^>]* name="', main) == []
