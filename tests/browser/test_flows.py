"""What people do with the dashboard, click by click."""

import re
import subprocess
from collections import Counter
from typing import Any

import pytest
from conftest import sign_in
from playwright.sync_api import Page, expect
from recording import Reply
from running import Account
from waiting import eventually


def make_webhook(page: Page, name: str, url: str, event: str = "click") -> str:
    """By the form; returns the webhook's address."""
    page.goto("/")
    page.get_by_role("link", name="New webhook").first.click()
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_label("URL", exact=True).fill(url)
    page.locator(f'input[name=events][value="{event}"]').check()
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_label("Signing secret")).to_have_value(re.compile("^whsec_"))
    page.get_by_role("link", name="Go on to the webhook").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text(name)
    return page.url


def test_who_signs_out_sees_nothing_more(page):
    expect(page.get_by_role("heading", name="No webhook yet")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.goto("/")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.go_back()
    expect(page.get_by_role("button", name="Sign out")).not_to_be_visible()


def test_a_wrong_key_is_told_beside_the_field(new_context, watch):
    page = new_context().new_page()
    page.goto("/sign-in")
    page.get_by_label("API key").fill("go2_wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("unknown or was revoked")
    assert len(watch.take("401")) == 1


def test_a_webhook_is_made_its_secret_shown_and_its_test_event_answered(page, receiver):
    endpoint = receiver.endpoint(lambda _: 204)
    make_webhook(page, "Click tracker", endpoint.url)
    page.get_by_role("button", name=re.compile("Send (a )?test event")).click()
    expect(page.locator("#test-answer")).to_contain_text("answered 204")
    assert len(endpoint.requests) == 1


def test_a_disabled_webhook_is_enabled_by_clicks_and_gets_what_it_missed_and_what_comes(page, account, receiver, stack):
    endpoint = receiver.endpoint(lambda _: 503)
    webhook = account.subscribe(endpoint.url)
    account.emit()
    account.emit()
    endpoint.wait(10)
    eventually(lambda: not account.webhook(webhook)["isActive"])
    account.emit()  # which is skipped
    eventually(lambda: statuses(account, webhook)["skipped"] and settled(account, webhook))

    endpoint.answer = lambda _: 200
    page.goto("/")
    expect(page.get_by_role("row", name=re.compile("A test's"))).to_contain_text("disabled")
    expect(page.get_by_role("row", name=re.compile("A test's"))).to_contain_text("10 consecutive failed attempts")
    page.get_by_role("link", name="A test's").click()
    expect(page.get_by_text("10 consecutive failed attempts").first).to_be_visible()
    page.get_by_role("button", name="Enable again").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("active")
    page.goto(f"/webhooks/{webhook['id']}/replays")
    page.locator("select[name=only]").select_option("skipped")
    page.get_by_role("button", name="Replay", exact=True).click()
    eventually(lambda: statuses(account, webhook)["skipped"] == 0 and settled(account, webhook))
    event = account.emit()
    eventually(
        lambda: (event.id, "delivered") in {(each["eventId"], each["status"]) for each in account.history(webhook)}
    )
    page.goto(f"/webhooks/{webhook['id']}")
    expect(page.locator("#deliveries").get_by_text("delivered").nth(1)).to_be_visible()


def statuses(account: Account, webhook: dict[str, Any]) -> Counter[str]:
    return Counter(delivery["status"] for delivery in account.history(webhook))


def settled(account: Account, webhook: dict[str, Any]) -> bool:
    return not statuses(account, webhook).keys() & {"pending", "retrying"}


def test_a_delivery_is_looked_for_opened_and_sent_again(page, account, receiver):
    answers = {1: Reply(500, body=b"database is away")}
    endpoint = receiver.endpoint(lambda request: answers.get(request.attempt, 200))
    webhook = account.subscribe(endpoint.url)
    account.emit()
    (delivery,) = account.wait_history(webhook, "delivered")
    page.get_by_role("navigation", name="Pages").get_by_role("link", name="Deliveries").click()
    page.get_by_label("Id").fill(delivery["id"])
    page.get_by_label("Status").select_option("delivered")
    page.get_by_role("button", name="Show").click()
    page.locator("#deliveries").get_by_role("link", name="click").click()
    page.get_by_text("What the receiver answered").first.click()
    expect(page.get_by_text("database is away").first).to_be_visible()
    page.get_by_role("button", name="Send again").click()
    expect(page.locator(".notice")).to_contain_text("answered 200")
    assert [request.attempt for request in endpoint.requests] == [1, 2, 3]


def test_a_webhook_is_changed(page, account, receiver):
    webhook = account.subscribe(receiver.endpoint().url)
    page.goto(f"/webhooks/{webhook['id']}")
    page.get_by_role("link", name="Edit").click()
    page.get_by_label("Name", exact=True).fill("Renamed")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Renamed")
    assert account.webhook(webhook)["name"] == "Renamed"


def test_what_is_wrong_with_an_address_is_told_beside_it_and_what_was_typed_stays(page, watch):
    page.goto("/webhooks/new")
    page.get_by_label("Name", exact=True).fill("Mine")
    page.get_by_label("URL", exact=True).fill("ftp://example.com/")
    page.locator("input[name=events]").first.check()
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_label("URL", exact=True)).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_label("Name", exact=True)).to_have_value("Mine")
    watch.take("422")


