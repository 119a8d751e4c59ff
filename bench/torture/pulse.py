"""Notes when this process was held up by the machine: a thread that wants to run ten times a second, and did not.

What keeps the event loop busy leaves this thread alone: that is no excuse.
"""

import json
import os
import threading
import time
from pathlib import Path
from typing import Final

BEAT_S: Final = 0.1
LATE_S: Final = 0.5
_wall = time.time  # as it is before anybody shifts it


def start(path: Path, name: str) -> None:
    """Append [name, process id, from, until] to the file each time that this process stood still, for as long as it lives."""
    threading.Thread(target=_beat, args=(path, name), name="pulse", daemon=True).start()


def _beat(path: Path, name: str) -> None:
    last = time.monotonic()
    while True:
        time.sleep(BEAT_S)
        now = time.monotonic()
        if now - last > LATE_S:
            until = _wall()
            line = json.dumps([name, os.getpid(), until - (now - last), until]) + "\n"
            with path.open("a") as file:  # one short write, which other processes' do not mix with
                file.write(line)
        last = now
