"""How `go2hooks listen` handles a request: it answers or forwards it, and prints both."""

import threading
import time
from datetime import datetime
from typing import TYPE_CHECKING, Final

from go2hooks.core.errors import UnavailableError
from go2hooks.listening.receiver import LocalReply, Received

if TYPE_CHECKING:
    from rich.console import Console

    from go2hooks.listening.forwarding import Forwarder

_FAILED: Final = LocalReply(500)


class Arrivals:
    """Handles requests of several threads at once; the lines of one are printed together."""

    def __init__(self, console: "Console", status: int, fail_first: int, forward: "Forwarder | None") -> None:
        self.count = 0
        self._console = console
        self._reply = LocalReply(status)
        self._fail_first = fail_first
        self._forward = forward
        self._secrets: tuple[str, ...] = ()
        self._may_begin = threading.Event()
        self._lock = threading.Lock()

    def begin(self, secrets: tuple[str, ...]) -> None:
        """Set the secrets. Earlier requests wait for them: a webhook's first delivery may arrive before its secret."""
        self._secrets = secrets
        self._may_begin.set()

    def answer(self, received: Received) -> LocalReply:
        """Answer the request, or block until the target server has answered."""
        arrived = time.time()
        self._may_begin.wait()
        with self._lock:
            self.count += 1
            fail = self.count <= self._fail_first
        reply, how = (_FAILED, "answered 500") if fail else self._find_reply(received)
        with self._lock:
            self._print(received, arrived, reply, how)
        return reply

    def _find_reply(self, received: Received) -> tuple[LocalReply, str]:
        """The reply, and a phrase that says where it is from."""
        if self._forward is None:
            return self._reply, f"answered {self._reply.status}"
        begun = time.monotonic()
        try:
            reply = self._forward.forward(received)
        except UnavailableError as error:
            return LocalReply(502), f"answered 502: {error}"
        return reply, f"{self._forward.url} answered {reply.status} in {_duration(time.monotonic() - begun)}"

    def _print(self, received: Received, arrived: float, reply: LocalReply, how: str) -> None:
        from rich.markup import escape

        header = received.headers.get
        colour = "green" if reply.status < 300 else "red"  # noqa: PLR2004
        self._console.print(
            f"[dim]{datetime.fromtimestamp(arrived).astimezone():%H:%M:%S}[/]"
            f" [bold]{escape(header('x-webhook-event', '?'))}[/]"
            f" attempt {escape(header('x-webhook-attempt', '?'))} of {escape(header('x-webhook-delivery', '?'))}"
            f"{_age(header('x-webhook-timestamp', ''), arrived)}"
            f" {self._verdict(received)} [{colour}]{escape(how)}[/]"
        )
        self._print_body(received.body)
        if reply.body and reply.status >= 300:  # noqa: PLR2004
            said = reply.body[:300].decode(errors="replace")
            self._console.print(f"The answer: {said}", style="red", markup=False)

    def _verdict(self, received: Received) -> str:
        if not self._secrets:
            return "[yellow]not verified[/]"
        wrong = [name for name, right in received.verify(self._secrets).items() if not right]
        return f"[bold red]wrong {', '.join(wrong)}[/]" if wrong else "[green]both signatures right[/]"

    def _print_body(self, body: bytes) -> None:
        from rich.json import JSON

        try:
            self._console.print(JSON(body.decode()))
        except ValueError:  # neither JSON nor UTF-8: printed as repr
            self._console.print(repr(body), markup=False)


def _age(timestamp: str, arrived: float) -> str:
    """The time from the event to the request, by both machines' clocks; empty without a timestamp."""
    try:
        happened = datetime.fromisoformat(timestamp).timestamp()
    except (ValueError, OverflowError):
        return ""
    return f" {_duration(arrived - happened)} after the event"


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if abs(seconds) < 10 else f"{seconds:,.0f} s"  # noqa: PLR2004