def test_a_secret_is_rotated_and_shown_this_once(page, account, receiver):
    webhook = account.subscribe(receiver.endpoint().url)
    page.goto(f"/webhooks/{webhook['id']}")
    page.get_by_text("Rotate the signing secret").click()
    page.get_by_role("button", name="Rotate the secret").click()
    secret = page.get_by_label("Signing secret").input_value()
    assert secret.startswith("whsec_")
    assert secret != webhook["secret"]
    page.goto(f"/webhooks/{webhook['id']}")
    assert secret not in page.content()


def test_a_webhook_is_deleted_when_its_name_is_typed(page, account, receiver):
    webhook = account.subscribe(receiver.endpoint().url)
    page.goto(f"/webhooks/{webhook['id']}")
    for typed in ("something else", "A test's"):
        page.get_by_text("Delete this webhook").click()
        page.locator("form[action$='/delete'] input[name=name]").fill(typed)
        page.locator("form[action$='/delete']").get_by_role("button", name="Delete").click()
        expect(page.locator(".notice")).to_contain_text("deleted")
    assert account.call("GET", f"/webhooks/{webhook['id']}").status == 404


def test_reading_enabling_and_sending_again_need_no_javascript(new_page, account, receiver):
    endpoint = receiver.endpoint()
    webhook = account.subscribe(endpoint.url)
    account.emit()
    (delivery,) = account.wait_history(webhook, "delivered")
    account.change(webhook, isActive=False)
    page = new_page(java_script_enabled=False)
    page.get_by_role("link", name="A test's").click()
    page.get_by_role("button", name="Enable again").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("active")
    page.goto(f"/webhooks/{webhook['id']}/deliveries/{delivery['id']}")
    page.get_by_role("button", name="Send again").click()
    expect(page.locator(".notice")).to_contain_text("answered 200")
    assert len(endpoint.requests) == 2


def test_a_revoked_key_ends_the_session_at_the_next_click(new_page, account):
    key = account.call("POST", "/keys", {"name": "Soon revoked", "scopes": ["write"]}).data
    page = new_page(key["key"])
    assert account.call("DELETE", f"/keys/{key['id']}").status < 300
    page.reload()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_a_key_that_may_only_read_is_offered_nothing_else(new_page, account, receiver):
    webhook = account.subscribe(receiver.endpoint().url)
    key = account.call("POST", "/keys", {"name": "Reader", "scopes": ["read"]}).data
    page = new_page(key["key"])
    for path in ("/", f"/webhooks/{webhook['id']}"):
        page.goto(path)
        forms = page.locator("form[method=post]").evaluate_all("(forms) => forms.map((form) => form.action)")
        assert [form.rpartition("/")[2] for form in forms] == ["sign-out"]


def test_whoever_came_for_a_page_gets_it_after_signing_in(new_context, account, receiver):
    webhook = account.subscribe(receiver.endpoint().url)
    page = new_context().new_page()
    page.goto(f"/webhooks/{webhook['id']}")
    page.get_by_label("API key").fill(account.key)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("A test's")
    sign_in(page, account.key)  # again, though signed in


