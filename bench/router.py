"""The router alone: events per second, CPU per event and memory, by the number of webhooks in its replica.

Events are produced while no router runs; then one router process routes them, with Kafka beside it and nothing else.
Ten webhooks to an account, one of which wants the event. Rate and CPU are taken between the first and the last look at
its counters, so that starting and joining the group are left out. Memory is what loading the copy adds to the process.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import charts
import psycopg
import report
from peers import produce
from running import BenchError, Stack, bounded, script, stack
from usage import cpu_s, machine, rss_mib

_PER_ACCOUNT = 10
_ACCOUNTS_USED = 1000
_LOOK_S = 0.2
_SETTLE_S = 1.0
_ROUTE_S = 300.0
_PARTS = ("router", "dispatcher")

_FILL = """
INSERT INTO webhooks (id, account_id, name, url, events, sealed_secret)
SELECT 'wh_' || lpad(to_hex(n), 24, '0'), 'acc_' || (n / %(per_account)s), 'bench',
       'https://receiver-' || n || '.example.com/webhooks/go2',
       CASE n %% %(per_account)s WHEN 0 THEN ARRAY['click']
                                WHEN 1 THEN ARRAY['link.created', 'link.updated', 'link.deleted']
                                ELSE ARRAY['qr.scanned'] END,
       decode(repeat(md5(n::text), 4), 'hex') || decode(repeat('00', 12), 'hex')
