"""Growth: the attempts table up to ten million rows, 64 partitions, 100,000 distinct receivers, all on one machine.

Attempts: the server fills the table; at each size our own COPY batches and our own history queries are timed. Partitions:
the whole pipeline with 8 and with 64 of each topic. Receivers: one event to each of 1, 1,000 and 100,000 webhooks in turn,
each webhook at a loopback address of its own, so that connections cannot be kept for all.
"""

import argparse
import asyncio
import random
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import charts
import psycopg
import report
from peers import TimingReceiver, produce, receiver_core
from running import BenchError, Hook, Stack, bounded, script, stack, wait_until
from usage import Meter, machine, peak_rss_mib, reset_peak

from go2hooks.core.domain.outcome import State
from go2hooks.core.domain.record import AttemptRecord
from go2hooks.postgres.attempts import DisablePolicy, maintain_partitions, write_batch
from go2hooks.postgres.attempts.deliveries import DeliveryFilter, page

_WEBHOOKS = 1000
_DAYS = 3  # yesterday and the two days after it, so that several partitions grow
_BATCH = 2000  # the recorder's own bound
_BATCHES = 20
_QUERIES = 100
_FILL_STEP = 500_000
_PAGE = 20
_FAILED_PER_MILLE = 20

_FILL = """
INSERT INTO attempts (webhook_id, created_at, delivery_id, attempt, account_id, event_id, event, kind, state, status_code,
                      duration_ms, attempted_at, kafka_topic, kafka_partition, kafka_offset)
SELECT 'wh_' || (n %% %(webhooks)s), date_trunc('day', now()) - interval '1 day' + n * %(step)s * interval '1 millisecond',
       'dlv_' || substr(md5(n::text), 1, 30), 1, 'acc_' || (n %% 100), 'evt_' || md5((n + 1)::text),
       CASE WHEN n %% 20 = 0 THEN 'link.created' ELSE 'click' END, 'event',
       CASE WHEN hashint8(n) %% 1000 BETWEEN 0 AND %(failed)s THEN 'failed' ELSE 'delivered' END, 200, 12.5,
       now(), 'go2.deliveries', n %% 8, n
FROM generate_series(%(first)s::bigint, %(last)s::bigint - 1) AS n
"""


# --- the attempts table


def attempts(sizes: list[int], total: int) -> Iterator[tuple[str, report.Figures]]:
    """At each number of rows: rows a second by COPY in batches, and the time of a page of history."""
    with stack() as running:
        asyncio.run(make_partitions(running))
        rows = 0
        for size in sizes:
            _fill(running, rows, size, total)
            rows = size
            figures = {"copy_rows_per_s": asyncio.run(_copy_rate(running, size))} | _query_times(running)
            figures["table_mib"] = running.query(
                "SELECT sum(pg_total_relation_size(inhrelid)) / 1048576.0 FROM pg_inherits "
                "WHERE inhparent = 'attempts'::regclass"
            )[0][0]
            yield f"{size:,} rows", {name: float(value) for name, value in figures.items()}


async def make_partitions(running: Stack) -> None:
    async with await psycopg.AsyncConnection.connect(running.database.url(), autocommit=True) as connection:
        await maintain_partitions(connection, datetime.now(UTC).date(), 30)


def _fill(running: Stack, first: int, last: int, total: int) -> None:
    """Rows `first` to `last`, spread evenly over the days by what the `total` will be."""
    step_ms = _DAYS * 86_400_000 / total
    for start in range(first, last, _FILL_STEP):
        with psycopg.connect(running.database.url()) as connection:
            end = min(last, start + _FILL_STEP)
            values = {"webhooks": _WEBHOOKS, "step": step_ms, "failed": _FAILED_PER_MILLE, "first": start, "last": end}
            connection.execute(_FILL, values)
    with psycopg.connect(running.database.url(), autocommit=True) as connection:
        connection.execute("VACUUM (ANALYZE) attempts")
        connection.execute("CHECKPOINT")


async def _copy_rate(running: Stack, seed: int) -> float:
    """Rows a second of one recorder that has enough to write."""
    source = random.Random(seed)
    now_ms = time.time_ns() // 1_000_000
    async with await psycopg.AsyncConnection.connect(running.database.url(), autocommit=True) as connection:
        batches = [[_record(source, now_ms) for _ in range(_BATCH)] for _ in range(_BATCHES)]
        began = time.monotonic()
        for batch in batches:
            await write_batch(connection, batch, DisablePolicy(10, timedelta(0)))
        return _BATCH * _BATCHES / (time.monotonic() - began)


