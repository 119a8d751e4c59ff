"""The dispatcher in this process, with a sender that does what the test says: order of keeping, duplicates, retries."""

import asyncio
import gc
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import psycopg
import pytest
from confluent_kafka import Producer
from pydantic import SecretStr
from remaking import make_again
from usable_topics import configure, make_topics
from waiting import until

from bench.prefork import Prefork
from go2hooks.codec import encode_delivery
from go2hooks.core.domain.classify import classify
from go2hooks.core.domain.delivery import Delivery, Kind, delivery_id
from go2hooks.core.domain.outcome import Answer, Outcome, Response
from go2hooks.core.errors import UnavailableError
from go2hooks.core.flow.lane_queues import LaneQueues
from go2hooks.core.security.request import SignedRequest
from go2hooks.core.security.signing import generate_secret
from go2hooks.kafka import topic_ids
from go2hooks.kafka.dead import read_dead
from go2hooks.kafka.partitions import PartitionKey
from go2hooks.kafka.reading import LogReader
from go2hooks.kafka.topics import TopicNames
from go2hooks.postgres.secrets import SecretBox
from go2hooks.settings import Settings
from services.dispatcher import settlement, work_item
from services.dispatcher.app import Dispatcher
from services.dispatcher.http import build_sender
from services.dispatcher.http.identity import Identity
from services.dispatcher.work_item import WorkItem

NAMES = TopicNames("go2")


class ScriptedSender:
    """Keeps what it is asked to send, and answers as told."""

    def __init__(self, answer: Callable[[dict[str, str]], int | Awaitable[int]]) -> None:
        self.answer = answer
        self.sent: list[tuple[float, dict[str, str]]] = []

    async def send(self, request: SignedRequest, identity: Identity | None = None) -> Response:
        headers = dict(request.headers)
        self.sent.append((time.time(), headers))
        status = self.answer(headers)
        return Answer(status if isinstance(status, int) else await status, 1.0, None, b"")

    def send_now(self, request: SignedRequest, on_response: Callable[[Response], None]) -> bool:
        return False

    def cork(self) -> None: ...

    def uncork(self) -> None: ...

    async def close(self) -> None: ...

    def connections(self) -> dict[str, int]:
        return {}

    def attempts(self, delivery: Delivery) -> list[str]:
        return [h["X-Webhook-Attempt"] for _, h in self.sent if h["X-Webhook-Delivery"] == delivery.id]


@pytest.fixture
def settings(kafka_bootstrap: str, database_url: str, secret_key: str) -> Settings:
    settings = Settings(
        kafka_bootstrap_servers=kafka_bootstrap, database_url=SecretStr(database_url), secret_keys=secret_key,
        retry_delays="300ms,1s", circuit_probe_ms=100, delivery_timeout_s=2.0,
    )  # fmt: skip
    make_topics(settings)
    return settings


@pytest.fixture
def webhook_id(settings: Settings, database: psycopg.Connection[Any]) -> str:
    webhook_id = f"wh_{secrets.token_hex(8)}"
    sealed = SecretBox(settings.encryption_keys()).seal(generate_secret(bytes(32)), webhook_id)
    database.execute("INSERT INTO accounts (id) VALUES ('acc')")
    database.execute(
        "INSERT INTO webhooks (id, account_id, name, url, events, sealed_secret) VALUES (%s, 'acc', '', 'https://a.example/', '{click}', %s)",
        [webhook_id, sealed],
    )
    return webhook_id


@pytest.fixture
async def run(settings: Settings) -> AsyncIterator[Callable[[ScriptedSender], Awaitable[Dispatcher]]]:
    async with AsyncExitStack() as stack:

        @asynccontextmanager
        async def running(sender: ScriptedSender) -> AsyncIterator[Dispatcher]:
            dispatcher = Dispatcher(settings, sender)
            await dispatcher.start()
            yield dispatcher
            await dispatcher.drain(10.0)

        async def start(sender: ScriptedSender) -> Dispatcher:
            dispatcher = await stack.enter_async_context(running(sender))
            await until(lambda: all(dispatcher.ready().values()))
            return dispatcher

        yield start


