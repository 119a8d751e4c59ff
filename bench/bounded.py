"""Everything bounded: memory, descriptors and threads of router and dispatcher while something is wrong for long.

Scenarios, each alone by `--only`; results are merged into bounded.json, so that they may also run side by side.

postgres away   Postgres is killed under a steady stream and comes back after `--outage-s`.
broker away     The same with Kafka; the producer keeps its events meanwhile and hands them over when Kafka is back.
backlog         Deliveries and events by the hundred thousand wait in Kafka when router and dispatcher start.
hostile answers Receivers stream 1 GiB, send 10 MiB of headers, drip; healthy ones beside them.
soak            A steady stream of as many deliveries as eight hours at 20 a second would make.

Every delivery is accounted for by its id: what the producer's events must become, what arrived, what is recorded.
"""

import argparse
import fcntl
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import charts
import report
from outage import SERVER_START_S, away
from peers import Producer, TimingReceiver
from running import BenchError, Hook, Stack, bounded, script, stack, wait_until
from usage import machine
from watching import (
    BOUNDS_MIB,
    GROUP,
    WEBHOOKS,
    Outcome,
    account,
    accounts,
    healthy,
    up_to_date,
    watching,
    within_bounds,
)

from go2hooks.devstack.server import Server

_HOSTILE = ("huge",) * 20 + ("headers",) * 20 + ("drip",) * 10


# --- servers that are away


def postgres_away(options: argparse.Namespace) -> Outcome:
    return away(options, lambda running: running.database, "Postgres")


def broker_away(options: argparse.Namespace) -> Outcome:
    return away(options, lambda running: running.broker, "Kafka")


# --- backlog


def backlog(options: argparse.Namespace) -> Outcome:
    """Deliveries wait for the dispatcher and a fifth as many, as events, for the router; both start at once."""
    fan_out = 100
    waiting, unrouted = options.backlog // fan_out, options.backlog // fan_out // 5
    receiver = TimingReceiver(None, None)
    try:
        with stack() as running:
            webhooks = running.create_webhooks(
                [Hook(f"acc_{n // fan_out}", receiver.url("http", f"/{GROUP}/ok/{n}")) for n in range(10 * fan_out)]
            )
            running.run_services(routers=1, dispatchers=0)
            produce(running, waiting)
            series = "go2hooks_deliveries_created_total"
            wait_until(lambda: running.metric("router", series) >= waiting * fan_out, 600, "the backlog is routed", 0.5)
            running.stop_services()
            produce(running, unrouted)
            total = (waiting + unrouted) * fan_out
            running.run_services()
            began = time.monotonic()
            with watching(running) as watch:
                complete = up_to_date(running, webhooks, total, options.backlog_s)
            took = time.monotonic() - began
            requests, recorded = receiver.count(), running.recorded(webhooks)
            unique = receiver.report()[GROUP]["unique"]
    finally:
        receiver.close()
    figures = watch.figures() | {
        "deliveries": float(total),
        "waiting_at_start": float(waiting * fan_out),
        "requests": float(requests),
        "duplicates": float(requests - unique),
        "not_arrived": float(total - unique),
        "not_recorded": float(total - recorded),
        "took_s": took,
    }
    breaches = [] if complete else [f"{total - recorded:,} not worked off within {options.backlog_s:g} s"]
    wrong = ("not_arrived", "not_recorded")
    breaches += [f"{figures[name]:.0f} {name.replace('_', ' ')}" for name in wrong if complete and figures[name]]
    return Outcome(figures, watch, {}, breaches + within_bounds(figures))


def produce(running: Stack, events: int) -> None:
    producer = Producer(
        running.broker.bootstrap, [{"accounts": [f"acc_{n}" for n in range(10)], "count": events}], linger_ms=5
    )
    try:
        producer.go()
        producer.result()
    finally:
        producer.close()


# --- hostile answers


