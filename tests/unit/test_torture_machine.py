"""What others use of the machine is told apart from what the torture uses itself."""

import os
import subprocess
import sys

from bench.torture import machine

BURN = "import time\nwhile time.process_time() < 0.3: pass\nprint('burnt', flush=True)\ninput()"


def test_what_a_child_of_ours_uses_is_ours():
    busy, used = machine._busy(), sum(machine._ours().values())
    with subprocess.Popen([sys.executable, "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        ours = machine._ours()
        assert {os.getpid(), child.pid} <= ours.keys()
        assert ours[child.pid] >= 0.3 * machine._TICKS_PER_S - 2
        assert machine._busy() - busy >= sum(ours.values()) - used - 5
        child.communicate(b"\n")
    assert child.pid not in machine._ours()


def test_what_a_process_of_somebody_else_uses_is_not(monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert machine._ours() == {}