def _record(source: random.Random, now_ms: int) -> AttemptRecord:
    number = source.getrandbits(120)
    return AttemptRecord(
        webhook_id=f"wh_{number % _WEBHOOKS}",
        created_ms=now_ms,
        delivery_id=f"dlv_{number:030x}",
        attempt=1,
        account_id=f"acc_{number % 100}",
        event_id=f"evt_{source.getrandbits(128):032x}",
        event="click",
        kind="event",
        state=State.DELIVERED,
        status_code=200,
        duration_ms=12.5,
        error_code=None,
        error_message=None,
        next_attempt_ms=None,
        attempted_ms=now_ms,
        response_excerpt=None,
        position=None,
    )


def _query_times(running: Stack) -> dict[str, float]:
    """Milliseconds of a page of history: the newest, the failed ones, those of a rare event."""
    wanted = {
        "newest": DeliveryFilter(),
        "failed": DeliveryFilter(status="failed"),
        "link_created": DeliveryFilter(event="link.created"),
    }
    source = random.Random(1)
    found: dict[str, float] = {}
    with psycopg.connect(running.database.url(), autocommit=True) as connection:
        for name, each in wanted.items():
            times: list[float] = []
            for _ in range(_QUERIES):
                # Rows of every twentieth webhook are link.created.
                webhook = source.randrange(0, _WEBHOOKS, 20 if name == "link_created" else 1)
                times.append(_timed(lambda w=webhook, f=each: page(connection, f"wh_{w}", f, _PAGE)))
            times.sort()
            found |= {f"{name}_p50_ms": times[_QUERIES // 2], f"{name}_p99_ms": times[-2]}
    return found


def _timed(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


# --- receivers and partitions


def receivers(webhooks: int, deliveries: int, rate: float) -> report.Figures:
    """Dispatcher's cost and memory when deliveries go to this many hosts in turn."""
    receiver = TimingReceiver(None, receiver_core(), every_address=True)
    try:
        with stack() as running:
            accounts = [f"acc_{n}" for n in range(webhooks)]
            hooks = [Hook(a, receiver.url("http", "/many/ok/0", host=_loopback(n))) for n, a in enumerate(accounts)]
            running.create_webhooks(hooks)
            running.run_services()
            _deliver(running, receiver, accounts, 3000, rate)
            receiver.reset()
            pids = running.pids()
            meter = Meter(pids)
            reset_peak(pids["dispatcher"][0])
            meter.start()
            _deliver(running, receiver, accounts, deliveries, rate)
            used = meter.used()
            seen = receiver.report()
            peak = peak_rss_mib(pids["dispatcher"][0])
    finally:
        receiver.close()
    return {
        "dispatcher_cpu_us": used["dispatcher"] / deliveries * 1e6,
        "dispatcher_peak_mib": peak,
        "most_connections": float(seen[""]["most_connections"]),
        "ms.p50": seen["many"]["latency_us"]["p50"] / 1000,
        "ms.p99": seen["many"]["latency_us"]["p99"] / 1000,
    }


def _deliver(running: Stack, receiver: TimingReceiver, accounts: list[str], count: int, rate: float) -> None:
    before = receiver.count()
    produce(running.broker.bootstrap, [{"accounts": accounts, "count": count, "rate": rate}])
    wait_until(lambda: receiver.count() - before >= count, 120, "all deliveries", 0.05)
    time.sleep(0.3)
    if receiver.count() - before != count:
        raise BenchError(f"{receiver.count() - before} deliveries instead of {count}")


def _loopback(number: int) -> str:
    """An address of its own in 127.16.0.0/12."""
    return f"127.{16 + number // 65536}.{number // 256 % 256}.{number % 256}"


def partitions(count: int, deliveries: int) -> report.Figures:
    """Throughput, then latency at 200/s, with this many partitions of each topic."""
    receiver = TimingReceiver(None, receiver_core())
    try:
        with stack(partitions=count) as running:
            accounts = [f"acc_{n}" for n in range(200)]
            running.create_webhooks([Hook(a, receiver.url("http", f"/hook/ok/{a}")) for a in accounts])
            running.run_services()
            _deliver(running, receiver, accounts, 15_000, 3000)
            receiver.reset()
            _deliver(running, receiver, accounts, deliveries, 0)
            fast = receiver.report()["hook"]
            receiver.reset()
            _deliver(running, receiver, accounts, 2000, 200)
            slow = receiver.report()["hook"]["latency_us"]
            kafka_mib = peak_rss_mib(running.pids()["kafka"][0])
            dispatcher_mib = peak_rss_mib(running.pids()["dispatcher"][0])
    finally:
        receiver.close()
    return {
        "per_s": deliveries / ((fast["last_us"] - fast["first_us"]) / 1e6),
        "ms.p50": slow["p50"] / 1000,
        "ms.p99": slow["p99"] / 1000,
        "kafka_mib": kafka_mib,
        "dispatcher_peak_mib": dispatcher_mib,
    }


# --- all of it


def measure(options: argparse.Namespace) -> dict[str, report.Figures]:
    sizes = [int(size) for size in options.rows.split(",") if size]
    found: dict[str, report.Figures] = {}

    def keep(name: str, figures: report.Figures) -> None:
        found[name] = figures
        report.console.print(f"{name}: " + ", ".join(f"{key} {value:,.4g}" for key, value in figures.items()))

    if "receivers" in options.parts:
        for webhooks in (int(each) for each in options.receivers.split(",")):
            keep(f"{webhooks:,} receivers", receivers(webhooks, options.deliveries, options.rate))
    if "partitions" in options.parts:
        for count in (int(each) for each in options.partitions.split(",")):
            keep(f"{count} partitions", partitions(count, options.deliveries))
    if "attempts" in options.parts:
        for name, figures in attempts(sizes, max(sizes)):
            keep(name, figures)
    return found


def present(found: dict[str, report.Figures], options: argparse.Namespace) -> None:
    summary = report.summarise([found])
    rows = {"copy_rows_per_s": "COPY rows/s", "newest_p50_ms": "newest p50 ms", "newest_p99_ms": "p99 ms"}
    rows |= {"failed_p50_ms": "failed p50 ms", "failed_p99_ms": "p99 ms", "link_created_p50_ms": "rare event p50 ms"}
    report.table("The attempts table", summary, rows | {"link_created_p99_ms": "p99 ms", "table_mib": "MiB"})
    hosts = {"dispatcher_cpu_us": "dispatcher us", "most_connections": "connections at most"}
    memory = {"ms.p50": "p50 ms", "ms.p99": "p99 ms", "dispatcher_peak_mib": "dispatcher MiB"}
    report.table("Distinct receivers", {n: m for n, m in summary.items() if "receivers" in n}, hosts | memory)
    shown = {n: m for n, m in summary.items() if "partitions" in n}
    report.table("Partitions of each topic", shown, {"per_s": "deliveries/s"} | memory | {"kafka_mib": "Kafka MiB"})
    path = report.write("scale", vars(options), [found], options.out)
    _draw(found, options.out)
    report.console.print(f"load after {machine()['load']}; written: {path}")


def _draw(found: dict[str, report.Figures], directory: Path) -> None:
    def curve(unit: str, metric: str) -> list[tuple[float, float]]:
        measured = {name.split()[0].replace(",", ""): figures for name, figures in found.items() if name.endswith(unit)}
        return [(float(number), figures[metric]) for number, figures in measured.items()]

    history = {"newest": "newest_p50_ms", "failed": "failed_p50_ms", "rare event": "link_created_p50_ms"}
    cost = {"CPU per delivery": "dispatcher_cpu_us", "peak memory": "dispatcher_peak_mib"}
    drawings = {
        "attempts-copy": ("COPY into the attempts table", "rows", "rows a second", {"COPY": "copy_rows_per_s"}),
        "attempts-query": ("A page of a webhook's history, median", "rows", "milliseconds", history),
        "receivers": ("One dispatcher by the number of distinct receivers", "receivers", "us of CPU, MiB", cost),
        "partitions": ("Full speed by the number of partitions", "partitions", "deliveries/s", {"rate": "per_s"}),
    }
    for name, (title, unit, y_name, metrics) in drawings.items():
        series = {label: curve(unit, metric) for label, metric in metrics.items()}
        if all(series.values()):
            report.chart(name, charts.lines(title, unit, y_name, series), directory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="receivers,partitions,attempts")
    parser.add_argument("--rows", default="10000,100000,1000000,3000000,10000000", help="sizes of the attempts table")
    parser.add_argument("--receivers", default="1,1000,100000", help="numbers of distinct receivers")
    parser.add_argument("--partitions", default="8,64", help="numbers of partitions")
    parser.add_argument("--deliveries", type=int, default=100_000, help="deliveries of a receivers or partitions run")
    parser.add_argument("--rate", type=float, default=2000.0, help="events a second of a receivers run")
    parser.add_argument("--time-limit", type=float, default=2400.0, help="seconds after which everything is ended")
    parser.add_argument("--quick", action="store_true", help="a smoke run of about two minutes")
    parser.add_argument("--out", type=Path, default=report.RESULTS)
    options = parser.parse_args()
    if options.quick:
        options.rows, options.receivers, options.partitions = "10000,100000", "1,3000", "8"
        options.deliveries, options.rate = 4000, 1000.0
    report.say_machine()
    with bounded(options.time_limit):
        found = measure(options)
    present(found, options)


if __name__ == "__main__":
    script(main)
