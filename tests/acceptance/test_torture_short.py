"""The torture in short: half a minute under fire, nothing lost; and the checker sees the bugs that are planted."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KINDS = (
    "kill_dispatcher,kill_router,kill_broker,kill_postgres,cut_broker,storm,"
    "point:after_answer,point:after_retry,point:after_record,point:router_after_produce"
)


def torture(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench.torture", "--rate", "40", "--drain", "120", *arguments]
    with (tmp_path / "torture.log").open("w+") as log:
        process = subprocess.run(command, cwd=ROOT, stdout=log, stderr=log, timeout=600, check=False)
        log.seek(0)
        return subprocess.CompletedProcess(command, process.returncode, log.read())


def test_nothing_is_lost_under_fire(tmp_path):
    run = torture(tmp_path, "--minutes", "0.5", "--seed", "5", "--faults", "10", "--kinds", KINDS)
    print(run.stdout)
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize(
    ("bug", "kinds", "rule"),
    [
        ("commit-before-record", "kill_dispatcher", "an attempt was made and not recorded"),
        ("double-retry", "delay_receivers", "a duplicate that no fault explains"),
        ("drop-on-rebalance", "storm", "a record promises an attempt that nobody will make"),
    ],
)
@pytest.mark.skipif("GO2HOOKS_TEST_PLANTS" not in os.environ, reason="a minute each; GO2HOOKS_TEST_PLANTS=1 runs them")
def test_a_planted_bug_is_caught(tmp_path, bug, kinds, rule):
    faults = "0" if bug == "double-retry" else "5"
    run = torture(tmp_path, "--minutes", "0.4", "--seed", "7", "--faults", faults, "--kinds", kinds, "--plant", bug)
    assert run.returncode == 1, run.stdout
    assert rule in run.stdout
