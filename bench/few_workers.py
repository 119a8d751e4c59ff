"""Receivers with few workers under a burst and then a steady stream: nobody is disabled, hardly anything times out or is late.

Every row has a receiver of its own (`prefork.py`) and all run at once, beside each other, for as many minutes as asked: first
with one dispatcher, then with two. What comes of each delivery is read from the records.
"""

import argparse
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import report
from peers import Producer
from prefork import Prefork, StandardServer
from running import BenchError, Hook, Stack, bounded, script, stack, wait_until

_LATE_S = 15.0
_TIMEOUTS_FIRST = 8  # in the first minute; in the third and later ones none
_ACCOUNTS_LOOKED_AT = 8  # of which two surely belong to different dispatchers


@dataclass(frozen=True)
class Row:
    """A receiver, and what comes for it: `burst` events at once, then `rate` a second, to so many webhooks each."""

    name: str
    workers: int
    keep_alive_s: float
    burst: int
    webhooks: int = 1
    rate: float = 5.0
    standard: str = ""  #: a version of HTTP: Python's own server instead

    def receiver(self) -> Prefork | StandardServer:
        return StandardServer(self.standard) if self.standard else Prefork(self.workers, self.keep_alive_s)


ROWS = (
    Row("1 worker, 65 s, 24 at once", 1, 65, 24),
    Row("8 workers, 65 s, 200 at once", 8, 65, 200),
    Row("8 workers, 5 s, 200 at once", 8, 5, 200),
    Row("1 worker, 65 s, 4 at once", 1, 65, 4),
    Row("1 worker, 65 s, 1/s to each of 8 webhooks", 1, 65, 1, webhooks=8, rate=1.0),
    Row("4 workers, 65 s, 8 webhooks", 4, 65, 4, webhooks=8, rate=1.0),
    Row("HTTPServer, HTTP/1.0, 200 at once", 1, 0, 200, standard="HTTP/1.0"),
    Row("HTTPServer, HTTP/1.1, 200 at once", 1, 0, 200, standard="HTTP/1.1"),
)


def run(running: Stack, rows: list[Row], minutes: float) -> dict[str, report.Figures]:
    """All rows at once, for so many minutes; what came of each."""
    with ExitStack() as stacked:
        receivers = [stacked.enter_context(row.receiver()) for row in rows]
        hooks = [
            Hook(f"acc_{time.time_ns()}_{at}_{n}", f"http://127.0.0.1:{receiver.port}/hook")
            for at, (row, receiver) in enumerate(zip(rows, receivers, strict=True))
            for n in range(row.webhooks)
        ]
        ids = iter(running.create_webhooks(hooks))
        accounts = iter(hook.account for hook in hooks)
        webhooks = [[next(ids) for _ in range(row.webhooks)] for row in rows]
        parts = [part for row in rows for part in _parts(row, [next(accounts) for _ in range(row.webhooks)], minutes)]
        producer = Producer(running.broker.bootstrap, parts)
        try:
            producer.go()
            began = time.time()
            producer.result()
        finally:
            producer.close()
        _settled(running, [one for each in webhooks for one in each], sum(part["count"] for part in parts))
        return {
            row.name: _figures(running, each, began, [a.delivery for a in receiver.arrivals])
            for row, each, receiver in zip(rows, webhooks, receivers, strict=True)
        }


def _parts(row: Row, accounts: list[str], minutes: float) -> list[dict[str, object]]:
    burst = {"accounts": accounts, "count": row.burst * row.webhooks}
    rate = row.rate * row.webhooks
    return [burst, {"accounts": accounts, "count": round(rate * minutes * 60), "rate": rate, "start_s": 0.2}]


def _settled(running: Stack, webhooks: list[str], deliveries: int) -> None:
    """Wait until each delivery was delivered, skipped or given up; for as long as two retries take."""
    statement = """SELECT count(DISTINCT delivery_id) FROM attempts
        WHERE webhook_id = ANY(%s) AND state IN ('delivered', 'failed', 'skipped')"""
    try:
        wait_until(lambda: running.query(statement, webhooks)[0][0] >= deliveries, 90, "every delivery", 0.5)
    except BenchError as error:
        report.console.print(f"[red]{error}[/red]")


def _figures(running: Stack, webhooks: list[str], began: float, arrived: list[str]) -> report.Figures:
    ended = "extract(epoch FROM attempted_at) + coalesce(duration_ms, 0) / 1000"
    late = f"max({ended} - extract(epoch FROM created_at))"
    ((latest, delivered, skipped),) = running.query(
        f"""SELECT {late} FILTER (WHERE state = 'delivered'), count(*) FILTER (WHERE state = 'delivered'),
            count(*) FILTER (WHERE state = 'skipped') FROM attempts WHERE webhook_id = ANY(%s)""",
        webhooks,
    )
    statement = f"SELECT floor(({ended} - %s) / 60) FROM attempts WHERE webhook_id = ANY(%s) AND state IN ('retrying', 'failed')"
    minutes = [int(minute) for (minute,) in running.query(statement, began, webhooks)]
    ((disabled,),) = running.query("SELECT count(*) FROM webhooks WHERE id = ANY(%s) AND NOT is_active", webhooks)
    return {
        "disabled": float(disabled),
        "latest_s": float(latest or 0.0),
        "delivered": float(delivered),
        "skipped": float(skipped),
        "twice": float(len(arrived) - len(set(arrived))),
        "failed.1": float(minutes.count(0)),
        "failed.2": float(minutes.count(1)),
        "failed.3": float(sum(minute >= 2 for minute in minutes)),
    }


def breaches(name: str, figures: report.Figures) -> list[str]:
    """What must not be."""
    found = {
        "disabled": figures["disabled"] > 0,
        "skipped": figures["skipped"] > 0,
        "latest_s": figures["latest_s"] > _LATE_S,
        "failed.1": figures["failed.1"] > _TIMEOUTS_FIRST,
        "failed.3": figures["failed.3"] > 0,
    }
    return [f"{name}: {metric} is {figures[metric]:.3g}" for metric, is_breach in found.items() if is_breach]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3.1, help="how long the streams last")
    parser.add_argument("--dispatchers", default="1,2")
    parser.add_argument("--only", default="", help="rows whose name holds this")
    parser.add_argument("--time-limit", type=float, default=1200.0, help="seconds after which everything is ended")
    parser.add_argument("--out", type=Path, default=report.RESULTS)
    options = parser.parse_args()
    report.say_machine()
    rows = [row for row in ROWS if options.only in row.name]
    rounds: list[dict[str, report.Figures]] = []
    with bounded(options.time_limit), stack() as running:
        for dispatchers in map(int, options.dispatchers.split(",")):
            running.run_services(dispatchers=dispatchers)
            found = run(running, rows, options.minutes)
            rounds.append({f"{name}, dispatchers: {dispatchers}": figures for name, figures in found.items()})
    columns = {
        "disabled": "disabled", "latest_s": "latest s", "failed.1": "failed in minute 1", "failed.2": "2", "failed.3": "3 and on",
        "delivered": "delivered", "skipped": "skipped", "twice": "twice",
    }  # fmt: skip
    report.table("Receivers with few workers", report.summarise(rounds), columns)
    report.write("few_workers", vars(options), rounds, options.out)
    wrong = [line for each in rounds for name, figures in each.items() for line in breaches(name, figures)]
    for line in wrong:
        report.console.print(f"[red]{line}[/red]")
    return 1 if wrong else 0


if __name__ == "__main__":
    script(main)
