"""What goes wrong, and how: each fault begins, lasts, and ends; overlapping is welcome."""

import heapq
import itertools
import json
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TextIO

from bench.torture.stack import Service, Stack

Action = Callable[[], None]


@dataclass(order=True)
class _Due:
    at: float
    order: int
    action: Action = field(compare=False)


class Faults:
    """Runs planned faults when they are due. Driven from the main thread by `step`."""

    def __init__(self, stack: Stack, seed: int, log: TextIO) -> None:
        self._stack = stack
        self._rng = random.Random(f"fault details {seed}")
        self._log = log
        self._due: list[_Due] = []
        self._order = itertools.count()
        self._down: set[str] = set()
        self._guests = itertools.count()
        self.count = 0

    @property
    def busy(self) -> bool:
        """Whether something is still to come or to be ended."""
        return bool(self._due)

    def after(self, seconds: float, action: Action) -> None:
        heapq.heappush(self._due, _Due(time.monotonic() + seconds, next(self._order), action))

    def plan(self, seconds: float, kind: str) -> None:
        self.after(seconds, lambda: self.begin(kind))

    def step(self) -> None:
        while self._due and self._due[0].at <= time.monotonic():
            heapq.heappop(self._due).action()

    def begin(self, kind: str) -> None:
        """Start one fault; its end, if it has one, is put on the list."""
        self.count += 1
        if kind.startswith("point:"):
            self._arm(kind)
        else:
            getattr(self, f"_{kind}")()

    def note(self, kind: str, target: str, began: float, ended: float | None = None, **more: Any) -> None:
        line = {"kind": kind, "target": target, "t0": began, "t1": ended or time.time()} | more
        self._log.write(json.dumps(line) + "\n")
        self._log.flush()

    # --- services

    def _pick(self, module: str) -> Service | None:
        candidates = [s for s in self._stack.named(module) if s.pid is not None and not s.stopped]
        return self._rng.choice(candidates) if candidates else None

    def _kill(self, module: str) -> None:
        if service := self._pick(module):
            began = time.time()
            service.signal(signal.SIGKILL)
            self.note(f"kill_{module}", service.name, began)

    def _kill_dispatcher(self) -> None:
        self._kill("dispatcher")

    def _kill_router(self) -> None:
        self._kill("router")

    def _kill_api(self) -> None:
        self._kill("api")

    def _stop(self, module: str) -> None:
        service = self._pick(module)
        if service is None:
            return
        began, pid = time.time(), service.pid
        service.signal(signal.SIGSTOP)

        def go_on() -> None:
            if service.pid == pid:
                service.signal(signal.SIGCONT)
            self.note(f"stop_{module}", service.name, began)

        self.after(self._rng.choice((3.0, 8.0, 15.0, 40.0 if self._rng.random() < 0.3 else 12.0)), go_on)

    def _stop_dispatcher(self) -> None:
        self._stop("dispatcher")

    def _stop_router(self) -> None:
        self._stop("router")

    def _arm(self, kind: str) -> None:
        point = kind.partition(":")[2]
        service = self._pick("router" if point.startswith("router") else "dispatcher")
        if service is None:
            return
        began = time.time()
        service.arm(point, self._rng.randint(1, 4) if point.startswith("on_") else self._rng.randint(1, 12))
        if point.startswith("on_"):  # somebody must join for that to be reached
            self._join(6.0)

        def look() -> None:
            fired = service.fired_file.exists()
            at = float(service.fired_file.read_text().split()[1]) if fired else began
            service.arm_file.unlink(missing_ok=True)
            self.note(kind if fired else f"{kind} (not reached)", service.name, at, at)

        self.after(6.0, look)

    def _join(self, stay_s: float, **env: str) -> None:
        """A dispatcher that comes and goes, one time by SIGTERM, another by SIGKILL."""
        guest = self._stack.add_dispatcher(f"guest-{next(self._guests)}", **env)
        began = time.time()
        guest.start()
        ending = self._rng.choice((signal.SIGTERM, signal.SIGKILL))

        def leave() -> None:
            guest.wanted = False
            guest.signal(ending)
            self.note("skewed_guest" if env else f"guest_{ending.name}", guest.name, began)

        self.after(stay_s, leave)

    def _storm(self) -> None:
        for n in range(4):
            self.after(4.0 * n, lambda: self._join(self._rng.uniform(5.0, 9.0)))

    def _skew_dispatcher(self) -> None:
        self._join(12.0, TORTURE_SKEW_MS=str(self._rng.choice((-5000, 5000))))

    # --- servers

    def _kill_server(self, name: str) -> None:
        if name in self._down:
            return
        self._down.add(name)
        server = getattr(self._stack, name)
        began = time.time()
        server._child.send(signal.SIGKILL)
        server._child.wait(10)

        def come_back() -> None:
            self._stack.restart_server(server)
            self._down.discard(name)
            self.note(f"kill_{'postgres' if name == 'database' else 'broker'}", name, began)

        self.after(self._rng.choice((0.0, 2.0, 8.0)), come_back)

    def _kill_broker(self) -> None:
        self._kill_server("broker")

    def _kill_postgres(self) -> None:
        self._kill_server("database")

    # --- network

    def _disturb(self, kind: str, proxies: list[Any], mode: str, seconds: float) -> None:
        began = time.time()
        for proxy in proxies:
            proxy.set_mode(mode)

        def end() -> None:
            for proxy in proxies:
                proxy.set_mode("pass")
            self.note(kind, "network", began)

        self.after(seconds, end)

    def _cut_broker(self) -> None:
        self._disturb("cut_broker", [self._stack.broker_proxy], "cut", self._rng.uniform(1, 10))

    def _stall_broker(self) -> None:
        self._disturb("stall_broker", [self._stack.broker_proxy], "stall", self._rng.uniform(3, 12))

    def _delay_broker(self) -> None:
        self._disturb("delay_broker", [self._stack.broker_proxy], "delay", self._rng.uniform(3, 8))

    def _cut_receivers(self) -> None:
        self._disturb("cut_receivers", list(self._stack.receiver_proxies.values()), "cut", self._rng.uniform(0.1, 4))

    def _delay_receivers(self) -> None:
        self._disturb("delay_receivers", list(self._stack.receiver_proxies.values()), "delay", self._rng.uniform(2, 6))
