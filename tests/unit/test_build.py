"""Which build runs: a compiled one of exactly these sources, or the plain modules, and the reason."""

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.machinery import ExtensionFileLoader
from pathlib import Path

import pytest

from go2hooks.build import BUILD, SUFFIX, VARIABLE, BuildRefusedError, CompiledFinder, choose, directory_for
from go2hooks.core.flow import lanes

PYPROJECT = """
[project]
name = "go2hooks"

[tool.hatch.build.targets.wheel.hooks.custom]
include = [
    "/go2hooks/core/flow/lanes.py",
]

[tool.ruff]
line-length = 120
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    for package in ("go2hooks/core/flow", "services/router", "schemas"):
        (tmp_path / package).mkdir(parents=True)
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "go2hooks/core/flow/lanes.py").write_text("LIMIT = 1\n")
    return tmp_path


@pytest.fixture
def compiled(checkout: Path) -> Path:
    """The directory of a build of that checkout."""
    directory = directory_for(checkout)
    (directory / "go2hooks/core/flow").mkdir(parents=True)
    (directory / f"go2hooks/core/flow/lanes{SUFFIX}").touch()
    return directory


def test_a_build_of_exactly_these_sources_runs(checkout, compiled):
    assert choose("auto", checkout) == ("compiled", "", compiled)
    assert choose("compiled", checkout) == ("compiled", "", compiled)


def test_without_a_build_the_plain_modules_run(checkout):
    assert str(choose("auto", checkout)) == "plain: nothing has been compiled yet; `make compiled` does it"


def edit(root: Path) -> None:
    (root / "go2hooks/core/flow/lanes.py").write_text("LIMIT = 2\n")


def add(root: Path) -> None:
    (root / "services/router/new.py").touch()


def remove(root: Path) -> None:
    (root / "schemas/__init__.py").unlink()


def rename(root: Path) -> None:
    (root / "go2hooks/core/flow/lanes.py").rename(root / "go2hooks/core/lines.py")


def move_a_line_to_the_next_file(root: Path) -> None:
    (root / "go2hooks/core/flow/lanes.py").write_text("")
    (root / "schemas/__init__.py").write_text("LIMIT = 1\n")


def compile_more(root: Path) -> None:
    (root / "pyproject.toml").write_text(PYPROJECT.replace("lanes.py", "*.py"))


@pytest.mark.parametrize(
    "change",
    [edit, add, remove, rename, move_a_line_to_the_next_file, compile_more],
    ids=lambda change: change.__name__,
)
def test_a_change_of_the_sources_is_never_ignored(checkout, compiled, change: Callable[[Path], None]):
    change(checkout)
    why = "the sources have changed since they were compiled; `make compiled` does it"
    assert choose("auto", checkout) == ("plain", why, None)


def test_taking_a_change_back_makes_the_build_good_again(checkout, compiled):
    edit(checkout)
    (checkout / "go2hooks/core/flow/lanes.py").write_text("LIMIT = 1\n")
    assert choose("auto", checkout).kind == "compiled"


def test_what_is_no_source_changes_nothing(checkout, compiled):
    (checkout / "pyproject.toml").write_text(PYPROJECT.replace("120", "100"))
    (checkout / "go2hooks/core/.#lanes.py").symlink_to("somebody@somewhere.1:2")  # Emacs, while it is edited
    (checkout / "go2hooks/core/__pycache__").mkdir()
    (checkout / "go2hooks/core/__pycache__/lanes.py").touch()
    (checkout / "go2hooks/py.typed").touch()
    (checkout / "tests.py").touch()
    assert choose("auto", checkout).kind == "compiled"


def test_a_build_that_is_not_finished_is_none(checkout, compiled):
    compiled.rename(compiled.with_name("tmpk3jx2"))
    assert choose("auto", checkout).kind == "plain"


def test_a_build_for_another_python_is_none(checkout, compiled):
    compiled.rename(compiled.with_name(compiled.name.replace("cpython-3", "cpython-2")))
    assert str(choose("auto", checkout)) == "plain: nothing has been compiled yet; `make compiled` does it"


def test_plain_is_plain_whatever_has_been_compiled(checkout, compiled):
    assert choose("plain", checkout) == ("plain", "GO2HOOKS_BUILD says so", None)


def test_who_asks_for_the_compiled_build_gets_no_other(checkout, compiled):
    edit(checkout)
    with pytest.raises(BuildRefusedError, match="the sources have changed since they were compiled; `make compiled`"):
        choose("compiled", checkout)


@pytest.mark.parametrize(("kind", "other"), [("plain", "compiled"), ("compiled", "plain")])
def test_an_installed_wheel_leaves_nothing_to_choose(tmp_path, kind, other):
    (tmp_path / "go2hooks/core/flow").mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'left behind by another wheel'\n")
    if kind == "compiled":
        (tmp_path / f"go2hooks/core/flow/lanes{SUFFIX}").touch()
    assert choose("auto", tmp_path) == choose(kind, tmp_path) == (kind, "", None)
    with pytest.raises(
        BuildRefusedError, match=f"GO2HOOKS_BUILD is {other}, but the modules installed here are {kind}"
    ):
        choose(other, tmp_path)


def test_the_finder_finds_the_modules_of_the_build_alone(compiled):
    (compiled / f"ab12__mypyc{SUFFIX}").touch()
    finder = CompiledFinder(compiled)
    spec = finder.find_spec("go2hooks.core.flow.lanes")
    assert spec is not None
    assert isinstance(spec.loader, ExtensionFileLoader)
    assert spec.origin == str(compiled / f"go2hooks/core/flow/lanes{SUFFIX}")
    assert finder.find_spec("ab12__mypyc") is not None
    for name in ("go2hooks", "go2hooks.core", "go2hooks.core.flow.lane", "lanes", "json"):
        assert finder.find_spec(name) is None


def test_what_is_said_to_run_runs():
    assert lanes.__file__.endswith(SUFFIX if BUILD.kind == "compiled" else ".py")


@pytest.mark.parametrize("module", ["go2hooks.core.flow.lanes", "services.dispatcher.http.wire"])
def test_every_process_runs_the_build_that_its_environment_names(module):
    code = f"import {module} as found; print(found.__file__)"
    shown = subprocess.run(
        [sys.executable, "-P", "-c", code], env=os.environ | {VARIABLE: BUILD.kind}, capture_output=True, check=True
    )
    assert shown.stdout.decode().strip().endswith(SUFFIX if BUILD.kind == "compiled" else ".py")


def test_a_build_that_does_not_exist_is_refused_with_one_line():
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "services.router"],
        env=os.environ | {VARIABLE: "fast"}, capture_output=True, check=False, text=True,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (
        2,
        "error: GO2HOOKS_BUILD is 'fast': it must be auto, compiled or plain\n",
    )
