"""Which faults explain that an attempt was made twice. Being near in time is not enough: a fault has to have hit the very
processes that made the two requests, or what both stand on.

- death: the process that made the first request died after it, before the attempt was recorded;
- stop: one of the two was stopped by SIGSTOP between them, and lost its partitions without knowing;
- copies: the delivery was moved aside (to overflow, or to wait for a probe), and the process that did it was killed, or lost
  its partitions in an outage or while it was stopped, before it had committed that: then both messages are there, and two
  processes may have them;
- outage: broker or Postgres were away or hardly reachable between them, so that partitions moved while attempts could not
  be recorded. A broker that the machine held up for seconds is one too: the torture's own producer heard nothing from it.

A stop or an outage explains nothing that was recorded before the process that made the second request can have looked: who
takes partitions over asks the records. Unless it is the one that was stopped or cut off: it had the attempt already when
another made it, and has not heard of that.

How long after a fault it still explains something is reckoned for a machine that lets everybody run; `slack_s` is added where
it did not, see `HoldUps`.

A router's death, a receiver's trouble, a planned rebalance explain no duplicate: those are to be recognised, always.
"""

from bisect import bisect_left
from collections import defaultdict
from typing import Final

from bench.torture.ledger import Fault, HeldUp, Ledger, Seen, Sent
from bench.torture.plan import TIMEOUT_S

OUTAGES: Final = (
    "kill_broker", "disk_full", "kill_postgres", "cut_broker", "stall_broker", "delay_broker", "lossy_broker",
)  # fmt: skip
SILENT_S: Final = 2.0  # an acknowledgement takes milliseconds
OPEN_S: Final = TIMEOUT_S + 2.0  # from an attempt's request to its record, with nothing else wrong
ZOMBIE_S: Final = 5.0  # after SIGCONT, until it has noticed
OUTAGE_S: Final = 15.0  # after it: the session's timeout, the rebalance with its wait, the look-ups
LOOK_UP_S: Final = 2.0  # from asking the records about an attempt to making it, its wait in its lane included
COMMIT_S: Final = (
    40.0  # from a message's being kept elsewhere until its offset is committed: a slow webhook holds it back
)
SLACK_WITHIN_S: Final = 30.0
CLOCK_S: Final = 0.05  # between a process's death and what the driver noted of it


class HoldUps:
    """When the machine did not let our processes run, though nobody had stopped them."""

    def __init__(self, held_up: list[HeldUp], faults: list[Fault]) -> None:
        stops: dict[int, list[Fault]] = defaultdict(list)
        for fault in faults:
            if fault.kind.startswith("stop_"):
                stops[fault.pid].append(fault)
        self._all = sorted(
            (held.ended, held.began, held.process)
            for held in held_up
            if not any(s.began <= held.ended and held.began <= s.ended for s in stops[_pid(held.process)])
        )

    def __len__(self) -> int:
        return len(self._all)

    def longest_s(self, first: float, last: float) -> float:
        """The longest that ended within these times; 0 when none did."""
        n = bisect_left(self._all, (first, 0.0, ""))
        return max((e - b for e, b, _ in self._all[n : bisect_left(self._all, (last, 0.0, ""))]), default=0.0)

    def hit(self, processes: set[str], first: float, last: float) -> bool:
        """Whether one of these processes, or the receivers', did not run for a part of this time."""
        n = bisect_left(self._all, (first, 0.0, ""))
        return any(b <= last and (p in processes or p.startswith("receivers/")) for _, b, p in self._all[n:])


