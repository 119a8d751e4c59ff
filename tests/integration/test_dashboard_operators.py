"""The operators' page, on a real Kafka and Postgres: who sees it, what it counts, and dead letters that go back."""

import re
import secrets
import threading
import time
from html import unescape

import pytest
from browsing import EVIL, Browser, assert_only_our_scripts
from burying import writer
from calling import Described
from confluent_kafka import Consumer, TopicPartition
from usable_topics import make_topics
from waiting import eventually

from go2hooks.codec import EventCodec, decode_delivery, encode_delivery
from go2hooks.core.domain.delivery import Delivery, delivery_id
from go2hooks.core.domain.event import Event, EventType
from go2hooks.core.domain.samples import example_payload
from go2hooks.kafka.client import GroupNames, connection_config, consumer_config, running
from go2hooks.kafka.reading import LogReader, OffsetRange
from go2hooks.kafka.survey import Surveyor
from go2hooks.kafka.topics import TopicNames
from go2hooks.postgres.api_keys import Scope, create_key
from go2hooks.postgres.webhooks import NewWebhook, create
from go2hooks.producer import new_event_id
from services.api import create_app
from services.api.operating import Operating
from services.api.shared import Shared

SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
OPERATORS = "operators"


@pytest.fixture(scope="module")
def prefix():
    return f"ops{secrets.token_hex(4)}"


@pytest.fixture
def settings(api_settings, kafka_bootstrap, prefix):
    found = api_settings.model_copy(
        update={
            "kafka_bootstrap_servers": kafka_bootstrap, "kafka_prefix": prefix, "topic_partitions": 2,
            "retry_delays": (1.0, 3600.0), "operators_account": OPERATORS,
        }
    )  # fmt: skip
    make_topics(found)
    return found


@pytest.fixture
def operating(settings, pool):
    found = Operating(settings, pool)
    yield found
    found.close()


@pytest.fixture
def app(settings, pool, secret_box, outbox, operating):
    app = create_app(settings, pool, secret_box, outbox, outbox, operating)
    app.test_client_class = Described
    return app


@pytest.fixture
def operator_browser(browser, database):
    browser.sign_in(create_key(database, OPERATORS).key)
    return browser


@pytest.fixture
def names(settings):
    return TopicNames(settings.kafka_prefix)


@pytest.fixture
def write(settings):
    """`write(topic, key, value, headers)` returns the message's place as the pages name it."""
    return writer(settings.kafka_bootstrap_servers)


def a_delivery(webhook_id, event_id=None, body=b'{"event":"click"}', due_ms=0):
    event_id = event_id or new_event_id()
    return Delivery(
        delivery_id(event_id, webhook_id), webhook_id, "acme", event_id, "click", "2024-01-01T12:00:00Z", body,
        6, due_ms, "event", time.time_ns() // 1_000_000, suspect=False,
    )  # fmt: skip


def values(settings, topic):
    with LogReader(settings) as reader:
        keys = reader.partitions([topic])
        starts, ends = reader.starts(keys), reader.ends(keys)
        return [m.value() for m in reader.read([OffsetRange(key, starts[key], ends[key]) for key in keys])]


def text(page):
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", page)))


# --- who may


@pytest.mark.parametrize(
    "path",
    ["/operators", "/operators/figures", "/operators/dead-letters/deliveries", "/operators/dead-letters/events/0/0"],
)
def test_a_customers_admin_key_finds_no_operators_page(browser, database, path):
    browser.sign_in(create_key(database, "acme", scopes=[Scope.ADMIN]).key)
    assert "/operators" not in browser.page
    browser.get(path, 404)
    browser.get("/")
    browser.post("/operators/dead-letters/deliveries/0/0/send-back", 404)
    browser.get("/")
    browser.post("/operators/dead-letters/deliveries/send-back", 404, webhook="wh_1")


@pytest.mark.parametrize("scope", [Scope.READ, Scope.WRITE])
def test_of_the_operators_account_an_admin_key_alone_opens_it(browser, database, scope):
    browser.sign_in(create_key(database, OPERATORS, scopes=[scope]).key)
    assert "/operators" not in browser.page
    browser.get("/operators", 404)


def test_without_an_operators_account_nobody_has_the_page(api_settings, pool, secret_box, outbox, database):
    app = create_app(api_settings, pool, secret_box, outbox, outbox)
    browser = Browser(app)
    browser.sign_in(create_key(database, OPERATORS).key)
    assert "/operators" not in browser.page
    browser.get("/operators", 404)


def test_a_customer_cannot_make_a_key_of_the_operators_account(acme):
    made = acme("POST", "/keys", {"name": "n", "scopes": ["admin"], "account": OPERATORS, "accountId": OPERATORS})
    assert made.status_code == 422


# --- figures


