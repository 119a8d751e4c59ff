"""The whole pipeline at work: deliveries per second, CPU per delivery by process, latency by rate, memory, ceilings.

Kafka, Postgres, router and dispatchers run as they do in production; producer and receiver run beside them on the same
machine. Every delivery is counted at the receiver and in the attempts table: a lost or doubled one is an error.
Time runs from the first event's `produce` to the last arrival; latency from an event's `produce` to its arrival.
"""

import argparse
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ceilings
import charts
import report
from peers import Nginx, Producer, TimingReceiver, certificates, has_nginx, produce, receiver_core
from running import BenchError, Hook, Stack, bounded, script, stack, wait_until
from scenarios import SCENARIOS, Latency, Scenario, Throughput, chosen
from usage import Meter, machine, peak_rss_mib, pss_mib, reset_peak

_PARTS = ("router", "dispatcher", "kafka", "postgres")
_WARM_UP = 3000
_SETTLE_S = 0.3
_QUIET_S = 60.0  # without one arrival more, a run has failed


class Bench:
    """One stack, its receivers, and the scenarios run on it."""

    def __init__(self, running: Stack, certificate: Path, options: argparse.Namespace) -> None:
        self._stack = running
        self._options = options
        self._core = receiver_core() if options.pin else None
        self._timing = TimingReceiver(certificate, self._core)
        self._nginx = Nginx(certificate.parent, self._core) if options.receiver == "nginx" else None
        self._warm: set[int] = set()

    def close(self) -> None:
        self._timing.close()
        if self._nginx is not None:
            self._nginx.close()

    def run(self, scenario: Scenario) -> report.Figures:
        """Measure one scenario once. Raises BenchError when a delivery is lost, doubled or not recorded."""
        if isinstance(scenario, Latency):
            return self._latency(scenario)
        return self._throughput(scenario)

    def ceiling(self, scheme: str) -> dict[str, report.Figures]:
        """What a bare client loop and wrk get out of the same receiver."""
        receiver = self._nginx or self._timing
        url = receiver.url(scheme, "/ceiling/ok/0")
        found: dict[str, report.Figures] = {}
        for connections in (16, 64):
            name = f"ClientSession loop, {scheme}, {connections} connections"
            figures = ceilings.session_loop(url, self._options.certificates / "ca.pem", connections, self._options.loop)
            found[name] = {"ceiling_per_s": figures["per_s"], "ceiling_cpu_us": figures["cpu_us"]}
        if (fastest := ceilings.wrk(url, 64, self._options.wrk_s)) is not None:
            found[f"wrk, {scheme}, 64 connections"] = {"ceiling_per_s": fastest["per_s"]}
        return found

    # --- throughput

    def _throughput(self, scenario: Throughput) -> report.Figures:
        receiver = self._nginx if self._nginx is not None and not scenario.delay_ms else self._timing
        behaviour = f"d{scenario.delay_ms}" if scenario.delay_ms else "ok"
        # A dispatcher that stands still must not lose its partitions for it.
        env = {"GO2HOOKS_KAFKA_SESSION_TIMEOUT_MS": "120000"} if scenario.backlog else {}
        self._stack.run_services(dispatchers=scenario.dispatchers, **env)
        accounts, ids = self._subscribe(scenario.webhooks, scenario.fan_out, scenario.scheme, behaviour, receiver)
        self._warm_up(receiver, accounts, scenario.fan_out)
        before = self._stack.recorded(ids)
        events = max(1, round(self._options.count * scenario.share / scenario.fan_out))
        expected = events * scenario.fan_out
        parts = [{"accounts": accounts, "count": events}]
        if scenario.backlog:
            with self._backlog(parts, expected) as produced, self._metered(receiver) as figures:
                seconds = self._work_off(receiver, expected)
        else:
            with self._metered(receiver) as figures:
                produced, seconds = self._drive(receiver, parts, expected, linger_ms=5)
        self._check(receiver, ids, before, expected)
        per_delivery = {f"cpu_us.{name}": used / expected * 1e6 for name, used in figures["cpu"].items()}
        ours = sum(figures["cpu"][name] for name in _PARTS)
        return {
            "per_s": expected / seconds,
            "cpu_s_per_10k": ours / expected * 1e4,
            **per_delivery,
            "cpu_us.producer": produced["cpu_s"] / expected * 1e6,
            **figures["memory"],
        }

    def _drive(
        self, receiver: Nginx | TimingReceiver, parts: list[dict[str, Any]], expected: int, linger_ms: float
    ) -> tuple[dict[str, Any], float]:
        """Produce; wait for every arrival. What the producer says, and seconds from the first event to the last arrival."""
        producer = Producer(self._stack.broker.bootstrap, parts, linger_ms=linger_ms)
        receiver.reset()
        try:
            producer.go()
            began = time.monotonic()
            ended = self._await_arrivals(receiver, expected)
            produced = producer.result()
        finally:
            producer.close()
        timed = receiver.report()
        if timed:
            ended = max(group["last_us"] for name, group in timed.items() if name) / 1e6
            began = produced["began_us"] / 1e6
        return produced, ended - began

    @contextmanager
    def _backlog(self, parts: list[dict[str, Any]], expected: int) -> Iterator[dict[str, Any]]:
        """Produce and have routed while the dispatchers stand still; yields what the producer says."""
        series = "go2hooks_deliveries_created_total"
        routed = self._stack.metric("router", series) + expected
        dispatchers = self._stack.pids()["dispatcher"]
        for pid in dispatchers:
            os.kill(pid, signal.SIGSTOP)
        try:
            produced = produce(self._stack.broker.bootstrap, parts, linger_ms=5)
            wait_until(lambda: self._stack.metric("router", series) >= routed, 60, "the router has written all", 0.2)
            wait_until(lambda: not self._stack.metric("router", "go2hooks_router_in_flight"), 10, "Kafka has them", 0.2)
            yield produced
        finally:
            for pid in dispatchers:
                os.kill(pid, signal.SIGCONT)

    def _work_off(self, receiver: Nginx | TimingReceiver, expected: int) -> float:
        """Let the dispatchers go. Seconds until the last arrival."""
        receiver.reset()
        began = time.monotonic()
        for pid in self._stack.pids()["dispatcher"]:
            os.kill(pid, signal.SIGCONT)
        return self._await_arrivals(receiver, expected) - began

    def _await_arrivals(self, receiver: Nginx | TimingReceiver, expected: int) -> float:
        """Block until as many have arrived; when that was (monotonic)."""
        last, changed = 0, time.monotonic()
        while (count := receiver.count()) < expected:
            now = time.monotonic()
            if count != last:
                last, changed = count, now
            if now - changed > _QUIET_S:
                raise BenchError(f"{count} of {expected} deliveries arrived, then none; {self._stack.complaints()}")
            time.sleep(0.02)
        return time.monotonic()

    def _check(self, receiver: Nginx | TimingReceiver, ids: Sequence[str], before: int, expected: int) -> None:
        """Exactly once at the receiver, exactly once in the records."""
        wait_until(lambda: self._stack.recorded(ids) - before >= expected, 30, "records of all deliveries", 0.2)
        arrived, recorded = receiver.count(), self._stack.recorded(ids) - before
        unique = sum(group["unique"] for name, group in receiver.report().items() if name) or arrived
        if not arrived == unique == recorded == expected:
            raise BenchError(f"expected {expected}: arrived {arrived}, distinct {unique}, recorded {recorded}")

    # --- latency

    def _latency(self, scenario: Latency) -> report.Figures:
        self._stack.run_services(dispatchers=1)
        accounts, ids = self._subscribe(scenario.webhooks, 1, "http", "ok", self._timing)
        self._warm_up(self._timing, accounts, 1)
        before = self._stack.recorded(ids)
        expected = max(20, round(scenario.rate * self._options.seconds))
        parts = [{"accounts": accounts, "count": expected, "rate": scenario.rate}]
        with self._metered(self._timing) as figures:
            produced, _seconds = self._drive(self._timing, parts, expected, linger_ms=0)
        self._check(self._timing, ids, before, expected)
        ours = sum(figures["cpu"][name] for name in _PARTS)
        timed = self._timing.report()["hook"]["latency_us"]
        return {
            **{f"ms.{name}": timed[name] / 1000 for name in ("p50", "p90", "p99", "p999", "max")},
            "cores_used": ours / (expected / scenario.rate),
            "producer_slip_ms": produced["slip_ms"],
        }

    # --- both

    def _subscribe(
        self, webhooks: int, fan_out: int, scheme: str, behaviour: str, receiver: Nginx | TimingReceiver
    ) -> tuple[list[str], list[str]]:
        """Accounts with `fan_out` webhooks each, and the ids of those."""
        accounts = [f"acc_bench_{n}" for n in range(max(1, webhooks // fan_out))]
        hooks = [
            Hook(account, receiver.url(scheme, f"/hook/{behaviour}/{account}/{n}"))
            for account in accounts
            for n in range(fan_out)
        ]
        return accounts, self._stack.create_webhooks(hooks)

    def _warm_up(self, receiver: Nginx | TimingReceiver, accounts: list[str], fan_out: int) -> None:
        """Connections, caches and Java's compiler are no part of what is measured; more the first time."""
        pids = {service.pid or 0 for service in self._stack.services()}
        events = (self._options.warm_up if not pids <= self._warm else _WARM_UP) // fan_out
        self._warm |= pids
        if events:
            parts = [{"accounts": accounts, "count": events, "rate": 0.0 if self._options.warm_up > 5000 else 1000.0}]
            self._drive(receiver, parts, events * fan_out, linger_ms=5)
            time.sleep(1.0)

    @contextmanager
    def _metered(self, receiver: Nginx | TimingReceiver) -> Iterator[dict[str, Any]]:
        """CPU by part, and memory, of what happens in the block and until its records are written."""
        pids = self._stack.pids()
        meter = Meter(pids | {"receiver": [receiver.pid]})
        for pid in [pid for group in pids.values() for pid in group]:
            reset_peak(pid)
        figures: dict[str, Any] = {}
        meter.start()
        yield figures
        time.sleep(_SETTLE_S)
        figures["cpu"] = meter.used()
        figures["memory"] = {
            f"peak_rss_mib.{name}": max(peak_rss_mib(pid) for pid in pids[name]) for name in _PARTS[:3]
        } | {"pss_mib.postgres": sum(pss_mib(pid) for pid in pids["postgres"])}


def derive(round_: dict[str, report.Figures]) -> None:
    """Ratios of one round to its own ceilings."""
    for scheme in ("http", "https"):
        best = max(
            (f["ceiling_per_s"] for name, f in round_.items() if name.startswith(f"ClientSession loop, {scheme},")),
            default=0.0,
        )
        for name in (scheme, f"backlog {scheme}", f"2 dispatchers{' https' if scheme == 'https' else ''}"):
            if best and name in round_:
                round_[name]["to_session_loop"] = round_[name]["per_s"] / best


def present(rounds: list[dict[str, report.Figures]], options: argparse.Namespace) -> None:
    """Tables on the terminal; JSON and charts in the directory of results."""
    summary = report.summarise(rounds)
    throughput = {
        "per_s": "deliveries/s",
        "to_session_loop": "x ClientSession",
        "cpu_s_per_10k": "CPU s / 10,000",
        **{f"cpu_us.{name}": f"{name} us" for name in (*_PARTS, "producer", "receiver")},
    }
    memory = {f"peak_rss_mib.{name}": f"{name} MiB" for name in _PARTS[:3]} | {"pss_mib.postgres": "postgres MiB (PSS)"}
    latency = {f"ms.{q}": f"{q} ms" for q in ("p50", "p90", "p99", "p999", "max")}
    report.table("Throughput: medians (lowest-highest)", summary, throughput)
    report.table("Peak memory per process", summary, memory)
    report.table(
        "Event produced -> arrival", summary, latency | {"cores_used": "cores", "producer_slip_ms": "producer slip ms"}
    )
    report.table(
        "Ceilings: one core, same receiver", summary, {"ceiling_per_s": "requests/s", "ceiling_cpu_us": "CPU us"}
    )
    path = report.write("pipeline", vars(options), rounds, options.out)
    _draw(summary, options.out)
    report.console.print(f"load after {machine()['load']}; written: {path}")


def _draw(summary: report.Summary, directory: Path) -> None:
    measured = {name: m for name, m in summary.items() if "per_s" in m}
    rates = {name: m["per_s"] for name, m in measured.items()}
    rates |= {name: m["ceiling_per_s"] for name, m in summary.items() if "ceiling_per_s" in m and "wrk" not in name}
    rows = [charts.Bar(name, s.median, s.low, s.high) for name, s in rates.items()]
    report.chart(
        "throughput", charts.bars("Deliveries per second, whole pipeline on one machine", "/s", rows), directory
    )
    cpu = {name: {part: m[f"cpu_us.{part}"].median for part in _PARTS} for name, m in measured.items()}
    report.chart("cpu", charts.stacked("CPU per delivery by process", "us", cpu), directory)
    timed = sorted((int(name.split("/")[0]), m) for name, m in summary.items() if "ms.p50" in m)
    if timed:
        series = {q: [(rate, m[f"ms.{q}"].median) for rate, m in timed] for q in ("p50", "p90", "p99", "p999")}
        svg = charts.lines("Event produced to arrival, by rate", "events per second", "milliseconds", series)
        report.chart("latency", svg, directory)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", help="scenarios, comma separated; a name ending in * matches its beginning; see --list"
    )
    parser.add_argument("--list", action="store_true", help="name the scenarios and stop")
    parser.add_argument("--count", type=int, default=120_000, help="deliveries per throughput scenario")
    parser.add_argument("--seconds", type=float, default=15.0, help="length of a latency scenario")
    parser.add_argument("--repeat", type=int, default=3, help="rounds; medians are shown")
    parser.add_argument("--warm-up", type=int, default=20_000, help="deliveries before the first measurement")
    parser.add_argument("--loop", type=int, default=20_000, help="requests of the ClientSession loop")
    parser.add_argument("--wrk-s", type=float, default=3.0, help="seconds of wrk")
    parser.add_argument("--no-ceilings", action="store_true", help="leave out ClientSession and wrk")
    parser.add_argument("--receiver", choices=["nginx", "python"], default="nginx" if has_nginx() else "python")
    parser.add_argument("--no-pin", dest="pin", action="store_false", help="do not keep the receiver on the last core")
    parser.add_argument("--partitions", type=int, default=8)
    parser.add_argument("--set", action="append", default=[], metavar="GO2HOOKS_X=Y", help="a setting of the services")
    parser.add_argument("--time-limit", type=float, default=3600.0, help="seconds after which everything is ended")
    parser.add_argument("--quick", action="store_true", help="a smoke run of less than a minute")
    parser.add_argument("--out", type=Path, default=report.RESULTS)
    options = parser.parse_args()
    if options.quick:
        options.count, options.seconds, options.repeat, options.warm_up = 3000, 1.5, 1, 1000
        options.loop, options.wrk_s, options.time_limit = 2000, 1.0, 180.0
        options.only = options.only or "http,https,fan-out 10,200/s"
    return options


def measure(bench: Bench, scenarios: list[Scenario], options: argparse.Namespace) -> list[dict[str, report.Figures]]:
    """Every scenario in turn, in rounds: what else the machine does meets all alike."""
    rounds: list[dict[str, report.Figures]] = []
    for number in range(1, options.repeat + 1):
        round_: dict[str, report.Figures] = {}
        rounds.append(round_)
        for scenario in scenarios:
            round_[scenario.name] = bench.run(scenario)
            shown = {name: round_[scenario.name].get(name) for name in ("per_s", "cpu_s_per_10k", "ms.p50", "ms.p99")}
            line = ", ".join(f"{name} {value:.2f}" for name, value in shown.items() if value is not None)
            report.console.print(f"round {number}/{options.repeat}  {scenario.name}: {line}")
            if not options.no_ceilings and isinstance(scenario, Throughput) and scenario.backlog:
                round_ |= bench.ceiling(scenario.scheme)  # at once: what is compared must meet the machine at one speed
        if not options.no_ceilings:
            for scheme in ("http", "https"):
                if not any(name.startswith(f"ClientSession loop, {scheme},") for name in round_):
                    round_ |= bench.ceiling(scheme)
        derive(round_)
    return rounds


def main() -> None:
    options = parse()
    if options.list:
        print("\n".join(scenario.name for scenario in SCENARIOS))
        return
    scenarios = chosen(options.only)
    report.say_machine()
    env = dict(setting.split("=", 1) for setting in options.set)
    with bounded(options.time_limit), certificates() as directory:
        options.certificates = directory
        env["GO2HOOKS_TARGET_CA_FILE"] = str(directory / "ca.pem")
        with stack(partitions=options.partitions, **env) as running:
            bench = Bench(running, directory / "cert.pem", options)
            try:
                rounds = measure(bench, scenarios, options)
            finally:
                bench.close()
    del options.certificates
    present(rounds, options)


if __name__ == "__main__":
    script(main)
