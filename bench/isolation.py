"""What a bad neighbour does to healthy receivers: their latency and throughput beside each kind, against a baseline.

200 healthy webhooks get 1,000 events a second throughout. Then one neighbour at a time is added; it gets its own traffic on
top. Neighbours live in another receiver process, and their events come from another producer, both at a low priority: they
stand for other people's machines, and what is measured is the services' isolation. Each round has its own stack and its
own baseline, after some seconds beside each neighbour that are not measured: a broker's compiler takes its time, and what
it takes is nobody's isolation. A burst that nobody reads shows what producing it takes from everybody by itself.

Beside a burst most of what is late is so in the half second in which it comes in, which weighs the more the sooner one stops to
measure: so it is measured twice, for as long as the others, and until all of it has been delivered.
"""

import argparse
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import charts
import report
from arrivals import percentiles
from load import NOBODY
from peers import Producer, TimingReceiver, receiver_core
from running import BenchError, Hook, Stack, bounded, script, stack, wait_until
from usage import Meter, machine

from go2hooks.kafka.topics import TopicNames

NAMES = TopicNames("go2")
_HEALTHY = "healthy"
_NEIGHBOUR = "neighbour"
_BURST = 50_000
_DRAIN_S = 120.0
_ARRIVE_S = 60.0
_LAGGING = {"router": (NAMES.of_event["click"],), "dispatcher": (NAMES.deliveries, NAMES.overflow)}


@dataclass(frozen=True)
class Neighbour:
    """A kind of receiver beside the healthy ones, and how many events a second it gets."""

    name: str
    behaviour: str = "ok"
    rate: float = 200.0
    webhooks: int = 1
    burst: int = 0  #: events at once instead of a rate
    topic: str = NAMES.of_event["click"]
    most_s: float = 0.0  #: instead of the length of a scenario: until the burst has been delivered, at most so long


NEIGHBOURS = (
    Neighbour("answers in 9 s, half of all traffic", "d9000", rate=1000.0),
    Neighbour("never answers", "never"),
    Neighbour("a byte at a time", "drip"),
    Neighbour("1 GiB response", "huge"),
    Neighbour("accepts and resets", "reset"),
    Neighbour("500 dead hosts", "dead", webhooks=500),
    Neighbour("burst of 50,000", burst=_BURST),
    Neighbour("burst of 50,000, until it is delivered", burst=_BURST, most_s=120.0),
    Neighbour("the same burst, read by nobody", burst=_BURST, topic=NAMES.events_dead),
)

NAMES = TopicNames("go2")


class DeadHosts:
    """250 loopback addresses that refuse, 250 where connecting hangs: a listener whose backlog is full."""

    def __init__(self) -> None:
        self._full = socket.socket()
        self._full.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
        self._full.bind(("0.0.0.0", 0))
        self._full.listen(0)
        self._port: int = self._full.getsockname()[1]
        self._waiting = [self._connect() for _ in range(8)]
        closed = socket.create_server(("127.0.0.1", 0))
        self._refusing: int = closed.getsockname()[1]
        closed.close()

    def _connect(self) -> socket.socket:
        waiting = socket.socket()
        waiting.settimeout(0)
        waiting.connect_ex(("127.0.0.1", self._port))
        return waiting

    def url(self, number: int) -> str:
        low = f"{number // 2 // 250}.{number // 2 % 250 + 1}"
        return f"http://127.9.{low}:{self._port}/" if number % 2 else f"http://127.8.{low}:{self._refusing}/"

    def close(self) -> None:
        for waiting in (*self._waiting, self._full):
            waiting.close()


