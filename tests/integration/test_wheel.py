"""What users install: the wheel, in an environment that holds nothing else."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path) -> str:
    # What the tests' own environment knows must not help.
    clean = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "GO2HOOKS_", "VIRTUAL_ENV"))
    }
    result = subprocess.run(list(map(str, command)), cwd=cwd, env=clean, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment in which the wheel was installed, without extras."""
    directory = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    run(*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", directory, ROOT, cwd=directory)
    (wheel,) = directory.glob("go2hooks-*.whl")
    venv.create(directory / "venv", with_pip=False)
    python = directory / "venv" / "bin" / "python"
    run(*pip, "--python", python, "install", "--quiet", "--constraint", ROOT / "constraints.txt", wheel, cwd=directory)
    return python.parent


def test_the_command_line_starts_without_any_extra(installed: Path, tmp_path: Path):
    assert "dispatcher" in run(installed / "go2hooks", "--help", cwd=tmp_path)
    for command in (
        "up",
        "api",
        "router",
        "dispatcher",
        "migrate",
        "topics",
        "keys",
        "emit",
        "listen",
        "doctor",
        "config",
    ):
        assert "Usage:" in run(installed / "go2hooks", command, "--help", cwd=tmp_path)


def test_a_schema_is_found_and_an_event_encoded(installed: Path, tmp_path: Path):
    script = """
from go2hooks.codec import EventCodec
from go2hooks.core.samples import example_payload
from go2hooks.producer import EventProducer
codec = EventCodec()
print(codec.decode(codec.encode(example_payload("click"))).type)
"""
    assert run(installed / "python", "-c", script, cwd=tmp_path) == "click\n"


def test_a_missing_extra_is_named(installed: Path, tmp_path: Path):
    result = subprocess.run([installed / "go2hooks", "up"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "pip install 'go2hooks[" in result.stderr


def test_everything_that_is_read_at_run_time_is_in_the_wheel(installed: Path, tmp_path: Path):
    script = """
import importlib.resources as resources
for package, pattern in (("go2hooks.postgres.migrations", "versions/*.sql"), ("go2hooks.local", "kafka-jars.txt"), ("schemas", "*.avsc")):
    folder = resources.files(package)
    print(bool(list(folder.glob(pattern))))
"""
    assert run(installed / "python", "-c", script, cwd=tmp_path) == "True\n" * 3
