"""What a run says: its tables, the whole history of whatever breached a rule, and the same as JSON."""

import resource
import time
from collections import Counter, defaultdict
from typing import Any, Final, NamedTuple

from rich.console import Console
from rich.table import Table

from bench.torture.checker import Breach, Checker, Verdict
from bench.torture.plan import FAULT_KINDS, LONG_STOP_S, Options

_HISTORIES: Final = 5


class Judged(NamedTuple):
    """A run and what came of it. `rest_s` None: it never came to rest."""

    options: Options
    checker: Checker
    verdict: Verdict
    rest_s: float | None
    judging_s: float


def show(judged: Judged) -> None:
    console = Console(width=130, highlight=False)
    console.print(_summary(judged))
    console.print(_faults(judged))
    _show_kills(console, judged.verdict)
    checker, verdict = judged.checker, judged.verdict
    for rule, count in Counter(breach.rule for breach in verdict.breaches).most_common():
        console.print(f"[red]{count:>6,}[/] {rule}")
    for rule in dict.fromkeys(breach.rule for breach in verdict.breaches):
        for breach in [b for b in verdict.breaches if b.rule == rule][:_HISTORIES]:
            console.print(history(checker, breach), markup=False)


def as_dict(judged: Judged) -> dict[str, Any]:
    """For comparing runs."""
    verdict = judged.verdict
    return {
        "seed": judged.options.seed,
        "plant": judged.options.plant,
        "minutes": judged.options.minutes,
        "rate": judged.options.rate,
        "faults": len([f for f in judged.checker.ledger.faults if f.reached and not f.part]),
        "counts": dict(sorted(verdict.counts.items())),
        "duplicates": verdict.duplicates,
        "at_rest_s": judged.rest_s,
        "judging_s": judged.judging_s,
        "breaches": dict(Counter(breach.rule for breach in verdict.breaches)),
        "kinds": _by_kind(judged),
        "kills": [kill._asdict() for kill in verdict.kills],
        "quiet": verdict.quiet._asdict(),
    }


def _summary(judged: Judged) -> Table:
    options, checker, verdict, rest_s, judging_s = judged
    table = Table(title=f"torture, seed {options.seed}", title_justify="left")
    table.add_column("what")
    table.add_column("how many", justify="right")
    for name, count in sorted(verdict.counts.items()):
        table.add_row(name, f"{count:,}")
    table.add_row("duplicates, of deliveries", f"{verdict.duplicates:.3%}")
    faults = [fault for fault in checker.ledger.faults if fault.reached and not fault.part]
    table.add_row("faults", str(len(faults)))
    long_stops = [f for f in faults if f.kind == "stop_dispatcher" and f.ended - f.began >= LONG_STOP_S - 0.5]
    table.add_row(f"of these, a dispatcher stopped for {LONG_STOP_S:.0f} s", str(len(long_stops)))
    table.add_row("times that the machine held a process up", str(checker.held_up))
    quiet = verdict.quiet
    table.add_row(
        "undisturbed seconds, normal ones, median latency",
        f"{quiet.seconds}, {quiet.normal}, {quiet.median_s * 1000:.1f} ms",
    )
    table.add_row(
        "late means later than; seconds in which others used the machine", f"{quiet.late_s:.1f} s, {quiet.others}"
    )
    table.add_row("at rest after", "never" if rest_s is None else f"{rest_s:.1f} s")
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    table.add_row("judged in, with memory", f"{judging_s:.1f} s, {peak_gib:.2f} GiB")
    table.add_row("[bold]breaches", f"[bold]{len(verdict.breaches):,}")
    return table


