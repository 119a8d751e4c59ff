"""What a replay takes, and what it does to live traffic: 100,000 events of the log to one new webhook, beside 200 live events a second.

Each round has its own stack: live traffic alone, beside the replay, whose replayer is killed on the way, and alone again. Every event of the
log has to arrive; what arrives twice is counted, and may be no more than a batch for each time that the replayer was killed.
"""

import argparse
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import report
from arrivals import percentiles
from peers import Producer, TimingReceiver, produce, receiver_core
from running import BenchError, Hook, Stack, bounded, script, stack, wait_until
from usage import Meter, machine

_LIVE = "live"
_REPLAYED = "replayed"
_BATCH = 200
_REPLAY_S = 400.0
_ARRIVE_S = 60.0


class Replaying:
    """One stack, with receivers for live traffic and for the replay."""

    def __init__(self, running: Stack, options: argparse.Namespace) -> None:
        self._stack = running
        self._options = options
        core = receiver_core()
        self._receiver = TimingReceiver(None, core)
        self._other = TimingReceiver(None, core, nice=10)  # stands for somebody else's machine
        self._accounts = [f"acc_live_{n}" for n in range(options.webhooks)]

    def close(self) -> None:
        self._receiver.close()
        self._other.close()

    def run(self) -> dict[str, report.Figures]:
        hooks = [Hook(account, self._receiver.url("http", f"/{_LIVE}/ok/{account}")) for account in self._accounts]
        self._stack.create_webhooks(hooks)
        part = {"accounts": [_REPLAYED], "count": self._options.events, "prepared": True}
        produce(self._stack.broker.bootstrap, [part])  # which nobody wants yet
        self._beside(self._options.warm_up_s, lambda: None)
        figures = {"alone": self._beside(self._options.seconds, lambda: None)}
        hooks.append(Hook(_REPLAYED, self._other.url("http", f"/{_REPLAYED}/ok/0")))
        *_live, webhook_id = self._stack.create_webhooks(hooks)
        replayed: report.Figures = {}
        seconds = self._options.events / self._options.per_s + 10.0 * (1 + self._options.kills)
        figures["beside a replay"] = self._beside(seconds, lambda: replayed.update(self._replay(webhook_id)), replayed)
        figures["alone again"] = self._beside(self._options.seconds, lambda: None)
        for each in figures.values():
            alone = (figures["alone"]["ms.p99"] + figures["alone again"]["ms.p99"]) / 2
            each["p99_to_alone"] = each["ms.p99"] / alone
        return figures

    def _replay(self, webhook_id: str) -> report.Figures:
        """All events of the log to this webhook; the replayer is killed on the way. Raises BenchError for one that is lost."""
        events, kills = self._options.events, self._options.kills
        replay_id, began = f"rpl_{secrets.token_hex(12)}", time.monotonic()
        self._stack.query(
            """INSERT INTO replays (id, webhook_id, account_id, selection, from_at, to_at)
               VALUES (%s, %s, %s, 'missed', now() - interval '1 hour', now()) RETURNING 1""",
            replay_id, webhook_id, _REPLAYED,
        )  # fmt: skip
        statement = "SELECT sent, delivered, status FROM replays WHERE id = %s"
        for number in range(kills):
            enough = events * (number + 1) // (kills + 1)
            wait_until(
                lambda enough=enough: self._stack.query(statement, replay_id)[0][0] >= enough,
                _REPLAY_S,
                "the replay",
                0.1,
            )
            self._stack.kill("replayer")
        wait_until(
            lambda: self._stack.query(statement, replay_id)[0][2] == "done", _REPLAY_S, "the replay is done", 0.1
        )
        took_s = time.monotonic() - began
        sent, delivered, _ = self._stack.query(statement, replay_id)[0]
        arrived = self._other.report()[_REPLAYED]
        repeated = arrived["arrivals"] - arrived["unique"]
        if not arrived["unique"] == sent == delivered == events or repeated > kills * _BATCH:
            raise BenchError(f"{events} events: {sent} sent, {arrived['unique']} arrived, {repeated} of them twice")
        return {
            "replayed_per_s": events / took_s,
            "took_s": took_s,
            "twice": float(repeated),
            "ended_us": arrived["last_us"],
        }

    def _beside(
        self, seconds: float, work: Callable[[], None], replayed: report.Figures | None = None
    ) -> report.Figures:
        """Live traffic for so long, and its latencies; beside `work` alone those until the replay's last delivery."""
        rate = self._options.rate
        self._receiver.reset()
        self._other.reset()
        part = {"accounts": self._accounts, "count": round(rate * seconds), "rate": float(rate)}
        producer = Producer(self._stack.broker.bootstrap, [part])
        meter, began = Meter(self._stack.pids()), time.monotonic()
        try:
            meter.start()
            producer.go()
            work()
            cores = {f"cores.{part}": used / (time.monotonic() - began) for part, used in meter.used().items()}
            producer.result()
        finally:
            producer.close()
        wait_until(lambda: self._receiver.count() >= part["count"], _ARRIVE_S, "all live deliveries", 0.1)
        until = (replayed or {}).pop("ended_us", float("inf"))
        latencies = [late for at, late in self._receiver.traced(_LIVE) if at <= until]
        found = percentiles(latencies)
        return {f"ms.{q}": found[q] / 1000 for q in ("p50", "p99", "max")} | cores | (replayed or {})


