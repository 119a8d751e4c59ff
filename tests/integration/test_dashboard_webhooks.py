"""The list of webhooks and the pages of one, as a browser without JavaScript has them."""

import re
from html import unescape
from struct import Struct

import pytest

from go2hooks.core.rollup import bucket_of


@pytest.fixture
def attempts_in_statistics(database):
    """`attempts_in_statistics(webhook_id, delivered=9, failed=1)` counts so many in this hour."""

    def count(webhook_id, delivered=0, failed=0, skipped=0, retried=0, ms=50.0):
        database.execute(
            """INSERT INTO attempt_rollups (webhook_id, step, at, delivered, failed, skipped, retried, histogram)
               SELECT %s, step, to_timestamp(floor(extract(epoch FROM now()) / step) * step), %s, %s, %s, %s, %s
               FROM unnest(ARRAY[60, 300, 3600, 86400]) step""",
            [webhook_id, delivered, failed, skipped, retried, Struct("<HI").pack(bucket_of(ms), delivered + failed)],
        )

    return count


def text(page):
    """What is to be read, in one line."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", page)).split())


def test_the_list_shows_how_each_webhook_did_in_the_last_day(acme_browser, acme, attempts_in_statistics):
    busy, _quiet = acme.create(name="busy")["id"], acme.create(name="quiet")
    attempts_in_statistics(busy, delivered=1990, failed=10, skipped=3)
    acme_browser.get("/")
    [first, second] = re.findall(r"<tr role=\"row\">\s*<td.*?</tr>", acme_browser.page, re.DOTALL)
    assert "2,003 attempts" in text(first)
    assert "99.5 %" in text(first)
    assert re.search(r"\b(4[89]|5[012]) ms", text(first))
    assert 'aria-label="Attempts by the hour: 1,990 delivered, 10 failed for good, 3 skipped' in first
    assert re.search(r'<path class="failed" d="M23\.1 ', first)  # in the last of 24 hours
    assert "nothing sent" in text(second)


def test_the_list_says_why_and_since_when_a_webhook_is_disabled(acme_browser, acme, database):
    by_failures, by_owner = acme.create(name="broken")["id"], acme.create(name="paused")["id"]
    acme("PATCH", f"/webhooks/{by_owner}", {"isActive": False})
    database.execute(
        """UPDATE webhooks SET is_active = false, disabled_at = now() - interval '3 hours',
               disabled_reason = '10 consecutive failed attempts' WHERE id = %s""",
        [by_failures],
    )
    acme_browser.get("/")
    assert "disabled 10 consecutive failed attempts, 3 h ago" in text(acme_browser.page)
    assert "disabled by its owner, 0 s ago" in text(acme_browser.page)


def test_the_list_has_pages_that_keep_the_filter(acme_browser, acme):
    for number in range(27):
        acme.create(name=f"hook {number:02}")
    acme.create(name="other")
    acme_browser.get("/?search=hook+&sort=-createdAt")
    assert "27 webhooks, page 1 of 2" in text(acme_browser.page)
    assert "hook 01" not in acme_browser.page
    following = unescape(re.search(r'href="([^"]*)" rel="next"', acme_browser.page)[1])
    acme_browser.get(following)
    assert "hook 01" in acme_browser.page
    assert 'rel="next"' not in acme_browser.page
