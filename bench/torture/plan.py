"""What a run is made of, all of it drawn from one seed: webhooks and their receivers' tempers, events, faults."""

import argparse
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

DELAYS_S: Final = (1.0, 1.5, 2.0, 3.0, 4.0)
DELAYS: Final = "1s,1500ms,2s,3s,4s"
TIMEOUT_S: Final = 3.0
DISABLE_AFTER: Final = 14

#: How receivers behave, and how many of a hundred behave so.
TEMPERS: Final = {
    "healthy": 44, "flaky": 14, "slow": 10, "resetting": 10, "away": 10, "proxied": 8, "dying": 4,
}  # fmt: skip
EVENT_TYPES: Final = ("click", "link.created", "link.updated", "link.deleted", "domain.verified", "qr.scanned")
_EVENT_WEIGHTS: Final = (60, 12, 8, 4, 4, 12)
_SUBSCRIPTIONS: Final = (("*",), ("click",), ("click", "link.created"), ("click", "qr.scanned", "link.deleted"), ("*",))

DISPATCHER_POINTS: Final = (
    "before_send", "after_answer", "before_retry", "after_retry", "before_record", "after_record", "before_commit",
    "after_overflow", "in_look_up", "on_revoke", "on_assign",
)  # fmt: skip
ROUTER_POINTS: Final = ("router_before_produce", "router_after_produce", "router_before_commit", "router_on_revoke")
FAULT_KINDS: Final = (
    "kill_dispatcher", "kill_router", "kill_api", "stop_dispatcher", "stop_router", "kill_broker", "kill_postgres",
    "storm", "cut_broker", "stall_broker", "delay_broker", "cut_receivers", "delay_receivers", "skew_dispatcher",
    *(f"point:{name}" for name in (*DISPATCHER_POINTS, *ROUTER_POINTS)),
)  # fmt: skip
PLANTS: Final = ("commit-before-record", "drop-on-rebalance", "double-retry")


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    seed: int
    minutes: float
    events: int
    rate: float
    faults: int
    kinds: tuple[str, ...]
    webhooks: int
    dispatchers: int
    routers: int
    plant: str | None
    directory: Path | None
    drain_s: float

    @property
    def seconds(self) -> float:
        return min(self.minutes * 60, self.events / self.rate)


@dataclass(frozen=True)
class Hook:
    """One webhook as planned; its id and secret come from the API."""

    number: int
    account: str
    events: tuple[str, ...]
    temper: str

    def wants(self, event: str) -> bool:
        return "*" in self.events or event in self.events

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def parse(arguments: list[str] | None = None) -> Options:
    """Options from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.torture", description="Torture the whole stack, then prove that nothing was lost."
    )
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--minutes", type=float, default=5.0, help="how long events flow, at most")
    parser.add_argument("--events", type=int, default=10**9, help="how many events flow, at most")
    parser.add_argument("--rate", type=float, default=60.0, help="events per second")
    parser.add_argument("--faults", type=int, default=-1, help="how many; by default one every five seconds")
    parser.add_argument("--kinds", default="", help=f"only these, comma separated, of: {', '.join(FAULT_KINDS)}")
    parser.add_argument("--webhooks", type=int, default=60)
    parser.add_argument("--dispatchers", type=int, default=2)
    parser.add_argument("--routers", type=int, default=2)
    parser.add_argument("--plant", choices=PLANTS, help="plant this bug; the checker must find it")
    parser.add_argument("--dir", type=Path, default=None, help="keep the evidence here")
    parser.add_argument("--drain", type=float, default=120.0, help="seconds that the stack has to come to rest")
    given = parser.parse_args(arguments)
    kinds = tuple(part for part in given.kinds.split(",") if part) or FAULT_KINDS
    unknown = set(kinds) - set(FAULT_KINDS)
    if unknown:
        parser.error(f"unknown kinds: {', '.join(sorted(unknown))}")
    seconds = min(given.minutes * 60, given.events / given.rate)
    return Options(
        seed=given.seed, minutes=given.minutes, events=given.events, rate=given.rate, kinds=kinds,
        faults=given.faults if given.faults >= 0 else max(1, round(seconds / 5)), webhooks=given.webhooks,
        dispatchers=given.dispatchers, routers=given.routers, plant=given.plant, directory=given.dir, drain_s=given.drain,
    )  # fmt: skip


def plan_hooks(options: Options) -> list[Hook]:
    """Every temper is there, however few webhooks there are."""
    rng = random.Random(f"hooks {options.seed}")
    accounts = [f"acc_{n}" for n in range(max(1, options.webhooks // 5))]
    tempers = list(TEMPERS) + rng.choices(list(TEMPERS), list(TEMPERS.values()), k=options.webhooks)
    return [
        Hook(n, accounts[n % len(accounts)], rng.choice(_SUBSCRIPTIONS), tempers[n]) for n in range(options.webhooks)
    ]


def plan_faults(options: Options) -> list[tuple[float, str]]:
    """(seconds from the start, kind): spread over the run, every kind in turn in a random order."""
    rng = random.Random(f"faults {options.seed}")
    kinds: list[str] = []
    while len(kinds) < options.faults:
        kinds += rng.sample(options.kinds, len(options.kinds))
    times = sorted(rng.uniform(0.03, 0.92) * options.seconds for _ in range(options.faults))
    return list(zip(times, kinds, strict=False))


def choose_event(rng: random.Random) -> str:
    return rng.choices(EVENT_TYPES, _EVENT_WEIGHTS)[0]
