"""`go2hooks listen`: see what a receiver gets."""

import threading
from datetime import datetime
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

    from go2hooks.local.receiver import Received


def _check_secrets(_context: click.Context, _option: click.Parameter, secrets: tuple[str, ...]) -> tuple[str, ...]:
    from go2hooks.core.signing import standard_signature

    try:
        standard_signature(secrets, "", 0, b"")
    except ValueError as error:
        raise click.BadParameter("it is no secret: it begins with whsec_, and base64 follows") from error
    return secrets


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8900, show_default=True, help="Port; 0 takes a free one."
)
@click.option(
    "--secret", "secrets", multiple=True, help="The webhook's whsec_… secret, to verify with; may be repeated."
)
@click.option("--status", type=click.IntRange(200, 599), default=200, show_default=True, help="Status of every answer.")
@click.option(
    "--fail-first", type=click.IntRange(0), default=0, help="Answer 500 to the first N requests, to see retries."
)
def listen(host: str, port: int, secrets: tuple[str, ...], status: int, fail_first: int) -> None:
    """Receive webhooks on this machine, verify their signatures, and print them.

    Private addresses and plain http are refused as targets unless the dispatcher runs with
    GO2HOOKS_ALLOW_INSECURE_TARGETS=true.
    """
    from rich.console import Console

    from go2hooks.local.receiver import Receiver

    console = Console(highlight=False)
    printer = _Printer(console, secrets, status, fail_first)
    try:
        receiver = Receiver(host, port, printer.answer)
    except OSError as error:
        raise click.ClickException(
            f"Cannot listen on {host}:{port} ({error.strerror}). Choose another with --port."
        ) from error
    console.print(f"Listening on http://{host}:{receiver.port}/ · Ctrl-C stops.", markup=False)
    if not secrets:
        console.print("[yellow]Without --secret signatures are not verified.[/]")
    try:
        receiver.serve()
    except KeyboardInterrupt:
        console.print(f"{printer.count} requests received.")


class _Printer:
    """Answers and prints one request at a time, whatever connection it came by."""

    def __init__(self, console: "Console", secrets: tuple[str, ...], status: int, fail_first: int) -> None:
        self.count = 0
        self._console = console
        self._secrets = secrets
        self._status = status
        self._fail_first = fail_first
        self._lock = threading.Lock()

    def answer(self, received: "Received") -> int:
        with self._lock:
            self.count += 1
            status = 500 if self.count <= self._fail_first else self._status
            self._print(received, status)
        return status

    def _print(self, received: "Received", status: int) -> None:
        from rich.markup import escape

        header = received.headers.get
        colour = "green" if status < 300 else "red"  # noqa: PLR2004
        self._console.print(
            f"[dim]{datetime.now().astimezone():%H:%M:%S}[/] [bold]{escape(header('x-webhook-event', '?'))}[/]"
            f" attempt {escape(header('x-webhook-attempt', '?'))} of {escape(header('x-webhook-delivery', '?'))}"
            f" {self._verdict(received)} [{colour}]answered {status}[/]"
        )
        self._print_body(received.body)

    def _verdict(self, received: "Received") -> str:
        if not self._secrets:
            return "[yellow]not verified[/]"
        wrong = [name for name, right in received.verify(self._secrets).items() if not right]
        return f"[bold red]wrong {', '.join(wrong)}[/]" if wrong else "[green]both signatures right[/]"

    def _print_body(self, body: bytes) -> None:
        from rich.json import JSON

        try:
            self._console.print(JSON(body.decode()))
        except ValueError:  # neither JSON nor UTF-8: shown as it is
            self._console.print(repr(body), markup=False)
