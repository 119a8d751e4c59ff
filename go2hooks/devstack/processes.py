"""Child processes: started with a log file, killed when we die, stopped within a bounded time."""

import errno
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Self

_LAUNCHER = Path(__file__).with_name("launch.py")
_LOG_LIMIT_BYTES = 20_000_000
_PORTS = range(10_000, 30_000)


@dataclass(frozen=True, slots=True)
class SystemUser:
    """The operating system's user that a child runs as."""

    uid: int
    gid: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """What to run. `death_signal` is what the kernel sends the child when we die without having stopped it."""

    argv: tuple[str, ...]
    log: Path
    env: dict[str, str] = field(default_factory=dict)
    account: SystemUser | None = None
    death_signal: signal.Signals = signal.SIGKILL


class Child:
    """A running child. Start it from the main thread: the kernel sends the death signal when the starting *thread* ends."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    @classmethod
    def start(cls, command: Command) -> Self:
        """Start without waiting for anything. Raises OSError when the log cannot be written."""
        launcher = [sys.executable, "-I", "-S", str(_LAUNCHER), "--parent", str(os.getpid())]
        launcher += ["--death-signal", str(int(command.death_signal))]
        if command.account is not None:
            launcher += ["--uid", str(command.account.uid), "--gid", str(command.account.gid)]
        with _open_log(command.log) as log:
            process = subprocess.Popen(  # noqa: S603  # our own command line, no shell
                [*launcher, "--", *command.argv],
                env=os.environ | command.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A process group of its own: Ctrl-C in the terminal reaches us alone, and we decide the order of stopping.
                # Not a session: Linux shares CPU time among sessions first (autogroup), and Kafka, which has most of the
                # work, would get no more than each of the others.
                process_group=0,
            )
        return cls(process, command.log)

    @property
    def pid(self) -> int:
        return self._process.pid

    def exit_status(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._process.poll()

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def wait(self, timeout_s: float) -> bool:
        """Block until it has ended, `timeout_s` at most. False: it still runs."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def wait_or_kill(self, timeout_s: float) -> None:
        """Wait `timeout_s` at most, then kill. Returns when it has ended."""
        if not self.wait(timeout_s):
            self._process.kill()
            self._process.wait()

    def last_lines(self, count: int = 12) -> str:
        return last_lines(self._log, count)


def last_lines(log: Path, count: int) -> str:
    """The last lines of a log, after earlier lines with errors: for the message about a process that died.

    Kafka logs much after the error that ends it.
    """
    last: deque[str] = deque(maxlen=count)
    errors: deque[str] = deque(maxlen=3)
    try:
        with log.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if len(last) == count and " ERROR " in last[0]:
                    errors.append(last[0])
                last.append(line)
    except FileNotFoundError:
        return ""
    return "".join((*errors, *last)).rstrip()


def describe_exit(status: int) -> str:
    if status >= 0:
        return f"exited with status {status}"
    return f"was ended by {signal.Signals(-status).name}"


def _open_log(path: Path) -> BinaryIO:
    """Open the log to append; a large one is renamed first, and one old log is kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > _LOG_LIMIT_BYTES:
        path.replace(path.with_suffix(".log.1"))
    return path.open("ab")


def free_port(preferred: int | None = None) -> int:
    """A loopback TCP port that nobody listens on: the preferred one if it is free, otherwise any. Raises OSError.

    Not an ephemeral port: the kernel could give it to another process before the server has started.
    """
    if preferred is not None and port_is_free(preferred):
        return preferred
    for _ in range(1000):
        if port_is_free(port := secrets.choice(_PORTS)):
            return port
    raise OSError(errno.EADDRINUSE, "no free port was found")


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a connection in TIME_WAIT is no listener
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def accepts_connections(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def sleep_until(deadline: float, interval_s: float = 0.05) -> bool:
    """Sleep one interval. False, without sleeping, once the monotonic clock has passed `deadline`."""
    if time.monotonic() >= deadline:
        return False
    time.sleep(interval_s)
    return True
