"""Restarts one server when it dies, after a pause that grows while it keeps dying."""

from collections.abc import Callable
from typing import Final

from go2hooks.devstack.server import Server


class Watch:
    """`step` checks the server once; nothing runs in between. `now` is of the monotonic clock, in seconds."""

    first_pause_s: Final = 0.2  #: before a restart; it doubles with each death that comes soon
    longest_pause_s: Final = 5.0
    steady_after_s: Final = 30.0  #: a server that ran for this long begins with the first pause again

    def __init__(self, server: Server, report: Callable[[str], None]) -> None:
        self.server = server
        self.ready = False
        self._report = report
        self._pause_s = self.first_pause_s
        self._restart_at: float | None = None
        self._started_at = float("-inf")

    def step(self, now: float) -> bool:
        """Notice that the server died, restart it after the pause, ask whether it is ready. True: it has a new process."""
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
        if now - self._started_at > self.steady_after_s:
            self._pause_s = self.first_pause_s
        self.ready = False
        self._restart_at = now + self._pause_s
        self._report(f"{self.server.obituary()}\nStarting {self.server.name} again in {self._pause_s:g} s.")
        self._pause_s = min(self._pause_s * 2, self.longest_pause_s)

    def _restart(self, now: float) -> bool:
        self._restart_at = None
        self._started_at = now
        self.server.start()
        return True
