"""tools/compile.py, in a small checkout of its own: what it leaves behind, and what it says when it cannot compile."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYPROJECT = """
[tool.hatch.build.targets.wheel.hooks.custom]
mypy-args = ["--strict"]
options = { opt_level = "0", debug_level = "0" }
modules = ["go2hooks/core/doubling.py", "go2hooks/core/limit.py"]
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Two modules that are compiled; the one knows the other's constant."""
    shutil.copytree(ROOT / "tools", tmp_path / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    for package in ("go2hooks/core", "services", "schemas"):
        (tmp_path / package).mkdir(parents=True)
    for copied in ("go2hooks/__init__.py", "go2hooks/build.py"):
        shutil.copy(ROOT / copied, tmp_path / copied)
    (tmp_path / "go2hooks/core/limit.py").write_text("from typing import Final\n\nLIMIT: Final = 2\n")
    (tmp_path / "go2hooks/core/doubling.py").write_text(
        "from go2hooks.core.limit import LIMIT\n\n\ndef limit() -> int:\n    return LIMIT\n"
    )
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    return tmp_path


def run(checkout: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name != "GO2HOOKS_BUILD"} | env
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=checkout, env=clean, capture_output=True, text=True, timeout=300, check=False)


def what_runs(checkout: Path) -> str:
    code = (
        "from go2hooks.build import BUILD; from go2hooks.core import doubling as d; "
        "print(BUILD.kind, d.limit(), d.__file__.endswith('.py'))"
    )
    return run(checkout, "-c", code).stdout.strip()


needs_compiler = pytest.mark.skipif(
    shutil.which((sysconfig.get_config_var("CC") or "cc").split()[0]) is None, reason="no C compiler on this machine"
)


@needs_compiler
def test_what_is_compiled_runs_until_a_source_changes_and_again_once_that_is_compiled(checkout: Path):
    assert what_runs(checkout) == "plain 2 True"
    made = run(checkout, "tools/compile.py")
    assert made.returncode == 0, made.stderr
    assert what_runs(checkout) == "compiled 2 False"
    assert run(checkout, "tools/compile.py").stdout == ""

    (checkout / "go2hooks/core/limit.py").write_text("from typing import Final\n\nLIMIT: Final = 3\n")
    assert what_runs(checkout) == "plain 3 True"
    assert run(checkout, "tools/compile.py").returncode == 0
    assert what_runs(checkout) == "compiled 3 False"
    assert len(list((checkout / "build/compiled").glob("[!.]*"))) == 1


@needs_compiler
def test_sources_that_do_not_compile_leave_nothing_behind_and_say_why(checkout: Path):
    (checkout / "go2hooks/core/limit.py").write_text("from typing import Final\n\nLIMIT: Final[str] = 3\n")
    failed = run(checkout, "tools/compile.py")
    assert failed.returncode != 0
    assert "go2hooks/core/limit.py:3: error: Incompatible types" in failed.stderr
    assert list((checkout / "build/compiled").glob("[!.]*")) == []
    assert what_runs(checkout) == "plain 3 True"


def test_without_a_c_compiler_one_line_says_so_and_what_to_do(checkout: Path):
    said = (
        "Not compiled, so everything costs twice the CPU: there is no C compiler (no-such-cc). "
        "On Debian and Ubuntu: apt install gcc. Then: make compiled\n"
    )
    setup = run(checkout, "tools/compile.py", "--or-plain", CC="no-such-cc")
    assert (setup.returncode, setup.stdout, setup.stderr) == (0, said, "")
    asked = run(checkout, "tools/compile.py", CC="no-such-cc")
    assert asked.returncode != 0
    assert "there is no C compiler (no-such-cc)" in asked.stderr
