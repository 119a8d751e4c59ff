"""What bench/pipeline.py measures."""

from dataclasses import dataclass

from running import BenchError


@dataclass(frozen=True)
class Throughput:
    """As many deliveries as the producer can cause, at once."""

    name: str
    webhooks: int = 100
    fan_out: int = 1
    scheme: str = "http"
    dispatchers: int = 1
    delay_ms: int = 0
    share: float = 1.0  #: of the count that was asked for
    backlog: bool = False  #: the dispatchers stand still until the router has written every delivery


@dataclass(frozen=True)
class Latency:
    """Events at a steady rate."""

    name: str
    rate: int
    webhooks: int = 100


Scenario = Throughput | Latency

SCENARIOS: tuple[Scenario, ...] = (
    Throughput("http"),
    Throughput("https", scheme="https"),
    Throughput("backlog http", backlog=True),
    Throughput("backlog https", scheme="https", backlog=True),
    Throughput("one endpoint", webhooks=1),
    Throughput("fan-out 10", fan_out=10),
    Throughput("fan-out 100", fan_out=100),
    Throughput("receivers 50 ms", delay_ms=50),
    Throughput("receivers 200 ms", delay_ms=200, share=0.5),
    *(Latency(f"{rate}/s", rate) for rate in (100, 200, 500, 1000, 2000)),
    Throughput("2 dispatchers", dispatchers=2),
    Throughput("2 dispatchers https", dispatchers=2, scheme="https"),
)


def chosen(only: str | None) -> list[Scenario]:
    """The scenarios that `--only` names, in their own order."""
    wanted = [part.strip() for part in (only or "*").split(",")]
    found = [
        s for s in SCENARIOS if any(s.name == w or (w.endswith("*") and s.name.startswith(w[:-1])) for w in wanted)
    ]
    if not found:
        raise BenchError(f"no scenario is called {only}; see --list")
    return found
