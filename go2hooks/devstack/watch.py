"""Keeps one server running: starts it again when it dies, later each time it dies soon."""

from collections.abc import Callable
from typing import Final

from go2hooks.devstack.server import Server

FIRST_BACKOFF_S: Final = 0.2
LAST_BACKOFF_S: Final = 5.0
_STEADY_AFTER_S: Final = 30.0


class Watch:
    """`step` looks at the server once; nothing happens in between. `now` is the monotonic clock's, in seconds."""

    def __init__(self, server: Server, report: Callable[[str], None]) -> None:
        self.server = server
        self.ready = False
        self._report = report
        self._backoff_s = FIRST_BACKOFF_S
        self._restart_at: float | None = None
        self._started_at = float("-inf")

    def step(self, now: float) -> bool:
        """Notice a death, start again when the time has come, ask whether it is ready. True: it has a new process."""
        if self._restart_at is not None:
            return now >= self._restart_at and self._restart(now)
        if self.server.exit_status() is not None:
            self._mourn(now)
        elif not self.ready:
            self.ready = self.server.is_ready()
            if self.ready:
                self._report(f"{self.server.name} is ready (process {self.server.pid})")
        return False

    def _mourn(self, now: float) -> None:
        if now - self._started_at > _STEADY_AFTER_S:
            self._backoff_s = FIRST_BACKOFF_S
        self.ready = False
        self._restart_at = now + self._backoff_s
        self._report(f"{self.server.obituary()}\nStarting {self.server.name} again in {self._backoff_s:g} s.")
        self._backoff_s = min(self._backoff_s * 2, LAST_BACKOFF_S)

    def _restart(self, now: float) -> bool:
        self._restart_at = None
        self._started_at = now
        self.server.start()
        return True
