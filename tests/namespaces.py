"""Network namespaces of Linux: networks of a test's own, joined by nothing but what it joins. Root alone may make them."""

import ctypes
import os
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

T = TypeVar("T")

_CLONE_NEWNET: Final = 0x40000000


@dataclass(frozen=True, slots=True)
class Namespace:
    """One network, with a loopback interface of its own."""

    name: str

    @property
    def prefix(self) -> list[str]:
        """What to put before a command that is to run there."""
        return ["ip", "netns", "exec", self.name]

    def run(self, work: Callable[[], T]) -> T:
        """What `work` gives in a thread there; so are the threads that it starts and the sockets that it opens."""
        with ThreadPoolExecutor(1, initializer=self._enter) as thread:
            return thread.submit(work).result()

    def _enter(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        with Path(f"/run/netns/{self.name}").open() as namespace:
            if libc.setns(namespace.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")


def why_not() -> str | None:
    """Why there can be none here; None when there can."""
    if not shutil.which("ip") or os.geteuid() != 0:
        return "network namespaces need root and iproute2"
    name = f"go2-{secrets.token_hex(4)}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"no network namespace can be made here: {made.stderr.strip()}"
    _ip("netns", "del", name)
    return None


@contextmanager
def two_joined(inside_address: str, outside_address: str, *further: str) -> Iterator[tuple[Namespace, Namespace]]:
    """Two networks and one cable. The inner one knows the way to the other's end of it, and no other way anywhere.

    The addresses are `10.77.0.2/30` and the like; the outer one has the further addresses, too.
    """
    inside, outside = (Namespace(f"go2-{secrets.token_hex(4)}") for _ in range(2))
    ends = [f"go2{secrets.token_hex(4)}" for _ in range(2)]
    try:
        for namespace in (inside, outside):
            _ip("netns", "add", namespace.name)
            _ip("-n", namespace.name, "link", "set", "lo", "up")
        _ip(
            "link", "add", ends[0], "netns", inside.name, "type", "veth", "peer", "name", ends[1], "netns", outside.name
        )
        for namespace, end, address in ((inside, ends[0], inside_address), (outside, ends[1], outside_address)):
            _ip("-n", namespace.name, "address", "add", address, "dev", end)
            _ip("-n", namespace.name, "link", "set", end, "up")
        for address in further:
            _ip("-n", outside.name, "address", "add", address, "dev", "lo")
        yield inside, outside
    finally:
        for namespace in (inside, outside):
            subprocess.run(["ip", "netns", "del", namespace.name], capture_output=True, check=False)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], capture_output=True, check=True)
