"""The history of deliveries, on a real database."""

import base64
import itertools
from datetime import UTC, datetime, timedelta
from hashlib import blake2b

import psycopg
import pytest
from psycopg import sql

from go2hooks.core.domain.outcome import State
from go2hooks.postgres.attempts import deliveries
from go2hooks.postgres.attempts.deliveries import DeliveryFilter, Place

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
COLUMNS = (
    "webhook_id", "created_at", "delivery_id", "attempt", "account_id", "event_id", "event", "kind", "state",
    "status_code", "duration_ms", "error_code", "error_message", "next_attempt_at", "attempted_at",
)  # fmt: skip


@pytest.fixture
def hook(acme):
    return acme.create(events=["*"])["id"]


@pytest.fixture
def history(database, hook):
    """`history(delivery, attempt, state, **columns)` records an attempt, `minute` minutes past noon."""

    def record(delivery_id, attempt, state, *, minute=0, webhook=hook, event="click", **columns):
        created = NOON + timedelta(minutes=minute)
        row = {
            "webhook_id": webhook, "created_at": created, "delivery_id": delivery_id, "attempt": attempt,
            "account_id": "acme", "event_id": f"evt_{delivery_id}", "event": event, "kind": "event", "state": state,
            "attempted_at": created + timedelta(seconds=attempt),
        } | columns  # fmt: skip
        names = ", ".join(row)
        marks = ", ".join(["%s"] * len(row))
        database.execute(f"INSERT INTO attempts ({names}) VALUES ({marks})", list(row.values()))

    return record


@pytest.fixture
def one_of_each(history):
    """One delivery in each state, a minute apart, the oldest first."""
    history(
        "dlv_delivered", 1, "retrying", minute=1, status_code=500, error_code="bad_status", error_message="answered 500"
    )
    history("dlv_delivered", 2, "delivered", minute=1, status_code=204, duration_ms=12.5)
    history("dlv_failed", 5, "retrying", minute=2, event="link.created")
    history(
        "dlv_failed",
        6,
        "failed",
        minute=2,
        event="link.created",
        error_code="timeout",
        error_message="no answer in 10 s",
    )
    history("dlv_retrying", 0, "pending", minute=3)
    retry_at = NOON + timedelta(minutes=3, milliseconds=5250)
    history("dlv_retrying", 1, "retrying", minute=3, status_code=503, duration_ms=3.25, next_attempt_at=retry_at)
    history("dlv_skipped", 1, "retrying", minute=4)
    history("dlv_skipped", 2, "skipped", minute=4, error_code="webhook_disabled", error_message="disabled")
    history("dlv_pending", 0, "pending", minute=5, event="qr.scanned", kind="test")


def ids(answer):
    assert answer.status_code == 200, answer.text
    return [entry["id"].removeprefix("dlv_") for entry in answer.json["data"]]