def test_the_picture_counts_what_was_written_what_waits_and_since_when(operator_browser, operating, names, write):
    raw = EventCodec().encode(Event(new_event_id(), "acme", EventType.CLICK, 1, example_payload(EventType.CLICK).data))
    before = operating.kafka().survey.stages
    for _ in range(3):
        write(names.of_event["click"], "acme", raw)
    hour_from_now = time.time_ns() // 1_000_000 + 3_600_000
    write(names.retry(3600.0), "wh_1", encode_delivery(a_delivery("wh_1", due_ms=hour_from_now)))
    write(names.retry(1.0), "wh_1", encode_delivery(a_delivery("wh_1", due_ms=1)))
    write(names.overflow, "wh_1", encode_delivery(a_delivery("wh_1")))

    def counted():
        found = operating.kafka().survey.stages
        return found if found[names.overflow].waiting == before[names.overflow].waiting + 1 else None

    eventually(counted)
    after = operating._ask_kafka().survey.stages  # asked again: each partition is read from once more
    clicks = names.of_event["click"]
    assert after[clicks].waiting == before[clicks].waiting + 3
    assert after[clicks].written >= 3
    assert 0 < after[clicks].late_s < 60
    assert after[names.retry(3600.0)].late_s == 0.0  # it waits, and is not late
    assert 0 < after[names.retry(1.0)].late_s < 60  # since it was written: its due time lies before

    operator_browser.get("/operators")
    assert ">Operators</a>" in operator_browser.page
    shown = text(operator_browser.page)
    assert f"{after[clicks].written / 60:.2f} per second, in" in shown
    assert "none Events wait until one is there." in shown
    assert "Not all is known" not in shown
    assert_only_our_scripts(operator_browser.page)
    operator_browser.get("/operators/figures")
    assert "<html" not in operator_browser.page
    assert "Set aside" in operator_browser.page


def test_what_a_group_has_committed_no_longer_waits(settings, names, write):
    write(names.deliveries, "wh_1", encode_delivery(a_delivery("wh_1")))
    surveyor = Surveyor(settings)
    before = surveyor.look().stages[names.deliveries]
    assert before.waiting
    with LogReader(settings) as reader:
        ends = reader.ends(reader.partitions([names.deliveries]))
    consumer = Consumer(consumer_config(settings, GroupNames(settings.kafka_prefix).dispatcher))
    consumer.commit(offsets=[TopicPartition(*key, end) for key, end in ends.items()], asynchronous=False)
    consumer.close()
    after = surveyor.look().stages[names.deliveries]
    surveyor.close()
    assert (after.waiting, after.handled, after.late_s) == (0, before.handled + before.waiting, 0.0)


def test_the_page_tells_which_processes_run_what(operator_browser, settings, run_service, operating):
    run_service("router", GO2HOOKS_KAFKA_PREFIX=settings.kafka_prefix, GO2HOOKS_BUILD="plain")
    eventually(lambda: any(process.partitions for process in operating.kafka().survey.processes))
    operator_browser.get("/operators")
    [version] = set(re.findall(r"<td>(\d+\.\d+\.\d+[^<]*)</td>", operator_browser.page))
    assert f"router 1 {version} plain" in text(operator_browser.page)


def test_a_clients_name_tells_its_version_and_build(settings):
    told = connection_config(settings, "consumer")["client.id"]
    assert running(told).build in ("plain", "compiled")
    assert running("go2hooks-consumer-1.2.3-plain-a-host-plain-x") == ("1.2.3", "plain")
    assert running("go2hooks-consumer-some-host") is None
    assert running("rdkafka") is None


def test_failing_and_disabled_webhooks_of_all_accounts_are_listed_and_nothing_in_them_is_run(
    operator_browser, database, secret_box
):
    for account, hook in (("acme", "wh_a"), ("rival", "wh_r"), ("calm", "wh_c")):
        database.execute("INSERT INTO accounts (id) VALUES (%s)", [account])
        create(database, NewWebhook(hook, account, EVIL, "https://e.com/", ["*"], secret_box.seal(SECRET, hook)), 10)
    database.execute("UPDATE webhooks SET consecutive_failures = 7, failing_since = now() WHERE id = 'wh_a'")
    database.execute(
        "UPDATE webhooks SET is_active = false, disabled_at = now(), disabled_reason = %s WHERE id = 'wh_r'", [EVIL]
    )
    operator_browser.get("/operators")
    shown = text(operator_browser.page)
    assert "Of 3 webhooks, 1 is failing and 1 disabled." in shown
    assert "wh_a acme failing 7 in a row" in shown
    assert "wh_r rival disabled" in shown
    assert "wh_c" not in shown
    assert_only_our_scripts(operator_browser.page)


def test_with_kafka_away_the_page_says_so_within_two_seconds_and_shows_the_rest(
    settings, pool, secret_box, outbox, database
):
    silent = settings.model_copy(update={"kafka_bootstrap_servers": "127.0.0.1:1"})
    operating = Operating(silent, pool)
    outbox.is_away = True
    browser = Browser(create_app(silent, pool, secret_box, outbox, outbox, operating))
    browser.sign_in(create_key(database, OPERATORS).key)
    began = time.monotonic()
    browser.get("/operators")
    assert time.monotonic() - began < 2.0
    assert "Kafka at 127.0.0.1:1 does not answer" in browser.page
    assert "Failing and disabled webhooks" in browser.page
    browser.get("/operators/dead-letters/deliveries", 503)
    assert "Kafka does not answer" in browser.page


