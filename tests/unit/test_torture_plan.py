"""What a torture run is made of comes from its seed; a long run leaves nothing out."""

from collections import Counter
from itertools import pairwise

import pytest

from bench.torture.plan import FAULT_KINDS, LONG_STOP_S, ROOMS_S, Planned, parse, plan_faults, plan_hooks

LONG = ["--minutes", "30", "--rate", "180"]
SECONDS = 1800


def planned(*arguments: str) -> list[Planned]:
    return plan_faults(parse(["--seed", "1", *arguments]))


def test_the_same_seed_gives_the_same_run():
    assert planned(*LONG) == planned(*LONG)
    assert planned(*LONG) != plan_faults(parse(["--seed", "2", *LONG]))
    assert plan_hooks(parse(["--seed", "1"])) == plan_hooks(parse(["--seed", "1"]))


@pytest.mark.parametrize("seed", range(1, 6))
def test_a_long_run_has_every_kind_and_a_stop_of_40_s_and_more_than_60_faults(seed):
    faults = plan_faults(parse(["--seed", str(seed), *LONG]))
    assert set(FAULT_KINDS) == {fault.kind for fault in faults}
    assert faults[0] == Planned(10.0, "stop_dispatcher", LONG_STOP_S)
    assert len(faults) > 90
    assert all(0 < fault.at < 0.92 * SECONDS for fault in faults)


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
