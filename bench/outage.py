"""A server that is away for long under a steady stream, and how all recovers."""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import psycopg
import report
from peers import Producer, TimingReceiver
from running import Stack, stack, wait_until
from watching import GROUP, Outcome, account, accounts, healthy, up_to_date, watching, within_bounds

from go2hooks.devstack.broker import Broker
from go2hooks.devstack.database import Database

SERVER_START_S = 180.0  #: what is measured here begins once servers serve; a busy machine may take its time
_NORMAL_MS = 250.0  # the median latency of a second's events; twice a second's pause of ours would be more
_NORMAL_SECONDS = 3  # in a row
_BEHIND_S = 2.0  # records that are no older than this are up to date


def away(options: argparse.Namespace, server_of: Callable[[Stack], Broker | Database], name: str) -> Outcome:
    """Kill the server under a stream, start it again after the outage, watch the stream recover."""
    receiver = TimingReceiver(None, None)
    count = round(options.rate * (options.before_s + options.outage_s + options.after_s))
    try:
        with stack() as running:
            webhooks = healthy(running, receiver)
            running.run_services()
            orders = [{"accounts": accounts(), "count": count, "rate": options.rate}]
            keep_s = options.outage_s + options.after_s + 120
            producer = Producer(running.broker.bootstrap, orders, keep_s=keep_s)
            try:
                with watching(running) as watch:
                    producer.go()
                    began = time.monotonic()
                    time.sleep(options.before_s)
                    outage = Outage(server_of(running))
                    outage.last(options.outage_s)
                    recorded_at = recorded_again(running, webhooks, began, count, options)
                    produced = producer.result()
                    up_to_date(running, webhooks, count, 60)
            finally:
                producer.close()
            figures, breaches = account(running, receiver, webhooks, produced)
            figures |= watch.figures() | outage.figures() | after(outage, receiver.traced(GROUP), recorded_at)
    finally:
        receiver.close()
    breaches += within_bounds(figures) + late_recovery(figures, options.recovery_s)
    marks = {f"{name} killed": outage.down - watch.began, "started again": outage.started - watch.began}
    return Outcome(figures, watch, marks, breaches)


class Outage:
    """A server that is killed now. Times are of the monotonic clock."""

    def __init__(self, server: Broker | Database) -> None:
        self._server = server
        self.down = time.monotonic()
        server.wait_stopped(0)

    def last(self, seconds: float) -> None:
        """Keep it away so long, start it, wait until it serves. What lingers of it may end its first start."""
        time.sleep(max(0.0, self.down + seconds - time.monotonic()))
        self.started = time.monotonic()
        self._server.start()

        def serves() -> bool:
            if self._server.exit_status() is not None:
                self._server.start()
            return self._server.is_ready()

        wait_until(serves, SERVER_START_S, f"{self._server.name} serves again", 0.1)
        self.serves = time.monotonic()

    def figures(self) -> report.Figures:
        return {"away_s": self.started - self.down, "server_start_s": self.serves - self.started}


def recorded_again(
    running: Stack, webhooks: Sequence[str], began: float, count: int, options: argparse.Namespace
) -> float:
    """When the records have caught up with the producer: monotonic seconds. Infinite: not within a minute of its end."""
    deadline = began + count / options.rate + 60
    while (now := time.monotonic()) < deadline:
        with suppress(psycopg.OperationalError):
            if running.recorded(webhooks) >= min(count, (now - began - _BEHIND_S) * options.rate):
                return now
        time.sleep(0.5)
    return float("inf")


def after(outage: Outage, traced: list[tuple[int, int]], recorded_at: float) -> report.Figures:
    """Recovery in seconds since the server served again: its own start, which the machine may slow, is told apart."""
    by_second: dict[int, list[float]] = {}
    for arrived_us, latency_us in traced:
        by_second.setdefault((arrived_us - latency_us) // 1_000_000, []).append(latency_us / 1000)
    usual = [late for second, values in by_second.items() if second < int(outage.down) - 1 for late in values]
    calm = [second for second, values in by_second.items() if statistics.median(values) <= _NORMAL_MS]
    settled = set(calm)
    normal_at = next(
        (
            second
            for second in sorted(calm)
            if second >= int(outage.serves) and all(second + n in settled for n in range(_NORMAL_SECONDS))
        ),
        float("inf"),
    )
    arrivals = [at for at, late in traced if (at - late) / 1e6 < outage.serves]
    return {
        "usual_ms.p50": statistics.median(usual),
        "normal_again_s": max(0.0, normal_at - outage.serves),
        "backlog_delivered_s": max(0.0, max(arrivals) / 1e6 - outage.serves),
        "backlog_recorded_s": recorded_at - outage.serves,
        "delivered_meanwhile": float(sum(outage.down < at / 1e6 < outage.serves for at, _ in traced)),
    }


def late_recovery(figures: report.Figures, limit_s: float) -> list[str]:
    names = ("normal_again_s", "backlog_delivered_s", "backlog_recorded_s")
    return [f"{name} is {figures[name]:.1f}, more than {limit_s:g}" for name in names if figures[name] > limit_s]
