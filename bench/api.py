"""The control API at a steady rate: the 99th percentiles of reads and writes beside that of /healthz, in the same seconds.

An account has a thousand webhooks, and the table of attempts 100,000 rows, then 5,000,000. Requests are due at their own times
(open loop), whatever those before them do: a late answer counts from when its request was due.
"""

import argparse
import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import aiohttp
import psycopg
import report
import scale
from running import BenchError, Hook, Stack, bounded, script, stack
from usage import machine

from go2hooks.demo.ledger import percentile
from go2hooks.postgres.api_keys import create_key
from go2hooks.postgres.session import Session

_WEBHOOKS: Final = 1000
_ACCOUNT: Final = "acc_0"
_READS: Final = 0.75  # of the requests
_HEALTH_PER_S: Final = 20.0
_CONNECTIONS: Final = 32
_FILL_STEP: Final = 250_000

Send = Callable[[], Awaitable[None]]


class Caller:
    """One account's way to the API; times by kind of request, in milliseconds from when each was due."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, webhooks: list[str], deliveries: list[tuple[str, str, str]]
    ) -> None:
        self.times: dict[str, list[float]] = defaultdict(list)
        self._session = session
        self._url = url
        self._webhooks = webhooks
        self._deliveries = deliveries
        self._own: list[str] = []  # made by us, for writes
        self._random = random.Random(7)

    async def ask(self, kind: str, due: float, method: str, path: str, expected: int = 200, body: Any = None) -> Any:
        async with self._session.request(method, self._url + path, json=body) as answer:
            content = await answer.json()
            if answer.status != expected:
                raise BenchError(f"{method} {path}: {answer.status} {content}")
        self.times[kind].append((time.monotonic() - due) * 1000)
        return content

    async def read(self, due: float) -> None:
        """One of the reads, by chance."""
        webhook, delivery, event = self._random.choice(self._deliveries)
        paths = {
            "read: webhooks": "/api/v1/webhooks?search=bench",
            "read: webhook": f"/api/v1/webhooks/{self._random.choice(self._webhooks)}",
            "read: deliveries": f"/api/v1/webhooks/{webhook}/deliveries",
            "read: failed": f"/api/v1/webhooks/{webhook}/deliveries?status=failed",
            "read: delivery": f"/api/v1/webhooks/{webhook}/deliveries/{delivery}",
            "read: all deliveries": "/api/v1/deliveries",
            "read: where an event went": f"/api/v1/deliveries?eventId={event}",
            "read: stats": f"/api/v1/webhooks/{webhook}/stats",
        }
        kind = self._random.choice(list(paths))
        await self.ask(kind, due, "GET", paths[kind])

    async def write(self, due: float) -> None:
        """Make a webhook, or change, rotate or delete one that we made."""
        step = self._random.randrange(4) if self._own else 0
        if step == 0:
            body = {"name": "bench", "url": "https://example.com/", "events": ["click"]}
            made = await self.ask("write: create", due, "POST", "/api/v1/webhooks", 201, body)
            self._own.append(made["data"]["id"])
            return
        webhook = self._own.pop(self._random.randrange(len(self._own)))  # nobody else's meanwhile
        path = f"/api/v1/webhooks/{webhook}"
        if step == 1:
            await self.ask("write: change", due, "PATCH", path, body={"name": "changed"})
        elif step == 2:
            await self.ask("write: rotate", due, "POST", f"{path}/rotate-secret")
        else:
            await self.ask("write: delete", due, "DELETE", path)
            return
        self._own.append(webhook)

    async def look(self, due: float) -> None:
        await self.ask("healthz", due, "GET", "/healthz")


async def at_rate(per_s: float, seconds: float, send: Callable[[float], Awaitable[None]]) -> None:
    """Start `send` at each time that one is due. Raises what the first that fails raises."""
    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for number in range(round(per_s * seconds)):
            due = began + number / per_s
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            tasks.create_task(send(due))


async def load(caller: Caller, per_s: float, seconds: float) -> None:
    chance = random.Random(11)

    async def one(due: float) -> None:
        await (caller.read(due) if chance.random() < _READS else caller.write(due))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(at_rate(per_s, seconds, one))
        tasks.create_task(at_rate(_HEALTH_PER_S, seconds, caller.look))


async def drive(url: str, key: str, running: Stack, options: argparse.Namespace) -> report.Figures:
    rows = running.query(
        "SELECT webhook_id, delivery_id, event_id FROM attempts WHERE account_id = %s LIMIT 1000", _ACCOUNT
    )
    webhooks = sorted({row[0] for row in rows})
    headers = {"Authorization": f"Bearer {key}"}
    connector = aiohttp.TCPConnector(limit=_CONNECTIONS)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        await load(Caller(session, url, webhooks, rows), options.rate, 3.0)  # plans and caches
        caller = Caller(session, url, webhooks, rows)
        await load(caller, options.rate, options.seconds)
    return figures(caller.times)


def figures(times: dict[str, list[float]]) -> report.Figures:
    found: report.Figures = {}
    for group in ("read", "write", "healthz"):
        found[f"{group}_p50_ms"] = percentile(
            sorted(t for kind, each in times.items() if kind.startswith(group) for t in each), 0.5
        )
    for group in ("read", "write", "healthz", *sorted(times)):
        ascending = sorted(t for kind, each in times.items() if kind.startswith(group) for t in each)
        found[f"{group}_p99_ms"] = percentile(ascending, 0.99)
    return found


def measure(options: argparse.Namespace) -> list[dict[str, report.Figures]]:
    sizes = [int(size) for size in options.rows.split(",")]
    rounds: list[dict[str, report.Figures]] = []
    with stack() as running:
        asyncio.run(scale.make_partitions(running))
        ids = running.create_webhooks([Hook(_ACCOUNT, "https://example.com/", ("click",))] * _WEBHOOKS)
        with Session.connect(running.database.url(), name="bench") as connection:
            key = create_key(connection, _ACCOUNT).key
        limits = {"GO2HOOKS_API_REQUESTS_PER_S": "0", "GO2HOOKS_API_PORT": "0", "GO2HOOKS_LOG_LEVEL": "error"}
        limits["GO2HOOKS_WEBHOOKS_PER_ACCOUNT"] = "10000"
        with running.api(**limits) as url:
            filled = 0
            for size in sizes:
                fill(running, ids, filled, size, sizes[-1])
                filled = size
                for number in range(options.repeat):
                    rounds.append({f"{size:,} attempts": asyncio.run(drive(url, key, running, options))})
                    report.console.print(
                        f"{size:,} attempts, round {number + 1} of {options.repeat}: {shown(rounds[-1])}"
                    )
    return rounds


def shown(round_: dict[str, report.Figures]) -> str:
    [found] = round_.values()
    return ", ".join(f"{name} {found[f'{name}_p99_ms']:.1f}" for name in ("read", "write", "healthz"))


def fill(running: Stack, ids: list[str], first: int, last: int, total: int) -> None:
    """Attempts of these webhooks, spread over the last day."""
    step_ms = 86_400_000 / total
    began = datetime.now(UTC) - timedelta(days=1)
    with psycopg.connect(running.database.url(), autocommit=True) as connection:
        for start in range(first, last, _FILL_STEP):
            values = (ids, began, step_ms, _ACCOUNT, start, min(last, start + _FILL_STEP) - 1)
            connection.execute(_FILL, values)
        connection.execute("VACUUM (ANALYZE) attempts")
        connection.execute("CHECKPOINT")


_FILL: Final = """
INSERT INTO attempts (webhook_id, created_at, delivery_id, attempt, account_id, event_id, event, kind, state, status_code,
                      duration_ms, attempted_at, kafka_topic, kafka_partition, kafka_offset)
