"""The demo's output: a live table on a terminal, else a line every two seconds."""

import re
import time
from collections import deque
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from io import StringIO
from itertools import compress
from pathlib import Path
from typing import Final

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from go2hooks.demo.ledger import Account, Ledger, percentile
from go2hooks.demo.plan import Behaviour

_LINE_EVERY_S: Final = 2.0
_DECIMALS_BELOW_MS: Final = 100
_RATE_OVER_S: Final = 1.5
_WIDE: Final = 110  # columns that the whole table takes
_WIDE_ONLY: Final = ("events", "", "requests", "per s")
_LAST_HEADERS: Final = ("retries", "p50 ms", "p99 ms", "state")
_NUMBERS: Final = ("delivered", "requests", "per s", "retries", "p50 ms", "p99 ms")


DONE: Final = "Done"


@dataclass(slots=True)
class Progress:
    """The progress that is not in the ledger."""

    total: int  #: events to send
    phase: str = "Sending"
    disabled: set[str] = field(default_factory=set)  #: ids of webhooks
    skipped: dict[str, int] = field(default_factory=dict)  #: deliveries recorded as skipped, by webhook


class Screen:
    """Shows progress: live if `console` is a terminal, else line by line."""

    def __init__(self, console: Console) -> None:
        self.live = console.is_terminal
        self._console = console
        self._picture: Live | None = None
        self._shown: list[RenderableType] = []
        self._line_at = 0.0
        self._rates: dict[str, _Rate] = {}

    def say(self, text: str) -> None:
        """Text with rich's markup."""
        self.put(Text.from_markup(text))

    def note(self, line: str) -> None:
        """One line of the stack's own report, or of progress."""
        self.put(Text(f"  {line}", style="dim"))

    def put(self, shown: RenderableType) -> None:
        self._shown.append(shown)
        self._console.print(shown, soft_wrap=isinstance(shown, Text))

    def waiting(self, text: str) -> AbstractContextManager[object]:
        """Show a spinner while the block runs, on a terminal."""
        return self._console.status(text) if self.live else nullcontext()

    def show(self, ledger: Ledger, progress: Progress) -> None:
        """Update the table; without a terminal, print a line every two seconds."""
        if not self.live:
            self._show_line(ledger, progress)
            return
        if self._picture is None:
            self._picture = Live(console=self._console, auto_refresh=False)
            self._picture.start()
        self._picture.update(self.picture(ledger, progress), refresh=True)

    def end(self, ledger: Ledger, progress: Progress) -> None:
        """Show the last table and stop updating."""
        last = self.picture(ledger, progress)
        self._shown.append(self.picture(ledger, progress, _WIDE))
        if self._picture is not None:
            self._picture.update(last, refresh=True)
            self._picture.stop()
        else:
            self._console.print(last)

    def save(self, path: Path) -> None:
        """Save the output as an SVG that loads no font."""
        paper = Console(record=True, width=_WIDE, file=StringIO(), force_terminal=True, highlight=False)
        for shown in self._shown:
            paper.print(shown)
        drawn = re.sub(r"@font-face \{.*?\}\s*", "", paper.export_svg(title="make demo"), flags=re.DOTALL)
        path.write_text(drawn, encoding="utf-8")

    def picture(self, ledger: Ledger, progress: Progress, width: int | None = None) -> RenderableType:
        """The present table; a narrow terminal gets the essential columns."""
        now, done = time.monotonic(), progress.phase == DONE
        wide = (width or self._console.width) >= _WIDE
        headers = ("webhook", "events", "", "delivered", "requests" if done else "per s", *_LAST_HEADERS)
        kept = [wide or header not in _WIDE_ONLY for header in headers]
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), header_style="bold")
        for header in compress(headers, kept):
            table.add_column(header, justify="right" if header in _NUMBERS else "left", no_wrap=True)
        for account in ledger.accounts:
            rate = self._rates.setdefault(account.webhook_id, _Rate()).over(account.requests, now)
            table.add_row(*compress(_row(account, account.requests if done else rate, progress), kept))
        return Group(Padding(_progress_line(ledger, progress), (1, 0, 0, 2)), Padding(table, (0, 0, 0, 1)))

    def _show_line(self, ledger: Ledger, progress: Progress) -> None:
        if time.monotonic() - self._line_at < _LINE_EVERY_S:
            return
        self._line_at = time.monotonic()
        arrived = sum(account.requests for account in ledger.accounts)
        latencies = all_latencies(ledger.accounts)
        self.note(
            f"{progress.phase}: {ledger.sent:,} of {progress.total:,} events sent, {arrived:,} requests received, "
            f"p50 {in_ms(percentile(latencies, 0.5))} ms, p99 {in_ms(percentile(latencies, 0.99))} ms"
        )


class _Rate:
    """Requests per second, over the last moments."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def over(self, requests: int, now: float) -> float:
        self._seen.append((now, requests))
        while now - self._seen[0][0] > _RATE_OVER_S:
            self._seen.popleft()
        since, before = self._seen[0]
        return (requests - before) / (now - since) if now > since else 0.0


def all_latencies(accounts: Sequence[Account], *, since: float = 0.0) -> list[float]:
    """First attempts' latencies at working receivers, ascending, in milliseconds; `since` skips a share of each's first."""
    working = (account for account in accounts if account.subscription.behaviour is not Behaviour.BROKEN)
    return sorted(latency for account in working for latency in _tail(account.latencies_ms, since))


def _tail(latencies: list[float], since: float) -> list[float]:
    return latencies[int(len(latencies) * since) :]


def in_ms(latency_ms: float) -> str:
    """Milliseconds as text, with a decimal below 100."""
    return f"{latency_ms:.1f}" if latency_ms < _DECIMALS_BELOW_MS else f"{latency_ms:,.0f}"


def _progress_line(ledger: Ledger, progress: Progress) -> RenderableType:
    line = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=progress.total, completed=ledger.sent, width=40)
    line.add_row(Text(progress.phase, style="bold"), bar, f"{ledger.sent:,} of {progress.total:,} events")
    return line


def _row(account: Account, requests: float, progress: Progress) -> tuple[RenderableType, ...]:
    subscription = account.subscription
    latencies = sorted(account.latencies_ms)
    broken = subscription.behaviour is Behaviour.BROKEN
    done = progress.skipped.get(account.webhook_id, 0) if broken else account.delivered
    bar = ProgressBar(
        total=max(1, len(account.expected)),
        completed=done,
        width=10,
        complete_style="yellow" if broken else "cyan",
        finished_style="yellow" if broken else "green",
    )
    return (
        Text(subscription.name, style="bold"),
        Text(_events(subscription.events), style="cyan"),
        bar,
        f"{account.delivered:,}",
        f"{requests:,.0f}",
        f"{account.retries:,}" if account.retries else "",
        *(("", "") if broken else (in_ms(percentile(latencies, share)) for share in (0.5, 0.99))),
        _state(account, progress),
    )


def _events(events: Sequence[str]) -> str:
    """The webhook's events, `link.created, link.updated, link.deleted` shortened to `link.*`."""
    families = {event.partition(".")[0] for event in events}
    return f"{families.pop()}.*" if len(events) > 1 and len(families) == 1 else ", ".join(events)


def _state(account: Account, progress: Progress) -> Text:
    if account.webhook_id in progress.disabled:
        return Text("disabled", style="yellow")
    if account.subscription.behaviour is Behaviour.BROKEN:
        return Text("failing", style="red")
    if account.expected and all(entry.complete for entry in list(account.expected.values())):
        return Text("all arrived", style="green")
    return Text("")
