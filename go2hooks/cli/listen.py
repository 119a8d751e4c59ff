"""`go2hooks listen`: see what a receiver gets."""

import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from go2hooks.cli.stack import read_endpoints
from go2hooks.core.domain.event import SUBSCRIBABLE, WILDCARD

if TYPE_CHECKING:
    from go2hooks.cli.arrivals import Arrivals
    from go2hooks.listening.api_client import ApiClient
    from go2hooks.listening.forwarding import Forwarder
    from go2hooks.listening.temporary_webhook import TemporaryWebhook

_OF_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104  # what leads there from this machine
_KEY = re.compile(r"[!-~]+")
_HOW_TO_ALLOW = (
    "Set GO2HOOKS_ALLOW_INSECURE_TARGETS=true for the API and the dispatchers, which allows http and private addresses, "
    "or have a tunnel lead here and name its public https address with --url."
)


def _check_secrets(_context: click.Context, _option: click.Parameter, secrets: tuple[str, ...]) -> tuple[str, ...]:
    from go2hooks.core.security.signing import standard_signature

    try:
        standard_signature(secrets, "", 0, b"")
    except ValueError as error:
        raise click.BadParameter("it is no secret: it begins with whsec_, and base64 follows") from error
    return secrets


def _read_forward(_context: click.Context, _option: click.Parameter, url: str | None) -> "Forwarder | None":
    from go2hooks.listening.forwarding import Forwarder

    try:
        return None if url is None else Forwarder(url)
    except ValueError as error:
        raise click.BadParameter(f"it is no address to forward to: {error}") from error


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8900, show_default=True, help="Port; 0 takes a free one."
)
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    callback=_check_secrets,
    help="A webhook's whsec_… secret, to verify with; may be repeated.",
)
@click.option(
    "--forward",
    callback=_read_forward,
    metavar="URL",
    help="Hand each delivery on to URL, and answer what that answers.",
)
@click.option("--status", type=click.IntRange(200, 599), help="Status of every answer.  [default: 200]")
@click.option(
    "--fail-first", type=click.IntRange(0), default=0, help="Answer 500 to the first N requests, to see retries."
)
@click.option("--api", metavar="URL", help="Subscribe at this API, with a webhook that is removed at the end.")
@click.option("--key", metavar="KEY", help="API key for --api; asked for where it is missing.")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Subscribe at the API of the stack that `go2hooks up --data-dir DIR` runs.",
)
@click.option(
    "--event",
    "events",
    multiple=True,
    type=click.Choice([str(event) for event in SUBSCRIBABLE]),
    help="Event type to subscribe to; may be repeated.  [default: *]",
)
@click.option(
    "--webhook",
    metavar="ID",
    help="Subscribe as this webhook of the account does: the same events, filter and headers.",
)
@click.option(
    "--last",
    type=click.IntRange(1, 100),
    metavar="N",
    help="First receive the last N deliveries of --webhook once more.",
)
@click.option("--url", metavar="URL", help="Address that leads here, for the webhook.  [default: http://HOST:PORT/]")
def listen(
    host: str,
    port: int,
    secrets: tuple[str, ...],
    forward: "Forwarder | None",
    status: int | None,
    fail_first: int,
    api: str | None,
    key: str | None,
    data_dir: Path | None,
    events: tuple[str, ...],
    webhook: str | None,
    last: int | None,
    url: str | None,
) -> None:
    """Receive webhooks on this machine, verify their signatures, and print them.

    With --api or --data-dir it makes a webhook of its own and removes it at the end; otherwise make one that leads here.

    Private addresses and plain http are refused as targets unless API and dispatcher run with
    GO2HOOKS_ALLOW_INSECURE_TARGETS=true.
    """
    from rich.console import Console

    from go2hooks.cli.arrivals import Arrivals

    _refuse_contradictions(webhook, events, last, forwards=forward is not None, status=status)
    client = _find_api(api, key, data_dir)
    if client is None and (key or webhook or events or url):
        raise click.UsageError("--key, --webhook, --event and --url need an API: name it with --api or --data-dir.")
    console = Console(highlight=False, soft_wrap=True)
    arrivals = Arrivals(console, status or 200, fail_first, forward)
    with _until_asked_to_stop() as stop, _receiving(host, port, arrivals, forward) as here:
        console.print(f"Listening on {here} · Ctrl-C stops.", markup=False)
        if client is None:
            arrivals.begin(secrets)
            if not secrets:
                console.print("[yellow]Without --secret signatures are not verified.[/]")
            stop.wait()
        else:
            with _subscribed(client, url or here, webhook, events) as subscription:
                arrivals.begin((subscription.secret, *secrets))
                console.print(_welcome(subscription, forward), markup=False)
                if webhook is not None and last is not None:
                    _receive_again(client, webhook, last, subscription.secret, arrivals, stop)
                stop.wait()
    console.print(f"{arrivals.count} requests received.")


