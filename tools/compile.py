"""Compile the path of an event and of a delivery to machine code, into build/compiled: what a checkout runs, from one source.

`make compiled` runs it. Which modules are compiled (by mypyc) is said in pyproject.toml; when a build is used, in
go2hooks/build.py. A build that is there already is left alone; an older one goes once the new one is whole.
"""

import os
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path

from bootstrap import PYTHON, ROOT, fail, run

os.environ["GO2HOOKS_BUILD"] = "auto"  # compiling is not refused for what has not been compiled yet

from go2hooks.build import SUFFIX, directory_for

BUILDS = ROOT / "build" / "compiled"


def main() -> None:
    target = directory_for(ROOT)
    if target.is_dir():
        return
    missing = what_is_missing()
    if missing and "--or-plain" in sys.argv:
        print(f"{missing} What follows runs the plain modules.", flush=True)
        return
    if missing:
        fail(missing)
    BUILDS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILDS, prefix=".new-") as directory:
        compile_into(Path(directory))
        if directory_for(ROOT) != target:
            fail("The sources changed while they were compiled: run it again.")
        (Path(directory) / "modules").rename(target)
    for other in BUILDS.iterdir():
        if other != target and not other.name.startswith("."):
            shutil.rmtree(other)
    run(
        "Trying it",
        PYTHON,
        "-P",
        "-c",
        "from go2hooks.core import lanes; assert not lanes.__file__.endswith('.py'), lanes",
    )


def compile_into(directory: Path) -> None:
    """Leave the compiled modules in `directory`/modules, and nothing else."""
    modules = directory / "modules"
    os.environ["HATCH_BUILD_HOOKS_ENABLE"] = "1"
    pip = (PYTHON, "-m", "pip", "--disable-pip-version-check")
    # From a source package: compiling leaves its traces in the tree.
    run("Packing the sources", PYTHON, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(directory))
    (sources,) = directory.glob("*.tar.gz")
    wheel = ("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(directory), str(sources))
    run("Compiling, about a minute", *pip, *wheel)
    (built,) = directory.glob("*.whl")
    run("Putting it into build/compiled", *pip, "install", "--no-deps", "--target", str(modules), str(built))
    for path in list(modules.rglob("*")):
        if path.is_file() and not path.name.endswith(SUFFIX):
            path.unlink()


def what_is_missing() -> str:
    """What there is no compiling without, and how to get it; empty when all is there."""
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        return f"There is no C compiler ({compiler}). On Debian and Ubuntu: apt install gcc."
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "This Python's headers (Python.h) are missing. On Debian and Ubuntu: apt install python3-dev."
    return ""


if __name__ == "__main__":
    main()
