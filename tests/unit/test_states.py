"""The state diagrams tell the truth: every arrow names a function that is there, and docs/states.md explains it."""

import ast
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from go2hooks.core.domain.outcome import State

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/states.md").read_text(encoding="utf-8")
DIAGRAMS = [ROOT / "docs/images/delivery-states.svg", ROOT / "docs/images/webhook-states.svg"]
SVG = "{http://www.w3.org/2000/svg}"


def functions(path: str) -> set[str]:
    """`Class.method`, and `module.function` for those outside of a class."""
    found = set()
    for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
        owner, members = (node.name, node.body) if isinstance(node, ast.ClassDef) else (Path(path).stem, [node])
        defined = [member for member in members if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef)]
        found |= {f"{owner}.{member.name}" for member in defined}
    return found


def arrows(diagram: Path) -> list[tuple[str, str]]:
    """The file that each arrow names, and the function that is written at it."""
    groups = [g for g in ET.parse(diagram).iter(f"{SVG}g") if "arrow" in g.get("class", "").split()]
    return [(g.get("data-file"), "".join(g.find(f"{SVG}text").itertext())) for g in groups]


def explained(diagram: Path) -> set[tuple[str, str]]:
    """Files and functions in the table that follows the diagram."""
    _, _, after = PAGE.partition(diagram.name)
    section, _, _ = after.partition("\n## ")
    return {
        (path, function) for function, path in re.findall(r"^\| `([\w.]+)` \| `([\w/.]+)` \|", section, re.MULTILINE)
    }


@pytest.mark.parametrize("diagram", DIAGRAMS, ids=lambda path: path.stem)
class TestDiagram:
    def test_every_arrow_names_a_function_that_exists(self, diagram):
        assert arrows(diagram)
        for path, function in arrows(diagram):
            assert function in functions(path), f"{path} has no {function}"

    def test_no_arrow_is_without_a_function(self, diagram):
        assert "marker-end" not in re.sub(r"\.arrow[.\w]* path\{[^}]*\}", "", diagram.read_text(encoding="utf-8"))

    def test_the_page_explains_every_arrow_and_no_other(self, diagram):
        assert explained(diagram) == set(arrows(diagram))


def test_the_page_says_when_a_delivery_gets_each_of_its_states():
    for state in State:
        assert f"ecorded as `{state}`" in PAGE