class Causes:
    """Answers for pairs of requests. With `loose_s`, each margin is so much wider."""

    def __init__(self, ledger: Ledger, hold_ups: HoldUps, loose_s: float) -> None:
        faults, processes = ledger.faults, ledger.processes
        self._hold_ups = hold_ups
        self._loose_s = loose_s
        planned = [fault for fault in faults if fault.kind in OUTAGES]
        self.outages = planned + _silences(ledger.sent, planned)
        self._stops: dict[int, list[Fault]] = defaultdict(list)
        self.deaths: dict[str, tuple[float, str]] = {}  # process → when, and by what
        by_pid = {(f.target, f.pid): f for f in faults if f.pid and f.reached and not f.kind.startswith("stop_")}
        self._dispatchers_stopped = [fault for fault in faults if fault.kind == "stop_dispatcher"]
        for fault in faults:
            if fault.kind.startswith("stop_"):
                self._stops[fault.pid].append(fault)
        for process in processes:
            blow = by_pid.get((process.name, process.pid))
            if process.ended is None or (blow is not None and process.status == 0):  # a drain explains nothing
                continue
            if blow is not None and not blow.kind.endswith("SIGTERM"):  # that one takes its time
                self.deaths[f"{process.name}/{process.pid}"] = (blow.ended, blow.kind)
            else:
                kind = blow.kind if blow else f"ended by itself ({process.status})"
                self.deaths[f"{process.name}/{process.pid}"] = (process.ended, kind)

    def of(self, first: Seen, second: Seen, recorded: float | None) -> set[str]:
        """What explains that `second` was made though `first` had been, the attempt being recorded when it was."""
        slack_s = self.slack_s(second.at)
        unseen = self.unseen(second, recorded)
        moved = first.process != second.process  # and nothing else may come of a broker that was merely held up
        causes = {
            stop.kind
            for process in {first.process, second.process}
            for stop in self._stops[_pid(process)]
            if _spans(stop, first, second, slack_s)
            and (unseen or (process == second.process and _is_unaware(stop, second, recorded, slack_s)))
        }
        causes |= {
            o.kind
            for o in self.outages
            if o.began <= second.at
            and first.at <= _over(o) + slack_s
            and (moved or o.kind in OUTAGES)
            and (unseen or (moved and _is_unaware(o, second, recorded, slack_s)))
        }
        died, kind = self.deaths.get(first.process, (float("inf"), ""))
        if died <= second.at + CLOCK_S and self._was_open(first.at, died, recorded):
            causes.add(kind)
        return causes

    def unseen(self, second: Seen, recorded: float | None) -> bool:
        """Whether who made `second` may have found no record of the attempt when it looked."""
        return recorded is None or recorded > second.at - LOOK_UP_S - self.slack_s(second.at)

    def of_copies(self, written: list[float], second: Seen) -> set[str]:
        """What explains that there is more than one message for an attempt, from when they were written."""
        commit_s = COMMIT_S + self.slack_s(second.at)
        copied = [at for at in written[1:] if at <= second.at]
        outages = {o.kind for o in self.outages for at in copied if o.began - commit_s <= at <= _over(o)}
        stops = {s.kind for s in self._dispatchers_stopped for at in copied if s.began - commit_s <= at <= s.ended}
        return (
            outages
            | stops
            | {
                kind
                for process, (died, kind) in self.deaths.items()
                if process.startswith(("dispatcher", "guest")) and died <= second.at
                for at in copied
                if at - CLOCK_S <= died <= at + commit_s
            }
        )

    def slack_s(self, at: float) -> float:
        """By how much longer than usual things may have taken shortly before."""
        return self._loose_s + self._hold_ups.longest_s(at - SLACK_WITHIN_S, at + OPEN_S)

    def _was_open(self, made: float, died: float, recorded: float | None) -> bool:
        """A busy receiver may see a request (`made`) when its sender is dead already."""
        if recorded is not None and recorded < died - CLOCK_S:
            return False
        return died - made <= OPEN_S + self.slack_s(died) or any(
            o.began <= died and made <= _over(o) for o in self.outages
        )


def _silences(sent: list[Sent], outages: list[Fault]) -> list[Fault]:
    """When the broker answered nobody, and none of the `outages` says why."""
    silences: list[Fault] = []
    for event in sorted(sent, key=lambda event: event.produced):
        began, ended = event.produced, event.acknowledged
        if ended is None or ended - began < SILENT_S or any(o.began <= ended and began <= _over(o) for o in outages):
            continue
        if silences and began <= silences[-1].ended:
            silences[-1] = silences[-1]._replace(ended=max(ended, silences[-1].ended))
        else:
            silences.append(Fault("held_up_broker", "broker", began, ended, part=True))
    return silences


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


def _pid(process: str) -> int:
    return int(process.rpartition("/")[2] or 0)


def _is_unaware(fault: Fault, second: Seen, recorded: float | None, slack_s: float) -> bool:
    """Whether who made `second` may have had the attempt before another's was recorded, and not have heard of losing it."""
    heard = (fault.back or fault.ended) + ZOMBIE_S + slack_s
    return recorded is not None and recorded >= fault.began - LOOK_UP_S - slack_s and second.at <= heard


def _spans(stop: Fault, first: Seen, second: Seen, slack_s: float) -> bool:
    return stop.began <= second.at and first.at <= stop.ended + ZOMBIE_S + slack_s
