"""The code of docs/verify.md that verifies a delivery, for the page that shows a secret."""

from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

_FILES: Final = Path(__file__).with_name("snippets")
FILES: Final = {
    "Python": "verify.py",
    "Node.js": "verify.mjs",
    "Go": "verify.go",
    "Java": "Webhooks.java",
    "PHP": "verify.php",
    "Ruby": "verify.rb",
    "C#": "Webhooks.cs",
}  #: as docs/verify.md calls them


class Snippet(NamedTuple):
    """A file to copy."""

    language: str
    file: str
    code: str


@cache
def snippets() -> list[Snippet]:
    return [
        Snippet(language, file, (_FILES / f"{file}.txt").read_text(encoding="utf-8"))
        for language, file in FILES.items()
    ]
