"""What processes cost, from /proc: CPU seconds of a process with its children, resident memory at its peak."""

import contextlib
import os
import platform
from dataclasses import dataclass
from pathlib import Path

import psutil

from go2hooks.build import BUILD


def cpu_s(pid: int) -> float:
    """User and system time of a process, its running descendants and those it has waited for."""
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0.0
    total = 0.0
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):  # ended meanwhile: counted by its parent from now on
            times = member.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def reset_peak(pid: int) -> None:
    """Let the peak of resident memory begin anew (Linux; elsewhere it is the peak since the start)."""
    with contextlib.suppress(OSError):  # not permitted everywhere; the peak is then that of the whole run
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_rss_mib(pid: int) -> float:
    """Highest resident memory since `reset_peak`, in MiB; without /proc the present one."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return rss_mib(pid)


def rss_mib(pid: int) -> float:
    """Resident memory now, in MiB."""
    resident: int = psutil.Process(pid).memory_info().rss
    return resident / 2**20


def pss_mib(pid: int) -> float:
    """Proportional memory of a process and its descendants, in MiB: what is shared is counted once."""
    process = psutil.Process(pid)
    total = 0
    for member in [process, *process.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            full = member.memory_full_info()
            total += getattr(full, "pss", full.rss)
    return total / 2**20


@dataclass
class Meter:
    """CPU of named processes between `start` and `used`."""

    pids: dict[str, list[int]]

    def start(self) -> None:
        self._before = self._read()

    def used(self) -> dict[str, float]:
        """CPU seconds by name since `start`."""
        return {name: seconds - self._before[name] for name, seconds in self._read().items()}

    def _read(self) -> dict[str, float]:
        return {name: sum(cpu_s(pid) for pid in pids) for name, pids in self.pids.items()}


def machine() -> dict[str, object]:
    """Where this ran."""
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "modules": BUILD.kind,
        "load": [round(load, 2) for load in os.getloadavg()],
    }


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
