"""The list of webhooks and the pages of one, as a browser without JavaScript has them."""

import re
from html import unescape
from struct import Struct

import pytest
from browsing import EVIL, assert_only_our_scripts

from go2hooks.core.domain.rollup import bucket_of
from go2hooks.postgres.api_keys import Scope, create_key


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
    words = " ".join(unescape(re.sub(r"<[^>]*>", " ", page)).split())
    return re.sub(r" ([.,:])", r"\1", words)


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


def test_a_webhook_shows_its_figures_and_charts_of_the_time_that_is_asked_for(
    acme_browser, acme, attempts_in_statistics
):
    webhook_id = acme.create()["id"]
    attempts_in_statistics(webhook_id, delivered=98, failed=2, retried=1900, ms=120.0)
    for asked, steps in (("1h", 60), ("24h", 24), ("7d", 168), ("30d", 30)):
        acme_browser.get(f"/webhooks/{webhook_id}?range={asked}")
        page = text(acme_browser.page)
        assert "Delivered 98 Failed attempts 1,902 Succeeded 4.9 %" in page
        assert "98 delivered, 1,900 failed, to be retried, 2 failed for good" in acme_browser.page
        assert acme_browser.page.count('<g class="step">') == steps
        assert f'id="range-{asked}" href="/webhooks/{webhook_id}?range={asked}"' in acme_browser.page
        assert re.search(rf'id="range-{asked}"[^>]*aria-current', acme_browser.page)
        [row] = re.findall(r"<tbody><tr>.*?</tr></tbody>", acme_browser.page)  # the same as a table
        assert re.search(r" 98 1,900 2 0 (11\d|12\d) ms ", text(row))


def test_a_webhook_without_attempts_says_so_instead_of_drawing(acme_browser, acme):
    webhook_id = acme.create()["id"]
    acme_browser.get(f"/webhooks/{webhook_id}?range=nonsense")
    assert "Nothing was sent in the last 24 hours." in text(acme_browser.page)
    assert "Nothing was answered in the last 24 hours." in text(acme_browser.page)
    assert "<svg" not in acme_browser.page.partition('class="axes"')[2]


def test_the_charts_alone_are_given_where_they_alone_are_asked_for(acme_browser, acme):
    webhook_id = acme.create()["id"]
    answer = acme_browser.client.get(
        f"/webhooks/{webhook_id}?range=7d", headers={"HX-Request": "true", "HX-Target": "charts"}
    )
    assert answer.text.lstrip().startswith('<section id="charts">')
    assert "The last 7 days" in answer.text
    assert "<html" not in answer.text


def test_the_answer_to_a_test_event_appears_in_place_or_on_the_page(acme_browser, acme, outbox, database):
    webhook_id = acme.create()["id"]
    outbox.on_write = lambda sent: database.execute(
        """INSERT INTO attempts (webhook_id, created_at, delivery_id, attempt, account_id, event_id, event, kind, state, attempted_at,
                                 status_code, duration_ms, error_message, response_excerpt)
           VALUES (%s, to_timestamp(%s / 1000.0), %s, 1, 'acme', %s, %s, 'test', 'failed', now(), 500, 12, 'The receiver answered 500.', %s)""",
        [webhook_id, sent.origin_ms, sent.id, sent.event_id, sent.event, EVIL],
    )
    acme_browser.get(f"/webhooks/{webhook_id}")
    fields = {
        "csrf_token": re.search(r'name="csrf_token" value="([^"]*)"', acme_browser.page)[1],
        "event": "qr.scanned",
    }
    path = f"/webhooks/{webhook_id}/test"
    answer = acme_browser.client.post(path, data=fields, headers={"HX-Request": "true"})
    assert answer.status_code == 200
    assert "Not delivered. The receiver answered 500. (12 ms)" in text(answer.text)
    assert f'href="/webhooks/{webhook_id}/deliveries/{outbox.deliveries[0].id}"' in answer.text
    assert "<html" not in answer.text
    assert EVIL not in answer.text
    acme_browser.post(path, event="click")
    assert "The receiver answered 500. (12 ms)" in text(acme_browser.page)
    assert [sent.event for sent in outbox.deliveries] == ["qr.scanned", "click"]
    outbox.is_away = True
    answer = acme_browser.client.post(path, data=fields, headers={"HX-Request": "true"})
    assert "A server that the API needs is away" in text(answer.text)


