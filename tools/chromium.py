"""Say where a Chromium is, for the tests of the dashboard; install Debian's where there is none and we may.

Exits with 77 where none can be had here.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chrome")
NONE_HERE = 77  # as Automake's tests say "skipped"


def find() -> str | None:
    named = os.environ.get("CHROMIUM")
    return shutil.which(named) if named else next(filter(None, map(shutil.which, NAMES)), None)


def install() -> None:
    """From Debian's or Ubuntu's archive, as root alone. Says nothing where that is not possible: `find` tells."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None or Path("/etc/os-release").read_text().find("debian") < 0:
        return
    print("Installing Chromium …", file=sys.stderr, flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    apt = (
        "apt-get",
        "-qq",
        "-o",
        "DPkg::Lock::Timeout=120",
        "-o",
        "Acquire::http::Timeout=20",
        "-o",
        "Acquire::Retries=1",
    )
    for command in ([*apt, "update"], [*apt, "install", "--yes", "--no-install-recommends", "chromium"]):
        subprocess.run(command, env=environment, stdout=sys.stderr, check=False)


def main() -> int:
    if find() is None:
        install()
    found = find()
    if found is None:
        print(
            "No Chromium is here and none can be installed: apt-get install chromium, or name one (CHROMIUM=/path/to/it).",
            file=sys.stderr,
        )
        return NONE_HERE
    print(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
