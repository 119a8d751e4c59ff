"""Runs the demo: stack, receiver, producer, checker and screen."""

import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.text import Text

from go2hooks import build
from go2hooks.core.errors import Go2HooksError, UnavailableError
from go2hooks.demo.checker import DemoChecker, DemoVerdict
from go2hooks.demo.control import Control, routed_webhooks
from go2hooks.demo.ledger import Account, Ledger
from go2hooks.demo.plan import SUBSCRIPTIONS
from go2hooks.demo.screen import Progress, Screen
from go2hooks.demo.sending import DemoSender
from go2hooks.demo.summary import summary
from go2hooks.devstack.supervisor import Stack, StackOptions, opened_stack
from go2hooks.listening.receiver import Received, Receiver
from go2hooks.settings import load_settings

SETTINGS: Final = {
    "GO2HOOKS_RETRY_DELAYS": "500ms,1s,2s,3s,4s",
    "GO2HOOKS_CIRCUIT_PROBE_MS": "100",
    "GO2HOOKS_ALLOW_INSECURE_TARGETS": "true",
}
_STEP_S: Final = 0.1

Endpoints = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class DemoOptions:
    """Options of `go2hooks demo`. `rate` is in events per second."""

    events: int
    rate: float
    keep: bool


def run_demo(options: DemoOptions, screen: Screen) -> list[str]:
    """Run it on servers of its own, in a temporary directory. Returns the problems. Main thread only.

    Removes GO2HOOKS_* from the environment (except for GO2HOOKS_BUILD): they may name production servers.
    Raises StackError or UnavailableError when the stack cannot start, or does not answer any more.
    """
    for name in [name for name in os.environ if name.startswith("GO2HOOKS_") and name != build.VARIABLE]:
        del os.environ[name]
    os.environ.update(SETTINGS)
    # With the default switch interval of 5 ms, drawing would delay the receiver's threads and count as latency.
    sys.setswitchinterval(0.0005)
    with _data_dir(screen) as data_dir, opened_stack(StackOptions(data_dir=data_dir), screen.note) as stack:
        return _run(options, screen, stack, data_dir)


def _run(options: DemoOptions, screen: Screen, stack: Stack, data_dir: Path) -> list[str]:
    endpoints = _start(stack, screen)
    deadline = time.monotonic() + 45.0  # comparing and stopping take a few seconds more
    control = Control(endpoints["api"], endpoints["apiKey"])
    ledger = Ledger()
    with _listening(ledger.take) as port:
        _subscribe(control, port, ledger)
        _wait_routed(endpoints, len(ledger.accounts), deadline)
        _introduce(options, screen)
        verdict = _play(options, screen, stack, endpoints, control, ledger, deadline)
        if verdict.problems:
            _keep_logs(data_dir, screen)
        _offer(options, screen, stack, endpoints, data_dir)
        if options.keep:
            _keep(stack, screen)
    return verdict.problems


def _start(stack: Stack, screen: Screen) -> Endpoints:
    screen.say("[bold]Go2 Webhooks[/]: a real Kafka, a real Postgres, API, router and dispatcher, on this machine")
    started = time.monotonic()
    with screen.waiting("Starting …"):
        stack.start()
        while (endpoints := stack.step(time.monotonic())) is None:
            time.sleep(_STEP_S)
    screen.say(f"[green]✓[/] The stack is up, after {time.monotonic() - started:.1f} s.")
    return endpoints


def _subscribe(control: Control, port: int, ledger: Ledger) -> None:
    for subscription in SUBSCRIPTIONS:
        path = f"/{subscription.slug}"
        webhook = control.create(subscription.name, f"http://127.0.0.1:{port}{path}", subscription.events)
        ledger.open(path, Account(subscription, webhook["id"], webhook["secret"]))


def _wait_routed(endpoints: Endpoints, count: int, deadline: float) -> None:
    """Wait until the router knows all webhooks: events that were sent before need not reach them."""
    (router,) = endpoints["metrics"]["router"]
    while routed_webhooks(router) < count:
        if time.monotonic() > deadline:
            raise UnavailableError("The router does not hear of new webhooks.")
        time.sleep(_STEP_S)


