"""How much of the machine others use, second by second: what is slow then is not the fault of what is under test.

One line a second in the log: [time, cores that neither this process nor its descendants used]. What a process used in the
second in which it died counts as others'.
"""

import contextlib
import json
import os
import threading
import time
from pathlib import Path
from typing import Final, TextIO

_STAT: Final = Path("/proc/stat")
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_IDLE: Final = (3, 4)  # of /proc/stat's first line: idle, and waiting for a disk
_GUEST: Final = 8  # from here on what is counted elsewhere already
_PPID, _UTIME, _STIME = 1, 11, 12  # of /proc/PID/stat, after the name


class Others(threading.Thread):
    """Watches until the process ends."""

    def __init__(self, log: TextIO) -> None:
        super().__init__(name="others", daemon=True)
        self._log = log
        self._ours: dict[int, int] = {}
        self._over = threading.Event()

    def stop(self) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        if not _STAT.exists():  # not Linux: then nobody else is known to use it
            return
        self._used()
        before, at = _busy(), time.monotonic()
        while not self._over.wait(1.0):
            busy, now = _busy(), time.monotonic()
            others = max(0, busy - before - self._used()) / _TICKS_PER_S / (now - at)
            self._log.write(json.dumps([time.time(), round(others, 2)]) + "\n")
            before, at = busy, now

    def _used(self) -> int:
        """Ticks that we and our descendants used since the last call."""
        before, self._ours = self._ours, _ours()
        return sum(ticks - before.get(pid, 0) for pid, ticks in self._ours.items())


def _busy() -> int:
    """Ticks that all processors were busy for, since the machine was started."""
    with _STAT.open() as file:
        ticks = [int(part) for part in file.readline().split()[1 : _GUEST + 1]]
    return sum(ticks) - sum(ticks[n] for n in _IDLE)


def _ours() -> dict[int, int]:
    """Ticks used by this process and each of its descendants."""
    parents, ticks = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            fields = path.read_text().rpartition(")")[2].split()
            pid = int(path.parent.name)
            parents[pid], ticks[pid] = int(fields[_PPID]), int(fields[_UTIME]) + int(fields[_STIME])

    def is_ours(pid: int) -> bool:
        while pid not in (0, os.getpid()):
            pid = parents.get(pid, 0)
        return pid != 0

    return {pid: used for pid, used in ticks.items() if is_ours(pid)}
