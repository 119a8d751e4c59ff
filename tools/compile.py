"""Compile what every event and delivery passes to machine code, into build/compiled; `make compiled` runs it.

Which modules those are, and with which options of mypyc, is said in pyproject.toml; when a build is used, in go2hooks/build.py.
A build of exactly these sources that is there already is left alone; older ones go once the new one is whole. A compiled wheel
takes its modules from there too (tools/hatch_build.py).
"""

import fcntl
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILDS = ROOT / "build" / "compiled"
os.environ["GO2HOOKS_BUILD"] = "auto"  # compiling is not refused because nothing has been compiled yet
sys.path.insert(0, str(ROOT))

from go2hooks.build import directory_for  # noqa: E402  # now it is found, and not refused


def main() -> None:
    if directory_for(ROOT).is_dir():
        return
    missing = what_is_missing()
    if missing and "--or-plain" in sys.argv:
        print(f"Not compiled, so everything costs twice the CPU: {missing} Then: make compiled", flush=True)
    elif missing:
        sys.exit(f"Not compiled: {missing}")
    else:
        with one_at_a_time():
            make_build()


def what_is_missing() -> str:
    """What there is no compiling without, and how to get it; empty when all is there."""
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        return f"there is no C compiler ({compiler}). On Debian and Ubuntu: apt install gcc."
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "this Python's headers (Python.h) are missing. On Debian and Ubuntu: apt install python3-dev."
    return ""


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Whoever comes second waits, and finds the build that the first one made."""
    BUILDS.mkdir(parents=True, exist_ok=True)
    with (BUILDS / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def make_build() -> None:
    """A build of today's sources, and no other, is in `BUILDS` afterwards."""
    target = directory_for(ROOT)
    if target.is_dir():
        return
    with tempfile.TemporaryDirectory(dir=BUILDS) as directory:
        made = Path(directory) / "modules"
        command = [sys.executable, str(ROOT / "tools" / "run_mypyc.py"), str(made), str(Path(directory) / "between")]
        if subprocess.call(command, cwd=ROOT) != 0:
            sys.exit("Compiling failed, see above. All else works, on the plain modules.")
        if directory_for(ROOT) != target:
            sys.exit("The sources changed while they were compiled: run it again.")
        made.rename(target)
    for other in BUILDS.iterdir():
        if other.is_dir() and other != target:
            shutil.rmtree(other)


if __name__ == "__main__":
    main()