def test_each_delivery_appears_once_as_its_last_attempt_left_it_newest_first(acme, hook, one_of_each):
    answer = acme("GET", f"/webhooks/{hook}/deliveries")
    assert ids(answer) == ["pending", "skipped", "retrying", "failed", "delivered"]
    entries = {entry["status"]: entry for entry in answer.json["data"]}
    assert entries["delivered"] == {
        "id": "dlv_delivered", "event": "click", "eventId": "evt_dlv_delivered", "kind": "event", "status": "delivered",
        "attempts": 2, "statusCode": 204, "responseTimeMs": 12.5, "errorCode": None, "errorMessage": None,
        "createdAt": "2026-11-20T12:01:00Z", "lastAttemptAt": "2026-11-20T12:01:02Z", "nextRetryAt": None,
    }  # fmt: skip
    assert entries["retrying"]["nextRetryAt"] == "2026-11-20T12:03:05.250Z"
    assert entries["retrying"]["attempts"] == 1
    assert (entries["failed"]["errorCode"], entries["failed"]["errorMessage"]) == ("timeout", "no answer in 10 s")
    assert entries["failed"]["attempts"] == 6
    assert (entries["skipped"]["attempts"], entries["skipped"]["lastAttemptAt"]) == (1, None)
    assert (entries["pending"]["attempts"], entries["pending"]["lastAttemptAt"]) == (0, None)
    assert entries["pending"]["kind"] == "test"
    assert answer.json["meta"] == {"perPage": 20, "hasMore": False, "nextCursor": None}


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        *((f"status={state}", [state]) for state in State),
        ("event=click", ["skipped", "retrying", "delivered"]),
        ("event=link.created", ["failed"]),
        ("event=link.created&status=failed", ["failed"]),
        ("event=link.created&status=delivered", []),
        ("event=click&status=retrying", ["retrying"]),
        ("since=2026-11-20T12:03:00Z", ["pending", "skipped", "retrying"]),
        ("until=2026-11-20T12:03:00Z", ["failed", "delivered"]),
        ("since=2026-11-20T14:02:00%2B02:00&until=2026-11-20T12:03:00.001Z", ["retrying", "failed"]),
        ("since=2027-01-01T00:00:00Z", []),
        ("status=retrying&until=2026-11-20T12:03:00Z", []),
    ],
)
def test_filters_apply_to_the_delivery_as_it_is_now(acme, hook, one_of_each, query, expected):
    assert ids(acme("GET", f"/webhooks/{hook}/deliveries?{query}")) == expected


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("status=done", "status"), ("event=*", "event"), ("event=nope", "event"), ("since=yesterday", "since"),
        ("since=2026-11-20T12:00:00", "since"), ("until=0001-01-01T00:00:00%2B14:00", "until"), ("perPage=101", "perPage"),
        ("until=9999-12-31T23:59:59-14:00", "until"), ("cursor=x", "cursor"), ("cursor=", "cursor"), ("page=1", "page"),
        ("cursor=%00", "cursor"), ("cursor=%c3%a4", "cursor"), ("status=failed&status=failed", "status"),
        ("cursor=" + "A" * 5000, "cursor"), ("since=%00", "since"), ("event=%ff", "event"),
    ],
)  # fmt: skip
def test_a_filter_that_makes_no_sense_is_refused_by_name(acme, hook, query, field):
    answer = acme("GET", f"/webhooks/{hook}/deliveries?{query}")
    assert answer.status_code == 422, answer.text
    assert list(answer.json["error"]["details"]) == [field]


@pytest.mark.parametrize("query", ["", "status=retrying", "status=delivered", "event=link.created", "event=click"])
def test_a_cursor_walks_through_everything_once_while_new_deliveries_arrive(acme, hook, history, query):
    expected = []
    for number in range(23):
        minute = number // 3  # several share their time, so that the id decides
        event = "link.created" if query.startswith("event=link") or number % 4 == 0 else "click"
        last = "delivered" if query == "status=delivered" else "retrying"
        history(f"dlv_{number:03d}", 1, "retrying", minute=minute, event=event)
        history(f"dlv_{number:03d}", 2, last, minute=minute, event=event)
        if not query.startswith("event=click") or event == "click":
            expected.insert(0, f"{number:03d}")
    seen, cursor = [], ""
    for page in itertools.count():
        answer = acme("GET", f"/webhooks/{hook}/deliveries?perPage=4&{query}{cursor}")
        seen += ids(answer)
        meta = answer.json["meta"]
        assert meta["hasMore"] == (meta["nextCursor"] is not None)
        if not meta["hasMore"]:
            break
        assert len(answer.json["data"]) == 4
        cursor = f"&cursor={meta['nextCursor']}"
        history(f"dlv_new{page}", 1, "retrying", minute=60 + page, event="click")
    assert seen == expected


@pytest.fixture
def walk_on(acme, hook):
    """`walk_on("status=…")`: what pages of four show, one page after the other, until there are no more."""

    def pages(query):
        cursor = ""
        while cursor is not None:
            answer = acme("GET", f"/webhooks/{hook}/deliveries?perPage=4&{query}{cursor}")
            yield ids(answer)
            following = answer.json["meta"]["nextCursor"]
            cursor = following and f"&cursor={following}"

    return pages