def hostile_answers(options: argparse.Namespace) -> Outcome:
    """Fifty hostile webhooks at once, never given up; their receiver is a process of its own."""
    receiver, hostile = TimingReceiver(None, None), TimingReceiver(None, None)
    count = round(options.rate * options.hostile_s)
    never = str(10**6)
    try:
        with stack() as running:
            hooks = [Hook(name, receiver.url("http", f"/{GROUP}/ok/{name}")) for name in accounts()]
            foes = [f"acc_hostile_{n}" for n in range(len(_HOSTILE))]
            hooks += [
                Hook(foe, hostile.url("http", f"/{behaviour}/{behaviour}/{foe}"))
                for foe, behaviour in zip(foes, _HOSTILE, strict=True)
            ]
            webhooks = running.create_webhooks(hooks)[:WEBHOOKS]
            running.run_services(
                GO2HOOKS_DISABLE_AFTER_FAILURES=never, GO2HOOKS_CIRCUIT_FAILURES=never, GO2HOOKS_RETRY_DELAYS="5s,30s"
            )
            parts = [
                {"accounts": accounts(), "count": count, "rate": options.rate},
                {"accounts": foes, "count": count, "rate": options.rate},
            ]
            producer = Producer(running.broker.bootstrap, parts)
            try:
                with watching(running) as watch:
                    producer.go()
                    produced = producer.result()
                    up_to_date(running, webhooks, count, 60)
                    time.sleep(10)  # a delivery's timeout: what is under way ends
            finally:
                producer.close()
            figures, breaches = account(running, receiver, webhooks, produced | {"events": count})
            latency = receiver.report()[GROUP]["latency_us"]
            seen = hostile.counts()
            outcomes = outcomes_of(running, webhooks)
    finally:
        receiver.close()
        hostile.close()
    figures |= watch.figures() | {f"hostile.{name}": float(n) for name, n in (seen | outcomes).items()}
    figures |= {f"healthy_ms.{q}": latency[q] / 1000 for q in ("p50", "p99")}
    return Outcome(figures, watch, {}, breaches + within_bounds(figures))


def outcomes_of(running: Stack, others: Sequence[str]) -> dict[str, int]:
    """How attempts at the hostile receivers ended: `ended.<error>` or `ended.delivered`."""
    statement = "SELECT coalesce(error_code, state), count(*) FROM attempts WHERE webhook_id <> ALL(%s) GROUP BY 1"
    return {f"ended.{name}": n for name, n in running.query(statement, list(others))}


# --- soak


def soak(options: argparse.Namespace) -> Outcome:
    """A steady stream; growth is the slope after the first third, noise what the samples scatter about it."""
    receiver = TimingReceiver(None, None)
    rate = options.soak_deliveries / (options.soak_minutes * 60)
    try:
        with stack() as running:
            webhooks = healthy(running, receiver)
            running.run_services()
            orders = [{"accounts": accounts(), "count": options.soak_deliveries, "rate": rate}]
            producer = Producer(running.broker.bootstrap, orders)
            try:
                with watching(running) as watch:
                    producer.go()
                    produced = producer.result()
                    up_to_date(running, webhooks, options.soak_deliveries, 60)
            finally:
                producer.close()
            figures, breaches = account(running, receiver, webhooks, produced)
    finally:
        receiver.close()
    figures |= watch.figures() | {"rate": rate, "producer_slip_ms": produced["slip_ms"]}
    for name, samples in watch.samples.items():
        for what in ("rss_mib", "descriptors", "threads"):
            grown, noise = growth([(s.at, getattr(s, what)) for s in samples])
            lasted = (samples[-1].at - samples[0].at) * 2 / 3
            figures[f"{name}.{what}.growth_per_100k"] = grown / (rate * lasted) * 100_000
            figures[f"{name}.{what}.grown"] = grown
            figures[f"{name}.{what}.noise"] = noise
            if grown > noise:
                breaches.append(f"{name}'s {what} grew by {grown:.1f}, more than noise, {noise:.1f}")
    return Outcome(figures, watch, {}, breaches + within_bounds(figures))


