"""What others use of the machine is told apart from what the torture uses itself."""

import io
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from bench.torture import machine, pulse

linux_only = pytest.mark.skipif(not machine._STAT.exists(), reason="reads /proc")
BURN = "import time\nwhile time.process_time() < 0.3: pass\nprint('burnt', flush=True)\ninput()"


@linux_only
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


@linux_only
def test_what_a_process_of_somebody_else_uses_is_not(monkeypatch):
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert machine._ours() == {}


@linux_only
def test_it_notes_every_second_until_it_is_stopped(monkeypatch):
    log = io.StringIO()
    watching = machine.Others(log)
    waits = iter([False, False, True])
    monkeypatch.setattr(watching._over, "wait", lambda _: next(waits))
    watching.start()
    watching.stop()
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert len(lines) == 2
    assert all(cores >= 0 for _at, cores in lines)


def test_a_process_that_stood_still_says_when(tmp_path, monkeypatch):
    ticks = iter([100.0, 100.1, 102.0, 102.1])
    monkeypatch.setattr(pulse, "time", SimpleNamespace(sleep=lambda _: None, monotonic=lambda: next(ticks)))
    with pytest.raises(StopIteration):  # when there are no more
        pulse._beat(tmp_path / "held_up.jsonl", "dispatcher-0")
    (line,) = (tmp_path / "held_up.jsonl").read_text().splitlines()
    name, pid, began, ended = json.loads(line)
    assert (name, pid, round(ended - began, 3)) == ("dispatcher-0", os.getpid(), 1.9)
