"""What goes wrong, and how: each fault begins, lasts, and ends; overlapping is welcome.

A fault that finds nothing to hit (all dispatchers are stopped, the broker is away already) waits until there is something;
what is not reached in time (a point, a full disk) is tried again, twice for each kind.
Each leaves a line in the log when it is over: see `ledger.Fault`.
"""

import heapq
import itertools
import json
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TextIO

from bench.torture.plan import LONG_STOP_S, Planned
from bench.torture.stack import Service, Stack

Action = Callable[[], None]

_AGAIN_S: Final = 2.0  # a fault that finds nothing to hit tries again
_TRIES_AGAIN: Final = 2  # of each kind, for what was not reached
_LOOK_S: Final = 0.1
_REACH_S: Final = 15.0  # a point that no process comes to within this is given up; and one of a rebalance
_REACH_REBALANCE_S: Final = 25.0
_HALT_S: Final = (
    20.0  # a broker that could not write may take so long to halt, on a busy machine, though it could by now
)


@dataclass(order=True)
class _Due:
    at: float
    order: int
    action: Action = field(compare=False)


class Faults:
    """Runs planned faults when they are due. Driven from the main thread by `step`."""

    def __init__(self, stack: Stack, seed: int, *, long: bool, log: TextIO) -> None:
        self._stack = stack
        self._rng = random.Random(f"fault details {seed}")
        self._long = long
        self._log = log
        self._due: list[_Due] = []
        self._order = itertools.count()
        self._taken: set[str] = (
            set()
        )  # servers that are down, networks that are disturbed, services with an armed point
        self._tried_again: Counter[str] = Counter()
        self._guests = itertools.count()
        self._winding_down = False
        self.begun: Counter[str] = Counter()

    @property
    def busy(self) -> bool:
        """Whether something is still to come or to be ended."""
        return bool(self._due)

    def after(self, seconds: float, action: Action) -> None:
        heapq.heappush(self._due, _Due(time.monotonic() + seconds, next(self._order), action))

    def plan(self, fault: Planned) -> None:
        self.after(fault.at, lambda: self._begin(fault))

    def wind_down(self) -> None:
        """No more events come: no process will come to any point, and no write will fill a disk."""
        self._winding_down = True

    def step(self) -> None:
        while self._due and self._due[0].at <= time.monotonic():
            heapq.heappop(self._due).action()

    def _begin(self, fault: Planned) -> None:
        """Start it, or try again soon when there is nothing to hit; its end, if it has one, is put on the list."""
        name, _, point = fault.kind.partition(":")
        if self._winding_down and (point or name == "disk_full"):
            return
        if not (self._point(point) if point else getattr(self, f"_{name}")(fault.lasting_s)):
            self.after(_AGAIN_S, lambda: self._begin(fault))
        else:
            self.begun[fault.kind] += 1

    def _note(self, kind: str, target: str, began: float, **more: Any) -> None:
        line = {"kind": kind, "target": target, "began": began, "ended": time.time()} | more
        self._log.write(json.dumps(line) + "\n")
        self._log.flush()
        if not line.get("reached", True) and self._tried_again[kind] < _TRIES_AGAIN:
            self._tried_again[kind] += 1
            self.plan(Planned(_AGAIN_S, kind))

    # --- services

    def _pick(self, module: str) -> Service | None:
        candidates = [
            s for s in self._stack.named(module) if s.pid is not None and not s.stopped and s.name not in self._taken
        ]
        return self._rng.choice(candidates) if candidates else None

    def _kill(self, module: str) -> bool:
        service = self._pick(module)
        if service is None:
            return False
        began, pid = time.time(), service.pid
        service.signal(signal.SIGKILL)
        self._note(f"kill_{module}", service.name, began, pid=pid)
        return True

    def _kill_dispatcher(self, _lasting_s: float | None) -> bool:
        return self._kill("dispatcher")

    def _kill_router(self, _lasting_s: float | None) -> bool:
        return self._kill("router")

    def _kill_api(self, _lasting_s: float | None) -> bool:
        return self._kill("api")

    def _stop(self, module: str, lasting_s: float | None) -> bool:
        service = self._pick(module)
        if service is None:
            return False
        began, pid = time.time(), service.pid
        service.signal(signal.SIGSTOP)

        def go_on() -> None:
            if service.pid == pid:
                service.signal(signal.SIGCONT)
            self._note(f"stop_{module}", service.name, began, pid=pid)

        self.after(lasting_s or self._rng.choice((3.0, 8.0, 12.0, 15.0, LONG_STOP_S if self._long else 12.0)), go_on)
        return True

    def _stop_dispatcher(self, lasting_s: float | None) -> bool:
        return self._stop("dispatcher", lasting_s)

    def _stop_router(self, lasting_s: float | None) -> bool:
        return self._stop("router", lasting_s)

    def _point(self, point: str) -> bool:
        """Have a process die at a point of its code, the n-th time that it comes there."""
        service = self._pick("router" if point.startswith("router") else "dispatcher")
        if service is None:
            return False
        began, pid = time.time(), service.pid
        in_rebalance = "on_" in point
        given_up = time.monotonic() + (_REACH_REBALANCE_S if in_rebalance else _REACH_S)
        self._taken.add(service.name)
        service.arm(point, 1 if in_rebalance else self._rng.randint(1, 12))
        if point.startswith("on_"):  # somebody must join for that to be reached
            self._join(10.0)
        elif point == "router_on_revoke":
            self._leave(self._pick("router"))

        def look() -> None:
            if service.fired_file.exists():
                over(float(service.fired_file.read_text().split()[1]))
            elif time.monotonic() < given_up and not self._winding_down:
                self.after(_LOOK_S, look)
            else:
                service.disarm()
                self.after(5 * _LOOK_S, lambda: over(None))

        def over(fired: float | None) -> None:
            if fired is None and service.fired_file.exists():  # at the last moment
                fired = float(service.fired_file.read_text().split()[1])
            self._taken.discard(service.name)
            at = fired or time.time()
            self._note(f"point:{point}", service.name, at if fired else began, ended=at, pid=pid, reached=bool(fired))

        self.after(_LOOK_S, look)
        return True

    def _leave(self, service: Service | None) -> None:
        """In good order; it is started again."""
        if service is not None:
            began, pid = time.time(), service.pid or 0
            service.signal(signal.SIGTERM)
            self._note("leave_router", service.name, began, pid=pid, part=True)

    def _join(self, stay_s: float, **env: str) -> None:
        """A dispatcher that comes and goes, one time by SIGTERM, another by SIGKILL."""
        guest = self._stack.add_dispatcher(f"guest-{next(self._guests)}", **env)
        began = time.time()
        guest.start()
        ending = self._rng.choice((signal.SIGTERM, signal.SIGKILL))

        def leave() -> None:
            guest.wanted = False
            pid = guest.pid
            guest.signal(ending)
            self._note(f"guest_{ending.name}", guest.name, began, pid=pid or 0, part=True)

        self.after(stay_s, leave)

    def _storm(self, _lasting_s: float | None) -> bool:
        """A dispatcher joins or leaves every 5 s, for a minute in a long run."""
        began, guests = time.time(), 6 if self._long else 2
        for n in range(guests):
            self.after(10.0 * n, lambda: self._join(15.0))
        self.after(10.0 * guests + 5.5, lambda: self._note("storm", "dispatchers", began))
        return True

    def _skew_dispatcher(self, _lasting_s: float | None) -> bool:
        began = time.time()
        self._join(12.0, TORTURE_SKEW_MS=str(self._rng.choice((-5000, 5000))))
        self.after(12.1, lambda: self._note("skew_dispatcher", "dispatcher", began))
        return True

    # --- servers

    def _kill_server(self, name: str, kind: str, away_s: float) -> bool:
        if name in self._taken:
            return False
        self._taken.add(name)
        server = getattr(self._stack, name)
        began = time.time()
        server._child.send(signal.SIGKILL)
        server._child.wait(60)
        self.after(away_s, lambda: self._bring_back(name, kind, began))
        return True

    def _bring_back(self, name: str, kind: str, began: float) -> None:
        """Start it again. The fault is over with that: the server's own start counts as recovery."""
        server = getattr(self._stack, name)
        ended = time.time()

        def look() -> None:
            if not self._stack.is_back(server):
                self.after(_LOOK_S, look)
            else:
                self._taken.discard(name)
                self._note(kind, name, began, ended=ended, back=time.time())

        server.exit_status()
        server.start()
        self.after(_LOOK_S, look)

    def _kill_broker(self, _lasting_s: float | None) -> bool:
        return self._kill_server("broker", "kill_broker", self._rng.choice((0.0, 2.0, 8.0)))

    def _kill_postgres(self, _lasting_s: float | None) -> bool:
        return self._kill_server("database", "kill_postgres", self._rng.choice((0.0, 2.0, 8.0)))

    def _disk_full(self, _lasting_s: float | None) -> bool:
        """The broker can write no more, and halts by itself. When space is free again an operator starts it."""
        if "broker" in self._taken:
            return False
        self._taken.add("broker")
        broker, began = self._stack.broker, time.time()
        broker.fill_disk(self._rng.randint(1, 5_000))
        freed = time.monotonic() + self._rng.choice((4.0, 8.0))
        self.after(freed - time.monotonic(), lambda: broker.exit_status() is not None or broker.free_disk())

        def look() -> None:
            left_s = freed - time.monotonic()
            if broker.exit_status() is not None:  # space is not free before the fault's time is up
                self.after(max(0.0, left_s), lambda: self._bring_back("broker", "disk_full", began))
            elif left_s > -_HALT_S:
                self.after(_LOOK_S, look)
            else:  # nothing was written meanwhile
                self._taken.discard("broker")
                self._note("disk_full", "broker", began, reached=False)

        self.after(_LOOK_S, look)
        return True

    # --- network

    def _disturb(self, kind: str, network: str, mode: str, seconds: float) -> bool:
        if network in self._taken:
            return False
        self._taken.add(network)
        began = time.time()
        proxies = [self._stack.broker_proxy] if network == "to broker" else list(self._stack.receiver_proxies.values())
        for proxy in proxies:
            proxy.set_mode(mode)  # type: ignore[arg-type]

        def end() -> None:
            for proxy in proxies:
                proxy.set_mode("pass")
            self._taken.discard(network)
            self._note(kind, network, began)

        self.after(seconds, end)
        return True

    def _cut_broker(self, _lasting_s: float | None) -> bool:
        return self._disturb("cut_broker", "to broker", "cut", self._rng.uniform(1, 10))

    def _stall_broker(self, _lasting_s: float | None) -> bool:
        return self._disturb("stall_broker", "to broker", "stall", self._rng.uniform(3, 12))

    def _delay_broker(self, _lasting_s: float | None) -> bool:
        return self._disturb("delay_broker", "to broker", "delay", self._rng.uniform(3, 8))

    def _lossy_broker(self, _lasting_s: float | None) -> bool:
        return self._disturb("lossy_broker", "to broker", "lossy", self._rng.uniform(5, 12))

    def _cut_receivers(self, _lasting_s: float | None) -> bool:
        return self._disturb("cut_receivers", "to receivers", "cut", self._rng.uniform(0.1, 4))

    def _delay_receivers(self, _lasting_s: float | None) -> bool:
        return self._disturb("delay_receivers", "to receivers", "delay", self._rng.uniform(2, 6))

    def _lossy_receivers(self, _lasting_s: float | None) -> bool:
        return self._disturb("lossy_receivers", "to receivers", "lossy", self._rng.uniform(5, 12))