def _by_kind(judged: Judged) -> dict[str, dict[str, Any]]:
    """Per kind: begun, reached, how many recoveries could be judged, the worst, its limit, duplicates it explains."""
    kinds: dict[str, dict[str, Any]] = {
        kind: {"begun": 0, "reached": 0, "judged": 0, "worst_s": None, "limit_s": None, "duplicates": 0}
        for kind in judged.options.kinds or FAULT_KINDS
    }
    for fault in judged.checker.ledger.faults:
        if not fault.part:
            kinds[fault.kind]["begun"] += 1
            kinds[fault.kind]["reached"] += fault.reached
    by_kind: dict[str, list[float]] = defaultdict(list)
    for recovered in judged.verdict.recovery:
        kinds[recovered.kind]["limit_s"] = recovered.limit_s
        if recovered.seconds is not None:
            by_kind[recovered.kind].append(recovered.seconds)
    for kind, times in by_kind.items():
        kinds[kind] |= {"judged": len(times), "worst_s": max(times)}
    for kind, count in judged.verdict.near.items():
        kinds.setdefault(kind, {"begun": "part", "reached": "", "judged": 0, "worst_s": None, "limit_s": None})
        kinds[kind]["duplicates"] = count
    return kinds


def _faults(judged: Judged) -> Table:
    table = Table(title="faults", title_justify="left")
    for name in ("kind", "begun", "reached", "judged alone", "worst recovery (s)", "limit", "duplicates explained"):
        table.add_column(name, justify="left" if name == "kind" else "right")
    for kind, of in _by_kind(judged).items():
        worst = "-" if of["worst_s"] is None else f"{of['worst_s']:.0f}"
        limit = "" if of["limit_s"] is None else f"{of['limit_s']:.0f}"
        table.add_row(
            kind, str(of["begun"]), str(of["reached"]), str(of["judged"]), worst, limit, str(of["duplicates"])
        )
    return table


def _show_kills(console: Console, verdict: Verdict) -> None:
    if verdict.kills:
        under_way = sorted(kill.under_way for kill in verdict.kills)
        again = sorted(kill.again for kill in verdict.kills)
        middle = len(under_way) // 2
        console.print(
            f"{len(under_way)} dispatchers killed: requests made and not recorded then, median {under_way[middle]}, "
            f"worst {under_way[-1]}; sent again, median {again[middle]}, worst {again[-1]}"
        )


def history(checker: Checker, breach: Breach) -> str:
    """Everything that is known of one delivery, in order of time."""
    pair = (breach.event_id, breach.webhook_id)
    target = checker.targets.get(breach.webhook_id)
    title = f"\n{breach.rule}: {breach.detail}"
    if not breach.event_id:
        return title
    lines = _lines(checker, pair)
    if lines:
        first, last = min(lines)[0], max(lines)[0]
        lines += [
            (fault.began, f"FAULT {fault.kind} on {fault.target}/{fault.pid} until {_clock(fault.ended)}")
            for fault in checker.ledger.faults
            if fault.began - 5 <= last and first <= fault.ended + 15
        ]
    title += f"\n  {breach.event_id} → {breach.webhook_id} ({target.temper if target else '?'})"
    return "\n".join([title, *(f"  {_clock(at)} {text}" for at, text in sorted(lines))])


def _lines(checker: Checker, pair: tuple[str, str]) -> list[tuple[float, str]]:
    lines: list[tuple[float, str]] = []
    sent = checker.events.get(pair[0])
    if sent is not None:
        lines.append(
            (sent.produced, f"produced {sent.type} for {sent.account}, acknowledged {_clock(sent.acknowledged)}")
        )
    for message in checker.lying(pair):
        state = "waits" if message.waiting else "read"
        due = f", due {_clock(message.due)}" if message.due else ""
        where = f"{message.topic}/{message.partition}/{message.offset}"
        suspect = ", suspect" if message.suspect else ""
        lines.append((message.written, f"in {where}: attempt {message.attempt}{due}{suspect}, {state}"))
    for seen in checker.seen.get(pair, ()):
        gave = f"gave {seen.gave} at {_clock(seen.gave_at)}"
        lines.append((seen.at, f"received attempt {seen.attempt} of {seen.process}, {gave}"))
    for row in checker.rows.get(pair, ()):
        what = " ".join(str(part) for part in (row.state, row.status, row.error) if part is not None)
        when = f"{row.duration_ms:.0f} ms, written {_clock(row.recorded)}"
        lines.append((row.attempted, f"recorded attempt {row.attempt}: {what}, {when}"))
    return lines


def _clock(at: float | None) -> str:
    return "never" if at is None else time.strftime("%H:%M:%S", time.gmtime(at)) + f".{int(at * 1000) % 1000:03d}"
