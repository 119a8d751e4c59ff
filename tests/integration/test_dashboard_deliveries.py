"""The pages about deliveries as a browser without JavaScript uses them, and what a script asks them for."""

import re
from datetime import UTC, datetime, timedelta
from html import unescape

import pytest
from browsing import EVIL, assert_only_our_scripts

from go2hooks.core.domain.delivery import Position, delivery_id
from go2hooks.postgres.api_keys import Scope, create_key

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture
def record(database):
    """`record(webhook, event number, state, **columns)`: events are a minute apart, the later the newer."""

    def write(webhook_id, number, state="delivered", **columns):
        row = {
            "webhook_id": webhook_id, "created_at": NOON + timedelta(minutes=number), "delivery_id": delivery_id(f"evt_{number}", webhook_id),
            "attempt": 1, "account_id": "acme", "event_id": f"evt_{number}", "event": "click", "kind": "event", "state": state,
            "attempted_at": NOON + timedelta(minutes=number, seconds=1),
        } | columns  # fmt: skip
        names, marks = ", ".join(row), ", ".join(["%s"] * len(row))
        database.execute(f"INSERT INTO attempts ({names}) VALUES ({marks})", list(row.values()))
        return row["delivery_id"]

    return write


@pytest.fixture
def hook(acme):
    return acme.create(name="First")["id"]


@pytest.fixture
def failed(acme, hook, outbox, record):
    """The address of a delivery's page: it failed twice, is going to be retried, and its payload is kept."""
    acme("POST", f"/webhooks/{hook}/test", {"event": "click"})
    sent = outbox.deliveries.pop()
    position = Position("go2.deliveries", 0, 1)
    outbox.log[position] = sent._replace(kind="event")
    columns = {
        "created_at": datetime.fromtimestamp(sent.origin_ms / 1000, UTC), "delivery_id": sent.id, "event_id": sent.event_id, "status_code": 500,
        "duration_ms": 12, "error_code": "bad_status", "error_message": "The receiver answered 500 Internal Server Error.",
        "response_excerpt": EVIL, "kafka_topic": position.topic, "kafka_partition": 0, "kafka_offset": 1,
    }  # fmt: skip
    record(hook, 1, "retrying", **columns)
    record(hook, 1, "failed", **columns | {"attempt": 2, "attempted_at": NOON + timedelta(minutes=1, seconds=6)})
    return f"/webhooks/{hook}/deliveries/{sent.id}"


def ids(browser):
    return re.findall(r'class="id under">(dlv_\w+)<', browser.page)


# --- lists


def test_all_deliveries_are_listed_newest_first_with_their_webhook_and_pages_lead_on(acme_browser, acme, hook, record):
    other = acme.create(name="Second")["id"]
    made = [record(hook if number % 2 else other, number) for number in range(30)]
    acme_browser.get("/deliveries")
    assert ids(acme_browser) == made[:4:-1]
    assert ">First</a>" in acme_browser.page
    assert ">Second</a>" in acme_browser.page
    older = unescape(re.search(r'rel="next" href="([^"]*)"', acme_browser.page)[1])
    acme_browser.get(older)
    assert ids(acme_browser) == made[4::-1]
    assert 'data-newest="/deliveries' in acme_browser.page
    acme_browser.get(f"/webhooks/{hook}/deliveries")
    assert ids(acme_browser) == made[::-2]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("status=failed", [2]),
        ("event=link.created", [1]),
        ("since=2026-11-20T12:02:00&until=2026-11-20T12:03:00", [2]),  # as a browser's field has it
        ("since=2026-11-20T12:02:00.000Z", [3, 2]),  # as our script makes it
        ("id=evt_3", [3]),
        ("id={dlv_2}", [2]),
        ("id=evt_none", []),
        ("status=failed&event=link.created", []),
    ],
)
def test_filters_and_any_id_find_deliveries(acme_browser, hook, record, query, found):
    made = {
        1: record(hook, 1, event="link.created"),
        2: record(hook, 2, "failed"),
        3: record(hook, 3),
    }
    for path in ("/deliveries", f"/webhooks/{hook}/deliveries"):
        acme_browser.get(f"{path}?{query.replace('{dlv_2}', made[2])}")
        assert ids(acme_browser) == [made[number] for number in found]
        assert ("No delivery is like that." in acme_browser.page) is (not found)


def test_a_webhook_is_chosen_by_name_or_found_by_its_id(acme_browser, acme, hook, record):
    other = acme.create(name="Second")["id"]
    first, _ = record(hook, 1), record(other, 2)
    for query in (f"webhook={hook}", f"id={hook}"):
        acme_browser.get(f"/deliveries?{query}")
        assert ids(acme_browser) == [first]
    assert f'<option value="{hook}">First</option>' in acme_browser.page


@pytest.mark.parametrize(
    ("query", "field"),
    [("since=yesterday", "since"), ("status=lost", "status"), ("id=" + "x" * 300, "id"), ("id=wh_none", "id"),
     ("webhook=wh_none", "webhook"), ("event=boom", "event")],
)  # fmt: skip
def test_what_is_wrong_with_a_filter_stands_beside_it(acme_browser, query, field):
    acme_browser.get(f"/deliveries?{query}")
    assert f'id="{field}-fault"' in acme_browser.page
    assert "<table" not in acme_browser.page


