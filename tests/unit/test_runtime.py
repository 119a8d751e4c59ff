"""SIGTERM, the drain, and its bounds, in processes of their own: signals are a process's."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from go2hooks.runtime import PARENT_VARIABLE

WAITING = """
import asyncio, time
from go2hooks.runtime import Shutdown
shutdown = Shutdown(drain_timeout_s={drain_s}).install()
print("up", flush=True)
"""


def start(script: str, drain_s: float = 5.0) -> subprocess.Popen:
    code = WAITING.format(drain_s=drain_s) + textwrap.dedent(script)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "up\n"
    return process


def ended(process: subprocess.Popen) -> tuple[str, str]:
    """What it printed since it was up, on stdout and stderr. Not by `communicate`: that misses what `readline` read ahead."""
    process.wait(60)
    with process.stdout, process.stderr:
        return process.stdout.read(), process.stderr.read()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's own way to say how large its table is")
@pytest.mark.parametrize(
    ("count", "limit", "most", "reserved"),
    [(3000, 4096, 4096, 3000), (3000, 1024, 1024, 1024), (3000, 1024, 4096, 3000), (3000, 1024, 2048, 2048)],
)
def test_descriptors_are_reserved_as_far_as_the_limit_allows_and_none_is_used_up(
    count: int, limit: int, most: int, reserved: int
):
    process = start(f"""
        import os, re, resource
        from go2hooks.runtime import reserve_descriptors
        resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {most}))
        before = os.listdir("/proc/self/fd")
        reserve_descriptors({count})
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == ({max(limit, reserved)}, {most})
        print(os.listdir("/proc/self/fd") == before, re.search(r"FDSize:\\s*(\\d+)", open("/proc/self/status").read())[1])
    """)
    out, err = ended(process)
    assert not err
    unchanged, size = out.split()
    assert unchanged == "True"
    assert reserved <= int(size) < 2 * reserved + 64


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("wait", ["shutdown.wait()", "asyncio.run(shutdown.wait_async())"])
def test_a_signal_ends_the_wait_and_leaves_the_whole_drain_time(number: signal.Signals, wait: str):
    process = start(f"{wait}\nprint(4.5 < shutdown.remaining_s() <= 5.0)")
    process.send_signal(number)
    assert ended(process) == ("True\n", "")
    assert process.returncode == 0


def test_a_drain_that_outlasts_its_time_is_cut_short():
    process = start("shutdown.wait()\ntime.sleep(60)", drain_s=0.3)
    process.send_signal(signal.SIGTERM)
    assert "longer than 0.3 s" in ended(process)[1]
    assert process.returncode == 1


def test_a_second_signal_ends_the_process_at_once():
    process = start("shutdown.wait()\nprint('draining', flush=True)\ntime.sleep(60)", drain_s=60)
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "draining\n"
    time.sleep(0.7)  # what comes at the same moment is one request
    process.send_signal(signal.SIGINT)
    assert "SIGINT came twice" in ended(process)[1]
    assert process.returncode == 1


def test_signals_to_a_process_and_to_its_group_are_one():
    process = start("shutdown.wait()\nprint('draining', flush=True)\ntime.sleep(0.2)\nprint('drained')", drain_s=60)
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
        process.send_signal(number)
    assert ended(process) == ("draining\ndrained\n", "")
    assert process.returncode == 0


def test_a_child_leaves_it_to_its_parent_to_end_it_at_once(monkeypatch: pytest.MonkeyPatch):
    """A service manager signals both, and the parent passes its signal on."""
    monkeypatch.setenv(PARENT_VARIABLE, str(os.getpid()))
    process = start("shutdown.wait()\nprint('draining', flush=True)\ntime.sleep(1)\nprint('drained')", drain_s=60)
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "draining\n"
    time.sleep(0.7)
    process.send_signal(signal.SIGTERM)
    assert ended(process) == ("drained\n", "")
    assert process.returncode == 0


def test_a_request_from_within_begins_the_drain():
    process = start("shutdown.request('fatal error')\nshutdown.wait()\nprint(shutdown.requested)")
    assert ended(process)[0] == "True\n"


def test_a_callback_that_comes_late_is_called_at_once():
    process = start("shutdown.request('x')\nshutdown.wait()\nshutdown.on_request(lambda: print('called'))")
    assert ended(process)[0] == "called\n"
