"""What the pipeline needs of a sender."""

from collections.abc import Callable
from typing import Protocol

from go2hooks.core.domain.outcome import Response
from go2hooks.core.security.request import SignedRequest
from services.dispatcher.http.identity import Identity


class Sender(Protocol):
    """Carries signed requests to receivers."""

    async def send(self, request: SignedRequest, identity: Identity | None = None) -> Response:
        """POST it and read the answer, within the timeout in all. Raises nothing but CancelledError.

        Connections are shared only by requests with the same identity.

        An Answer has any status from 200 to 999, redirects included. It stands once its head has arrived. The body is
        read until it ends, breaks off, reaches its limit, or its time is up.
        """

    def send_now(self, request: SignedRequest, on_response: Callable[[Response], None]) -> bool:
        """POST it on an idle connection, without a task. False when there is none; then nothing has happened.

        `on_response` is called once, with what `send` would have returned, possibly before this returns. It must not
        raise.
        """
        ...

    def cork(self) -> None:
        """`send_now` may hold requests back until `uncork`, which must follow in the same iteration of the loop."""

    def uncork(self) -> None:
        """Write what was held back; `send_now` writes at once again."""

    async def close(self) -> None:
        """Interrupt what is under way and close every connection."""

    def connections(self) -> dict[str, int]:
        """Connections to receivers by state: `idle`, `busy`, `connecting`, as far as they are known. Any thread."""
        ...