def test_a_page_that_ends_before_it_found_anything_leads_on(acme_browser, hook, record, monkeypatch):
    monkeypatch.setattr("go2hooks.postgres.attempts.deliveries.MOST_READ", 2)
    made = [record(hook, number, event="link.created" if number == 0 else "click") for number in range(4)]
    acme_browser.get(f"/webhooks/{hook}/deliveries?event=click&since=2026-11-20T12:01:00&until=2026-11-20T12:02:00")
    assert ids(acme_browser) == [made[1]]
    record(hook, 2, "retrying", attempt=2)
    record(hook, 3, "retrying", attempt=2)
    acme_browser.get(f"/webhooks/{hook}/deliveries?event=click&status=delivered")
    assert ids(acme_browser) == []
    assert "go on with older ones" in acme_browser.page
    acme_browser.get(unescape(re.search(r'rel="next" href="([^"]*)"', acme_browser.page)[1]))
    assert ids(acme_browser) == []
    acme_browser.get(unescape(re.search(r'rel="next" href="([^"]*)"', acme_browser.page)[1]))
    assert ids(acme_browser) == [made[1]]


def test_a_wrong_cursor_is_said_and_no_defect(acme_browser):
    acme_browser.get("/deliveries?cursor=nonsense", 422)
    assert "cursor" in acme_browser.page


# --- what keeps itself up to date


def rows(browser, query="", **headers):
    return browser.client.get(f"/deliveries/rows?perPage=25&{query}", headers=headers)


