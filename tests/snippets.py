"""The code that the documentation shows."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def snippet(name: str) -> str:
    """The code block of docs/verify.md that is marked with this file name."""
    page = (DOCS / "verify.md").read_text(encoding="utf-8")
    found = re.search(rf"<!-- {re.escape(name)} -->\n```\w+\n(.*?)```", page, re.DOTALL)
    assert found is not None, name
    return found[1]
