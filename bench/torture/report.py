"""What a run says: one table, and the whole history of whatever breached a rule."""

import time
from collections import Counter

from rich.console import Console
from rich.table import Table

from bench.torture.checker import Breach, Checker, Verdict
from bench.torture.plan import Options

_HISTORIES = 5


def show(options: Options, checker: Checker, verdict: Verdict, rest_s: float | None, deaths: dict[str, int]) -> None:
    console = Console(width=130, highlight=False)
    table = Table(title=f"torture, seed {options.seed}", title_justify="left")
    table.add_column("what")
    table.add_column("how many", justify="right")
    counts = verdict.counts
    for name in sorted(name for name in counts if not name.startswith("~")):
        table.add_row(name, f"{counts[name]:,}")
    requests = max(1, counts["requests"])
    repeated = counts["duplicate requests"] + counts["requests after the end"]
    table.add_row("duplicates", f"{repeated / requests:.3%}")
    table.add_row("faults", str(len(checker.ledger.faults)))
    table.add_row("at rest after", "never" if rest_s is None else f"{rest_s:.1f} s")
    table.add_row("[bold]breaches", f"[bold]{len(verdict.breaches):,}")
    console.print(table)
    _show_faults(console, verdict)
    console.print("services ended:", ", ".join(f"{name} {count}" for name, count in sorted(deaths.items())) or "none")
    for rule, count in Counter(breach.rule for breach in verdict.breaches).most_common():
        console.print(f"[red]{count:>6,}[/] {rule}")
    for rule in {breach.rule for breach in verdict.breaches}:
        for breach in [b for b in verdict.breaches if b.rule == rule][:_HISTORIES]:
            console.print(history(checker, breach), markup=False)


def _show_faults(console: Console, verdict: Verdict) -> None:
    table = Table(title="faults", title_justify="left")
    for name in ("kind", "times", "late deliveries ended after it, median and worst (s)", "duplicates near"):
        table.add_column(name, justify="left" if name == "kind" else "right")
    for kind, times in sorted(verdict.recovery.items()):
        ordered = sorted(times)
        table.add_row(
            kind, str(len(times)), f"{ordered[len(ordered) // 2]:.1f} {ordered[-1]:.1f}",
            str(verdict.counts[f"~ duplicates near {kind}"]),
        )  # fmt: skip
    console.print(table)


def history(checker: Checker, breach: Breach) -> str:
    """Everything that is known of one delivery, in order of time."""
    pair = (breach.event_id, breach.webhook_id)
    lines: list[tuple[float, str]] = []
    sent = checker.events.get(breach.event_id)
    if sent is not None:
        lines.append(
            (sent.produced, f"produced {sent.type} for {sent.account}, acknowledged {_clock(sent.acknowledged)}")
        )
    for message in checker.lying.get(pair, ()):
        state = "waits" if message.waiting else "read"
        due = f", due {_clock(message.due)}" if message.due else ""
        where = f"{message.topic}/{message.partition}/{message.offset}"
        suspect = ", suspect" if message.suspect else ""
        lines.append((message.written, f"in {where}: attempt {message.attempt}{due}{suspect}, {state}"))
    lines += [
        (seen.at, f"received attempt {seen.attempt}, gave {seen.gave} at {_clock(seen.gave_at)}")
        for seen in checker.seen.get(pair, ())
    ]
    for row in checker.rows.get(pair, ()):
        what = " ".join(str(part) for part in (row.state, row.status, row.error) if part is not None)
        lines.append((row.attempted, f"recorded attempt {row.attempt}: {what}, {row.duration_ms:.0f} ms"))
    if lines:
        first, last = min(lines)[0], max(lines)[0]
        lines += [
            (fault.began, f"FAULT {fault.kind} on {fault.target} until {_clock(fault.ended)}")
            for fault in checker.ledger.faults
            if fault.began - 5 <= last and first <= fault.ended + 15
        ]
    target = checker.targets.get(breach.webhook_id)
    title = f"\n{breach.rule}: {breach.detail}\n  {breach.event_id} → {breach.webhook_id} ({target.temper if target else '?'})"
    return "\n".join([title, *(f"  {_clock(at)} {text}" for at, text in sorted(lines))])


def _clock(at: float | None) -> str:
    return "never" if at is None else time.strftime("%H:%M:%S", time.gmtime(at)) + f".{int(at * 1000) % 1000:03d}"