class Isolation:
    """One stack with its receivers."""

    def __init__(self, running: Stack, options: argparse.Namespace) -> None:
        self._stack = running
        self._options = options
        core = receiver_core() if options.pin else None
        self._receiver = TimingReceiver(None, core)
        self._bad = TimingReceiver(None, core, nice=options.neighbour_nice)
        self._dead = DeadHosts()
        self._healthy = [f"acc_healthy_{n}" for n in range(options.webhooks)]

    def close(self) -> None:
        self._receiver.close()
        self._bad.close()
        self._dead.close()

    def warm_up(self, seconds: float, neighbours: Sequence[Neighbour], neighbour_s: float) -> None:
        """Traffic that is not measured, over a burst too, and some of each neighbour's."""
        self._subscribe(None)
        for _ in range(2):
            burst = {"accounts": [NOBODY], "count": _BURST, "start_s": seconds / 4, "prepared": True}
            self._measure([self._part(seconds / 2), burst])
        for neighbour in neighbours:
            self.run(neighbour, neighbour_s)

    def run(self, neighbour: Neighbour | None, seconds: float) -> report.Figures:
        """Healthy traffic beside this neighbour, for so long. Raises BenchError when a healthy delivery is lost or doubled."""
        accounts = self._subscribe(neighbour)
        self._measure([self._part(self._options.warm_up_s)])  # connections to every healthy receiver
        self._bad.reset()
        parts = [self._part(seconds)]
        if neighbour is not None:
            count = neighbour.burst or round(neighbour.rate * seconds)
            burst = {"start_s": 2.0, "prepared": True} if neighbour.burst else {"rate": neighbour.rate}
            count = round(count * self._options.share)
            parts.append({"accounts": accounts, "count": count, "topic": neighbour.topic, **burst})
        figures = self._measure(parts)
        if neighbour is not None:
            figures["neighbour_requests"] = float(self._bad.count())
            if neighbour.most_s:
                self._end_with_burst(figures, count)
            self._forget_neighbours()
        return figures

    def _end_with_burst(self, figures: report.Figures, burst: int) -> None:
        """Leave out what arrived after the burst had: it was alone again."""
        if self._bad.count() >= burst:
            ended_us = self._bad.report()[_NEIGHBOUR]["last_us"]
            latencies = [late for at, late in self._receiver.traced(_HEALTHY) if at <= ended_us]
            figures |= _in_ms(percentiles(latencies))

    def _subscribe(self, neighbour: Neighbour | None) -> list[str]:
        """The healthy webhooks and the neighbour's; the neighbour's accounts."""
        accounts = [f"acc_{n}" for n in range(neighbour.webhooks)] if neighbour else []
        hooks = [Hook(a, self._receiver.url("http", f"/{_HEALTHY}/ok/{a}")) for a in self._healthy]
        hooks += [Hook(a, self._neighbour_url(neighbour, n)) for n, a in enumerate(accounts) if neighbour]
        self._stack.create_webhooks(hooks)
        return accounts

    def _part(self, seconds: float) -> dict[str, object]:
        rate = self._options.rate
        return {"accounts": self._healthy, "count": round(rate * seconds), "rate": float(rate)}

    def _measure(self, parts: Sequence[dict[str, object]]) -> report.Figures:
        expected = int(str(parts[0]["count"]))
        self._receiver.reset()
        niceness = [0, *[self._options.neighbour_nice] * (len(parts) - 1)]
        producers = [
            Producer(self._stack.broker.bootstrap, [part], nice=nice)
            for part, nice in zip(parts, niceness, strict=True)
        ]
        meter, began = Meter(self._stack.pids()), time.monotonic()
        meter.start()
        try:
            for producer in producers:
                producer.go()
            produced, *_neighbours = [producer.result() for producer in producers]
        finally:
            for producer in producers:
                producer.close()
        cores = {f"cores.{part}": used / (time.monotonic() - began) for part, used in meter.used().items()}
        wait_until(lambda: self._receiver.count() >= expected, _ARRIVE_S, "all healthy deliveries", 0.1)
        healthy = self._receiver.report()[_HEALTHY]
        if not healthy["arrivals"] == healthy["unique"] == expected:
            raise BenchError(
                f"expected {expected}: {healthy['arrivals']} arrived, {healthy['unique']} of them distinct"
            )
        return {
            **_in_ms(healthy["latency_us"]),
            "per_s": expected / ((healthy["last_us"] - healthy["first_us"]) / 1e6),
            "producer_slip_ms": produced["slip_ms"],
            "cores": sum(cores.values()),
            **cores,
        }

    def _neighbour_url(self, neighbour: Neighbour, number: int) -> str:
        if neighbour.behaviour == "dead":
            return self._dead.url(number)
        return self._bad.url("http", f"/{_NEIGHBOUR}/{neighbour.behaviour}/{number}")

    def _forget_neighbours(self) -> None:
        """Delete them, and wait until what still waited for them has been recorded as skipped."""
        self._stack.query(
            "UPDATE webhooks SET deleted_at = now() WHERE account_id <> ALL(%s) RETURNING 1", self._healthy
        )
        wait_until(self._is_drained, _DRAIN_S, "the neighbour's backlog is skipped", 0.5)

    def _is_drained(self) -> bool:
        lag = [
            self._stack.metric(kind, f'go2hooks_lag_messages{{topic="{topic}"}}')
            for kind, topics in _LAGGING.items()
            for topic in topics
        ]
        return not any(lag) and not self._stack.metric("router", "go2hooks_router_in_flight")


def _in_ms(latencies_us: dict[str, float]) -> report.Figures:
    return {f"ms.{q}": latencies_us[q] / 1000 for q in ("p50", "p90", "p99", "p999", "max")}


