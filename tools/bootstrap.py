"""Make `.venv`: packages as pinned in constraints.txt, and this tree as an editable install.

Standard library only, and readable by any Python 3.6, so that an older one gets a clear message. `make setup` runs it.
"""

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

MINIMUM = (3, 11)
NEEDED_BYTES = 2_000_000_000
ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = str(VENV / "bin" / "python")
ON_TERMINAL = sys.stdout.isatty()
CLEAR_LINE = "\r\x1b[K" if ON_TERMINAL else ""

# What pip and venv say, and what to do about it.
REMEDIES = {
    r"No space left on device": "The disk is full: free 2 GB, then run it again.",
    r"Permission denied": "Something here cannot be written: change its owner, or clone to another place.",
    r"NewConnectionError|NameResolutionError|Temporary failure|ConnectTimeout|ProxyError|Network is unreachable"
    r"|Max retries|No matching distribution": "The package index cannot be reached. It is needed once: connect to the "
    "network, or name your mirror or proxy (PIP_INDEX_URL, HTTPS_PROXY), then run it again.",
    r"ensurepip": "This Python's venv module is incomplete. On Debian and Ubuntu: apt install python3-venv",
}


def main() -> None:
    if sys.version_info < MINIMUM:
        here = ".".join(map(str, sys.version_info[:3]))
        fail(
            f"Python {here} is too old: 3.11 or newer is needed. Install one, then: make setup PYTHON=/path/to/python3"
        )
    if shutil.disk_usage(str(ROOT)).free < NEEDED_BYTES:
        fail(f"The disk that holds {ROOT} is nearly full: free 2 GB, then run it again.")
    if not venv_is_usable():
        run("Making .venv", sys.executable, "-m", "venv", "--clear", str(VENV))
    pip = (PYTHON, "-m", "pip", "--disable-pip-version-check", "install", "--constraint", str(ROOT / "constraints.txt"))
    run("Installing the build tools", *pip, "hatchling", "editables")
    run(
        "Installing the packages, about a minute the first time",
        *pip,
        "--no-build-isolation",
        "--editable",
        f"{ROOT}[dev]",
    )


def venv_is_usable() -> bool:
    """Whether .venv is there, new enough, complete, and was not moved here from elsewhere."""
    check = f"import sys, pip; sys.exit(sys.version_info < {MINIMUM} or sys.prefix != {str(VENV)!r})"
    try:
        return subprocess.call([PYTHON, "-c", check], stderr=subprocess.DEVNULL) == 0
    except OSError:
        return False


def run(what: str, *command: str) -> None:
    """Run a long step; on a terminal one moving line shows that it moves. What it said is shown when it fails."""
    print(f"{what} …", end="" if ON_TERMINAL else "\n", flush=True)
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=str(ROOT), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = []
    for line in process.stdout or ():
        said.append(line)
        if ON_TERMINAL:
            print(f"{CLEAR_LINE}{what} … {line.strip()[:60]}", end="", flush=True)
    if process.wait() != 0:
        explain(what, "".join(said[-30:]))
    print(f"{CLEAR_LINE}{what}: done in {time.monotonic() - started:.0f} s", flush=True)


def explain(what: str, said: str) -> None:
    remedy = next((remedy for pattern, remedy in REMEDIES.items() if re.search(pattern, said)), "See above.")
    fail(f"\n{said}\n{what} failed. {remedy}")


def fail(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.exit(1)


if __name__ == "__main__":
    main()