def test_the_log_tells_what_was_changed_from_what_to_what_page_by_page(acme_browser, acme):
    webhook_id = acme.create(name="first name")["id"]
    acme("PATCH", f"/webhooks/{webhook_id}", {"name": EVIL, "events": ["*"]})
    for number in range(25):
        acme("PATCH", f"/webhooks/{webhook_id}", {"description": f"change {number}"})
    acme_browser.get(f"/webhooks/{webhook_id}/log")
    assert "change 23 change 24" in text(acme_browser.page)
    assert "first name" not in acme_browser.page
    acme_browser.get(unescape(re.search(r'href="([^"]*)" rel="next"', acme_browser.page)[1]))
    page = text(acme_browser.page)
    assert f"first name {EVIL}" in unescape(re.sub(r"</?(del|ins)>", "", acme_browser.page))
    assert '["*"]' in page
    assert "created" in page
    assert_only_our_scripts(acme_browser.page)


def test_another_account_s_webhook_has_no_page_of_any_kind(acme_browser, rival):
    theirs = rival.create()["id"]
    for page in ("", "/replays", "/log", "?range=1h"):
        acme_browser.get(f"/webhooks/{theirs}{page}", 404)


@pytest.fixture
def skipped(database):
    """`skipped(webhook_id, 3)` records so many deliveries, one of them from before it was disabled an hour ago."""

    def record(webhook_id, count):
        database.execute(
            """INSERT INTO attempts (webhook_id, created_at, delivery_id, attempt, account_id, event_id, event, kind, state,
                                     attempted_at, kafka_topic, kafka_partition, kafka_offset)
               SELECT %s, now() - n * interval '61 minutes' / %s, 'dlv_' || n, 1, 'acme', 'evt_1', 'click', 'event', 'skipped', now(),
                      'go2.deliveries', 0, n FROM generate_series(1, %s) n""",
            [webhook_id, count, count],
        )
        database.execute(
            """UPDATE webhooks SET is_active = false, disabled_at = now() - interval '1 hour',
                   disabled_reason = '10 consecutive failed attempts' WHERE id = %s""",
            [webhook_id],
        )

    return record


def test_one_click_enables_a_webhook_and_replays_what_was_skipped(acme_browser, acme, skipped):
    webhook_id = acme.create()["id"]
    skipped(webhook_id, 1203)
    for page in ("", "/replays", "/log"):
        acme_browser.get(f"/webhooks/{webhook_id}{page}")
        told = text(acme_browser.page)
        assert "Nothing is sent Disabled 1 h ago: 10 consecutive failed attempts. 1,203 deliveries were skipped" in told
    acme_browser.post(f"/webhooks/{webhook_id}/enable-and-replay")
    assert "Enabled, and what was skipped is being sent again." in text(acme_browser.page)
    assert acme("GET", f"/webhooks/{webhook_id}").json["data"]["isActive"] is True
    [replay] = acme("GET", f"/webhooks/{webhook_id}/replays").json["data"]
    assert replay["only"] == "skipped"
    acme_browser.post(f"/webhooks/{webhook_id}/enable-and-replay")  # clicked twice
    assert "It is enabled already." in text(acme_browser.page)


def test_when_the_replay_cannot_begin_the_webhook_is_enabled_and_the_page_says_what_is_left(
    acme_browser, acme, skipped, database
):
    webhook_id = acme.create()["id"]
    acme("POST", f"/webhooks/{webhook_id}/replays", {"from": "2024-01-01T00:00:00Z", "only": "failed"})
    skipped(webhook_id, 1)
    acme_browser.get(f"/webhooks/{webhook_id}")
    assert "1 delivery was skipped" in text(acme_browser.page)
    acme_browser.post(f"/webhooks/{webhook_id}/enable-and-replay")
    told = text(acme_browser.page)
    assert "Enabled. But the replay has not begun: The replay rpl_" in told
    assert "What was skipped is kept; replay it here." in told
    assert acme("GET", f"/webhooks/{webhook_id}").json["data"]["isActive"] is True


def test_a_webhook_that_missed_nothing_is_only_enabled(acme_browser, acme, skipped):
    webhook_id = acme.create()["id"]
    acme("PATCH", f"/webhooks/{webhook_id}", {"isActive": False})
    acme_browser.get(f"/webhooks/{webhook_id}")
    assert "Disabled 0 s ago: by its owner. Nothing was skipped since." in text(acme_browser.page)
    assert "enable-and-replay" not in acme_browser.page


