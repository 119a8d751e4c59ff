"""Retries and backlogs: how late retries start at 1,000 a second, and what a dispatcher holds in memory meanwhile.

Lateness: every receiver refuses a delivery's first attempt with 503 and takes the second; what counts is the time between
that answer and the retry's arrival, less the tier's delay. Backlog: deliveries are routed while no dispatcher runs, then one
starts, with receivers that are slow or do not answer; its resident memory at its highest is what counts.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import charts
import report
from peers import TimingReceiver, produce, receiver_core
from running import BenchError, Hook, Stack, bounded, script, stack, wait_until
from usage import machine, peak_rss_mib, rss_mib

_TIER_S = 5  # the first of the default delays
_RETRYING_WEBHOOKS = 5000  # so that none sees five failures in a row, which would open its circuit
_WARM_UP_S = 10.0  # both kinds of attempt at once; Java's compiler is no part of what is measured
_FAN_OUT = 100
_LOOK_S = 0.5


@dataclass(frozen=True)
class Backlog:
    """Deliveries that wait when the dispatcher starts."""

    deliveries: int
    behaviour: str

    @property
    def name(self) -> str:
        receivers = "receivers in 200 ms" if self.behaviour == "d200" else "receivers that never answer"
        return f"{self.deliveries:,} waiting, {receivers}"


def lateness(rate: int, seconds: float, *, pinned: bool) -> report.Figures:
    """How late retries arrive. Raises BenchError unless each delivery took exactly two attempts."""
    receiver = TimingReceiver(None, receiver_core() if pinned else None)
    try:
        with stack() as running:
            accounts = [f"acc_{n}" for n in range(_RETRYING_WEBHOOKS)]
            running.create_webhooks([Hook(a, receiver.url("http", f"/retried/fail_first/{a}")) for a in accounts])
            running.run_services()
            _retry(running, receiver, accounts, rate, round(rate * _WARM_UP_S))
            receiver.reset()
            expected = round(rate * seconds)
            produced = _retry(running, receiver, accounts, rate, expected)
            seen = receiver.report()["retried"]
    finally:
        receiver.close()
    if (seen["arrivals"], seen["unique"]) != (2 * expected, expected):
        raise BenchError(f"{expected} deliveries took {seen['arrivals']} requests, {seen['unique']} of them distinct")
    late = {q: us / 1000 - _TIER_S * 1000 for q, us in seen["retry_after_us"].items() if q != "count"}
    return {f"late_ms.{q}": late[q] for q in ("p50", "p90", "p99", "p999", "max")} | {
        "producer_slip_ms": produced["slip_ms"]
    }


def _retry(running: Stack, receiver: TimingReceiver, accounts: list[str], rate: int, count: int) -> dict[str, float]:
    """Produce so many events and wait until each has been retried; what the producer says."""
    produced: dict[str, float] = produce(
        running.broker.bootstrap, [{"accounts": accounts, "count": count, "rate": rate}]
    )
    wait_until(lambda: receiver.count() >= 2 * count, _TIER_S + 60, "every retry", 0.2)
    return produced


def backlog(case: Backlog, seconds: float) -> report.Figures:
    """Resident memory of a dispatcher that finds a backlog, over its first `seconds`."""
    receiver = TimingReceiver(None, None)
    try:
        with stack() as running:
            hooks = [
                Hook(f"acc_{account}", receiver.url("http", f"/slow/{case.behaviour}/{account}/{n}"))
                for account in range(10)
                for n in range(_FAN_OUT)
            ]
            running.create_webhooks(hooks)
            _route(running, case.deliveries // _FAN_OUT)
            running.run_services(routers=0, dispatchers=1)
            return _observe(running, receiver, seconds)
    finally:
        receiver.close()


def _route(running: Stack, events: int) -> None:
    """Have this many events fanned out, without a dispatcher."""
    running.run_services(routers=1, dispatchers=0)
    accounts = [f"acc_{n}" for n in range(10)]
    produce(running.broker.bootstrap, [{"accounts": accounts, "count": events}], linger_ms=5)
    series = "go2hooks_deliveries_created_total"
    wait_until(lambda: running.metric("router", series) >= events * _FAN_OUT, 600, "the backlog is routed", 0.5)
    wait_until(lambda: not running.metric("router", "go2hooks_router_in_flight"), 60, "the backlog is in Kafka", 0.2)


def _observe(running: Stack, receiver: TimingReceiver, seconds: float) -> report.Figures:
    (pid,) = running.pids()["dispatcher"]
    idle = rss_mib(pid)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(_LOOK_S)
    return {
        "peak_rss_mib": peak_rss_mib(pid),
        "rss_at_ready_mib": idle,
        "rss_at_end_mib": rss_mib(pid),
        "requests": float(receiver.count()),
    }


def measure(options: argparse.Namespace) -> list[dict[str, report.Figures]]:
    sizes = [int(size) for size in options.backlogs.split(",") if size]
    cases = [Backlog(size, behaviour) for behaviour in ("d200", "never") for size in sizes]
    rounds: list[dict[str, report.Figures]] = []
    for number in range(1, options.repeat + 1):
        round_: dict[str, report.Figures] = {}
        rounds.append(round_)
        figures = lateness(options.rate, options.seconds, pinned=options.pin)
        round_[f"{options.rate:,} retries/s"] = figures
        report.console.print(f"round {number}  retries are late: p99 {figures['late_ms.p99']:.1f} ms")
        for case in cases:
            figures = round_[case.name] = backlog(case, options.backlog_s)
            report.console.print(f"round {number}  {case.name}: {figures['peak_rss_mib']:.0f} MiB at most")
    return rounds


def present(rounds: list[dict[str, report.Figures]], options: argparse.Namespace) -> None:
    summary = report.summarise(rounds)
    late = {f"late_ms.{q}": f"{q} ms" for q in ("p50", "p90", "p99", "p999", "max")}
    report.table(f"Retries of the {_TIER_S} s tier: late by", summary, late | {"producer_slip_ms": "producer slip ms"})
    held = {"peak_rss_mib": "peak MiB", "rss_at_ready_mib": "when ready", "rss_at_end_mib": "at the end"}
    report.table("One dispatcher's memory before a backlog", summary, held | {"requests": "requests made"})
    path = report.write("retries", vars(options), rounds, options.out)
    peaks = {name: m["peak_rss_mib"] for name, m in summary.items() if "peak_rss_mib" in m}
    rows = [charts.Bar(name, s.median, s.low, s.high) for name, s in peaks.items()]
    report.chart("backlog-memory", charts.bars("Dispatcher: peak resident memory", "MiB", rows), options.out)
    report.console.print(f"load after {machine()['load']}; written: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=1000, help="retries a second")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long events are produced")
    parser.add_argument("--backlogs", default="100000,1000000", help="deliveries waiting; empty for none")
    parser.add_argument("--backlog-s", type=float, default=30.0, help="how long memory is watched")
    parser.add_argument("--repeat", type=int, default=3, help="rounds; medians are shown")
    parser.add_argument("--no-pin", dest="pin", action="store_false", help="do not keep the receiver on the last core")
    parser.add_argument("--time-limit", type=float, default=2400.0, help="seconds after which everything is ended")
    parser.add_argument("--quick", action="store_true", help="a smoke run of about a minute")
    parser.add_argument("--out", type=Path, default=report.RESULTS)
    options = parser.parse_args()
    if options.quick:
        options.rate, options.seconds, options.backlogs = 200, 3.0, "10000"
        options.backlog_s, options.repeat = 5.0, 1
    report.say_machine()
    with bounded(options.time_limit):
        rounds = measure(options)
    present(rounds, options)


if __name__ == "__main__":
    script(main)