@pytest.mark.parametrize(
    "query",
    ["status=delivered", "status=retrying", "status=failed", "status=skipped", "event=click", "event=link.created",
     "event=link.created&status=failed", "event=link.created&status=delivered", "event=click&status=retrying"],
)  # fmt: skip
def test_a_page_ends_where_it_has_read_enough_and_the_next_goes_on_there(hook, history, walk_on, monkeypatch, query):
    monkeypatch.setattr(deliveries, "MOST_READ", 7)
    wanted = dict(each.split("=") for each in query.split("&"))
    expected = []
    for number in range(60):
        event = "click" if number % 3 else "link.created"
        last = {0: "delivered", 11: "retrying", 6: "failed", 25: "skipped"}.get(number % 30, "failed")
        attempts = 1 + number % 4
        for attempt in range(1, attempts):
            history(f"dlv_{number:03d}", attempt, "retrying", minute=number // 3, event=event)
        history(f"dlv_{number:03d}", attempts, last, minute=number // 3, event=event)
        if wanted.get("event", event) == event and wanted.get("status", last) == last:
            expected.insert(0, f"{number:03d}")
    pages = list(walk_on(query))
    assert [delivery for page in pages for delivery in page] == expected
    assert all(len(page) <= 4 for page in pages)
    assert len(pages) <= 1 + len(expected) // 4 + 150 // 7  # each is full, or has read what it may


def test_what_comes_and_goes_while_a_page_is_read_moves_no_cursor(database, hook, history, walk_on, monkeypatch):
    """Retries are dated by their event, so that they lie in the middle; a test event that Kafka refused is taken back."""
    monkeypatch.setattr(deliveries, "MOST_READ", 10)
    for number in range(40):
        history(f"dlv_{number:03d}", 1, "retrying", minute=number)
        history(f"dlv_{number:03d}", 2, "delivered" if number % 6 == 0 else "failed", minute=number)
    find_end, moves = deliveries.end_query, itertools.cycle([
        "DELETE FROM attempts WHERE attempt = 1 AND webhook_id = %(hook)s",
        """INSERT INTO attempts SELECT webhook_id, created_at, delivery_id, 1, account_id, event_id, event, kind, 'retrying',
               NULL, NULL, NULL, NULL, NULL, attempted_at FROM attempts WHERE attempt = 2 AND webhook_id = %(hook)s""",
    ])  # fmt: skip

    def move_and_find_end(*arguments):
        database.execute(next(moves), {"hook": hook})
        return find_end(*arguments)

    monkeypatch.setattr(deliveries, "end_query", move_and_find_end)
    shown = [delivery for page in walk_on("status=delivered") for delivery in page]
    assert shown == ["036", "030", "024", "018", "012", "006", "000"]


@pytest.mark.parametrize("status", [state for state in State if state != State.DELIVERED])
def test_a_delivery_that_was_continued_has_the_status_of_its_last_attempt(acme, hook, history, status):
    """Dead letters are sent back with attempts that are numbered on."""
    history("dlv_continued", 1, status)
    history("dlv_continued", 2, "delivered")
    assert ids(acme("GET", f"/webhooks/{hook}/deliveries?status={status}")) == []
    assert ids(acme("GET", f"/webhooks/{hook}/deliveries?status=delivered")) == ["continued"]
    history("dlv_continued", 3, "failed")
    assert ids(acme("GET", f"/webhooks/{hook}/deliveries?status=delivered")) == []


def test_a_cursor_that_was_altered_or_belongs_to_another_webhook_is_refused(acme, hook, history):
    for number in range(3):
        history(f"dlv_{number}", 1, "delivered", minute=number)
    cursor = acme("GET", f"/webhooks/{hook}/deliveries?perPage=1").json["meta"]["nextCursor"]
    other = acme.create()["id"]
    assert acme("GET", f"/webhooks/{other}/deliveries?cursor={cursor}").status_code == 422
    for place in range(len(cursor) - 1):  # the last character may carry unused bits
        altered = cursor[:place] + ("A" if cursor[place] != "A" else "B") + cursor[place + 1 :]
        assert acme("GET", f"/webhooks/{hook}/deliveries?cursor={altered}").status_code == 422


@pytest.mark.parametrize(
    "place",
    [b"", b".", b"1764590400000000", b"1764590400000000.", b".dlv_0a", b"-1.dlv_0a", b"+1.dlv_0a", b" 1.dlv_0a", b"1_0.dlv_0a",
     b"01.dlv_0a", b"1e3.dlv_0a", b"\xb2.dlv_0a", b"9" * 18 + b".dlv_0a", b"9" * 5000 + b".dlv_0a", b"1.dlv_\0", b"1.dlv_0a\0",
     b"1.dlv_0a\n", b"1.evt_0a", b"1.dlv_0A", b"1.dlv_\xff", b"1.dlv_0a.1"],
)  # fmt: skip
def test_a_made_up_cursor_with_the_right_check_is_refused_all_the_same(acme, hook, place):
    """The check is no secret: its key is the webhook's id."""
    check = blake2b(place, digest_size=6, key=hook.encode()).digest()
    cursor = base64.urlsafe_b64encode(check + place).rstrip(b"=").decode()
    answer = acme("GET", f"/webhooks/{hook}/deliveries?cursor={cursor}")
    assert answer.status_code == 422, answer.text
    assert list(answer.json["error"]["details"]) == ["cursor"]


def test_a_webhook_shows_only_its_own_deliveries(acme, hook, history):
    other = acme.create()["id"]
    history("dlv_mine", 1, "delivered")
    history("dlv_other", 1, "delivered", webhook=other)
    assert ids(acme("GET", f"/webhooks/{hook}/deliveries")) == ["mine"]


@pytest.fixture
def impatient(monkeypatch):
    """Ask for it before the API: its statements may take a fifth of a second."""
    monkeypatch.setattr("go2hooks.postgres.pool.STATEMENT_TIMEOUT_S", 0.2)


def test_an_answer_that_takes_too_long_is_not_taken_for_an_outage(impatient, acme, hook, history, database):
    history("dlv_1", 1, "delivered")
    with database.transaction():
        database.execute("LOCK TABLE attempts IN ACCESS EXCLUSIVE MODE")
        answer = acme("GET", f"/webhooks/{hook}/deliveries")
    assert (answer.status_code, answer.json["error"]["code"]) == (503, "busy")
    assert "since and until" in answer.json["error"]["message"]
    assert int(answer.headers["Retry-After"]) >= 1
    assert ids(acme("GET", f"/webhooks/{hook}/deliveries")) == ["1"]


# --- cost

QUERIES = {
    "all": DeliveryFilter(),
    "below a cursor": DeliveryFilter(),
    "delivered": DeliveryFilter(status=State.DELIVERED),
    "failed": DeliveryFilter(status=State.FAILED),
    "skipped": DeliveryFilter(status=State.SKIPPED),
    "retrying": DeliveryFilter(status=State.RETRYING),
    "pending": DeliveryFilter(status=State.PENDING),
    "clicks": DeliveryFilter(event="click"),
    "links": DeliveryFilter(event="link.created"),
    "a day": DeliveryFilter(since=NOON - timedelta(days=1), until=NOON),
}


@pytest.fixture(scope="module")
def big_database_url(postgres_url, template_database):
    """60,000 attempts of 20,000 deliveries of three webhooks over five days; shared by the tests of cost."""
    name = "big_history"
    with psycopg.connect(postgres_url("postgres"), autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name} TEMPLATE {template_database}")
        with psycopg.connect(postgres_url(name), autocommit=True) as connection:
            for day in range(5):
                connection.execute("SELECT attempts_create_partition(%s)", [(NOON - timedelta(days=day)).date()])
            connection.execute(
                """INSERT INTO attempts (webhook_id, created_at, delivery_id, attempt, account_id, event_id, event, kind, state,
                                         attempted_at)
                   SELECT 'wh_' || n %% 3, at, 'dlv_' || lpad(n::text, 30, '0'), attempt, 'acme', 'evt_' || n,
                          CASE WHEN n %% 997 = 0 THEN 'domain.verified' WHEN n %% 10 = 0 THEN 'link.created' ELSE 'click' END, 'event',
                          CASE WHEN attempt < last THEN 'retrying' WHEN n %% 50 = 0 THEN 'failed'
                               WHEN n %% 51 = 0 THEN 'skipped' WHEN n %% 5000 = 0 THEN 'retrying' ELSE 'delivered' END, at
                   FROM generate_series(1, 20000) n,
                        LATERAL (SELECT %(noon)s - n * interval '20 s' AS at, 1 + 2 * (n %% 3) AS last),
                        LATERAL generate_series(1, last) attempt""",
                {"noon": NOON},
            )
            connection.execute("VACUUM ANALYZE attempts")
        yield postgres_url(name)
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def explain(database_url, wanted, below=None, webhook="wh_1"):
    """Every node of the plan, as it was executed."""
    query, values = deliveries.page_query(webhook, wanted, 21, below)
    with psycopg.connect(database_url) as connection:
        connection.execute(deliveries.ALONG_INDEXES)
        [[plan]] = connection.execute(
            "EXPLAIN (ANALYZE, FORMAT JSON) " + query.as_string(connection), values
        ).fetchall()
    return list(walk(plan[0]["Plan"]))


def walk(node):
    yield node
    for child in node.get("Plans", ()):
        yield from walk(child)


def rows_read(nodes):
    scans = [node for node in nodes if node["Node Type"].endswith("Scan") and node["Node Type"] != "Subquery Scan"]
    return sum(node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) for node in scans)


@pytest.mark.parametrize("name", QUERIES)
def test_a_page_of_the_history_is_read_off_an_index(big_database_url, name):
    """No scan of a table, no sort: so a page costs the same however long the history is."""
    below = Place(NOON - timedelta(days=2), "dlv_" + "9" * 30) if name == "below a cursor" else None
    nodes = explain(big_database_url, QUERIES[name], below)
    kinds = {node["Node Type"] for node in nodes}
    assert kinds <= {
        "Limit", "Unique", "Merge Append", "Append", "Index Scan", "Nested Loop", "Index Only Scan", "Subquery Scan"
    }, nodes  # fmt: skip


@pytest.mark.parametrize("name", ["all", "below a cursor", "delivered", "clicks", "links", "a day"])
def test_a_page_reads_few_rows_of_a_long_history(big_database_url, name):
    below = Place(NOON - timedelta(days=2), "dlv_" + "9" * 30) if name == "below a cursor" else None
    assert rows_read(explain(big_database_url, QUERIES[name], below)) < 300


@pytest.mark.parametrize(
    "wanted",
    [
        DeliveryFilter(status=State.RETRYING),  # most have been overtaken
        DeliveryFilter(status=State.PENDING, event="click"),
        DeliveryFilter(status=State.DELIVERED, event="nothing"),
        DeliveryFilter(status=State.DELIVERED, event="link.created", since=NOON - timedelta(days=3)),
    ],
    ids=str,
)
def test_a_page_gives_up_after_so_many_rows(big_database_url, wanted, monkeypatch):
    monkeypatch.setattr(deliveries, "MOST_READ", 200)
    assert (
        rows_read(explain(big_database_url, wanted)) < 2 * 200 + 10
    )  # each, its later attempts, the first of each day


def test_a_webhook_that_the_statistics_do_not_know_is_read_along_the_index_too(big_database_url, monkeypatch):
    rows = """INSERT INTO attempts SELECT 'wh_new', created_at, delivery_id, attempt, account_id, event_id, event, kind, state,
                  NULL, NULL, NULL, NULL, NULL, attempted_at FROM attempts WHERE webhook_id = 'wh_1'"""
    with psycopg.connect(big_database_url) as connection:
        connection.execute(rows)
    for wanted in QUERIES.values():
        nodes = explain(big_database_url, wanted, webhook="wh_new")
        assert "Sort" not in {node["Node Type"] for node in nodes}, nodes


@pytest.mark.parametrize("status", [None, *State])
def test_what_is_rare_is_found_without_reading_what_is_common(big_database_url, status):
    nodes = explain(big_database_url, DeliveryFilter(event="domain.verified", status=status))
    assert "Seq Scan" not in {node["Node Type"] for node in nodes}
    assert rows_read(nodes) < 300


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        *((DeliveryFilter(status=status), "_state_") for status in State if status != State.DELIVERED),
        (DeliveryFilter(event="link.created"), "_event_"),
    ],
)
def test_the_small_indexes_serve_statements_that_were_planned_without_their_values(big_database_url, wanted, index):
    """The driver prepares what it sees often, and then Postgres may plan once for all values."""
    query, values = deliveries.page_query("wh_1", wanted, 21)
    names = [name for name, value in values.items() if value is not None]
    with psycopg.connect(big_database_url) as connection:
        connection.execute(deliveries.ALONG_INDEXES)
        numbered = query.as_string(connection) % {name: f"${names.index(name) + 1}" for name in names}
        types = ", ".join("text" for _ in names)
        arguments = sql.SQL(", ").join(sql.Literal(values[name]) for name in names)
        connection.execute("SET plan_cache_mode = force_generic_plan")
        connection.execute(f"PREPARE page({types}) AS {numbered}".encode())
        explained = sql.SQL("EXPLAIN (FORMAT JSON) EXECUTE page({})").format(arguments)
        [[plan]] = connection.execute(explained).fetchall()
    nodes = list(walk(plan[0]["Plan"]))
    assert any(index in node.get("Index Name", "") for node in nodes), nodes
    assert "Seq Scan" not in {node["Node Type"] for node in nodes}