FROM generate_series(0, %(webhooks)s - 1) AS n
"""
_ACCOUNTS = "INSERT INTO accounts SELECT 'acc_' || n FROM generate_series(0, %s - 1) AS n ON CONFLICT DO NOTHING"


@dataclass(frozen=True)
class Sample:
    """One look at the router: seconds, events routed, CPU seconds."""

    at: float
    events: float
    cpu: float


def fill(running: Stack, webhooks: int) -> None:
    """Exactly this many webhooks. Without the trigger: nobody listens to a million notifications."""
    with psycopg.connect(running.database.url()) as connection:
        connection.execute("TRUNCATE webhooks, client_certificates")
        connection.execute("ALTER TABLE webhooks DISABLE TRIGGER webhooks_changed")
        connection.execute(_ACCOUNTS, (-(-webhooks // _PER_ACCOUNT),))
        connection.execute(_FILL, {"per_account": _PER_ACCOUNT, "webhooks": webhooks})
        connection.execute("ALTER TABLE webhooks ENABLE TRIGGER webhooks_changed")


def memory(running: Stack, webhooks: int) -> report.Figures:
    """Resident memory of router and dispatcher with this many webhooks, and how long they took to be ready."""
    fill(running, webhooks)
    began = time.monotonic()
    running.run_services(routers=1, dispatchers=1)
    ready_s = time.monotonic() - began
    time.sleep(_SETTLE_S)
    pids = running.pids()
    figures = {f"rss_mib.{part}": sum(rss_mib(pid) for pid in pids[part]) for part in _PARTS}
    running.stop_services()
    return figures | {"ready_s": ready_s}


def routing(running: Stack, webhooks: int, events: int) -> report.Figures:
    """Rate and cost of routing `events` events, one match each. Raises BenchError unless each became one delivery."""
    fill(running, webhooks)
    all_accounts = -(-webhooks // _PER_ACCOUNT)
    step = max(1, all_accounts // _ACCOUNTS_USED)
    accounts = [f"acc_{n}" for n in range(0, all_accounts, step)][:_ACCOUNTS_USED]
    produce(running.broker.bootstrap, [{"accounts": accounts, "count": events}], linger_ms=5)
    running.run_services(routers=1, dispatchers=0)
    samples = _watch(running, events)
    created = running.metric("router", "go2hooks_deliveries_created_total")
    running.stop_services()
    if created != events:
        raise BenchError(f"{events} events became {created:.0f} deliveries")
    if len(samples) < 3:
        raise BenchError(f"{events} events are too few: routed within {len(samples)} looks")
    first, last = samples[0], samples[-1]
    routed = last.events - first.events
    return {
        "events_per_s": routed / (last.at - first.at),
        "cpu_us_per_event": (last.cpu - first.cpu) / routed * 1e6,
    }


def _watch(running: Stack, events: int) -> list[Sample]:
    """Looks at the router from its first event until its last; the one that finds it finished is left out."""
    (pid,) = running.pids()["router"]
    deadline = time.monotonic() + _ROUTE_S
    samples: list[Sample] = []
    while time.monotonic() < deadline:
        done = running.metric("router", 'go2hooks_events_total{event="click"}')
        if done >= events:
            return samples
        if done:
            samples.append(Sample(time.monotonic(), done, cpu_s(pid)))
        time.sleep(_LOOK_S)
    raise BenchError(f"{events} events were not routed within {_ROUTE_S:g} s")


def measure(options: argparse.Namespace) -> list[dict[str, report.Figures]]:
    sizes = [int(size) for size in options.webhooks.split(",")]
    with stack() as running:
        held = {
            size: memory(running, size) for size in sizes
        }  # before there is a backlog that would fill the processes
        rounds: list[dict[str, report.Figures]] = []
        for number in range(1, options.repeat + 1):
            round_: dict[str, report.Figures] = {}
            rounds.append(round_)
            for size in sizes:
                figures = routing(running, size, options.events)
                report.console.print(
                    f"round {number}  {size:,} webhooks: {figures['events_per_s']:,.0f} events/s, "
                    f"{figures['cpu_us_per_event']:.1f} us of CPU"
                )
                smallest = round_.get(_name(sizes[0]), figures)["cpu_us_per_event"]
                figures["cost_to_smallest"] = figures["cpu_us_per_event"] / smallest
                round_[_name(size)] = figures
    for size in sizes:
        rounds[0][_name(size)] |= held[size] | _per_webhook(held, sizes[0], size)
    return rounds


def _per_webhook(held: dict[int, report.Figures], smallest: int, size: int) -> report.Figures:
    """KiB that each webhook more than in the smallest copy adds."""
    if size == smallest:
        return {}
    return {
        f"kib_per_webhook.{part}": (held[size][f"rss_mib.{part}"] - held[smallest][f"rss_mib.{part}"])
        * 1024
        / (size - smallest)
        for part in _PARTS
    }


def _name(size: int) -> str:
    return f"{size:,} webhooks"


def present(rounds: list[dict[str, report.Figures]], options: argparse.Namespace) -> None:
    summary = report.summarise(rounds)
    columns = {"events_per_s": "events/s", "cpu_us_per_event": "CPU us/event", "cost_to_smallest": "x smallest"}
    columns |= {f"rss_mib.{part}": f"{part} MiB" for part in _PARTS}
    columns |= {f"kib_per_webhook.{part}": f"{part} KiB/webhook" for part in _PARTS} | {"ready_s": "ready s"}
    report.table("One router process, one match per event", summary, columns)
    path = report.write("router", vars(options), rounds, options.out)
    sizes = [(int(name.split()[0].replace(",", "")), metrics) for name, metrics in summary.items()]
    cost = {"CPU per event": [(size, m["cpu_us_per_event"].median) for size, m in sizes]}
    report.chart("router-cost", charts.lines("Router: cost of an event", "webhooks", "us of CPU", cost), options.out)
    held = {part: [(size, m[f"rss_mib.{part}"].median) for size, m in sizes] for part in _PARTS}
    report.chart("webhooks-memory", charts.lines("Memory with a replica", "webhooks", "MiB", held), options.out)
    report.console.print(f"load after {machine()['load']}; written: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--webhooks", default="1000,10000,100000,1000000", help="sizes of the replica, ascending")
    parser.add_argument("--events", type=int, default=200_000, help="events per measurement")
    parser.add_argument("--repeat", type=int, default=3, help="rounds; medians are shown")
    parser.add_argument("--time-limit", type=float, default=1800.0, help="seconds after which everything is ended")
    parser.add_argument("--quick", action="store_true", help="a smoke run of less than a minute")
    parser.add_argument("--out", type=Path, default=report.RESULTS)
    options = parser.parse_args()
    if options.quick:
        options.webhooks, options.events, options.repeat = "1000,10000", 30_000, 1
    report.say_machine()
    with bounded(options.time_limit):
        rounds = measure(options)
    present(rounds, options)


if __name__ == "__main__":
    script(main)
