"""What customers, producers and receivers write is text on every page; nobody acts for somebody else."""

from urllib.parse import quote, urlencode

from conftest import sign_in
from playwright.sync_api import expect
from recording import Reply
from waiting import eventually
from watching import FLAG

RUN = f"window.{FLAG}=1;alert(1)"
EVIL = f"</pre><script>{RUN}</script>\"'><img src=x onerror={RUN}><svg onload={RUN}>"
PLANTED = "document.querySelectorAll('[onerror],[onload],script:not([src])').length"
ELSEWHERE = "http://elsewhere.example"


def assert_nothing_ran(page):
    assert page.evaluate(f"[window.{FLAG} ?? null, {PLANTED}]") == [None, 0], page.url


def test_no_script_runs_that_customers_producers_or_receivers_write(new_page, account, receiver, stack):
    replies = (
        Reply(500, (("Retry-After", EVIL), ("Content-Type", EVIL), ("X-Request-Id", EVIL)), EVIL.encode()),
        Reply(301, (("Location", f"javascript:{RUN}//{EVIL}"),), EVIL.encode()),
    )
    endpoint = receiver.endpoint(lambda request: replies[request.attempt % 2], query=f"?{quote(EVIL)}")
    body = {
        "name": EVIL,
        "description": EVIL,
        "metadata": {"evil": EVIL},
        "headers": {"X-Evil": EVIL},
        "url": endpoint.url,
    }
    filtered = {"events": ["click"], "filter": {"referrer": [EVIL]}}
    webhook = account.call("POST", "/webhooks", body | filtered).data
    stack.wait_routed()
    account.emit(referrer=EVIL, city=EVIL, browser=EVIL)
    for event_id in (f"evt_<script>{RUN}</script>", f"evt_'\"><img src=x onerror={RUN}>"):
        stack.producer.send(account.event(referrer=EVIL)._replace(id=event_id))
    assert stack.producer.flush(30) == 0
    deliveries = eventually(lambda: [each for each in account.history(webhook) if each["attempts"] > 1])
    here = f"/webhooks/{webhook['id']}"
    page = new_page()
    for path in (
        "/", here, f"{here}/edit", f"{here}/replays", f"{here}/log", f"{here}/deliveries", "/deliveries",
        f"{here}/deliveries/{deliveries[0]['id']}", f"/deliveries?{urlencode({'id': deliveries[0]['eventId']})}",
    ):  # fmt: skip
        page.goto(path)
        assert_nothing_ran(page)
    page.goto(f"{here}/deliveries/{deliveries[0]['id']}")
    page.get_by_role("button", name="Make a curl command").click()
    expect(page.locator("#curl-command")).to_contain_text("alert(1)")
    assert_nothing_ran(page)
    page.goto(here)
    page.get_by_role("button", name="Send a test event").click()
    expect(page.locator("#test-answer")).to_contain_text("alert(1)")
    assert_nothing_ran(page)


def test_no_script_in_an_address_runs(page, watch):
    paths = [f"/?{name}={quote(EVIL)}" for name in ("search", "state", "event", "sort", "page")]
    names = ("id", "status", "event", "webhook", "since", "until", "cursor")
    paths += [f"/deliveries?{name}={quote(EVIL)}" for name in names]
    paths += [
        f"/webhooks/{quote(EVIL, safe='')}",
        f"/sign-in?next={quote(f'javascript:{RUN}')}",
        f"/sign-in?next={quote(EVIL)}",
    ]
    paths += [f"/sign-in/link?token={quote(EVIL)}", f"/{quote(EVIL, safe='')}"]
    for path in paths:
        page.goto(path)
        if page.locator("html").get_attribute("lang"):  # a page of ours, and no answer in JSON
            assert_nothing_ran(page)
    for expected in ("401", "404", "422", "does not conform to the required format"):  # what a field for times says
        watch.take(expected)


def test_another_site_can_change_nothing(page, account, receiver, site, watch):
    webhook = account.subscribe(receiver.endpoint().url)
    action = f"{site}/webhooks/{webhook['id']}/disable"
    forged = f"<form id=f method=post action='{action}'></form><script>f.submit()</script>"
    page.route(f"{ELSEWHERE}/**", lambda route: route.fulfill(body=forged, content_type="text/html"))
    with page.expect_response(action):  # to which the browser sends no cookie
        page.goto(f"{ELSEWHERE}/", wait_until="commit")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert account.webhook(webhook)["isActive"] is True
    page.goto("/")  # with the cookie, and without the form's token
    status = page.evaluate("(url) => fetch(url, { method: 'POST' }).then((answer) => answer.status)", action)
    assert status == 400
    assert account.webhook(webhook)["isActive"] is True
    watch.take(ELSEWHERE)
    watch.take("400")


def test_a_link_on_another_site_finds_who_is_signed_in(page, account, receiver, site, watch):
    """Though the browser sends no cookie with the click."""
    webhook = account.subscribe(receiver.endpoint().url)
    link = f"<a href='{site}/webhooks/{webhook['id']}'>Look</a>"
    page.route(f"{ELSEWHERE}/**", lambda route: route.fulfill(body=link, content_type="text/html"))
    page.goto(f"{ELSEWHERE}/")
    page.get_by_text("Look").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("A test's")
    watch.take(ELSEWHERE)


def test_no_page_lets_itself_be_framed(page, site, watch):
    framing = f"<h1>Win a prize</h1><iframe src='{site}/sign-in'></iframe>"
    page.route(f"{ELSEWHERE}/**", lambda route: route.fulfill(body=framing, content_type="text/html"))
    page.goto(f"{ELSEWHERE}/")
    eventually(lambda: page.wait_for_timeout(20) or page.frames[1].url.startswith("chrome-error:"))
    watch.faults.clear()  # of the page that frames


def test_a_planted_session_is_not_the_one_that_signs_in(new_context, account, site):
    attacker = new_context()
    attacker.new_page().goto("/sign-in")
    [planted] = attacker.cookies()
    victim = new_context()
    victim.add_cookies([planted])
    page = victim.new_page()
    sign_in(page, account.key)
    [cookie] = victim.cookies()
    assert cookie["value"] != planted["value"]
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert page.evaluate("document.cookie") == ""
    kept = page.evaluate("JSON.stringify(localStorage) + JSON.stringify(sessionStorage)")
    assert account.key not in page.content() + kept
    stranger = attacker.new_page()
    stranger.goto("/")
    expect(stranger.get_by_role("heading", name="Sign in")).to_be_visible()
