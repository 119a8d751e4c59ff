"""The directory of a stack: one stack at a time uses it, and only its owner can read secrets."""

import base64
import fcntl
import json
import os
import secrets
import shutil
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

import psutil

from go2hooks.devstack.errors import StackError, explain_os_error

_NEEDED_BYTES: Final = 500_000_000


class DataDir:
    """`path`, created if needed and locked until `close`; the lock ends with the process, however it ends."""

    def __init__(self, path: Path, lock: BinaryIO) -> None:
        self.path = path
        self._lock = lock

    @classmethod
    def open(cls, path: Path) -> Self:
        """Raises StackError when another stack runs in it, when it cannot be written, or when its disk is full."""
        path = path.expanduser().absolute()
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = (path / "lock").open("a+b")
        except OSError as error:
            raise explain_os_error(error, path) from error
        _take(lock, path)
        if (free := shutil.disk_usage(path).free) < _NEEDED_BYTES:
            lock.close()
            raise StackError(
                f"The disk that holds {path} is full: {free // 1_000_000} MB are left, {_NEEDED_BYTES // 1_000_000} MB needed. "
                "Free some space or choose another directory with --data-dir."
            )
        return cls(path, lock)

    def close(self) -> None:
        self._lock.close()

    def log(self, name: str) -> Path:
        return self.path / "logs" / f"{name}.log"

    def port_file(self, name: str) -> Path:
        return self.path / "ports" / f"{name}.json"

    @property
    def endpoints(self) -> Path:
        return self.path / "endpoints.json"

    def secret_key(self) -> str:
        """The key that encrypts webhook secrets; made at the first start. If it is lost, the secrets are lost."""
        path = self.path / "secret-key"
        if not path.exists():
            write_private(path, base64.b64encode(secrets.token_bytes(32)).decode())
        return path.read_text(encoding="ascii").strip()

    def read_json(self, name: str) -> Any:
        """What `write_json` wrote; None when it did not."""
        path = self.path / name
        return json.loads(path.read_bytes()) if path.exists() else None

    def write_json(self, name: str, value: Any) -> None:
        write_private(self.path / name, json.dumps(value, indent=1) + "\n")

    def record_children(self, pids: dict[str, int]) -> None:
        """Store the children's pids, so that the next start finds those that outlived a killed supervisor."""
        children = {name: [pid, started] for name, pid in pids.items() if (started := _started_at(pid)) is not None}
        self.write_json("children.json", children)

    def end_leftovers(self, timeout_s: float = 10.0) -> list[str]:
        """Kill children that outlived a killed supervisor, and return their names. On Linux the kernel has done it."""
        recorded: dict[str, tuple[int, float]] = self.read_json("children.json") or {}
        left = {name: pid for name, (pid, started) in recorded.items() if _started_at(pid) == started}
        processes = [psutil.Process(pid) for pid in left.values() if psutil.pid_exists(pid)]
        for process in processes:
            process.kill()
        psutil.wait_procs(processes, timeout=timeout_s)
        return list(left)


def write_private(path: Path, text: str) -> None:
    """Write a file atomically, readable by its owner alone."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _take(lock: BinaryIO, path: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        holder = lock.read().decode(errors="replace").strip()
        lock.close()
        raise StackError(
            f"A stack runs in {path} already (process {holder or 'unknown'}). Stop it, or choose another directory with --data-dir."
        ) from None
    lock.truncate(0)
    lock.write(str(os.getpid()).encode())
    lock.flush()


def _started_at(pid: int) -> float | None:
    """The start time of a process: it tells a process from a later one with the same pid."""
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.NoSuchProcess:
        return None
