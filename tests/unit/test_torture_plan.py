"""What a torture run is made of comes from its seed; a long run leaves nothing out."""

from collections import Counter
from itertools import pairwise

import pytest

from bench.torture.faults import Faults
from bench.torture.plan import (
    DISPATCHER_POINTS,
    FAULT_KINDS,
    LONG_STOP_S,
    ROOMS_S,
    ROUTER_POINTS,
    Planned,
    parse,
    plan_faults,
    plan_hooks,
)

LONG = ["--minutes", "30", "--rate", "180"]
SHORTEST = ["--minutes", "20", "--rate", "260"]  # that has 300,000 events
SECONDS = 1800


def planned(*arguments: str) -> list[Planned]:
    return plan_faults(parse(["--seed", "1", *arguments]))


def test_the_same_seed_gives_the_same_run():
    assert planned(*LONG) == planned(*LONG)
    assert planned(*LONG) != plan_faults(parse(["--seed", "2", *LONG]))
    assert plan_hooks(parse(["--seed", "1"])) == plan_hooks(parse(["--seed", "1"]))


def test_a_directory_that_has_somebodys_servers_is_refused(tmp_path, capsys):
    """A run would end with deleting them, as it does with its own: `go2hooks up` keeps its data under the same names."""
    assert parse(["--dir", str(tmp_path)]).directory == tmp_path
    (tmp_path / "kafka").mkdir()
    with pytest.raises(SystemExit):
        parse(["--dir", str(tmp_path)])
    assert "has kafka in it" in capsys.readouterr().err


@pytest.mark.parametrize("seed", [*range(1, 12), 101, 102, 103, 20261125])
@pytest.mark.parametrize("arguments", [LONG, SHORTEST])
def test_a_long_run_has_every_kind_and_a_stop_of_40_s_and_enough_faults_that_60_are_reached(seed, arguments):
    options = parse(["--seed", str(seed), *arguments])
    faults = plan_faults(options)
    assert set(FAULT_KINDS) == {fault.kind for fault in faults}
    assert faults[0] == Planned(10.0, "stop_dispatcher", LONG_STOP_S)
    assert len(faults) >= 60 / 0.88  # 7 % of the faults are points that nobody reaches, tried twice
    assert all(0 < fault.at < 0.92 * options.seconds for fault in faults)


def test_every_fault_that_the_torture_promises_is_among_the_kinds():
    assert {"storm", "disk_full", "skew_dispatcher", "stop_dispatcher", "lossy_broker", "lossy_receivers"} < set(
        FAULT_KINDS
    )
    assert {f"point:{name}" for name in (*DISPATCHER_POINTS, *ROUTER_POINTS)} < set(FAULT_KINDS)
    assert all(hasattr(Faults, f"_{kind.partition(':')[0]}") for kind in FAULT_KINDS)


@pytest.mark.parametrize("seed", [1, 101, 20261125])
def test_three_long_runs_in_a_row_have_each_kind_alone(seed):
    """In a run of 20 minutes half of the kinds find room to be alone."""
    alone: set[str] = set()
    for each in range(seed, seed + 3):
        first = [fault.kind for fault in plan_faults(parse(["--seed", str(each), *SHORTEST])) if fault.at < 0.5 * 1200]
        assert len(first) >= 12
        alone |= set(first)
    assert alone == set(FAULT_KINDS)


def test_first_in_a_long_run_faults_are_alone():
    alone = [fault for fault in planned(*LONG) if fault.at < 0.55 * SECONDS]
    assert all(after.at - before.at >= ROOMS_S[before.kind] for before, after in pairwise(alone))
    assert max(Counter(fault.kind for fault in alone).values()) <= 3


def test_a_short_run_has_one_every_five_seconds():
    faults = planned("--minutes", "1.5", "--rate", "60")
    assert len(faults) == 16
    assert all(0 < fault.at <= 0.92 * 90 for fault in faults)


def test_the_number_and_the_kinds_can_be_asked_for():
    assert {fault.kind for fault in planned("--faults", "9", "--kinds", "storm,kill_api")} == {"storm", "kill_api"}
    assert len(planned(*LONG, "--faults", "9")) == 9
    with pytest.raises(SystemExit):
        parse(["--kinds", "earthquake"])


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        LONG,
        ["--seed", "3", "--faults", "9", "--kinds", "storm,kill_api", "--plant", "double-retry", "--events", "70"],
    ],
)
def test_a_run_says_how_to_repeat_it(arguments):
    options = parse(arguments)
    assert parse(options.as_arguments().split()) == options