@contextmanager
def _replaying(options: argparse.Namespace) -> Iterator[Replaying]:
    env = dict(setting.split("=", 1) for setting in options.set)
    with stack(**env) as running:
        running.run_services(replayers=1, GO2HOOKS_REPLAY_PER_S=str(options.per_s))
        replaying = Replaying(running, options)
        try:
            yield replaying
        finally:
            replaying.close()


def measure(options: argparse.Namespace) -> Iterator[dict[str, report.Figures]]:
    for number in range(1, options.repeat + 1):
        with _replaying(options) as replaying:
            figures = replaying.run()
        for name, each in figures.items():
            report.console.print(
                f"round {number}  {name}: " + ", ".join(f"{metric} {value:.2f}" for metric, value in each.items())
            )
        yield figures


def present(rounds: list[dict[str, report.Figures]], options: argparse.Namespace) -> None:
    columns = {
        "ms.p50": "p50 ms",
        "ms.p99": "p99 ms",
        "ms.max": "max ms",
        "p99_to_alone": "p99 x alone",
        "replayed_per_s": "replayed/s",
        "twice": "came twice",
    }
    report.table(f"Live traffic at {options.rate}/s, event produced -> arrival", report.summarise(rounds), columns)
    path = report.write("replay", vars(options), rounds, options.out)
    report.console.print(f"load after {machine()['load']}; written: {path}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000, help="events in the log")
    parser.add_argument("--per-s", type=int, default=2500, help="GO2HOOKS_REPLAY_PER_S")
    parser.add_argument("--kills", type=int, default=2, help="times that the replayer is killed on the way")
    parser.add_argument("--rate", type=int, default=200, help="live events a second")
    parser.add_argument("--webhooks", type=int, default=50, help="live webhooks")
    parser.add_argument("--seconds", type=float, default=15.0, help="live traffic alone, before and after")
    parser.add_argument("--warm-up-s", type=float, default=10.0, help="live traffic before each round")
    parser.add_argument("--repeat", type=int, default=3, help="rounds; medians are shown")
    parser.add_argument("--set", action="append", default=[], metavar="GO2HOOKS_X=Y", help="a setting of the services")
    parser.add_argument("--time-limit", type=float, default=1800.0, help="seconds after which everything is ended")
    parser.add_argument("--quick", action="store_true", help="a smoke run: 5,000 events, a few seconds each")
    parser.add_argument("--out", type=Path, default=report.RESULTS)
    options = parser.parse_args()
    if options.quick:
        options.events, options.seconds, options.warm_up_s, options.repeat = 5000, 3.0, 2.0, 1
    return options


def main() -> None:
    options = parse()
    report.say_machine()
    with bounded(options.time_limit):
        rounds = list(measure(options))
    present(rounds, options)


if __name__ == "__main__":
    script(main)
