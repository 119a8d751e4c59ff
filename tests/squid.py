"""Squid, configured as docs/operators.md has it. Debian: `apt-get install squid`."""

import os
import pwd
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Final

OPERATORS: Final = Path(__file__).parents[1] / "docs" / "operators.md"
USER, PASSWORD = "go2", "p@ss:wörd"  # both are to be percent-encoded in a URL
USERINFO: Final = "go2:p%40ss%3Aw%C3%B6rd@"
_HELPER: Final = "/usr/lib/squid/basic_ncsa_auth"
READY_S: Final = 60.0

#: Why Squid cannot run here; None when it can.
MISSING: Final = (
    None
    if shutil.which("squid", path=f"{os.environ['PATH']}:/usr/sbin") and Path(_HELPER).exists()
    else "Squid is not installed (Debian: apt-get install squid)"
)


def documented() -> str:
    """The configuration that operators are given."""
    found = re.search(r"<!-- squid.conf -->\n```\n(.*?)```", OPERATORS.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    return found[1]


def refused_networks() -> list[IPv4Network | IPv6Network]:
    """What it calls `inside`."""
    lines = re.findall(r"^acl inside dst (.*)$", documented(), re.MULTILINE)
    return [ip_network(text) for line in lines for text in line.split()]


class Squid:
    """One that serves until `stop`, in `folder`, which other users must be able to enter: as root it changes its user."""

    def __init__(
        self,
        folder: Path,
        listen: str = "127.0.0.1",
        *,
        permit: Sequence[str] = (),
        hosts: str = "",
        pem: Path | None = None,
        prefix: Sequence[str] = (),
        port: int | None = None,
    ) -> None:
        """`permit`: inner addresses to let through. `hosts`: its /etc/hosts. `pem`: key and certificate of a TLS port beside
        the other. `prefix`: what to put before its command.
        """
        self.folder = folder
        self.port, self.tls_port = port or free_port(), free_port()
        self._write("passwords", f"{USER}:{_hashed(PASSWORD)}\n")
        self._write("hosts", hosts)
        self._write("squid.conf", self._config(listen, permit, pem))
        if os.geteuid() == 0:
            shutil.chown(folder, pwd.getpwnam("proxy").pw_name)
        command = [
            *prefix,
            shutil.which("squid", path="/usr/sbin:/usr/bin") or "squid",
            "-N",
            "-f",
            str(folder / "squid.conf"),
        ]
        with (folder / "out.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def until_ready(self) -> "Squid":
        deadline = time.monotonic() + READY_S
        while "Accepting HTTP Socket connections" not in self.log():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)
        return self

    def log(self) -> str:
        return "".join(path.read_text(errors="replace") for path in sorted(self.folder.glob("*.log")))

    def requests(self) -> list[str]:
        """What it has been asked for so far, and ended: `CONNECT host:port status`."""
        lines = (self.folder / "access.log").read_text().splitlines()
        return [f"{fields[5]} {fields[6]} {fields[3].partition('/')[2]}" for line in lines if (fields := line.split())]

    def stop(self) -> None:
        self.process.kill()
        self.process.wait(30)

    def _config(self, listen: str, permit: Sequence[str], pem: Path | None) -> str:
        config = documented()
        config = config.replace("http_port 3128", f"http_port {listen}:{self.port}")
        config = config.replace("/etc/squid/passwords", str(self.folder / "passwords"))
        if pem is not None:
            config = f"https_port {listen}:{self.tls_port} tls-cert={pem}\n{config}"
        if permit:
            exception = f"acl permitted dst {' '.join(permit)}\nhttp_access deny inside !permitted"
            assert "http_access deny inside\n" in config
            config = config.replace("http_access deny inside", exception)
        files = {"hosts_file": "hosts", "pid_filename": "squid.pid", "cache_log": "cache.log"}
        ours = [f"{name} {self.folder / file}" for name, file in files.items()]
        ours += [f"access_log stdio:{self.folder}/access.log", f"coredump_dir {self.folder}"]
        return "\n".join([config, *ours, "shutdown_lifetime 0 seconds", "pinger_enable off", ""])

    def _write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)
        (self.folder / name).chmod(0o644)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _hashed(password: str) -> str:
    done = subprocess.run(["openssl", "passwd", "-apr1", password], capture_output=True, text=True, check=True)
    return done.stdout.strip()
