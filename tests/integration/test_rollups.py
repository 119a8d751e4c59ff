"""Statistics in a real Postgres: what is recorded counts once, whoever gathers it."""

import asyncio
from datetime import UTC, date, datetime, timedelta

import psycopg
import pytest
from psycopg import AsyncConnection

from go2hooks.core.domain.delivery import Kind, Position
from go2hooks.core.domain.outcome import State
from go2hooks.core.domain.record import AttemptRecord
from go2hooks.core.domain.rollup import STEPS_S
from go2hooks.postgres.attempts import DisablePolicy, maintain_partitions, write_batch
from go2hooks.postgres.rollups import StepRange, gather, series

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
NOON_MS = int(NOON.timestamp()) * 1000
TEN = DisablePolicy(10)


def record(delivery="dlv_1", attempt=1, state=State.DELIVERED, **changes):
    return AttemptRecord(
        "wh_1", NOON_MS, delivery, attempt, "acc", "evt_1", "click", Kind.EVENT, state, 200, 12.34, None, None, None,
        NOON_MS + 1, None, Position("go2.deliveries", 3, 42),
    )._replace(**changes)  # fmt: skip


@pytest.fixture
async def connect(database_url):
    """Awaited, it gives a connection of its own."""
    opened = []

    async def connect():
        opened.append(await AsyncConnection.connect(database_url, autocommit=True, options="-c timezone=UTC"))
        return opened[-1]

    yield connect
    for connection in opened:
        await connection.close()


@pytest.fixture
async def connection(connect):
    return await connect()


@pytest.fixture
def counts(database_url):
    """`counts("wh_1", 60)`: delivered, failed, skipped, retried and response times of each step."""

    def read(webhook, step_s=86400):
        with psycopg.connect(database_url, options="-c timezone=UTC") as connection:
            span = StepRange(NOON - timedelta(days=3), NOON + timedelta(days=3), step_s)
            found = series(connection, [webhook], span)[webhook]
        return {
            at: (r.delivered, r.failed, r.skipped, r.retried, sum(r.histogram.values()))
            for at, r in sorted(found.items())
        }

    return read


MIDNIGHT = NOON.replace(hour=0)


async def test_what_is_recorded_is_in_every_step_that_it_began_in(connection, counts):
    await write_batch(connection, [record("dlv_1", 1, State.RETRYING), record("dlv_2")], TEN)
    await write_batch(
        connection, [record("dlv_1", 2, State.FAILED, attempted_ms=NOON_MS + 301_000, status_code=None)], TEN
    )
    assert counts("wh_1") == {}
    assert await gather(connection, 0) is False
    assert counts("wh_1") == {MIDNIGHT: (1, 1, 0, 1, 2)}
    assert counts("wh_1", 60) == {NOON: (1, 0, 0, 1, 2), NOON + timedelta(minutes=5): (0, 1, 0, 0, 0)}
    assert all(sum(sum(each[:4]) for each in counts("wh_1", step_s).values()) == 3 for step_s in STEPS_S)


async def test_an_attempt_that_is_recorded_again_counts_once(connection, counts):
    first = [record("dlv_1"), record("dlv_2")]
    await write_batch(connection, first, TEN)
    await write_batch(connection, [*first, record("dlv_3"), record("dlv_3")], TEN)
    await write_batch(connection, first, TEN)
    await gather(connection, 0)
    assert counts("wh_1") == {MIDNIGHT: (3, 0, 0, 0, 3)}


async def test_what_comes_later_is_added_to_what_is_there(connection, counts):
    for number in range(3):
        await write_batch(connection, [record(f"dlv_{number}"), record(f"dlv_{number}", webhook_id="wh_2")], TEN)
        await gather(connection, 0)
    assert counts("wh_1") == counts("wh_2") == {MIDNIGHT: (3, 0, 0, 0, 3)}


async def test_a_batch_that_is_rolled_back_leaves_nothing(connection, counts):
    with pytest.raises(psycopg.errors.NumericValueOutOfRange):
        await write_batch(connection, [record("dlv_1"), record("dlv_2", status_code=99999)], TEN)
    await gather(connection, 0)
    assert counts("wh_1") == {}


async def test_nothing_is_gathered_before_it_is_old_enough(connection, counts):
    await write_batch(connection, [record()], TEN)
    assert await gather(connection, 60) is False
    assert counts("wh_1") == {}


async def test_writers_and_gatherers_at_the_same_time_lose_nothing_and_count_nothing_twice(connect, counts):
    """Of thousands of webhooks, so that a gathering takes several rounds; every second batch is recorded twice."""
    wrote = asyncio.Event()

    async def write(writer):
        connection = await connect()
        for batch in range(6):
            records = [record(f"dlv_{writer}_{batch}", webhook_id=f"wh_{n}") for n in range(300)]
            for _ in range(1 + batch % 2):
                await write_batch(connection, records, TEN)

    async def gather_on():
        connection = await connect()
        while not wrote.is_set():
            await gather(connection, 0)
            await asyncio.sleep(0.01)

    gatherers = [asyncio.create_task(gather_on()) for _ in range(3)]
    await asyncio.gather(*(write(writer) for writer in range(3)))
    wrote.set()
    await asyncio.gather(*gatherers)
    while await gather(await connect(), 0):
        pass
    assert {counts(f"wh_{n}")[MIDNIGHT] for n in range(0, 300, 17)} == {(18, 0, 0, 0, 18)}


async def test_a_gatherer_that_is_cut_off_leaves_it_to_the_next(connect, connection, counts):
    await write_batch(connection, [record()], TEN)
    doomed = await connect()
    async with doomed.transaction(force_rollback=True):
        await gather(doomed, 0)
    await gather(connection, 0)
    assert counts("wh_1") == {MIDNIGHT: (1, 0, 0, 0, 1)}


async def test_statistics_are_kept_as_long_as_attempts(connection, counts):
    today = NOON.date()
    await write_batch(connection, [record()], TEN)
    await gather(connection, 0)  # before there is a partition for the day
    await maintain_partitions(connection, today, 30)
    await maintain_partitions(connection, today, 30)
    assert counts("wh_1") == {MIDNIGHT: (1, 0, 0, 0, 1)}
    where = await (await connection.execute("SELECT DISTINCT tableoid::regclass::text FROM attempt_rollups")).fetchall()
    assert where == [("attempt_rollups_20261120",)]
    await maintain_partitions(connection, today + timedelta(days=30), 30)
    assert counts("wh_1") != {}
    await maintain_partitions(connection, today + timedelta(days=31), 30)
    assert counts("wh_1") == {}


async def test_rows_of_no_day_are_forgotten_too(connection):
    await write_batch(connection, [record(attempted_ms=1000)], TEN)
    await gather(connection, 0)
    await maintain_partitions(connection, date(2026, 11, 20), 30)
    assert await (await connection.execute("SELECT count(*) FROM attempt_rollups")).fetchone() == (0,)
