"""Deliveries of all webhooks of an account: merged newest first, page by page, nothing twice and nothing left out."""

from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from go2hooks.core.domain.delivery import delivery_id
from go2hooks.postgres.attempts import account_deliveries
from go2hooks.postgres.attempts.account_deliveries import Ids, account_page, page_by_id
from go2hooks.postgres.attempts.deliveries import DeliveryFilter

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture
def record(database):
    """`record(webhook, event number, state, attempt)`; events are a second apart, the later the newer."""

    def write(webhook_id, number, state="delivered", attempt=1, account="acme", event="click"):
        database.execute(
            """INSERT INTO attempts (webhook_id, created_at, delivery_id, attempt, account_id, event_id, event, kind, state, attempted_at)
               VALUES (%s, %s, %s, %s, %s, %s, %s, 'event', %s, now())""",
            [webhook_id, NOON + timedelta(seconds=number), delivery_id(f"evt_{number}", webhook_id), attempt, account,
             f"evt_{number}", event, state],
        )  # fmt: skip

    return write


@pytest.fixture
def hooks(acme):
    return [acme.create()["id"] for _ in range(3)]


def pages(acme, query="", **_):
    """Every delivery of every page, and how many pages there were."""
    found, cursor, count = [], "", 0
    while count < 200:
        answer = acme("GET", f"/deliveries?{query}{cursor}").json
        found += answer["data"]
        count += 1
        if not answer["meta"]["hasMore"]:
            return found, count
        cursor = f"&cursor={answer['meta']['nextCursor']}"
    raise AssertionError("it does not end")


@pytest.mark.parametrize("most_read", [3, 20_000])  # with few, pages end where a webhook's reading does
def test_all_are_there_once_newest_first_whatever_the_page(acme, hooks, record, monkeypatch, most_read):
    monkeypatch.setattr(account_deliveries, "MOST_READ", most_read)
    for number in range(40):  # the first webhook is busy, the last has old deliveries alone
        record(hooks[0], number)
        if number % 10 == 0:
            record(hooks[1], number, "failed")
        if number < 6:
            record(hooks[2], number, "retrying", attempt=1)
            record(hooks[2], number, "delivered", attempt=2)
    for per_page in (1, 3, 7, 100):
        found, _ = pages(acme, f"perPage={per_page}")
        assert [each["createdAt"] for each in found] == sorted((each["createdAt"] for each in found), reverse=True)
        ids = [each["id"] for each in found]
        assert len(ids) == len(set(ids)) == 50
        assert {each["webhookId"] for each in found} == set(hooks)
    failed, _ = pages(acme, "status=failed&perPage=2")
    assert [(each["webhookId"], each["eventId"]) for each in failed] == [
        (hooks[1], f"evt_{n}") for n in (30, 20, 10, 0)
    ]
    assert pages(acme, "status=retrying")[0] == []  # each was delivered since


def test_where_an_event_went_is_one_call(acme, hooks, record, rival):
    theirs = rival.create()["id"]
    for webhook_id in hooks:
        record(webhook_id, 1)
        record(webhook_id, 2)
    record(theirs, 1, account="rival")
    found, _ = pages(acme, "eventId=evt_1&perPage=2")
    assert {each["webhookId"] for each in found} == set(hooks)
    assert {each["eventId"] for each in found} == {"evt_1"}
    assert len(found) == 3
    [one] = pages(acme, f"eventId=evt_1&webhook={hooks[0]}")[0]
    assert one["webhookId"] == hooks[0]
    assert pages(acme, "eventId=evt_1&status=failed")[0] == []
    assert pages(acme, "eventId=evt_none")[0] == []


def test_filters_are_those_of_one_webhook_and_more(acme, hooks, record):
    record(hooks[0], 1, event="link.created")
    record(hooks[1], 2)
    assert [each["event"] for each in pages(acme, "event=link.created")[0]] == ["link.created"]
    assert [each["webhookId"] for each in pages(acme, f"webhook={hooks[1]}")[0]] == [hooks[1]]
    since = (NOON + timedelta(seconds=2)).isoformat().replace("+00:00", "Z")
    assert [each["webhookId"] for each in pages(acme, f"since={since}")[0]] == [hooks[1]]
    assert [each["webhookId"] for each in pages(acme, f"until={since}")[0]] == [hooks[0]]


def test_another_accounts_deliveries_are_not_there(acme, rival, record):
    theirs = rival.create()["id"]
    record(theirs, 1, account="rival")
    assert pages(acme)[0] == []
    assert acme("GET", f"/deliveries?webhook={theirs}").status_code == 404
    assert len(pages(rival)[0]) == 1