SELECT (%s::text[])[1 + n %% 1000], at, 'dlv_' || substr(md5(n::text), 1, 30), 1, account, 'evt_' || md5((n + 1)::text),
       CASE WHEN n %% 20 = 0 THEN 'link.created' ELSE 'click' END, 'event',
       CASE WHEN n %% 50 = 0 THEN 'failed' ELSE 'delivered' END, 200, 12.5, at, 'go2.deliveries', n %% 8, n
FROM (SELECT n, %s::timestamptz + n * %s * interval '1 millisecond' AS at, %s AS account
      FROM generate_series(%s::bigint, %s::bigint) n) AS rows
"""


def present(rounds: list[dict[str, report.Figures]], options: argparse.Namespace) -> None:
    columns = {f"{name}_{p}_ms": f"{name} {p}" for name in ("read", "write", "healthz") for p in ("p50", "p99")}
    report.table(
        f"The API at {options.rate:g} requests a second, milliseconds: medians (lowest-highest)",
        report.summarise(rounds),
        columns,
    )
    path = report.write("api", vars(options), rounds, options.out)
    report.console.print(f"load after {machine()['load']}; written: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="100000,5000000", help="sizes of the attempts table")
    parser.add_argument("--rate", type=float, default=200.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=20.0, help="of a round")
    parser.add_argument("--repeat", type=int, default=3, help="rounds at each size; medians are shown")
    parser.add_argument("--time-limit", type=float, default=900.0, help="seconds after which everything is ended")
    parser.add_argument("--out", type=Path, default=report.RESULTS)
    options = parser.parse_args()
    report.say_machine()
    with bounded(options.time_limit):
        rounds = measure(options)
    present(rounds, options)


if __name__ == "__main__":
    script(main)
