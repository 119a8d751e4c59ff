"""What GitHub runs for us: targets that exist, code that nobody can exchange, and no more rights than a job needs."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted(ROOT.glob(".github/workflows/*.yml"))


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.stem)
def workflow(request: pytest.FixtureRequest) -> dict[str, Any]:
    return yaml.safe_load(request.param.read_text())


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job.get("steps", ())]


def test_every_action_is_named_by_the_hash_of_a_commit(workflow: dict[str, Any]):
    actions = [step["uses"] for step in steps(workflow) if "uses" in step]
    assert actions
    assert [action for action in actions if not re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", action)] == []


def test_nothing_may_be_written_unless_a_job_says_so(workflow: dict[str, Any]):
    assert workflow["permissions"] in ({}, {"contents": "read"})


def test_no_step_is_left_the_token_that_fetched_the_sources(workflow: dict[str, Any]):
    fetched = [step for step in steps(workflow) if step.get("uses", "").startswith("actions/checkout@")]
    assert all(step["with"]["persist-credentials"] is False for step in fetched)


def test_what_is_made_is_a_target_of_the_makefile(workflow: dict[str, Any]):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for job in workflow["jobs"].values():
        made = re.findall(r"\bmake (.+?) PYTHON=", "\n".join(step.get("run", "") for step in job.get("steps", ())))
        named = job["strategy"]["matrix"]["target"] if made == ["${{ matrix.target }}"] else made
        assert set(named) <= targets


def test_an_untrusted_text_is_never_part_of_a_command(workflow: dict[str, Any]):
    """A branch's name or a title may hold shell code: commands get such things by the environment."""
    allowed = {"${{ matrix.target }}"}
    for step in steps(workflow):
        assert set(re.findall(r"\$\{\{.*?\}\}", step.get("run", ""))) <= allowed
