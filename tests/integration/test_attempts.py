"""Attempt records in a real Postgres: written once, whatever is in them, and counted as if one by one."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import AsyncConnection

from go2hooks.core.domain.delivery import Kind, Position
from go2hooks.core.domain.outcome import OUR_FAILURES, Failure, State
from go2hooks.core.domain.record import AttemptRecord, copy_line
from go2hooks.postgres.attempts import (
    GONE_REASON,
    AttemptKey,
    DisablePolicy,
    find_states,
    maintain_partitions,
    records,
    write_batch,
)

CREATED_MS = 1_704_110_400_123
TEN = DisablePolicy(10)


def record(attempt: int = 1, state: State = State.DELIVERED, **changes: Any) -> AttemptRecord:
    return AttemptRecord(
        "wh_1", CREATED_MS, "dlv_1", attempt, "acc", "evt_1", "click", Kind.EVENT, state, 200, 12.34, None, None, None,
        CREATED_MS + attempt, None, Position("go2.deliveries", 3, 42),
    )._replace(**changes)  # fmt: skip


def stream(outcomes: str, prefix: str = "dlv", first: int = 0, **changes: Any) -> list[AttemptRecord]:
    """One delivery per letter, a millisecond after each other from `first` on: F failed, S succeeded."""
    states = {"F": State.RETRYING, "S": State.DELIVERED}
    return [
        record(state=states[letter], delivery_id=f"{prefix}_{n}", attempted_ms=CREATED_MS + first + n, **changes)
        for n, letter in enumerate(outcomes)
    ]


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[AsyncConnection[Any]]:
    connection = await AsyncConnection.connect(database_url, autocommit=True, options="-c timezone=UTC")
    async with connection:
        await connection.execute("INSERT INTO accounts (id) VALUES ('acc')")
        for webhook_id in ("wh_1", "wh_2"):
            await connection.execute(
                "INSERT INTO webhooks (id, account_id, name, url, events, sealed_secret) VALUES (%s, 'acc', '', '', '{click}', '')",
                [webhook_id],
            )
        yield connection


async def ask(connection: AsyncConnection[Any], query: str) -> list[tuple[Any, ...]]:
    return await (await connection.execute(query)).fetchall()


async def webhook(connection: AsyncConnection[Any], webhook_id: str = "wh_1") -> tuple[int, bool]:
    query = f"SELECT consecutive_failures, is_active FROM webhooks WHERE id = '{webhook_id}'"
    return (await ask(connection, query))[0]


nasty = st.text(st.sampled_from("\\\t\n\r\0\b\f\vN.ax'\"é漢🎉\u2028\x7f\x1f,{}"), max_size=12) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=20
)


@settings(
    max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
@given(
    texts=st.tuples(nasty, nasty, nasty, nasty, nasty), code=st.none() | nasty, status=st.none() | st.integers(0, 999)
)
def test_every_text_comes_back_from_postgres_as_it_was(database_url, texts, code, status):
    account, event_id, message, excerpt, header = texts
    written = record(
        account_id=account, event_id=event_id, error_message=message, response_excerpt=excerpt, error_code=code,
        status_code=status, duration_ms=None if status is None else 1.5, next_attempt_ms=CREATED_MS + 999,
        location=header, retry_after=header, remote_address="2001:db8::1",
    )  # fmt: skip
    columns = records._COLUMNS
    with psycopg.connect(database_url, options="-c timezone=UTC") as connection, connection.cursor() as cursor:
        with cursor.copy(records._COPY) as copy:
            copy.write(copy_line(written) + copy_line(written._replace(attempt=2, position=None)))
        rows = cursor.execute(f"SELECT {columns} FROM attempts ORDER BY attempt").fetchall()
        connection.rollback()

    def stored(text: str | None) -> str | None:
        return text and text.replace("\0", "\ufffd")  # Postgres has no NUL

    def at(ms: int) -> datetime:
        return datetime.fromtimestamp(ms // 1000, UTC) + timedelta(milliseconds=ms % 1000)

    head = ("wh_1", at(CREATED_MS), "dlv_1")
    tail = (
        stored(account), stored(event_id), "click", "event", "delivered", status, None if status is None else 1.5,
        stored(code), stored(message), at(CREATED_MS + 999), at(CREATED_MS + 1), stored(excerpt),
    )  # fmt: skip
    said = stored(header), stored(header), "2001:db8::1"
    assert rows == [(*head, 1, *tail, "go2.deliveries", 3, 42, *said), (*head, 2, *tail, None, None, None, *said)]


async def test_an_attempt_that_is_recorded_twice_is_there_once_and_counted_once(connection):
    failures = stream("FFF")
    await write_batch(connection, failures, TEN)
    await write_batch(connection, [*failures, *stream("FF", prefix="new")], TEN)
    new = stream("F", prefix="twice")
    await write_batch(connection, [*new, *new, failures[0]], TEN)
    assert await ask(connection, "SELECT count(*) FROM attempts") == [(6,)]
    assert await webhook(connection) == (6, True)


@pytest.mark.parametrize(
    ("batches", "count", "active"),
    [
        (["F" * 9], 9, True),
        (["F" * 10], 10, False),
        (["F" * 9, "F"], 10, False),
        (["F" * 9, "S", "F"], 1, True),
        (["F" * 9 + "S" + "F" * 9], 9, True),
        (["F" * 10 + "S"], 0, True),  # it succeeded before anybody had counted
        (["S" + "F" * 10], 10, False),
        (["F" * 5, "F" * 5 + "S" + "F"], 1, True),
        (["F" * 12, "S"], 12, False),  # a success that comes later does not enable it again
        (["S", "F", "SF", "FS"], 0, True),
    ],
)
async def test_failures_are_counted_in_the_order_of_the_attempts_however_they_are_batched(
    connection, batches, count, active
):
    disabled = [
        await write_batch(connection, stream(batch, prefix=f"b{n}", first=100 * n), TEN)
        for n, batch in enumerate(batches)
    ]
    assert await webhook(connection) == (count, active)
    assert [webhook_id for batch in disabled for webhook_id in batch] == ([] if active else ["wh_1"])
    assert await webhook(connection, "wh_2") == (0, True)
    (row,) = await ask(connection, "SELECT disabled_at IS NULL, disabled_reason FROM webhooks WHERE id = 'wh_1'")
    assert row == ((True, None) if active else (False, "10 consecutive failed attempts"))


def begun(letter: str, *seconds: float, lasting_s: float = 0.0, **changes: Any) -> list[AttemptRecord]:
    """Attempts that began so many seconds later."""
    (one,) = stream(letter)
    return [
        one._replace(
            delivery_id=f"{letter}{at}",
            attempted_ms=CREATED_MS + round(at * 1000),
            duration_ms=lasting_s * 1000,
            **changes,
        )
        for at in seconds
    ]


@pytest.mark.parametrize(
    ("batches", "count", "active"),
    [
        # Of two dozen at once one is read, and what comes later; the others time out together.
        ([begun("S", 0, 1, 2, 3), begun("F", *range(-23, 0), lasting_s=10)], 0, True),
        ([begun("S", 1, 11, 21), begun("F", *range(2, 11), *range(12, 20), lasting_s=10)], 0, True),
        ([begun("S", 10.5), begun("F", *range(2, 19))], 8, True),  # nine, a success, eight
        ([begun("S", 1.5, lasting_s=30), begun("F", *range(2, 12))], 10, False),  # a success, and only then ten
        ([begun("F", *range(2, 11)), begun("S", 1.5, lasting_s=8), begun("F", 11)], 10, False),
        ([begun("S", 5), begun("F", 1, 2), begun("F", *range(6, 15))], 9, True),
        ([begun("S", 9), begun("F", *range(10, 19)), begun("F", 8)], 9, True),  # the last to be recorded began first
        ([begun("F", *range(9)), begun("S", 4), begun("F", *range(9, 14))], 9, True),  # a success in the midst
        ([begun("S", 5, kind=Kind.TEST), begun("F", *range(10))], 10, False),
        ([begun("F", *range(5)), begun("F", *range(5, 10), state=State.FAILED)], 10, False),  # dead letters, too
    ],
)
async def test_who_is_disabled_follows_the_order_of_the_starts_whatever_is_recorded_first(
    connection, batches, count, active
):
    """As after a pause of Kafka: a failure is recorded once its retry is kept, a success at once."""
    for batch in batches:
        await write_batch(connection, batch[::-1], TEN)
    assert await webhook(connection) == (count, active)


async def test_what_disables_is_the_limit_however_many_failed_meanwhile(connection):
    assert await write_batch(connection, stream("F" * 21), TEN) == ["wh_1"]
    assert await ask(connection, "SELECT disabled_reason FROM webhooks WHERE id = 'wh_1'") == [
        ("10 consecutive failed attempts",)
    ]


def gone(prefix: str = "gone", webhook_id: str = "wh_1", **changes: Any) -> AttemptRecord:
    """A receiver that answered 410, later than its webhook was last changed."""
    (one,) = stream("F", prefix, error_code=Failure.GONE, status_code=410, webhook_id=webhook_id)
    return one._replace(state=State.FAILED, attempted_ms=4_000_000_000_000)._replace(**changes)


class TestGone:
    """410 Gone disables at once."""

    async def reasons(self, connection: AsyncConnection[Any]) -> list[str | None]:
        rows = await ask(connection, "SELECT is_active, disabled_at IS NULL, disabled_reason FROM webhooks ORDER BY id")
        assert all(is_active == (reason is None) == never for is_active, never, reason in rows)
        return [reason for _, _, reason in rows]

    async def test_one_answer_is_enough_and_counts_once(self, connection):
        assert await write_batch(connection, [gone(), gone("more")], TEN) == ["wh_1"]
        assert await write_batch(connection, [gone(), gone("late")], TEN) == []
        assert await self.reasons(connection) == [GONE_REASON, None]

    async def test_whatever_else_is_in_the_batch(self, connection):
        others = [*stream("SF", "other", webhook_id="wh_2"), *stream("SFS", "mine")]
        assert await write_batch(connection, [others[0], gone(), *others[1:]], TEN) == ["wh_1"]
        assert await self.reasons(connection) == [GONE_REASON, None]

    async def test_its_reason_goes_before_that_of_ten_failures(self, connection):
        assert await write_batch(connection, [*stream("F" * 12), gone()], TEN) == ["wh_1"]
        assert await self.reasons(connection) == [GONE_REASON, None]

    async def test_who_is_disabled_already_keeps_the_reason(self, connection):
        await write_batch(connection, stream("F" * 10), TEN)
        assert await write_batch(connection, [gone()], TEN) == []
        assert await self.reasons(connection) == ["10 consecutive failed attempts", None]

    async def test_an_attempt_from_before_the_owners_last_change_says_nothing(self, connection):
        """It went to the URL that the owner has replaced, or was under way when the webhook was enabled again."""
        assert await write_batch(connection, [gone(attempted_ms=CREATED_MS)], TEN) == []
        assert await self.reasons(connection) == [None, None]
        assert await webhook(connection) == (1, True)

    async def test_neither_a_test_event_nor_a_deleted_webhook_matters(self, connection):
        await connection.execute("UPDATE webhooks SET deleted_at = now() WHERE id = 'wh_2'")
        assert await write_batch(connection, [gone(kind=Kind.TEST), gone(webhook_id="wh_2")], TEN) == []
        assert await self.reasons(connection) == [None, None]

    async def test_of_two_dispatchers_one_disables(self, connection, database_url):
        async with await AsyncConnection.connect(database_url, autocommit=True) as other:
            batches = [[gone("a"), gone("b", "wh_2")], [gone("c", "wh_2"), gone("d"), *stream("F" * 12, "f")]]
            disabled = await asyncio.gather(
                *(write_batch(c, batch, TEN) for c, batch in zip((connection, other), batches, strict=True))
            )
        assert sorted(disabled[0] + disabled[1]) == ["wh_1", "wh_2"]


async def test_a_count_that_was_put_right_goes_on_from_there(connection):
    await write_batch(connection, begun("S", 10.5), TEN)
    assert await write_batch(connection, begun("F", *range(2, 19)), TEN) == []
    assert await write_batch(connection, begun("F", 21), TEN) == []
    assert await write_batch(connection, begun("F", 22), TEN) == ["wh_1"]


async def test_a_count_without_its_starts_is_none(connection):
    """As after webhooks were enabled again by hand."""
    await write_batch(connection, begun("F", *range(9)), TEN)
    await connection.execute("UPDATE webhooks SET consecutive_failures = 0")
    assert await write_batch(connection, begun("F", 10), TEN) == []
    assert await webhook(connection) == (1, True)


async def test_what_failed_before_it_was_enabled_again_is_not_counted_again(connection):
    await write_batch(connection, begun("F", *range(10)), TEN)
    await connection.execute("UPDATE webhooks SET is_active = true, consecutive_failures = 0, failing_since = NULL")
    assert await write_batch(connection, begun("F", *range(10, 19)), TEN) == []
    assert await write_batch(connection, begun("F", 19), TEN) == ["wh_1"]
    assert await webhook(connection) == (10, False)


async def test_failures_are_found_among_all_that_waits(connection):
    await connection.execute(
        """INSERT INTO attempts (webhook_id, created_at, delivery_id, attempt, account_id, event_id, event, kind, state, attempted_at)
           SELECT 'wh_1', %s::timestamptz + interval '1 minute', 'waits_' || n, 0, 'acc', '', 'click', 'event', 'pending', now()
           FROM generate_series(1, %s) n""",
        [records.from_ms(CREATED_MS), records._RECENT_ROWS + 1],
    )
    assert await write_batch(connection, stream("F" * 10), TEN) == ["wh_1"]


async def test_tests_skips_and_pending_rows_do_not_count(connection):
    await write_batch(connection, stream("F" * 20, kind=Kind.TEST), TEN)
    await write_batch(connection, stream("F" * 3, prefix="event"), TEN)
    await write_batch(connection, stream("S", prefix="test", kind=Kind.TEST), TEN)
    skipped = [record(delivery_id="skip", state=State.SKIPPED), record(0, State.PENDING, delivery_id="wait")]
    await write_batch(connection, skipped, TEN)
    assert await webhook(connection) == (3, True)


@pytest.mark.parametrize("code", sorted(OUR_FAILURES))
async def test_what_failed_for_our_own_fault_disables_nobody(connection, code):
    """As after a dispatcher's start without a secret's key, or out of descriptors: the receiver was not even asked."""
    assert await write_batch(connection, begun("F", *range(20), error_code=code), TEN) == []
    assert await webhook(connection) == (0, True)
    await write_batch(connection, begun("S", 30.5), TEN)
    ours = begun("F", 31.2, 32.2, 33.2, error_code=code)
    assert await write_batch(connection, [*begun("F", *range(22, 39)), *ours], TEN) == []  # nine, a success, eight
    assert await webhook(connection) == (8, True)
    assert await write_batch(connection, begun("F", 40, 41), TEN) == ["wh_1"]
    assert await webhook(connection) == (10, False)


async def test_failures_disable_only_when_they_span_the_least_time(connection):
    policy = DisablePolicy(3, timedelta(hours=1))
    now_ms = round(datetime.now(UTC).timestamp() * 1000)
    recent = [r._replace(attempted_ms=now_ms + n) for n, r in enumerate(stream("FFFF"))]
    assert await write_batch(connection, recent, policy) == []
    long_ago = [r._replace(webhook_id="wh_2", attempted_ms=now_ms - 4_000_000) for r in stream("FFFF")]
    assert await write_batch(connection, long_ago, policy) == ["wh_2"]


async def test_rows_and_counts_are_written_together_or_not_at_all(connection):
    with pytest.raises(psycopg.DataError):
        await write_batch(connection, [*stream("FF"), record(status_code=99_999, delivery_id="bad")], TEN)
    assert await ask(connection, "SELECT count(*) FROM attempts") == [(0,)]
    assert await webhook(connection) == (0, True)


async def test_what_is_recorded_is_found_and_nothing_else(connection):
    await write_batch(connection, [record(1), record(2)], TEN)
    keys = [
        AttemptKey("wh_1", CREATED_MS, "dlv_1", 1),
        AttemptKey("wh_1", CREATED_MS, "dlv_1", 3),
        AttemptKey("wh_2", CREATED_MS, "dlv_1", 1),
        AttemptKey("wh_1", CREATED_MS + 1, "dlv_1", 1),
        AttemptKey("wh_1", CREATED_MS, "dlv_2", 1),
        AttemptKey("wh_1", CREATED_MS, "dlv_1", 2),
    ]
    assert set(await find_states(connection, keys)) == {keys[0], keys[5]}
    assert await find_states(connection, []) == {}


async def test_partitions_are_made_ahead_and_dropped_after_the_retention(connection):
    today = date(2031, 5, 10)
    assert await maintain_partitions(connection, today, 30) == (5, 0)
    assert await maintain_partitions(connection, today, 30) == (0, 0)
    noon_ms = round(datetime(2031, 5, 10, 12, tzinfo=UTC).timestamp() * 1000)
    await write_batch(connection, [record(created_ms=noon_ms)], TEN)
    assert await ask(connection, "SELECT tableoid::regclass::text FROM attempts") == [("attempts_20310510",)]
    assert await maintain_partitions(connection, today + timedelta(days=30), 30) == (5, 1)
    assert await ask(connection, "SELECT count(*) FROM attempts") == [(1,)]
    assert await maintain_partitions(connection, today + timedelta(days=31), 30) == (1, 1)
    assert await ask(connection, "SELECT count(*) FROM attempts") == [(0,)]


async def test_redeliveries_of_yesterday_are_forgotten(connection):
    asked = "INSERT INTO redeliveries (webhook_id, delivery_id, attempt, asked_at) VALUES ('wh', %s, 7, now() - %s)"
    for name, age in (("dlv_old", timedelta(hours=25)), ("dlv_new", timedelta(hours=23))):
        await connection.execute(asked, [name, age])
    await maintain_partitions(connection, date(2026, 11, 20), 30)
    assert await ask(connection, "SELECT delivery_id FROM redeliveries") == [("dlv_new",)]


async def test_rows_that_came_before_their_partition_move_into_it(connection):
    """A test event sent before any dispatcher has run must not keep the first one from starting."""
    today = date(2031, 5, 10)
    noon_ms = round(datetime(2031, 5, 10, 12, tzinfo=UTC).timestamp() * 1000)
    await write_batch(connection, [record(created_ms=noon_ms), record(created_ms=CREATED_MS)], TEN)
    assert await maintain_partitions(connection, today, 30) == (5, 0)
    where = await ask(connection, "SELECT tableoid::regclass::text FROM attempts ORDER BY created_at")
    assert where == [("attempts_default",), ("attempts_20310510",)]
    assert len(await find_states(connection, [AttemptKey("wh_1", noon_ms, "dlv_1", 1)])) == 1
    assert await maintain_partitions(connection, today, 30) == (0, 0)
    indexes = await ask(connection, "SELECT count(*) FROM pg_indexes WHERE tablename = 'attempts_20310510'")
    assert indexes == await ask(connection, "SELECT count(*) FROM pg_indexes WHERE tablename = 'attempts_20310511'")


async def test_a_backup_keeps_nobody_waiting_and_partitions_are_made_after_it(connection, database_url):
    """`pg_dump` holds this lock for as long as it runs. Who waits for a stronger one makes all others wait behind it."""
    today = date(2031, 5, 10)
    async with await AsyncConnection.connect(database_url, autocommit=True) as backup:
        async with backup.transaction():
            await backup.execute("LOCK TABLE attempts IN ACCESS SHARE MODE")
            assert await asyncio.wait_for(maintain_partitions(connection, today, 30), 20) == (0, 0)
            await write_batch(connection, [record()], TEN)
        assert await maintain_partitions(connection, today, 30) == (5, 0)
        async with backup.transaction():
            await backup.execute("LOCK TABLE attempts_20310509 IN ACCESS SHARE MODE")
            assert await asyncio.wait_for(maintain_partitions(connection, today + timedelta(days=31), 30), 20) == (0, 0)
    assert await maintain_partitions(connection, today + timedelta(days=31), 30) == (5, 2)


async def test_two_writers_of_the_same_webhooks_do_not_block_each_other_for_good(connection, database_url):
    async with await AsyncConnection.connect(database_url, autocommit=True) as other:
        for n in range(20):
            one = stream("F", prefix=f"a{n}") + stream("F", prefix=f"b{n}", webhook_id="wh_2")
            two = stream("F", prefix=f"c{n}", webhook_id="wh_2") + stream("F", prefix=f"d{n}")
            await asyncio.wait_for(
                asyncio.gather(
                    write_batch(connection, one, DisablePolicy(1000)), write_batch(other, two, DisablePolicy(1000))
                ),
                10,
            )
    assert await webhook(connection, "wh_1") == await webhook(connection, "wh_2") == (40, True)
