"""`go2hooks dead`: look at what could not be delivered or read, and send it back after a fix."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from go2hooks.cli.stack import connect_database, find_settings, stack_option

if TYPE_CHECKING:
    from go2hooks.codec import EventCodec
    from go2hooks.kafka.dead import DeadMessage, WayBack
    from go2hooks.kafka.reading import LogReader
    from go2hooks.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])

_POSITION = re.compile(r"(events|deliveries)/(\d+)/(\d+)")


def read_moment(_context: click.Context, _option: click.Parameter, text: str | None) -> datetime | None:
    """A time, or how long ago: `2026-01-31T12:00:00Z`, `2h`, `7d`."""
    from go2hooks.settings import parse_duration_s

    if text is None:
        return None
    with suppress(ValueError):  # no duration: perhaps a time
        return datetime.now(UTC) - timedelta(seconds=parse_duration_s(text))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter("write a time such as 2026-01-31T12:00:00Z, or a duration such as 2h") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A filter for dead letters; None or an empty value does not filter."""

    kind: str
    reason: str | None
    since: datetime | None
    until: datetime | None
    webhook: str | None
    positions: frozenset[str] = frozenset()

    def has(self, letter: "DeadMessage") -> bool:
        delivery = letter.delivery() if self.webhook else None
        return (
            (not self.positions or letter.name in self.positions)
            and (self.reason is None or letter.reason == self.reason)
            and (self.until is None or letter.time_ms < self.until.timestamp() * 1000)
            and (self.webhook is None or (delivery is not None and delivery.webhook_id == self.webhook))
        )


def filter_options(function: F) -> F:
    """The filters that `list` and `requeue` share."""
    for option in (
        click.option("--webhook", help="Only deliveries of this webhook."),
        click.option("--until", callback=read_moment, help="Only what was buried before this time."),
        click.option("--since", callback=read_moment, help="Only what was buried at this time or later."),
        click.option("--reason", help="Only this reason, such as undecodable, timeout, bad_status."),
    ):
        function = option(function)
    return function


@click.group()
def dead() -> None:
    """Look at dead letters, and send them back after a fix.

    go2.events.dead holds events that could not be read; go2.deliveries.dead holds deliveries whose schedule ended
    without success. Both keep them as long as Kafka does (GO2HOOKS_LOG_RETENTION_DAYS).
    """


@dead.command("list")
@click.argument("kind", type=click.Choice(["events", "deliveries"]))
@filter_options
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="The newest so many.")
@stack_option
def list_(kind: str, limit: int, data_dir: Path | None, **filters: Any) -> None:
    """List dead letters, oldest first: position, time, reason, and what they are."""
    from collections import deque

    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from go2hooks.codec import EventCodec
    from go2hooks.kafka.dead import told_time
    from go2hooks.kafka.reading import LogReader

    settings = find_settings(data_dir)
    codec = EventCodec(settings.schema_dir)
    table = Table("position", "buried", "reason", "what", "sent back")
    with LogReader(settings) as reader:
        found = _find(settings, reader, Wanted(kind, **filters))
        newest = deque(found, maxlen=limit)
    for letter in newest:
        reason, what = escape(_visible(letter.reason)), escape(_visible(_summary(letter, codec)))
        table.add_row(letter.name, told_time(letter.time_ms), reason, what, told_time(letter.sent_back_ms))
    console = Console()
    if not console.is_terminal:
        console.width = 300  # a pipe has no width: each row stays on one line
    console.print(table)
    click.echo(f"{len(newest)} shown.", err=True)


@dead.command()
@click.argument("position")
@stack_option
def show(position: str, data_dir: Path | None) -> None:
    """Show one dead letter, decoded where that is possible. POSITION is as `list` gives it: deliveries/0/17."""
    from go2hooks.codec import EventCodec
    from go2hooks.kafka.dead import describe
    from go2hooks.kafka.reading import LogReader

    settings = find_settings(data_dir)
    codec = EventCodec(settings.schema_dir)
    with LogReader(settings) as reader:
        letter = next(_find(settings, reader, _at(position)), None)
    if letter is None:
        raise click.ClickException(f"There is nothing at {position} (any more).")
    for name, value in describe(letter, codec):
        click.echo(f"{name + ':':<12} {_visible(value)}")