def test_many_who_look_at_once_are_one_question():
    asked, go_on = [], threading.Event()

    def ask():
        asked.append(len(asked))
        assert go_on.wait(10)
        return asked[-1]

    shared = Shared(ask, fresh_s=0.0)
    go_on.set()
    assert shared.get() == 0
    go_on.clear()
    slow = threading.Thread(target=shared.get)
    slow.start()
    eventually(lambda: len(asked) == 2)
    assert shared.get() == 0  # at once, what was known
    go_on.set()
    slow.join()
    assert len(asked) == 2


# --- dead letters


def test_a_dead_delivery_is_looked_at_and_goes_back_once_and_the_log_says_who_did_it(
    operator_browser, settings, names, write, database
):
    hook = f"wh_{secrets.token_hex(4)}"
    dead = a_delivery(hook)
    where = write(names.deliveries_dead, hook, encode_delivery(dead), reason="timeout", detail="no answer in 10 s")
    operator_browser.get("/operators/dead-letters/deliveries")
    shown = text(operator_browser.page)
    assert f"{where} timeout no answer in 10 s click {dead.id} 6 attempts {hook} acme never" in shown
    operator_browser.get(f"/operators/dead-letters/{where}")
    assert '"event": "click"' in unescape(operator_browser.page)
    operator_browser.post(f"/operators/dead-letters/{where}/send-back")
    assert "1 sent back." in operator_browser.page
    again = [decode_delivery(value) for value in values(settings, names.deliveries) if value]
    assert [(each.id, each.attempt) for each in again if each.webhook_id == hook] == [(dead.id, 7)]
    operator_browser.post(f"/operators/dead-letters/{where}/send-back")
    assert "Nothing was sent back: all of it was before." in operator_browser.page

    [(account, actor, changes)] = database.execute(
        "SELECT account_id, actor_type, changes FROM audit_log WHERE action = 'dead_letters.sent_back'"
    ).fetchall()
    assert (account, actor, changes["positions"]["to"]) == (OPERATORS, "key", [where])


def test_all_of_a_webhook_go_back_and_no_others(operator_browser, settings, names, write):
    hook, other = (f"wh_{secrets.token_hex(4)}" for _ in range(2))
    for webhook in (hook, other, hook):
        write(names.deliveries_dead, webhook, encode_delivery(a_delivery(webhook)), reason="timeout", detail="")
    operator_browser.get(f"/operators/dead-letters/deliveries?webhook={hook}")
    assert other not in operator_browser.page
    operator_browser.post("/operators/dead-letters/deliveries/send-back", webhook=hook)
    assert "2 sent back." in operator_browser.page
    back = [decode_delivery(value).webhook_id for value in values(settings, names.deliveries)]
    assert (back.count(hook), back.count(other)) == (2, 0)


def test_an_event_goes_back_as_it_came(operator_browser, settings, names, write):
    raw = EventCodec().encode(Event(new_event_id(), "acme", EventType.CLICK, 1, example_payload(EventType.CLICK).data))
    where = write(names.events_dead, b"acme", raw, reason="undecodable", detail="no such schema",
                  topic=names.of_event["click"], partition=1, offset=7)  # fmt: skip
    operator_browser.get("/operators/dead-letters/events")
    operator_browser.get(f"/operators/dead-letters/{where}")
    operator_browser.post(f"/operators/dead-letters/{where}/send-back")
    assert raw in values(settings, names.of_event["click"])


def test_nothing_goes_where_a_forged_header_points(operator_browser, names, write):
    where = write(
        names.events_dead, None, b"x", reason="undecodable", topic="__consumer_offsets", partition=0, offset=1
    )
    operator_browser.get("/operators/dead-letters/events")
    operator_browser.post(f"/operators/dead-letters/{where}/send-back")
    assert (
        f"No way back, since their origin is unknown or they were too large to be kept: {where}."
        in operator_browser.page
    )


def test_nothing_in_a_dead_letter_is_run(operator_browser, names, write):
    evil = a_delivery(EVIL, event_id=EVIL, body=f'{{"event":"{EVIL}"}}'.encode())._replace(
        account_id=EVIL, event=EVIL, id=EVIL
    )
    where = write(names.deliveries_dead, EVIL, encode_delivery(evil), reason=EVIL, detail=EVIL, position=EVIL)
    garbage = write(names.events_dead, EVIL, EVIL.encode(), reason=EVIL, detail=EVIL)
    for path in ("deliveries", "events", where, garbage):
        operator_browser.get(f"/operators/dead-letters/{path}")
        assert "alert(1)" in operator_browser.page
        assert_only_our_scripts(operator_browser.page)


def test_a_dead_letter_that_is_not_there_is_said_to_be_so(operator_browser):
    operator_browser.get("/operators/dead-letters/deliveries/0/999999", 404)
    operator_browser.get("/operators/dead-letters/nothing", 404)