@pytest.fixture
def put(settings: Settings, webhook_id: str) -> Callable[..., Delivery]:
    """Write one delivery, to `go2.deliveries` unless told otherwise, `copies` times."""
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers, "partitioner": "murmur2_random"})

    def write(topic: str = NAMES.deliveries, copies: int = 1, **changes: Any) -> Delivery:
        event_id = f"evt_{secrets.token_hex(8)}"
        delivery = Delivery(
            delivery_id(event_id, webhook_id), webhook_id, "acc", event_id, "click", "2024-01-01T12:00:00Z", b"{}", 1, 0,
            Kind.EVENT, round(time.time() * 1000), False,  # noqa: FBT003
        )._replace(**changes)  # fmt: skip
        for _ in range(copies):
            producer.produce(topic, encode_delivery(delivery), webhook_id)
        assert producer.flush(20) == 0
        return delivery

    return write


@pytest.fixture
def records(database: psycopg.Connection[Any]) -> Callable[[Delivery], list[tuple[int, str]]]:
    def read(delivery: Delivery) -> list[tuple[int, str]]:
        query = "SELECT attempt, state FROM attempts WHERE delivery_id = %s ORDER BY attempt"
        return database.execute(query, [delivery.id]).fetchall()

    return read


async def test_a_delivery_that_comes_twice_is_sent_once(run, put, records):
    sender = ScriptedSender(lambda _: 200)
    await run(sender)
    twice = put(copies=2)
    await until(lambda: records(twice) == [(1, "delivered")])
    again = put(id=twice.id, event_id=twice.event_id, origin_ms=twice.origin_ms)
    last = put()
    await until(lambda: records(last))
    assert again.id == twice.id
    assert sender.attempts(twice) == ["1"]


async def test_what_was_recorded_before_a_restart_is_not_sent_again(run, put, records):
    first = ScriptedSender(lambda _: 200)
    dispatcher = await run(first)
    done = put()
    await until(lambda: records(done))
    await dispatcher.drain(10.0)
    put(id=done.id, event_id=done.event_id, origin_ms=done.origin_ms)  # as a router's replay would
    fresh = put()
    second = ScriptedSender(lambda _: 200)
    await run(second)
    await until(lambda: records(fresh) == [(1, "delivered")])
    assert second.attempts(done) == []
    assert second.attempts(fresh) == ["1"]


async def test_a_failure_is_retried_from_its_tier_and_never_early(run, put, records):
    sender = ScriptedSender(lambda headers: 500 if headers["X-Webhook-Attempt"] != "3" else 204)
    await run(sender)
    delivery = put()
    await until(lambda: records(delivery) == [(1, "retrying"), (2, "retrying"), (3, "delivered")])
    (first, _), (second, _), (third, _) = sender.sent
    assert second - first >= 0.3 - 0.002
    assert third - second >= 1.0 - 0.002


async def test_a_retry_waits_for_its_due_time_whenever_it_is_read(run, put, records):
    sender = ScriptedSender(lambda _: 200)
    await run(sender)
    due_ms = round(time.time() * 1000) + 950  # no later than the tier's delay allows
    late = put(NAMES.retry(1.0), attempt=1, due_ms=due_ms)
    soon = put(NAMES.retry(1.0), attempt=1, due_ms=due_ms - 500)  # behind it, and due before it
    await until(lambda: records(late) and records(soon))
    sent = {headers["X-Webhook-Delivery"]: at * 1000 for at, headers in sender.sent}
    assert due_ms - 2 <= sent[late.id]
    assert due_ms - 502 <= sent[soon.id] <= sent[late.id]


