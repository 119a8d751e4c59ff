"""Run another program that is killed when its parent dies. `processes.Child` runs this as a script.

It is a program of its own, because this is not safe between fork and exec in a process with threads,
and because the kernel clears the death signal when the user changes: it must be set after that, before exec.
Standard library only: it starts in isolated mode, before any of our packages can be found.
"""

import argparse
import ctypes
import os
import sys


def _become_user(uid: int, gid: int) -> None:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def _die_with(parent: int, signal_number: int) -> None:
    if sys.platform != "linux":
        return  # on other systems the next start finds leftovers by their recorded pids
    libc = ctypes.CDLL(None, use_errno=True)
    set_death_signal = 1  # PR_SET_PDEATHSIG
    if libc.prctl(set_death_signal, signal_number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:  # it died before we asked to be told
        sys.exit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--death-signal", type=int, required=True)
    parser.add_argument("--uid", type=int)
    parser.add_argument("--gid", type=int)
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    if arguments.uid is not None:
        _become_user(arguments.uid, arguments.gid)
    _die_with(arguments.parent, arguments.death_signal)
    os.execv(arguments.command[0], arguments.command)  # noqa: S606  # becoming the given program is the whole task


if __name__ == "__main__":
    main()