def test_the_newest_rows_are_sent_only_when_they_have_changed(acme_browser, hook, record):
    record(hook, 1, "retrying")
    first = rows(acme_browser)
    assert first.text.count("<tr ") == 1
    assert "<html" not in first.text
    again = rows(acme_browser, **{"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")
    made = record(hook, 1, "delivered", attempt=2)
    changed = rows(acme_browser, **{"If-None-Match": first.headers["ETag"]})
    assert re.search(rf'data-key="{made} [^"]*" data-version="delivered 2 ', changed.text)


def test_rows_are_of_the_filters_of_the_page_that_asks(acme_browser, acme, hook, record):
    other = acme.create()["id"]
    record(hook, 1, "failed")
    record(other, 1, "failed")
    record(other, 2)
    acme_browser.get(f"/webhooks/{other}/deliveries?status=failed")
    live = unescape(re.search(r'data-live="([^"]*)"', acme_browser.page)[1])
    text = acme_browser.client.get(live).text
    assert text.count("<tr ") == 1
    assert 'class="whose"' not in text
    assert rows(acme_browser, "status=nonsense").status_code == 422


def test_a_page_that_keeps_asking_spends_none_of_the_keys_quota(acme_browser, acme, key):
    acme.key = key.key
    before = acme("GET", "/deliveries").headers["RateLimit"]
    for _ in range(30):
        assert rows(acme_browser).status_code == 200
    left = [int(re.search(r"r=(\d+)", each)[1]) for each in (before, acme("GET", "/deliveries").headers["RateLimit"])]
    assert left[0] - left[1] <= 1


def test_who_is_signed_out_gets_no_rows(browser):
    assert rows(browser).status_code == 302


# --- one delivery


def test_a_delivery_shows_its_attempts_with_the_waits_between_and_what_to_do(acme_browser, failed):
    acme_browser.get(failed)
    page = unescape(acme_browser.page)
    assert re.findall(r"<strong>(\d)\.</strong> <span class=\"badge failed\">500", page) == ["1", "2"]
    assert "5 s later" in page
    assert page.count("The receiver's code failed: its log at this time says where.") == 2
    assert '"event": "click"' in page
    assert "<dt>X-Webhook-Event</dt><dd><code>click</code></dd>" in page
    assert "signature</dt>" not in page.lower()
    assert_only_our_scripts(acme_browser.page)
    assert "<img src=x" not in acme_browser.page


def test_a_delivery_is_sent_again_by_a_button(acme_browser, failed, outbox, database):
    outbox.on_write = lambda sent: database.execute(
        """INSERT INTO attempts (webhook_id, created_at, delivery_id, attempt, account_id, event_id, event, kind, state, attempted_at,
                                 status_code, duration_ms)
           SELECT webhook_id, created_at, delivery_id, %s, account_id, event_id, event, 'redeliver', 'delivered', now(), 204, 3
           FROM attempts WHERE attempt = 1""",
        [sent.attempt],
    )
    acme_browser.get(failed)
    acme_browser.post(f"{failed}/redeliver")
    assert "The receiver answered 204 in 3.0 ms." in acme_browser.page
    assert [delivery.attempt for delivery in outbox.deliveries] == [3]


def test_the_next_attempt_is_counted_down_to_and_looked_for(acme_browser, database, failed):
    acme_browser.get(failed)
    assert "data-progress" not in acme_browser.page
    database.execute(
        "UPDATE attempts SET state = 'retrying', next_attempt_at = now() + interval '90 s' WHERE attempt = 2"
    )
    acme_browser.get(failed)
    assert re.search(r'class="countdown" datetime="[^"]*Z" title="[^"]* UTC">in 1 min<', acme_browser.page)
    assert "Send again" not in acme_browser.page
    progress = re.search(r'data-progress="([^"]*)"', acme_browser.page)[1]
    first = acme_browser.client.get(progress)
    assert 'id="progress"' in first.text
    unchanged = acme_browser.client.get(progress, headers={"If-None-Match": first.headers["ETag"]})
    assert unchanged.status_code == 304
    database.execute("UPDATE attempts SET state = 'delivered', error_code = NULL WHERE attempt = 2")
    assert (
        "data-progress" not in acme_browser.client.get(progress, headers={"If-None-Match": first.headers["ETag"]}).text
    )


def test_what_has_expired_or_is_not_there_says_what_it_is(acme_browser, hook, failed, outbox):
    outbox.log.clear()
    acme_browser.get(failed)
    assert "The payload has expired" in acme_browser.page
    assert "Send again" not in acme_browser.page
    assert "curl" not in acme_browser.page
    acme_browser.post(f"{failed}/redeliver", 410)
    assert "Kafka no longer has the payload" in acme_browser.page
    acme_browser.get(f"/webhooks/{hook}/deliveries/dlv_none", 404)
    assert "This webhook has no delivery with this id" in acme_browser.page
    acme_browser.get("/webhooks/wh_none/deliveries", 404)
    assert "no webhook with this id" in acme_browser.page


def test_a_curl_command_is_made_when_it_is_asked_for(acme_browser, failed, outbox):
    acme_browser.get(failed)
    assert "webhook-signature" not in acme_browser.page
    acme_browser.post(f"{failed}/curl")
    assert "<h1>As a curl command</h1>" in acme_browser.page
    assert "webhook-signature: v1," in unescape(acme_browser.page)
    token = re.search(r'name="csrf_token" value="([^"]*)"', acme_browser.page)[1]
    part = acme_browser.client.post(f"{failed}/curl", data={"csrf_token": token}, headers={"HX-Request": "true"})
    assert part.text.startswith("<pre")
    assert outbox.deliveries == []


def test_a_delivery_of_another_account_is_not_there(browser, database, failed, outbox):
    browser.sign_in(create_key(database, "rival").key)
    browser.get(failed, 404)
    browser.get(failed.rpartition("/")[0], 404)
    browser.get(f"{failed}/progress", 404)
    browser.get(f"/deliveries?id={failed.rpartition('/')[2]}")
    assert ids(browser) == []
    browser.get("/deliveries")
    browser.post(f"{failed}/redeliver", 404)
    browser.get("/deliveries")
    browser.post(f"{failed}/curl", 404)
    assert outbox.deliveries == []


def test_a_key_that_may_only_read_is_offered_no_way_to_send(browser, database, failed):
    browser.sign_in(create_key(database, "acme", scopes=[Scope.READ]).key)
    browser.get(failed)
    assert re.findall(r'method="post" action="([^"]*)"', browser.page) == ["/sign-out"]
    browser.post(f"{failed}/curl", 403)
    assert "webhook-signature" not in browser.page


def test_what_customers_producers_and_receivers_write_is_text(acme_browser, acme, outbox, record):
    hook = acme.create(name=EVIL, headers={"X-Own": EVIL})["id"]
    made = record(
        hook, 1, "failed", event_id=EVIL, status_code=302, error_code="redirect", error_message=EVIL, response_excerpt=EVIL,
        location=f"https://evil.example/{EVIL}", retry_after=EVIL, remote_address=EVIL, kafka_topic="t", kafka_partition=0, kafka_offset=1,
    )  # fmt: skip
    acme("POST", f"/webhooks/{hook}/test", {"event": "click"})
    outbox.log[Position("t", 0, 1)] = outbox.deliveries.pop()._replace(
        id=made,
        body=b'{"event":"click","timestamp":"x","data":{"city":"<script>alert(1)</script>\'\\"><img src=x onerror=alert(1)>"}}',
    )
    place = f"/webhooks/{hook}/deliveries"
    for path in ("/deliveries", place, f"{place}/{made}", f"{place}/{made}/progress", "/deliveries/rows",
                 "/deliveries?id=%3Cscript%3E%22", "/deliveries?since=%22%3E%3Cscript%3E", "/deliveries?webhook=%22%3E%3Cscript%3E"):  # fmt: skip
        acme_browser.get(path)
        assert_only_our_scripts(acme_browser.page)
        assert "<img src=x" not in acme_browser.page
        assert 'value=""><script' not in acme_browser.page
    acme_browser.get(f"{place}/{made}")
    acme_browser.post(f"{place}/{made}/curl")
    assert_only_our_scripts(acme_browser.page)
    assert "<img src=x" not in acme_browser.page
