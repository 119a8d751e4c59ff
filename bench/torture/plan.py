"""What a run is made of, all of it drawn from one seed: webhooks and their receivers' tempers, events, faults."""

import argparse
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final, NamedTuple

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
#: Kinds of faults, and how long one takes with its recovery, in seconds: so much time a fault gets that is to be alone.
ROOMS_S: Final = {
    "kill_dispatcher": 36.0, "kill_router": 20.0, "kill_api": 12.0, "stop_dispatcher": 30.0, "stop_router": 30.0,
    "kill_broker": 50.0, "kill_postgres": 32.0, "disk_full": 55.0, "storm": 90.0, "skew_dispatcher": 35.0,
    "cut_broker": 40.0, "stall_broker": 42.0, "delay_broker": 30.0, "lossy_broker": 40.0,
    "cut_receivers": 15.0, "delay_receivers": 18.0, "lossy_receivers": 22.0,
    **{f"point:{name}": 36.0 for name in DISPATCHER_POINTS},
    **{f"point:{name}": 25.0 for name in ROUTER_POINTS},
    "point:on_revoke": 45.0, "point:on_assign": 45.0,
}  # fmt: skip
FAULT_KINDS: Final = tuple(ROOMS_S)
LONG_STOP_S: Final = 40.0
LONG_S: Final = 600.0  # a run this long has a first part in which faults are alone, a 40 s stop, and storms of a minute
ALONE_SHARE: Final = 0.55  # of a long run
_MANY_EVENTS: Final = 10**9
CROWDED_S: Final = 8.5  # between faults on average, where they overlap
LONG_FAULTS: Final = 70  # of a long run at least: one in ten is a point that nobody reaches, and 60 faults are to be
_TURN: Final = 11  # kinds by which the next seed's first part begins later: three seeds in a row have each kind alone
PLANTS: Final = ("commit-before-record", "drop-on-rebalance", "double-retry")


SERVERS: Final = ("kafka", "postgres")  # their directories, which are no evidence and go when a run ends


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    seed: int
    minutes: float
    events: int
    rate: float
    faults: int  # below 0: as many as the time has room for
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

    @property
    def long(self) -> bool:
        return self.seconds >= LONG_S

    def as_arguments(self) -> str:
        """What `parse` makes the same run from."""
        said = {
            "seed": self.seed,
            "minutes": f"{self.minutes:g}",
            "rate": f"{self.rate:g}",
            "drain": f"{self.drain_s:g}",
        }
        said |= {"webhooks": self.webhooks, "dispatchers": self.dispatchers, "routers": self.routers}
        said |= {"events": self.events} if self.events < _MANY_EVENTS else {}
        said |= {"faults": self.faults} if self.faults >= 0 else {}
        said |= {"kinds": ",".join(self.kinds)} if self.kinds != FAULT_KINDS else {}
        said |= {"plant": self.plant} if self.plant else {}
        return " ".join(f"--{name} {value}" for name, value in said.items())


class Planned(NamedTuple):
    """A fault to come. `lasting_s` is what it lasts, where that is not left to chance."""

    at: float  #: seconds from the start
    kind: str
    lasting_s: float | None = None


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
    parser.add_argument("--events", type=int, default=_MANY_EVENTS, help="how many events flow, at most")
    parser.add_argument("--rate", type=float, default=60.0, help="events per second")
    parser.add_argument(
        "--faults", type=int, default=-1, help="how many; by default one every five seconds, in long runs by time"
    )
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
    if given.dir and (there := [name for name in SERVERS if (given.dir / name).exists()]):
        parser.error(f"{given.dir} has {' and '.join(there)} in it, which a run would use and delete: name another")
    return Options(
        seed=given.seed, minutes=given.minutes, events=given.events, rate=given.rate, kinds=kinds,
        faults=given.faults, webhooks=given.webhooks,
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


def plan_faults(options: Options) -> list[Planned]:
    """In a long run each fault is alone at first, so that its recovery can be judged; then, and in short runs, they overlap."""
    rng = random.Random(f"faults {options.seed}")
    alone = _alone(options, rng) if options.long and options.faults < 0 else []
    began = alone[-1].at + ROOMS_S[alone[-1].kind] if alone else 0.03 * options.seconds
    return alone + _crowded(options, rng, began, LONG_FAULTS - len(alone) if alone else 1)


def _alone(options: Options, rng: random.Random) -> list[Planned]:
    """One after the other, every kind in turn, the 40 s stop in front. Where the turn begins goes on from seed to seed."""
    kinds = random.Random("kinds").sample(options.kinds, len(options.kinds))
    order = islice(cycle(kinds), _TURN * options.seed % len(kinds), None)
    planned, at = [], 10.0
    if "stop_dispatcher" in options.kinds:
        planned, at = [Planned(at, "stop_dispatcher", LONG_STOP_S)], at + LONG_STOP_S + ROOMS_S["stop_dispatcher"]
    while at < ALONE_SHARE * options.seconds:
        kind = next(order)
        planned.append(Planned(at, kind, rng.choice((3.0, 8.0, 12.0)) if kind.startswith("stop_") else None))
        at += ROOMS_S[planned[-1].kind]
    return planned


def _crowded(options: Options, rng: random.Random, began: float, at_least: int) -> list[Planned]:
    """At random moments, every kind in turn in a random order."""
    lasting_s = 0.92 * options.seconds - began
    by_time = round(lasting_s / (CROWDED_S if options.long else 5.0))
    count = options.faults if options.faults >= 0 else max(at_least, by_time)
    order = _in_turn(options.kinds, rng)
    times = sorted(began + rng.random() * lasting_s for _ in range(count))
    return [Planned(at, next(order)) for at in times]


def _in_turn(kinds: tuple[str, ...], rng: random.Random) -> Iterator[str]:
    while True:
        yield from rng.sample(kinds, len(kinds))


def choose_event(rng: random.Random) -> str:
    return rng.choices(EVENT_TYPES, _EVENT_WEIGHTS)[0]
