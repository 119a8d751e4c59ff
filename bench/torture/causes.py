"""Which faults explain that an attempt was made twice. Being near in time is not enough: a fault has to have hit the very
processes that made the two requests, or what both stand on.

- death: the process that made the first request died after it, before the attempt was recorded;
- stop: one of the two was stopped by SIGSTOP between them, and lost its partitions without knowing;
- copies: the delivery was moved aside (to overflow, or to wait for a probe), and the process that did it was killed, or lost
  its partitions in an outage, before it had committed that: then both messages are there, and two processes may have them;
- outage: broker or Postgres were away or hardly reachable between them, so that partitions moved while attempts could not
  be recorded.

A router's death, a receiver's trouble, a planned rebalance explain no duplicate: those are to be recognised, always.
"""

from bisect import bisect_left
from collections import defaultdict
from typing import Final

from bench.torture.ledger import Fault, Process, Seen
from bench.torture.plan import TIMEOUT_S

OUTAGES: Final = (
    "kill_broker", "disk_full", "kill_postgres", "cut_broker", "stall_broker", "delay_broker", "lossy_broker",
)  # fmt: skip
OPEN_S: Final = TIMEOUT_S + 2.0  # from an attempt's request to its record, with nothing else wrong
ZOMBIE_S: Final = 5.0  # after SIGCONT, until it has noticed
OUTAGE_S: Final = 15.0  # after it: the session's timeout, the rebalance with its wait, the look-ups
COMMIT_S: Final = (
    1.5  # from a message's being kept elsewhere until its offset is committed: every 0.5 s, stored every 0.1 s
)
CLOCK_S: Final = 0.05  # between a process's death and what the driver noted of it


class Causes:
    """Answers for pairs of requests."""

    def __init__(self, faults: list[Fault], processes: list[Process]) -> None:
        self.outages = [fault for fault in faults if fault.kind in OUTAGES]
        self._stops: dict[int, list[Fault]] = defaultdict(list)
        self.deaths: dict[str, tuple[float, str]] = {}  # process → when, and by what
        by_pid = {(f.target, f.pid): f for f in faults if f.pid and f.reached and not f.kind.startswith("stop_")}
        for fault in faults:
            if fault.kind.startswith("stop_"):
                self._stops[fault.pid].append(fault)
        for process in processes:
            if process.ended is None or process.status == 0:  # a drain explains nothing
                continue
            blow = by_pid.get((process.name, process.pid))
            if blow is not None:
                self.deaths[f"{process.name}/{process.pid}"] = (blow.ended, blow.kind)
            else:
                self.deaths[f"{process.name}/{process.pid}"] = (process.ended, f"ended by itself ({process.status})")

    def of(self, first: Seen, second: Seen, recorded: float | None) -> set[str]:
        """What explains that `second` was made though `first` had been, the attempt being recorded when it was."""
        causes = {
            fault.kind for pid in _pids(first, second) for fault in self._stops[pid] if _spans(fault, first, second)
        }
        causes |= {fault.kind for fault in self.outages if fault.began <= second.at and first.at <= _over(fault)}
        died, kind = self.deaths.get(first.process, (float("inf"), ""))
        if died <= second.at + CLOCK_S and self._was_open(first.at, died, recorded):
            causes.add(kind)
        return causes

    def of_copies(self, written: list[float], second: Seen) -> set[str]:
        """What explains that there is more than one message for an attempt, from when they were written."""
        copied = [at for at in written[1:] if at <= second.at]
        outages = {o.kind for o in self.outages for at in copied if o.began - COMMIT_S <= at <= _over(o)}
        return outages | {
            kind
            for process, (died, kind) in self.deaths.items()
            if process.startswith(("dispatcher", "guest")) and died <= second.at
            for at in copied
            if at - CLOCK_S <= died <= at + COMMIT_S
        }

    def _was_open(self, made: float, died: float, recorded: float | None) -> bool:
        """A busy receiver may see a request (`made`) when its sender is dead already."""
        if recorded is not None and recorded < died - CLOCK_S:
            return False
        return died - made <= OPEN_S or any(o.began <= died and made <= _over(o) for o in self.outages)


def _over(outage: Fault) -> float:
    """When it has ceased to show."""
    return (outage.back or outage.ended) + OUTAGE_S


def stopped(faults: list[Fault], first: float, last: float, margin_s: float) -> bool:
    """Whether some dispatcher was stopped within these times."""
    return any(
        fault.kind == "stop_dispatcher" and fault.began - margin_s <= last and first <= fault.ended + margin_s
        for fault in faults
    )


def nearest_after(times: list[float], at: float) -> float:
    """The first of the sorted `times` that is not before `at`; infinity when there is none."""
    n = bisect_left(times, at)
    return times[n] if n < len(times) else float("inf")


def _pids(*requests: Seen) -> set[int]:
    return {int(request.process.rpartition("/")[2] or 0) for request in requests}


def _spans(stop: Fault, first: Seen, second: Seen) -> bool:
    return stop.began <= second.at and first.at <= stop.ended + ZOMBIE_S