def growth(points: list[tuple[float, float]]) -> tuple[float, float]:
    """What the straight line through the last two thirds rises by, and what is noise: twice the standard deviation
    of the samples about that line, at least 2 % of their mean.
    """
    later = points[len(points) // 3 :]
    times, values = [at for at, _ in later], [value for _, value in later]
    slope, intercept = statistics.linear_regression(times, values)
    apart = statistics.pstdev(value - slope * at - intercept for at, value in later)
    return slope * (times[-1] - times[0]), max(2 * apart, 0.02 * statistics.fmean(values))


# --- results

SCENARIOS: dict[str, Callable[[argparse.Namespace], Outcome]] = {
    "postgres away": postgres_away,
    "broker away": broker_away,
    "backlog": backlog,
    "hostile answers": hostile_answers,
    "soak": soak,
}


def present(name: str, outcome: Outcome, options: argparse.Namespace) -> None:
    """Tables and chart of one scenario; its part of bounded.json."""
    held = {
        f"{who}, {what}": {
            moment: report.Spread.of([outcome.figures[f"{who}.{what}.{moment}"]])
            for moment in ("first", "peak", "last")
        }
        for who in BOUNDS_MIB
        for what in ("rss_mib", "descriptors", "threads")
    }
    report.table(name, held, {"first": "at first", "peak": "at most", "last": "at last"})
    others = [k for k in outcome.figures if not k.endswith((".first", ".peak", ".last"))]
    for key in others:
        value = outcome.figures[key]
        shown = f"{value:,.2f}" if value % 1 else f"{value:,.0f}"
        report.console.print(f"  {key.replace('_', ' ')}: {shown}")
    for breach in outcome.breaches:
        report.console.print(f"  [red]BREACH[/] {breach}")
    svg = charts.trace(f"{name}: resident memory", "MiB", outcome.watch.lines(), outcome.marks)
    report.chart(f"bounded-{name.replace(' ', '-')}", svg, options.out)
    merge(name, outcome, options)


def merge(name: str, outcome: Outcome, options: argparse.Namespace) -> None:
    """Replace this scenario in bounded.json; other runs may do the same at this moment."""
    path: Path = options.out / "bounded.json"
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        text = file.read()
        content = json.loads(text) if text else {}
        content[name] = {
            "machine": machine(),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "options": {key: value for key, value in vars(options).items() if not isinstance(value, Path)},
            "bounds_mib": BOUNDS_MIB,
            "breaches": outcome.breaches,
            "figures": {k: float(f"{v:.5g}") if math.isfinite(v) else None for k, v in outcome.figures.items()},
        }
        file.truncate(0)
        file.write(json.dumps(content, indent=1) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help=f"of {', '.join(SCENARIOS)}; parts of names, comma separated")
    parser.add_argument("--rate", type=float, default=100.0, help="events a second to the healthy webhooks")
    parser.add_argument("--before-s", type=float, default=15.0, help="stream before an outage")
    parser.add_argument("--outage-s", type=float, default=600.0, help="how long a server is away")
    parser.add_argument("--after-s", type=float, default=45.0, help="stream after an outage")
    parser.add_argument("--recovery-s", type=float, default=30.0, help="limit of each recovery")
    parser.add_argument("--backlog", type=int, default=1_000_000, help="deliveries that wait for the dispatcher")
    parser.add_argument("--backlog-s", type=float, default=600.0, help="within which the backlog must be gone")
    parser.add_argument("--hostile-s", type=float, default=30.0, help="stream beside the hostile receivers")
    parser.add_argument("--soak-minutes", type=float, default=10.0)
    parser.add_argument("--soak-deliveries", type=int, default=576_000, help="default: eight hours at 20 a second")
    parser.add_argument("--time-limit", type=float, default=3600.0, help="seconds after which everything is ended")
    parser.add_argument("--quick", action="store_true", help="a smoke run of about two minutes")
    parser.add_argument("--out", type=Path, default=report.RESULTS)
    options = parser.parse_args()
    if options.quick:
        options.before_s, options.outage_s, options.after_s = 5.0, 20.0, 15.0
        options.backlog, options.hostile_s = 20_000, 10.0
        options.soak_minutes, options.soak_deliveries = 0.5, 6000
    return options


def main() -> int:
    options = parse()
    wanted = [part.strip() for part in options.only.split(",")]
    chosen = [name for name in SCENARIOS if any(part in name for part in wanted)]
    if not chosen:
        raise BenchError(f"no scenario matches {options.only}: {', '.join(SCENARIOS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    Server.start_timeout_s = SERVER_START_S
    report.say_machine()
    breaches = 0
    for name in chosen:
        with bounded(options.time_limit):
            outcome = SCENARIOS[name](options)
        present(name, outcome, options)
        breaches += len(outcome.breaches)
    return min(breaches, 1)


if __name__ == "__main__":
    script(main)
