"""The demo's final summary."""

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from go2hooks.core.domain.outcome import State
from go2hooks.demo.ledger import Account, Ledger, percentile
from go2hooks.demo.plan import Behaviour
from go2hooks.demo.screen import all_latencies, in_ms
from go2hooks.demo.verdict import History


def summary(
    ledger: Ledger, histories: Mapping[str, History], problems: Sequence[str], *, sending_s: float
) -> RenderableType:
    """The lines of the summary. `histories` is by webhook id; one may be missing when the API did not answer."""
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column()
    for label, text in _facts(ledger, histories, sending_s):
        facts.add_row(label, text)
    return Group(Padding(facts, (0, 0, 1, 2)), _verdict(problems))


def _facts(ledger: Ledger, histories: Mapping[str, History], sending_s: float) -> Iterator[tuple[str, str]]:
    accounts = ledger.accounts
    working = [account for account in accounts if account.subscription.behaviour is not Behaviour.BROKEN]
    due = sum(len(account.expected) for account in working)
    requests = sum(account.requests for account in accounts)
    types = {entry.event for account in accounts for entry in account.expected.values()}
    yield "Sent", f"{ledger.sent:,} events of {len(types)} types in {sending_s:.1f} s"
    yield (
        "Delivered",
        f"{sum(account.delivered for account in working):,} of {due:,} deliveries to receivers that work",
    )
    yield "Verified", f"{requests:,} requests: both signatures, the headers, every byte of the body"
    yield "Retried", _retried(working)
    yield "Disabled", _disabled(accounts, histories)
    yield "Told", _told(working)
    yield "Latency", f"from produce to arrival: {_latency(all_latencies(accounts))}"
    yield "", f"once warm, in the second half: {_latency(all_latencies(accounts, since=0.5))}"


def _told(working: Sequence[Account]) -> str:
    events = [event for account in working for event in account.told.values()]
    hearers = [f"“{account.subscription.name}”" for account in working if account.told]
    return f"{' and '.join(sorted(events))} to {', '.join(hearers)}" if events else "nothing"


def _retried(working: Sequence[Account]) -> str:
    chains = [entry.attempts for account in working for entry in account.expected.values() if len(entry.attempts) > 1]
    kinds = " and ".join(" → ".join(map(str, kind)) for kind in sorted({tuple(chain) for chain in chains}))
    return f"{len(chains)} deliveries, attempts {kinds}" if chains else "none"


def _disabled(accounts: Sequence[Account], histories: Mapping[str, History]) -> str:
    told = []
    for account in accounts:
        history = histories.get(account.webhook_id)
        if history is not None and not history.webhook["isActive"]:
            skipped = sum(shown["status"] == State.SKIPPED for shown in history.deliveries.values())
            reason = history.webhook["disabledReason"]
            told.append(f"“{account.subscription.name}”, {reason}; {skipped:,} deliveries recorded as skipped")
    return "; ".join(told) or "none"


def _latency(ascending: list[float]) -> str:
    return " · ".join(f"p{share} {in_ms(percentile(ascending, share / 100))} ms" for share in (50, 95, 99))


def _verdict(problems: Sequence[str]) -> RenderableType:
    if not problems:
        return Text("✓ Everything arrived exactly as it had to.", style="bold green")
    lines = [Text("✗ Not everything is as it had to be:", style="bold red")]
    lines += [Text(f"  {problem}", style="red") for problem in problems[:20]]
    return Group(*lines)