def _refuse_contradictions(
    webhook: str | None, events: tuple[str, ...], last: int | None, *, forwards: bool, status: int | None
) -> None:
    if forwards and status is not None:
        raise click.UsageError("With --forward the other server says the status: leave --status out.")
    if webhook is not None and events:
        raise click.UsageError("--webhook says which events: leave --event out.")
    if last is not None and webhook is None:
        raise click.UsageError("--last needs --webhook, whose deliveries they are.")


def _find_api(address: str | None, key: str | None, data_dir: Path | None) -> "ApiClient | None":
    """The API to create a webhook at; None to create none."""
    from go2hooks.listening.api_client import ApiClient

    if address is not None and data_dir is not None:
        raise click.UsageError("--api and --data-dir both name an API: leave one out.")
    if data_dir is not None:
        endpoints = read_endpoints(data_dir)
        address, key = endpoints["api"], key or endpoints["apiKey"]
    if address is None:
        return None
    key = (key or click.prompt("API key", hide_input=True, err=True)).strip()
    if _KEY.fullmatch(key) is None:
        raise click.BadParameter("it is no API key", param_hint="--key")
    try:
        return ApiClient(address, key)
    except ValueError as error:
        raise click.BadParameter(f"it is no API's address: {error}", param_hint="--api") from error


@contextmanager
def _until_asked_to_stop() -> Iterator[threading.Event]:
    """An event set by Ctrl-C, SIGTERM and SIGHUP. They interrupt nothing, so that a webhook is always removed."""
    stop = threading.Event()
    asking = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    numbers = [number for number in asking if signal.getsignal(number) is not signal.SIG_IGN]  # as nohup has it
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _receiving(host: str, port: int, arrivals: "Arrivals", forward: "Forwarder | None") -> Iterator[str]:
    """Run a receiver in a thread; yields its address."""
    from go2hooks.listening.receiver import Receiver

    try:
        receiver = Receiver(host, port, arrivals.answer)
    except OSError as error:
        raise click.ClickException(
            f"Cannot listen on {host}:{port} ({error.strerror}). Choose another with --port."
        ) from error
    threading.Thread(target=receiver.serve, name="receiver", daemon=True).start()
    try:
        if forward is not None and forward.leads_to(host, receiver.port):
            raise click.UsageError("--forward leads back to this listener: choose another --port.")
        reached = _OF_ANY_ADDRESS.get(host, host)
        yield f"http://{f'[{reached}]' if ':' in reached else reached}:{receiver.port}/"
    finally:
        receiver.close()


@contextmanager
def _subscribed(
    client: "ApiClient", url: str, webhook_id: str | None, events: tuple[str, ...]
) -> Iterator["TemporaryWebhook"]:
    """Create a webhook for this receiver. Raises ClickException with the remedy when the API refuses it."""
    from go2hooks.listening.api_client import ApiRefusedError
    from go2hooks.listening.temporary_webhook import fields_of, subscribed

    try:
        wanted = {"events": events or (WILDCARD,)} if webhook_id is None else fields_of(client, webhook_id)
        with subscribed(client, url, wanted) as subscription:
            yield subscription
    except ApiRefusedError as error:
        remedy = _HOW_TO_ALLOW if "url" in error.details else ""
        raise click.ClickException(f"{client.address} refuses: {error} {remedy}".rstrip()) from error


def _welcome(subscription: "TemporaryWebhook", forward: "Forwarder | None") -> str:
    line = f"The webhook {subscription.id} gets {', '.join(subscription.events)} until you stop."
    return line if forward is None else f"{line} {forward.url} verifies with {subscription.secret}"


def _receive_again(
    client: "ApiClient", webhook_id: str, number: int, secret: str, arrivals: "Arrivals", stop: threading.Event
) -> None:
    """Handle the webhook's last deliveries as if they arrived now."""
    from go2hooks.listening.past_deliveries import last_deliveries, receive_again

    for delivery_id in last_deliveries(client, webhook_id, number):
        if stop.is_set():
            return
        received = receive_again(client, webhook_id, delivery_id, secret, int(time.time()))
        if received is None:
            click.echo(f"{delivery_id} is not kept any more.")
        else:
            arrivals.answer(received)
