"""Finding webhooks among many: search, filters, order."""

import time
from datetime import UTC, datetime, timedelta
from struct import Struct

import pytest
from psycopg import sql

from go2hooks.core.domain.rollup import bucket_of


def names(answer):
    assert answer.status_code == 200, answer.text
    assert answer.json["meta"]["total"] == len(answer.json["data"])
    return [row["name"] for row in answer.json["data"]]


@pytest.fixture
def hooks(acme, rival, database):
    """Four of ours in every state, and one of another account that looks like them."""
    made = {
        "Shop clicks": acme.create(name="Shop clicks", url="https://shop.example.com/hook", events=["click"]),
        "crm": acme.create(name="crm", url="https://crm.example.org/in", events=["link.created", "link.deleted"]),
        "Alles": acme.create(name="Alles", url="https://example.net/100%25/a_b", events=["*"]),
        "Übersicht": acme.create(name="Übersicht", url="https://example.net/axb", events=["qr.scanned"]),
    }
    rival.create(name="Shop clicks", url="https://shop.example.com/hook", events=["click"])
    state = "UPDATE webhooks SET {} WHERE id = %s"
    database.execute(sql.SQL(state.format("consecutive_failures = 3")), [made["crm"]["id"]])
    database.execute(sql.SQL(state.format("consecutive_failures = 10, is_active = false")), [made["Alles"]["id"]])
    return made


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["Shop clicks", "crm", "Alles", "Übersicht"]),
        ("search=SHOP", ["Shop clicks"]),
        ("search=example.NET", ["Alles", "Übersicht"]),
        ("search=", ["Shop clicks", "crm", "Alles", "Übersicht"]),
        ("search=100%25", ["Alles"]),  # a per cent sign as such, and so are the next two
        ("search=a_b", ["Alles"]),
        ("search=%5C", []),
        ("search=%25", ["Alles"]),
        ("search=bersicht", ["Übersicht"]),
        ("search=nowhere", []),
        ("event=click", ["Shop clicks", "Alles"]),
        ("event=link.deleted", ["crm", "Alles"]),
        ("event=*", ["Alles"]),
        ("state=active", ["Shop clicks", "crm", "Übersicht"]),
        ("state=failing", ["crm"]),
        ("state=disabled", ["Alles"]),
        ("state=active&event=click", ["Shop clicks"]),
        ("state=disabled&search=shop", []),
        ("sort=-createdAt", ["Übersicht", "Alles", "crm", "Shop clicks"]),
        ("sort=name", ["Alles", "crm", "Shop clicks", "Übersicht"]),
        ("sort=-name&state=active", ["Übersicht", "Shop clicks", "crm"]),
        ("sort=-consecutiveFailures&state=active&search=.example.", ["crm", "Shop clicks"]),
    ],
)
def test_webhooks_are_found_by_text_event_and_state(acme, hooks, query, expected):
    assert names(acme("GET", f"/webhooks?{query}")) == expected


def test_the_id_is_searched_too(acme, hooks):
    assert names(acme("GET", f"/webhooks?search={hooks['crm']['id'][4:12].swapcase()}")) == ["crm"]


def test_a_change_moves_a_webhook_in_the_order_of_changes(acme, hooks):
    acme("PATCH", f"/webhooks/{hooks['crm']['id']}", {"name": "CRM"})
    assert names(acme("GET", "/webhooks?sort=-updatedAt"))[0] == "CRM"


@pytest.mark.parametrize("sort", ["createdAt", "-createdAt", "updatedAt", "name", "-name", "-consecutiveFailures"])
def test_every_order_pages_through_everything_once(acme, database, sort):
    """Also where nothing but the id tells webhooks apart."""
    for _ in range(7):
        acme.create(name="same")
    database.execute("UPDATE webhooks SET created_at = now(), updated_at = now()")
    pages = [acme("GET", f"/webhooks?perPage=3&page={page}&sort={sort}&search=SAME").json for page in (1, 2, 3)]
    assert [page["meta"]["total"] for page in pages] == [7, 7, 7]
    assert len({row["id"] for page in pages for row in page["data"]}) == 7


@pytest.mark.parametrize(
    ("query", "field", "says"),
    [
        ("search=" + "x" * 101, "search", "100"),
        ("search=a%00b", "search", "control"),
        ("search=a&search=b", "search", "more than once"),
        ("event=nope", "event", "link.created"),
        ("event=", "event", "click"),
        ("state=broken", "state", "active, failing, disabled"),
        ("state=Active", "state", "active"),
        ("sort=url", "sort", "-consecutiveFailures"),
        ("sort=--name", "sort", "-name"),
        ("sort=name;DROP", "sort", "createdAt"),
        ("sort=", "sort", "createdAt"),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused_by_name(acme, query, field, says):
    answer = acme("GET", f"/webhooks?{query}")
    assert answer.status_code == 422, answer.text
    assert list(answer.json["error"]["details"]) == [field]
    assert says in answer.json["error"]["details"][field]


def test_a_search_among_thousands_is_quick(acme, database):
    acme.create(name="the needle")
    database.execute(
        """INSERT INTO webhooks (id, account_id, name, url, events, sealed_secret)
           SELECT 'wh_' || md5(n::text), 'acme', 'Webhook ' || md5(n::text), 'https://example.com/' || md5((n + 1)::text),
                  ARRAY['click'], '' FROM generate_series(1, 5000) n"""
    )
    began = time.monotonic()
    assert names(acme("GET", "/webhooks?search=NEEDLE&sort=name")) == ["the needle"]
    assert time.monotonic() - began < 1  # takes 0.03 s


def test_the_list_tells_each_webhook_s_last_day_where_it_is_asked_to(acme, database):
    busy, quiet = acme.create(name="busy")["id"], acme.create(name="quiet")["id"]
    database.execute(
        """INSERT INTO attempt_rollups (webhook_id, step, at, delivered, failed, skipped, retried, histogram)
           SELECT %s, step, date_trunc('hour', now()) - h * interval '1 hour', 3, 1, 0, 2, %s
           FROM generate_series(0, 24) h, unnest(ARRAY[3600, 86400]) step""",
        [busy, Struct("<HI").pack(bucket_of(50.0), 4)],
    )
    assert "stats" not in acme("GET", "/webhooks").json["data"][0]
    told = {each["id"]: each["stats"] for each in acme("GET", "/webhooks?include=stats").json["data"]}
    assert (told[busy]["stepSeconds"], len(told[busy]["series"])) == (3600, 24)
    end = datetime.fromisoformat(told[busy]["to"])
    assert timedelta(0) < end - datetime.now(UTC) <= timedelta(hours=1)
    assert end - datetime.fromisoformat(told[busy]["from"]) == timedelta(days=1)
    totals = told[busy]["totals"]
    assert (totals["delivered"], totals["failed"], totals["retried"]) == (72, 24, 48)  # of the 25th hour nothing
    assert totals["p95Ms"] == pytest.approx(50, rel=0.05)
    assert (told[quiet]["totals"]["delivered"], told[quiet]["totals"]["p95Ms"]) == (0, None)
    assert acme("GET", "/webhooks?include=secrets").status_code == 422
