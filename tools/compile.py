"""Build the path of an event and of a delivery as machine code, into build/compiled: what the image runs, from one source.

`make compiled` runs it. Which modules are compiled (by mypyc) is said in pyproject.toml. Whoever has build/compiled first in
PYTHONPATH runs them; everybody else runs the plain modules, so that nothing stale is ever imported by accident.
"""

import os
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path

from bootstrap import PYTHON, ROOT, fail, run

TARGET = ROOT / "build" / "compiled"


def main() -> None:
    shutil.rmtree(TARGET, ignore_errors=True)
    missing = what_is_missing()
    if missing and "--or-plain" in sys.argv:
        print(f"{missing} What follows runs the plain modules.", flush=True)
        return
    if missing:
        fail(missing)
    os.environ["HATCH_BUILD_HOOKS_ENABLE"] = "1"
    pip = (PYTHON, "-m", "pip", "--disable-pip-version-check")
    with tempfile.TemporaryDirectory() as directory:  # from a source package: compiling leaves its traces in the tree
        run("Packing the sources", PYTHON, "-m", "hatchling", "build", "--target", "sdist", "--directory", directory)
        (sources,) = Path(directory).glob("*.tar.gz")
        wheel = ("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", directory, str(sources))
        run("Compiling, about a minute", *pip, *wheel)
        (built,) = Path(directory).glob("*.whl")
        run("Putting it into build/compiled", *pip, "install", "--no-deps", "--target", str(TARGET), str(built))
    os.environ["PYTHONPATH"] = str(TARGET)
    run(
        "Trying it",
        PYTHON,
        "-P",
        "-c",
        "from go2hooks.core import lanes; assert not lanes.__file__.endswith('.py'), lanes",
    )


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
