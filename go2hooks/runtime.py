"""From SIGTERM or SIGINT to a drain that ends in time."""

import asyncio
import fcntl
import gc
import os
import queue
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final, Self

from go2hooks.core.errors import Go2HooksError

PARENT_VARIABLE: Final = "GO2HOOKS_PARENT_PID"  # set by a parent that its children must not outlive
_PARENT_LOOK_S: Final = 1.0
_SIGNAL_LOOK_S: Final = 0.5
_ORPHANED: Final = "the parent is gone"
_SAME_S: Final = 0.5  # who signals a group of processes and each of them means one request


class Shutdown:
    """One per process, installed in the main thread, as the first thing that `main` does.

        shutdown = Shutdown(settings.drain_timeout_s).install()
        ...                                    # start working
        shutdown.wait()                        # or: await shutdown.wait_async()
        worker.drain(shutdown.remaining_s())   # and return from main

    A second signal, or a drain that outlasts its time, ends the process at once with status 1:
    what was under way is done again after the restart. In a process with a parent of ours a second signal means nothing,
    since a service manager or a terminal signals both, and the parent passes it on: it ends us by ending.
    """

    def __init__(self, drain_timeout_s: float) -> None:
        self._drain_timeout_s = drain_timeout_s
        # The only queue whose put may interrupt itself; an Event set in a signal handler can deadlock with its own wait.
        self._requests: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._requested = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], object]] = []
        self._deadline = float("inf")

    def install(self) -> Self:
        """Take over SIGTERM and SIGINT and start watching. Main thread only."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        threading.Thread(target=self._watch, name="shutdown", daemon=True).start()
        if parent := os.environ.get(PARENT_VARIABLE):
            threading.Thread(target=self._watch_parent, args=(int(parent),), name="parent", daemon=True).start()
        return self

    def request(self, reason: str) -> None:
        """Begin the drain from within, as a signal would. Any thread; does not block."""
        self._requests.put(reason)

    @property
    def requested(self) -> bool:
        return self._requested.is_set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Block until the drain shall begin; False after `timeout_s` without it."""
        if timeout_s is not None:
            return self._requested.wait(timeout_s)
        # Python's handlers run in the main thread, which a signal does not wake that comes just before it begins to wait.
        while not self._requested.wait(_SIGNAL_LOOK_S):
            pass
        return True

    async def wait_async(self) -> None:
        """As `wait`, for an event loop."""
        loop = asyncio.get_running_loop()
        event = asyncio.Event()
        self.on_request(lambda: loop.call_soon_threadsafe(event.set))
        await event.wait()

    def on_request(self, callback: Callable[[], object]) -> None:
        """Call it, in a thread of ours, when the drain shall begin; at once when it has begun already. It must not block."""
        with self._lock:
            if not self._requested.is_set():
                self._callbacks.append(callback)
                return
        callback()

    def remaining_s(self) -> float:
        """Seconds left of the drain; the whole of it before it has begun."""
        return max(0.0, min(self._drain_timeout_s, self._deadline - time.monotonic()))

    def _watch_parent(self, parent: int) -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_LOOK_S)
        self.request(_ORPHANED)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._requests.put(signal.Signals(number).name)

    def _watch(self) -> None:
        self._requests.get()
        self._deadline = time.monotonic() + self._drain_timeout_s
        with self._lock:
            self._requested.set()
        for callback in self._callbacks:
            callback()
        self._enforce()

    def _enforce(self) -> None:
        began = self._deadline - self._drain_timeout_s
        same_until = self._deadline if PARENT_VARIABLE in os.environ else began + _SAME_S
        try:
            again = self._next_request()
            while again != _ORPHANED and time.monotonic() < same_until:
                again = self._next_request()
        except queue.Empty:
            reason = f"the drain took longer than {self._drain_timeout_s:g} s"
        else:
            reason = again if again == _ORPHANED else f"{again} came twice"
        sys.stderr.write(f"stopped at once: {reason}\n")
        sys.stderr.flush()
        os._exit(1)

    def _next_request(self) -> str:
        """Raises queue.Empty at the deadline."""
        return self._requests.get(timeout=max(0.0, self._deadline - time.monotonic()))


def freeze_gc() -> None:
    """Call once what lives as long as the process is loaded: garbage collection then leaves that alone.

    A service makes and drops some fifty objects per delivery, none of them in cycles; with the default thresholds
    collecting them costs a tenth of all time and walks the replica again and again. What it looks through for nothing
    are deliveries that wait, and while it does its event loop stands still: for 1 to 7 ms where 3,000 objects are new
    (where it was 50,000, 25 to 60 ms beside hosts that do not answer). They are not looked through again soon.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(3_000, 1_000, 50)


def reserve_descriptors(count: int) -> None:
    """Raise the limit of our descriptors to `count`, as far as we may, and have the kernel make its table large enough.

    A soft limit of 1,024, which is usual, is there for programs that use `select`; what we cannot open beyond it would look
    as if receivers could not be reached.

    The table grows by doubling, and in a process with threads Linux lets all its processors come by before it goes on
    (`expand_files`, `synchronize_rcu`): whoever opens the 65th, 129th, … 2,049th socket waits for tens of milliseconds, and
    everything else on its event loop with it. So this belongs at the start.
    """
    limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = count if most == resource.RLIM_INFINITY else min(count, most)
    if limit != resource.RLIM_INFINITY and limit < room:
        resource.setrlimit(resource.RLIMIT_NOFILE, (room, most))
    with Path(os.devnull).open("rb") as some:
        os.close(fcntl.fcntl(some, fcntl.F_DUPFD_CLOEXEC, room - 1))


def run_service(main: Callable[[], None]) -> None:
    """Run a service's main; end the process with 2 and one clear message for an error of ours, with 1 for a defect."""
    try:
        main()
    except Go2HooksError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
