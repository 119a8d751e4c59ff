"""Choose the build of our modules that this process runs: a compiled one of exactly these sources, else plain.

In a checkout, a build is in build/compiled, in a directory named after the digest of its sources
(tools/compile.py makes it, and names it last). So a build that is found is complete and of the present sources: an edit
is never ignored. In an installed wheel there is no choice: it has compiled modules or it has not.

`go2hooks` and `services` run this before they import anything else, once per process, in a few milliseconds.
"""

import hashlib
import os
import sys
from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader, ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Final, NamedTuple

VARIABLE: Final = "GO2HOOKS_BUILD"
SUFFIX: Final = EXTENSION_SUFFIXES[0]  #: of modules that this Python can load, such as .cpython-311-x86_64-linux-gnu.so
_FOR_US: Final = f"-{SUFFIX.split('.')[1]}"
_ROOT: Final = Path(__file__).parent.parent
_PACKAGES: Final = ("go2hooks", "schemas", "services")
_TABLE: Final = b"[tool.hatch.build.targets.wheel.hooks.custom]\n"  # in pyproject.toml: what is compiled, and how


class BuildRefusedError(Exception):
    """GO2HOOKS_BUILD asks for what is not there."""


class Build(NamedTuple):
    """What runs here."""

    kind: str  #: `compiled` or `plain`
    why: str = ""  #: it is plain, in a checkout
    directory: Path | None = None  #: of the compiled modules, in a checkout

    def __str__(self) -> str:
        return f"{self.kind}: {self.why}" if self.why else self.kind


def choose(wanted: str, root: Path) -> Build:
    """The build to run from `root`: a checkout, or the directory of an installed wheel.

    Raises BuildRefusedError when it is not the one that is `wanted` (`auto` takes either).
    """
    if wanted not in ("auto", "compiled", "plain"):
        raise BuildRefusedError(f"{VARIABLE} is {wanted!r}: it must be auto, compiled or plain")
    configuration = _configuration(root)
    return _of_wheel(wanted, root) if configuration is None else _of_checkout(wanted, root, configuration)


def directory_for(root: Path) -> Path:
    """The directory for a build of the sources in the checkout `root`, for this Python."""
    return _directory(root, _configuration(root) or b"")


def _of_checkout(wanted: str, root: Path, configuration: bytes) -> Build:
    if wanted == "plain":
        return Build("plain", f"{VARIABLE} says so")
    directory = _directory(root, configuration)
    if directory.is_dir():
        return Build("compiled", directory=directory)
    others = any(directory.parent.glob(f"*{_FOR_US}"))
    why = "the sources have changed since they were compiled" if others else "nothing has been compiled yet"
    if wanted == "compiled":
        raise BuildRefusedError(f"{VARIABLE} is compiled, but {why}; `make compiled` does it")
    return Build("plain", f"{why}; `make compiled` does it")


def _of_wheel(wanted: str, root: Path) -> Build:
    kind = "compiled" if any((root / "go2hooks" / "core").rglob(f"*{SUFFIX}")) else "plain"
    if wanted not in ("auto", kind):
        raise BuildRefusedError(f"{VARIABLE} is {wanted}, but the modules installed here are {kind}")
    return Build(kind)


def _directory(root: Path, configuration: bytes) -> Path:
    return root / "build" / "compiled" / f"{_digest(root, configuration)}{_FOR_US}"


def _configuration(root: Path) -> bytes | None:
    """What pyproject.toml says about compiling; None where `root` is no checkout."""
    try:
        _before, found, rest = (root / "pyproject.toml").read_bytes().partition(_TABLE)
    except FileNotFoundError:
        return None
    return rest.partition(b"\n[")[0] if found else None


def _digest(root: Path, configuration: bytes) -> str:
    """The digest of all our Python files and their names: a compiled module may include values from any other."""
    found = hashlib.blake2b(configuration, digest_size=16)
    for path in sorted(path for package in _PACKAGES for path in _sources(f"{root}{os.sep}{package}")):
        with open(path, "rb") as file:  # noqa: PTH123  # of 200 files, and twice as fast
            content = file.read()
        found.update(f"\0{path[len(str(root)) :]}\0{len(content)}\0".encode())
        found.update(content)
    return found.hexdigest()


def _sources(directory: str) -> list[str]:
    """Every Python file in and below it. Names that begin with a dot are an editor's."""
    found = []
    with os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.startswith((".", "__pycache__")):
                continue
            if entry.is_dir():
                found += _sources(entry.path)
            elif entry.name.endswith(".py"):
                found.append(entry.path)
    return found


class CompiledFinder:
    """A finder for sys.meta_path, before all others: finds the modules of a build, and no others."""

    def __init__(self, directory: Path) -> None:
        within = len(directory.parts)
        self._files = {
            ".".join((*path.parts[within:-1], path.name.removesuffix(SUFFIX))): str(path)
            for path in directory.rglob(f"*{SUFFIX}")
        }

    def find_spec(
        self, name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        file = self._files.get(name)
        if file is None:
            return None
        spec = ModuleSpec(name, ExtensionFileLoader(name, file), origin=file)
        spec.has_location = True
        return spec


def _activate() -> Build:
    """Choose for this process. Exits when GO2HOOKS_BUILD asks for a build that is not there."""
    try:
        build = choose(os.environ.get(VARIABLE) or "auto", _ROOT)
    except BuildRefusedError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    if build.directory is not None:
        sys.meta_path.insert(0, CompiledFinder(build.directory))
    return build


BUILD: Final = _activate()  #: that of this process