@pytest.mark.parametrize(
    "query", ["webhook=nonsense", "eventId=", "status=x", "cursor=x", f"eventId={'x' * 300}", "a=b"]
)
def test_what_makes_no_sense_is_refused(acme, query):
    assert acme("GET", f"/deliveries?{query}").status_code == 422


def test_a_cursor_of_another_list_is_refused(acme, hooks, record):
    for number in range(3):
        record(hooks[0], number)
    cursor = acme("GET", "/deliveries?perPage=1").json["meta"]["nextCursor"]
    for other in (
        f"/deliveries?webhook={hooks[0]}&",
        "/deliveries?eventId=evt_1&",
        f"/webhooks/{hooks[0]}/deliveries?",
    ):
        assert acme("GET", f"{other}cursor={cursor}").status_code == 422


def test_a_page_reads_few_rows_of_the_newest_webhooks_along_an_index(database_url, acme, hooks, record, monkeypatch):
    """No more for a longer history, and one of each other webhook."""
    for number in range(60):
        for place, webhook_id in enumerate(hooks):
            record(webhook_id, number + place * 100)
    asked = []
    with psycopg.connect(database_url) as conn:
        real = conn.execute
        monkeypatch.setattr(
            conn, "execute", lambda query, values=None: (asked.append((query, values)), real(query, values))[1]
        )
        page = account_page(conn, "acme", DeliveryFilter(until=NOON + timedelta(hours=1)), 1)
        _, [query, values] = asked  # the setting, and one query: what is newest lies within a day before
        [[plan]] = real("EXPLAIN (ANALYZE, FORMAT JSON) " + query.as_string(conn), values).fetchall()
    assert [(each.webhook_id, each.row.created_at) for each in page.deliveries] == [
        (hooks[2], NOON + timedelta(seconds=259))
    ]
    scans = [
        node
        for node in walk(plan["Plan"] if isinstance(plan, dict) else plan[0]["Plan"])
        if "attempts" in node.get("Relation Name", "")
    ]
    assert scans
    assert {node["Node Type"] for node in scans} <= {"Index Scan", "Index Only Scan"}
    assert sum(node["Actual Loops"] * node["Actual Rows"] for node in scans) == len(hooks) + 2 * 2


@pytest.mark.parametrize("ids", [Ids(event_id="evt_1"), Ids(delivery_id="dlv_1")])
def test_ids_are_looked_for_by_their_index_however_many_they_are(database_url, acme, hooks, record, monkeypatch, ids):
    for number in range(60):
        record(hooks[0], number)
    monkeypatch.setattr(Ids, "of", lambda self, owned: [delivery_id("evt_1", str(n)) for n in range(3000)])
    asked = []
    with psycopg.connect(database_url) as conn:
        conn.execute("ANALYZE attempts")
        real = conn.execute
        monkeypatch.setattr(
            conn, "execute", lambda query, values=None: (asked.append((query, values)), real(query, values))[1]
        )
        page_by_id(conn, "acme", ids, DeliveryFilter(), 20)
        _, [query, values] = asked
        [[plan]] = real("EXPLAIN (FORMAT JSON) " + query.as_string(conn), values).fetchall()
    [whole] = plan
    scans = [node for node in walk(whole["Plan"]) if "attempts" in node.get("Relation Name", "")]
    assert scans
    assert all("wanted.id" in node.get("Index Cond", node.get("Filter", "")) for node in scans)


def walk(node):
    yield node
    for child in node.get("Plans", ()):
        yield from walk(child)


def test_a_delivery_is_found_by_its_id_alone_and_says_what_its_webhook_is_called(acme, rival, hooks, record):
    theirs = rival.create()["id"]
    record(hooks[0], 1)
    record(hooks[1], 1)
    record(theirs, 1, account="rival")
    wanted = delivery_id("evt_1", hooks[0])
    [found] = pages(acme, f"deliveryId={wanted}")[0]
    assert (found["id"], found["webhookId"], found["webhookName"]) == (wanted, hooks[0], "Click Tracker")
    assert len(pages(acme, f"deliveryId={wanted}&eventId=evt_1")[0]) == 1
    for nothing in (f"deliveryId={delivery_id('evt_1', theirs)}", f"deliveryId={wanted}&eventId=evt_2",
                    f"deliveryId={wanted}&webhook={hooks[1]}", f"deliveryId={wanted}&status=failed"):  # fmt: skip
        assert pages(acme, nothing)[0] == []
    acme("DELETE", f"/webhooks/{hooks[0]}")
    assert pages(acme, f"deliveryId={wanted}")[0] == []
