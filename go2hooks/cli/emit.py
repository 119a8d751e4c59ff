"""`go2hooks emit`: real Avro events into Kafka, made up or from JSON lines."""

import itertools
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from go2hooks.cli.event_lines import ANY, parse_line
from go2hooks.cli.stack import find_settings, stack_option
from go2hooks.core.domain.event import PRODUCED, Event, EventType
from go2hooks.core.domain.samples import sample_data
from go2hooks.core.errors import EventError, UnavailableError

if TYPE_CHECKING:
    from go2hooks.producer import EventProducer

_ERRORS_SHOWN = 20
_UTF16 = ("\udcff\udcfe", "\udcfe\udcff")  # a byte order mark, as `surrogateescape` leaves it


@click.command()
@click.argument("event", type=click.Choice([*(kind.value for kind in EventType), ANY]))
@click.option("--account", required=True, help="Account that the events belong to.")
@click.option("--count", type=click.IntRange(1), help="How many to make up.  [default: 1]")
@click.option(
    "--rate", type=click.FloatRange(0, min_open=True), help="Events per second.  [default: as fast as it goes]"
)
@click.option(
    "--file",
    "lines",
    type=click.File(encoding="utf-8-sig", errors="surrogateescape"),  # a line that is not UTF-8 fails alone
    help="Take them from JSON lines; - is standard input.",
)
@stack_option
def emit(
    event: str, account: str, count: int | None, rate: float | None, lines: IO[str] | None, data_dir: Path | None
) -> None:
    """Write events to Kafka: made up, or one per line of a file.

    EVENT is one event type, or `all`: made-up events then take turns, and lines have to name theirs. A line is
    {"id"?, "timestamp"?, "data"} or the payload form {"event", "timestamp", "data"}. A bad line is reported with its
    number, the others are sent, and the exit status is 1.
    """
    from go2hooks.producer import EventProducer

    if lines is not None and count is not None:
        raise click.UsageError("--count is for made-up events; a file has as many as it has lines.")
    settings = find_settings(data_dir)
    tally = _Tally()
    events = _made_up(event, account, count or 1) if lines is None else _from_lines(lines, event, account, tally)
    started = time.monotonic()
    try:
        with EventProducer.from_environment(settings, schema_dir=settings.schema_dir) as producer:
            _send(producer, _paced(events, rate), tally)
    except UnavailableError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{tally.sent} events are in Kafka, after {time.monotonic() - started:.2f} s.", err=True)
    if tally.failed:
        raise click.ClickException(f"{tally.failed} were not sent.")


@dataclass(slots=True)
class _Tally:
    sent: int = 0
    failed: int = 0

    def acknowledge(self, error: Exception | None) -> None:
        if error is None:
            self.sent += 1
        else:
            self.fail(str(error))

    def fail(self, why: str) -> None:
        self.failed += 1
        if self.failed <= _ERRORS_SHOWN:
            click.echo(why, err=True)


def _send(producer: "EventProducer", events: Iterator[Event], tally: _Tally) -> None:
    for event in events:
        try:
            producer.send(event, tally.acknowledge)
        except EventError as error:
            tally.fail(f"event {event.id}: {error}")


def _made_up(event: str, account: str, count: int) -> Iterator[Event]:
    from go2hooks.producer import new_event_id

    source = random.Random()  # noqa: S311  # sample data
    kinds = itertools.cycle(PRODUCED if event == ANY else [event])
    for kind in itertools.islice(kinds, count):
        yield Event(new_event_id(), account, str(kind), _now_ms(), sample_data(kind, source))


def _from_lines(lines: IO[str], event: str, account: str, tally: _Tally) -> Iterator[Event]:
    from go2hooks.producer import new_event_id

    for number, line in enumerate(lines, start=1):
        if number == 1 and line.startswith(_UTF16):
            raise click.ClickException(
                "The file is UTF-16: save it as UTF-8, or pass it through iconv -f UTF-16 -t UTF-8."
            )
        if not line.strip():
            continue
        try:
            yield parse_line(line, expected=event, account_id=account, new_id=new_event_id, now_ms=_now_ms())
        except EventError as error:
            tally.fail(f"line {number}: {error}")


def _paced(events: Iterator[Event], rate: float | None, sleep: Callable[[float], None] = time.sleep) -> Iterator[Event]:
    """Yield the nth event n / rate seconds after the first, however long sending took."""
    started = time.monotonic()
    for n, event in enumerate(events):
        if rate is not None and (ahead := started + n / rate - time.monotonic()) > 0:
            sleep(ahead)
        yield event


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
