"""What the receiver and one core could do: a bare `aiohttp.ClientSession` loop, and wrk."""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import uvloop
from sender import BODY, bare, sign

_WRK_SCRIPT = """
wrk.method = "POST"
wrk.body = [==[{body}]==]
{headers}
"""


def session_loop(url: str, ca: Path, connections: int, count: int) -> dict[str, float]:
    """Requests per second and CPU of one core that does nothing but `ClientSession.post`, in a process of its own."""
    command = [sys.executable, __file__, url, str(ca), str(connections), str(count)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=300)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def wrk(url: str, connections: int, seconds: float) -> dict[str, Any] | None:
    """The same request sent by wrk, one thread; None where it is not installed."""
    program = shutil.which("wrk")
    if program is None:
        return None
    headers = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in sign(1))
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_WRK_SCRIPT.format(body=BODY.decode(), headers=headers))
        script.flush()
        command = [program, "-t1", f"-c{connections}", f"-d{seconds:g}s", "-s", script.name, url]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 30)
    found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    assert found is not None, done.stdout
    return {"per_s": float(found[1])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("ca", type=Path)
    parser.add_argument("connections", type=int)
    parser.add_argument("count", type=int)
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print(json.dumps(uvloop.run(bare(options.url, options.ca, options.connections, options.count))))


if __name__ == "__main__":
    main()
