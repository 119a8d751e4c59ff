"""The recorder on a real Postgres: an offset is let go once its record is written, and no bad row holds up the others."""

import asyncio
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import psycopg
import pytest
from waiting import until

from go2hooks.core.domain.delivery import Kind, Position
from go2hooks.core.domain.outcome import State
from go2hooks.core.domain.record import AttemptRecord
from go2hooks.postgres.attempts import DisablePolicy
from go2hooks.postgres.reconnecting import ReconnectingConnection
from services.dispatcher.recorder import Recorder

Database = psycopg.Connection[Any]


def record(n: int, **changes: Any) -> AttemptRecord:
    return AttemptRecord(
        "wh_1", 1_704_110_400_000, f"dlv_{n}", 1, "acc", f"evt_{n}", "click", Kind.EVENT, State.DELIVERED, 200, 1.0,
        None, None, None, 1_704_110_400_000, None, Position("go2.deliveries", 0, n),
    )._replace(**changes)  # fmt: skip


@pytest.fixture
async def recorder(database_url: str) -> AsyncIterator[Recorder]:
    connection = ReconnectingConnection(database_url, "test")
    recorder = Recorder(connection, DisablePolicy(10), batch_s=0.01, batch_rows=50)
    running = asyncio.create_task(recorder.run())
    yield recorder
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await connection.close()


def rows(database: Database) -> list[tuple[Any, ...]]:
    return database.execute("SELECT delivery_id, error_message, response_excerpt FROM attempts").fetchall()


async def test_a_record_is_there_when_its_offset_is_let_go(recorder, database):
    seen: list[int] = []
    for n in range(220):
        recorder.add(record(n), lambda: seen.append(len(rows(database))))
    assert not recorder.idle
    await until(lambda: len(seen) == 220)
    assert seen == sorted(seen)
    assert all(there > n for n, there in enumerate(seen))
    await until(lambda: recorder.idle)


async def test_a_postgres_that_may_not_be_written_to_for_a_while_is_waited_for(recorder, database):
    """A standby after a failover, or a primary whose disk is nearly full."""
    name = database.info.dbname
    recorded = asyncio.Event()
    database.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")  # of sessions to come
    recorder.add(record(1), recorded.set)
    await until(lambda: not recorder._connection.healthy)
    await asyncio.sleep(0.3)
    assert not recorded.is_set()
    database.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    await asyncio.wait_for(recorded.wait(), 20)
    assert len(rows(database)) == 1


async def test_who_waits_for_a_postgres_that_is_away_is_let_go_when_the_connection_is_closed():
    async def never(_connection: Any) -> None:
        raise AssertionError("there is nothing to work on")

    connection = ReconnectingConnection("postgresql://127.0.0.1:1/nowhere", "test")
    waiting = [asyncio.create_task(connection.run(never)) for _ in range(3)]
    await asyncio.sleep(0.1)
    async with asyncio.timeout(5):
        await connection.close()
        await asyncio.wait(waiting)
    assert all(task.cancelled() for task in waiting)


async def test_a_row_that_postgres_refuses_is_written_without_what_a_receiver_put_in_it(recorder, database):
    database.execute("""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'unfit' USING ERRCODE = 'character_not_in_repertoire'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON attempts FOR EACH ROW WHEN (NEW.response_excerpt = 'unfit')
            EXECUTE FUNCTION refuse()""")
    done: list[int] = []
    for n in range(20):
        recorder.add(record(n, response_excerpt="unfit" if n == 13 else "fit"), lambda n=n: done.append(n))
    await until(lambda: len(done) == 20)
    assert sorted(done) == list(range(20))
    expected = {(f"dlv_{n}", None, "fit") for n in range(20) if n != 13}
    assert set(rows(database)) == expected | {
        ("dlv_13", "The record of this attempt could not be written as it was.", None)
    }


async def test_it_waits_for_a_postgres_that_cuts_it_off_and_writes_once(recorder, database):
    done: list[int] = []
    recorder.add(record(0), lambda: done.append(0))
    await until(lambda: done)
    for n in range(1, 40):
        recorder.add(record(n), lambda n=n: done.append(n))
        database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'go2hooks-test'"
        )
        await asyncio.sleep(0.002)
    await until(lambda: len(done) == 40)
    assert len(rows(database)) == 40


async def test_what_comes_while_a_batch_is_written_gathers_like_any_other(database_url, database):
    """Not a transaction for each: at a thousand deliveries a second that took a quarter of a dispatcher."""
    written_at: list[float] = []
    done: list[int] = []

    class WhileDeliveriesEnd(ReconnectingConnection):
        async def run(self, work: Any) -> Any:
            written_at.append(time.monotonic())
            for n in range(5 * len(written_at), 5 * len(written_at) + 5):
                recorder.add(record(n), lambda n=n: done.append(n))
            return await super().run(work)

    connection = WhileDeliveriesEnd(database_url, "test")
    recorder = Recorder(connection, DisablePolicy(10), batch_s=0.1, batch_rows=50)
    for n in range(5):
        recorder.add(record(n), lambda n=n: done.append(n))
    running = asyncio.create_task(recorder.run())
    await until(lambda: len(done) >= 20)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await connection.close()
    assert done == list(range(len(done)))
    assert min(b - a for a, b in pairwise(written_at)) >= 0.1
