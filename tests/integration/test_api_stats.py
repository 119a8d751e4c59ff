"""A webhook's statistics, as the API tells them."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from psycopg import AsyncConnection

from go2hooks.core.domain.delivery import Kind
from go2hooks.core.domain.outcome import State
from go2hooks.core.domain.record import AttemptRecord
from go2hooks.postgres.attempts import DisablePolicy, write_batch
from go2hooks.postgres.rollups import gather

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
NOTHING = {"delivered": 0, "failed": 0, "skipped": 0, "retried": 0, "p50Ms": None, "p95Ms": None, "p99Ms": None}


@pytest.fixture
def hook(acme):
    return acme.create()["id"]


@pytest.fixture
def happened(database_url, hook):
    """`happened((minute, state, ms), …)` records attempts, so many minutes past noon; without ms, unanswered ones."""

    async def write(records):
        async with await AsyncConnection.connect(database_url, autocommit=True) as connection:
            await write_batch(connection, records, DisablePolicy(100))
            await gather(connection, 0)

    def record(*attempts):
        noon_ms = int(NOON.timestamp()) * 1000
        asyncio.run(
            write([
                AttemptRecord(
                    hook, noon_ms, f"dlv_{number}", 1, "acme", "evt_1", "click", Kind.EVENT, state,
                    None if ms is None else 200, ms, None, None, None, noon_ms + round(minute * 60_000), None, None,
                )
                for number, (minute, state, ms) in enumerate(attempts)
            ])
        )  # fmt: skip

    return record


@pytest.fixture
def stats(acme, hook):
    def ask(query):
        answer = acme("GET", f"/webhooks/{hook}/stats?{query}")
        assert answer.status_code == 200, answer.text
        return answer.json["data"]

    return ask


def about(ms):
    return pytest.approx(ms, rel=0.05)


def test_attempts_are_counted_by_outcome_where_they_began(stats, happened):
    happened((0, State.RETRYING, 500.0), (0.5, State.DELIVERED, 20.0), (0.9, State.DELIVERED, 40.0), (2, State.FAILED, None),
             (2, State.SKIPPED, None), (3, State.DELIVERED, 7.0))  # fmt: skip
    told = stats("from=2026-11-20T12:00:00Z&to=2026-11-20T12:03:00Z&step=60")
    assert told == {
        "from": "2026-11-20T12:00:00Z",
        "to": "2026-11-20T12:03:00Z",
        "stepSeconds": 60,
        "series": [
            {"at": "2026-11-20T12:00:00Z", **NOTHING, "delivered": 2, "retried": 1,
             "p50Ms": about(40), "p95Ms": about(500), "p99Ms": about(500)},
            {"at": "2026-11-20T12:01:00Z", **NOTHING},
            {"at": "2026-11-20T12:02:00Z", **NOTHING, "failed": 1, "skipped": 1},
        ],
        "totals": {"delivered": 2, "failed": 1, "skipped": 1, "retried": 1,
                   "p50Ms": about(40), "p95Ms": about(500), "p99Ms": about(500)},
    }  # fmt: skip


@pytest.mark.parametrize("step", [60, 300, 3600, 86400])
def test_every_step_tells_the_same_in_total(stats, happened, step):
    happened(*((minute, State.DELIVERED, 1.0 + minute) for minute in range(0, 600, 7)))
    told = stats(f"from=2026-11-20T12:00:00Z&to=2026-11-20T22:00:00Z&step={step}")
    assert told["totals"]["delivered"] == sum(point["delivered"] for point in told["series"]) == 86
    assert told["totals"]["p50Ms"] == about(295)
    assert told["stepSeconds"] == step


def test_times_are_widened_to_whole_steps(stats):
    told = stats("from=2026-11-20T14:59:59.999%2B02:00&to=2026-11-20T13:00:00.001Z&step=3600")
    assert (told["from"], told["to"]) == ("2026-11-20T12:00:00Z", "2026-11-20T14:00:00Z")
    assert [point["at"] for point in told["series"]] == ["2026-11-20T12:00:00Z", "2026-11-20T13:00:00Z"]


def test_without_anything_said_it_is_the_last_day_in_five_minute_steps(stats):
    told = stats("")
    begin, end = map(datetime.fromisoformat, (told["from"], told["to"]))
    assert told["stepSeconds"] == 300
    assert timedelta(days=1) <= end - begin <= timedelta(days=1, minutes=5)
    assert timedelta() <= end - datetime.now(UTC) <= timedelta(minutes=5)
    assert told["totals"] == NOTHING


@pytest.mark.parametrize(
    ("days", "step"), [(0.5, 60), (2, 300), (30, 3600), (400, 86400)]
)  # fmt: skip
def test_without_a_step_it_is_the_shortest_that_gives_few_enough(stats, days, step):
    begin = (NOON - timedelta(days=days)).isoformat().replace("+", "%2B")
    assert stats(f"from={begin}&to=2026-11-20T12:00:00Z")["stepSeconds"] == step


@pytest.mark.parametrize(
    ("query", "field", "says"),
    [
        ("step=61", "step", "60, 300, 3600, 86400"),
        ("step=", "step", "60"),
        ("step=060", "step", "60"),
        ("step=%00", "step", "60"),
        ("from=yesterday", "from", "such as"),
        ("to=2026-11-20T12:00:00", "to", "must end in Z"),
        ("from=2026-11-20T12:00:00Z&to=2026-11-20T12:00:00Z", "to", "later than from"),
        ("from=9998-01-01T00:00:00Z", "to", "later than from"),
        ("from=2026-11-01T00:00:00Z&to=2026-11-20T00:00:00Z&step=60", "step", "27360 steps, and 1000 are allowed"),
        ("from=1970-01-01T00:00:00Z&to=2026-11-20T00:00:00Z", "from", "ask for less"),
        ("since=2026-11-01T00:00:00Z", "since", "not a known"),
        ("begin=2026-11-01T00:00:00Z", "begin", "not a known"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(acme, hook, query, field, says):
    answer = acme("GET", f"/webhooks/{hook}/stats?{query}")
    assert answer.status_code == 422, answer.text
    assert list(answer.json["error"]["details"]) == [field]
    assert says in answer.json["error"]["details"][field]


@pytest.mark.parametrize("edge", ["from=1970-01-01T00:00:00%2B14:00&to=1970-01-01T00:00:00Z", "to=1970-01-01T00:00:01Z",
                                  "from=9998-12-31T00:00:00Z&to=9998-12-31T23:59:59-14:00"])  # fmt: skip
def test_the_ends_of_time_are_answered(stats, edge):
    assert stats(edge)["totals"] == NOTHING


def test_another_accounts_webhook_has_no_statistics(rival, hook):
    assert rival("GET", f"/webhooks/{hook}/stats").status_code == 404
    assert rival("GET", "/webhooks/wh_nobody/stats").status_code == 404