@pytest.fixture
def record(database: psycopg.Connection[Any]) -> Callable[[Delivery, int, str], None]:
    """Write an attempt's row, as another dispatcher would have."""

    def insert(delivery: Delivery, attempt: int, state: str) -> None:
        database.execute(
            """INSERT INTO attempts (webhook_id, created_at, delivery_id, attempt, account_id, event_id, event, kind, state, attempted_at)
               VALUES (%s, to_timestamp(%s / 1000.0), %s, %s, 'acc', %s, 'click', 'event', %s, now())""",
            [delivery.webhook_id, delivery.origin_ms, delivery.id, attempt, delivery.event_id, state],
        )

    return insert


async def test_a_retry_goes_out_only_after_a_record_that_promises_it(run, put, records, record):
    """After a crash between the retry's writing and the record, the attempt is made again, and may succeed."""
    sender = ScriptedSender(lambda _: 200)
    await run(sender)
    forked, early = (put(NAMES.retry(0.3), attempt=2, due_ms=round(time.time() * 1000)) for _ in range(2))
    put(id=forked.id, event_id=forked.event_id, origin_ms=forked.origin_ms)  # as a restart finds it in the log
    await until(lambda: records(forked) == [(1, "delivered")])
    await asyncio.sleep(2.5)  # the records are asked once a second
    assert (sender.attempts(forked), sender.attempts(early)) == (["1"], [])
    record(early, 1, "retrying")
    await until(lambda: records(early) == [(1, "retrying"), (2, "delivered")])
    assert records(forked) == [(1, "delivered")]


@pytest.mark.parametrize("topic", [NAMES.deliveries, NAMES.overflow])
@pytest.mark.plain
async def test_what_another_process_made_while_its_second_message_waited_in_its_lane_is_not_sent(
    run, put, records, record, monkeypatch, topic
):
    """A delivery moved aside has a message in each topic after a crash, and each may be read by another process."""
    monkeypatch.setattr(work_item, "_OUTDATED_S", 0.0)
    answer = asyncio.Event()

    async def slow() -> int:
        await answer.wait()
        return 200

    sender = ScriptedSender(lambda _: slow())
    dispatcher = await run(sender)
    lanes = dispatcher._lanes
    first = [put() for _ in range(int(lanes._limits.webhook_first_sends))]
    await until(lambda: len(sender.sent) == len(first))
    waits, made = put(topic, suspect=True), put(topic, suspect=True)
    await until(lambda: lanes.queues.items == 2)
    record(made, 1, "delivered")
    answer.set()
    await until(lambda: records(waits) and not lanes.sends.in_flight and not lanes.queues.items)
    assert (sender.attempts(waits), sender.attempts(made)) == (["1"], [])
    assert {dispatcher._claims.claim(delivery.id, 1, None) for delivery in (waits, made)} == {False}  # both are done


async def test_a_drain_waits_for_the_attempts_under_way_and_records_them(run, put, records):
    answered = asyncio.Event()

    async def slow() -> int:
        await asyncio.sleep(0.5)
        answered.set()
        return 200

    sender = ScriptedSender(lambda _: slow())
    dispatcher = await run(sender)
    delivery = put()
    await until(lambda: sender.sent)
    await dispatcher.drain(10.0)
    assert answered.is_set()
    assert records(delivery) == [(1, "delivered")]


async def test_a_sender_that_breaks_harms_its_delivery_alone(run, put, records):
    def broken(headers: dict[str, str]) -> int:
        if headers["X-Webhook-Attempt"] == "1":
            raise RuntimeError("a defect of ours")
        return 200

    sender = ScriptedSender(broken)
    await run(sender)
    delivery = put()
    await until(lambda: records(delivery) == [(1, "retrying"), (2, "delivered")])


