"""How long after a fault's end deliveries to healthy receivers are as quick as before.

Time is cut into seconds by when events were produced. A second is normal when at most one delivery in a hundred of its
events came late: later than `LATE_S`, or than three times what is usual in this run. A fault is over with the first of
`STEADY` normal seconds in a row.

Seconds in which others used much of the machine are not counted; where most were such, there is no judgement.

Only faults that nothing overlaps are judged: none other may have begun or still last between a fault's beginning and its
recovery, and the three seconds before it must have been normal. One that never recovers within its limit, though
nothing else happened meanwhile, is judged too: a breach.
"""

from bisect import bisect_left
from collections import defaultdict
from typing import Final, NamedTuple

from bench.torture.ledger import Fault

LATE_S: Final = 1.0
LATE_SHARE: Final = 0.01
USUAL_LATE: Final = 3.0  # times the usual second's slowest hundredth
USUAL_SHARE: Final = 0.1  # of a run's seconds are its best ones: so many are undisturbed in any
LATE_MAX_S: Final = 3.0  # on however slow a machine
OTHERS_CORES: Final = 0.5  # more, used by others, is much
STEADY: Final = 5
BEFORE: Final = 3
LIMIT_S: Final = 30.0
BROKER_LIMIT_S: Final = 45.0
BROKER_KINDS: Final = ("kill_broker", "disk_full")

Seconds = dict[int, tuple[int, int]]  # second → deliveries, late ones


class Recovered(NamedTuple):
    """One fault's recovery. `seconds` None: other faults overlapped, or others used the machine."""

    kind: str
    ended: float
    seconds: float | None
    limit_s: float


class Quiet(NamedTuple):
    """The seconds in which nothing was wrong and nothing had been for a while: in all, normal ones; median latency.

    `late_s` is what is late in this run; `others` in how many seconds of the run others used much of the machine.
    """

    seconds: int
    normal: int
    median_s: float
    late_s: float
    others: int


def measure(
    pairs: list[tuple[float, float]], faults: list[Fault], others: list[tuple[float, float]]
) -> tuple[list[Recovered], Quiet]:
    """From (produced, latency) of deliveries to healthy receivers, the faults, and (time, cores that others used)."""
    whole = sorted((f for f in faults if f.reached and not f.part), key=lambda fault: fault.began)
    pairs = sorted(pairs)
    late_s = _late_s(pairs)
    foreign = sorted(at for at, cores in others if cores > OTHERS_CORES)
    recovered = [_recovery(fault, whole, _by_second(pairs, fault, late_s), foreign) for fault in whole]
    return recovered, _quiet(pairs, whole, late_s)._replace(others=len(foreign))


def _late_s(pairs: list[tuple[float, float]]) -> float:
    """What is late in this run."""
    counts: dict[int, list[float]] = defaultdict(list)
    for produced, latency in pairs:
        counts[int(produced)].append(latency)
    slowest = sorted(sorted(each)[int(len(each) * (1 - LATE_SHARE))] for each in counts.values())
    usual = slowest[int(len(slowest) * USUAL_SHARE)] if slowest else 0.0
    return min(max(LATE_S, USUAL_LATE * usual), LATE_MAX_S)


def _by_second(pairs: list[tuple[float, float]], fault: Fault, late_s: float) -> Seconds:
    """Counts by second from the fault's end, from shortly before the fault to two minutes after it."""
    counts: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    first = bisect_left(pairs, (fault.began - BEFORE - 1, 0.0))
    for produced, latency in pairs[first : bisect_left(pairs, (fault.ended + 120, 0.0))]:
        count = counts[int((produced - fault.ended) // 1)]
        count[0] += 1
        count[1] += latency > late_s
    return {second: (count[0], count[1]) for second, count in counts.items()}


def _recovery(fault: Fault, faults: list[Fault], seconds: Seconds, foreign: list[float]) -> Recovered:
    limit_s = BROKER_LIMIT_S if fault.kind in BROKER_KINDS else LIMIT_S
    others = [other for other in faults if other is not fault and other.ended >= fault.began - BEFORE]
    until = min((other.began for other in others), default=float("inf")) - fault.ended
    until = min(until, max(seconds, default=0.0))
    lasted = int(fault.ended - fault.began)
    before = range(-lasted - BEFORE - 1, -lasted - 1)
    took: float | None = None
    if until > 0 and all(_is_normal(seconds, second) for second in before):
        took = _first_steady(seconds, until)
        if took is None and until > limit_s + STEADY:
            took = until
    return Recovered(fault.kind, fault.ended, None if took is None else _ours(took, fault.ended, foreign), limit_s)


def _ours(took: float, ended: float, foreign: list[float]) -> float | None:
    """Of the seconds that it took, those in which others did not use the machine; None when most were others'."""
    others = bisect_left(foreign, ended + took) - bisect_left(foreign, ended)
    return took - others if others <= took / 2 else None


def _first_steady(seconds: Seconds, until: float) -> float | None:
    for first in range(int(until) - STEADY + 1):
        if all(_is_normal(seconds, second) for second in range(first, first + STEADY)):
            return float(first)
    return None


def _is_normal(seconds: Seconds, second: int) -> bool:
    """A second without a single event proves nothing."""
    count, late = seconds.get(second, (0, 0))
    return count > 0 and late <= count * LATE_SHARE


def _quiet(pairs: list[tuple[float, float]], faults: list[Fault], late_s: float) -> Quiet:
    disturbed = [(fault.began - 1, fault.ended + BROKER_LIMIT_S) for fault in faults]
    counts: dict[int, list[float]] = defaultdict(list)
    for produced, latency in pairs:
        counts[int(produced)].append(latency)
    quiet = [
        sorted(latencies)
        for second, latencies in counts.items()
        if not any(began <= second <= ended for began, ended in disturbed)
    ]
    normal = sum(sum(latency > late_s for latency in each) <= len(each) * LATE_SHARE for each in quiet)
    medians = sorted(each[len(each) // 2] for each in quiet)
    return Quiet(len(quiet), normal, medians[len(medians) // 2] if medians else 0.0, late_s, 0)