@dead.command()
@click.argument("positions", nargs=-1)
@click.option("--kind", type=click.Choice(["events", "deliveries"]), help="All of these that the filters leave.")
@filter_options
@click.option("--again", is_flag=True, help="Also those that were sent back before.")
@click.option("--yes", is_flag=True, help="Do it; without this, only say what would be done.")
@stack_option
def requeue(
    positions: tuple[str, ...],
    kind: str | None,
    again: bool,  # noqa: FBT001  # click's flag
    yes: bool,  # noqa: FBT001  # likewise
    data_dir: Path | None,
    **filters: Any,
) -> None:
    """Send dead letters back to where they came from: those at POSITIONS, or all of a --kind that the filters leave.

    Events go back to their topic as they came. Deliveries go through the whole schedule once more, with the same id, so
    receivers recognise them; their attempts are numbered on (7, 8, …). What was sent back before is left out.
    """
    from go2hooks.codec import EventCodec
    from go2hooks.kafka.dead import WayBack
    from go2hooks.kafka.reading import LogReader
    from go2hooks.postgres.attempts.standings import last_attempt

    if bool(positions) == bool(kind):
        raise click.UsageError("Name positions, or a --kind with filters.")
    wanted = [_at(position) for position in positions] or [Wanted(str(kind), **filters)]
    settings = find_settings(data_dir)
    codec = EventCodec(settings.schema_dir)
    with LogReader(settings) as reader, ExitStack() as stack:
        found = (letter for one in wanted for letter in _find(settings, reader, one))
        letters = (letter for letter in found if again or letter.sent_back_ms is None)
        if not yes:
            _announce(letters, codec)
            return
        connection = stack.enter_context(connect_database(data_dir))
        way = WayBack(settings, lambda delivery: last_attempt(connection, delivery))
        _send_back(letters, way)


def _announce(letters: Iterator["DeadMessage"], codec: "EventCodec") -> None:
    count = 0
    for count, letter in enumerate(letters, start=1):  # noqa: B007  # counted for the last line
        click.echo(_visible(f"{letter.name}  {letter.reason}  {_summary(letter, codec)}"))
    click.echo(f"{count} would be sent back. Add --yes to do it.", err=True)


def _send_back(letters: Iterator["DeadMessage"], way: "WayBack") -> None:
    sent, stuck = 0, []
    for letter in letters:
        if way.send(letter) is None:
            stuck.append(letter.name)
        else:
            sent += 1
    click.echo(f"{sent} sent back.", err=True)
    if stuck:
        raise click.ClickException(
            f"Nobody knows where these came from, or they were too large to be kept: {', '.join(stuck[:20])}"
        )


def _find(settings: "Settings", reader: "LogReader", wanted: Wanted) -> Iterator["DeadMessage"]:
    from go2hooks.kafka.dead import dead_topic, read_dead

    since_ms = round(wanted.since.timestamp() * 1000) if wanted.since else 0
    topic = dead_topic(wanted.kind, settings.kafka_prefix)
    return (letter for letter in read_dead(reader, topic, since_ms) if wanted.has(letter))


def _at(position: str) -> Wanted:
    match = _POSITION.fullmatch(position)
    if match is None:
        raise click.BadParameter(f"{position!r} is no position: copy one from `go2hooks dead list`")
    return Wanted(match[1], None, None, None, None, frozenset((position,)))


def _visible(text: str) -> str:
    """Escape control characters, by which a message could control the terminal or forge a line."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _summary(letter: "DeadMessage", codec: "EventCodec") -> str:
    delivery = letter.delivery()
    if delivery is not None:
        return f"{delivery.id} of {delivery.event} to {delivery.webhook_id}, {delivery.attempt} attempts"
    event = letter.event(codec)
    return f"{event.type} {event.id} of {event.account_id}" if event is not None else letter.detail