def test_how_much_a_replay_would_send_is_told_before_it_begins(acme_browser, acme, skipped, outbox):
    webhook_id = acme.create()["id"]
    skipped(webhook_id, 40)
    acme("PATCH", f"/webhooks/{webhook_id}", {"isActive": True})
    acme_browser.get(f"/webhooks/{webhook_id}/replays")
    path = f"/webhooks/{webhook_id}/replays/estimate"
    acme_browser.post(path, only="skipped", range="the last day", events=["click"])
    assert "40 deliveries match." in text(acme_browser.page)
    assert re.search(r'value="click" checked', acme_browser.page)  # what was chosen stays chosen
    assert re.search(r'value="skipped" selected', acme_browser.page)
    token = re.search(r'name="csrf_token" value="([^"]*)"', acme_browser.page)[1]

    def in_place(**fields):
        return text(
            acme_browser.client.post(path, data={"csrf_token": token} | fields, headers={"HX-Request": "true"}).text
        )

    assert in_place(only="failed", range="the last hour") == "0 deliveries match: nothing would be sent."
    assert "12,345 messages of the log are to be looked through" in in_place(only="missed", range="the last week")
    assert "must lie before" in in_place(only="failed", **{"from": "2024-01-02T00:00", "to": "2024-01-01T00:00"})
    assert acme("GET", f"/webhooks/{webhook_id}/replays").json["data"] == []


def test_a_replay_begins_with_the_range_and_the_events_that_were_chosen(acme_browser, acme):
    webhook_id = acme.create(events=["*"])["id"]
    acme_browser.get(f"/webhooks/{webhook_id}/replays")
    acme_browser.post(
        f"/webhooks/{webhook_id}/replays", only="all", range="the last hour", events=["click", "qr.scanned"],
        **{"from": "2024-01-01T10:00", "to": "2024-01-02T11:30"},
    )  # fmt: skip
    [replay] = acme("GET", f"/webhooks/{webhook_id}/replays").json["data"]
    assert (replay["from"], replay["to"]) == ("2024-01-01T10:00:00Z", "2024-01-02T11:30:00Z")
    assert (replay["only"], replay["events"]) == ("all", ["click", "qr.scanned"])


def test_a_replay_is_watched_until_it_is_over(acme_browser, acme, database):
    webhook_id = acme.create()["id"]
    replay = acme("POST", f"/webhooks/{webhook_id}/replays", {"from": "2024-01-01T00:00:00Z", "only": "failed"}).json[
        "data"
    ]
    database.execute(
        "UPDATE replays SET status = 'running', matched = 2000, sent = 1500, delivered = 1100, unread = 400"
    )
    acme_browser.get(f"/webhooks/{webhook_id}/replays")
    told = text(acme_browser.page)
    assert "1,500 of 2,000 sent" in told
    assert "about 400 still to be looked through" in told
    assert 'max="2400" value="1100"' in acme_browser.page
    list_alone = {"HX-Request": "true", "HX-Target": "replays"}
    answer = acme_browser.client.get(f"/webhooks/{webhook_id}/replays", headers=list_alone).text
    assert 'hx-trigger="every' in answer
    assert "<html" not in answer
    database.execute(
        "UPDATE replays SET status = 'done', sent = 2000, delivered = 1990, failed = 10, finished_at = now()"
    )
    answer = acme_browser.client.get(f"/webhooks/{webhook_id}/replays", headers=list_alone).text
    assert "hx-trigger" not in answer
    assert f"/{replay['id']}/stop" not in answer
    assert "2,000 of 2,000 sent 1,990 10" in text(answer)


def test_a_new_webhook_offers_to_be_filled(acme_browser, acme, database):
    webhook_id = acme.create()["id"]
    acme_browser.get(f"/webhooks/{webhook_id}/replays")
    assert "This webhook is new: it can be filled" in text(acme_browser.page)
    assert 'value="missed" selected' in acme_browser.page
    acme_browser.get(f"/webhooks/{webhook_id}")
    assert "Fill it with what happened before" in text(acme_browser.page)
    database.execute("UPDATE webhooks SET created_at = now() - interval '2 days'")
    acme_browser.get(f"/webhooks/{webhook_id}/replays")
    assert "This webhook is new" not in text(acme_browser.page)
    acme_browser.get(f"/webhooks/{webhook_id}")
    assert "Fill it" not in acme_browser.page


def test_who_may_only_read_sees_the_replays_and_begins_none(browser, database, acme):
    webhook_id = acme.create()["id"]
    acme("POST", f"/webhooks/{webhook_id}/replays", {"from": "2024-01-01T00:00:00Z", "only": "failed"})
    browser.sign_in(create_key(database, "acme", scopes=[Scope.READ]).key)
    browser.get(f"/webhooks/{webhook_id}/replays")
    assert "0 of 0 sent" in text(browser.page)
    assert re.findall(r'method="post"[^>]* action="([^"]*)"', browser.page) == ["/sign-out"]
    browser.post(f"/webhooks/{webhook_id}/replays", 403, only="failed")
    browser.post(f"/webhooks/{webhook_id}/enable-and-replay")
    acme("PATCH", f"/webhooks/{webhook_id}", {"isActive": False})
    browser.post(f"/webhooks/{webhook_id}/enable-and-replay", 403)