def test_the_keyboard_alone_makes_a_webhook(page, receiver):
    """Every stop of the Tab key is to be seen, and they come in the order of the page."""
    page.goto("/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_in_viewport()
    go_to(page, page.get_by_role("link", name="New webhook").first)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("New webhook")
    go_to(page, page.get_by_label("Name", exact=True))
    page.keyboard.type("By keyboard")
    go_to(page, page.get_by_label("URL", exact=True))
    page.keyboard.type(receiver.endpoint().url)
    go_to(page, page.locator("input[name=events]").first)
    page.keyboard.press("Space")
    go_to(page, page.get_by_role("button", name="Create"))
    page.keyboard.press("Enter")
    expect(page.get_by_label("Signing secret")).to_have_value(re.compile("^whsec_"))
    go_to(page, page.get_by_role("link", name="Go on to the webhook"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("By keyboard")


FOCUSED = """() => {
  const at = document.activeElement, box = at.getBoundingClientRect(), style = getComputedStyle(at);
  return { shown: box.width > 0 && box.height > 0 && box.right > 0, ring: style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2, tag: at.outerHTML.slice(0, 120) };
}"""


def go_to(page: Page, wanted) -> None:
    """Press Tab until it has the focus, which must be to be seen at every stop."""
    for _ in range(60):
        if wanted.evaluate("(element) => element === document.activeElement"):
            return
        page.keyboard.press("Tab")
        stop = page.evaluate(FOCUSED)
        if stop["tag"].startswith("<body"):
            continue
        assert stop["shown"], stop
        assert stop["ring"], stop
    raise AssertionError(f"Tab never came to {wanted}; last at {stop}")


def test_new_deliveries_appear_by_themselves_unless_paused(page, account, receiver):
    webhook = account.subscribe(receiver.endpoint().url)
    page.goto(f"/webhooks/{webhook['id']}/deliveries")
    rows = page.locator("#deliveries tbody tr")
    expect(rows).to_have_count(0)
    account.emit()
    expect(rows).to_have_count(1)
    expect(rows.first).to_contain_text("delivered")
    page.get_by_role("button", name="Pause").click()
    account.emit()
    account.wait_history(webhook, "delivered", "delivered")
    expect(rows).to_have_count(1)
    page.locator(".live-bar button").click()
    expect(rows).to_have_count(2)


def test_a_retry_counts_down_and_the_page_shows_what_came_of_it(page, account, receiver):
    endpoint = receiver.endpoint(lambda request: 500 if request.attempt < 4 else 200)
    webhook = account.subscribe(endpoint.url)
    account.emit()
    endpoint.wait()
    [delivery] = eventually(lambda: account.history(webhook))
    page.goto(f"/webhooks/{webhook['id']}/deliveries/{delivery['id']}")
    expect(page.get_by_role("heading", level=1)).to_contain_text("delivered")
    expect(page.locator(".timeline .attempt")).to_have_count(4)


def test_a_delivery_as_curl_sends_what_was_sent(page, account, receiver):
    endpoint = receiver.endpoint()
    webhook = account.subscribe(endpoint.url)
    account.emit()
    (delivery,) = account.wait_history(webhook, "delivered")
    page.goto(f"/webhooks/{webhook['id']}/deliveries/{delivery['id']}")
    page.get_by_role("button", name="Make a curl command").click()
    command = page.locator("#curl-command").inner_text()
    subprocess.run(["bash", "-c", command], check=True, capture_output=True, timeout=30)
    first, again = endpoint.wait(2)
    assert again.body == first.body
    assert again.headers["x-webhook-signature"] == first.headers["x-webhook-signature"]


@pytest.mark.parametrize("has_script", [True, False])
def test_charts_show_the_time_that_is_chosen(new_page, account, receiver, has_script):
    webhook = account.subscribe(receiver.endpoint().url)
    page = new_page(java_script_enabled=has_script)
    page.goto(f"/webhooks/{webhook['id']}")
    for span in ("1h", "7d", "30d", "24h"):
        page.locator(f"#range-{span}").click()
        expect(page.locator(f"#range-{span}")).to_have_attribute("aria-current", "true")
        assert f"range={span}" in page.url


def test_the_log_says_who_changed_what(page, account, receiver):
    webhook = account.subscribe(receiver.endpoint().url)
    account.change(webhook, name="Renamed")
    page.goto(f"/webhooks/{webhook['id']}")
    page.get_by_role("link", name="Log").click()
    expect(page.get_by_role("row").nth(1)).to_contain_text("Renamed")
    expect(page.get_by_role("row").nth(2)).to_contain_text("created")
