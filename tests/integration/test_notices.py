"""What is told about webhooks: each transition once, in the transaction that made it, and kept until Kafka has it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from psycopg import AsyncConnection

from go2hooks.core.domain.delivery import Kind
from go2hooks.core.domain.outcome import Failure, State
from go2hooks.core.domain.record import AttemptRecord
from go2hooks.postgres.attempts import DisablePolicy, write_batch
from go2hooks.postgres.notices import claim_notices, forget_notices

TEN = DisablePolicy(10)
BEGAN_MS = 1_704_110_400_000


def attempts(outcomes: str, first: int = 0, **changes: Any) -> list[AttemptRecord]:
    """One delivery per letter, a millisecond after each other: F failed, S succeeded."""
    return [
        AttemptRecord(
            "wh_1", BEGAN_MS, f"dlv_{first + n}", 1, "acc", f"evt_{n}", "click", Kind.EVENT,
            State.DELIVERED if letter == "S" else State.RETRYING, 200 if letter == "S" else 500, 12.0, None,
            None if letter == "S" else f"The receiver answered 500, {first + n}.\0", None, BEGAN_MS + first + n, None, None,
        )._replace(**changes)
        for n, letter in enumerate(outcomes)
    ]  # fmt: skip


@pytest.fixture
async def connect(database_url: str) -> AsyncIterator[Any]:
    opened: list[AsyncConnection[Any]] = []

    async def connect() -> AsyncConnection[Any]:
        opened.append(await AsyncConnection.connect(database_url, autocommit=True))
        return opened[-1]

    yield connect
    for connection in opened:
        await connection.close()


@pytest.fixture
async def connection(connect: Any) -> AsyncConnection[Any]:
    connection: AsyncConnection[Any] = await connect()
    await connection.execute("INSERT INTO accounts (id) VALUES ('acc')")
    await connection.execute(
        """INSERT INTO webhooks (id, account_id, name, url, events, sealed_secret)
           VALUES ('wh_1', 'acc', 'Größe', 'https://example.com/', '{click}', '')"""
    )
    return connection


async def told(connection: AsyncConnection[Any]) -> list[tuple[str, int]]:
    """The events that there are, and the failures that each speaks of."""
    claimed = await claim_notices(connection)
    return [(event.type, event.data["consecutiveFailures"]) for _, event in claimed]


async def test_half_the_limit_and_the_limit_are_told_once_each(connection: AsyncConnection[Any]) -> None:
    await write_batch(connection, attempts("F" * 4), TEN)
    assert await told(connection) == []
    for n in range(4, 12):
        await write_batch(connection, attempts("F", first=n), TEN)
    [(_, failing), (_, disabled)] = await claim_notices(connection)
    assert failing.data == {
        "webhookId": "wh_1",
        "name": "Größe",
        "url": "https://example.com/",
        "reason": "5 consecutive failed attempts",
        "consecutiveFailures": 5,
        "lastError": "The receiver answered 500, 4.\N{REPLACEMENT CHARACTER}",
        "since": "2024-01-01T12:00:00Z",
    }
    assert (failing.type, failing.account_id) == ("webhook.failing", "acc")
    assert (disabled.type, disabled.data["reason"]) == ("webhook.disabled", "10 consecutive failed attempts")
    assert failing.id != disabled.id


async def test_who_recovers_and_fails_again_is_told_again(connection: AsyncConnection[Any]) -> None:
    await write_batch(connection, attempts("FFFFFSFFFF"), TEN)
    assert await told(connection) == []  # in one batch it had recovered
    await write_batch(connection, attempts("F", first=20), TEN)
    await write_batch(connection, attempts("S", first=21), TEN)
    await write_batch(connection, attempts("F" * 6, first=30), TEN)
    assert await told(connection) == [("webhook.failing", 5), ("webhook.failing", 6)]


async def test_what_disables_at_once_is_told_as_that_alone(connection: AsyncConnection[Any]) -> None:
    await write_batch(connection, attempts("F" * 10), TEN)
    assert await told(connection) == [("webhook.disabled", 10)]
    await connection.execute("UPDATE webhooks SET is_active = true, consecutive_failures = 0, failure_starts = '{}'")
    gone = attempts("F", first=50, error_code=Failure.GONE, state=State.FAILED, attempted_ms=4_000_000_000_000)
    await write_batch(connection, gone, TEN)
    assert await told(connection) == [("webhook.disabled", 1)]


async def test_of_two_dispatchers_one_tells(connection: AsyncConnection[Any], connect: Any) -> None:
    other = await connect()
    batches = attempts("F" * 5), attempts("F" * 5, first=5)
    await asyncio.gather(*(write_batch(c, b, TEN) for c, b in zip((connection, other), batches, strict=True)))
    assert await told(connection) == [("webhook.failing", 5), ("webhook.disabled", 10)]


async def test_a_notice_is_claimed_by_one_and_by_another_when_that_one_has_died(
    connection: AsyncConnection[Any], connect: Any
) -> None:
    await write_batch(connection, attempts("F" * 5), TEN)
    other = await connect()
    claims = await asyncio.gather(claim_notices(connection), claim_notices(other))
    [(number, event)] = [notice for claim in claims for notice in claim]
    await connection.execute("UPDATE webhook_notices SET claimed_until = clock_timestamp()")
    assert await claim_notices(other) == [(number, event)]
    await forget_notices(other, [number])
    await connection.execute("UPDATE webhook_notices SET claimed_until = clock_timestamp()")
    assert await claim_notices(connection) == []


async def test_a_batch_that_is_undone_tells_nothing(connection: AsyncConnection[Any]) -> None:
    with pytest.raises(Exception, match="smallint"):
        await write_batch(connection, [*attempts("F" * 5), *attempts("F", first=9, status_code=99_999)], TEN)
    assert await told(connection) == []