@pytest.mark.plain
async def test_an_answer_that_cannot_be_judged_is_a_failed_attempt(run, put, records, monkeypatch):
    """Else it would keep its place in the lane, and its offset, and come again after every restart."""

    def broken(response: Response, at_ms: int) -> Outcome:
        if isinstance(response, Answer) and response.status == 599:
            raise RuntimeError("a defect of ours")
        return classify(response, at_ms)

    monkeypatch.setattr(settlement, "classify", broken)
    dispatcher = await run(ScriptedSender(lambda headers: 599 if headers["X-Webhook-Attempt"] == "1" else 200))
    delivery = put()
    await until(lambda: records(delivery) == [(1, "retrying"), (2, "delivered")])
    assert dispatcher._lanes.sends.in_flight == 0


@pytest.mark.plain
async def test_what_is_shed_comes_round_again_and_is_sent_once(run, put, records, monkeypatch):
    """When a lane has more than it would be given now is seen in `unit/test_lanes.py`; here all that waits is too much, once."""
    released, shed = asyncio.Event(), []

    def surplus(queues: LaneQueues[WorkItem], _now: float, _most: int) -> list[WorkItem]:
        evicted = [] if shed or queues.items < 16 else queues.evict(lambda _: True)
        shed.extend(evicted)
        return evicted

    async def answer() -> int:
        await released.wait()
        return 200

    monkeypatch.setattr(LaneQueues, "surplus", surplus)
    sender = ScriptedSender(lambda _: answer())
    await run(sender)
    deliveries = [put() for _ in range(20)]
    await until(lambda: shed)
    released.set()
    await until(lambda: all(records(delivery) == [(1, "delivered")] for delivery in deliveries))
    assert len(shed) == 16
    assert len(sender.sent) == 20


async def test_a_webhook_of_another_account_gets_nothing(run, put, records):
    sender = ScriptedSender(lambda _: 200)
    await run(sender)
    foreign = put(account_id="acc_other")
    await until(lambda: records(foreign) == [(1, "skipped")])
    assert sender.sent == []


@pytest.mark.parametrize("held_up", ["receiver", "postgres"])
async def test_large_deliveries_are_held_within_the_window_and_all_go_out_in_the_end(
    settings, put, records, database_url, held_up
):
    """60 of 500 KiB, before a window of 4 MiB: 4 MiB in the lanes, a quarter of that overflowed, one of each on its way."""
    size, most = 500_000, 5 * 2**20 + 3 * 500_000
    going_on = asyncio.Event()

    async def answer() -> int:
        await going_on.wait()
        return 200

    sender = ScriptedSender(lambda _: answer())
    dispatcher = Dispatcher(settings.model_copy(update={"window_mib": 4}), sender)
    await dispatcher.start()
    deliveries = [put(body=b'"' + bytes(48 + n % 10 for n in range(size)) + b'"')]
    deliveries += [put(body=deliveries[0].body) for _ in range(59)]
    async with await psycopg.AsyncConnection.connect(database_url) as lock:
        if held_up == "postgres":
            await lock.execute("LOCK TABLE attempts IN ACCESS EXCLUSIVE MODE")
            going_on.set()
        await until(lambda: held_bytes() > 3 * 2**20)
        until_s = time.monotonic() + 4.0
        while time.monotonic() < until_s:
            assert held_bytes() <= most
            await asyncio.sleep(0.1)
        await lock.rollback()
        going_on.set()
        await until(lambda: all(records(delivery) for delivery in deliveries), 60.0)
    assert {tuple(records(delivery)) for delivery in deliveries} == {((1, "delivered"),)}
    await dispatcher.drain(10.0)


async def test_a_receiver_with_one_worker_gets_all_and_is_not_disabled(settings, database, webhook_id, put, records):
    """Of two dozen requests at once it would read one, and leave the rest to time out."""
    settings = settings.model_copy(update={"allow_insecure_targets": True})
    with Prefork(workers=1, keep_alive_s=65.0) as receiver:
        database.execute("UPDATE webhooks SET url = %s", [f"http://127.0.0.1:{receiver.port}/hook"])
        dispatcher = Dispatcher(settings, build_sender(settings))
        await dispatcher.start()
        deliveries = [put() for _ in range(24)]
        until_s = time.monotonic() + 2 * settings.delivery_timeout_s
        while time.monotonic() < until_s:
            deliveries.append(put())
            await asyncio.sleep(0.1)
        await until(lambda: all(records(delivery) for delivery in deliveries))
        assert {tuple(records(delivery)) for delivery in deliveries} == {((1, "delivered"),)}
        assert database.execute("SELECT is_active, consecutive_failures FROM webhooks").fetchone() == (True, 0)
        await dispatcher.drain(10.0)


