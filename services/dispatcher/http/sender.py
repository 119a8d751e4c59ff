"""What the pipeline asks of a sender, whichever it is."""

from collections.abc import Callable
from typing import Protocol

from go2hooks.core.domain.outcome import Response
from go2hooks.core.security.request import SignedRequest
from services.dispatcher.http.identity import Identity


class Sender(Protocol):
    """Carries signed requests to receivers."""

    async def send(self, request: SignedRequest, identity: Identity | None = None) -> Response:
        """POST it and read the answer, within the timeout in all. Raises nothing but CancelledError.

        With an identity, on a connection that was made under it; without one, on a connection that was made without.

        An Answer has any status from 200 to 999, redirects included. It stands once its head has arrived, whatever becomes
        of the body: that is waited for until it ends, breaks off, is longer than the limit, or its time is up.
        """

    def send_now(self, request: SignedRequest, on_response: Callable[[Response], None]) -> bool:
        """POST it on a connection that is open and idle, without a task; False, and nothing done, when there is none.

        `on_response` is called once, with what `send` would have returned: later, or before this returns. Must not raise.
        """
        ...

    def cork(self) -> None:
        """From now on `send_now` may keep requests, so that they leave together. The event loop must not run before `uncork`."""

    def uncork(self) -> None:
        """What was kept leaves; `send_now` writes at once again."""

    async def close(self) -> None:
        """Interrupt what is under way and close every connection."""

    def connections(self) -> dict[str, int]:
        """Connections to receivers by state: `idle`, `busy`, `connecting`, as far as they are known. Any thread."""
        ...
