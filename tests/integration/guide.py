"""Receivers made of the code of docs/verify.md, each a process of its own."""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from snippets import snippet
from waiting import eventually

from go2hooks.devstack.processes import free_port

SERVERS = Path(__file__).with_name("receivers")  # what makes a server of each snippet
FETCHING_S = 60


def put(directory: Path, *snippets: str, server: str | None = None) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name in snippets:
        (directory / name).write_text(snippet(name), encoding="utf-8")
    if server is not None:
        shutil.copy(SERVERS / server, directory)


def tool(name: str) -> str:
    """Where a program is; the test is skipped where it is not."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} on this machine")
    return found


def build(*command: str, cwd: Path, **env: str) -> None:
    subprocess.run(command, cwd=cwd, env=os.environ | env, capture_output=True, timeout=300, check=True)


def fetch(*command: str, cwd: Path) -> str | None:
    """Have a package manager fetch what is pinned; why it could not, if so."""
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=FETCHING_S, check=False)
    except subprocess.TimeoutExpired:
        return f"{' '.join(command)} took more than {FETCHING_S} s"
    said = (done.stderr or done.stdout).strip().splitlines() or [""]
    return f"{command[0]}: {said[0]}" if done.returncode else None


@contextmanager
def running(command: list[str], cwd: Path, secret: str) -> Iterator[int]:
    """The command as a process; the port that it listens on."""
    port = free_port()
    env = os.environ | {"PORT": str(port), "WEBHOOK_SECRET": secret}
    command = [part.replace("$PORT", str(port)) for part in command]
    with (
        (cwd / "log").open("wb") as log,
        subprocess.Popen(command, cwd=cwd, env=env, stdout=log, stderr=log) as process,
    ):
        try:
            eventually(lambda: process.poll() is not None or accepts(port))
            assert process.poll() is None, (cwd / "log").read_text()
            yield port
        finally:
            process.kill()


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def python(directory: Path) -> list[str]:
    has_library = importlib.util.find_spec("standardwebhooks") is not None
    put(directory, "verify.py", *["library.py"] * has_library, server="receiver.py")
    return [sys.executable, "receiver.py"]


def node(directory: Path) -> list[str]:
    program = tool("node")
    put(directory, "verify.mjs", server="node/plain.mjs")
    if fetch_npm_packages(directory) is None:
        put(directory, "library.mjs")
    return [program, "plain.mjs"]


def express(program: str, directory: Path) -> list[str]:
    put(directory, "verify.mjs", program)
    if why := fetch_npm_packages(directory):
        pytest.skip(f"express cannot be fetched: {why}")
    return [tool("node"), program]


@cache
def fetch_npm_packages(directory: Path) -> str | None:
    """Express and the library, once; why that failed, if so."""
    for name in ("package.json", "package-lock.json"):
        (directory / name).write_bytes((SERVERS / "node" / name).read_bytes())
    options = ("--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=0")
    return fetch(tool("npm"), "ci", *options, cwd=directory)


def go(directory: Path) -> list[str]:
    program = tool("go")
    put(directory / "webhooks", "verify.go")
    for name in ("main.go", "with_library.go", "go.mod", "go.sum"):
        (directory / name).write_bytes((SERVERS / "go" / name).read_bytes())
    if fetch(program, "mod", "download", cwd=directory) is None:
        put(directory / "webhooks", "library.go")
    else:
        (directory / "with_library.go").unlink()
    build(program, "build", "-o", "receiver", cwd=directory, CGO_ENABLED="0")
    return ["./receiver"]


def java(directory: Path) -> list[str]:
    compiler, program = tool("javac"), tool("java")
    put(directory, "Webhooks.java", server="Receiver.java")
    build(compiler, "-J-XX:TieredStopAtLevel=1", "-proc:none", "Webhooks.java", "Receiver.java", cwd=directory)
    return [program, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "Receiver"]


def php(directory: Path) -> list[str]:
    program = tool("php")
    put(directory, "verify.php", server="receiver.php")
    return [program, "-S", "127.0.0.1:$PORT", "receiver.php"]


def ruby(directory: Path) -> list[str]:
    program = tool("ruby")
    put(directory, "verify.rb", server="receiver.rb")
    return [program, "receiver.rb"]


def csharp(directory: Path) -> list[str]:
    compiler, program = tool("mcs"), tool("mono")
    put(directory, "Webhooks.cs", server="Receiver.cs")
    build(compiler, "-out:Receiver.exe", "Webhooks.cs", "Receiver.cs", cwd=directory)
    return [program, "Receiver.exe"]