def held_bytes() -> int:
    """Of the bodies of all deliveries in this process that are not recorded."""
    return sum(len(item.delivery.body) for item in gc.get_objects() if isinstance(item, WorkItem))


async def test_deliveries_of_a_topic_made_again_while_it_is_read_are_all_made(settings, put, records, monkeypatch):
    """The second log is longer than the position in the first. The dispatcher ends with one sentence, and starts again."""
    monkeypatch.setattr(topic_ids, "_LOOK_S", 0.2)
    settings = settings.model_copy(update={"kafka_prefix": f"remade{secrets.token_hex(4)}", "topic_partitions": 1})
    topic = TopicNames(settings.kafka_prefix).deliveries
    await asyncio.to_thread(make_topics, settings)
    sender = ScriptedSender(lambda _: 200)
    first = Dispatcher(settings, sender)
    await first.start()
    before = [put(topic) for _ in range(10)]
    await until(lambda: all(map(records, before)))
    await asyncio.to_thread(make_again, settings.kafka_bootstrap_servers, topic)
    after = [put(topic) for _ in range(15)]
    with pytest.raises(UnavailableError, match=r"the main consumer ended: .* made again"):
        await first.watch()
    await first.drain(10.0)
    second = Dispatcher(settings, sender)
    await second.start()
    await until(lambda: all(map(records, after)))
    await second.drain(10.0)
    assert [sender.attempts(delivery) for delivery in before + after] == [["1"]] * 25


@pytest.mark.parametrize("dead_letter_is_kept", [True, False])
async def test_an_attempt_whose_retry_is_too_large_for_its_tier_is_made_once_and_holds_nobody_up(
    settings, put, records, dead_letter_is_kept
):
    """The tier takes 4 KB: nothing of the large delivery, and of the small ones no batch as large as what comes at once."""
    patient = {"circuit_failures": 1000, "disable_after_failures": 1000}
    deployment = {"kafka_prefix": f"small{secrets.token_hex(4)}", "topic_partitions": 1}
    settings = settings.model_copy(update=deployment | patient)
    names = TopicNames(settings.kafka_prefix)
    await asyncio.to_thread(make_topics, settings)
    for topic in (names.retry(0.3), *([] if dead_letter_is_kept else [names.deliveries_dead])):
        await asyncio.to_thread(configure, settings.kafka_bootstrap_servers, topic, {"max.message.bytes": "4000"})
    sender = ScriptedSender(lambda headers: 500 if headers["X-Webhook-Attempt"] == "1" else 200)
    dispatcher = Dispatcher(settings, sender)
    await dispatcher.start()
    large = put(names.deliveries, body=b'{"a":"%s"}' % (b"x" * 6000))
    small = [put(names.deliveries, body=b'{"a":"%s"}' % (b"x" * 500)) for _ in range(30)]
    await until(lambda: all(records(each) == [(1, "retrying"), (2, "delivered")] for each in small))
    await until(lambda: records(large) == [(1, "failed")])
    assert sender.attempts(large) == ["1"]
    assert dispatcher._producer.failure is None
    await until(
        lambda: dispatcher._intakes._main._partitions[PartitionKey(names.deliveries, 0)].tracker.resume_at == 31
    )
    await dispatcher.drain(10.0)
    with LogReader(settings) as reader:
        letters = [(letter.reason, letter.value) for letter in read_dead(reader, names.deliveries_dead)]
    assert letters == ([("retry_not_kept", encode_delivery(large))] if dead_letter_is_kept else [])
