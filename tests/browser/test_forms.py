"""The form of a webhook, the page of its secret, the page that verifies, and the link that signs in, in the browser."""

import re
import time

import psycopg
from playwright.sync_api import expect

from go2hooks.core.domain.delivery import Delivery
from go2hooks.core.security.request import prepare
from go2hooks.core.security.signing import generate_secret
from go2hooks.postgres import sign_in_links

SECRET = generate_secret(bytes(range(32)))
BODY = b'{"event":"click","timestamp":"2024-01-01T12:00:00Z","data":{"slug":"launch"}}'


def delivery_now() -> tuple[str, str]:
    """A delivery's headers, as lines, and its body."""
    delivery = Delivery("dlv_1", "wh_1", "acc", "evt_1", "click", "2024-01-01T12:00:00Z", BODY, 1, 0, "event", 0, False)  # noqa: FBT003
    sent = prepare(delivery, "https://example.com/", [SECRET], time.time_ns() // 1_000_000)
    return "\n".join(f"{name}: {value}" for name, value in sent.headers), sent.body.decode()


def test_a_link_signs_in_by_itself_and_leaves_the_address(new_context, stack, account):
    with psycopg.connect(stack.database.url(), autocommit=True) as database:
        [key_id] = database.execute("SELECT id FROM api_keys WHERE account_id = %s", [account.id]).fetchone()
        token = sign_in_links.make(database, key_id)
    page = new_context().new_page()
    page.goto(f"/sign-in/link?token={token}")
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    expect(page).to_have_url(re.compile("^http://[^/]*/$"))


def test_the_server_says_what_is_wrong_with_a_url_while_it_is_typed(page):
    page.goto("/webhooks/new")
    url = page.get_by_label("URL", exact=True)
    url.press_sequentially("ftp://example.com/")
    expect(page.locator("#url-fault")).to_contain_text("The URL must")
    expect(url).to_have_attribute("aria-invalid", "true")
    url.fill("https://example.com/webhooks/go2")
    expect(page.locator("#url-fault")).to_have_text("Deliveries can be sent there.")
    expect(url).to_have_attribute("aria-invalid", "false")


def test_the_list_of_what_is_wrong_has_the_focus_and_leads_to_the_fields(page, watch):
    page.goto("/webhooks/new")
    page.get_by_text("Limits").click()
    page.get_by_label("Requests per second").fill("lots")
    page.get_by_role("button", name="Create").click()
    expect(page.locator("#faults")).to_be_focused()
    page.locator("#faults").get_by_role("link", name="Requests per second").click()
    expect(page.get_by_label("Requests per second")).to_be_focused()
    watch.take("422")


def test_a_row_is_added_and_a_secret_value_hides_as_it_is_typed(page):
    page.goto("/webhooks/new")
    page.get_by_text("of your own, on every request").click()
    page.locator("#headers").get_by_role("button", name="Add a row").click()
    expect(page.locator("#headers .pair")).to_have_count(3)
    row = page.locator("#headers .pair").last
    expect(row.get_by_label("Header's name")).to_be_focused()
    row.get_by_label("Who may see the value").select_option("secret")
    expect(row.get_by_label("Header's value")).to_have_attribute("type", "password")


def test_a_secret_is_copied_and_its_page_reloaded_without_making_another_webhook(new_page, account, receiver):
    page = new_page(permissions=["clipboard-read", "clipboard-write"])
    page.goto("/webhooks/new")
    page.get_by_label("Name", exact=True).fill("Once")
    page.get_by_label("URL", exact=True).fill(receiver.endpoint().url)
    page.locator('input[value="click"]').check()
    page.get_by_role("button", name="Create").click()
    secret = page.get_by_label("Signing secret").input_value()
    page.get_by_role("button", name="Copy", exact=True).first.click()
    expect(page.get_by_role("button", name="Copied").first).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == secret
    page.get_by_text("Go", exact=True).click()
    expect(page.get_by_text("package webhooks")).to_be_visible()
    expect(page.get_by_text("import hashlib")).not_to_be_visible()
    page.reload()
    expect(page.get_by_label("Signing secret")).to_have_value(secret)
    page.goto("/")
    expect(page.get_by_role("link", name="Once")).to_have_count(1)


def test_what_is_pasted_is_verified_in_the_page_and_sent_nowhere(page, watch):
    headers, body = delivery_now()
    page.goto("/verify")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for name, value in (("secret", SECRET), ("headers", headers), ("body", body)):
        page.locator(f"#verify-{name}").fill(value)
    page.get_by_role("button", name="Check").click()
    expect(page.get_by_text("It verifies.")).to_be_visible()
    page.get_by_label("Body").fill(body.replace(",", ", "))
    page.get_by_role("button", name="Check").click()
    expect(page.get_by_text("It does not verify.")).to_be_visible()
    expect(page.locator(".verdicts")).to_contain_text("the body was parsed and written again")
    assert [url for url in asked if not url.endswith("/icon.svg")] == []  # which the browser may fetch late
    assert page.evaluate("fetch('/healthz').then(() => 'sent', () => 'refused')") == "refused"
    assert watch.take("connect-src 'none'")
    watch.take("Fetch API")


def test_without_a_secure_context_the_page_says_that_it_cannot_compute(page):
    page.add_init_script("Object.defineProperty(globalThis.crypto, 'subtle', { value: undefined })")
    page.goto("/verify")
    expect(page.get_by_text("or from localhost alone")).to_be_visible()
    expect(page.get_by_role("button", name="Check")).not_to_be_visible()
