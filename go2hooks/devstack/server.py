"""The base of Kafka, Postgres and our services as child processes."""

import signal
import time
from abc import ABC, abstractmethod
from types import TracebackType
from typing import ClassVar, Final, Self

from go2hooks.devstack.errors import StackError
from go2hooks.devstack.processes import Child, Command, describe_exit, sleep_until

_DISK_FULL: Final = "No space left on device"


class Server(ABC):
    """One server process: `start` returns at once, `is_ready` asks it, `stop` waits until it has ended.

    As a context manager it is started, ready inside the block, and stopped after it.
    """

    start_timeout_s: ClassVar[float] = 180.0  # on a busy machine; one that dies is noticed at once
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    stop_timeout_s: float = 20.0

    def __init__(self, name: str) -> None:
        self.name = name
        self._child: Child | None = None

    @abstractmethod
    def _prepare(self) -> Command:
        """Prepare a start, and return the command to run."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Ask the server whether it serves; takes two seconds at most."""

    @property
    def pid(self) -> int | None:
        return None if self._child is None else self._child.pid

    def start(self) -> None:
        """Start it, in the main thread, without waiting for it to be ready. Raises StackError or OSError."""
        self._child = Child.start(self._prepare())

    def exit_status(self) -> int | None:
        """None while it runs, or when it was never started."""
        return None if self._child is None else self._child.exit_status()

    def wait_ready(self) -> None:
        """Block until it serves. Raises StackError, with its last words, when it dies or takes too long."""
        deadline = time.monotonic() + self.start_timeout_s
        while not self.is_ready():
            if self.exit_status() is not None:
                raise StackError(self.obituary())
            if not sleep_until(deadline):
                raise StackError(
                    f"{self.name} was not ready after {self.start_timeout_s:.0f} s. Its last lines:\n{self._last_lines()}"
                )

    def ask_to_stop(self) -> None:
        if self._child is not None and self.exit_status() is None:
            self._child.send(self.stop_signal)

    def wait_stopped(self, timeout_s: float) -> None:
        """Block until it has ended; kill it after `timeout_s`."""
        if self._child is not None:
            self._child.wait_or_kill(timeout_s)
            self._child = None

    def stop(self) -> None:
        """Stop it in an orderly way; kill it when that takes longer than `stop_timeout_s`."""
        self.ask_to_stop()
        self.wait_stopped(self.stop_timeout_s)

    def obituary(self) -> str:
        """How it ended, and the last lines of its log."""
        status = self.exit_status()
        ended = "does not run" if status is None else describe_exit(status)
        said = self._last_lines()
        remedy = "\nThe disk is full: free some space, then start again." if _DISK_FULL in said else ""
        return f"{self.name} {ended}. Its last lines:\n{said}{remedy}"

    def _last_lines(self) -> str:
        return "" if self._child is None else self._child.last_lines()

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_ready()
        except BaseException:
            self.wait_stopped(timeout_s=0.0)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
