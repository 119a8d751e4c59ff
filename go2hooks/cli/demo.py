"""`go2hooks demo`: the whole pipeline, live, and the proof that nothing was lost."""

import sys
from pathlib import Path

import click

_LONGEST_S = 30


@click.command()
@click.option("--events", type=click.IntRange(600, 5000), default=3000, show_default=True, help="How many to send.")
@click.option("--rate", type=click.FloatRange(100, 1000), default=300.0, show_default=True, help="Events per second.")
@click.option("--keep", is_flag=True, help="Leave the stack and its receiver running until Ctrl-C.")
@click.option("--picture", type=click.Path(path_type=Path, dir_okay=False), help="Save what it showed as an SVG.")
def demo(events: int, rate: float, keep: bool, picture: Path | None) -> None:  # noqa: FBT001  # click's flag
    """Send events of all types through the whole pipeline, and check every delivery.

    Starts a stack in a temporary directory, with nothing but this package, and creates webhooks whose receivers work,
    fail twice, or always fail. Exits with 0 only if everything arrived exactly as it had to: every delivery once,
    every retry with its number, every signature right, the broken webhook disabled, the rest recorded as skipped.
    """
    from rich.console import Console

    from go2hooks.demo.run import DemoOptions, run_demo
    from go2hooks.demo.screen import Screen

    if events / rate > _LONGEST_S:
        raise click.UsageError(
            f"{events} events at {rate:g} a second take too long: a demo sends for {_LONGEST_S} s at most."
        )
    screen = Screen(Console(highlight=False))
    try:
        problems = run_demo(DemoOptions(events=events, rate=rate, keep=keep), screen)
    except KeyboardInterrupt:
        raise click.ClickException("Stopped before it was over.") from None
    if picture is not None:
        screen.save(picture)
    sys.exit(1 if problems else 0)