def _introduce(options: DemoOptions, screen: Screen) -> None:
    screen.say(
        f"[green]✓[/] {len(SUBSCRIPTIONS)} webhooks are created through the REST API. "
        f"{options.events:,} events follow, {options.rate:,.0f} a second."
    )
    screen.say(
        "[dim]  Shortened, so that nobody has to wait: retries come after "
        f"{SETTINGS['GO2HOOKS_RETRY_DELAYS'].replace(',', ', ')} (not 5s, 30s, 2m, 10m, 1h)\n"
        f"  and a failing receiver is probed after {SETTINGS['GO2HOOKS_CIRCUIT_PROBE_MS']} ms (not 1 s).[/]"
    )


def _play(
    options: DemoOptions,
    screen: Screen,
    stack: Stack,
    endpoints: Endpoints,
    control: Control,
    ledger: Ledger,
    deadline: float,
) -> DemoVerdict:
    progress = Progress(options.events)
    sending = DemoSender(endpoints["kafka"], endpoints["account"], ledger, count=options.events, rate=options.rate)
    sending.start()
    try:
        verdict = DemoChecker(stack, control, ledger, screen, progress, load_settings()).watch(sending, deadline)
    finally:
        screen.end(ledger, progress)
        sending.stop()
    screen.put(summary(ledger, verdict.histories, verdict.problems, sending_s=sending.took_s))
    return verdict


def _offer(options: DemoOptions, screen: Screen, stack: Stack, endpoints: Endpoints, data_dir: Path) -> None:
    if not options.keep:
        screen.say(
            f"\nThe API was at {endpoints['api']}; everything stops now. To look around, leave it running:\n"
            "  make demo ARGS=--keep\n"
            "It prints a link to the dashboard, and a key for the API:\n"
            f'  curl -H "Authorization: Bearer $KEY" {endpoints["api"]}/webhooks'
        )
        return
    screen.say(f"\nEverything keeps running until Ctrl-C. The API is at {endpoints['api']}. Try:")
    for command in (
        f'curl -H "Authorization: Bearer {endpoints["apiKey"]}" {endpoints["api"]}/webhooks',
        f"{_program()} emit click --account {endpoints['account']} --count 10 --data-dir {data_dir}",
    ):
        screen.put(Text(f"  {command}"))
    if (link := stack.sign_in_link()) is not None:
        screen.say(
            "The dashboard shows these webhooks and every delivery. This link signs you in, once, within 5 minutes:"
        )
        screen.put(Text(f"  {link}"))


def _program() -> str:
    """The command that the user typed: `make demo` does not put `go2hooks` on the PATH."""
    called = Path(sys.argv[0])
    return str(called) if called.name == "go2hooks" else "go2hooks"


def _keep(stack: Stack, screen: Screen) -> None:
    try:
        while True:
            stack.step(time.monotonic())
            time.sleep(_STEP_S)
    except KeyboardInterrupt:
        screen.say("Stopping.")


@contextmanager
def _data_dir(screen: Screen) -> Iterator[Path]:
    """A temporary directory. After a failure the logs are kept."""
    data_dir = Path(tempfile.mkdtemp(prefix="go2hooks-demo-"))
    try:
        yield data_dir
    except Go2HooksError:
        _keep_logs(data_dir, screen)
        raise
    finally:
        shutil.rmtree(data_dir, ignore_errors=True)


def _keep_logs(data_dir: Path, screen: Screen) -> None:
    kept = data_dir.with_name(f"{data_dir.name}-logs")
    shutil.copytree(data_dir / "logs", kept, dirs_exist_ok=True)
    screen.say(f"The logs of this run: {kept}")


@contextmanager
def _listening(answer: Callable[[Received], int]) -> Iterator[int]:
    """Run a receiver on a free port; yields the port."""
    receiver = Receiver("127.0.0.1", 0, answer)
    threading.Thread(target=receiver.serve, name="receiver", daemon=True).start()
    try:
        yield receiver.port
    finally:
        receiver.close()
