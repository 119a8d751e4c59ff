"""A real PgBouncer in front of the tests' Postgres."""

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from go2hooks.devstack.processes import free_port

BINARY = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
needs_pgbouncer = pytest.mark.skipif(BINARY is None, reason="no pgbouncer here: apt-get install pgbouncer")


@contextmanager
def pgbouncer(url: str, directory: Path, mode: str, others: Mapping[str, str] | None = None) -> Iterator[str]:
    """The same database through a pooler with its defaults, in this mode; `others` are passwords of further users."""
    parts = urlsplit(url)
    port = free_port(None)
    directory.mkdir(parents=True, exist_ok=True)
    users, config = directory / "users.txt", directory / "pgbouncer.ini"
    passwords = {str(parts.username): str(parts.password)} | dict(others or {})
    users.write_text("".join(f'"{user}" "{password}"\n' for user, password in passwords.items()))
    config.write_text(
        f"[databases]\n* = host={parts.hostname} port={parts.port}\n"
        f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
        f"auth_type = scram-sha-256\nauth_file = {users}\npool_mode = {mode}\n"
    )
    command = [str(BINARY), str(config)]
    if os.geteuid() == 0:  # it refuses root
        nobody = pwd.getpwnam("nobody")
        for path in (directory, users, config):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
        command[1:1] = ["-u", "nobody"]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            _wait_for(port, process, directory / "log")
            yield urlunsplit(parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{port}"))
        finally:
            process.terminate()
            process.wait(10)


def _wait_for(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 10
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