def measure(chosen: Sequence[Neighbour], options: argparse.Namespace) -> Iterator[dict[str, report.Figures]]:
    """Round by round: the baseline, each neighbour, the baseline again; ratios are to the mean of the two baselines."""
    for number in range(1, options.repeat + 1):
        round_: dict[str, report.Figures] = {}
        with _isolation(chosen, options) as isolation:
            for name, neighbour in [
                ("baseline", None),
                *((each.name, each) for each in chosen),
                ("baseline again", None),
            ]:
                seconds = options.seconds if neighbour is None else neighbour.most_s or options.seconds
                figures = round_[name] = isolation.run(neighbour, seconds)
                report.console.print(
                    f"round {number}  {name}: p50 {figures['ms.p50']:.2f} ms, p99 {figures['ms.p99']:.2f} ms, "
                    + ", ".join(
                        f"{part.removeprefix('cores.')} {n:.2f}" for part, n in figures.items() if "cores" in part
                    )
                )
        compare(round_)
        yield round_


def compare(round_: dict[str, report.Figures]) -> None:
    """Each scenario over the mean of the baselines before and after, which together bear the machine's drift."""
    for metric in ("ms.p50", "ms.p99", "per_s"):
        baseline = (round_["baseline"][metric] + round_["baseline again"][metric]) / 2
        for figures in round_.values():
            figures[f"{metric.removeprefix('ms.')}_to_baseline"] = figures[metric] / baseline


@contextmanager
def _isolation(chosen: Sequence[Neighbour], options: argparse.Namespace) -> Iterator[Isolation]:
    env = dict(setting.split("=", 1) for setting in options.set)
    with stack(**env) as running:
        running.run_services(dispatchers=options.dispatchers)
        isolation = Isolation(running, options)
        try:
            isolation.warm_up(options.first_warm_up_s, chosen, options.neighbour_warm_up_s)
            yield isolation
        finally:
            isolation.close()


def present(rounds: list[dict[str, report.Figures]], options: argparse.Namespace) -> None:
    summary = report.summarise(rounds)
    columns = {f"ms.{q}": f"{q} ms" for q in ("p50", "p99", "p999", "max")} | {
        "p99_to_baseline": "p99 x baseline",
        "per_s": "healthy/s",
        "per_s_to_baseline": "x baseline",
        "neighbour_requests": "requests to neighbour",
        "cores": "cores busy",
        "producer_slip_ms": "producer slip ms",
    }
    report.table(f"Healthy receivers at {options.rate}/s, event produced -> arrival", summary, columns)
    path = report.write("isolation", vars(options), rounds, options.out)
    spreads = {name: metrics["ms.p99"] for name, metrics in summary.items()}
    rows = [charts.Bar(name, s.median, s.low, s.high) for name, s in spreads.items()]
    title = f"p99 of {options.webhooks} healthy webhooks at {options.rate}/s, beside one bad neighbour"
    report.chart("isolation", charts.bars(title, "ms", rows), options.out)
    report.console.print(f"load after {machine()['load']}; written: {path}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="neighbours, comma separated parts of their names")
    parser.add_argument("--rate", type=int, default=1000, help="events a second to the healthy webhooks")
    parser.add_argument("--webhooks", type=int, default=200, help="healthy webhooks")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each scenario")
    parser.add_argument("--warm-up-s", type=float, default=3.0, help="healthy traffic before each scenario")
    parser.add_argument("--first-warm-up-s", type=float, default=40.0, help="healthy traffic before each round")
    parser.add_argument("--neighbour-warm-up-s", type=float, default=5.0, help="of each neighbour before each round")
    parser.add_argument("--neighbour-nice", type=int, default=10, help="priority of the neighbours' own processes")
    parser.add_argument("--share", type=float, default=1.0, help="of each neighbour's traffic, for smaller machines")
    parser.add_argument("--repeat", type=int, default=3, help="rounds; medians are shown")
    parser.add_argument("--dispatchers", type=int, default=1)
    parser.add_argument("--no-pin", dest="pin", action="store_false", help="do not keep the receivers on the last core")
    parser.add_argument("--set", action="append", default=[], metavar="GO2HOOKS_X=Y", help="a setting of the services")
    parser.add_argument("--time-limit", type=float, default=3600.0, help="seconds after which everything is ended")
    parser.add_argument("--quick", action="store_true", help="a smoke run: three neighbours, three seconds each")
    parser.add_argument("--out", type=Path, default=report.RESULTS)
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.repeat, options.rate, options.share = 3.0, 1, 200, 0.1
        options.first_warm_up_s, options.neighbour_warm_up_s = 5.0, 1.0
        options.only = options.only or "9 s,reset,dead"
    return options


def main() -> None:
    options = parse()
    wanted = [part.strip() for part in options.only.split(",")]
    chosen = [each for each in NEIGHBOURS if any(part in each.name for part in wanted)]
    if not chosen:
        raise BenchError(f"no neighbour matches {options.only}: {', '.join(each.name for each in NEIGHBOURS)}")
    report.say_machine()
    with bounded(options.time_limit):
        rounds = list(measure(chosen, options))
    present(rounds, options)


if __name__ == "__main__":
    script(main)
